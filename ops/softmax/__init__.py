"""softmax: exp(z - max z) / Σ exp(z - max z) along an axis, with z = scale · x + mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np

from graphexec.base.tensor import TensorType, View
from graphexec.ir.op import Attribute, Attrs, Call, Op, Operand, OpError
from graphexec.ir.program import Command, Cost, Kernel
from graphexec.ops.softmax.on_cpu import softmax_on_cpu
from graphexec.ops.softmax.variants import Problem, choose, others

Array = np.ndarray[Any, Any]


class Softmax(Op):
    """See `doc`."""

    name = "softmax"
    doc = (
        "exp(z - max z) / Σ exp(z - max z) along `axis`, with z = scale · x + mask. Sums are "
        "kept in f32 (f64 for f64). A row that is masked entirely (every z is -inf) gives zeros."
    )
    operands = (
        Operand("x", "any tensor"),
        Operand("mask", "added to scale · x; broadcasts to the shape of x", optional=True),
    )
    attributes = (
        Attribute("axis", "int", -1, "axis whose entries sum to one"),
        Attribute("scale", "number", 1.0, "factor of x"),
        Attribute(
            "causal", "bool", False,
            "query i of Q (axis -2) sees keys j ≤ i + K - Q only: the last query sees every key",
        ),
    )  # fmt: skip

    def infer(self, types: Mapping[str, TensorType], attrs: Attrs) -> TensorType:
        """The type of x."""
        x, mask, axis = types["x"], types.get("mask"), attrs["axis"]
        rank = len(x.shape)
        for name, t in types.items():
            if t.space == "host":
                raise OpError(
                    f"operand '{name}' is in host memory", name, help="copy it with `to: device`"
                )
        if not -rank <= axis < rank:
            raise OpError(f"there is no axis {axis} in {x}", "axis")
        if attrs["causal"] and (rank < 2 or axis % rank != rank - 1):
            raise OpError(
                f"causal needs queries in axis -2 and the softmax along axis -1; x is {x}, "
                f"axis {axis}", "causal",
            )  # fmt: skip
        if mask is not None and (
            len(mask.shape) > rank
            or any(
                m not in (1, e)
                for m, e in zip(reversed(mask.shape), reversed(x.shape), strict=False)
            )
        ):
            raise OpError(
                f"mask of shape {list(mask.shape)} does not broadcast to x of shape "
                f"{list(x.shape)}", "mask",
            )  # fmt: skip
        return TensorType(x.shape, x.dtype)

    def cost(self, types: Mapping[str, TensorType], attrs: Attrs, type: TensorType) -> Cost:
        """About five operations an element; operands read once, result written once."""
        return Cost(5 * type.elements, sum(t.nbytes for t in types.values()) + type.nbytes)

    def reference(
        self, arrays: Mapping[str, Array], attrs: Attrs, type: TensorType
    ) -> Array:  # fmt: skip
        """The definition, in float64."""
        z = attrs["scale"] * arrays["x"]
        if "mask" in arrays:
            z = z + arrays["mask"]
        if attrs["causal"]:
            q, k = z.shape[-2:]
            z = np.where(np.tri(q, k, k - q, dtype=bool), z, -np.inf)
        axis = attrs["axis"]
        top = z.max(axis=axis, keepdims=True)
        e = np.exp(z - np.where(top == -np.inf, 0.0, top))
        total = e.sum(axis=axis, keepdims=True)
        result: Array = e / np.where(total == 0.0, 1.0, total)
        return result

    def accepts(self, operands: Mapping[str, View], attrs: Attrs, out: View) -> bool:
        """An x whose neighbours along the last axis are neighbours in memory, and whose axes before
        and after `axis` are each walked as one; a dense mask and result."""
        x, mask = operands["x"], operands.get("mask")
        axis = attrs["axis"] % len(x.shape)
        merged = (prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :]))
        near = x.strides[-1] == 1 or x.shape[-1] == 1
        return (out.is_dense and (mask is None or mask.is_dense)
                and near and x.reshaped(merged) is not None)  # fmt: skip

    def lower(self, call: Call) -> list[Command]:
        """One kernel."""
        x, out, mask = call.operands["x"], call.out, call.operands.get("mask")
        rank, axis = len(x.shape), call.attrs["axis"]
        from_end = axis - rank if axis >= 0 else axis
        rows = _Rows(from_end, float(call.attrs["scale"]), bool(call.attrs["causal"]))
        reads = [x] if mask is None else [x, mask.broadcast_to(x.shape)]
        cost = self.cost(call.types, call.attrs, call.type)
        # All threads of a row have read it before the first writes; then each reads what it writes.
        label = "causal softmax" if rows.causal else "softmax"
        return [call.kernel(label, rows, reads, [out], cost, inplace=[(0, 0)])]


@dataclass(frozen=True)
class _Rows:
    """The recipe of softmax along `axis` (counted from the end); it reads x, or x and mask."""

    axis: int
    scale: float
    causal: bool

    def __call__(self, reads: Sequence[View], writes: Sequence[View]) -> Kernel:
        kernel: Kernel = choose(*self._problem(reads, writes))
        return kernel

    def variants(self, reads: Sequence[View], writes: Sequence[View]) -> Sequence[Kernel]:
        """The same with other blocks."""
        kernels: Sequence[Kernel] = others(*self._problem(reads, writes))
        return kernels

    def _problem(
        self, reads: Sequence[View], writes: Sequence[View]
    ) -> tuple[Problem, partial[None]]:  # fmt: skip
        x, mask = reads[0], reads[1] if len(reads) > 1 else None
        axis = self.axis + len(x.shape)
        problem = Problem(x, writes[0], mask, axis, self.scale, self.causal)
        compute = partial(softmax_on_cpu, axis=axis, scale=self.scale, causal=self.causal)
        return problem, compute


OP = Softmax()
