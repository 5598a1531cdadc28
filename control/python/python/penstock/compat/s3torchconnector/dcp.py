"""`s3torchconnector.dcp`, by Penstock: what it has written is read; what is written here, Penstock alone reads."""

from __future__ import annotations

from typing import Any, Optional

from ...torch import dcp as _dcp
from . import S3ClientConfig, _options, _refuse

__all__ = ["S3StorageReader", "S3StorageWriter"]


class S3StorageWriter(_dcp.S3StorageWriter):
    def __init__(self, region: str, path: str, s3client_config: Optional[S3ClientConfig] = None, endpoint: Optional[str] = None) -> None:
        super().__init__(path, **_options(region, endpoint, s3client_config))


class S3StorageReader(_dcp.S3StorageReader):
    def __init__(
        self,
        region: str,
        path: str,
        s3client_config: Optional[S3ClientConfig] = None,
        endpoint: Optional[str] = None,
        reader_constructor: Any = None,
    ) -> None:
        _refuse(reader_constructor)
        super().__init__(path, **_options(region, endpoint, s3client_config))
