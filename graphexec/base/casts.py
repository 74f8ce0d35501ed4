"""Casts between element types by NumPy that round once, as a GPU's do.

Floats become integers by truncation; what is outside the range saturates, NaN gives 0. Integers
become narrower ones by wrapping. Everything becomes a bool by `!= 0`. Integers and floats become
floats by rounding to nearest, ties to even, once.

ml_dtypes rounds float64 to bfloat16 by way of float32, which rounds twice: 1 + 2⁻⁸ + 2⁻⁴⁰ becomes
1. So such a cast rounds to float32 by rounding to odd, which leaves the second rounding the exact
one (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", IEEE Transactions on
Computers 57(4), 2008). Integers go the same way. NumPy's other casts round once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphexec.base.tensor import Array, DType

_EXACT = 2**53  # integers up to here are float64 numbers
_LOW = 2**11 - 1  # bits of a larger one that float64 may lack


def cast_into(target: Array, source: Array) -> None:
    """target[...] = source, as the module says."""
    kind, into = source.dtype.kind, target.dtype.kind
    if kind == "b":
        source = source.view(np.uint8) != 0  # any byte but 0 is true
    if into == "b":
        target[...] = source != 0
    elif into in "iu":
        target[...] = _saturated(source, target.dtype) if kind not in "biu" else source
    elif target.dtype == DType.BF16.numpy() and source.dtype.itemsize > 2 and kind in "iuf":
        wide = source if kind == "f" else _to_float64(source)
        target[...] = _to_odd(wide) if wide.dtype == np.float64 else wide
    else:
        with np.errstate(over="ignore"):  # infinity is the nearest value
            target[...] = source


def cast(source: Array, dtype: np.dtype[Any]) -> Array:
    """`source` as an array of `dtype`; the same array if it is one."""
    if source.dtype == dtype:
        return source
    target = np.empty_like(source, dtype=dtype, subok=False)
    cast_into(target, source)
    return target


def limits(dtype: DType) -> tuple[int, int]:
    """The least and the largest number of an integer type."""
    info = np.iinfo(dtype.numpy())
    return int(info.min), int(info.max)


def _saturated(source: Array, dtype: np.dtype[Any]) -> Array:
    """Floats as integers."""
    limits = np.iinfo(dtype)
    wide = source.astype(np.float64)  # exact, and the limits of 32 bits are too
    low, past = float(limits.min), float(limits.max) + (1.0 if dtype.itemsize < 8 else 0.0)
    inside = (
        (wide > low - 1) & (wide < past) if dtype.itemsize < 8 else (wide >= low) & (wide < past)
    )
    found = np.where(inside, wide, 0.0).astype(dtype)
    found = np.where(~inside & (wide > 0), limits.max, found)
    result: Array = np.where(~inside & (wide < 0), limits.min, found).astype(dtype)
    return result


def _to_float64(source: Array) -> Array:
    """Integers as float64, with their last bit 1 if bits were lost: rounding on is then exact."""
    if source.dtype.itemsize < 8:
        return source.astype(np.float64)
    lost = (np.abs(source) > _EXACT) & ((source & _LOW) != 0)
    odd = np.where(lost, (source & ~_LOW) | (_LOW + 1), source)
    return odd.astype(np.float64)


def _to_odd(source: Array) -> Array:
    """float64 as float32: what is not exact becomes the neighbour whose last bit is 1."""
    with np.errstate(over="ignore"):  # infinity is the nearest value
        found = np.asarray(source.astype(np.float32))
    bits = found.view(np.uint32)
    wide = found.astype(np.float64)
    even = (wide != source) & (bits & 1 == 0) & np.isfinite(found)
    beyond = np.abs(wide) > np.abs(source)  # the odd neighbour lies towards zero
    bits += np.where(even, np.where(beyond, -1, 1), 0).astype(np.uint32)
    return found
