"""What may be read into, and what may be sent: anything that is contiguous memory."""

from __future__ import annotations

from typing import Any

#: Buffers of bytes, arrays of any type, tensors on the CPU, or ``(address, length)``.
Destination = Any
Source = Any


def _tensor(tensor: Any, writable: bool) -> tuple[int, int, Any]:
    kind = tensor.device.type
    if kind != "cpu":
        raise TypeError(f"a tensor on {tensor.device} can't be read into or sent: use one on the CPU, and copy it there or back")
    if not tensor.is_contiguous():
        raise ValueError("the tensor is not contiguous: pass tensor.contiguous()")
    return (tensor.data_ptr(), tensor.numel() * tensor.element_size(), tensor)


def _memory(thing: Any, writable: bool) -> Any:
    if isinstance(thing, tuple):
        if len(thing) not in (2, 3) or not all(isinstance(number, int) and number >= 0 for number in thing[:2]):
            raise TypeError("memory by its address is (address, length), both integers")
        return thing
    if hasattr(thing, "data_ptr") and hasattr(thing, "is_contiguous"):
        return _tensor(thing, writable)
    if isinstance(thing, str):
        raise TypeError("text has no bytes: pass text.encode()")
    try:
        view = memoryview(thing)
    except (TypeError, ValueError, BufferError):
        # numpy's types that the buffer protocol does not know (bfloat16, datetime64) have their bytes all the same.
        described = getattr(thing, "__array_interface__", None)
        if described is None:
            raise TypeError(
                f"{type(thing).__name__} is no memory: pass bytes, bytearray, memoryview, a numpy array, a tensor or (address, length)"
            ) from None
        address, read_only = described["data"]
        if read_only and writable:
            raise ValueError("the destination is read-only: pass a writable array") from None
        if not thing.flags.c_contiguous:
            raise ValueError("the array is not contiguous: pass numpy.ascontiguousarray(array)") from None
        return (address, thing.nbytes, thing)
    if writable and view.readonly:
        raise ValueError("the destination is read-only: pass a bytearray, a writable array or a tensor")
    if not view.c_contiguous:
        raise ValueError("the memory is not contiguous: pass contiguous memory, such as numpy.ascontiguousarray(array)")
    if view.nbytes == 0:
        return bytearray() if writable else b""
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def destination(thing: Destination) -> Any:
    """Memory to be written, as the engine takes it."""
    return _memory(thing, True)


def source(thing: Source) -> Any:
    """Memory to be read, as the engine takes it."""
    return _memory(thing, False)
