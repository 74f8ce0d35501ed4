"""Nodes that no command computes: the nodes that do their work, or the tensors they view."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from graphexec.graph.rewrites.readers import Layouts
from graphexec.ir.op import Op
from graphexec.ir.typed import TypedGraph, TypedNode

How = Literal["part of", "view", "repeats", "left out"]


@dataclass(frozen=True)
class NotComputed:
    """A node without a command of its own, and what replaces it.

    how       by
    part of   the nodes whose commands do its work: a rewrite merged it into them
    view      the tensors that it is a window on: its readers read its elements there
    repeats   the equal node that is used instead
    left out  (): no output needs it
    """

    name: str
    op: str
    how: How
    by: tuple[str, ...] = ()


def not_computed(
    graph: TypedGraph, rewritten: TypedGraph, computed: Collection[str]
) -> dict[str, NotComputed]:
    """The nodes of `graph` that are not in `computed`, by name, in the order of the graph.

    `computed` are the nodes whose results commands write; `rewritten` is `graph` after rewriting.
    A removed node was merged into all its readers: rewrites remove no node whose readers still need
    its result.
    """
    same, kept = rewritten.same, {node.name for node in rewritten.nodes}
    seen_in = _seen_in(rewritten, computed)
    takers = _takers(graph, rewritten, computed, seen_in)

    def fate(name: str) -> tuple[How, tuple[str, ...]]:
        instead = same.get(name, name)
        if instead in kept and instead != name:
            return "repeats", (instead,)
        if instead in seen_in:
            return "view", seen_in[name]
        found = tuple(takers.get(instead, ()))
        return ("part of", found) if found else ("left out", ())

    nodes = [node for node in graph.nodes if node.name not in computed]
    return {node.name: NotComputed(node.name, node.op.name, *fate(node.name)) for node in nodes}


def _seen_in(graph: TypedGraph, computed: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The tensors, computed or given, that hold the elements of each view."""
    found: dict[str, tuple[str, ...]] = {}
    layouts = Layouts(graph)
    for node in graph.nodes:
        if node.name not in computed and _moves_nothing(node, layouts):
            tensors = (t for name in node.operands.values() for t in found.get(name, (name,)))
            found[node.name] = tuple(dict.fromkeys(tensors))
        layouts.add(node)
    # A window on what is not stored was merged into its readers, as was that.
    gone = {node.name for node in graph.nodes} - {*computed, *found}
    return {name: by for name, by in found.items() if gone.isdisjoint(by)}


def _moves_nothing(node: TypedNode, layouts: Layouts) -> bool:
    """Whether a node is a window on other tensors, or made of them where they lie."""
    return type(node.op).parts is not Op.parts or layouts.moved(node) is not None


def _takers(
    graph: TypedGraph, rewritten: TypedGraph, computed: Collection[str],
    seen_in: Mapping[str, tuple[str, ...]],
) -> dict[str, list[str]]:  # fmt: skip
    """For each node that was merged into others these, found from them backwards: nodes that are
    computed, or those that a view is a window on."""
    same = rewritten.same
    ends = {*computed, *seen_in}
    reads: dict[str, list[str]] = {}  # of a node and those that repeat it
    for node in graph.nodes:
        operands = reads.setdefault(same.get(node.name, node.name), [])
        operands += (same.get(name, name) for name in node.operands.values())
    found: dict[str, list[str]] = {}
    for taker in (node.name for node in graph.nodes if node.name in ends):
        by = seen_in.get(taker, (taker,))
        pending = list(reads[taker])
        while pending:
            name = pending.pop()
            if name in ends or name not in reads or by[0] in found.get(name, ()):
                continue
            found.setdefault(name, []).extend(each for each in by if each != name)
            pending += reads[name]
    return found
