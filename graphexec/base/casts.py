"""Casts between element types by NumPy that round once, as a GPU's do.

ml_dtypes rounds float64 to bfloat16 by way of float32, which rounds twice: 1 + 2⁻⁸ + 2⁻⁴⁰ becomes
1. So such a cast rounds to float32 by rounding to odd, which leaves the second rounding the exact
one (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", IEEE Transactions on
Computers 57(4), 2008). NumPy's own casts round once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphexec.base.tensor import Array, DType


def cast_into(target: Array, source: Array) -> None:
    """target[...] = source, to the nearest value, ties to even."""
    if source.dtype == np.float64 and target.dtype == DType.BF16.numpy():
        source = _to_odd(source)
    target[...] = source


def cast(source: Array, dtype: np.dtype[Any]) -> Array:
    """`source` as an array of `dtype`; the same array if it is one."""
    if source.dtype == dtype:
        return source
    target = np.empty_like(source, dtype=dtype, subok=False)
    cast_into(target, source)
    return target


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
