"""fold-casts: an op writes the dtype of the casting copy that alone reads its result.

A casting copy is merged into the node that makes its operand when

1. nothing but the copy reads that node's result;
2. neither has an `after` edge, to it or from it;
3. the node's op can write the other dtype itself (Op.with_dtype; a GEMM of half precision writes
   f32, and half precision again), and is still well-formed then;
4. the copy does nothing else but cast, from floats to floats.

The node gets the copy's name: its result is the copy's. Casting up leaves out a rounding, casting
down leaves the numbers as they were: sums are f32 before they are stored.
"""

from __future__ import annotations

from dataclasses import replace

from graphexec.base.tensor import TensorType
from graphexec.graph.rewrites.readers import Readers
from graphexec.graph.rewriting import GraphRewrite, Note, Target
from graphexec.ir.op import OpError
from graphexec.ir.typed import TypedGraph, TypedNode


def rewrite(graph: TypedGraph, target: Target) -> tuple[TypedGraph, tuple[Note, ...]]:
    """`graph` with casts merged into the nodes that make their operands."""
    casts = [n for n in graph.nodes if n.op.name == "copy" and n.attrs["dtype"] is not None]
    if not casts:
        return graph, ()
    readers, types = Readers(graph), graph.types()
    nodes = {node.name: node for node in graph.nodes}
    notes: list[Note] = []
    for copy in casts:
        source = nodes.get(copy.operands["x"])
        if source is None or source.type.dtype is copy.type.dtype or not _only_casts(copy, source):
            continue
        wanted = _writing(source, copy, types)
        if wanted is None:  # 3
            continue
        both = (copy.name, source.name)
        if readers.only(source.name) is None:  # 1, 2
            text = f"cast '{copy.name}' stays: {readers.why_not_alone(source.name)}"
            notes.append(Note(both, text, applied=False))
        elif copy.name in readers.ordered:  # 2
            text = f"cast '{copy.name}' stays: there is an `after` edge at it"
            notes.append(Note(both, text, applied=False))
        else:
            del nodes[source.name]
            nodes[copy.name] = wanted
            text = f"{source.op.name} '{source.name}' writes the {copy.type.dtype} of cast"
            notes.append(Note(both, f"{text} '{copy.name}'"))
    if not any(note.applied for note in notes):
        return graph, tuple(notes)
    return replace(graph, nodes=tuple(nodes.values())), tuple(notes)


def _only_casts(copy: TypedNode, source: TypedNode) -> bool:  # 4
    moves = any(copy.attrs[key] is not None for key in ("slice", "permute", "reshape", "axes"))
    floats = copy.type.dtype.is_float and source.type.dtype.is_float
    return floats and not moves and copy.type.space == source.type.space


def _writing(source: TypedNode, copy: TypedNode, types: dict[str, TensorType]) -> TypedNode | None:
    """The source with the copy's name and dtype."""
    given = {key: types[name] for key, name in source.operands.items()}
    attrs = source.op.with_dtype(given, source.attrs, copy.type.dtype)
    if attrs is None:
        return None
    try:
        type = source.op.infer(given, attrs)
    except OpError:
        return None
    return replace(source, name=copy.name, attrs=attrs, type=type, line=copy.line)


REWRITE = GraphRewrite(
    "fold-casts", "lets a GEMM write the dtype of the casting copy that alone reads it", rewrite
)
