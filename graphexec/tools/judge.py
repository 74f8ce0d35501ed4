"""What a tensor of a run is judged by: as a whole, and element by element.

Floats have tolerances and bounds (graphexec.tools.compare). Integers and bools are exact, unless
they follow from floats that are off.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np

from graphexec.base.tensor import Array, DType, TensorType
from graphexec.ir.approximate import Approximate, finite, smallest_normal

TOLERANCE = {DType.F16: 2e-3, DType.BF16: 1.6e-2, DType.F32: 1e-5, DType.F64: 1e-12}
"""Relative Frobenius error a single node may have, by the coarsest dtype of its tensors.

Below the smallest normal number of a dtype, errors are absolute: subnormal numbers are as far apart
as the smallest normal one is from the next. One operation there gives
x (1 + δ) + η with |δ| ≤ u, the unit roundoff, and |η| at most half the smallest subnormal, which
is u times the smallest normal (N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
section 2.8). So the tolerance has an absolute part for each element

    tolerance · (smallest normal of the result's dtype) + n · η of the dtype sums are kept in

with n operations an element, all of which may round the same way. Hardware that flushes subnormal
numbers to zero may exceed it; `compare` reports this as an error.
"""


def grain(dtype: DType) -> float:
    """The tolerance of a dtype: 0 for integers and bools."""
    return TOLERANCE.get(dtype, 0.0)


@dataclass(frozen=True)
class Element:
    """An element by its index, what was found and expected there, and by how much it may be off.
    Elements of integer tensors are ints."""

    index: tuple[int, ...]
    found: float | int
    expected: float | int
    bound: float

    @property
    def ok(self) -> bool:
        """Whether it is off by no more than that. Equal infinities are; NaN is not."""
        return self.found == self.expected or abs(self.found - self.expected) <= self.bound


@dataclass(frozen=True)
class Row:
    """One tensor: its largest absolute error, its relative Frobenius error, and the tolerance of
    the latter. `tolerance` includes the absolute part for underflow, divided by the norm of the
    tensor. If the norm is 0, both are absolute. `worst` is the element whose error is the largest
    for its own bound."""

    name: str
    op: str
    dtype: str
    max_abs: float
    relative: float
    tolerance: float
    worst: Element

    @property
    def ok(self) -> bool:
        """Whether the tensor and every element of it are within tolerance; False for NaN too."""
        return self.relative <= self.tolerance and self.worst.ok


@dataclass(frozen=True)
class Judge:
    """What a tensor is judged by: the `usual` relative Frobenius error, the largest error `lost` by
    underflow in an element's sum, and the error that is `wanted` instead, which changes the bounds
    of elements in proportion."""

    type: TensorType
    usual: float
    lost: float
    wanted: float | None

    def row(self, name: str, op: str, found: Array, expected: Approximate) -> Row:
        """The row of a tensor."""
        exact, tolerance = expected.values, self.usual if self.wanted is None else self.wanted
        off = _difference(found, exact)
        size = _norm(finite(exact.astype(np.float64)))
        if self.type.dtype.is_float:
            floor = tolerance * smallest_normal(self.type.dtype) + self.lost
            allowed = tolerance * size + sqrt(self.type.elements) * floor
            # A device may take what is subnormal in a sum for zero.
            least = floor + smallest_normal(self.type.dtype.accumulator)
            bound = self._bound(expected, least)
        else:  # no tolerance: an element may be off by what its bound says, usually 0
            bound = np.zeros(off.shape) if expected.error is None else expected.error
            allowed = _norm(bound)
        unit = size or 1.0
        worst = _worst(found, exact, off, bound)
        dtype, largest = self.type.dtype.value, float(off.max())
        return Row(name, op, dtype, largest, _norm(off) / unit, allowed / unit, worst)

    def _bound(self, expected: Approximate, least: float) -> Array:
        """By how much each element may be off."""
        factor = 1.0 if self.wanted is None else self.wanted / self.usual
        bound = np.full(expected.values.shape, least)
        if factor and expected.error is not None:
            bound += factor * expected.error
        # Where the exact result is no number, it must be found as it is.
        return np.where(np.isfinite(expected.values), bound, 0.0)


def _difference(found: Array, exact: Array) -> Array:
    """By how much each element is off: 0 only where it is not, also for large integers."""
    with np.errstate(invalid="ignore"):
        off = np.asarray(np.abs(found.astype(np.float64) - exact.astype(np.float64)))
    if exact.dtype.kind in "iu":
        off = np.asarray(np.maximum(off, 1.0))  # also of a tensor of shape []
    off[found == exact] = 0.0  # infinities that agree, too
    return off


def _worst(found: Array, exact: Array, off: Array, bound: Array) -> Element:
    """The element with the largest error for its bound."""
    with np.errstate(all="ignore"):
        excess = np.where(off == 0.0, 0.0, off / bound)
    excess[np.isnan(excess)] = np.inf
    index = np.unravel_index(int(excess.argmax()), excess.shape)
    at = tuple(int(i) for i in index)
    return Element(at, found[at].item(), exact[at].item(), float(bound[at]))


def _norm(values: Array) -> float:
    """The Frobenius norm, also of values whose squares overflow or underflow float64."""
    largest = float(np.abs(values).max())
    if not largest or not isfinite(largest):
        return largest
    return largest * float(np.linalg.norm(values / largest))
