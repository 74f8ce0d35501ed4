"""common-subexpressions: compute equal nodes once.

A node is replaced by an earlier one when

1. op, operands (after earlier replacements), attributes and type are the same, and the op is
   deterministic;
2. neither has an `after` edge, to it or from it;
3. the later one is no output: an output keeps bytes of its own.

One walk in topological order, so whole equal subgraphs merge: O(nodes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphexec.graph.rewrites.readers import Readers
from graphexec.graph.rewriting import GraphRewrite, Note, Target
from graphexec.ir.typed import TypedGraph, TypedNode


def rewrite(graph: TypedGraph, target: Target) -> tuple[TypedGraph, tuple[Note, ...]]:
    """`graph` without the nodes that repeat others."""
    readers = Readers(graph)
    first: dict[object, str] = {}  # the earliest node that computes it
    same: dict[str, str] = {}
    kept: list[TypedNode] = []
    notes: list[Note] = []
    for node in graph.nodes:
        operands = {key: same.get(name, name) for key, name in node.operands.items()}
        if operands != node.operands:
            node = replace(node, operands=operands)
        if node.name in readers.ordered or not node.op.deterministic:  # 2, 1
            kept.append(node)
            continue
        equal = first.setdefault(_computation(node), node.name)
        if equal == node.name:
            kept.append(node)
        elif node.name in readers.outputs:  # 3
            kept.append(node)
            text = f"'{node.name}' repeats '{equal}' but is an output"
            notes.append(Note((node.name, equal), text, applied=False))
        else:
            same[node.name] = equal
            text = f"'{node.name}' repeats '{equal}', which is used instead"
            notes.append(Note((node.name, equal), text))
    if not same:
        return graph, tuple(notes)
    return replace(graph, nodes=tuple(kept), same={**graph.same, **same}), tuple(notes)


def _computation(node: TypedNode) -> object:  # 1
    """Equal for nodes that compute the same."""
    return id(node.op), frozenset(node.operands.items()), node.type, _frozen(node.attrs)


def _frozen(value: Any) -> object:
    """An attribute's value as something to look up; 1 and 1.0 and True differ."""
    if isinstance(value, Mapping):
        return tuple((key, _frozen(v)) for key, v in sorted(value.items()))
    if isinstance(value, tuple | list):
        return type(value).__name__, *map(_frozen, value)
    return type(value).__name__, value


REWRITE = GraphRewrite(
    "common-subexpressions", "computes equal nodes once", rewrite,
    lengthens=True,
)  # fmt: skip
