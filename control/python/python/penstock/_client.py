"""The client that waits."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, List, Mapping, Optional, Sequence, Union

from . import _base, _memory, _reader, _writer
from ._penstock import Buffer, Engine
from ._types import ObjectEntry, ObjectInfo, PutResult


class Client(_base.Base):
    """S3, from any thread and in any process: in a forked child it starts afresh on first use.

    Every operation takes ``timeout``, in seconds, for itself. What can go wrong is in `penstock.errors`.
    """

    _ahead: Optional[Engine] = None

    def _background_engine(self) -> Engine:
        """One whose operations go on by themselves: for what reads ahead."""
        if self._ahead is None:
            self._ahead = Engine(self._options, True)
        return self._ahead

    def get(
        self, bucket: str, key: str, *, start: Optional[int] = None, length: Optional[int] = None, timeout: Optional[float] = None
    ) -> Buffer:
        """The object, or ``length`` bytes of it from ``start`` on (less where it ends)."""
        return self._engine.get(bucket, key, _base.check_range(start, length), timeout)

    def get_into(
        self, bucket: str, key: str, into: _memory.Destination, *, start: Optional[int] = None, timeout: Optional[float] = None
    ) -> int:
        """Reads the object into memory that is exactly as long: a writable buffer, an array, a tensor, ``(address, length)``.

        With ``start``, as many bytes from there on as the memory has. Returns how many. After an error what the memory holds is
        unspecified.
        """
        return self._engine.get_into([(bucket, key, start, _memory.destination(into))], 1, False, timeout)[0]

    def get_many(
        self,
        bucket: Optional[str],
        keys: Iterable[Union[str, tuple[str, Optional[int], Optional[int]]]],
        *,
        at_a_time: int = _base.AT_A_TIME,
        errors: str = "raise",
        progress: Any = None,
        timeout: Optional[float] = None,
    ) -> List[Any]:
        """Many objects, ``at_a_time`` at a time, in the order of ``keys``: keys, or ``(key, start, length)``.

        With ``bucket=None`` keys are URIs. With ``errors="return"`` an exception takes the place of what could not be read.
        ``progress`` is anything with tqdm's ``update``: it is told how many objects more are here.
        """
        if errors not in ("raise", "return"):
            raise ValueError(f'errors={errors!r}: write "raise" or "return"')
        wanted = _base.wanted_many(bucket, keys)
        step = len(wanted) if progress is None else _base.PROGRESS_ROUNDS * at_a_time
        many: List[Any] = []
        for at in range(0, len(wanted), max(step, 1)):
            some = self._engine.get_many(wanted[at : at + step], at_a_time, timeout)
            many += some
            if progress is not None:
                progress.update(len(some))
        if errors == "raise":
            for one in many:
                if isinstance(one, BaseException):
                    raise one
        return many

    def get_ranges_into(
        self,
        bucket: str,
        key: str,
        ranges: Iterable[tuple[int, _memory.Destination]],
        *,
        at_a_time: int = _base.AT_A_TIME,
        timeout: Optional[float] = None,
    ) -> int:
        """Reads ``(start, into)`` of one object, each into its own memory. Returns how many bytes."""
        return sum(self._engine.get_into(_base.wanted_ranges(bucket, key, ranges), at_a_time, False, timeout))

    def batch_get_into(
        self,
        keys: Sequence[str],
        ptrs: Sequence[int],
        sizes: Sequence[int],
        *,
        bucket: Optional[str] = None,
        at_a_time: int = _base.AT_A_TIME,
        timeout: Optional[float] = None,
    ) -> List[int]:
        """Reads whole objects to addresses, for caches of KV blocks: the bytes read of each, -1 where there is no object.

        Without ``bucket`` keys are URIs. Each object must be as long as its size says.
        """
        return self._engine.get_into(_base.wanted_batch(bucket, keys, ptrs, sizes), at_a_time, True, timeout)

    def put(
        self,
        bucket: str,
        key: str,
        data: _memory.Source,
        *,
        content_type: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        if_none_match: bool = False,
        if_match: Optional[str] = None,
        timeout: Optional[float] = None,
    ) -> PutResult:
        """Stores ``data``, in place of what is there: memory, or a list of memory that is one body.

        With ``if_none_match`` only if nothing is; with ``if_match`` only if what is there has this ETag.
        """
        pairs = _base.metadata_pairs(metadata)
        memory = _base.sources(data)
        return _base.put_result(self._engine.put(bucket, key, memory, content_type, pairs, if_none_match, if_match, timeout))

    def head(self, bucket: str, key: str, *, timeout: Optional[float] = None) -> ObjectInfo:
        """What the server says of the object."""
        return _base.info(self._engine.head(bucket, key, timeout))

    def list(
        self, bucket: str, prefix: str = "", *, delimiter: str = "", start_after: str = "", timeout: Optional[float] = None
    ) -> Iterator[ObjectEntry]:
        """The objects whose keys start with ``prefix``, in order, fetched as they are taken.

        With ``delimiter`` keys are rolled up to the first of these after the prefix. ``timeout`` is for each page.
        """
        while True:
            page = self._engine.list(bucket, prefix, delimiter, start_after, _base.LIST_PAGE, timeout)
            entry = None
            for entry in _base.entries(page):
                yield entry
            if entry is None or len(page) < _base.LIST_PAGE:
                return
            start_after = _base.list_after(entry)

    def delete(self, bucket: str, key: str, *, timeout: Optional[float] = None) -> None:
        """Deletes the object. That it is not there is no error."""
        self._engine.delete(bucket, key, timeout)

    def delete_many(self, bucket: str, keys: Iterable[str], *, timeout: Optional[float] = None) -> None:
        """Deletes many objects, a thousand a request."""
        self._engine.delete_many(bucket, [*keys], timeout)

    def copy(self, bucket: str, key: str, to_bucket: str, to_key: str, *, timeout: Optional[float] = None) -> PutResult:
        """Copies an object on the server: no byte passes through here."""
        return _base.put_result(self._engine.copy((bucket, key), (to_bucket, to_key), timeout))

    def writer(
        self,
        bucket: str,
        key: str,
        *,
        part_bytes: int = _writer.PART_BYTES,
        content_type: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        progress: Any = None,
    ) -> "_writer.Writer":
        """A file to write the object through: sent in parts as it grows, there when it is closed, and not at all after an error.

        ``progress`` is anything with tqdm's ``update``: it is told how many bytes more were written.
        """
        return _writer.Writer(self, bucket, key, part_bytes, content_type, metadata, progress)

    def reader(self, bucket: str, key: str, *, size: Optional[int] = None) -> "_reader.Reader":
        """A file to read the object through, at any place."""
        return _reader.Reader(self, bucket, key, size)

    def list_buckets(self, *, timeout: Optional[float] = None) -> List[str]:
        """The names of the buckets that there are."""
        return [name for name, _ in self._engine.list_buckets(timeout)]

    def delete_bucket(self, bucket: str, *, timeout: Optional[float] = None) -> None:
        """Deletes an empty bucket."""
        self._engine.delete_bucket(bucket, timeout)

    def create_bucket(self, bucket: str, *, timeout: Optional[float] = None) -> None:
        """Makes a bucket. That it is there already, and ours, is no error."""
        self._engine.create_bucket(bucket, timeout)

    def presign(self, bucket: str, key: str, *, method: str = "GET", expires: int = 3600) -> str:
        """A URL by which whoever has it may do this for ``expires`` seconds, seven days at most."""
        return self._engine.presign(method, bucket, key, expires)
