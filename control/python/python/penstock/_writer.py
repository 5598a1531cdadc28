"""A file that is an object when it is closed."""

from __future__ import annotations

import io
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Mapping, Optional

from . import _base, _memory

if TYPE_CHECKING:
    from ._client import Client

#: Bytes of a part, unless the caller says otherwise.
PART_BYTES = 32 << 20
#: The least that S3 takes for a part which is not the last.
PART_BYTES_MIN = 5 << 20
#: Parts on their way at a time: with those that are being filled, what a writer holds in memory.
PARTS_AT_A_TIME = 4
#: Parts of one object.
PARTS_MAX = 10_000


class Writer(io.BufferedIOBase):
    """Written to like a file. What fits one part is one PUT on `close`; more goes in parts while it is written.

    Nothing is visible before `close` returns. After an error in a ``with`` block, or `abort`, nothing ever is.
    """

    def __init__(
        self,
        client: "Client",
        bucket: str,
        key: str,
        part_bytes: int = PART_BYTES,
        content_type: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        progress: Any = None,
    ) -> None:
        if part_bytes < PART_BYTES_MIN:
            raise ValueError(f"part_bytes={part_bytes}: S3 takes parts from {PART_BYTES_MIN} bytes on")
        self._client, self._bucket, self._key, self._part_bytes = client, bucket, key, part_bytes
        self._content_type, self._metadata = content_type, _base.metadata_pairs(metadata)
        self._progress = progress
        self._part = bytearray()
        self._upload: Any = None
        self._number = 0
        self._position = 0
        self._sending: list[Future[Any]] = []
        self._threads: Optional[ThreadPoolExecutor] = None
        self._aborted = False
        #: What the PUT made, once it is closed.
        self.result: Any = None

    bucket = property(lambda self: self._bucket)
    key = property(lambda self: self._key)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        memory = _memory.source(data)
        if isinstance(memory, tuple):
            raise TypeError("write what has the buffer protocol: for a tensor, tensor.numpy()")
        view = memoryview(memory)
        taken = 0
        while taken < len(view):
            room = self._part_bytes - len(self._part)
            self._part += view[taken : taken + room]
            taken = min(taken + room, len(view))
            # A full part goes when more follows, so that one that is exactly full is a PUT, not an upload.
            if len(self._part) == self._part_bytes and taken < len(view):
                self._send()
        self._position += len(view)
        if len(self._part) == self._part_bytes and self._upload is not None:
            self._send()
        if self._progress is not None:
            self._progress.update(len(view))
        return len(view)

    def _send(self) -> None:
        if self._number >= PARTS_MAX:
            raise ValueError(f"an object has {PARTS_MAX} parts at most: make part_bytes larger than {self._part_bytes}")
        if self._upload is None:
            self._upload = self._client._engine.create_upload(self._bucket, self._key, self._content_type, self._metadata)
            self._threads = ThreadPoolExecutor(PARTS_AT_A_TIME, thread_name_prefix="penstock-writer")
        assert self._threads is not None
        while len(self._sending) >= PARTS_AT_A_TIME:
            self._sending.pop(0).result()
        part, self._part = self._part, bytearray()
        self._number += 1
        self._sending.append(self._threads.submit(self._client._engine.upload_part, self._upload, self._number, [part]))

    def abort(self) -> None:
        """Gives it up: nothing becomes visible."""
        if self.closed or self._aborted:
            return
        self._aborted = True
        try:
            self._end()
            if self._upload is not None:
                self._client._engine.abort_upload(self._upload)
        finally:
            super().close()

    def _end(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._upload is None:
                done = self._client._engine.put(self._bucket, self._key, [self._part], self._content_type, self._metadata)
            else:
                if self._part:
                    self._send()
                for sent in self._sending:
                    sent.result()
                self._end()
                done = self._client._engine.complete_upload(self._upload)
            self.result = _base.put_result(done)
        except BaseException:
            try:
                self.abort()
            except Exception:
                pass  # What can't be aborted now is for the bucket's lifecycle; the error that is told is the first.
            raise
        super().close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        # Not closed: given up. A half-written object must never become visible because somebody forgot it.
        if not self.closed:
            self._aborted = True
            super().close()
