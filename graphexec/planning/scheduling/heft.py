"""Upward-rank list scheduling with insertion (HEFT).

Topcuoglu, Hariri and Wu, "Performance-effective and low-complexity task scheduling for
heterogeneous computing", IEEE TPDS 13(3), 2002. Commands come in descending order of the longest
path to the end. Each goes to the stream where it ends first, possibly into a gap between earlier
ones. Streams are the processors; an event replaces communication. Shared capacity is ignored here;
the simulator accounts for it.
"""

from __future__ import annotations

from bisect import bisect_right, insort

from graphexec.machine.simulate import Tasks
from graphexec.planning.scheduling.assignment import Assignment, available, by_rank

_Busy = list[tuple[float, float]]


def candidate(tasks: Tasks, streams: int) -> Assignment:
    """HEFT on `streams` streams; the issue order is that of the planned starts."""
    busy: list[_Busy] = [[] for _ in range(streams)]
    stream, start = [-1] * len(tasks), [0.0] * len(tasks)
    end = [0.0] * len(tasks)
    for command in by_rank(tasks):
        length = tasks.launch + tasks.time[command]
        near = {stream[need] for need in tasks.predecessors[command]}
        options = (
            (_slot(busy[s], available(tasks, command, s, stream, end), length), s not in near, s)
            for s in range(streams)
        )
        at, _, best = min(options)
        stream[command], start[command], end[command] = best, at, at + length
        insort(busy[best], (at, at + length))
    # A predecessor starts earlier, or at the same time if it takes none: then its index is lower.
    return Assignment(sorted(range(len(tasks)), key=lambda c: (start[c], c)), stream)


def _slot(busy: _Busy, ready: float, length: float) -> float:
    """The first time from `ready` on at which `length` fits between the busy intervals."""
    index = bisect_right(busy, (ready, float("inf")))
    at = max(ready, busy[index - 1][1]) if index else ready
    for low, high in busy[index:]:
        if at + length <= low:
            return at
        at = max(at, high)
    return at
