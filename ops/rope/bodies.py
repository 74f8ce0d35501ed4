"""What rope computes of a pair of features, as bodies of generated kernels."""

from __future__ import annotations

import math

from graphexec.base.tensor import DType
from graphexec.ir.body import Body, Value, Writer
from graphexec.ops.kit import Attrs, Types


def slices(rotate: int, pairs: str) -> tuple[slice, slice]:
    """The features u and v of the pairs."""
    if pairs == "halves":
        return slice(0, rotate // 2, 1), slice(rotate // 2, rotate, 1)
    return slice(0, rotate, 2), slice(1, rotate, 2)


def body_of_angles(types: Types, attrs: Attrs, rotate: int) -> Body:
    """u', v' by angles in f64, of which cos and sin are taken in f32 after whole turns are left
    out: positions of millions keep their digits."""
    writer = Writer()
    dtype = types["x"].dtype
    u, v = writer.load(0, dtype), writer.load(1, dtype)
    place = writer.load(2, types["at" if "at" in types else "position"].dtype)
    if "at" in types:
        place = place + writer.index(-2)
    scale = writer.cast(writer.index(-1), DType.F64) * (-2 * math.log(attrs["theta"]) / rotate)
    angle = writer.cast(place, DType.F64) * writer.floating("exp", scale)
    turns = writer.numeric("round", angle * (0.5 / math.pi))
    angle = writer.cast(angle - turns * (2 * math.pi), dtype.accumulator)
    cos, sin = writer.floating("cos", angle), writer.floating("sin", angle)
    return _rotated(writer, u, v, cos, sin)


def body_of_tables(dtype: DType, table: DType) -> Body:
    """u', v' by cosines and sines that are given, operands 2 and 3."""
    writer = Writer()
    u, v = writer.load(0, dtype), writer.load(1, dtype)
    return _rotated(writer, u, v, writer.load(2, table), writer.load(3, table))


def _rotated(writer: Writer, u: Value, v: Value, cos: Value, sin: Value) -> Body:
    results = u * cos - v * sin, v * cos + u * sin
    return writer.body(*(writer.cast(result, u.dtype) for result in results))
