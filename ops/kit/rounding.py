"""How far rounding can take a computed tensor from the exact one, element by element.

Sums may be in any order, of parts of any size, and truncated as matrix instructions do, which
doubles their error. All bounds are for values that do not overflow.
"""

from __future__ import annotations

import numpy as np

from graphexec.base.casts import cast
from graphexec.base.tensor import Array, DType
from graphexec.ir.approximate import (
    Approximate,
    finite,
    smallest_normal,
    smallest_subnormal,
    unit_roundoff,
)

_FUNCTIONS = 4  # operations whose errors an addend or a factor of a sum has besides
_EXPONENTIAL = 16  # units roundoff of the relative error of an exponential function
_LARGE = 50.0  # an exponent that is off by more is unknown
_ZERO = -1000.0  # exp of less is zero in every dtype


def stored(error: Array, exact: Array, dtype: DType) -> Array:
    """The error of values, off by `error`, once they are rounded to `dtype`."""
    largest = finite(np.abs(exact)) + error
    rounding = 1.01 * unit_roundoff(dtype) * largest  # a little more: some are rounded twice
    return error + rounding + smallest_subnormal(dtype)


def loses_digits(source: DType, target: DType) -> bool:
    """Whether a cast between these may have to round to a float `target`."""
    if source.is_float:
        return unit_roundoff(target) > unit_roundoff(source)
    digits = {DType.BOOL: 1, DType.I8: 7, DType.U8: 8, DType.I32: 31, DType.I64: 63}
    return unit_roundoff(target) > 2.0 ** -digits[source]


def cast_error(values: Array, error: Array, source: DType, target: DType) -> Array:
    """The error of `values` of the dtype `source`, off by `error`, once they are cast to a
    `target` that is an integer or bool: none where they are not off."""
    off = error > 0
    if target is DType.BOOL:
        return np.where(off & (np.abs(values) <= error), 1.0, 0.0)
    if not off.any():
        return np.zeros(values.shape)
    if source.is_integer and source.itemsize > target.itemsize:  # it wraps: anything may come
        return np.where(off, 2.0 ** (8 * target.itemsize), 0.0)
    wide = values.astype(np.float64)
    low, here, high = (
        cast(v, target.numpy()).astype(np.float64) for v in (wide - error, wide, wide + error)
    )
    return np.where(off, np.maximum(high - here, here - low), 0.0)


def product_error(a: Approximate, b: Approximate, alpha: float = 1.0) -> Array:
    """The error of alpha · (a @ b) before it is stored."""
    sums = a.dtype.accumulator
    terms = a.values.shape[-1]
    exact = np.matmul(a.magnitude, b.magnitude)
    largest, carried = exact, np.zeros(())
    if a.error is not None or b.error is not None:
        largest = np.matmul(_largest(a), _largest(b))
        carried = np.maximum(largest - exact, 0.0)
    rounding = 2 * (terms + _FUNCTIONS) * unit_roundoff(sums) * largest
    found: Array = abs(alpha) * (carried + rounding + terms * smallest_normal(sums))
    return found


def addend_error(addend: Approximate, factor: float, sums: DType, out: DType) -> Array:
    """The error that factor · addend brings into a sum of `sums` with it, which may have been
    stored as `out` before."""
    units = unit_roundoff(out) + _FUNCTIONS * unit_roundoff(sums)
    found: Array = abs(factor) * (_error(addend) + 2 * units * _largest(addend))
    return found


def softmax_error(z: Array, off: Array, probabilities: Array, sums: DType, axis: int) -> Array:
    """The error of softmax(z), which is `probabilities`, where each logit z is off by `off`.

    With logits off by at most δ, the powers are off by exp(δ) - 1, and their sum by the mean of
    that, weighted with the probabilities.
    """
    unit, length = unit_roundoff(sums), z.shape[axis]
    top = z.max(axis=axis, keepdims=True)
    below = finite(z - top)
    off = off + unit * (_FUNCTIONS * np.abs(below) + _EXPONENTIAL)
    hidden = ~np.isfinite(z) | ((below < _ZERO) & (off < -below / 2))
    off = np.where(hidden, 0.0, finite(off))
    power = np.expm1(np.minimum(off, _LARGE))
    total = (probabilities * power).sum(axis=axis, keepdims=True) + 2 * (length + 4) * unit
    flushed = 4 * length * smallest_normal(sums)  # kernels may divide all powers by 2 · length
    found = probabilities * (power + 2 * total * (1 + power)) + flushed
    unknown = (total > 0.5) | (off > _LARGE).any(axis=axis, keepdims=True)
    result: Array = np.where(unknown, 1.0, np.minimum(found, 1.0))
    return result


def logits_error(x: Approximate, scale: float, mask: Approximate | None) -> Array:
    """The error of scale · x + mask."""
    unit = unit_roundoff(x.dtype.accumulator)
    off: Array = abs(scale) * (_error(x) + _FUNCTIONS * unit * _largest(x))
    if mask is not None:
        off = off + _error(mask) + _FUNCTIONS * unit * _largest(mask)
    return off


def _error(x: Approximate) -> Array:
    return np.zeros(()) if x.error is None else x.error


def _largest(x: Approximate) -> Array:
    return x.magnitude if x.error is None else x.magnitude + x.error


__all__ = ["addend_error", "logits_error", "product_error", "softmax_error", "stored"]
