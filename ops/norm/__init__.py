"""norm: layer normalization and RMS normalization along an axis."""

from __future__ import annotations

import numpy as np

from graphexec.base.tensor import Array
from graphexec.ir.approximate import Approximate, Approximates
from graphexec.ir.body import Body, Value, Writer
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
    View,
    Views,
)
from graphexec.ops.kit.generate import generated
from graphexec.ops.kit.generate.running_error import running_error
from graphexec.ops.kit.rows import as_rows, normal_axes


class Norm(Op):
    """See `doc`."""

    name = "norm"
    doc = (
        "x along `axis`, normalized. layer: (x - mean) / sqrt(variance + eps) (Ba, Kiros and "
        "Hinton 2016, arXiv:1607.06450); rms: x / sqrt(mean of x² + eps) (Zhang and Sennrich 2019, "
        "arXiv:1910.07467). Then times `weight`, plus `bias`. Computed in f32 (f64 for f64)."
    )
    operands = (
        Operand("x"),
        Operand("weight", "factor along the axis", optional=True, shape="(N)"),
        Operand("bias", "addend along the axis", optional=True, shape="(N)"),
    )
    attributes = (
        Attribute("kind", "choice", "layer", "what x is divided by", ("layer", "rms")),
        Attribute("eps", "number", 1e-5, "added to the variance, or to the mean of squares"),
        Attribute("axis", "int", -1, "axis that is normalized"),
    )

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        """The type of x."""
        result, x = super().infer(types, attrs), types["x"]
        (axis,) = normal_axes([attrs["axis"]], x.shape)
        extent = x.shape[axis]
        if extent == 1:
            raise OpError(f"axis {attrs['axis']} of x has extent 1: there is nothing to normalize",
                          "axis" if attrs["axis"] != -1 else "x")  # fmt: skip
        if attrs["eps"] < 0:
            raise OpError(f"eps must not be negative, found {attrs['eps']}", "eps")
        for name in ("weight", "bias"):
            if name in types and types[name].shape != (extent,):
                raise OpError(
                    f"{name} has the shape {list(types[name].shape)}; axis {attrs['axis']} of x "
                    f"has extent {extent}", name,
                )  # fmt: skip
        return TensorType(x.shape, result.dtype)

    def flops(self, types: Types, attrs: Attrs, type: TensorType) -> int:
        """Those of the body."""
        return _body(types, attrs, types["x"].shape[attrs["axis"]]).flops * type.elements

    def reference(self, arrays: Arrays, attrs: Attrs, type: TensorType) -> Array:
        """The definition, in float64."""
        axis = attrs["axis"]
        x = np.moveaxis(arrays["x"], axis, -1)
        if attrs["kind"] == "layer":
            x = x - x.mean(axis=-1, keepdims=True)
        y = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + attrs["eps"])
        y = y * arrays["weight"] if "weight" in arrays else y
        y = y + arrays["bias"] if "bias" in arrays else y
        return np.moveaxis(y, -1, axis)

    def error(
        self, operands: Approximates, attrs: Attrs, type: TensorType, exact: Array
    ) -> Array | None:
        """By a running error analysis of the rows."""
        axis = attrs["axis"]
        x, *others = operands.values()
        off = None if x.error is None else np.broadcast_to(x.error, x.values.shape)
        rows = Approximate(
            np.moveaxis(x.values, axis, -1), x.dtype,
            None if off is None else np.moveaxis(off, axis, -1),
        )  # fmt: skip
        types = {name: TensorType(x.values.shape, x.dtype) for name, x in operands.items()}
        body = _body(types, attrs, type.shape[axis])
        error = running_error(body, [rows, *others], rows.values.shape)[0]
        return np.moveaxis(np.broadcast_to(error, rows.values.shape), -1, axis)

    def accepts(self, operands: Views, attrs: Attrs, out: View) -> bool:
        """Dense weights and biases; any x and result with neighbours along the last axis."""
        views = (operands["x"], out)
        near = all(v.strides[-1:] in ((), (1,)) or v.shape[-1] == 1 for v in views)
        return near and all(v.is_dense for name, v in operands.items() if name != "x")

    def lower(self, call: Call) -> list[Command]:
        """One kernel over rows."""
        x = call.operands["x"]
        axes = normal_axes([call.attrs["axis"]], x.shape)
        rows, out = as_rows(x, axes), as_rows(call.out, axes)
        assert rows is not None
        assert out is not None
        body = _body(call.types, call.attrs, rows.shape[-1])
        reads = [rows, *(view for name, view in call.operands.items() if name != "x")]
        label = "layer norm" if call.attrs["kind"] == "layer" else "rms norm"
        return [generated(call, label, body, reads, [out])]


def _body(types: Types, attrs: Attrs, length: int) -> Body:
    writer = Writer()
    loads = {name: writer.load(n, type.dtype) for n, (name, type) in enumerate(types.items())}
    x: Value = loads["x"]
    if attrs["kind"] == "layer":
        x = x - writer.reduce("sum", x) / float(length)
    square = writer.reduce("sum", x * x) / float(length)
    y = x * writer.rsqrt(square + float(attrs["eps"]))
    y = y * loads["weight"] if "weight" in loads else y
    y = y + loads["bias"] if "bias" in loads else y
    return writer.body(writer.cast(y, types["x"].dtype))


OP = Norm()
