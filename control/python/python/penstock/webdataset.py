"""For webdataset: shards by ``penstock://bucket/shard-000000.tar``.

    import penstock.webdataset, webdataset

    penstock.webdataset.register(endpoint="http://127.0.0.1:9000")
    dataset = webdataset.WebDataset("penstock://bucket/shard-{000000..000099}.tar")
"""

from __future__ import annotations

import importlib
from typing import Any, Optional

from ._client import Client
from ._reader import Reader
from ._uri import split_object


def register(client: Optional[Client] = None, *, schemes: "tuple[str, ...]" = ("penstock",), **options: Any) -> None:
    """Lets webdataset open these schemes by Penstock, in this process and in workers that are forked from it.

    ``schemes=("penstock", "s3")`` takes over ``s3://`` too. A worker that is spawned calls it itself.
    """
    gopen = importlib.import_module("webdataset.gopen")  # The package has a function of that name.

    s3 = client if client is not None else Client(**options)

    def open_shard(url: str, mode: str = "rb", bufsize: int = 8192, **_: Any) -> Any:
        bucket, key = split_object(url)
        if mode in ("r", "rb"):
            return Reader(s3, bucket, key)
        if mode in ("w", "wb"):
            return s3.writer(bucket, key)
        raise ValueError(f"mode={mode!r}: a shard is read (rb) or written (wb)")

    for scheme in schemes:
        gopen.gopen_schemes[scheme] = open_shard
