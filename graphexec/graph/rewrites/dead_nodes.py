"""dead-nodes: leave out nodes that no output and no next value of a state depends on.

An `after` edge keeps the node it names only when the ordered node itself is needed.
"""

from __future__ import annotations

from dataclasses import replace

from graphexec.graph.rewriting import GraphRewrite, Note, Target
from graphexec.ir.typed import TypedGraph


def rewrite(graph: TypedGraph, target: Target) -> tuple[TypedGraph, tuple[Note, ...]]:
    """`graph` with the nodes that the outputs need, in the same order."""
    needed = graph.kept
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.operands.values(), node.after)
    dead = [n.name for n in graph.nodes if n.name not in needed]
    if not dead:
        return graph, ()
    notes = tuple(Note((name,), f"left out '{name}', which no output needs") for name in dead)
    return replace(graph, nodes=tuple(n for n in graph.nodes if n.name in needed)), notes


REWRITE = GraphRewrite("dead-nodes", "leaves out nodes that no output depends on", rewrite)
