"""fold-biases: a product adds the bias that a map adds to it alone, where the device does both.

    q: x @ w + b          a gemm, and a map of it      becomes      one gemm with a bias

The map is left out when

1. it is nothing but the sum of the product and a vector of its type, and alone reads the product;
2. neither has an `after` edge, to it or from it;
3. the device adds the bias as it writes the result; it is asked about the product itself;
4. nothing that follows is generated from an expression, or places parts in a concat: there the
   bias costs nothing, and the product is read just as often.

What fuse-epilogue finds later is this product, and layouts may have changed: then it has a command
of its own for the bias, as every gemm with one.
"""

from __future__ import annotations

from dataclasses import replace

from graphexec.base.tensor import TensorType, View
from graphexec.graph.rewrites.biases import added_bias
from graphexec.graph.rewrites.readers import Readers
from graphexec.graph.rewriting import GraphRewrite, Note, Target
from graphexec.ir.typed import TypedGraph, TypedNode
from graphexec.ops.gemm import product_of

_TAKE_IT = ("map", "norm", "reduce", "softmax", "concat")


def rewrite(graph: TypedGraph, target: Target) -> tuple[TypedGraph, tuple[Note, ...]]:
    """`graph` with biases that its products add."""
    readers, types = Readers(graph), graph.types()
    nodes = {node.name: node for node in graph.nodes}
    notes: list[Note] = []
    for gemm in graph.nodes:
        map = readers.only(gemm.name) if gemm.op.name == "gemm" and not gemm.after else None
        bias = None if map is None else added_bias(gemm, map, types, readers)
        if map is None or bias is None:
            continue
        one = replace(gemm, name=map.name, operands={**gemm.operands, "bias": bias}, line=map.line)
        why = _why_not(one, readers, types, target)
        if why:
            text = f"'{map.name}' adds the bias '{bias}' by a command of its own: {why}"
            notes.append(Note((map.name, gemm.name), text, applied=False))
            continue
        del nodes[gemm.name]
        nodes[map.name] = one
        text = f"product '{gemm.name}' adds the bias '{bias}' of '{map.name}'"
        notes.append(Note((map.name, gemm.name), text))
    if not any(note.applied for note in notes):
        return graph, tuple(notes)
    return replace(graph, nodes=tuple(nodes.values())), tuple(notes)


def _why_not(
    one: TypedNode, readers: Readers, types: dict[str, TensorType], target: Target
) -> str:  # fmt: skip
    """Why a product should not add its bias; "" when it should."""
    for reader in readers.of.get(one.name, ()):  # 4
        if reader.op.name in _TAKE_IT:
            return f"{reader.op.name} '{reader.name}' follows, which may be one kernel with it"
    views = {key: View.dense(name, types[name]) for key, name in one.operands.items()}
    return target.support(product_of(views, one.attrs, View.dense(one.name, one.type))).why  # 3


REWRITE = GraphRewrite(
    "fold-biases",
    "lets a GEMM add the bias that a map adds to it, if the device does",
    rewrite,
)
