"""An object as a file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Optional

from . import _memory
from .errors import WrongSize

if TYPE_CHECKING:
    from ._client import Client
    from ._penstock import Buffer

#: Bytes that are asked for at least when less is read.
WINDOW_BYTES = 8 << 20


class Reader(io.BufferedIOBase):
    """Read like a file, at any place. `readinto` reads straight into the caller's memory where that is longer than the window.

    An object that is read as a whole, from its beginning, costs one request and no HEAD.
    """

    def __init__(
        self,
        client: Any,
        bucket: str,
        key: str,
        size: Optional[int] = None,
        content: Optional["Buffer"] = None,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self._client, self._bucket, self._key, self._size = client, bucket, key, size
        self._position = 0
        #: What of it is here, and from which byte on.
        self._window: Any = memoryview(b"") if content is None else memoryview(content)
        self._window_start = 0
        self._window_bytes = window_bytes
        if content is not None:
            self._size = len(content)

    bucket = property(lambda self: self._bucket)
    key = property(lambda self: self._key)

    @property
    def size(self) -> int:
        """How long it is: known, or asked for."""
        if self._size is None:
            self._size = self._client.head(self._bucket, self._key).size
        return self._size

    def __len__(self) -> int:
        return self.size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence)
        if base is None:
            if whence != io.SEEK_END:
                raise ValueError(f"whence={whence}: 0, 1 or 2")
            base = self.size
        if base + offset < 0:
            raise ValueError(f"{base + offset} is before the beginning")
        self._position = base + offset
        return self._position

    def content(self) -> Any:
        """All of it, without a copy."""
        if self._window_start != 0 or len(self._window) != self._size:
            self._check()
            self._window, self._window_start = memoryview(self._client.get(self._bucket, self._key)), 0
            self._size = len(self._window)
        return self._window

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _here(self, count: int) -> Any:
        """What is in the window from the position on."""
        at = self._position - self._window_start
        if 0 <= at < len(self._window):
            return self._window[at : at + count]
        return None

    def _fetch(self, count: int) -> Any:
        """Bytes from the position on: at least one, unless it is at the end."""
        if self._size is not None and self._position >= self._size:
            return memoryview(b"")
        ask = max(count, self._window_bytes)
        try:
            window = memoryview(self._client.get(self._bucket, self._key, start=self._position, length=ask))
        except WrongSize:
            return memoryview(b"")
        if len(window) < ask:
            self._size = self._position + len(window)
        self._window, self._window_start = window, self._position
        return window[:count]

    def read(self, size: Optional[int] = -1, /) -> bytes:
        self._check()
        if size is None or size < 0:
            if self._position == 0:
                data = bytes(self.content())
            elif self._size is not None and self._position >= self._size:
                return b""
            else:
                data = bytes(self.content()[self._position :])
            self._position += len(data)
            return data
        pieces, wanted = [], size
        while wanted > 0:
            piece = self._here(wanted)
            if piece is None:
                piece = self._fetch(wanted)
            if len(piece) == 0:
                break
            pieces.append(piece)
            self._position += len(piece)
            wanted -= len(piece)
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(size)

    def readinto(self, into: Any, /) -> int:
        self._check()
        view = memoryview(_memory.destination(into))
        filled = 0
        while filled < len(view):
            rest = len(view) - filled
            piece = self._here(rest)
            if piece is None:
                if rest >= self._window_bytes:
                    length = min(rest, self.size - self._position)
                    if length <= 0:
                        break
                    filled += self._client.get_into(
                        self._bucket, self._key, view[filled : filled + length], start=self._position
                    )
                    self._position += length
                    continue
                piece = self._fetch(rest)
            if len(piece) == 0:
                break
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._position += len(piece)
        return filled

    def readinto1(self, into: Any, /) -> int:
        return self.readinto(into)

    def __repr__(self) -> str:
        return f"<penstock reader of s3://{self._bucket}/{self._key}>"
