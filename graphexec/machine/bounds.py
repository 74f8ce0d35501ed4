"""Lower bounds of the makespan of any schedule, in microseconds.

The plain bounds: the longest path, without any event; the work of the compute units at full
capacity; the copies of the busier direction; all commands one after another, divided by K streams.

The combined bound: of any set of commands that share a resource, the first cannot start before the
least head (time from the start) among them, the resource then needs its work for all of them, and
after the last at least the least tail follows (Carlier, "The one-machine sequencing problem",
EJOR 11, 1982). It is enough to consider the sets of all commands with at least a given head and at
least a given tail. Heads follow from the same argument for the direct predecessors of each command
and for all of its predecessors, and from the events that a join needs; tails likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphexec.machine.simulate import COMPUTE, TO_DEVICE, TO_HOST, Edges, Tasks, upward_ranks

_COMBINED_UP_TO = 500  # commands; beyond this only the plain bounds are computed
_MOST_NEEDS = 6  # predecessors of a command that are considered, the last to end


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
        """The highest bound that does not depend on the number of streams."""
        return max(self.critical_path, self.capacity, self.copies)

    @property
    def best(self) -> float:
        """The highest bound."""
        return max(self.plain, self.streams, self.combined)

    @property
    def reason(self) -> str:
        """The name of the highest plain bound."""
        named = {
            "the critical path": self.critical_path,
            "the capacity of the device": self.capacity,
            "the copies": self.copies,
            "the number of streams": self.streams,
        }
        return max(named, key=lambda name: named[name])


def bounds(tasks: Tasks, streams: int) -> Bounds:
    """Lower bounds of the makespan on `streams` streams."""
    work = [0.0, 0.0, 0.0]
    for time, share, engine in zip(tasks.time, tasks.share, tasks.engine, strict=True):
        work[engine] += time * share
    launched = [tasks.launch + w if w else 0.0 for w in work]  # the launch comes before the work
    alone = sum(tasks.time) + tasks.launch * len(tasks)
    return Bounds(
        max(upward_ranks(tasks), default=0.0), launched[COMPUTE],
        max(launched[TO_DEVICE], launched[TO_HOST]), alone / max(1, streams),
        _combined(tasks, streams) if 0 < len(tasks) <= _COMBINED_UP_TO else 0.0,
    )  # fmt: skip


def _combined(tasks: Tasks, streams: int) -> float:
    count = len(tasks)
    heads = _distances(tasks, range(count), tasks.predecessors, streams)
    tails = _distances(tasks, range(count - 1, -1, -1), tasks.successors, streams)
    length = [tasks.launch + time for time in tasks.time]
    best = max(h + w + t for h, w, t in zip(heads, length, tails, strict=True))
    return max(best, _over_sets(tasks, heads, tails, streams))


def _over_sets(tasks: Tasks, heads: Sequence[float], tails: Sequence[float], streams: int) -> float:
    """The highest bound over every set "head at least h and tail at least t", for each resource."""
    import numpy as np

    by_head = np.argsort(-np.array(heads), kind="stable")
    head, tail = np.array(heads)[by_head], np.array(tails)[by_head]
    least = np.unique(tail)
    inside = tail[:, None] >= least[None, :]  # row r, column t: is command r in sets of least[t]?
    begin, rest = head[:, None], least[None, :]
    time, engine = np.array(tasks.time)[by_head], np.array(tasks.engine)[by_head]
    work = time * np.array(tasks.share)[by_head]
    alone = ((time + tasks.launch) / streams)[:, None]
    best = float(np.max(begin + np.cumsum(inside * alone, axis=0) + rest, where=inside, initial=0))
    for kind in (COMPUTE, TO_DEVICE, TO_HOST):
        members = inside & (engine == kind)[:, None]
        total = np.cumsum(members * work[:, None], axis=0)
        found = begin + tasks.launch + total + rest
        best = max(best, float(np.max(found, where=members, initial=0)))
    return best


def _distances(tasks: Tasks, order: Sequence[int], needs: Edges, streams: int) -> Sequence[float]:
    """The least time from the start to the begin of each command, if it needs `needs`; with
    reversed edges, from its end to the end of the run."""
    found = [0.0] * len(tasks)
    all_needed = _work_before(tasks, order, needs, streams)
    first = [[float("inf")] * 3 for _ in order]  # begin of the first that is needed, by engine
    least = tasks.launch + min(tasks.time)
    for command in order:
        if not needs[command]:
            continue
        for need in needs[command]:
            first[command] = [min(p) for p in zip(first[command], first[need], strict=True)]
            engine = tasks.engine[need]
            first[command][engine] = min(first[command][engine], found[need])
        found[command] = max(
            _after_all(tasks, needs[command], found, streams),
            _after_fork(tasks, needs[command], needs, found, least),
        )
        *work, alone = all_needed[command]
        begins = [f + tasks.launch + w for f, w in zip(first[command], work, strict=True) if w]
        found[command] = max(found[command], alone, *begins)
    return found


def _work_before(
    tasks: Tasks, order: Sequence[int], needs: Edges, streams: int
) -> list[list[float]]:
    """For all predecessors of each command, direct or not: the work on each engine, and the time
    on K streams."""
    import numpy as np

    count = len(tasks)
    needed = np.zeros((count, count), dtype=bool)
    for command in order:
        for need in needs[command]:
            needed[command] |= needed[need]
            needed[command, need] = True
    amounts = np.zeros((count, 4))
    work = np.array(tasks.time) * np.array(tasks.share)
    amounts[np.arange(count), np.array(tasks.engine)] = work
    amounts[:, 3] = (np.array(tasks.time) + tasks.launch) / streams
    found: list[list[float]] = (needed @ amounts).tolist()
    return found


def _after_all(tasks: Tasks, needs: Sequence[int], begin: Sequence[float], streams: int) -> float:
    """The earliest end of all of `needs`, if each begins no sooner than `begin`."""
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


def _after_fork(
    tasks: Tasks, all_needs: Sequence[int], needs: Edges, begin: Sequence[float], least: float
) -> float:
    """The earliest end of all of `all_needs`. If they fork from one command, only one of them can
    directly follow it on its stream. Each other one waits for an event, or comes after another
    command, which takes `least` or more."""
    length = [tasks.launch + tasks.time[need] for need in all_needs]
    latest = sorted(range(len(all_needs)), key=lambda i: begin[all_needs[i]] + length[i])
    kept = [all_needs[i] for i in latest[-_MOST_NEEDS:]]
    begins = [begin[need] for need in kept]
    common = set(needs[kept[0]]).intersection(*(needs[need] for need in kept[1:]))
    if (
        not common or len(kept) < 3
    ):  # of two, one may follow the fork and the other precede the join
        return _after_events(tasks, kept, begins)
    forked = max(begin[c] + tasks.launch + tasks.time[c] for c in common)
    later = [max(at, forked + min(tasks.event, least)) for at in begins]
    return min(
        _after_events(tasks, kept, [*later[:own], begins[own], *later[own + 1 :]])
        for own in range(len(kept))
    )


def _after_events(tasks: Tasks, needs: Sequence[int], begins: Sequence[float]) -> float:
    """The same for `needs` that begin no sooner than `begins`. Only one of them can directly
    precede the command on its stream. Each other one comes before it on that stream, or needs an
    event."""
    length = [tasks.launch + tasks.time[need] for need in needs]
    ends = [at + wait for at, wait in zip(begins, length, strict=True)]
    earliest = max(ends) + tasks.event
    for own, end in enumerate(ends):
        latest = end
        for other in range(len(needs)):
            if other != own:
                turns = min(begins[other], begins[own]) + length[other] + length[own]
                latest = max(latest, min(ends[other] + tasks.event, turns))
        earliest = min(earliest, latest)
    return earliest
