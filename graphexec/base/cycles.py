"""Topological order, and cycles. No function recurses."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

Edges = Mapping[str, Sequence[str]]


def topological_order(needs: Edges) -> tuple[list[str], list[list[str]]]:
    """Kahn's order of the keys of `needs` (name → names it needs), and the cycles found.

    Names that are no keys count as done. A cycle [a, b] means: b needs a, and a needs b. For each
    strongly connected component there is one cycle, a shortest through its earliest key. Names on
    a cycle, and names that need them, are not in the order.
    """
    waiting = dict.fromkeys(needs, 0)
    users: dict[str, list[str]] = {name: [] for name in needs}
    for name, wanted in needs.items():
        for other in wanted:
            if other in users:
                waiting[name] += 1
                users[other].append(name)
    order = [name for name, count in waiting.items() if count == 0]
    for name in order:  # grows during the loop
        for user in users[name]:
            waiting[user] -= 1
            if waiting[user] == 0:
                order.append(user)
    if len(order) == len(needs):
        return order, []
    stuck = {name: users[name] for name, count in waiting.items() if count > 0}
    rank = {name: i for i, name in enumerate(needs)}
    cycles = []
    for component in _components(stuck):
        start = min(component, key=rank.__getitem__)
        if len(component) > 1 or start in stuck[start]:
            cycles.append(_shortest_cycle(start, stuck, component))
    return order, sorted(cycles, key=lambda cycle: rank[cycle[0]])


def _components(graph: Edges) -> Iterable[set[str]]:
    """Strongly connected components."""
    import networkx  # imported only for a graph with a cycle

    digraph: networkx.DiGraph[str] = networkx.DiGraph()
    for name, others in graph.items():
        digraph.add_edges_from((name, other) for other in others if other in graph)
    return networkx.strongly_connected_components(digraph)


def _shortest_cycle(start: str, graph: Edges, inside: set[str]) -> list[str]:
    before: dict[str, str] = {}
    queue = deque([start])
    while start not in before:
        name = queue.popleft()
        for other in graph[name]:
            if other in inside and other not in before:
                before[other] = name
                queue.append(other)
    path = [before[start]]
    while path[-1] != start:
        path.append(before[path[-1]])
    return path[::-1]
