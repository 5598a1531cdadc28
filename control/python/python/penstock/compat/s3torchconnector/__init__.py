"""s3torchconnector's names and signatures, by Penstock.

    from penstock.compat.s3torchconnector import S3MapDataset, S3IterableDataset, S3Checkpoint, S3ClientConfig

What differs is told by name: options that have no meaning here are refused when they are given, never ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterable, Optional

from ... import _base
from ..._reader import Reader as S3Reader
from ..._writer import Writer as S3Writer
from ...errors import ConfigurationError, PenstockError
from ...torch import checkpoint as _checkpoint
from ...torch import dataset as _dataset

__all__ = ["S3Checkpoint", "S3ClientConfig", "S3Exception", "S3IterableDataset", "S3MapDataset", "S3Reader", "S3Writer"]

#: What s3torchconnector raises for everything.
S3Exception = PenstockError


@dataclass(frozen=True)
class S3ClientConfig:
    """`throughput_target_gbps` is taken and not needed: there is no pool of connections to size by it."""

    throughput_target_gbps: Optional[float] = None
    part_size: int = 8 * 1024 * 1024
    unsigned: bool = False
    force_path_style: bool = False
    max_attempts: Optional[int] = 10
    profile: Optional[str] = None


def _options(region: Optional[str], endpoint: Optional[str], config: Optional[S3ClientConfig]) -> dict[str, Any]:
    config = config or S3ClientConfig()
    if config.unsigned:
        raise ConfigurationError("S3ClientConfig(unsigned=True): Penstock signs every request; give it credentials")
    if config.profile is not None:
        raise ConfigurationError(f"S3ClientConfig(profile={config.profile!r}): set AWS_PROFILE instead")
    options: dict[str, Any] = {"region": region, "tries": config.max_attempts or 5}
    if endpoint is not None:
        options["endpoint"] = endpoint
    return options


def _refuse(reader_constructor: Any) -> None:
    if reader_constructor is not None:
        raise ConfigurationError("reader_constructor=...: Penstock has one reader, which does both; leave it out")


class S3MapDataset(_dataset.S3MapDataset):
    """s3torchconnector's, whose batches are read at once."""

    @classmethod
    def from_prefix(  # type: ignore[override]
        cls,
        s3_uri: str,
        *,
        region: str,
        endpoint: Optional[str] = None,
        transform: Callable[[S3Reader], Any] = _dataset.identity,
        s3client_config: Optional[S3ClientConfig] = None,
        reader_constructor: Any = None,
    ) -> "S3MapDataset":
        _refuse(reader_constructor)
        return super().from_prefix(s3_uri, transform=transform, **_options(region, endpoint, s3client_config))  # type: ignore[return-value]

    @classmethod
    def from_objects(  # type: ignore[override]
        cls,
        object_uris: Iterable[str],
        *,
        region: str,
        endpoint: Optional[str] = None,
        transform: Callable[[S3Reader], Any] = _dataset.identity,
        s3client_config: Optional[S3ClientConfig] = None,
        reader_constructor: Any = None,
    ) -> "S3MapDataset":
        _refuse(reader_constructor)
        return super().from_objects(object_uris, transform=transform, **_options(region, endpoint, s3client_config))  # type: ignore[return-value]


class S3IterableDataset(_dataset.S3IterableDataset):
    """s3torchconnector's, read ahead. As there, `enable_sharding` is off unless it is asked for."""

    @classmethod
    def from_prefix(  # type: ignore[override]
        cls,
        s3_uri: str,
        *,
        region: str,
        endpoint: Optional[str] = None,
        transform: Callable[[S3Reader], Any] = _dataset.identity,
        s3client_config: Optional[S3ClientConfig] = None,
        enable_sharding: bool = False,
        reader_constructor: Any = None,
    ) -> "S3IterableDataset":
        _refuse(reader_constructor)
        options = _options(region, endpoint, s3client_config)
        return super().from_prefix(s3_uri, transform=transform, enable_sharding=enable_sharding, **options)  # type: ignore[return-value]

    @classmethod
    def from_objects(  # type: ignore[override]
        cls,
        object_uris: Iterable[str],
        *,
        region: str,
        endpoint: Optional[str] = None,
        transform: Callable[[S3Reader], Any] = _dataset.identity,
        s3client_config: Optional[S3ClientConfig] = None,
        enable_sharding: bool = False,
        reader_constructor: Any = None,
    ) -> "S3IterableDataset":
        _refuse(reader_constructor)
        options = _options(region, endpoint, s3client_config)
        return super().from_objects(object_uris, transform=transform, enable_sharding=enable_sharding, **options)  # type: ignore[return-value]


class S3Checkpoint(_checkpoint.S3Checkpoint):
    """s3torchconnector's."""

    def __init__(
        self,
        region: str,
        s3client_config: Optional[S3ClientConfig] = None,
        endpoint: Optional[str] = None,
        reader_constructor: Any = None,
    ) -> None:
        _refuse(reader_constructor)
        super().__init__(**_options(region, endpoint, s3client_config))
