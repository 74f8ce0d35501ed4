"""attention: softmax(scale · q · kᵀ + mask) · v in one command, without the scores in memory."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from graphexec.command import Command, Cost
from graphexec.op import Attribute, Attrs, Call, Op, Operand, OpError
from graphexec.ops.attention.on_cpu import attention_on_cpu
from graphexec.ops.attention.problem import LARGEST_HEAD, Problem, flash, has_flash
from graphexec.ops.attention.unfused import unfused
from graphexec.tensor import TensorType, View

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
        Attribute("permute_q", "axes", None, "order in which the axes of q are taken, as in copy"),
        Attribute("permute_k", "axes", None, "the same for k, which may be stored transposed"),
        Attribute("permute_v", "axes", None, "the same for v"),
        Attribute("permute", "axes", None, "axis i of the result is axis permute[i] of (…, M, Dv)"),
        Attribute("reshape", "dims", None, "then its shape; one extent may be -1"),
        Attribute("dtype", "dtype", None, "element type of the result (default: that of q)"),
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
        shape = _permuted_shape(_full_shape(types, attrs), attrs["permute"], "permute")
        return TensorType(_reshaped(shape, attrs["reshape"]), attrs["dtype"] or q.dtype)

    def cost(self, types: Mapping[str, TensorType], attrs: Attrs, type: TensorType) -> Cost:
        """2·M·N·(D + Dv) operations a batch, halved by causal; operands read and result written
        once."""
        shapes = {name: _operand_shape(types, attrs, name) for name in "qkv"}
        pairs = prod(_full_shape(types, attrs)[:-1]) * shapes["k"][-2]
        flops = 2 * pairs * (shapes["q"][-1] + shapes["v"][-1])
        moved = sum(t.nbytes for t in types.values()) + type.nbytes
        return Cost(flops // 2 if attrs["causal"] else flops, moved)

    def reference(self, arrays: Mapping[str, Array], attrs: Attrs, type: TensorType) -> Array:
        """The definition, in float64, with all scores in memory."""
        q, k, v = (
            arrays[name].transpose(attrs[f"permute_{name}"]) if attrs[f"permute_{name}"]
            else arrays[name] for name in "qkv"
        )  # fmt: skip
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
        if attrs["permute"]:
            result = result.transpose(attrs["permute"])
        return result.reshape(type.shape)

    def lower(self, call: Call) -> list[Command]:
        """One kernel where the device has it, else two GEMMs with a softmax between them."""
        problem = problem_of(call)
        if not has_flash(problem, call.capabilities):
            commands: list[Command] = unfused(call, problem)
            return commands
        kernel = flash(problem, attention_on_cpu(problem))
        reads = [v for v in problem.views() if v is not problem.out]
        cost = self.cost(call.types, call.attrs, call.type)
        return [call.command("attention", kernel, reads, [call.out], cost)]


def problem_of(call: Call) -> Problem:
    """The views of a call with the batch axes of the result."""
    attrs = call.attrs
    full = _full_shape(call.types, attrs)
    q, k, v = (_permuted(call.operands[name], attrs[f"permute_{name}"]) for name in "qkv")
    order = _axes(attrs["permute"], len(full), "permute")
    back = tuple(order.index(axis) for axis in range(len(full)))
    out = call.out.reshape(tuple(full[a] for a in order)).transpose(back)
    mask = call.operands.get("mask")
    return Problem(
        *(x.broadcast_to((*full[:-2], *x.shape[-2:])) for x in (q, k, v)),
        mask.broadcast_to((*full[:-1], k.shape[-2])) if mask is not None else None,
        out, scale_of(q.shape, attrs), bool(attrs["causal"]),
    )  # fmt: skip


def scale_of(q_shape: tuple[int, ...], attrs: Attrs) -> float:
    """The factor of q · kᵀ."""
    return float(q_shape[-1] ** -0.5 if attrs["scale"] is None else attrs["scale"])


def _full_shape(types: Mapping[str, TensorType], attrs: Attrs) -> tuple[int, ...]:
    """(…, M, Dv), before `permute`; OpError when the operands do not fit each other."""
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
    return _permuted_shape(shape, attrs[f"permute_{name}"], f"permute_{name}")


def _permuted_shape(shape: tuple[int, ...], axes: Any, key: str) -> tuple[int, ...]:
    return tuple(shape[a] for a in _axes(axes, len(shape), key))


def _permuted(view: View, axes: Any) -> View:
    return view.transpose(_axes(axes, len(view.shape), ""))


def _axes(axes: Any, rank: int, key: str) -> tuple[int, ...]:
    """Axes counted from the front; OpError unless each is there once."""
    if axes is None:
        return tuple(range(rank))
    normal = tuple(a % rank if -rank <= a < rank else rank for a in axes)
    if sorted(normal) != list(range(rank)):
        raise OpError(f"{key} needs each of the axes 0 to {rank - 1} once, found {list(axes)}", key)
    return normal


def _reshaped(shape: tuple[int, ...], wanted: Any) -> tuple[int, ...]:
    if wanted is None:
        return shape
    if list(wanted).count(-1) > 1 or any(e < 1 and e != -1 for e in wanted):
        raise OpError("extents must be at least 1, and only one may be -1", "reshape")
    known, total = prod(e for e in wanted if e != -1), prod(shape)
    filled = tuple(total // known if e == -1 else e for e in wanted)
    if prod(filled) != total:
        raise OpError(
            f"cannot reshape {list(shape)} ({total} elements) to {list(wanted)}", "reshape"
        )
    return filled


OP = Attention()
__all__ = ["LARGEST_HEAD", "OP", "Attention"]
