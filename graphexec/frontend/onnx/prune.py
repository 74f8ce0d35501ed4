"""Leaves out what no output needs: parts that became another node, and constants that were read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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


def words(value: Any) -> Iterator[str]:
    """The texts within an attribute."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from words(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from words(item)
