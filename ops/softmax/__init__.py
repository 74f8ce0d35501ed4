"""softmax: exp(z - max z) / Σ exp(z - max z) along an axis, with z = scale · x + mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from graphexec.base.tensor import Array
from graphexec.ir.approximate import Approximates, finite
from graphexec.ops.kit import (
    Arrays,
    Attribute,
    Attrs,
    Call,
    Command,
    In,
    Kernel,
    Op,
    Operand,
    OpError,
    Out,
    TensorType,
    Types,
    View,
    Views,
)  # fmt: skip
from graphexec.ops.kit.generate import Generated
from graphexec.ops.kit.rounding import logits_error, softmax_error, stored
from graphexec.ops.softmax.body import body_of
from graphexec.ops.softmax.prepared import SoftmaxOnCpu
from graphexec.ops.softmax.variants import Problem, choose, others


def logits(x: Array, scale: float, mask: Array | None, causal: bool) -> Array:
    """scale · x + mask, in float64; causal, keys after the query are -inf."""
    z = scale * x
    if mask is not None:
        z = z + mask
    if causal:
        q, k = z.shape[-2:]
        z = np.where(np.tri(q, k, k - q, dtype=bool), z, -np.inf)
    return z


def softmax_reference(z: Array, axis: int) -> Array:
    """The softmax of z along `axis` by its definition, in float64."""
    top = z.max(axis=axis, keepdims=True)
    e = np.exp(z - np.where(top == -np.inf, 0.0, top))
    total = e.sum(axis=axis, keepdims=True)
    result: Array = e / np.where(total == 0.0, 1.0, total)
    return result


class Softmax(Op):
    """See `doc`."""

    name = "softmax"
    doc = (
        "exp(z - max z) / Σ exp(z - max z) along `axis`, with z = scale · x + mask. Sums are "
        "kept in f32 (f64 for f64). A row that is masked entirely (every z is -inf) gives zeros."
    )
    operands = (
        Operand("x"),
        Operand("mask", "added to scale · x", optional=True, shape="broadcast to x"),
    )
    attributes = (
        Attribute("axis", "int", -1, "axis whose entries sum to one"),
        Attribute("scale", "number", 1.0, "factor of x"),
        Attribute(
            "causal", "bool", False,
            "query i of Q (axis -2) sees keys j ≤ i + K - Q only: the last query sees every key",
        ),
    )  # fmt: skip

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        """The type of x."""
        result, x, axis = super().infer(types, attrs), types["x"], attrs["axis"]
        rank = len(x.shape)
        if not -rank <= axis < rank:
            raise OpError(f"there is no axis {axis} in {x}", "axis")
        if attrs["causal"] and (rank < 2 or axis % rank != rank - 1):
            raise OpError(
                f"causal needs queries in axis -2 and the softmax along axis -1; x is {x}, "
                f"axis {axis}", "causal",
            )  # fmt: skip
        return result

    def flops(self, types: Types, attrs: Attrs, type: TensorType) -> int:
        """About five operations an element."""
        return 5 * type.elements

    def reference(self, arrays: Arrays, attrs: Attrs, type: TensorType) -> Array:
        """The definition, in float64."""
        z = logits(arrays["x"], attrs["scale"], arrays.get("mask"), attrs["causal"])
        return softmax_reference(z, attrs["axis"])

    def error(self, operands: Approximates, attrs: Attrs, type: TensorType, exact: Array) -> Array:
        """That of the logits in the powers, of these in their sum, rounded when stored."""
        x, mask = operands["x"], operands.get("mask")
        given = None if mask is None else mask.values
        z = logits(x.values, attrs["scale"], given, attrs["causal"])
        off = logits_error(x, float(attrs["scale"]), mask)
        error = softmax_error(z, off, finite(exact), x.dtype.accumulator, attrs["axis"])
        return stored(error, exact, type.dtype)

    def accepts(self, operands: Views, attrs: Attrs, out: View) -> bool:
        """An x with unit stride along its last axis, whose axes before `axis` merge into one, as do
        those after it; a dense mask and result."""
        x, mask = operands["x"], operands.get("mask")
        axis = attrs["axis"] % len(x.shape)
        merged = (prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :]))
        near = x.strides[-1] == 1 or x.shape[-1] == 1
        return (out.is_dense and (mask is None or mask.is_dense)
                and near and x.reshaped(merged) is not None)  # fmt: skip

    def lower(self, call: Call) -> list[Command]:
        """One kernel."""
        x, out, mask = call.operands["x"], call.out, call.operands.get("mask")
        from_end = call.attrs["axis"] % len(x.shape) - len(x.shape)
        rows = _Rows(from_end, float(call.attrs["scale"]), bool(call.attrs["causal"]))
        masks = [] if mask is None else [In(mask.broadcast_to(x.shape), strided=True)]
        flops = self.flops(call.types, call.attrs, call.type)
        label = "causal softmax" if rows.causal else "softmax"
        # All threads of a row have read it before the first writes; then each reads what it writes.
        return [
            call.kernel(label, rows, In(x, strided=True), Out(out, over=(x,)), *masks, flops=flops)
        ]


@dataclass(frozen=True)
class _Rows:
    """The kernel of softmax along `axis`, counted from the end."""

    axis: int
    scale: float
    causal: bool

    def __call__(self, x: View, out: View, mask: View | None = None) -> Kernel:
        kernel = choose(*self._problem(x, out, mask))
        if self.axis != -1:
            return kernel
        # Alone it is this kernel; with its neighbours, one is generated for all of them.
        return replace(kernel, generated=Generated(body_of(x, mask, self.scale, self.causal)))

    def variants(self, x: View, out: View, mask: View | None = None) -> Sequence[Kernel]:
        """The same with other blocks."""
        return others(*self._problem(x, out, mask))

    def _problem(self, x: View, out: View, mask: View | None) -> tuple[Problem, SoftmaxOnCpu]:
        axis = self.axis + len(x.shape)
        problem = Problem(x, out, mask, axis, self.scale, self.causal)
        return problem, SoftmaxOnCpu(problem)


OP = Softmax()
