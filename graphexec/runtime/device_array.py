"""Arrays of other libraries in the memory of a GPU or of the host, and graphexec's own.

They are accepted by DLPack (https://dmlc.github.io/dlpack/latest/) or, without it, by the CUDA
array interface (https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html), which
ROCm's libraries offer too. DLPack comes first because its producer orders the consumer's stream
after its own.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphexec.base.errors import SessionClosed
from graphexec.base.tensor import Array, DType, TensorType, contiguous_strides

_GPU_DEVICES = (2, 10)  # kDLCUDA, kDLROCM
_HOST_DEVICES = (1, 3, 11)  # kDLCPU, and what CUDA and ROCm have pinned of it
_DLPACK_DTYPES = {
    (2, 16): DType.F16, (4, 16): DType.BF16, (2, 32): DType.F32, (2, 64): DType.F64,
    (0, 8): DType.I8, (1, 8): DType.U8, (0, 32): DType.I32, (0, 64): DType.I64, (6, 8): DType.BOOL,
}  # fmt: skip
"""By the code (signed and unsigned integers, floats, bfloat, bool) and the number of bits."""
_TYPESTR = {
    "<f2": DType.F16, "|V2": DType.BF16, "<f4": DType.F32, "<f8": DType.F64,
    "|i1": DType.I8, "|u1": DType.U8, "<i4": DType.I32, "<i8": DType.I64, "|b1": DType.BOOL,
}  # fmt: skip


@dataclass(frozen=True)
class DeviceArray:
    """A dense row-major array at `address` in device memory.

    `owner` keeps the memory alive. `stream` is the handle of the stream that wrote it, 0 for the
    null stream, or None if the reader's stream is already ordered after the writer. Other
    libraries can read it by its `__cuda_array_interface__` (bf16 as 2-byte void), which raises
    SessionClosed when the executable that owns the memory is closed.
    """

    address: int
    type: TensorType
    owner: object = field(default=None, repr=False)
    stream: int | None = None

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if getattr(self.owner, "closed", False):
            raise SessionClosed("the array is freed: the executable that owns it is closed")
        return {
            "shape": self.type.shape,
            "typestr": next(t for t, dtype in _TYPESTR.items() if dtype is self.type.dtype),
            "data": (self.address, False),
            "strides": None,
            "version": 3,
            "stream": self.stream or (None if self.stream is None else 1),  # 1: the null stream
        }


class NotTaken(Exception):
    """An array cannot be taken; the message says why."""


def is_device_array(value: object) -> bool:
    """Whether `value` offers memory of a GPU."""
    if hasattr(value, "__cuda_array_interface__"):
        return True
    device = getattr(value, "__dlpack_device__", None)
    return device is not None and int(device()[0]) in _GPU_DEVICES


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of an array in device memory, without accepting it; None if unknown."""
    interface = getattr(value, "__cuda_array_interface__", None)
    shape = interface["shape"] if interface is not None else getattr(value, "shape", None)
    return None if shape is None else tuple(map(int, shape))


def host_array(value: Any) -> Array:
    """`value` as a NumPy array, in place where its owner allows it: by the protocols of NumPy, else
    by DLPack, which is how other libraries give bf16 away. Raises NotTaken."""
    if isinstance(value, np.ndarray):
        return value
    by_dlpack = hasattr(value, "__dlpack__")
    if by_dlpack and not any(hasattr(value, name) for name in _NUMPY_PROTOCOLS):
        return _host_tensor(value)
    try:
        found = np.asarray(value)
    except Exception as exc:  # whatever the library of `value` says
        if not by_dlpack:
            raise NotTaken(str(exc)) from exc
        return _host_tensor(value)
    if found.dtype.hasobject:
        raise NotTaken(f"a {type(value).__name__} is no array of numbers")
    return found


_NUMPY_PROTOCOLS = ("__array__", "__array_interface__", "__array_struct__")


def _host_tensor(value: Any) -> Array:
    try:
        kind, place = value.__dlpack_device__()
        if int(kind) not in _HOST_DEVICES:
            raise NotTaken(f"it lies on another device (DLPack device {int(kind)}, {int(place)})")
        tensor = _Tensor.of(value.__dlpack__())
    except NotTaken:
        raise
    except Exception as exc:  # whatever its owner says
        raise NotTaken(f"its owner does not give it away: {exc}") from exc
    return np.asarray(_Lent(tensor)).view(tensor.dtype.numpy())


class _Lent:
    """A tensor in host memory as NumPy may read it; arrays over it keep its owner alive."""

    def __init__(self, tensor: _Tensor) -> None:
        size = tensor.dtype.itemsize
        self.owner = tensor.owner
        self.__array_interface__ = {
            "shape": tensor.shape,
            "typestr": f"<u{size}",
            "data": (tensor.address, True),
            "strides": tuple(step * size for step in tensor.strides),
            "version": 3,
        }


def take(value: Any, stream: int, device: int = 0) -> DeviceArray:
    """`value` as a DeviceArray for a reader on `stream` (a handle) of a device.

    Raises NotTaken.
    """
    if isinstance(value, DeviceArray):
        return value
    if not hasattr(value, "__dlpack__"):
        return _from_interface(value, value.__cuda_array_interface__)
    kind, place = value.__dlpack_device__()
    if int(kind) not in _GPU_DEVICES or int(place) != device:
        raise NotTaken(f"it lies on another device (DLPack device {int(kind)}, {int(place)})")
    try:
        return _from_dlpack(value.__dlpack__(stream=stream))
    except BufferError as exc:
        raise NotTaken(f"its owner does not give it away: {exc}") from exc


def _from_interface(value: object, interface: dict[str, Any]) -> DeviceArray:
    dtype = _TYPESTR.get(interface["typestr"])
    if dtype is None:
        raise NotTaken(f"elements of type {interface['typestr']} are not supported")
    shape = tuple(int(e) for e in interface["shape"])
    strides = interface.get("strides")
    if strides is not None:
        _require_dense(shape, tuple(int(s) // dtype.itemsize for s in strides))
    # In version 3, 1 is the null stream; without the entry, the writer is unknown.
    stream = interface.get("stream", 1)
    if stream == 1:
        stream = 0
    return DeviceArray(int(interface["data"][0]), TensorType(shape, dtype), value, stream)


def _require_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    wanted = contiguous_strides(shape)
    if any(e != 1 and s != w for e, s, w in zip(shape, strides, wanted, strict=True)):
        raise NotTaken("it is not contiguous in row-major order")


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class _Tensor:
    """What a DLPack capsule holds; the capsule keeps the memory alive and frees it when dropped."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements
    dtype: DType
    owner: object

    @staticmethod
    def of(capsule: object) -> _Tensor:
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        tensor = _DLTensor.from_address(get(capsule, b"dltensor"))
        dtype = _DLPACK_DTYPES.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None
        if dtype is None:
            raise NotTaken(f"DLPack elements of code {tensor.code}, {tensor.bits} bits, "
                           f"{tensor.lanes} lanes are not supported")  # fmt: skip
        shape = tuple(tensor.shape[: tensor.ndim])
        strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None
        address = (tensor.data or 0) + tensor.byte_offset
        return _Tensor(address, shape, strides or contiguous_strides(shape), dtype, capsule)


def _from_dlpack(capsule: object) -> DeviceArray:
    tensor = _Tensor.of(capsule)
    _require_dense(tensor.shape, tensor.strides)
    return DeviceArray(tensor.address, TensorType(tensor.shape, tensor.dtype), capsule, None)
