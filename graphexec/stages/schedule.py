"""schedule: an issue order and a stream for each command.

Requires a Program. Guarantees that the order is topological and uses at most K streams,
numbered by first use. Deterministic.

List scheduling by upward rank, the longest way from a command to the end (Topcuoglu, Hariri and
Wu, "Performance-effective and low-complexity task scheduling for heterogeneous computing",
IEEE TPDS 13(3), 2002): of the commands that are ready the one with the highest rank goes to the
stream where it would start first; among equals to the stream of the predecessor that finishes
last, which needs no event.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from graphexec.command import Program
from graphexec.costs import CostModel
from graphexec.scheduled import Schedule, dependencies

Edges = Sequence[Sequence[int]]


def schedule(program: Program, streams: int, costs: CostModel) -> Schedule:
    """Order the commands of `program` on at most `streams` streams."""
    predecessors = dependencies(program.commands)
    successors: list[list[int]] = [[] for _ in predecessors]
    for command, needs in enumerate(predecessors):
        for need in needs:
            successors[need].append(command)
    times = [costs.microseconds(c) for c in program.commands]
    ranks = _upward_ranks(times, successors)
    order, stream = _assign(predecessors, successors, times, ranks, streams, costs.wait)
    return Schedule(program, predecessors, tuple(order), tuple(_by_first_use(order, stream)))


def _upward_ranks(times: Sequence[float], successors: Edges) -> list[float]:
    # Commands come in a topological order, so one pass from the end suffices.
    ranks = [0.0] * len(times)
    for command in reversed(range(len(times))):
        ranks[command] = times[command] + max((ranks[s] for s in successors[command]), default=0.0)
    return ranks


def _assign(
    predecessors: Edges, successors: Edges, times: Sequence[float], ranks: Sequence[float],
    streams: int, wait: float,
) -> tuple[list[int], list[int]]:  # fmt: skip
    missing = [len(p) for p in predecessors]
    ready = [(-ranks[c], c) for c, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    free, last = [0.0] * streams, [-1] * streams
    stream, finish, order = [0] * len(times), [0.0] * len(times), []
    while ready:
        _, command = heapq.heappop(ready)
        best = min(
            range(streams),
            key=lambda s: _start(command, s, predecessors, stream, finish, free, last, wait),
        )
        start = _start(command, best, predecessors, stream, finish, free, last, wait)[0]
        stream[command], last[best] = best, command
        finish[command] = free[best] = start + times[command]
        order.append(command)
        for successor in successors[command]:
            missing[successor] -= 1
            if missing[successor] == 0:
                heapq.heappush(ready, (-ranks[successor], successor))
    return order, stream


def _start(
    command: int, s: int, predecessors: Edges, stream: list[int], finish: list[float],
    free: list[float], last: list[int], wait: float,
) -> tuple[float, int, float]:  # fmt: skip
    """When `command` would start on stream s; then tie-breakers: follow the latest predecessor
    directly, otherwise take the stream that is idle longest."""
    start, latest = free[s], -1
    if s > 0 and last[s] < 0:
        start += wait  # a stream in use for the first time forks from stream 0
    for need in predecessors[command]:
        start = max(start, finish[need] + (wait if stream[need] != s else 0.0))
        if latest < 0 or finish[need] > finish[latest]:
            latest = need
    return start, 0 if latest >= 0 and last[s] == latest else 1, free[s]


def _by_first_use(order: Sequence[int], stream: Sequence[int]) -> list[int]:
    names: dict[int, int] = {}
    for command in order:
        names.setdefault(stream[command], len(names))
    return [names[s] for s in stream]
