"""What no schedule can beat: lower bounds of the makespan, in microseconds.

The plain ones: the longest path, without any event; the work of the compute units at full capacity;
the copies of the busier direction; what K streams have to get through one after another.

The combined one puts them together. Of any set of commands that share a resource, the first
cannot start before the least head (time from the start) among them, the resource then needs its work
for all of them, and after the last at least the least tail is still to come (the argument of Carlier,
"The one-machine sequencing problem", EJOR 11, 1982). Heads and tails come from the same argument
applied to the predecessors, or successors, of each command.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphexec.simulate import COMPUTE, TO_DEVICE, TO_HOST, Edges, Tasks, upward_ranks

_COMBINED_UP_TO = 20_000  # commands; beyond this the plain bounds have to do


@dataclass(frozen=True)
class Bounds:
    """Lower bounds of the makespan; see the module."""

    critical_path: float
    capacity: float
    copies: float
    streams: float
    combined: float

    @property
    def plain(self) -> float:
        """The highest of those that know no number of streams."""
        return max(self.critical_path, self.capacity, self.copies)

    @property
    def best(self) -> float:
        """The highest of all."""
        return max(self.plain, self.streams, self.combined)

    @property
    def reason(self) -> str:
        """What the highest plain bound is."""
        named = {"the critical path": self.critical_path, "the capacity of the device": self.capacity,
                 "the copies": self.copies, "the number of streams": self.streams}  # fmt: skip
        return max(named, key=lambda name: named[name])


def bounds(tasks: Tasks, streams: int) -> Bounds:
    """Lower bounds of the makespan on `streams` streams."""
    work = [0.0, 0.0, 0.0]
    for time, share, engine in zip(tasks.time, tasks.share, tasks.engine, strict=True):
        work[engine] += time * share
    launched = [tasks.launch + w if w else 0.0 for w in work]  # nothing works before its launch
    alone = sum(tasks.time) + tasks.launch * len(tasks)
    return Bounds(
        max(upward_ranks(tasks), default=0.0), launched[COMPUTE],
        max(launched[TO_DEVICE], launched[TO_HOST]), alone / max(1, streams),
        _combined(tasks, streams) if 0 < len(tasks) <= _COMBINED_UP_TO else 0.0,
    )  # fmt: skip


def _combined(tasks: Tasks, streams: int) -> float:
    forward, backward = range(len(tasks)), range(len(tasks) - 1, -1, -1)
    heads = _distances(tasks, forward, tasks.predecessors, streams)
    tails = _distances(tasks, backward, tasks.successors, streams)
    length = [tasks.launch + time for time in tasks.time]
    best = max(h + w + t for h, w, t in zip(heads, length, tails, strict=True))
    # From the latest head down: the set of all commands with at least that head.
    order = sorted(forward, key=lambda c: -heads[c])
    work, least = [0.0, 0.0, 0.0], [float("inf")] * 3
    total, least_of_all = 0.0, float("inf")
    for command in order:
        engine = tasks.engine[command]
        work[engine] += tasks.time[command] * tasks.share[command]
        least[engine] = min(least[engine], tails[command])
        total += length[command]
        least_of_all = min(least_of_all, tails[command])
        on_engine = tasks.launch + work[engine] + least[engine]
        best = max(best, heads[command] + max(on_engine, total / streams + least_of_all))
    return best


def _distances(tasks: Tasks, order: Iterable[int], needs: Edges, streams: int) -> Sequence[float]:
    """How long after the start each command can begin at the earliest, if it needs `needs`; the
    other way round, how long before the end it must be done."""
    found, launch = [0.0] * len(tasks), tasks.launch
    for command in order:
        near = needs[command]
        if len(near) == 1:
            found[command] = found[near[0]] + launch + tasks.time[near[0]]
        elif near:
            found[command] = _after_all(tasks, near, found, streams)
    return found


def _after_all(
    tasks: Tasks, needs: Sequence[int], begin: Sequence[float], streams: int
) -> float:
    """When all of `needs` can be done at the earliest, each beginning no sooner than `begin`."""
    latest, total, launch = 0.0, 0.0, tasks.launch
    work = [0.0, 0.0, 0.0]
    for need in sorted(needs, key=lambda c: -begin[c]):
        engine, time = tasks.engine[need], tasks.time[need]
        work[engine] += time * tasks.share[need]
        total += launch + time
        latest = max(
            latest, begin[need] + launch + max(time, work[engine]), begin[need] + total / streams
        )
    return latest


__all__ = ["Bounds", "bounds"]
