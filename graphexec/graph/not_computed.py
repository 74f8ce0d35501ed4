"""Nodes that no command computes: the nodes that do their work, or the tensors they view."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from graphexec.ir.typed import TypedGraph

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
    seen_in, takers = _seen_in(rewritten, computed), _takers(graph, rewritten, computed)

    def fate(name: str) -> tuple[How, tuple[str, ...]]:
        instead = same.get(name, name)
        if instead in kept:
            return ("repeats", (instead,)) if instead != name else ("view", seen_in[name])
        found = tuple(takers.get(instead, ()))
        return ("part of", found) if found else ("left out", ())

    nodes = [node for node in graph.nodes if node.name not in computed]
    return {node.name: NotComputed(node.name, node.op.name, *fate(node.name)) for node in nodes}


def _seen_in(graph: TypedGraph, computed: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The tensors, computed or given, that hold the elements of each view."""
    found: dict[str, tuple[str, ...]] = {}
    for node in graph.nodes:
        if node.name not in computed:
            tensors = (t for name in node.operands.values() for t in found.get(name, (name,)))
            found[node.name] = tuple(dict.fromkeys(tensors))
    return found


def _takers(
    graph: TypedGraph, rewritten: TypedGraph, computed: Collection[str]
) -> dict[str, list[str]]:
    """For each removed node the computed nodes it was merged into, found from these backwards."""
    same, kept = rewritten.same, {node.name for node in rewritten.nodes}
    reads: dict[str, list[str]] = {}  # of a node and those that repeat it
    for node in graph.nodes:
        operands = reads.setdefault(same.get(node.name, node.name), [])
        operands += (same.get(name, name) for name in node.operands.values())
    found: dict[str, list[str]] = {}
    for taker in (node.name for node in graph.nodes if node.name in computed):
        pending = list(reads[taker])
        while pending:
            name = pending.pop()
            if name in kept or name not in reads or taker in found.get(name, ()):
                continue
            found.setdefault(name, []).append(taker)
            pending += reads[name]
    return found
