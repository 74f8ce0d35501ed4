"""A body by NumPy: in float64, the reference of `compare`, and as the CPU's fallback.

The fallback computes as every device does: f16 and bf16 in f32, each result rounded once when it is
stored. The reference computes floats in float64 and does not round them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphexec.base.casts import cast
from graphexec.base.tensor import Array, DType
from graphexec.ir.body import Body, Step
from graphexec.ops.kit.generate.error_function import erf, erfc


def evaluate(
    body: Body, arrays: Sequence[Array], shape: tuple[int, ...], exact: bool
) -> list[Array]:
    """The results over an iteration shape, to which the operands broadcast.

    Results are in the types that are computed in; those of reductions have extent 1 along the last
    axis, and others may have to be broadcast. `exact`: in float64.
    """
    values: list[Array] = []
    with np.errstate(all="ignore"):
        for step in body.steps:
            values.append(_step(step, values, arrays, shape, exact))
    return [values[number] for number in body.results]


def computed(dtype: DType, exact: bool) -> np.dtype[Any]:
    """The NumPy dtype that values of `dtype` are computed in."""
    if not dtype.is_float:
        return dtype.numpy()
    return np.dtype(np.float64 if exact or dtype is DType.F64 else np.float32)


def _step(
    step: Step, values: Sequence[Array], arrays: Sequence[Array], shape: tuple[int, ...],
    exact: bool,
) -> Array:  # fmt: skip
    dtype = computed(step.dtype, exact)
    match step.function:
        case "load":
            return cast(arrays[int(step.value or 0)], dtype)
        case "constant":
            return np.asarray(step.value, dtype)
        case "index":
            return _coordinates(shape, int(step.value or 0))
        case "cast":
            source = values[step.args[0]]
            if step.dtype.is_float and not exact:
                return cast(cast(source, step.dtype.numpy()), dtype)  # rounded, then widened
            return cast(source, dtype)
    if step.reduces:
        # Rows side by side in memory: the order of a sum does not depend on how many there are.
        x = np.ascontiguousarray(np.broadcast_to(values[step.args[0]], shape))
        return _REDUCTIONS[step.function](x).astype(dtype, copy=False)
    args = [values[number] for number in step.args]
    result: Array = np.asarray(_FUNCTIONS[step.function](*args)).astype(dtype, copy=False)
    return result


def _coordinates(shape: tuple[int, ...], axis: int) -> Array:
    along = [1] * len(shape)
    along[axis] = shape[axis]
    return np.arange(shape[axis], dtype=np.int32).reshape(along)


def _floordiv(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.floor(a / b)
    return np.where(b == 0, 0, np.floor_divide(a, np.where(b == 0, 1, b)))


def _mod(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.asarray(a - b * np.floor(a / b))
    return np.where(b == 0, 0, np.remainder(a, np.where(b == 0, 1, b)))


def _larger(a: Array, b: Array) -> Array:
    return np.where((a > b) | (a != a), a, b)


def _smaller(a: Array, b: Array) -> Array:
    return np.where((a < b) | (a != a), a, b)


def _in_double(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda x: function(x.astype(np.float64, copy=False))


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, e, 1) / (e + 1))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "floordiv": _floordiv, "mod": _mod, "pow": np.power, "neg": np.negative, "abs": np.abs,
    "sign": np.sign, "floor": np.floor, "ceil": np.ceil, "round": np.rint, "min": _smaller,
    "max": _larger, "where": np.where, "exp": np.exp, "log": np.log, "log1p": np.log1p,
    "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "isnan": np.isnan,
    "sigmoid": _sigmoid, "erf": _in_double(erf), "erfc": _in_double(erfc), "isinf": np.isinf,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "and": np.logical_and, "or": np.logical_or, "not": np.logical_not,
}  # fmt: skip

_REDUCTIONS: dict[str, Callable[[Array], Array]] = {
    "reduce_sum": lambda x: np.sum(x, axis=-1, keepdims=True, dtype=x.dtype),
    "reduce_prod": lambda x: np.prod(x, axis=-1, keepdims=True, dtype=x.dtype),
    "reduce_min": lambda x: np.min(x, axis=-1, keepdims=True),
    "reduce_max": lambda x: np.max(x, axis=-1, keepdims=True),
    "reduce_argmin": lambda x: np.argmin(x, axis=-1, keepdims=True),
    "reduce_argmax": lambda x: np.argmax(x, axis=-1, keepdims=True),
    "reduce_any": lambda x: np.any(x, axis=-1, keepdims=True),
    "reduce_all": lambda x: np.all(x, axis=-1, keepdims=True),
}
