"""An order of the commands in which many of one kind are ready at the same time.

The agenda of Neubig, Goldberg and Dyer, "On-the-fly operation batching in dynamic computation
graphs", NeurIPS 2017. A command is ready when all its dependencies are done. Of all kinds with a
ready command, the kind whose commands have the least average depth comes next, with all its ready
commands. These are independent. The lists respect every dependency, so merging any of them makes
no cycle. O(E + V log V).
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence

from graphexec.machine.simulate import Edges, successors_of


def agenda(kinds: Sequence[Hashable], needs: Edges) -> list[list[int]]:
    """All commands in lists of independent ones of a kind, each after its dependencies.

    A command of the kind None is alone in its list. Deterministic.
    """
    return _Agenda(kinds, needs).run()


class _Agenda:
    def __init__(self, kinds: Sequence[Hashable], needs: Edges) -> None:
        self.kinds, self.needs = _numbered(kinds), needs
        self.depth = _mean_depths(self.kinds, needs)
        self.single: list[int] = []
        self.ready: dict[int, list[int]] = {}
        self.queue: list[tuple[float, int]] = []

    def run(self) -> list[list[int]]:
        successors = successors_of(self.needs)
        missing = [len(need) for need in self.needs]
        done: list[list[int]] = []
        for command, count in enumerate(missing):
            if not count:
                self.put(command)
        while self.single or self.queue:
            alike = [heapq.heappop(self.single)] if self.single else self.take()
            done.append(alike)
            for command in alike:
                for successor in successors[command]:
                    missing[successor] -= 1
                    if not missing[successor]:
                        self.put(successor)
        return done

    def put(self, command: int) -> None:
        """Add a ready command. A command alone in its kind goes first: it delays no other."""
        kind = self.kinds[command]
        if kind < 0:
            heapq.heappush(self.single, command)
            return
        if kind not in self.ready:
            self.ready[kind] = []
            heapq.heappush(self.queue, (self.depth[kind], kind))
        self.ready[kind].append(command)

    def take(self) -> list[int]:
        kind = heapq.heappop(self.queue)[1]
        return sorted(self.ready.pop(kind))


def _numbered(kinds: Sequence[Hashable]) -> list[int]:
    """Kinds as numbers, -1 for those with one command only."""
    members: dict[Hashable, list[int]] = {}
    for command, kind in enumerate(kinds):
        if kind is not None:
            members.setdefault(kind, []).append(command)
    numbers = [-1] * len(kinds)
    for number, commands in enumerate(members.values()):
        if len(commands) > 1:
            for command in commands:
                numbers[command] = number
    return numbers


def _mean_depths(kinds: Sequence[int], needs: Edges) -> dict[int, float]:
    """The average depth (commands before it on the longest path) of each kind."""
    depth = [0] * len(kinds)
    total: dict[int, int] = {}
    count: dict[int, int] = {}
    for command, kind in enumerate(kinds):
        depth[command] = max((depth[need] + 1 for need in needs[command]), default=0)
        total[kind] = total.get(kind, 0) + depth[command]
        count[kind] = count.get(kind, 0) + 1
    return {kind: total[kind] / count[kind] for kind in total}
