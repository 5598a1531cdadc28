"""What `Client` and `AsyncClient` share: options, and how arguments and answers are put."""

from __future__ import annotations

import atexit
import os
from typing import Any, Iterable, Iterator, Mapping, Optional, Sequence

from . import _memory
from ._penstock import Engine, after_fork_in_child, after_fork_in_parent, before_exit, before_fork
from ._types import ObjectEntry, ObjectInfo, PutResult
from ._uri import split_object

os.register_at_fork(before=before_fork, after_in_parent=after_fork_in_parent, after_in_child=after_fork_in_child)
atexit.register(before_exit)

#: Reads under way at a time, unless the caller says otherwise.
AT_A_TIME = 32
#: Rounds of reads between two reports of progress.
PROGRESS_ROUNDS = 4
#: Entries of a listing that are fetched at a time.
LIST_PAGE = 1000
#: Past every key: S3 orders keys by their bytes.
LAST = "\U0010ffff"


class Base:
    """Of both clients. It can be pickled: the other process makes a client of its own."""

    _background = False

    def __init__(
        self,
        endpoint: Optional[str] = None,
        *,
        region: Optional[str] = None,
        access_key: Optional[str] = None,
        secret_key: Optional[str] = None,
        session_token: Optional[str] = None,
        transport: str = "auto",
        require_rdma: bool = False,
        timeout: Optional[float] = None,
        connect_timeout: Optional[float] = None,
        silence_timeout: Optional[float] = None,
        tries: Optional[int] = None,
        connections: Optional[int] = None,
        parallel: Optional[int] = None,
        part_bytes: Optional[int] = None,
        pool: Optional[int] = None,
        virtual_hosts: bool = False,
        ca_file: Optional[str] = None,
        hedge: Optional[float] = None,
    ) -> None:
        """A client of one endpoint. Nothing is connected before the first operation.

        endpoint: ``http://host:port``; by default what AWS's tools take: ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``, the profile,
        or AWS itself in ``region``.
        access_key, secret_key, session_token: by default found as AWS does: environment, profile, container, instance.
        transport: ``"auto"`` (RDMA where there is some), ``"tcp"``, ``"rdma"`` (or an error), ``"http"`` (everything through the
        S3 endpoint). require_rdma: a fallback is an error.
        timeout: seconds that an operation may take, retries included (900). connect_timeout (3), silence_timeout (20): seconds.
        tries: of one request (5). connections: to the endpoint (64). parallel: parts and stripes of one object at a time (4).
        part_bytes: longer bodies are put in parts of so many bytes (64 MiB). pool: idle bytes of read buffers that are kept.
        hedge: the share of reads that may be asked for a second time because they are late (0.05); 0: none.
        """
        self._options: dict[str, Any] = {
            "endpoint": endpoint,
            "region": region,
            "access_key": access_key,
            "secret_key": secret_key,
            "session_token": session_token,
            "transport": transport,
            "require_rdma": require_rdma,
            "timeout": timeout,
            "connect_timeout": connect_timeout,
            "silence_timeout": silence_timeout,
            "tries": tries,
            "connections": connections,
            "parallel": parallel,
            "part_bytes": part_bytes,
            "pool": pool,
            "virtual_hosts": virtual_hosts,
            "ca_file": ca_file,
            "hedge": hedge,
        }
        self._engine = Engine(self._options, self._background)

    def __getstate__(self) -> dict[str, Any]:
        return {"options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._options = state["options"]
        self._engine = Engine(self._options, self._background)

    def __repr__(self) -> str:
        return f"penstock.{type(self).__name__}({self._options['endpoint']!r}, transport={self._options['transport']!r})"

    def stats(self) -> dict[str, Any]:
        """What this process's client has moved, by transport, and the reasons of every fallback."""
        return self._engine.stats()


def check_range(start: Optional[int], length: Optional[int]) -> Optional[tuple[int, Optional[int]]]:
    """A range as the engine takes it: where it begins, and how many bytes it has."""
    if start is None and length is None:
        return None
    start = 0 if start is None else start
    if length is not None and (start < 0 or length <= 0):
        raise ValueError(f"start={start}, length={length}: a range begins at 0 or later and has at least a byte")
    return (start, length)


def wanted_many(bucket: Optional[str], keys: Iterable[Any]) -> list[tuple[str, str, Optional[tuple[int, Optional[int]]]]]:
    """Keys, or ``(key, start, length)``, as the engine takes them. Without a bucket, keys are URIs."""
    wanted = []
    for key in keys:
        key, start, length = (key, None, None) if isinstance(key, str) else key
        place = split_object(key) if bucket is None else (bucket, key)
        wanted.append((*place, check_range(start, length)))
    return wanted


def wanted_ranges(bucket: str, key: str, ranges: Iterable[tuple[int, Any]]) -> list[tuple[str, str, Optional[int], Any]]:
    """Ranges of one object and where they go."""
    return [(bucket, key, start, _memory.destination(into)) for start, into in ranges]


def wanted_batch(
    bucket: Optional[str], keys: Sequence[str], ptrs: Sequence[int], sizes: Sequence[int]
) -> list[tuple[str, str, Optional[int], Any]]:
    """Keys and raw memory."""
    if not len(keys) == len(ptrs) == len(sizes):
        raise ValueError(f"{len(keys)} keys, {len(ptrs)} ptrs and {len(sizes)} sizes: give as many of each")
    wanted: list[tuple[str, str, Optional[int], Any]] = []
    for key, pointer, size in zip(keys, ptrs, sizes):
        place = split_object(key) if bucket is None else (bucket, key)
        wanted.append((*place, None, _memory.destination((pointer, size))))
    return wanted


def metadata_pairs(metadata: Optional[Mapping[str, str]]) -> Optional[list[tuple[str, str]]]:
    return None if metadata is None else [(str(name), str(value)) for name, value in metadata.items()]


def info(answer: tuple[Any, ...]) -> ObjectInfo:
    return ObjectInfo(*answer)


def put_result(answer: tuple[Any, ...]) -> PutResult:
    return PutResult(*answer)


def entries(answer: list[tuple[Any, ...]]) -> Iterator[ObjectEntry]:
    for key, size, etag, modified in answer:
        yield ObjectEntry(key, size or 0, etag, modified, is_prefix=size is None)


def sources(data: Any) -> list[Any]:
    """A body as the engine takes it: memory, or a list of memory that is one body."""
    return [_memory.source(piece) for piece in data] if isinstance(data, list) else [_memory.source(data)]


def list_after(last: ObjectEntry) -> str:
    """Where a listing goes on after this entry: a prefix stands for all keys that start so."""
    return last.key + LAST if last.is_prefix else last.key
