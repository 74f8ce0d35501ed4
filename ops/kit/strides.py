"""Strided windows for kernels: merged axes, vector widths, and the arguments of device.h."""

from __future__ import annotations

from collections.abc import Sequence

from graphexec.base.tensor import View, merge_axes
from graphexec.ir.program import Scalar
from graphexec.ops.kit.launch import integers

VECTOR_BYTES = 16
"""Most bytes a thread loads or stores at once. Storages start at multiples of it."""

INDEX_LIMIT = 2**31
"""Indices below it are 32 bits wide and split without dividing."""


def collapse(
    shape: tuple[int, ...], *strides: tuple[int, ...]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Merge neighbouring axes that every set of strides walks as one; drop axes of extent 1.

    Returns the shape and each set of strides with at least one axis left.
    """
    merged, walked = merge_axes(shape, *strides)
    return (merged, walked) if merged else ((1,), [(0,) for _ in strides])


def axes(shape: tuple[int, ...], *strides: tuple[int, ...]) -> tuple[Scalar, ...]:
    """The struct Axes<len(strides), len(shape)> of device.h, as kernel arguments.

    Extents after the first are at least 2.
    """
    divisors = [divisor(extent) for extent in shape]
    members = [shape, [m for m, _ in divisors], [s for _, s in divisors], *strides]
    return tuple(scalar for member in members for scalar in integers(*member))


def divisor(extent: int) -> tuple[int, int]:
    """(multiplier, shift): n // extent == (n * multiplier >> 32) >> shift for 0 <= n < 2^31."""
    if not 2 <= extent < INDEX_LIMIT:
        return 0, 0
    bits = (extent - 1).bit_length()
    return -(-(1 << (31 + bits)) // extent), bits - 1


def index_type(count: int) -> str:
    """The C++ type of an index that counts to `count`."""
    return "u32" if count < INDEX_LIMIT else "i64"


def pieces(view: View, steps: Sequence[int]) -> int:
    """How many neighbours can be loaded at once: a power of two, of at most 16 bytes.

    `steps` are the distances, in elements, between the places where such loads start.
    """
    width = VECTOR_BYTES // view.dtype.itemsize
    while any(place % width for place in (view.offset, *steps)):
        width //= 2
    return width


def power_of_two(value: int) -> int:
    """The least power of two that is not below `value`."""
    return 1 << max(0, value - 1).bit_length()
