"""Inputs that are made, not read: drawn, filled or counted. Each is a function of the input's type.

What is drawn is the same for a name, seed and type on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isfinite

import numpy as np

from graphexec.base.casts import cast, limits
from graphexec.base.npy import NpyError
from graphexec.base.tensor import Array, DType, TensorType

MAX_SEED = 2**64 - 1


def made(spec: str, name: str, value: str) -> Callable[[TensorType], Array] | None:
    """What makes the input `name` as `value` says, in the argument `spec`; None if that is no such
    value, NpyError if it is a wrong one. The function raises NpyError for types that do not fit."""
    if value.startswith("randn:"):
        return partial(_normal, spec, name, _seed(spec, value.removeprefix("randn:")))
    if value.startswith("randint:"):
        return partial(_integers, spec, name, *_interval(spec, value))
    if value == "arange":
        return _counted
    if value in _FILLED or value.startswith("full:"):
        return partial(_filled, spec, _value(spec, value))
    return None


def drawn(name: str, seed: int, type: TensorType) -> Array:
    """What an input without a spec is."""
    if type.dtype.is_float:
        return _normal(name, name, seed, type)
    return _integers(name, name, 0, 2, seed, type)


_FILLED = {"zeros": 0, "ones": 1}


def _value(spec: str, value: str) -> float | int:
    """The number that fills an array: any integer or float of Python's, also inf and nan."""
    text = value.removeprefix("full:")
    try:
        return _FILLED[value] if value in _FILLED else _whole(text) or float(text)
    except ValueError:
        raise NpyError(f"'{spec}': expected a number, such as full:-1e4 or full:-inf") from None


def _whole(text: str) -> int | None:
    """The integer that a text of at most 20 characters is."""
    digits = text.removeprefix("-")
    ok = digits.isdecimal() and digits.isascii() and len(digits) <= 19
    return int(text) if ok else None


def _filled(spec: str, value: float | int, type: TensorType) -> Array:
    if not type.dtype.is_float:
        _check_range(spec, value, type.dtype)
    with np.errstate(all="ignore"):
        array: Array = np.full(type.shape, value, type.dtype.numpy())
    if type.dtype.is_float and isfinite(value) and not np.isfinite(array.flat[0]):
        raise NpyError(f"'{spec}' is infinite in {type.dtype}", help="full:inf is infinite")
    return array


def _check_range(spec: str, value: float | int, dtype: DType) -> None:
    """NpyError unless an integer type or bool has a number."""
    low, high = (0, 1) if dtype is DType.BOOL else limits(dtype)
    if not (isfinite(value) and value == int(value) and low <= value <= high):
        raise NpyError(f"'{spec}': {dtype} has no {value:g}; it has {low} to {high}")


def _counted(type: TensorType) -> Array:
    return cast(np.arange(type.elements).reshape(type.shape), type.dtype.numpy())


def _interval(spec: str, value: str) -> tuple[int, int, int]:
    """LOW, HIGH and SEED of randint."""
    low, high, seed = [*value.removeprefix("randint:").split(":", 2), "", ""][:3]
    bounds = [_whole(low), _whole(high)]
    if bounds[0] is None or bounds[1] is None:
        raise NpyError(f"'{spec}': expected randint:LOW:HIGH:SEED, such as randint:0:10:7")
    if bounds[0] >= bounds[1]:
        raise NpyError(f"'{spec}': there is no integer from {low} on and below {high}")
    return bounds[0], bounds[1], _seed(spec, seed)


def _seed(spec: str, digits: str) -> int:
    if not (digits.isdecimal() and digits.isascii() and len(digits) <= 20):
        digits = ""
    if not digits or int(digits) > MAX_SEED:
        raise NpyError(f"'{spec}': the seed must be an integer from 0 to 2**64 - 1")
    return int(digits)


def _integers(spec: str, name: str, low: int, high: int, seed: int, type: TensorType) -> Array:
    """Integers from `low` to below `high`, cast to the dtype; the same everywhere, as below."""
    if not type.dtype.is_float:
        for bound in (low, high - 1):
            _check_range(spec, bound, type.dtype)
    if low < -(2**63) or high > 2**63:
        raise NpyError(f"'{spec}': the integers must be in 64 bits")
    generator = np.random.default_rng([seed, *name.encode()])
    return cast(generator.integers(low, high, type.shape, np.int64), type.dtype.numpy())


def _normal(spec: str, name: str, seed: int, type: TensorType) -> Array:
    """Normal numbers, the same for a name, seed and type on every machine."""
    if not type.dtype.is_float:
        raise NpyError(f"'{spec}': normal numbers are floats, and the input is {type.dtype}",
                       help=f"-i {name}=randint:LOW:HIGH:SEED draws integers")  # fmt: skip
    generator = np.random.default_rng([seed, *name.encode()])
    if type.dtype is DType.F64:
        return generator.standard_normal(type.shape)
    return generator.standard_normal(type.shape, np.float32).astype(type.dtype.numpy(), copy=False)
