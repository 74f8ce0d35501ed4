"""Tensors: dtype, shape and memory space; and views, strided windows on their bytes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import prod
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Space = Literal["device", "host"]
INT64_MAX = 2**63 - 1
Array: TypeAlias = "np.ndarray[Any, Any]"


class DType(StrEnum):
    """Element type. Floats are summed in f32 (f64 for f64). A bool is a byte, 0 or 1."""

    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"
    F64 = "f64"
    I8 = "i8"
    U8 = "u8"
    I32 = "i32"
    I64 = "i64"
    BOOL = "bool"

    @property
    def is_float(self) -> bool:
        """Whether it is a floating type."""
        return self in _FLOATS

    @property
    def is_integer(self) -> bool:
        """Whether it is an integer type; bool is none."""
        return self in _INTEGERS

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return _ITEMSIZE[self]

    @property
    def accumulator(self) -> DType:
        """The type of sums."""
        return DType.F64 if self is DType.F64 else DType.F32

    @staticmethod
    def of(dtype: np.dtype[Any]) -> DType:
        """The DType of a NumPy dtype; ValueError where there is none."""
        for known in DType:
            if known.numpy() == dtype:
                return known
        raise ValueError(f"there is no element type for {dtype}")

    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype; bfloat16 is the one of ml_dtypes."""
        import numpy as np

        if self is not DType.BF16:
            return np.dtype(_NUMPY_NAMES[self])
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16


_NUMPY_NAMES = {
    DType.F16: "float16", DType.F32: "float32", DType.F64: "float64", DType.I8: "int8",
    DType.U8: "uint8", DType.I32: "int32", DType.I64: "int64", DType.BOOL: "bool",
}  # fmt: skip
_ITEMSIZE = {
    DType.F16: 2, DType.BF16: 2, DType.F32: 4, DType.F64: 8, DType.I8: 1, DType.U8: 1,
    DType.I32: 4, DType.I64: 8, DType.BOOL: 1,
}  # fmt: skip
_FLOATS = frozenset((DType.F16, DType.BF16, DType.F32, DType.F64))
_INTEGERS = frozenset((DType.I8, DType.U8, DType.I32, DType.I64))


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides of `shape`, in elements."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


def merge_axes(
    shape: tuple[int, ...], *strides: tuple[int, ...]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Merge adjacent axes that are one axis for every set of strides; drop axes of extent 1."""
    axes: list[tuple[int, list[int]]] = []
    for index, extent in enumerate(shape):
        if extent == 1:
            continue
        step = [s[index] for s in strides]
        if axes and all(outer == extent * s for outer, s in zip(axes[-1][1], step, strict=True)):
            axes[-1] = (axes[-1][0] * extent, step)
        else:
            axes.append((extent, step))
    merged = tuple(extent for extent, _ in axes)
    return merged, [tuple(step[i] for _, step in axes) for i in range(len(strides))]


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape (every extent at least 1), dtype and the memory space the tensor lives in."""

    shape: tuple[int, ...]
    dtype: DType
    space: Space = "device"

    @property
    def elements(self) -> int:
        """How many elements there are."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor, densely packed."""
        return prod(self.shape) * _ITEMSIZE[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class View:
    """A strided window on the bytes of one storage.

    `offset` and `strides` count elements of `dtype`; a broadcast axis has stride 0.
    """

    storage: str
    shape: tuple[int, ...]
    dtype: DType
    strides: tuple[int, ...] = field(default=())
    offset: int = 0

    @staticmethod
    def dense(storage: str, type: TensorType) -> View:
        """The whole of a densely packed tensor."""
        return View(storage, type.shape, type.dtype, contiguous_strides(type.shape))

    @property
    def elements(self) -> int:
        """How many elements there are."""
        return prod(self.shape)

    @property
    def is_dense(self) -> bool:
        """True when the elements lie side by side in row-major order."""
        expected = 1
        for extent, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if extent != 1 and stride != expected:
                return False
            expected *= extent
        return True

    def byte_range(self) -> tuple[int, int]:
        """First and past-last byte touched, relative to the storage's first byte."""
        low = high = self.offset
        for extent, stride in zip(self.shape, self.strides, strict=True):
            if stride > 0:
                high += (extent - 1) * stride
            else:
                low += (extent - 1) * stride
        size = _ITEMSIZE[self.dtype]
        return low * size, (high + 1) * size

    def transpose(self, axes: tuple[int, ...]) -> View:
        """The same elements with permuted axes: axis i of the result is axis `axes[i]`."""
        return replace(
            self,
            shape=tuple(self.shape[a] for a in axes),
            strides=tuple(self.strides[a] for a in axes),
        )

    def turned(self) -> View:
        """The same elements with the last two axes exchanged."""
        rank = len(self.shape)
        return self.transpose((*range(rank - 2), rank - 1, rank - 2))

    def broadcast_to(self, shape: tuple[int, ...]) -> View:
        """The view repeated to `shape` by NumPy's rules (stride 0); the caller checked them."""
        if shape == self.shape:
            return self
        missing = len(shape) - len(self.shape)
        strides = tuple(
            0 if extent == 1 and target != 1 else stride
            for extent, stride, target in zip(
                self.shape, self.strides, shape[missing:], strict=True
            )
        )
        return View(self.storage, shape, self.dtype, (0,) * missing + strides, self.offset)

    def reshape(self, shape: tuple[int, ...]) -> View:
        """A dense view seen with another shape of as many elements."""
        return replace(self, shape=shape, strides=contiguous_strides(shape))

    def reshaped(self, shape: tuple[int, ...]) -> View | None:
        """The view seen with another shape of as many elements, where strides can express that.

        Adjacent axes with one common stride are split and joined: NumPy's rule for reshaping
        without a copy.
        """
        if self.is_dense:
            return self.reshape(shape)
        whole, (steps,) = merge_axes(self.shape, self.strides)
        strides: list[int] = []
        axis, left = len(whole) - 1, whole[-1]
        for extent in reversed(shape):
            if left == 1 and axis > 0 and extent > 1:
                axis -= 1
                left = whole[axis]
            if left % extent:
                return None
            strides.append(steps[axis] * (whole[axis] // left) if extent > 1 else 1)
            left //= extent
        return replace(self, shape=shape, strides=tuple(reversed(strides)))
