"""Names of objects: ``s3://bucket/key``, ``penstock://bucket/key``."""

from __future__ import annotations

from .errors import ConfigurationError

SCHEMES = ("s3://", "penstock://")


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of a URI. The key may be empty."""
    for scheme in SCHEMES:
        if uri.startswith(scheme):
            bucket, _, key = uri[len(scheme) :].partition("/")
            if not bucket:
                break
            return bucket, key
    raise ConfigurationError(f"{uri!r} names no object: write s3://bucket/key")


def split_object(uri: str) -> tuple[str, str]:
    """Bucket and key of a URI that names an object."""
    bucket, key = split(uri)
    if not key:
        raise ConfigurationError(f"{uri!r} names a bucket, not an object: write s3://bucket/key")
    return bucket, key
