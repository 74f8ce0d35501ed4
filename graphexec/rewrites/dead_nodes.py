"""dead-nodes: leave out nodes that no output depends on.

An `after` edge keeps the node it names only when the ordered node itself is needed.
"""

from __future__ import annotations

from dataclasses import replace

from graphexec.typed import TypedGraph

NAME = "dead-nodes"


def rewrite(graph: TypedGraph) -> TypedGraph:
    """`graph` with the nodes that the outputs need, in the same order."""
    needed = set(graph.outputs.values())
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.operands.values(), node.after)
    return replace(graph, nodes=tuple(n for n in graph.nodes if n.name in needed))
