"""Tensors that rounding has touched: what `compare` knows of an operand, and of the exact result.

Bounds are for floating point by N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
chapters 2 to 4: an operation in a dtype gives the right result times 1 + δ with |δ| at most the
unit roundoff, and a sum of n terms in any order is off by at most about n times the unit roundoff
times the sum of their magnitudes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from graphexec.base.tensor import Array, DType


@dataclass(frozen=True)
class Approximate:
    """A tensor of `dtype`. Its `values` are float64, or integers and bools as they are. In a run
    each was off by at most its `error`, of the same shape; None: not at all."""

    values: Array
    dtype: DType
    error: Array | None = None

    @property
    def magnitude(self) -> Array:
        """The magnitudes of the values; 0 where they are not finite."""
        return finite(np.abs(self.values))

    def turned(self, turn: bool = True) -> Approximate:
        """With the last two axes exchanged, if `turn`."""
        if not turn:
            return self
        error = None if self.error is None else self.error.swapaxes(-1, -2)
        return Approximate(self.values.swapaxes(-1, -2), self.dtype, error)


Approximates = Mapping[str, Approximate]


def exactly(array: Array) -> Array:
    """The elements of a tensor without rounding: floats in float64, integers and bools as they are.
    A copy."""
    if array.dtype.kind == "b":
        return np.asarray(array.view(np.uint8) != 0)  # any byte but 0 is true
    return np.array(array, None if array.dtype.kind in "iu" else np.float64)


def finite(values: Array) -> Array:
    """The values; 0 where they are not finite."""
    return np.where(np.isfinite(values), values, 0.0)


@cache
def unit_roundoff(dtype: DType) -> float:
    """The largest relative error of rounding to the nearest number; 0 for integers."""
    if not dtype.is_float:
        return 0.0
    return _limit(dtype, "eps") / 2


@cache
def smallest_normal(dtype: DType) -> float:
    """The smallest positive normal number: what flushing subnormal numbers to zero may lose; 0 for
    integers."""
    if not dtype.is_float:
        return 0.0
    return _limit(dtype, "smallest_normal")


@cache
def smallest_subnormal(dtype: DType) -> float:
    """The smallest positive number; 0 for integers."""
    if not dtype.is_float:
        return 0.0
    return _limit(dtype, "smallest_subnormal")


@cache
def largest(dtype: DType) -> float:
    """The largest finite number of a float."""
    return _limit(dtype, "max")


def _limit(dtype: DType, name: str) -> float:
    import ml_dtypes

    info = ml_dtypes.finfo(dtype.numpy())  # type: ignore[no-untyped-call]
    return float(getattr(info, name))


__all__ = ["Approximate", "Approximates", "exactly", "finite", "largest", "smallest_normal",
           "smallest_subnormal", "unit_roundoff"]  # fmt: skip
