"""Clients that are made when they are first used, in the process that uses them."""

from __future__ import annotations

from typing import Any, Optional

from .._client import Client


class LazyClient:
    """A client, or what it takes to make one. Pickled, it is made anew elsewhere; forked, it starts afresh."""

    def __init__(self, client: Optional[Client], options: dict[str, Any]) -> None:
        if client is not None and options:
            raise TypeError(f"give client=... or its options, not both: {', '.join(options)}")
        self._client = client
        self._options = options
        if client is None:
            # Options that make no sense are an error here, not in a worker.
            self._client = Client(**options)

    def __call__(self) -> Client:
        assert self._client is not None
        return self._client
