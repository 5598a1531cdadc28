"""Checkpoints by `torch.save` and `torch.load`."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from .._client import Client
from .._reader import Reader
from .._uri import split_object
from .._writer import PART_BYTES, Writer
from ._lazy import LazyClient


class S3Checkpoint:
    """Where checkpoints are written and read.

    with checkpoint.writer("s3://bucket/epoch-1.pt") as out:
        torch.save(model.state_dict(), out)
    with checkpoint.reader("s3://bucket/epoch-1.pt") as source:
        model.load_state_dict(torch.load(source))

    Nothing is visible before a writer is closed, and nothing ever is when the ``with`` block ends in an error.
    """

    def __init__(self, *, client: Optional[Client] = None, part_bytes: int = PART_BYTES, **options: Any) -> None:
        self._client, self._part_bytes = LazyClient(client, options), part_bytes

    def reader(self, s3_uri: str) -> Reader:
        """The object as a file. Small reads are served from windows of 8 MiB; long ones go straight into their memory."""
        return self._client().reader(*split_object(s3_uri))

    def writer(self, s3_uri: str, *, metadata: Optional[Mapping[str, str]] = None) -> Writer:
        """A file that becomes the object when it is closed; it is sent in parts while it is written."""
        return self._client().writer(*split_object(s3_uri), part_bytes=self._part_bytes, metadata=metadata)
