"""reduce: sums, means, extremes and the like along axes."""

from __future__ import annotations

from math import prod

import numpy as np

from graphexec.base.tensor import Array, DType
from graphexec.ir.approximate import Approximate, Approximates
from graphexec.ir.body import Body, Value, Writer
from graphexec.ir.operand import ANY
from graphexec.ops.copy import strided_copy
from graphexec.ops.kit import (
    Arrays,
    Attribute,
    Attrs,
    Call,
    Command,
    Op,
    Operand,
    OpError,
    TensorType,
    Types,
    Views,
)
from graphexec.ops.kit import View as View
from graphexec.ops.kit.generate import generated
from graphexec.ops.kit.generate.by_numpy import evaluate
from graphexec.ops.kit.generate.running_error import running_error
from graphexec.ops.kit.rows import as_rows, normal_axes

KINDS = ("sum", "mean", "prod", "max", "min", "any", "all", "argmax", "argmin", "logsumexp")


class Reduce(Op):
    """See `doc`."""

    name = "reduce"
    doc = (
        "x along axes: sum, mean, prod, max, min, any, all (of != 0), argmax and argmin (i64, the "
        "first one), logsumexp. NaN is larger and smaller than any number. Sums of f16 and bf16 "
        "are kept in f32; those of integers wrap, and their mean is f32."
    )
    operands = (Operand("x", dtype=ANY),)
    attributes = (
        Attribute("kind", "choice", "sum", "what is computed", KINDS),
        Attribute("axis", "axis", None, "one axis or several (default: all)"),
        Attribute("keep", "bool", False, "keep the axes, with extent 1"),
    )

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        """The shape without the axes, or with extent 1 there."""
        x = super().infer(types, attrs)
        axes = _axes(x.shape, attrs)
        body = _body(attrs["kind"], x.dtype, prod(x.shape[axis] for axis in axes))
        shape = tuple(
            1 if n in axes else e for n, e in enumerate(x.shape) if attrs["keep"] or n not in axes
        )
        return TensorType(shape, body.dtypes[0])

    def flops(self, types: Types, attrs: Attrs, type: TensorType) -> int:
        """About one an element; exponentials count as one."""
        return types["x"].elements * (3 if attrs["kind"] == "logsumexp" else 1)

    def reference(self, arrays: Arrays, attrs: Attrs, type: TensorType) -> Array:
        """The definition, in float64; integers as they are."""
        rows = _rows(arrays["x"], attrs)
        body = _body(attrs["kind"], DType.of(rows.dtype), rows.shape[-1])
        return evaluate(body, [rows], rows.shape, exact=True)[0].reshape(type.shape)

    def error(
        self, operands: Approximates, attrs: Attrs, type: TensorType, exact: Array
    ) -> Array | None:
        """By a running error analysis of the rows."""
        x = operands["x"]
        values = _rows(x.values, attrs)
        off = None if x.error is None else _rows(np.broadcast_to(x.error, x.values.shape), attrs)
        body = _body(attrs["kind"], x.dtype, values.shape[-1])
        known = Approximate(values, x.dtype, off)
        return running_error(body, [known], values.shape)[0].reshape(type.shape)

    def accepts(self, operands: Views, attrs: Attrs, out: View) -> bool:
        """A dense result; an x whose axes merge."""
        x = operands["x"]
        return out.is_dense and as_rows(x, _axes(x.shape, attrs)) is not None

    def lower(self, call: Call) -> list[Command]:
        """One kernel over rows; if axes that are apart do not merge, a copy before it."""
        x, commands = call.operands["x"], []
        axes = _axes(x.shape, call.attrs)
        rows = as_rows(x, axes)
        if rows is None:
            others = tuple(n for n in range(len(x.shape)) if n not in axes)
            turned = x.transpose((*others, *axes))
            packed = call.scratch("packed", TensorType(turned.shape, x.dtype))
            commands.append(strided_copy(call, turned, packed))
            rows = as_rows(packed, range(len(others), len(x.shape)))
            assert rows is not None
        body = _body(call.attrs["kind"], x.dtype, rows.shape[-1])
        out = call.out.reshape((*rows.shape[:-1], 1))
        label = str(call.attrs["kind"])
        return [*commands, generated(call, label, body, [rows], [out], rows.shape)]


def _axes(shape: tuple[int, ...], attrs: Attrs) -> tuple[int, ...]:
    axes = attrs["axis"]
    return normal_axes(range(len(shape)) if axes is None else axes, shape)


def _rows(x: Array, attrs: Attrs) -> Array:
    """x with the axes as one axis, the last."""
    axes = _axes(x.shape, attrs)
    others = [n for n in range(x.ndim) if n not in axes]
    return x.transpose(*others, *axes).reshape(*(x.shape[n] for n in others), -1)


def _body(kind: str, dtype: DType, length: int) -> Body:
    writer = Writer()
    x = writer.load(0, dtype)
    try:
        return writer.body(_reduced(writer, kind, x, length))
    except OpError as exc:
        exc.key = exc.key or "kind"
        raise


def _reduced(writer: Writer, kind: str, x: Value, length: int) -> Value:
    if kind == "mean" and not x.dtype.is_float:
        if x.dtype is DType.BOOL:
            raise OpError("the mean of bools", help="cast(x, i32) is 1 where x is true")
        total = writer.reduce("sum", writer.cast(x, DType.I64))  # exact
        return writer.cast(total, DType.F32) / float(length)
    if kind == "mean":
        return writer.reduce("sum", x) / float(length)
    if kind == "logsumexp":
        if not x.dtype.is_float:
            raise OpError(f"logsumexp of {x.dtype}", help="a map can cast: cast(x, f32)")
        top = writer.reduce("max", x)
        shift = writer.where(writer.floating("isinf", top), 0.0, top)
        total = writer.reduce("sum", writer.floating("exp", x - shift))
        return writer.floating("log", total) + shift
    return writer.reduce(kind, x)


OP = Reduce()
