"""permuted-results: an op writes its result in the order of the permuting copy that reads it.

A copy (permute, then reshape) is merged into the node that makes its operand when

1. nothing but the copy reads that node's result, and that node has commands of its own;
2. neither has an `after` edge, to it or from it;
3. the copy neither slices, casts nor changes memory, and would move bytes;
4. the op can write to such strides (Op.accepts): a GEMM without addends whose rows stay rows, in a
   dtype that the BLAS writes;
5. where a GEMM then needs arrays of pointers, the copy takes longer than the GEMM loses, as in
   fold-copies.

The node gets the copy's name: its result is the copy's.
"""

from __future__ import annotations

from dataclasses import replace

from graphexec.base.tensor import View, contiguous_strides
from graphexec.graph.rewrites.pointers import lost, too_dear
from graphexec.graph.rewrites.readers import Layouts, Readers, layouts_of
from graphexec.graph.rewriting import GraphRewrite, Note, Target
from graphexec.ir.typed import TypedGraph, TypedNode


def rewrite(graph: TypedGraph, target: Target) -> tuple[TypedGraph, tuple[Note, ...]]:
    """`graph` with results written in the order of their permuting copies."""
    if not any(node.op.name == "copy" for node in graph.nodes):
        return graph, ()
    nodes = {node.name: node for node in graph.nodes}
    readers, layouts = Readers(graph), layouts_of(graph)
    notes: list[Note] = []
    for copy in graph.nodes:
        source = nodes.get(copy.operands["x"]) if copy.op.name == "copy" else None
        if source is None or not _moves(copy, source, layouts):
            continue
        layout = _layout(copy, source)
        if layout is None:
            continue
        operands, out = layouts.operands(source), layouts.out(source)
        both = (copy.name, source.name)
        if not source.op.accepts(operands, source.attrs, layout):  # 4
            continue
        why = ""
        if readers.only(source.name) is None:  # 1, 2
            why = readers.why_not_alone(source.name)
        elif copy.name in readers.ordered or source.after:
            why = f"there is an `after` edge at '{copy.name}'"
        else:
            slower = lost(source, operands, operands, out, layout, layouts.types, target)
            why = too_dear(slower, copy, target)  # 5
        if why:
            notes.append(Note(both, f"copy '{copy.name}' stays: {why}", applied=False))
            continue
        del nodes[source.name]
        nodes[copy.name] = replace(
            source, name=copy.name, type=copy.type, layout=layout, line=copy.line
        )
        text = f"{source.op.name} '{source.name}' writes to where copy '{copy.name}' moves it"
        notes.append(Note(both, text))
    if not any(note.applied for note in notes):
        return graph, tuple(notes)
    return replace(graph, nodes=tuple(nodes.values())), tuple(notes)


def _moves(copy: TypedNode, source: TypedNode, layouts: Layouts) -> bool:  # 1, 3
    """Whether the copy moves all elements of a result that has bytes of its own."""
    if copy.window or source.window or source.layout is not None or source.over is not None:
        return False
    if copy.attrs["slice"] or replace(copy.type, shape=source.type.shape) != source.type:
        return False
    return layouts.free(copy) is None and layouts.free(source) is None


def _layout(copy: TypedNode, source: TypedNode) -> View | None:
    """The source's result as a window on the copy's dense bytes, if it is one."""
    shape = source.type.shape
    split, order = shape, [a % len(shape) for a in copy.attrs["permute"] or range(len(shape))]
    if copy.attrs["axes"]:
        split, order = copy.attrs["axes"].moved(shape)
    taken = tuple(split[a] for a in order)
    moved = View(copy.name, taken, copy.type.dtype, contiguous_strides(taken))
    return moved.transpose(tuple(order.index(a) for a in range(len(order)))).reshaped(shape)


REWRITE = GraphRewrite(
    "permuted-results",
    "lets a GEMM write its result in the order of the copy that alone reads it",
    rewrite,
)
