"""Distributed checkpoints (torch.distributed.checkpoint): every tensor written from, and read into, its own memory.

    dcp.save(state, storage_writer=S3StorageWriter("s3://bucket/step-1000/"))
    dcp.load(state, storage_reader=S3StorageReader("s3://bucket/step-1000/"))

**The format.** Under the prefix, each rank writes objects ``__R_N.distcp`` with the bytes of its tensors, one after the other, without
any framing; ``.metadata``, written last by the coordinator, is torch's own `Metadata`, pickled, whose `storage_data` says where each
tensor lies. A checkpoint is there when ``.metadata`` is. Long tensors have an object of their own: they are sent from where they are.

Checkpoints that torch's FileSystemWriter or s3torchconnector's S3StorageWriter have written are read too (each tensor is a pickle
there, and is copied). As with torch's own reader, ``.metadata`` is unpickled: read checkpoints of people whom you trust.
"""

from __future__ import annotations

import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, List, Optional, Union

import torch
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from .. import _base
from .._client import Client
from .._uri import split
from ..errors import ConfigurationError, NotFound
from ._lazy import LazyClient
from .safetensors import pieces

#: Tensors from this length on are objects of their own.
OWN_OBJECT_BYTES_MIN = 8 << 20
#: Shorter ones share objects of about this length.
SHARED_OBJECT_BYTES = 64 << 20
#: Objects on their way at a time.
PUTS_AT_A_TIME = 4
METADATA = ".metadata"


@dataclass
class Stored:
    """Where an item lies: bytes of an object under the prefix."""

    name: str
    offset: int
    length: int
    #: False for what is not a tensor.
    is_tensor: bool


@dataclass
class _Rank:
    """What a plan carries to its writer: the rank that its objects are named by."""

    rank: int


class _Place:
    def __init__(self, path: str, client: LazyClient) -> None:
        self._client = client
        self._set(path)

    def _set(self, path: Union[str, Any]) -> None:
        bucket, prefix = split(str(path))
        self.path = str(path)
        self._bucket = bucket
        self._prefix = prefix if not prefix or prefix.endswith("/") else prefix + "/"

    def _reset(self, checkpoint_id: Any) -> None:
        if checkpoint_id is not None:
            self._set(checkpoint_id)

    def _key(self, name: str) -> str:
        return self._prefix + name


def _is_uri(checkpoint_id: Any) -> bool:
    try:
        split(str(checkpoint_id))
        return True
    except ConfigurationError:
        return False


