"""Biases that a map adds to a product: what rewrites must know of them."""

from __future__ import annotations

from graphexec.base.grammar import Binary, Name
from graphexec.base.tensor import TensorType
from graphexec.graph.rewrites.readers import Readers
from graphexec.ir.typed import TypedNode


def added_bias(
    gemm: TypedNode, reader: TypedNode | None, types: dict[str, TensorType], readers: Readers
) -> str | None:
    """The vector that a map adds to every row of a product, if it does nothing else and alone
    reads the product; None if it does not."""
    if reader is None or reader.op.name != "map" or reader.type != gemm.type:
        return None
    tree = reader.attrs.get("expr")
    if not isinstance(tree, Binary) or tree.operator != "+" or reader.name in readers.ordered:
        return None
    sides = [reader.operands.get(s.name) for s in (tree.left, tree.right) if isinstance(s, Name)]
    others = [name for name in sides if name is not None and name != gemm.name]
    if len(sides) != 2 or len(others) != 1 or gemm.operands.keys() != {"a", "b"}:
        return None
    type = types[others[0]]
    fits = type.dtype is gemm.type.dtype and type.shape == gemm.type.shape[-1:]
    return others[0] if fits else None
