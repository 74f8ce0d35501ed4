"""synchronize: the fewest waits that keep every dependency, for a given order and streams.

Requires a Schedule. Guarantees that each predecessor of a command happens before it, that every
stream forks from and joins stream 0, and that the dependency waits are exactly the cross-stream
edges of the transitive reduction of R = dependencies ∪ stream order. The reduction of a DAG is
unique and contained in every set of edges with the same closure (Aho, Garey and Ullman, "The
transitive reduction of a directed graph", SIAM J. Comput. 1(2), 1972), so no smaller set of
waits does.

One walk in issue order with a vector clock of K counters a command, O(E·K):

1. of the predecessors on another stream only the latest counts;
2. a predecessor that happens before the previous command of the own stream is dropped;
3. a predecessor that happens before another kept predecessor is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphexec.ir.plan import HostWait, Record, Wait
from graphexec.planning.scheduled import Schedule, Step, Synchronized

Clock = list[int]


def synchronize(schedule: Schedule) -> Synchronized:
    """Add the records and waits to `schedule`."""
    streams, count = schedule.streams, len(schedule.order)
    before: list[Sequence[int]] = [()] * count
    position = [0] * count
    waits_of: list[Sequence[int]] = [()] * count
    last: list[int | None] = [None] * streams
    issued = [0] * streams
    crossing = 0
    for command in schedule.order:
        own = schedule.stream[command]
        clock = _after(last[own], before, position, schedule.stream, streams)
        foreign = [p for p in schedule.predecessors[command] if schedule.stream[p] != own]
        crossing += len(foreign)
        kept = _needed(foreign, clock, before, position, schedule.stream)
        for p in kept:
            _merge(clock, before[p], schedule.stream[p], position[p])
        before[command], position[command], waits_of[command] = clock, issued[own], kept
        issued[own] += 1
        last[own] = command
    ends = [c for c in last[1:] if c is not None]
    origin = _after(last[0], before, position, schedule.stream, streams)
    joined = _needed(ends, origin, before, position, schedule.stream)
    steps = _steps(schedule, waits_of, joined)
    return Synchronized(
        schedule, tuple(steps), tuple(map(tuple, before)), tuple(position), crossing
    )


def _after(
    command: int | None, before: Sequence[Sequence[int]], position: Sequence[int],
    stream: Sequence[int], streams: int,
) -> Clock:  # fmt: skip
    """The clock of the next command on the stream of `command`."""
    if command is None:
        return [0] * streams
    clock = list(before[command])
    clock[stream[command]] = position[command] + 1
    return clock


def _merge(clock: Clock, other: Sequence[int], stream: int, position: int) -> None:
    for s, count in enumerate(other):
        if count > clock[s]:
            clock[s] = count
    clock[stream] = max(clock[stream], position + 1)


def _needed(
    candidates: Iterable[int], clock: Clock, before: Sequence[Sequence[int]],
    position: Sequence[int], stream: Sequence[int],
) -> list[int]:  # fmt: skip
    """Those of `candidates` to wait for, given what `clock` already covers."""
    latest: dict[int, int] = {}
    for c in candidates:
        s = stream[c]
        if position[c] >= clock[s] and (s not in latest or position[c] > position[latest[s]]):
            latest[s] = c
    kept = latest.values()
    return [
        c for c in kept
        if not any(before[other][stream[c]] > position[c] for other in kept if other != c)
    ]  # fmt: skip


def _steps(
    schedule: Schedule, waits_of: Sequence[Sequence[int]], joined: Sequence[int]
) -> list[Step]:
    """The issue order with events, numbered by the order of their records."""
    recorded = {p for waits in waits_of for p in waits} | set(joined)
    steps: list[Step] = []
    event_of: dict[int, int] = {}
    begun = {0}
    first: dict[int, int] = {}
    for command in schedule.order:
        first.setdefault(schedule.stream[command], command)
    forked = [s for s, command in first.items() if s != 0 and not waits_of[command]]
    events = 0
    if forked:
        steps.append(Record(0, events))
        events += 1
    for command in schedule.order:
        own = schedule.stream[command]
        if own not in begun and own in forked:
            steps.append(Wait(own, 0, "fork"))
        begun.add(own)
        steps += [Wait(own, event_of[p], "dependency") for p in waits_of[command]]
        steps.append(command)
        if command in recorded:
            event_of[command] = events
            steps.append(Record(own, events))
            events += 1
    steps += [Wait(0, event_of[command], "join") for command in joined]
    return [*steps, Record(0, events), HostWait(events)]
