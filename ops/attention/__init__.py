"""attention: softmax(scale · q · kᵀ + mask) · v in one command, without the scores in memory."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from graphexec.base.tensor import DType, TensorType, View
from graphexec.ir.access import Access, In, Out
from graphexec.ir.op import Attribute, Attrs, Call, Op, Operand, OpError
from graphexec.ir.program import Command
from graphexec.machine.blas_layout import is_well_aligned, matrix_layout
from graphexec.ops.attention.in_parts import as_parts, parts_of
from graphexec.ops.attention.on_gpu import Flash
from graphexec.ops.attention.problem import LARGEST_HEAD, Problem, has_flash
from graphexec.ops.attention.unfused import unfused

Array = np.ndarray[Any, Any]
ROLES = {"q": "(…, M, D)", "k": "(…, N, D)", "v": "(…, N, Dv)"}


class Attention(Op):
    """See `doc`."""

    name = "attention"
    doc = (
        "softmax(scale · q · kᵀ + mask) · v. Leading axes are batches and broadcast by NumPy's "
        "rules, so grouped-query heads share k and v. The scores never lie in memory where the "
        "device computes this in one command: the CPU, and GPUs for f16 and bf16 with Triton. "
        "A query that sees no key gives zeros. Sums are kept in f32 (f64 for f64)."
    )
    operands = (
        Operand("q", "queries: (…, M, D)"),
        Operand("k", "keys: (…, N, D); the dtype of q"),
        Operand("v", "values: (…, N, Dv); the dtype of q"),
        Operand("mask", "added to scale · q · kᵀ; broadcasts to (…, M, N)", optional=True),
    )
    attributes = (
        Attribute("scale", "number", None, "factor of q · kᵀ (default: D ** -0.5)"),
        Attribute("causal", "bool", False,
                  "query i of M sees keys j ≤ i + N - M only: the last query sees every key"),
        Attribute("trans_q", "bool", False, "q is (…, D, M)"),
        Attribute("trans_k", "bool", False, "k is (…, D, N)"),
        Attribute("trans_v", "bool", False, "v is (…, Dv, N)"),
        Attribute("out_dtype", "dtype", None, "element type of the result (default: that of q)"),
    )  # fmt: skip

    def infer(self, types: Mapping[str, TensorType], attrs: Attrs) -> TensorType:
        """The type of the result."""
        for name, t in types.items():
            if t.space == "host":
                raise OpError(
                    f"operand '{name}' is in host memory", name, help="copy it with `to: device`"
                )
        q = types["q"]
        for name in "kv":
            if types[name].dtype is not q.dtype:
                raise OpError(
                    f"q, k and v share a dtype: q is {q}, {name} is {types[name]}", name,
                    help=f"cast one of them: {{op: copy, x: …, dtype: {q.dtype}}}",
                )  # fmt: skip
        return TensorType(_result_shape(types, attrs), attrs["out_dtype"] or q.dtype)

    def flops(self, types: Mapping[str, TensorType], attrs: Attrs, type: TensorType) -> int:
        """2·M·N·(D + Dv) operations a batch, halved by causal."""
        shapes = {name: _operand_shape(types, attrs, name) for name in "qkv"}
        pairs = prod(type.shape[:-1]) * shapes["k"][-2]
        flops = 2 * pairs * (shapes["q"][-1] + shapes["v"][-1])
        return flops // 2 if attrs["causal"] else flops

    def reference(self, arrays: Mapping[str, Array], attrs: Attrs, type: TensorType) -> Array:
        """The definition, in float64, with all scores in memory."""
        q, k, v = (
            arrays[name].swapaxes(-1, -2) if attrs[f"trans_{name}"] else arrays[name]
            for name in "qkv"
        )
        z = scale_of(q.shape, attrs) * np.matmul(q, k.swapaxes(-1, -2))
        if "mask" in arrays:
            z = z + arrays["mask"]
        if attrs["causal"]:
            m, n = z.shape[-2:]
            z = np.where(np.tri(m, n, n - m, dtype=bool), z, -np.inf)
        top = z.max(axis=-1, keepdims=True)
        e = np.exp(z - np.where(top == -np.inf, 0.0, top))
        total = e.sum(axis=-1, keepdims=True)
        result: Array = np.matmul(e / np.where(total == 0.0, 1.0, total), v)
        return result

    def accepts(self, operands: Mapping[str, View], attrs: Attrs, out: View) -> bool:
        """Any mask; q, k and v with unit stride along one of their last two axes, a result with
        unit stride along its last; all aligned like dense ones."""
        matrices = [operands[name] for name in "qkv"]
        return (
            all(matrix_layout(view) is not None for view in matrices)
            and out.strides[-1] == 1
            and all(map(is_well_aligned, (*matrices, out)))
        )

    def with_dtype(
        self, types: Mapping[str, TensorType], attrs: Attrs, dtype: DType
    ) -> Attrs | None:
        """Any: the result is rounded once, when it is stored."""
        return {**attrs, "out_dtype": dtype}

    def lower(self, call: Call) -> list[Command]:
        """One kernel if the device has it (two for few queries and many keys), else two GEMMs with
        a softmax between them."""
        problem = problem_of(call)
        if not has_flash(problem, call.capabilities):
            return unfused(call, problem)
        problem = problem.grouped()
        flops = self.flops(call.types, call.attrs, call.type)
        label = "causal attention" if problem.causal else "attention"
        count = parts_of(problem, call.capabilities)
        if count > 1:
            return as_parts(call, label, problem, count, flops)
        q, k, v, out, *mask = problem.views()
        accesses: tuple[Access, ...] = (In(q), In(k), In(v), Out(out), *map(In, mask))
        return [call.kernel(label, Flash(problem.scale, problem.causal), *accesses, flops=flops)]


def problem_of(call: Call) -> Problem:
    """The views of a call with the batch axes of the result."""
    attrs, batch = call.attrs, call.out.shape[:-2]
    q, k, v = (
        call.operands[n].turned() if attrs[f"trans_{n}"] else call.operands[n] for n in "qkv"
    )
    q, k, v = (x.broadcast_to((*batch, *x.shape[-2:])) for x in (q, k, v))
    mask = call.operands.get("mask")
    if mask is not None:
        mask = mask.broadcast_to((*batch, q.shape[-2], k.shape[-2]))
    return Problem(q, k, v, mask, call.out, scale_of(q.shape, attrs), bool(attrs["causal"]))


def scale_of(q_shape: tuple[int, ...], attrs: Attrs) -> float:
    """The factor of q · kᵀ."""
    return float(q_shape[-1] ** -0.5 if attrs["scale"] is None else attrs["scale"])


def _result_shape(types: Mapping[str, TensorType], attrs: Attrs) -> tuple[int, ...]:
    """(…, M, Dv); OpError when the operands do not fit each other."""
    q, k, v = (_operand_shape(types, attrs, name) for name in "qkv")
    if q[-1] != k[-1]:
        raise OpError(f"the head sizes differ: {q[-1]} in q {list(q)}, {k[-1]} in k {list(k)}", "k")
    if k[-2] != v[-2]:
        raise OpError(
            f"k and v need one length: {k[-2]} in k {list(k)}, {v[-2]} in v {list(v)}", "v"
        )
    batch: tuple[int, ...] = ()
    for name, shape in (("q", q), ("k", k), ("v", v)):
        try:
            batch = np.broadcast_shapes(batch, shape[:-2])
        except ValueError:
            raise OpError(
                f"the batch axes {list(shape[:-2])} of {name} do not broadcast with {list(batch)}",
                name,
            ) from None
    scores, mask = (*batch, q[-2], k[-2]), types.get("mask")
    if mask is not None and (
        len(mask.shape) > len(scores)
        or any(m not in (1, e)
               for m, e in zip(reversed(mask.shape), reversed(scores), strict=False))
    ):  # fmt: skip
        raise OpError(
            f"mask of shape {list(mask.shape)} does not broadcast to the scores {list(scores)}",
            "mask",
        )
    return (*batch, q[-2], v[-1])


def _operand_shape(types: Mapping[str, TensorType], attrs: Attrs, name: str) -> tuple[int, ...]:
    shape = types[name].shape
    if len(shape) < 2:
        raise OpError(
            f"operand '{name}' needs at least two axes, {ROLES[name]}; found {list(shape)}", name
        )
    return (*shape[:-2], shape[-1], shape[-2]) if attrs[f"trans_{name}"] else shape


OP = Attention()
__all__ = ["LARGEST_HEAD", "OP", "Attention"]
