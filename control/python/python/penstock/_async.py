"""The client for asyncio."""

from __future__ import annotations

import asyncio
from typing import Any, AsyncIterator, List, Callable, Iterable, Mapping, Optional, Sequence, Union

from . import _base, _memory
from ._penstock import Buffer, Task
from ._types import ObjectEntry, ObjectInfo, PutResult


def _settle(future: "asyncio.Future[Any]", result: Any, error: Optional[BaseException]) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


async def _run(begin: Callable[[Callable[[Any, Optional[BaseException]], None]], Task]) -> Any:
    """Begins work in the background and awaits it; who is cancelled ends it."""
    loop = asyncio.get_running_loop()
    future: "asyncio.Future[Any]" = loop.create_future()

    def done(result: Any, error: Optional[BaseException]) -> None:
        try:
            loop.call_soon_threadsafe(_settle, future, result, error)
        except RuntimeError:
            pass  # The loop is closed: nobody waits any more.

    task = begin(done)
    try:
        return await future
    except asyncio.CancelledError:
        task.cancel()
        raise


class AsyncClient(_base.Base):
    """`penstock.Client` for asyncio: the same operations, awaited.

    Memory that a cancelled read was to fill may still be written to for a moment: don't use it for something else at once.
    """

    _background = True

    async def get(
        self, bucket: str, key: str, *, start: Optional[int] = None, length: Optional[int] = None, timeout: Optional[float] = None
    ) -> Buffer:
        """See `Client.get`."""
        span = _base.check_range(start, length)
        return await _run(lambda done: self._engine.get(bucket, key, span, timeout, done))

    async def get_into(
        self, bucket: str, key: str, into: _memory.Destination, *, start: Optional[int] = None, timeout: Optional[float] = None
    ) -> int:
        """See `Client.get_into`."""
        wanted = [(bucket, key, start, _memory.destination(into))]
        return (await _run(lambda done: self._engine.get_into(wanted, 1, False, timeout, done)))[0]

    async def get_many(
        self,
        bucket: Optional[str],
        keys: Iterable[Union[str, tuple[str, Optional[int], Optional[int]]]],
        *,
        at_a_time: int = _base.AT_A_TIME,
        errors: str = "raise",
        timeout: Optional[float] = None,
    ) -> List[Any]:
        """See `Client.get_many`."""
        if errors not in ("raise", "return"):
            raise ValueError(f'errors={errors!r}: write "raise" or "return"')
        wanted = _base.wanted_many(bucket, keys)
        many = await _run(lambda done: self._engine.get_many(wanted, at_a_time, timeout, done))
        if errors == "raise":
            for one in many:
                if isinstance(one, BaseException):
                    raise one
        return many

    async def get_ranges_into(
        self,
        bucket: str,
        key: str,
        ranges: Iterable[tuple[int, _memory.Destination]],
        *,
        at_a_time: int = _base.AT_A_TIME,
        timeout: Optional[float] = None,
    ) -> int:
        """See `Client.get_ranges_into`."""
        wanted = _base.wanted_ranges(bucket, key, ranges)
        return sum(await _run(lambda done: self._engine.get_into(wanted, at_a_time, False, timeout, done)))

    async def batch_get_into(
        self,
        keys: Sequence[str],
        ptrs: Sequence[int],
        sizes: Sequence[int],
        *,
        bucket: Optional[str] = None,
        at_a_time: int = _base.AT_A_TIME,
        timeout: Optional[float] = None,
    ) -> List[int]:
        """See `Client.batch_get_into`."""
        wanted = _base.wanted_batch(bucket, keys, ptrs, sizes)
        return await _run(lambda done: self._engine.get_into(wanted, at_a_time, True, timeout, done))

    async def put(
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
        """See `Client.put`."""
        pairs = _base.metadata_pairs(metadata)
        memory = _base.sources(data)
        return _base.put_result(
            await _run(
                lambda done: self._engine.put(bucket, key, memory, content_type, pairs, if_none_match, if_match, timeout, done)
            )
        )

    async def head(self, bucket: str, key: str, *, timeout: Optional[float] = None) -> ObjectInfo:
        """See `Client.head`."""
        return _base.info(await _run(lambda done: self._engine.head(bucket, key, timeout, done)))

    async def list(
        self, bucket: str, prefix: str = "", *, delimiter: str = "", start_after: str = "", timeout: Optional[float] = None
    ) -> AsyncIterator[ObjectEntry]:
        """See `Client.list`."""
        while True:
            after = start_after
            page = await _run(
                lambda done: self._engine.list(bucket, prefix, delimiter, after, _base.LIST_PAGE, timeout, done)
            )
            entry = None
            for entry in _base.entries(page):
                yield entry
            if entry is None or len(page) < _base.LIST_PAGE:
                return
            start_after = _base.list_after(entry)

    async def delete(self, bucket: str, key: str, *, timeout: Optional[float] = None) -> None:
        """See `Client.delete`."""
        await _run(lambda done: self._engine.delete(bucket, key, timeout, done))

    async def delete_many(self, bucket: str, keys: Iterable[str], *, timeout: Optional[float] = None) -> None:
        """See `Client.delete_many`."""
        every = [*keys]
        await _run(lambda done: self._engine.delete_many(bucket, every, timeout, done))

    async def copy(self, bucket: str, key: str, to_bucket: str, to_key: str, *, timeout: Optional[float] = None) -> PutResult:
        """See `Client.copy`."""
        return _base.put_result(await _run(lambda done: self._engine.copy((bucket, key), (to_bucket, to_key), timeout, done)))

    async def list_buckets(self, *, timeout: Optional[float] = None) -> List[str]:
        """See `Client.list_buckets`."""
        return [name for name, _ in await _run(lambda done: self._engine.list_buckets(timeout, done))]

    async def delete_bucket(self, bucket: str, *, timeout: Optional[float] = None) -> None:
        """See `Client.delete_bucket`."""
        await _run(lambda done: self._engine.delete_bucket(bucket, timeout, done))

    async def create_bucket(self, bucket: str, *, timeout: Optional[float] = None) -> None:
        """See `Client.create_bucket`."""
        await _run(lambda done: self._engine.create_bucket(bucket, timeout, done))

    async def presign(self, bucket: str, key: str, *, method: str = "GET", expires: int = 3600) -> str:
        """See `Client.presign`."""
        return await _run(lambda done: self._engine.presign(method, bucket, key, expires, done))
