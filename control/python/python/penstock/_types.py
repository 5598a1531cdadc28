"""What operations return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Optional


@dataclass(frozen=True)
class ObjectInfo:
    """What the server says of an object."""

    size: int
    etag: str
    last_modified: str = ""
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    #: CRC64NVME of the whole object, when the server has it.
    crc64: Optional[int] = None


@dataclass(frozen=True)
class ObjectEntry:
    """An object in a listing; or, with ``is_prefix``, keys that start so, rolled up."""

    key: str
    size: int = 0
    etag: str = ""
    last_modified: str = ""
    is_prefix: bool = False


@dataclass(frozen=True)
class PutResult:
    """What a PUT made."""

    etag: str
    #: CRC64NVME of its bytes; None where the server has copied them and nobody here has seen them.
    crc64: Optional[int]
    version_id: Optional[str] = None
