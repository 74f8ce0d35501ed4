"""Leaves out what no output needs: parts that became another node, and constants that were read."""

from __future__ import annotations

from graphexec.ir.graph import Graph


def pruned(graph: Graph) -> Graph:
    """The graph, in place, with the nodes and weights that its outputs need, and all inputs."""
    needed: set[str] = set()
    waiting = list(graph.outputs.values())
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            if name in graph.nodes:
                waiting += graph.nodes[name].operands.values()
    graph.nodes = {n: node for n, node in graph.nodes.items() if n in needed}
    graph.weights = {n: weight for n, weight in graph.weights.items() if n in needed}
    return graph
