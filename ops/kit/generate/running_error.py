"""How far a right result of a body may be from its value in float64: a running error analysis.

Beside the value of each step goes a bound of its error, made from those of its arguments and from
the rounding of the step itself (N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
section 3.3). Arithmetic is rounded to nearest, other functions are right within 4 ulp. A monotone
function takes its arguments' bounds to the values at their ends. A comparison, a conversion to an
integer and the like are exact unless their arguments' bounds leave open what they give.

A bound is infinite where nothing is known: behind integers that might wrap, for example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphexec.base.tensor import Array, DType
from graphexec.ir.approximate import Approximate, largest, smallest_normal
from graphexec.ir.body import Body, Step
from graphexec.ops.kit.generate.by_numpy import evaluate
from graphexec.ops.kit.generate.error_rules import (
    APPROXIMATED,
    CHOICES,
    PROPAGATED,
    ROWS,
    Known,
    at_the_ends,
    of_cast,
    off_by_rounding,
    rounding,
)

_ULPS = 8  # unit roundoffs in 4 ulp
_ULPS_OF_HALVES = 512  # 2^-15
_SHORTER = ("sigmoid", "erfc")  # for results that are halves


def running_error(
    body: Body, operands: Sequence[Approximate], shape: tuple[int, ...]
) -> list[Array]:
    """A bound of the error of each result over an iteration shape, as it is stored. Those of
    reductions have extent 1 along the last axis, and others may have to be broadcast."""
    everything = replace(body, results=tuple(range(len(body.steps))))
    arrays = [operand.values for operand in operands]
    values = evaluate(everything, arrays, shape, exact=True)
    known: list[Known] = []
    with np.errstate(all="ignore"):
        for step, value in zip(body.steps, values, strict=True):
            args = [known[number] for number in step.args]
            ulps = _units(body, step)
            error = _settled(_error(step, value, args, operands, shape, ulps), step, value, args)
            known.append(Known(value, error, step.dtype))
        return [_stored(known[number]) for number in body.results]


def _stored(result: Known) -> Array:
    error = result.error + rounding(result.size, result.dtype)
    error = _or_infinite(error, result.value, result.dtype)
    return np.where(np.isnan(error), np.inf, error)


def _or_infinite(error: Array, value: Array, dtype: DType) -> Array:
    """The bound of a number, infinite where it may overflow."""
    if not dtype.is_float:
        return error
    return np.where(np.isfinite(value) & (np.abs(value) + error > largest(dtype)), np.inf, error)


def _settled(error: Array, step: Step, value: Array, args: list[Known]) -> Array:
    """The bound, infinite where nothing is known. NaN of exact arguments is sure."""
    error = np.where(np.isnan(error), np.inf, error)
    unsure: Array = np.zeros((), bool)
    for arg in args:
        unsure = np.asarray(unsure | (arg.error > 0))
    if step.reduces and unsure.shape:
        unsure = np.asarray(unsure.any(axis=-1, keepdims=True))
    return np.where(np.isnan(value) & ~unsure, 0.0, error)


def _units(body: Body, step: Step) -> int:
    """By how many unit roundoffs a step may be off."""
    if step.function in _SHORTER and body.makes_halves:
        return _ULPS_OF_HALVES
    return _ULPS if step.function in APPROXIMATED else 1


def _error(
    step: Step, value: Array, args: list[Known], operands: Sequence[Approximate],
    shape: tuple[int, ...], ulps: int,
) -> Array:  # fmt: skip
    """The bound of a step that is rounded by as many unit roundoffs, NaN where nothing is known."""
    if step.function == "load":
        error = operands[int(step.value or 0)].error
        return np.zeros(()) if error is None else error
    if step.function in ("constant", "index"):
        return off_by_rounding(value, step.dtype.accumulator)
    if step.function == "cast":
        return of_cast(step.dtype, value, args[0])
    if step.reduces:
        x = args[0]
        row = Known(np.broadcast_to(x.value, shape), np.broadcast_to(x.error, shape), x.dtype)
        return ROWS[step.function](value, row)
    if step.function in CHOICES:
        return CHOICES[step.function](value, *args)
    if not any(arg.error.any() for arg in args) and not step.dtype.is_float:
        return np.zeros(())
    error = PROPAGATED[step.function](value, *args) if step.function in PROPAGATED else (
        at_the_ends(step.function, value, args[0]))  # fmt: skip
    if not step.dtype.is_float:  # may wrap behind the largest integer
        return np.where(error == 0, 0.0, error + np.where(_near_the_end(step, value, error),
                                                          np.inf, 0.0))  # fmt: skip
    size, dtype = np.abs(value) + error, step.dtype.accumulator
    if ulps == _ULPS_OF_HALVES:  # may be flushed
        error = error + smallest_normal(dtype)
    return _or_infinite(error + ulps * rounding(size, dtype), value, dtype)


def _near_the_end(step: Step, value: Array, error: Array) -> Array:
    largest = 2.0 ** (8 * step.dtype.itemsize - (step.dtype is not DType.U8))
    low = 0.0 if step.dtype is DType.U8 else -largest
    wide = value.astype(np.float64)
    return np.asarray((wide + error >= largest) | (wide - error < low))
