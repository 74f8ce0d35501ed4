"""Copies that can be windows on what they read: the conditions of fold-copies, by its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphexec.base.tensor import View
from graphexec.graph.rewrites.pointers import lost, too_dear
from graphexec.graph.rewrites.readers import Layouts, Readers, layouts_of, quoted
from graphexec.graph.rewriting import Note, Target
from graphexec.ir.typed import TypedGraph, TypedNode

_LOOK_AHEAD = 4  # copies of copies of copies


def with_windows(graph: TypedGraph, target: Target) -> tuple[TypedGraph, tuple[Note, ...]]:
    """`graph` with copies marked as windows, and notes on them."""
    if not any(node.op.name == "copy" for node in graph.nodes):
        return graph, ()
    return _Folding(graph, target).run()


def unmoved(graph: TypedGraph, target: Target) -> set[str]:
    """The nodes of `graph` that move no bytes once fold-copies has been there."""
    folded, _ = with_windows(graph, target)
    layouts = layouts_of(folded)
    return {node.name for node in folded.nodes if layouts.moved(node) is not None}


class _Folding:
    def __init__(self, graph: TypedGraph, target: Target) -> None:
        self.graph, self.target = graph, target
        self.readers, self.layouts = Readers(graph), Layouts(graph)
        self.notes: list[Note] = []

    def run(self) -> tuple[TypedGraph, tuple[Note, ...]]:
        nodes = []
        for node in self.graph.nodes:
            if node.op.name == "copy" and not node.window and self.becomes_window(node):
                node = replace(node, window=True)
            self.layouts.add(node)
            nodes.append(node)
        if not any(note.applied for note in self.notes):
            return self.graph, tuple(self.notes)
        return replace(self.graph, nodes=tuple(nodes)), tuple(self.notes)

    def becomes_window(self, copy: TypedNode) -> bool:
        if copy.type.space != "device" or self.layouts.free(copy) is not None:
            return False
        window = self.layouts.window(copy)
        if window is None:  # 1
            return False
        name, readers = copy.name, self.readers.of.get(copy.name, [])
        why = self.why_not(copy, window, readers)
        about = (name, copy.operands["x"], *(r.name for r in readers))
        if why:
            self.notes.append(Note(about, f"copy '{name}' stays: {why}", applied=False))
        else:
            taken = quoted(r.name for r in readers)
            text = f"{taken} {'take' if len(readers) > 1 else 'takes'} {_how(copy)} copy '{name}'"
            self.notes.append(Note(about, f"{text} from '{copy.operands['x']}' as strides"))
        return not why

    def why_not(self, copy: TypedNode, window: View, readers: Sequence[TypedNode]) -> str:
        """Why a copy may not become this window; "" when it may."""
        name = copy.name
        if name in self.readers.outputs:  # 2
            return "it is an output"
        if name in self.readers.ordered:
            return "there is an `after` edge at it"
        for reader in readers:  # 3
            if not self.accepts(reader, name, window, _LOOK_AHEAD):
                return f"{reader.op.name} '{reader.name}' cannot take such strides"
        slower = sum(self.lost(reader, name, window) for reader in readers)  # 4
        return too_dear(slower, copy, self.target)

    def accepts(self, reader: TypedNode, name: str, window: View, depth: int) -> bool:
        """Whether a reader takes the window without losing anything."""
        operands = self.with_window(reader, name, window)
        if reader.op.name != "copy" or self.layouts.free(reader) is None:
            return reader.op.accepts(operands, reader.attrs, self.layouts.out(reader))
        # The reader is a copy that moves no bytes already.
        further = self.layouts.window(reader, operands)
        if further is None or not depth or reader.name in self.readers.outputs:
            return False
        return reader.name not in self.readers.ordered and all(
            self.accepts(r, reader.name, further, depth - 1)
            for r in self.readers.of.get(reader.name, ())
        )

    def with_window(self, reader: TypedNode, name: str, window: View) -> dict[str, View]:
        operands = self.layouts.operands(reader)
        return {k: window if reader.operands[k] == name else v for k, v in operands.items()}

    def lost(self, reader: TypedNode, name: str, window: View) -> float:
        """Microseconds a GEMM loses to arrays of pointers that it does not need now."""
        before, after = self.layouts.operands(reader), self.with_window(reader, name, window)
        out = self.layouts.out(reader)
        return lost(reader, before, after, out, out, self.layouts.types, self.target)


def _how(copy: TypedNode) -> str:
    words = {"slice": "sliced", "permute": "permuted", "reshape": "reshaped",
             "axes": "rearranged"}  # fmt: skip
    return " and ".join(word for key, word in words.items() if copy.attrs[key]) or "plain"
