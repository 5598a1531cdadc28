"""Penstock: S3 for training. RDMA where there is some, plain S3 anywhere else.

    client = penstock.Client("http://127.0.0.1:9000")
    sample = client.get("bucket", "key")                 # a Buffer: memoryview, numpy.frombuffer, torch.frombuffer
    client.get_into("bucket", "weights", tensor)         # straight into memory that is there
    batch = client.get_many("bucket", keys)              # 32 at a time

`penstock.torch` has datasets and checkpoints, `penstock.fsspec` a filesystem, `penstock.errors` what can go wrong.
Importing it needs no library beside Python: what RDMA and the rest need is looked for when it is used.
"""

from . import errors
from ._async import AsyncClient
from ._client import Client
from ._penstock import Buffer
from ._types import ObjectEntry, ObjectInfo, PutResult

__all__ = ["AsyncClient", "Buffer", "Client", "ObjectEntry", "ObjectInfo", "PutResult", "errors"]
__version__ = "0.1.0"
