"""Attention where no kernel computes it in one: gemm, softmax, gemm."""

from __future__ import annotations

import math

from graphexec.base.grammar import parse
from graphexec.base.tensor import DType, TensorType, View
from graphexec.ir.access import In, Out
from graphexec.ir.body import Writer
from graphexec.ir.expression import with_numbers
from graphexec.ir.op import Call
from graphexec.ir.program import Command, Gemm
from graphexec.machine.blas_layout import matrix_layout
from graphexec.ops.attention.problem import Problem
from graphexec.ops.copy import strided_copy
from graphexec.ops.kit.generate import generated
from graphexec.ops.map.compile import compiled
from graphexec.ops.softmax import variants as softmax
from graphexec.ops.softmax.prepared import SoftmaxOnCpu


def unfused(call: Call, problem: Problem, softcap: float | None = None) -> list[Command]:
    """Commands with the scores in scratch memory, in the type that sums are kept in."""
    p, commands = problem, list[Command]()
    dtype = p.q.dtype

    def matrix(name: str, view: View) -> View:
        """The view, or a packed copy where a BLAS cannot walk it."""
        if matrix_layout(view) is not None:
            return view
        packed = call.scratch(name, TensorType(view.shape, view.dtype))
        commands.append(strided_copy(call, view, packed))
        return packed

    wide = TensorType((*p.q.shape[:-1], p.k.shape[-2]), dtype.accumulator)
    scores, probs = call.scratch("scores", wide), call.scratch("probs", wide)
    q, k, v = matrix("q", p.q), matrix("k", p.k), matrix("v", p.v)
    commands.append(call.command("gemm", Gemm(q, k.turned(), scores)))
    scale = p.scale
    if softcap is not None:
        commands.append(_capped(call, scores, scale, softcap))
        scale = 1.0
    mask = _as_addend(call, p.mask, commands)
    rows = softmax.Problem(scores, probs, mask, len(wide.shape) - 1, scale, p.causal)
    masks = [] if mask is None else [In(mask)]
    kernel = softmax.choose(rows, SoftmaxOnCpu(rows))
    commands.append(call.command("softmax", kernel, In(scores), Out(probs, (scores,)), *masks))
    if dtype is not wide.dtype:
        narrow = call.scratch("narrow", TensorType(wide.shape, dtype))
        commands.append(strided_copy(call, probs, narrow))
        probs = narrow
    out = p.out
    direct = out.strides[-1] == 1 and out.dtype in (dtype, DType.F32)
    if not direct or (out.dtype is DType.F32 and dtype is DType.F64):
        out = call.scratch("out", TensorType(out.shape, dtype))
    commands.append(call.command("gemm", Gemm(probs, v, out)))
    if out is not p.out:
        commands.append(_into(call, out, p.out))
    return commands


def _as_addend(call: Call, mask: View | None, commands: list[Command]) -> View | None:
    """The mask as numbers that are added, which is what a softmax takes."""
    if mask is None or mask.dtype is not DType.BOOL:
        return mask
    given, writer = call.operands["mask"], Writer()
    body = writer.body(
        writer.where(writer.load(0, DType.BOOL), writer.constant(0.0, DType.F32), -math.inf)
    )
    added = call.scratch("mask", TensorType(given.shape, body.dtypes[0]))
    commands.append(generated(call, "mask", body, [given], [added]))
    return added.broadcast_to(mask.shape)


def _capped(call: Call, scores: View, scale: float, softcap: float) -> Command:
    """c · tanh(scale · s / c) in place of every score s."""
    numbers = {"c": softcap, "f": scale / softcap}
    tree = with_numbers(parse("c * tanh(f * s)"), ("s",), numbers)
    body = compiled(tree, ("s",), (scores.dtype,), len(scores.shape), scores.dtype)
    return generated(call, "softcap", body, [scores], [scores])


def _into(call: Call, out: View, target: View) -> Command:
    """Bring `out` into the strided `target`, walked in the order of its bytes."""
    order = tuple(sorted(range(len(target.shape)), key=lambda axis: -target.strides[axis]))
    return strided_copy(call, out.transpose(order), target.transpose(order))
