"""What became of nodes that no command computes: who does their work, or whose bytes they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from graphexec.typed import TypedGraph

How = Literal["part of", "view", "repeats", "left out"]


@dataclass(frozen=True)
class NotComputed:
    """A node without a command of its own, and what stands for it.

    how       by
    part of   the nodes whose commands do its work: a rewrite put it into them
    view      the tensors that it is a window on: its readers find its elements there
    repeats   the equal node that is used instead
    left out  (), for no output needs it
    """

    name: str
    op: str
    how: How
    by: tuple[str, ...] = ()


def not_computed(
    graph: TypedGraph, rewritten: TypedGraph, computed: Collection[str]
) -> dict[str, NotComputed]:
    """The nodes of `graph`, by name in its order, that are not in `computed`, the nodes whose
    results commands write.

    `rewritten` is what the rewrites made of `graph`. A node that they took out went into all its
    readers, as rewrites take none out whose readers still need its result.
    """
    return _Search(graph, rewritten, computed).found()


class _Search:
    def __init__(
        self, graph: TypedGraph, rewritten: TypedGraph, computed: Collection[str]
    ) -> None:  # fmt: skip
        self.graph, self.same, self.computed = graph, rewritten.same, frozenset(computed)
        self.kept = {node.name: node for node in rewritten.nodes}
        self.readers: dict[str, list[str]] = {}
        for node in graph.nodes:
            for operand in node.operands.values():
                self.readers.setdefault(operand, []).append(node.name)

    def found(self) -> dict[str, NotComputed]:
        nodes = [node for node in self.graph.nodes if node.name not in self.computed]
        return {n.name: NotComputed(n.name, n.op.name, *self.fate(n.name)) for n in nodes}

    def fate(self, name: str) -> tuple[How, tuple[str, ...]]:
        instead = self.same.get(name, name)
        if instead != name and (instead in self.computed or instead in self.kept):
            return "repeats", (instead,)
        if name in self.kept:
            return "view", self.seen_in(name)
        takers = self.takers(name)
        return ("part of", takers) if takers else ("left out", ())

    def seen_in(self, name: str) -> tuple[str, ...]:
        """The tensors at the end of a chain of views: computed, or given."""
        if name in self.computed or name not in self.kept:
            return (name,)
        return _unique(t for x in self.kept[name].operands.values() for t in self.seen_in(x))

    def takers(self, name: str) -> tuple[str, ...]:
        """The nearest nodes after `name` that are computed."""
        found: dict[str, None] = {}
        pending, known = list(self.readers.get(name, ())), set[str]()
        while pending:
            reader = pending.pop(0)
            if reader in known:
                continue
            known.add(reader)
            instead = self.same.get(reader, reader)
            if instead in self.computed:
                found[instead] = None
            else:
                pending += self.readers.get(reader, ())
        return tuple(found)


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


__all__ = ["NotComputed", "not_computed"]
