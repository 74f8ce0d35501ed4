"""Topological order, and the cycles that stand in its way. Nothing here recurses."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

Edges = Mapping[str, Sequence[str]]


def topological_order(needs: Edges) -> tuple[list[str], list[list[str]]]:
    """Kahn's order of the keys of `needs` (name → names it needs), and the cycles found.

    Names that are no keys are taken as given. A cycle [a, b] means: b needs a, and a needs b.
    One cycle, a shortest through its earliest key, is given for each strongly connected component;
    names on or behind a cycle are missing from the order.
    """
    waiting = dict.fromkeys(needs, 0)
    users: dict[str, list[str]] = {name: [] for name in needs}
    for name, wanted in needs.items():
        for other in wanted:
            if other in users:
                waiting[name] += 1
                users[other].append(name)
    order = [name for name, count in waiting.items() if count == 0]
    for name in order:  # grows while it is walked
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
            cycles.append(_shortest_cycle(start, stuck, set(component)))
    return order, sorted(cycles, key=lambda cycle: rank[cycle[0]])


def _components(graph: Edges) -> list[list[str]]:
    """Strongly connected components, by Tarjan's algorithm with an explicit stack."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    open_, found = [], []
    is_open: set[str] = set()
    for root in graph:
        work = [] if root in index else [(root, iter(graph[root]))]
        while work:
            name, successors = work[-1]
            if name not in index:
                index[name] = low[name] = len(index)
                open_.append(name)
                is_open.add(name)
            for other in successors:
                if other not in graph:
                    continue
                if other not in index:
                    work.append((other, iter(graph[other])))
                    break
                if other in is_open:
                    low[name] = min(low[name], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == index[name]:
                    at = len(open_) - 1
                    while open_[at] != name:
                        at -= 1
                    found.append(open_[at:])
                    is_open.difference_update(open_[at:])
                    del open_[at:]
    return found


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
