"""A filesystem for fsspec, and so for pandas, Dask, Hugging Face datasets, and all that takes URLs by it.

    import fsspec
    with fsspec.open("penstock://bucket/key", endpoint="http://127.0.0.1:9000") as source: ...

It is found by its entry point. `register_as_s3` lets it have ``s3://`` as well. As with every S3 filesystem, folders are what keys
have in common up to a slash: an empty folder is not there.
"""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, List, Optional

import fsspec
from fsspec.spec import AbstractFileSystem

from ._client import Client
from ._reader import Reader
from ._writer import PART_BYTES, Writer
from .errors import NotFound, PreconditionFailed


def _time(text: str) -> Optional[datetime]:
    if not text:
        return None
    if text[:4].isdigit():
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    return parsedate_to_datetime(text).astimezone(timezone.utc)


class PenstockFileSystem(AbstractFileSystem):
    """Objects as files. `options` are those of `penstock.Client`, or `client`."""

    protocol = ("penstock", "s3")
    root_marker = ""

    def __init__(self, endpoint: Optional[str] = None, *, client: Optional[Client] = None, **options: Any) -> None:
        ours = {name: options.pop(name) for name in list(options) if name in _OPTIONS}
        super().__init__(endpoint=endpoint, client=client, **ours, **options)
        self.client = client if client is not None else Client(endpoint, **ours)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        path = str(path)
        for scheme in ("penstock://", "s3://"):
            if path.startswith(scheme):
                path = path[len(scheme) :]
        return path.rstrip("/") or cls.root_marker

    @staticmethod
    def _split(path: str) -> "tuple[str, str]":
        bucket, _, key = path.partition("/")
        return bucket, key

    def _bucket_and_key(self, path: str) -> "tuple[str, str]":
        bucket, key = self._split(self._strip_protocol(path))
        if not bucket or not key:
            raise ValueError(f"{path!r} names no object: bucket/key")
        return bucket, key

    # Looking.

    def _listed(self, bucket: str, prefix: str) -> List[dict]:
        found = []
        for entry in self.client.list(bucket, prefix, delimiter="/"):
            name = f"{bucket}/{entry.key.rstrip('/')}"
            if entry.is_prefix:
                found.append({"name": name, "size": 0, "type": "directory"})
            elif not entry.key.endswith("/"):
                modified = _time(entry.last_modified)
                found.append({"name": name, "size": entry.size, "type": "file", "ETag": entry.etag, "LastModified": modified})
        return found

    def ls(self, path: str, detail: bool = True, refresh: bool = False, **kwargs: Any) -> List[Any]:
        path = self._strip_protocol(path)
        if not path:
            found = [{"name": name, "size": 0, "type": "directory"} for name in self.client.list_buckets()]
        else:
            bucket, key = self._split(path)
            found = self._listed(bucket, key + "/" if key else "")
            if not found and key:
                found = [self._file_info(bucket, key)]
        return found if detail else sorted(one["name"] for one in found)

    def _file_info(self, bucket: str, key: str) -> dict:
        info = self.client.head(bucket, key)
        return {
            "name": f"{bucket}/{key}",
            "size": info.size,
            "type": "file",
            "ETag": info.etag,
            "LastModified": _time(info.last_modified),
            "ContentType": info.content_type,
        }

    def info(self, path: str, **kwargs: Any) -> dict:
        path = self._strip_protocol(path)
        bucket, key = self._split(path)
        folder = {"name": path, "size": 0, "type": "directory"}
        if not path:
            return folder
        if key:
            try:
                return self._file_info(bucket, key)
            except NotFound:
                pass
        for _ in self.client.list(bucket, key + "/" if key else ""):
            return folder
        if not key:
            return folder  # A bucket that is there, and empty: the listing would have said otherwise.
        raise FileNotFoundError(path)

    def exists(self, path: str, **kwargs: Any) -> bool:
        try:
            self.info(path)
            return True
        except FileNotFoundError:
            return False

    def modified(self, path: str) -> datetime:
        when = self.info(path).get("LastModified")
        if when is None:
            raise IsADirectoryError(path)
        return when

    created = modified

    def checksum(self, path: str) -> int:
        info = self.info(path)
        return int.from_bytes(str(info.get("ETag", info["name"])).encode()[:16], "big")

    def sign(self, path: str, expiration: int = 100, **kwargs: Any) -> str:
        return self.client.presign(*self._bucket_and_key(path), expires=expiration)

    # Reading.

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, autocommit: bool = True, cache_options: Any = None, **kwargs: Any) -> Any:
        bucket, key = self._bucket_and_key(path)
        if mode == "rb":
            reader = Reader(self.client, bucket, key)
            size = reader.size  # A file that is not there is an error now, not when it is read.
            assert size >= 0
            return reader
        if mode in ("wb", "xb"):
            if mode == "xb" and self.exists(path):
                raise FileExistsError(path)
            if not autocommit:
                raise NotImplementedError("transactions: an object is there when its file is closed")
            return Writer(self.client, bucket, key, block_size if isinstance(block_size, int) and block_size >= (5 << 20) else PART_BYTES)
        if mode == "ab":
            writer = Writer(self.client, bucket, key)
            try:
                writer.write(self.client.get(bucket, key))
            except NotFound:
                pass
            return writer
        raise ValueError(f"mode={mode!r}: rb, wb, xb or ab")

    def _span(self, path: str, start: Optional[int], end: Optional[int]) -> "tuple[Optional[int], Optional[int]]":
        """Python's slice of a file as where it begins and how long it is; only one that counts from the end needs its length."""
        if (start is not None and start < 0) or (end is not None and end < 0):
            start, end, _ = slice(start, end).indices(self.info(path)["size"])
        start = start or 0
        return (start or None, None) if end is None else (start, end - start)

    def cat_file(self, path: str, start: Optional[int] = None, end: Optional[int] = None, **kwargs: Any) -> bytes:
        bucket, key = self._bucket_and_key(path)
        begin, length = self._span(path, start, end)
        if length is not None and length <= 0:
            return b""
        return self.client.get(bucket, key, start=begin, length=length).tobytes()

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        paths = self.expand_path(path, recursive=recursive)
        if len(paths) == 1 and not isinstance(path, list) and paths[0] == self._strip_protocol(path):
            return self.cat_file(paths[0], **kwargs)
        if kwargs:
            return super().cat(path, recursive=recursive, on_error=on_error, **kwargs)
        uris = [f"s3://{one}" for one in paths]
        read = self.client.get_many(None, uris, errors="return")
        out = {}
        for name, one in zip(paths, read):
            if not isinstance(one, BaseException):
                out[name] = one.tobytes()
            elif on_error == "raise":
                raise one
            elif on_error == "return":
                out[name] = one
        return out

    def cat_ranges(self, paths: Any, starts: Any, ends: Any, max_gap: Any = None, on_error: str = "return", **kwargs: Any) -> List[Any]:
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [ends] * len(paths)
        spans = [self._span(path, start, end) for path, start, end in zip(paths, starts, ends)]
        wanted: List[Any] = []
        out: List[Any] = [b""] * len(paths)
        for number, (path, (start, length)) in enumerate(zip(paths, spans)):
            if length is None or length > 0:
                wanted.append((number, (f"s3://{self._strip_protocol(path)}", start, length)))
        read = self.client.get_many(None, [one for _, one in wanted], errors="return")
        for (number, _), one in zip(wanted, read):
            if isinstance(one, BaseException) and on_error == "raise":
                raise one
            out[number] = one if isinstance(one, BaseException) else one.tobytes()
        return out

    # Writing.

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> None:
        try:
            self.client.put(*self._bucket_and_key(path), value, if_none_match=mode == "create")
        except PreconditionFailed:
            raise FileExistsError(path) from None

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        if not truncate and self.exists(path):
            return
        self.client.put(*self._bucket_and_key(path), b"")

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        if self.isdir(path1):
            return  # A folder is there when something is in it.
        self.client.copy(*self._bucket_and_key(path1), *self._bucket_and_key(path2))

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        path = self._strip_protocol(path)
        bucket, key = self._split(path)
        if not key:
            if bucket in self.client.list_buckets():
                raise FileExistsError(bucket)
            self.client.create_bucket(bucket)
        elif create_parents and bucket not in self.client.list_buckets():
            self.client.create_bucket(bucket)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        try:
            self.mkdir(path, create_parents=True)
        except FileExistsError:
            if not exist_ok:
                raise

    def rmdir(self, path: str) -> None:
        bucket, key = self._split(self._strip_protocol(path))
        if key:
            if self.exists(path):
                raise OSError(f"{path} is not empty")
            raise FileNotFoundError(path)
        self.client.delete_bucket(bucket)

    def _rm(self, path: str) -> None:
        self.client.delete(*self._bucket_and_key(path))

    def rm(self, path: Any, recursive: bool = False, maxdepth: Optional[int] = None) -> None:
        names = self.expand_path(path, recursive=recursive, maxdepth=maxdepth)
        keys: "dict[str, List[str]]" = {}
        buckets = []
        for name in names:
            bucket, key = self._split(name)
            if not key:
                buckets.append(bucket)
            elif recursive or self.isfile(name):
                keys.setdefault(bucket, []).append(key)
            else:
                raise IsADirectoryError(f"{name}: recursive=True removes what is in it")
        for bucket, some in keys.items():
            self.client.delete_many(bucket, some)
        if recursive:
            for bucket in buckets:
                self.client.delete_bucket(bucket)

    def invalidate_cache(self, path: Optional[str] = None) -> None:
        """Nothing is kept: every listing is the server's."""


_OPTIONS = {
    "region",
    "access_key",
    "secret_key",
    "session_token",
    "transport",
    "require_rdma",
    "timeout",
    "connect_timeout",
    "silence_timeout",
    "tries",
    "connections",
    "parallel",
    "part_bytes",
    "pool",
    "virtual_hosts",
    "ca_file",
    "hedge",
}


def register_as_s3() -> None:
    """Lets ``s3://`` be Penstock's in this process, in place of s3fs."""
    fsspec.register_implementation("s3", PenstockFileSystem, clobber=True)
