"""The cost of arrays of pointers, for a GEMM whose batch axes no single stride walks."""

from __future__ import annotations

from collections.abc import Mapping

from graphexec.base.tensor import TensorType, View
from graphexec.base.units import shown
from graphexec.graph.rewriting import Target
from graphexec.ir.program import Gemm
from graphexec.ir.typed import TypedNode
from graphexec.machine.blas_layout import is_one_batch

POINTERS_COST = 0.15
"""The assumed cost of arrays of pointers over one strided batch, as a part of the GEMM's time.
Measured on an H100: 14 % for eight products of 256³ and nothing for large ones."""


def lost(
    node: TypedNode, before: Mapping[str, View], after: Mapping[str, View], out: View,
    new_out: View, types: Mapping[str, TensorType], target: Target,
) -> float:  # fmt: skip
    """Microseconds a node loses when its operands and result have the strides of a rewrite:
    0 unless the node is a GEMM that needs arrays of pointers only then."""
    if node.op.name != "gemm" or target.facts.any_batch:
        return 0.0
    if not _is_one_batch(node, before, out) or _is_one_batch(node, after, new_out):
        return 0.0
    given = {key: types[name] for key, name in node.operands.items()}
    cost = node.op.cost(given, node.attrs, node.type)
    return POINTERS_COST * _microseconds(target, cost.flops, cost.bytes)


def too_dear(lost: float, copy: TypedNode, target: Target) -> str:
    """Why a copy in device memory is cheaper than a loss in microseconds; "" if it is not."""
    saved = target.costs.launch + _microseconds(target, 0, 2 * copy.type.nbytes)
    if lost <= saved:
        return ""
    return f"arrays of pointers would cost {shown(lost)}, the copy takes {shown(saved)}"


def _microseconds(target: Target, flops: int, nbytes: int) -> float:
    costs = target.costs
    return max(flops / costs.flops, nbytes / costs.bytes, costs.wave)


def _is_one_batch(gemm: TypedNode, operands: Mapping[str, View], out: View) -> bool:
    found = []
    for key in ("a", "b"):
        view = operands[key]
        rank = len(view.shape)
        if gemm.attrs[f"trans_{key}"]:
            view = view.transpose((*range(rank - 2), rank - 1, rank - 2))
        found.append(view.broadcast_to((*out.shape[:-2], *view.shape[-2:])))
    return is_one_batch(Gemm(found[0], found[1], out))
