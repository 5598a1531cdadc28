"""Safetensors (<https://huggingface.co/docs/safetensors>): tensors read from S3 straight into their memory."""

from __future__ import annotations

import json
import struct
from typing import Any, Iterable, Mapping, Optional

import torch

from .. import _base
from .._client import Client
from .._uri import split_object
from ..errors import PenstockError, WrongSize
from ._lazy import LazyClient

#: The longest header that there is (the format's own bound).
HEADER_BYTES_MAX = 100_000_000
#: Read with the length of the header, in the hope that the header is within.
FIRST_BYTES = 64 << 10
#: Longer tensors are read in pieces of so many bytes, side by side.
PIECE_BYTES = 32 << 20

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
for _name, _torch_name in (("U16", "uint16"), ("U32", "uint32"), ("U64", "uint64"), ("F8_E4M3", "float8_e4m3fn"), ("F8_E5M2", "float8_e5m2")):
    if hasattr(torch, _torch_name):
        DTYPES[_name] = getattr(torch, _torch_name)


class SafetensorsError(PenstockError, ValueError):
    """The object is no safetensors file."""


def pieces(start: int, tensor: torch.Tensor) -> list[tuple[int, tuple[int, int, torch.Tensor]]]:
    """Where in an object the bytes of a contiguous tensor are, and where they go: pieces that can be read side by side."""
    address, total = tensor.data_ptr(), tensor.numel() * tensor.element_size()
    return [
        (start + at, (address + at, min(PIECE_BYTES, total - at), tensor)) for at in range(0, total, PIECE_BYTES)
    ]


def header(client: Client, bucket: str, key: str) -> tuple[dict[str, Any], int]:
    """What the file says of its tensors, and at which byte they begin."""

    def wrong(why: str) -> SafetensorsError:
        return SafetensorsError(f"s3://{bucket}/{key} is no safetensors file: {why}")

    try:
        first = memoryview(client.get(bucket, key, start=0, length=FIRST_BYTES))
    except WrongSize:
        raise wrong("it is empty") from None
    if len(first) < 8:
        raise wrong(f"it has {len(first)} bytes")
    (length,) = struct.unpack("<Q", first[:8])
    if length > HEADER_BYTES_MAX:
        raise wrong(f"its header would have {length} bytes")
    text = bytes(first[8 : 8 + length])
    if len(text) < length:
        if len(first) < FIRST_BYTES:
            raise wrong("its header is cut off")
        text += bytes(client.get(bucket, key, start=8 + len(text), length=length - len(text)))
    try:
        described = json.loads(text)
    except ValueError as error:
        raise wrong(f"its header is no JSON: {error}") from None
    if len(text) < length or not isinstance(described, dict):
        raise wrong("its header is cut off")
    return described, 8 + length


def load(
    s3_uri: str,
    *,
    names: Optional[Iterable[str]] = None,
    device: Any = "cpu",
    client: Optional[Client] = None,
    at_a_time: int = _base.AT_A_TIME,
    **options: Any,
) -> dict[str, torch.Tensor]:
    """The tensors of a file, or those of these names: each read into its own memory, all side by side.

    To another device than the CPU they are copied once they are here.
    """
    bucket, key = split_object(s3_uri)
    s3 = LazyClient(client, options)()
    described, begin = header(s3, bucket, key)
    described.pop("__metadata__", None)
    wanted = list(described) if names is None else list(names)
    tensors: dict[str, torch.Tensor] = {}
    ranges = []
    for name in wanted:
        if name not in described:
            raise KeyError(f"s3://{bucket}/{key} has no tensor {name!r}; it has {', '.join(sorted(described)[:10])} ...")
        one = described[name]
        dtype = DTYPES.get(one["dtype"])
        if dtype is None:
            raise SafetensorsError(f"the tensor {name!r} is of type {one['dtype']}, which this torch does not have")
        tensor = torch.empty(one["shape"], dtype=dtype)
        first, last = one["data_offsets"]
        if last - first != tensor.numel() * tensor.element_size():
            raise SafetensorsError(f"the tensor {name!r} has {last - first} bytes, its shape and type are of others")
        tensors[name] = tensor
        ranges += pieces(begin + first, tensor)
    s3.get_ranges_into(bucket, key, ranges, at_a_time=at_a_time)
    if torch.device(device).type != "cpu":
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    return tensors


def save(
    tensors: Mapping[str, torch.Tensor],
    s3_uri: str,
    *,
    metadata: Optional[Mapping[str, str]] = None,
    client: Optional[Client] = None,
    **options: Any,
) -> None:
    """Writes tensors as one file, from where they are."""
    bucket, key = split_object(s3_uri)
    names = {dtype: name for name, dtype in DTYPES.items()}
    described: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data, offset = [], 0
    # Longest alignment first, as the format's own writer does.
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        if tensor.dtype not in names:
            raise SafetensorsError(f"the tensor {name!r} is of type {tensor.dtype}, which the format does not have")
        tensor = tensor.detach().to("cpu").contiguous()
        bytes_of_it = tensor.numel() * tensor.element_size()
        described[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + bytes_of_it],
        }
        offset += bytes_of_it
        if bytes_of_it:
            data.append(tensor)
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    LazyClient(client, options)().put(bucket, key, [struct.pack("<Q", len(text)) + text, *data])
