"""Datasets of objects.

`S3MapDataset` is for samplers: any sample at any time; a batch is read at once. `S3IterableDataset` reads ahead, shares its objects
out among ranks and workers, and can be resumed in the middle of an epoch.
"""

from __future__ import annotations

import os
import queue
import random
from collections import deque
from typing import Any, Callable, Iterable, Iterator, List, Optional, Sequence

import torch.utils.data

from .. import _base
from .._client import Client
from .._reader import Reader
from .._uri import split, split_object
from ..errors import ConfigurationError
from ._lazy import LazyClient

def identity(sample: Any) -> Any:
    """What a sample is without a transform: the reader itself."""
    return sample


class _Objects:
    """Which objects a dataset is of: named, or listed when that is first needed."""

    def __init__(self, prefix: Optional[str], uris: Optional[Iterable[str]]) -> None:
        self._prefix = prefix
        self._places: Optional[List[Any]] = None
        if uris is not None:
            if isinstance(uris, str):
                raise ConfigurationError(f"object_uris={uris!r}: a list of URIs; for a prefix use from_prefix")
            self._places = [(*split_object(uri), None) for uri in uris]
        elif prefix is not None:
            split(prefix)

    def places(self, client: Client) -> List[Any]:
        if self._places is None:
            assert self._prefix is not None
            bucket, prefix = split(self._prefix)
            # Keys that end in a slash are folders of file browsers, not samples.
            listed = client.list(bucket, prefix)
            self._places = [(bucket, entry.key, entry.size) for entry in listed if not entry.key.endswith("/")]
        return self._places


class S3MapDataset(torch.utils.data.Dataset):
    """Objects by their index. `transform` makes a sample of a `Reader` that has its content already.

    What has a length is listed in the process that asks for it first; workers inherit the list.
    """

    def __init__(
        self,
        objects: _Objects,
        client: LazyClient,
        transform: Callable[[Reader], Any] = identity,
        at_a_time: int = _base.AT_A_TIME,
    ) -> None:
        self._objects, self._client, self._transform, self._at_a_time = objects, client, transform, at_a_time

    @classmethod
    def from_prefix(
        cls,
        s3_uri: str,
        *,
        transform: Callable[[Reader], Any] = identity,
        client: Optional[Client] = None,
        at_a_time: int = _base.AT_A_TIME,
        **options: Any,
    ) -> "S3MapDataset":
        """All objects whose names start so, in order. `options` are those of `penstock.Client`."""
        return cls(_Objects(s3_uri, None), LazyClient(client, options), transform, at_a_time)

    @classmethod
    def from_objects(
        cls,
        object_uris: Iterable[str],
        *,
        transform: Callable[[Reader], Any] = identity,
        client: Optional[Client] = None,
        at_a_time: int = _base.AT_A_TIME,
        **options: Any,
    ) -> "S3MapDataset":
        """These objects."""
        return cls(_Objects(None, object_uris), LazyClient(client, options), transform, at_a_time)

    def _places(self) -> List[Any]:
        return self._objects.places(self._client())

    def __len__(self) -> int:
        return len(self._places())

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> List[Any]:
        """Many samples, read at the same time: what DataLoader asks for batch by batch."""
        places = self._places()
        wanted = [places[index] for index in indices]
        client = self._client()
        uris = [f"s3://{bucket}/{key}" for bucket, key, _ in wanted]
        buffers = client.get_many(None, uris, at_a_time=self._at_a_time)
        return [
            self._transform(Reader(client, bucket, key, content=buffer))
            for (bucket, key, _), buffer in zip(wanted, buffers)
        ]