class S3StorageWriter(StorageWriter):
    """Writes a checkpoint under ``s3://bucket/prefix``. `options` are those of `penstock.Client`."""

    def __init__(self, path: str, *, client: Optional[Client] = None, **options: Any) -> None:
        self._place = _Place(path, LazyClient(client, options))

    def reset(self, checkpoint_id: Any = None) -> None:
        self._place._reset(checkpoint_id)

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self._is_coordinator = is_coordinator

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: List[SavePlan]) -> List[SavePlan]:
        return [replace(plan, storage_data=_Rank(rank)) for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> "Future[List[WriteResult]]":
        rank = plan.storage_data.rank
        client, place = self._place._client(), self._place
        results: List[WriteResult] = []
        numbers = iter(range(1 << 62))
        shared: List[Any] = []
        shared_results: List[tuple[WriteItem, int, int]] = []
        shared_bytes = 0
        sending: "List[Any]" = []

        def put(body: List[Any], items: "List[tuple[WriteItem, int, int]]") -> None:
            name = f"__{rank}_{next(numbers)}.distcp"
            sending.append(threads.submit(client.put, place._bucket, place._key(name), body))
            for item, offset, length in items:
                stored = Stored(name, offset, length, item.type != WriteItemType.BYTE_IO)
                results.append(WriteResult(index=item.index, size_in_bytes=length, storage_data=stored))
            while len(sending) >= PUTS_AT_A_TIME:
                sending.pop(0).result()

        with ThreadPoolExecutor(PUTS_AT_A_TIME, thread_name_prefix="penstock-dcp") as threads:
            for item in plan.items:
                data: Any = planner.resolve_data(item)
                if item.type == WriteItemType.BYTE_IO:
                    memory: Any = data.getbuffer()
                    length = memory.nbytes
                else:
                    memory = data.detach().to("cpu").contiguous()
                    length = memory.numel() * memory.element_size()
                if length >= OWN_OBJECT_BYTES_MIN:
                    put([memory], [(item, 0, length)])
                    continue
                shared_results.append((item, shared_bytes, length))
                if length:
                    shared.append(memory)
                shared_bytes += length
                if shared_bytes >= SHARED_OBJECT_BYTES:
                    put(shared, shared_results)
                    shared, shared_results, shared_bytes = [], [], 0
            if shared_results:
                put(shared, shared_results)
            for sent in sending:
                sent.result()
        future: "Future[List[WriteResult]]" = Future()
        future.set_result(results)
        return future

    def finish(self, metadata: Metadata, results: List[List[WriteResult]]) -> None:
        metadata.storage_data = {result.index: result.storage_data for of_rank in results for result in of_rank}
        metadata.storage_meta = self.storage_meta()
        place = self._place
        place._client().put(place._bucket, place._key(METADATA), pickle.dumps(metadata))

    def storage_meta(self) -> Optional[StorageMeta]:
        return StorageMeta(checkpoint_id=self._place.path)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return _is_uri(checkpoint_id)


class S3StorageReader(StorageReader):
    """Reads a checkpoint under ``s3://bucket/prefix``. `options` are those of `penstock.Client`."""

    def __init__(
        self, path: str, *, client: Optional[Client] = None, at_a_time: int = _base.AT_A_TIME, **options: Any
    ) -> None:
        self._place = _Place(path, LazyClient(client, options))
        self._at_a_time = at_a_time
        self._stored: dict[MetadataIndex, Any] = {}

    def reset(self, checkpoint_id: Any = None) -> None:
        self._place._reset(checkpoint_id)
        self._stored = {}

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        place = self._place
        try:
            data = place._client().get(place._bucket, place._key(METADATA))
        except NotFound as error:
            raise NotFound(f"{place.path} is no checkpoint, or one whose writing did not end: it has no {METADATA} ({error})") from None
        metadata = pickle.loads(data)
        if not isinstance(metadata, Metadata):
            raise ConfigurationError(f"{place.path}: its {METADATA} is no checkpoint's")
        return metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self._stored = metadata.storage_data
        self._described = metadata.state_dict_metadata

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: List[LoadPlan]) -> List[LoadPlan]:
        return plans

    def _chunk(self, item: ReadItem) -> Any:
        """Shape and type of the stored piece that the item reads of."""
        described: Any = self._described[item.storage_index.fqn]
        offset = item.storage_index.offset
        for chunk in described.chunks:
            if offset is None or chunk.offsets == offset:
                return chunk.sizes, described.properties.dtype
        raise ConfigurationError(f"the checkpoint's metadata has no piece of {item.storage_index.fqn} at {offset}")

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> "Future[None]":
        place, client = self._place, self._place._client()
        ranges: List[Any] = []
        after: List[Any] = []
        for item in plan.items:
            stored = self._stored[item.storage_index]
            if not isinstance(stored, Stored):
                self._read_pickled(client, item, stored, planner)
                continue
            key = place._key(stored.name)
            if item.type == LoadItemType.BYTE_IO:
                memory = bytearray(stored.length)
                ranges.append((place._bucket, key, stored.offset, memory))
                after.append(lambda item=item, memory=memory: planner.load_bytes(item, io.BytesIO(memory)))
                continue
            self._plan_tensor(key, stored, item, planner, ranges, after)
        # All of it at once: what lands in a tensor that is contiguous lands there for good.
        client._engine.get_into(ranges, self._at_a_time)
        for finish in after:
            finish()
        future: "Future[None]" = Future()
        future.set_result(None)
        return future

    def _plan_tensor(
        self, key: str, stored: Stored, item: ReadItem, planner: LoadPlanner, ranges: List[Any], after: List[Any]
    ) -> None:
        sizes, dtype = self._chunk(item)
        target = planner.resolve_tensor(item).detach()
        if tuple(target.shape) != tuple(item.lengths):
            raise ConfigurationError(f"{item.dest_index.fqn}: {tuple(item.lengths)} are to be read into {tuple(target.shape)}")
        whole_rows = tuple(item.lengths[1:]) == tuple(sizes[1:])
        width = torch.empty(0, dtype=dtype).element_size()
        if whole_rows or not sizes:
            # Bytes that follow each other in the object.
            row = width
            for size in sizes[1:]:
                row *= size
            start = stored.offset + (item.storage_offsets[0] * row if sizes else 0)
            direct = target.dtype == dtype and target.is_contiguous() and target.device.type == "cpu"
            landing = target if direct else torch.empty(tuple(item.lengths), dtype=dtype)
            take = landing
        else:
            start, landing, direct = stored.offset, torch.empty(tuple(sizes), dtype=dtype), False
            take = landing
            for dimension, (offset, length) in enumerate(zip(item.storage_offsets, item.lengths)):
                take = take.narrow(dimension, offset, length)
        ranges += [(self._place._bucket, key, at, memory) for at, memory in pieces(start, landing)]

        def finish() -> None:
            if not direct:
                target.copy_(take)
            planner.commit_tensor(item, target)

        after.append(finish)

    def _read_pickled(self, client: Client, item: ReadItem, stored: Any, planner: LoadPlanner) -> None:
        """An item as torch's FileSystemWriter has stored it."""
        if getattr(stored, "transform_descriptors", None):
            raise ConfigurationError(f"the checkpoint was transformed ({stored.transform_descriptors}) when it was written: read it with torch's reader")
        place = self._place
        data = client.get(place._bucket, place._key(stored.relative_path), start=stored.offset, length=stored.length)
        if item.type == LoadItemType.BYTE_IO:
            planner.load_bytes(item, io.BytesIO(data))
            return
        tensor = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        for dimension, (offset, length) in enumerate(zip(item.storage_offsets, item.lengths)):
            tensor = tensor.narrow(dimension, offset, length)
        target = planner.resolve_tensor(item).detach()
        target.copy_(tensor)
        planner.commit_tensor(item, target)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return _is_uri(checkpoint_id)
