"""Chains from a maximum matching, folded to K streams.

Kwon, Yu, Jeong and Chun, "Nimble: lightweight and parallel GPU task scheduling for deep learning",
NeurIPS 2020: take the transitive reduction, match commands with successors (each has at most one
partner on either side), and put matched ones on one stream. On unlimited streams that gives maximum
logical concurrency with the fewest events. The matching is found by Hopcroft and Karp, "An n^5/2
algorithm for maximum matchings in bipartite graphs", SIAM J. Comput. 2(4), 1973.
"""

from __future__ import annotations

from collections import deque

from graphexec.machine.simulate import Edges, Tasks
from graphexec.planning.scheduling.assignment import Assignment, folded


def candidate(tasks: Tasks, streams: int) -> Assignment:
    """The chains of a maximum matching on `streams` streams."""
    partner = maximum_matching(transitive_reduction(tasks.successors))
    matched = set(partner)
    chains = []
    for first in range(len(tasks)):
        if first in matched:
            continue
        chain = [first]
        while partner[chain[-1]] >= 0:
            chain.append(partner[chain[-1]])
        chains.append(chain)
    return folded(tasks, chains, streams)


def transitive_reduction(successors: Edges) -> list[list[int]]:
    """The transitive reduction. Indices are in a topological order. Sets of commands are bits of
    integers: O(V·E ÷ 64)."""
    reach = [0] * len(successors)
    reduced: list[list[int]] = [[] for _ in successors]
    for command in range(len(successors) - 1, -1, -1):
        seen = 0
        # An edge to what a nearer successor reaches is redundant; nearer ones come first.
        for successor in sorted(set(successors[command])):
            if not seen >> successor & 1:
                reduced[command].append(successor)
                seen |= reach[successor] | 1 << successor
        reach[command] = seen
    return reduced


def maximum_matching(edges: Edges) -> list[int]:
    """The right partner of each left vertex in a maximum matching, or -1."""
    left, right = [-1] * len(edges), [-1] * len(edges)
    while True:
        depth = _layers(edges, left, right)
        roots = [root for root in range(len(edges)) if left[root] < 0 and edges[root]]
        if not sum(_augment(root, edges, left, right, depth) for root in roots):
            return left


def _layers(edges: Edges, left: list[int], right: list[int]) -> list[int]:
    """Breadth-first depth of left vertices over alternating paths from the unmatched ones."""
    depth = [0 if partner < 0 else -1 for partner in left]
    queue = deque(v for v, partner in enumerate(left) if partner < 0)
    while queue:
        vertex = queue.popleft()
        for other in edges[vertex]:
            back = right[other]
            if back >= 0 and depth[back] < 0:
                depth[back] = depth[vertex] + 1
                queue.append(back)
    return depth


def _augment(root: int, edges: Edges, left: list[int], right: list[int], depth: list[int]) -> bool:
    """Find an alternating path from `root` that respects the layers, and flip it."""
    path, tries = [root], [iter(edges[root])]
    chosen: list[int] = []
    while path:
        for other in tries[-1]:
            back = right[other]
            if back < 0 or depth[back] == depth[path[-1]] + 1:
                break
        else:
            depth[path.pop()] = -2  # a dead end for every later path
            tries.pop()
            chosen[-1:] = []
            continue
        chosen.append(other)
        if back < 0:
            for vertex, partner in zip(path, chosen, strict=True):
                left[vertex], right[partner] = partner, vertex
            return True
        path.append(back)
        tries.append(iter(edges[back]))
    return False
