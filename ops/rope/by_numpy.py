"""rope by NumPy: the definition in float64, and how far a right result may be from it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphexec.base.tensor import Array, TensorType
from graphexec.ir.approximate import Approximate, Approximates
from graphexec.ops.kit import Arrays, Attrs
from graphexec.ops.kit.generate.running_error import running_error
from graphexec.ops.rope.bodies import body_of_angles, body_of_tables, slices


def rotated(arrays: Arrays, attrs: Attrs) -> Array:
    """The definition, in float64."""
    x = arrays["x"]
    rotate = attrs["rotate"] or x.shape[-1]
    position = _position(arrays, x.shape)
    if "cos" in arrays:
        cos, sin = (_rows(arrays[name], position) for name in ("cos", "sin"))
    else:
        frequency = float(attrs["theta"]) ** (-np.arange(0, rotate, 2) / rotate)
        angle = position[..., None].astype(np.float64) * frequency
        cos, sin = np.cos(angle), np.sin(angle)
    y = np.array(x)
    first, second = slices(rotate, attrs["pairs"])
    u, v = x[..., first], x[..., second]
    y[..., first], y[..., second] = u * cos - v * sin, v * cos + u * sin
    return y


def error_of(operands: Approximates, attrs: Attrs) -> Array:
    """A bound of the error of each element of a right result."""
    x = operands["x"]
    shape = x.values.shape
    rotate = attrs["rotate"] or shape[-1]
    first, second = slices(rotate, attrs["pairs"])
    pairs = [_part(x, lambda a: a[..., first]), _part(x, lambda a: a[..., second])]
    if "cos" in operands:
        position = _position({name: o.values for name, o in operands.items()}, shape)
        tables = [_part(operands[name], lambda a: _rows(a, position)) for name in ("cos", "sin")]
        body = body_of_tables(x.dtype, tables[0].dtype)
        found = running_error(body, [*pairs, *tables], pairs[0].values.shape)
    else:
        types = {name: TensorType(o.values.shape, o.dtype) for name, o in operands.items()}
        place = _part(*_place(operands, len(shape)))
        body = body_of_angles(types, attrs, rotate)
        found = running_error(body, [*pairs, place], pairs[0].values.shape)
    error = np.zeros(shape) if x.error is None else np.array(np.broadcast_to(x.error, shape))
    error[..., first], error[..., second] = found
    return error


def _part(x: Approximate, part: Callable[[Array], Array]) -> Approximate:
    """A part of a tensor, with that of its error."""
    off = None if x.error is None else part(np.broadcast_to(x.error, x.values.shape))
    return Approximate(part(x.values), x.dtype, off)


def _place(operands: Approximates, rank: int) -> tuple[Approximate, Callable[[Array], Array]]:
    """`at` or `position`, and how it lies over (…, S, pairs)."""
    if "position" in operands:
        return operands["position"], lambda a: a[..., None]
    return operands["at"], lambda a: a.reshape(*a.shape, *(1,) * (rank - a.ndim))


def _position(arrays: Arrays, shape: tuple[int, ...]) -> Array:
    if "position" in arrays:
        return np.broadcast_to(arrays["position"], shape[:-1])
    at = arrays["at"].reshape(*arrays["at"].shape, *(1,) * (len(shape) - 1 - arrays["at"].ndim))
    return np.broadcast_to(at + np.arange(shape[-2]), shape[:-1])


def _rows(table: Array, position: Array) -> Array:
    """Rows of a table; NaN where there is none."""
    place = position.astype(np.int64)
    inside = (place >= 0) & (place < len(table))
    return np.where(inside[..., None], table[np.where(inside, place, 0)], np.nan)
