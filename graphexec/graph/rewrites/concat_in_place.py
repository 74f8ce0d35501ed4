"""concat-in-place: a part that only a concat reads is written where the concat would copy it.

An operand that an op only copies into its result (Op.parts) is written into the result when

1. nothing else reads it, it is no output, it has no `after` edge, and the op waits for no node;
2. it is the result of a node with bytes of its own: no input, no weight, no window, and if the node
   writes its result in another order, the place in the whole result is dense;
3. the node can write there (Op.accepts), and every row is aligned as well as it would be;
4. where a GEMM then needs arrays of pointers, the copy takes longer than the GEMM loses, as in
   fold-copies.

Ops are visited from the outputs on, so that a concat of concats has one place for all. Parts that
lie one after another are written in any order; those whose rows lie between one another's are
ordered, since waits and the proof count ranges of bytes.
"""

from __future__ import annotations

from dataclasses import replace

from graphexec.base.tensor import View
from graphexec.graph.rewrites.pointers import lost, too_dear
from graphexec.graph.rewrites.readers import Layouts, Readers, layouts_of, quoted
from graphexec.graph.rewriting import GraphRewrite, Note, Target
from graphexec.ir.op import Op
from graphexec.ir.typed import TypedGraph, TypedNode
from graphexec.machine.blas_layout import is_well_aligned


def rewrite(graph: TypedGraph, target: Target) -> tuple[TypedGraph, tuple[Note, ...]]:
    """`graph` with parts that are written into the tensors made of them."""
    whole = [node for node in graph.nodes if type(node.op).parts is not Op.parts]
    if not whole:
        return graph, ()
    work = _InPlace(graph, target)
    for node in reversed(whole):
        work.place_parts(node.name)
    if not any(note.applied for note in work.notes):
        return graph, tuple(work.notes)
    return replace(graph, nodes=tuple(work.nodes.values())), tuple(work.notes)


class _InPlace:
    def __init__(self, graph: TypedGraph, target: Target) -> None:
        self.nodes = {node.name: node for node in graph.nodes}
        self.readers, self.layouts, self.target = Readers(graph), layouts_of(graph), target
        self.loaded = {name for name, weight in graph.weights.items() if weight.into}
        self.notes: list[Note] = []

    def place_parts(self, name: str) -> None:
        """Let the parts of a node be written into its result, where that is possible."""
        node = self.nodes[name]
        if node.type.space != "device" or node.layout is not None:
            return
        types = {key: self.layouts.types[tensor] for key, tensor in node.operands.items()}
        out = node.into or View.dense(name, node.type)
        placed = []
        for key, window in node.op.parts(types, node.attrs, out).items():
            part = node.operands[key]
            if part in self.loaded:  # to its place
                continue
            why = self.why_not(part, node, window)
            if why:
                text = f"{node.op.name} '{name}' copies '{part}': {why}"
                self.notes.append(Note((name, part), text, applied=False))
                continue
            self.nodes[part] = replace(self.nodes[part], into=window)
            placed.append(part)
        if placed:
            verb = "are" if len(placed) > 1 else "is"
            text = f"{quoted(placed)} {verb} written where {node.op.name} '{name}' has them"
            self.notes.append(Note((name, *placed), text))

    def why_not(self, part: str, node: TypedNode, window: View) -> str:
        """Why a part may not be written to a window; "" when it may."""
        if self.readers.only(part) is None:  # 1
            return self.readers.why_not_alone(part)
        if node.after:
            return f"'{node.name}' comes after other nodes"
        made = self.nodes.get(part)
        if made is None:  # 2
            return "it is an input or a weight"
        if made.window or made.over is not None or self.layouts.free(made) is not None:
            return "it has no bytes of its own"
        if made.layout is not None and not window.is_dense:
            return "it is written in another order already"
        return self.too_slow(made, window)

    def too_slow(self, made: TypedNode, window: View) -> str:
        """Why the node that makes a part should not write to a window; "" when it should."""
        operands, usual = self.layouts.operands(made), self.layouts.out(made)
        out = Layouts.written(replace(made, into=window))
        if not made.op.accepts(operands, made.attrs, out):  # 3
            return f"{made.op.name} '{made.name}' cannot write such strides"
        if not is_well_aligned(window) or (window.is_dense and not _begins_well(window)):
            return "its rows would be less aligned"
        types = self.layouts.types
        slower = lost(made, operands, operands, usual, out, types, self.target)
        return too_dear(slower, made, self.target)  # 4


def _begins_well(window: View) -> bool:
    """Whether a dense window begins where a load of 16 bytes may."""
    return window.offset * window.dtype.itemsize % 16 == 0


REWRITE = GraphRewrite(
    "concat-in-place",
    "lets the parts of a concat be written where they belong, so that no bytes move",
    rewrite,
    lengthens=True,
)
