"""The readers of each tensor, and its layout: what rewrites need to know of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from graphexec.base.tensor import TensorType, View
from graphexec.ir.op import Op
from graphexec.ir.typed import TypedGraph, TypedNode


class Readers:
    """The readers of every tensor, and the tensors that rewrites must keep."""

    def __init__(self, graph: TypedGraph) -> None:
        self.of: dict[str, list[TypedNode]] = {}
        self.ordered: set[str] = set()  # with an `after` edge, to them or from them
        self.outputs, self.given = graph.kept, frozenset(graph.outputs.values())
        for node in graph.nodes:
            for name in dict.fromkeys(node.operands.values()):
                self.of.setdefault(name, []).append(node)
            if node.after:
                self.ordered.update((node.name, *node.after))

    def only(self, name: str) -> TypedNode | None:
        """The one node that reads a tensor, if nothing else needs its bytes or its order."""
        found = self.of.get(name, ())
        if len(found) != 1 or name in self.outputs or name in self.ordered:
            return None
        return found[0] if list(found[0].operands.values()).count(name) == 1 else None

    def why_not_alone(self, name: str) -> str:
        """Why `only` gives None."""
        if name in self.outputs:
            return (
                f"'{name}' is {'an output' if name in self.given else 'the next value of a state'}"
            )
        if name in self.ordered:
            return f"there is an `after` edge at '{name}'"
        return f"'{name}' has other readers"


class Layouts:
    """Where each tensor lies. Dense ones are their own storage, until `lower` says otherwise."""

    def __init__(self, graph: TypedGraph) -> None:
        self.types: dict[str, TensorType] = graph.types()
        self.views: dict[str, View] = {}

    def operands(self, node: TypedNode) -> dict[str, View]:
        """The views that a node reads; tensors not added yet are dense."""
        return {key: self.view(name) for key, name in node.operands.items()}

    def view(self, name: str) -> View:
        """The view of a tensor."""
        found = self.views.get(name)
        if found is None:
            found = self.views[name] = View.dense(name, self.types[name])
        return found

    def window(self, node: TypedNode, operands: Mapping[str, View] | None = None) -> View | None:
        """The node's result as a window on what it reads."""
        given = self.operands(node) if operands is None else operands
        types = {key: self.types[name] for key, name in node.operands.items()}
        return node.op.window(given, node.attrs, types, node.type)

    def moved(self, node: TypedNode) -> View | None:
        """The node's result where it moves no bytes; None where it does."""
        return self.window(node) if node.window else self.free(node)

    def free(self, node: TypedNode) -> View | None:
        """The node's result as a view, if the op moves no bytes for any reader."""
        moves = type(node.op).view is Op.view  # most ops: no need to ask
        if moves or node.after or node.layout is not None:
            return None
        types = {key: self.types[name] for key, name in node.operands.items()}
        return node.op.view(self.operands(node), node.attrs, types, node.type)

    def out(self, node: TypedNode) -> View:
        """The view that the op writes."""
        return self.written(node)

    @staticmethod
    def written(node: TypedNode, whole: View | None = None) -> View:
        """The view that the op writes, `whole` being the place of the result."""
        place = whole or node.into or View.dense(node.name, node.type)
        if node.layout is None:
            return place
        offset = place.offset + node.layout.offset
        return replace(node.layout, storage=place.storage, offset=offset)

    def add(self, node: TypedNode) -> None:
        """Note where the result of a node lies."""
        found = self.moved(node)
        if found is not None:
            self.views[node.name] = found
        elif node.into is not None:
            self.views[node.name] = node.into
        elif node.over is not None:
            self.views[node.name] = self.view(node.operands[node.over])


def layouts_of(graph: TypedGraph) -> Layouts:
    """The layouts of all tensors of a graph."""
    layouts = Layouts(graph)
    for node in graph.nodes:
        layouts.add(node)
    return layouts


def joined_name(names: Sequence[str]) -> str:
    """The name of a tensor of several, such as trunk.3.q+k+v; no tensor of a graph has a "+"."""
    blocks = {name.rpartition(".")[0] for name in names}
    if len(blocks) > 1:
        return "+".join(names)
    first, *others = names
    return "+".join([first, *(name.rpartition(".")[2] for name in others)])


def quoted(names: Iterable[str]) -> str:
    """Names for a note, at most three of them."""
    listed = [f"'{name}'" for name in names]
    if len(listed) > 3:
        listed = [*listed[:2], f"{len(listed) - 2} more"]
    return " and ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)
