"""How far a right result of a body may be from its value in float64: a running error analysis.

Beside the value of each step goes a bound of its error, made from those of its arguments and from
the rounding of the step itself (N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
section 3.3). Arithmetic is rounded to nearest, other functions are right within 4 ulp. A monotone
function takes its arguments' bounds to the values at their ends. A comparison, a conversion to an
integer and the like are exact unless their arguments' bounds leave open what they give.

A bound is infinite where nothing is known: behind integers that might wrap, for example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from graphexec.base.tensor import Array, DType
from graphexec.ir.approximate import Approximate, largest, smallest_subnormal, unit_roundoff
from graphexec.ir.body import Body, Step
from graphexec.ops.kit.generate.by_numpy import evaluate

_ULPS = 8  # unit roundoffs in 4 ulp


@dataclass(frozen=True)
class _Known:
    """What is known of a step: its exact value, in float64 or as integers, and a bound of its
    error, which is not NaN."""

    value: Array
    error: Array
    dtype: DType

    @property
    def ends(self) -> tuple[Array, Array]:
        """The least and the largest value it may have."""
        off = np.where(self.error > 0, self.error, 0.0)
        value = self.value.astype(np.float64)
        low, high = value - off, value + off
        sure = off == 0
        return (np.where(sure, value, np.nextafter(low, -np.inf)),
                np.where(sure, value, np.nextafter(high, np.inf)))  # fmt: skip

    @property
    def size(self) -> Array:
        """The largest magnitude it may have."""
        return np.abs(self.value.astype(np.float64)) + self.error


def running_error(
    body: Body, operands: Sequence[Approximate], shape: tuple[int, ...]
) -> list[Array]:
    """A bound of the error of each result over an iteration shape, as it is stored. Those of
    reductions have extent 1 along the last axis, and others may have to be broadcast."""
    everything = replace(body, results=tuple(range(len(body.steps))))
    arrays = [operand.values for operand in operands]
    values = evaluate(everything, arrays, shape, exact=True)
    known: list[_Known] = []
    with np.errstate(all="ignore"):
        for step, value in zip(body.steps, values, strict=True):
            args = [known[number] for number in step.args]
            error = _settled(_error(step, value, args, operands, shape), step, value, args)
            known.append(_Known(value, error, step.dtype))
        return [_stored(known[number]) for number in body.results]


def _stored(result: _Known) -> Array:
    error = result.error + _rounding(result.size, result.dtype)
    error = _or_infinite(error, result.value, result.dtype)
    return np.where(np.isnan(error), np.inf, error)


def _or_infinite(error: Array, value: Array, dtype: DType) -> Array:
    """The bound of a number, infinite where it may overflow."""
    if not dtype.is_float:
        return error
    return np.where(np.isfinite(value) & (np.abs(value) + error > largest(dtype)), np.inf, error)


def _settled(error: Array, step: Step, value: Array, args: list[_Known]) -> Array:
    """The bound, infinite where nothing is known. NaN of exact arguments is sure."""
    error = np.where(np.isnan(error), np.inf, error)
    unsure: Array = np.zeros((), bool)
    for arg in args:
        unsure = np.asarray(unsure | (arg.error > 0))
    if step.reduces and unsure.shape:
        unsure = np.asarray(unsure.any(axis=-1, keepdims=True))
    return np.where(np.isnan(value) & ~unsure, 0.0, error)


def _error(
    step: Step, value: Array, args: list[_Known], operands: Sequence[Approximate],
    shape: tuple[int, ...],
) -> Array:  # fmt: skip
    """The bound of a step, NaN where nothing is known."""
    if step.function == "load":
        error = operands[int(step.value or 0)].error
        return np.zeros(()) if error is None else error
    if step.function in ("constant", "index"):
        return _off_by_rounding(value, step.dtype.accumulator)
    if step.function == "cast":
        return _of_cast(step.dtype, value, args[0])
    if step.reduces:
        x = args[0]
        row = _Known(np.broadcast_to(x.value, shape), np.broadcast_to(x.error, shape), x.dtype)
        return _ROWS[step.function](value, row)
    if step.function in _CHOICES:
        return _CHOICES[step.function](value, *args)
    if not any(arg.error.any() for arg in args) and not step.dtype.is_float:
        return np.zeros(())
    error = _PROPAGATED[step.function](value, *args) if step.function in _PROPAGATED else (
        _at_the_ends(step.function, value, args[0]))  # fmt: skip
    if not step.dtype.is_float:  # may wrap behind the largest integer
        return np.where(error == 0, 0.0, error + np.where(_near_the_end(step, value, error),
                                                          np.inf, 0.0))  # fmt: skip
    size, dtype = np.abs(value) + error, step.dtype.accumulator
    ulps = _ULPS if step.function in _APPROXIMATED else 1
    return _or_infinite(error + ulps * _rounding(size, dtype), value, dtype)


def _rounding(size: Array, dtype: DType) -> Array:
    """The largest error of rounding a number of such a size, in float64 twice: the exact value is
    rounded as well."""
    if not dtype.is_float:
        return np.zeros(())
    twice = 2 if dtype is DType.F64 else 1
    error = twice * (unit_roundoff(dtype) * size + smallest_subnormal(dtype))
    return np.where(np.isinf(size), 0.0, error)


def _off_by_rounding(value: Array, dtype: DType) -> Array:
    """The error of rounding an exact number; none where the dtype has it."""
    wide = value.astype(np.float64)
    near = value.astype(dtype.numpy()).astype(np.float64)
    return np.where((near == wide) | np.isnan(wide), 0.0, np.abs(near - wide))


def _near_the_end(step: Step, value: Array, error: Array) -> Array:
    largest = 2.0 ** (8 * step.dtype.itemsize - (step.dtype is not DType.U8))
    low = 0.0 if step.dtype is DType.U8 else -largest
    wide = value.astype(np.float64)
    return np.asarray((wide + error >= largest) | (wide - error < low))


# One argument ---------------------------------------------------------------------------


def _of_cast(dtype: DType, value: Array, x: _Known) -> Array:
    if dtype is DType.BOOL:
        return (np.abs(x.value) <= x.error) & (x.error > 0)
    if dtype.is_float:
        off = _off_by_rounding(value, dtype)
        return np.where(x.error == 0, off, x.error + _rounding(x.size, dtype))
    if x.dtype.is_float:  # monotone, also where it saturates
        return _farthest(value, *(_cast_float(end, dtype) for end in x.ends))
    narrower = dtype.itemsize < x.dtype.itemsize or dtype is DType.U8  # wraps
    return np.where(x.error == 0, 0.0, np.inf if narrower else x.error)


def _cast_float(values: Array, dtype: DType) -> Array:
    body = Body((Step("load", (), DType.F64, 0), Step("cast", (0,), dtype)), (1,))
    return evaluate(body, [values], values.shape, exact=True)[0].astype(np.float64)


def _at_the_ends(function: str, value: Array, x: _Known) -> Array:
    """The bound of a monotone function before it is rounded."""
    body = Body((Step("load", (), DType.F64, 0), Step(function, (0,), DType.F64)), (1,))
    ends = [evaluate(body, [end], end.shape, exact=True)[0] for end in x.ends]
    return np.where(x.error == 0, 0.0, _farthest(value, *ends))


def _farthest(value: Array, *others: Array) -> Array:
    wide = value.astype(np.float64)
    off = [np.where(other == wide, 0.0, np.abs(other - wide)) for other in others]
    return np.asarray(np.maximum.reduce(np.broadcast_arrays(*off)))


# Two arguments --------------------------------------------------------------------------


def _of_product(value: Array, a: _Known, b: _Known) -> Array:
    return np.asarray(np.abs(a.value) * b.error + b.size * a.error)


def _of_quotient(value: Array, a: _Known, b: _Known) -> Array:
    least = np.asarray(np.abs(b.value) - b.error)
    return np.where(least > 0, (a.error + np.abs(value) * b.error) / least,
                    np.where(a.error + b.error == 0, 0.0, np.inf))  # fmt: skip


def _of_floor_quotient(value: Array, a: _Known, b: _Known) -> Array:
    if not a.dtype.is_float:
        return np.where(a.error + b.error == 0, 0.0, np.inf)
    quotient = a.value / b.value
    error = _of_quotient(quotient, a, b)
    error += _rounding(np.abs(quotient) + error, a.dtype.accumulator)
    return _at_the_ends("floor", value, _Known(quotient, error, a.dtype))


def _of_remainder(value: Array, a: _Known, b: _Known) -> Array:
    if not a.dtype.is_float:
        return np.where(a.error + b.error == 0, 0.0, np.inf)
    whole = np.floor(a.value / b.value)
    known = _Known(whole, _of_floor_quotient(whole, a, b), a.dtype)
    product = _of_product(whole, known, b)
    return a.error + product + _rounding(np.abs(whole * b.value) + product, a.dtype.accumulator)


def _of_power(value: Array, a: _Known, b: _Known) -> Array:
    corners = [np.power(x, y) for x in a.ends for y in b.ends]
    error = _farthest(value, *corners)
    low, high = a.ends
    error = np.where((low <= 0) & (high >= 0), np.maximum(error, np.abs(value)), error)
    sure = (a.error == 0) & (b.error == 0)
    unsure_exponent = (low < 0) & (b.error > 0)
    return np.where(sure, 0.0, np.where(unsure_exponent, np.inf, error))


# Choices: exact, or open ----------------------------------------------------------------


def _of_comparison(value: Array, a: _Known, b: _Known) -> Array:
    (least, most), (low, high) = a.ends, b.ends
    apart = (least > high) | (low > most)
    return ((a.error > 0) | (b.error > 0)) & ~apart


def _of_and(value: Array, a: _Known, b: _Known) -> Array:
    open_a, open_b = a.error > 0, b.error > 0
    return (open_a | open_b) & (a.value | open_a) & (b.value | open_b)


def _of_or(value: Array, a: _Known, b: _Known) -> Array:
    open_a, open_b = a.error > 0, b.error > 0
    return (open_a | open_b) & (~a.value | open_a) & (~b.value | open_b)


def _of_where(value: Array, condition: _Known, a: _Known, b: _Known) -> Array:
    chosen = np.where(condition.value, a.error, b.error)
    other = np.where(condition.value, *(_farthest(value, *x.ends) for x in (b, a)))
    return np.where(condition.error > 0, np.maximum(chosen, other), chosen)


# Rows -----------------------------------------------------------------------------------


def _of_sum(value: Array, x: _Known) -> Array:
    error = np.sum(x.error, axis=-1, keepdims=True)
    if not x.dtype.is_float:
        return np.where(error == 0, 0.0, np.inf)
    length = x.value.shape[-1]
    size = np.sum(x.size, axis=-1, keepdims=True)
    return np.asarray(error + length * _rounding(size, x.dtype.accumulator))


def _of_row_product(value: Array, x: _Known) -> Array:
    if not x.dtype.is_float:
        return np.where(x.error.any(axis=-1, keepdims=True), np.inf, 0.0)
    most = np.prod(x.size, axis=-1, keepdims=True)
    least = np.prod(np.abs(x.value), axis=-1, keepdims=True)
    lost = x.value.shape[-1] * _rounding(most, x.dtype.accumulator)
    return np.asarray(most - least + lost)


def _of_place(value: Array, x: _Known) -> Array:
    """Of argmin and argmax: the farthest place whose element may be the same as the found one."""
    chosen = np.take_along_axis(x.value, value, -1).astype(np.float64)
    error = np.take_along_axis(x.error, value, -1)
    near = np.abs(x.value.astype(np.float64) - chosen) <= x.error + error
    places = np.abs(np.arange(x.value.shape[-1]) - value)
    open_ = (near & (x.error + error > 0)) | (places == 0)
    return np.asarray(np.where(open_, places, 0).max(axis=-1, keepdims=True))


def _of_any(value: Array, x: _Known) -> Array:
    open_ = x.error > 0
    sure = (x.value & ~open_).any(axis=-1, keepdims=True)
    return np.asarray(open_.any(axis=-1, keepdims=True) & ~sure)


def _of_all(value: Array, x: _Known) -> Array:
    open_ = x.error > 0
    sure = (~x.value & ~open_).any(axis=-1, keepdims=True)
    return np.asarray(open_.any(axis=-1, keepdims=True) & ~sure)


def _most(value: Array, x: _Known) -> Array:
    return np.asarray(x.error.max(axis=-1, keepdims=True))


_APPROXIMATED = {"exp", "log", "log1p", "sin", "cos", "tanh", "erf", "erfc", "pow"}

_PROPAGATED: dict[str, Callable[..., Array]] = {
    "add": lambda value, a, b: a.error + b.error, "sub": lambda value, a, b: a.error + b.error,
    "mul": _of_product, "div": _of_quotient, "mod": _of_remainder, "pow": _of_power,
    "sin": lambda value, x: np.minimum(x.error, 2.0),
    "cos": lambda value, x: np.minimum(x.error, 2.0),
}  # fmt: skip

_CHOICES: dict[str, Callable[..., Array]] = {
    **{name: partial(_at_the_ends, name) for name in ("floor", "ceil", "round", "sign")},
    "floordiv": _of_floor_quotient,
    "neg": lambda value, x: x.error, "abs": lambda value, x: x.error,
    "min": lambda value, a, b: np.maximum(a.error, b.error),
    "max": lambda value, a, b: np.maximum(a.error, b.error),
    "where": _of_where, "eq": _of_comparison, "ne": _of_comparison, "lt": _of_comparison,
    "le": _of_comparison, "and": _of_and, "or": _of_or, "not": lambda value, x: x.error,
    "isnan": lambda value, x: np.isinf(x.error), "isinf": lambda value, x: np.isinf(x.error),
}  # fmt: skip

_ROWS: dict[str, Callable[[Array, _Known], Array]] = {
    "reduce_sum": _of_sum, "reduce_prod": _of_row_product, "reduce_min": _most,
    "reduce_max": _most, "reduce_argmin": _of_place, "reduce_argmax": _of_place,
    "reduce_any": _of_any, "reduce_all": _of_all,
}  # fmt: skip
