"""accumulate-in-place: a GEMM adds to its c in place; its result takes the bytes of c.

A node writes over an operand when

1. its op can (Op.overwrites): a GEMM with a c of the result's shape and dtype, beta not 0, no bias;
2. the operand is the result of a node with bytes of its own: no input, no weight, no window;
3. the operand is no output, and neither node has an `after` edge, to it or from it;
4. every other reader of the operand's bytes is needed for one of the node's other operands, so
   that it happens before in any order.

Otherwise c is copied to the result first. Condition 4 looks back at most at LOOK_BACK nodes
and names one of the first LOOK_BACK readers that stand in the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

from graphexec.base.tensor import TensorType
from graphexec.graph.rewrites.readers import Layouts, Readers
from graphexec.graph.rewriting import GraphRewrite, Note, Target
from graphexec.ir.op import Op
from graphexec.ir.typed import TypedGraph, TypedNode

LOOK_BACK = 64
"""Nodes that are searched for what precedes a node."""


def rewrite(graph: TypedGraph, target: Target) -> tuple[TypedGraph, tuple[Note, ...]]:
    """`graph` with nodes that write over what they read."""
    types = graph.types()
    candidates = {node.name: key for node in graph.nodes if (key := _overwritten(node, types))}
    if not candidates:
        return graph, ()
    readers, layouts = Readers(graph), Layouts(graph)
    nodes: dict[str, TypedNode] = {}
    notes: list[Note] = []
    for node in graph.nodes:
        nodes[node.name] = node
        key = candidates.get(node.name)
        if key is not None:
            name = node.operands[key]
            why = _why_not(node, key, nodes, readers, layouts)
            if not why:
                nodes[node.name] = replace(node, over=key)
                notes.append(Note((node.name, name), f"'{node.name}' adds to '{name}' in place"))
            else:
                text = f"'{node.name}' adds to a copy of '{name}': {why}"
                notes.append(Note((node.name, name), text, applied=False))
        layouts.add(nodes[node.name])
    if not any(note.applied for note in notes):
        return graph, tuple(notes)
    return replace(graph, nodes=tuple(nodes.values())), tuple(notes)


def _overwritten(node: TypedNode, types: Mapping[str, TensorType]) -> str | None:  # 1
    never = type(node.op).overwrites is Op.overwrites
    if never or node.window or node.layout or node.over is not None or node.into:
        return None
    given = {key: types[name] for key, name in node.operands.items()}
    return node.op.overwrites(given, node.attrs, node.type)


def _why_not(
    node: TypedNode, key: str, nodes: Mapping[str, TypedNode], readers: Readers, layouts: Layouts
) -> str:
    """Why a node may not write over an operand; "" when it may."""
    name = node.operands[key]
    made = nodes.get(name)
    if made is None:  # 2
        return f"'{name}' is an input or a weight"
    if made.window or layouts.free(made) is not None:
        return f"'{name}' has no bytes of its own"
    if name in readers.outputs:  # 3
        return f"'{name}' is an output"
    if {name, node.name} & readers.ordered:
        return "there is an `after` edge"
    storage = layouts.view(name).storage
    if any(
        layouts.view(other).storage == storage for k, other in node.operands.items() if k != key
    ):
        return "it is read as another operand too"
    later = _later(node, key, nodes, _users(name, node, readers, layouts))  # 4
    named = min(islice(later, LOOK_BACK), default="")
    return f"'{named}' may read it later" if named else ""


def _users(name: str, node: TypedNode, readers: Readers, layouts: Layouts) -> Iterator[str]:
    """Nodes but `node` that read the bytes of a tensor, also through windows on it."""
    pending = [name]
    while pending:
        for reader in readers.of.get(pending.pop(), ()):
            if reader.name == node.name:
                continue
            yield reader.name
            if reader.window or layouts.free(reader) is not None:
                pending.append(reader.name)
                if reader.name in readers.outputs:
                    yield f"the output {reader.name}"  # is read at the end


def _later(
    node: TypedNode, key: str, nodes: Mapping[str, TypedNode], users: Iterator[str]
) -> Iterator[str]:
    """Those of `users` that the node's other operands are not found to need."""
    before: set[str] | None = None
    for user in users:
        if before is None:
            before = _before(node, key, nodes)
        if user not in before:
            yield user


def _before(node: TypedNode, key: str, nodes: Mapping[str, TypedNode]) -> set[str]:
    """Those of the nodes that the other operands need."""
    found: set[str] = set()
    pending = [name for k, name in node.operands.items() if k != key]
    while pending and len(found) < LOOK_BACK:
        name = pending.pop()
        if name in found or name not in nodes:
            continue
        found.add(name)
        pending += nodes[name].operands.values()
    return found


REWRITE = GraphRewrite(
    "accumulate-in-place", "lets a GEMM add to its c in place, if nothing reads c afterwards",
    rewrite,
)  # fmt: skip
