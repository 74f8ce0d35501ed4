"""What each step of a body adds to a bound of its error, by function (see running_error)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from graphexec.base.tensor import Array, DType
from graphexec.ir.approximate import smallest_subnormal, unit_roundoff
from graphexec.ir.body import Body, Step
from graphexec.ops.kit.generate.by_numpy import evaluate


@dataclass(frozen=True)
class Known:
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


def rounding(size: Array, dtype: DType) -> Array:
    """The largest error of rounding a number of such a size, in float64 twice: the exact value is
    rounded as well."""
    if not dtype.is_float:
        return np.zeros(())
    twice = 2 if dtype is DType.F64 else 1
    error = twice * (unit_roundoff(dtype) * size + smallest_subnormal(dtype))
    return np.where(np.isinf(size), 0.0, error)


def off_by_rounding(value: Array, dtype: DType) -> Array:
    """The error of rounding an exact number; none where the dtype has it."""
    wide = value.astype(np.float64)
    near = value.astype(dtype.numpy()).astype(np.float64)
    return np.where((near == wide) | np.isnan(wide), 0.0, np.abs(near - wide))


# One argument ---------------------------------------------------------------------------


def of_cast(dtype: DType, value: Array, x: Known) -> Array:
    """The bound of a conversion to a dtype."""
    if dtype is DType.BOOL:
        return ~(np.abs(x.value) > x.error) & (x.error > 0)  # also of a NaN that may be a number
    if dtype.is_float:
        off = off_by_rounding(value, dtype)
        return np.where(x.error == 0, off, x.error + rounding(x.size, dtype))
    if x.dtype.is_float:  # monotone, also where it saturates; but NaN gives 0
        error = _farthest(value, *(_cast_float(end, dtype) for end in x.ends))
        return np.where(np.isnan(x.value) & (x.error > 0), np.inf, error)
    narrower = dtype.itemsize < x.dtype.itemsize or dtype is DType.U8  # wraps
    return np.where(x.error == 0, 0.0, np.inf if narrower else x.error)


def _cast_float(values: Array, dtype: DType) -> Array:
    body = Body((Step("load", (), DType.F64, 0), Step("cast", (0,), dtype)), (1,))
    return evaluate(body, [values], values.shape, exact=True)[0].astype(np.float64)


def at_the_ends(function: str, value: Array, x: Known) -> Array:
    """The bound of a monotone function before it is rounded."""
    body = Body((Step("load", (), DType.F64, 0), Step(function, (0,), DType.F64)), (1,))
    ends = [evaluate(body, [end], end.shape, exact=True)[0] for end in x.ends]
    return np.where(x.error == 0, 0.0, _farthest(value, *ends))


def _farthest(value: Array, *others: Array) -> Array:
    wide = value.astype(np.float64)
    off = [np.where(other == wide, 0.0, np.abs(other - wide)) for other in others]
    return np.asarray(np.maximum.reduce(np.broadcast_arrays(*off)))


# Two arguments --------------------------------------------------------------------------


def _of_product(value: Array, a: Known, b: Known) -> Array:
    return np.asarray(np.abs(a.value) * b.error + b.size * a.error)


def _of_quotient(value: Array, a: Known, b: Known) -> Array:
    least = np.asarray(np.abs(b.value) - b.error)
    return np.where(least > 0, (a.error + np.abs(value) * b.error) / least,
                    np.where(a.error + b.error == 0, 0.0, np.inf))  # fmt: skip


def _of_floor_quotient(value: Array, a: Known, b: Known) -> Array:
    if not a.dtype.is_float:
        return np.where(a.error + b.error == 0, 0.0, np.inf)
    quotient = a.value / b.value
    error = _of_quotient(quotient, a, b)
    error += rounding(np.abs(quotient) + error, a.dtype.accumulator)
    return at_the_ends("floor", value, Known(quotient, error, a.dtype))


def _of_remainder(value: Array, a: Known, b: Known) -> Array:
    if not a.dtype.is_float:
        return np.where(a.error + b.error == 0, 0.0, np.inf)
    whole = np.floor(a.value / b.value)
    known = Known(whole, _of_floor_quotient(whole, a, b), a.dtype)
    product = _of_product(whole, known, b)
    return a.error + product + rounding(np.abs(whole * b.value) + product, a.dtype.accumulator)


def _of_power(value: Array, a: Known, b: Known) -> Array:
    corners = [np.power(x, y) for x in a.ends for y in b.ends]
    error = _farthest(value, *corners)
    low, high = a.ends
    error = np.where((low <= 0) & (high >= 0), np.maximum(error, np.abs(value)), error)
    sure = (a.error == 0) & (b.error == 0)
    unsure_exponent = (low < 0) & (b.error > 0)
    return np.where(sure, 0.0, np.where(unsure_exponent, np.inf, error))


# Choices: exact, or open ----------------------------------------------------------------


def _of_comparison(value: Array, a: Known, b: Known) -> Array:
    (least, most), (low, high) = a.ends, b.ends
    apart = (least > high) | (low > most)
    return ((a.error > 0) | (b.error > 0)) & ~apart


def _of_and(value: Array, a: Known, b: Known) -> Array:
    open_a, open_b = a.error > 0, b.error > 0
    return (open_a | open_b) & (a.value | open_a) & (b.value | open_b)


def _of_or(value: Array, a: Known, b: Known) -> Array:
    open_a, open_b = a.error > 0, b.error > 0
    return (open_a | open_b) & (~a.value | open_a) & (~b.value | open_b)


def _of_where(value: Array, condition: Known, a: Known, b: Known) -> Array:
    chosen = np.where(condition.value, a.error, b.error)
    other = np.where(condition.value, *(_farthest(value, *x.ends) for x in (b, a)))
    return np.where(condition.error > 0, np.maximum(chosen, other), chosen)


# Rows -----------------------------------------------------------------------------------


def _of_sum(value: Array, x: Known) -> Array:
    error = np.sum(x.error, axis=-1, keepdims=True)
    if not x.dtype.is_float:
        return np.where(error == 0, 0.0, np.inf)
    length = x.value.shape[-1]
    size = np.sum(x.size, axis=-1, keepdims=True)
    return np.asarray(error + length * rounding(size, x.dtype.accumulator))


def _of_row_product(value: Array, x: Known) -> Array:
    if not x.dtype.is_float:
        return np.where(x.error.any(axis=-1, keepdims=True), np.inf, 0.0)
    most = np.prod(x.size, axis=-1, keepdims=True)
    least = np.prod(np.abs(x.value), axis=-1, keepdims=True)
    lost = x.value.shape[-1] * rounding(most, x.dtype.accumulator)
    return np.asarray(most - least + lost)


def _of_place(value: Array, x: Known) -> Array:
    """Of argmin and argmax: the farthest place whose element may be the same as the found one."""
    chosen = np.take_along_axis(x.value, value, -1).astype(np.float64)
    error = np.take_along_axis(x.error, value, -1)
    near = ~(np.abs(x.value.astype(np.float64) - chosen) > x.error + error)  # NaN wins
    places = np.abs(np.arange(x.value.shape[-1]) - value)
    open_ = (near & (x.error + error > 0)) | (places == 0)
    return np.asarray(np.where(open_, places, 0).max(axis=-1, keepdims=True))


def _of_any(value: Array, x: Known) -> Array:
    open_ = x.error > 0
    sure = (x.value & ~open_).any(axis=-1, keepdims=True)
    return np.asarray(open_.any(axis=-1, keepdims=True) & ~sure)


def _of_all(value: Array, x: Known) -> Array:
    open_ = x.error > 0
    sure = (~x.value & ~open_).any(axis=-1, keepdims=True)
    return np.asarray(open_.any(axis=-1, keepdims=True) & ~sure)


def _most(value: Array, x: Known) -> Array:
    return np.asarray(x.error.max(axis=-1, keepdims=True))


APPROXIMATED = {"exp", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "erf", "erfc",
                "pow"}  # fmt: skip

PROPAGATED: dict[str, Callable[..., Array]] = {
    "add": lambda value, a, b: a.error + b.error, "sub": lambda value, a, b: a.error + b.error,
    "mul": _of_product, "div": _of_quotient, "mod": _of_remainder, "pow": _of_power,
    "sin": lambda value, x: np.minimum(x.error, 2.0),
    "cos": lambda value, x: np.minimum(x.error, 2.0),
}  # fmt: skip

CHOICES: dict[str, Callable[..., Array]] = {
    **{name: partial(at_the_ends, name) for name in ("floor", "ceil", "round", "sign")},
    "floordiv": _of_floor_quotient,
    "neg": lambda value, x: x.error, "abs": lambda value, x: x.error,
    "min": lambda value, a, b: np.maximum(a.error, b.error),
    "max": lambda value, a, b: np.maximum(a.error, b.error),
    "where": _of_where, "eq": _of_comparison, "ne": _of_comparison, "lt": _of_comparison,
    "le": _of_comparison, "and": _of_and, "or": _of_or, "not": lambda value, x: x.error,
    "isnan": lambda value, x: np.isinf(x.error), "isinf": lambda value, x: np.isinf(x.error),
}  # fmt: skip

ROWS: dict[str, Callable[[Array, Known], Array]] = {
    "reduce_sum": _of_sum, "reduce_prod": _of_row_product, "reduce_min": _most,
    "reduce_max": _most, "reduce_argmin": _of_place, "reduce_argmax": _of_place,
    "reduce_any": _of_any, "reduce_all": _of_all,
}  # fmt: skip