def _rank() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class S3IterableDataset(torch.utils.data.IterableDataset):
    """Objects one after the other, read ahead.

    With `enable_sharding` every object goes to one worker of one rank: all of them together see each object once an epoch.
    With `shuffle` their order is that of `seed` and the epoch (`set_epoch`), the same for all, so that the shares stay apart.
    `state_dict` and `load_state_dict` are what torchdata's StatefulDataLoader calls, and may be called by hand.
    """

    def __init__(
        self,
        objects: _Objects,
        client: LazyClient,
        transform: Callable[[Reader], Any] = identity,
        *,
        enable_sharding: bool = True,
        shuffle: bool = False,
        seed: int = 0,
        at_a_time: int = _base.AT_A_TIME,
    ) -> None:
        if at_a_time < 1:
            raise ValueError(f"at_a_time={at_a_time}: at least 1")
        self._objects, self._client, self._transform = objects, client, transform
        self._sharding, self._shuffle, self._seed, self._at_a_time = enable_sharding, shuffle, seed, at_a_time
        self._epoch = 0
        #: Samples that this process has given of its share in this epoch.
        self._given = 0
        self._resume: Optional[int] = None
        self._known_rank: Optional[tuple[int, int]] = None

    @classmethod
    def from_prefix(
        cls,
        s3_uri: str,
        *,
        transform: Callable[[Reader], Any] = identity,
        client: Optional[Client] = None,
        enable_sharding: bool = True,
        shuffle: bool = False,
        seed: int = 0,
        at_a_time: int = _base.AT_A_TIME,
        **options: Any,
    ) -> "S3IterableDataset":
        """All objects whose names start so. `options` are those of `penstock.Client`."""
        return cls(
            _Objects(s3_uri, None),
            LazyClient(client, options),
            transform,
            enable_sharding=enable_sharding,
            shuffle=shuffle,
            seed=seed,
            at_a_time=at_a_time,
        )

    @classmethod
    def from_objects(
        cls,
        object_uris: Iterable[str],
        *,
        transform: Callable[[Reader], Any] = identity,
        client: Optional[Client] = None,
        enable_sharding: bool = True,
        shuffle: bool = False,
        seed: int = 0,
        at_a_time: int = _base.AT_A_TIME,
        **options: Any,
    ) -> "S3IterableDataset":
        """These objects."""
        return cls(
            _Objects(None, object_uris),
            LazyClient(client, options),
            transform,
            enable_sharding=enable_sharding,
            shuffle=shuffle,
            seed=seed,
            at_a_time=at_a_time,
        )

    def set_epoch(self, epoch: int) -> None:
        """Call it in the main process before each epoch: another order, and from the beginning."""
        self._epoch, self._given, self._resume = epoch, 0, None

    def __getstate__(self) -> dict[str, Any]:
        # To a worker that is spawned the rank is not known, nor the listing.
        state = dict(self.__dict__)
        state["_known_rank"] = _rank()
        return state

    def _share(self) -> tuple[int, int]:
        if not self._sharding:
            return 0, 1
        rank, ranks = self._known_rank or _rank()
        info = torch.utils.data.get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        return rank * workers + worker, ranks * workers

    def state_dict(self) -> dict[str, Any]:
        """Where this process is: to be loaded by the same rank and worker of as many."""
        share, shares = self._share()
        return {"epoch": self._epoch, "given": self._given, "share": share, "shares": shares, "seed": self._seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was: the next iteration begins there."""
        share, shares = self._share()
        if (state["share"], state["shares"]) != (share, shares):
            raise ConfigurationError(
                f"the state is of share {state['share']} of {state['shares']}, this is {share} of {shares}: "
                "resume with as many ranks and workers as there were"
            )
        if state["seed"] != self._seed:
            raise ConfigurationError(f"the state is of seed={state['seed']}, this is seed={self._seed}")
        self._epoch, self._given, self._resume = state["epoch"], state["given"], state["given"]

    def __iter__(self) -> Iterator[Any]:
        begin, self._resume = self._resume or 0, None
        self._given = begin
        return self._read(begin)

    def _read(self, begin: int) -> Iterator[Any]:
        client = self._client()
        places = list(self._objects.places(client))
        if self._shuffle:
            random.Random(f"{self._seed}:{self._epoch}").shuffle(places)
        share, shares = self._share()
        mine = places[share::shares][begin:]
        for (bucket, key, _), buffer in zip(mine, read_ahead(client, mine, self._at_a_time)):
            # Counted before it is given: who asks for the state then has it already.
            self._given += 1
            yield self._transform(Reader(client, bucket, key, content=buffer))


def read_ahead(client: Client, places: Sequence[Any], at_a_time: int) -> Iterator[Any]:
    """The objects in order, with `at_a_time` on their way while the caller works."""
    engine = client._background_engine()
    done: "queue.SimpleQueue[tuple[int, Any, Optional[BaseException]]]" = queue.SimpleQueue()
    tasks: "deque[tuple[int, Any]]" = deque()
    here: dict[int, Any] = {}
    rest = iter(enumerate(places))

    def begin() -> None:
        for index, (bucket, key, _) in rest:

            def arrived(result: Any, error: Optional[BaseException], index: int = index) -> None:
                done.put((index, result, error))

            tasks.append((index, engine.get(bucket, key, None, None, arrived)))
            return

    try:
        for _ in range(at_a_time):
            begin()
        while tasks:
            index, _ = tasks[0]
            while index not in here:
                number, result, error = done.get()
                here[number] = (result, error)
            tasks.popleft()
            result, error = here.pop(index)
            if error is not None:
                raise error
            begin()
            yield result
    finally:
        for _, task in tasks:
            task.cancel()
