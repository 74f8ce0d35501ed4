"""What became of nodes that no command computes: who does their work, or whose bytes they are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from graphexec.ir.typed import TypedGraph

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
    """The tensors, computed or given, in which the elements of each view are."""
    found: dict[str, tuple[str, ...]] = {}
    for node in graph.nodes:
        if node.name not in computed:
            tensors = (t for name in node.operands.values() for t in found.get(name, (name,)))
            found[node.name] = tuple(dict.fromkeys(tensors))
    return found


def _takers(
    graph: TypedGraph, rewritten: TypedGraph, computed: Collection[str]
) -> dict[str, list[str]]:
    """The computed nodes that each node that is gone went into, by walking back from them."""
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


__all__ = ["NotComputed", "not_computed"]
