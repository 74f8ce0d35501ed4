"""Simulate a schedule on a model of a device: a discrete-event simulation, in microseconds.

The device has K streams, each in order, and three engines: the compute units and one copy engine
for each direction. A command waits for its stream, its predecessors, its launch, then works. An
event is added if a predecessor ran on another stream, and for the fork of a stream; streams fork
one after another. A command fills a share of its engine. While the active shares add up to at most
1, each command runs as if alone. Beyond that all slow down equally, so two commands that each fill
the device gain nothing from running concurrently. This is processor sharing. Every engine keeps a
virtual clock that runs at the common rate (as in fair queueing: Demers, Keshav and Shenker, SIGCOMM
1989), so one heap of virtual finishing times is enough and a simulation takes O((V + E) log V).

Deterministic. Left out: the host's time for issuing, caches, changing clocks.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

COMPUTE, TO_DEVICE, TO_HOST = range(3)
"""The engines."""

NEVER = float("inf")

Edges = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Tasks:
    """The commands of a simulation, by index, and their dependencies. Times are in microseconds.

    `time[c]` is the time of c alone after its launch, `share[c]` the part of `engine[c]` it fills
    (0 to 1). Every command adds `launch` on its stream, every dependency between streams adds
    `event`; the n-th stream after the first begins n · `fork` later. The indices are in a
    topological order.
    """

    time: Sequence[float]
    share: Sequence[float]
    engine: Sequence[int]
    launch: float
    event: float
    predecessors: tuple[tuple[int, ...], ...]
    successors: Edges
    fork: float = 0.0

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True)
class Timeline:
    """The start (launch included) and end of each command, and the makespan."""

    start: Sequence[float]
    end: Sequence[float]

    @property
    def makespan(self) -> float:
        """The end of the last command."""
        return max(self.end, default=0.0)


def successors_of(predecessors: Edges) -> list[list[int]]:
    """The reversed edges."""
    successors: list[list[int]] = [[] for _ in predecessors]
    for command, needs in enumerate(predecessors):
        for need in needs:
            successors[need].append(command)
    return successors


def upward_ranks(tasks: Tasks) -> list[float]:
    """The longest path from the start of each command to the end, with launches, without events."""
    ranks, launch, time = [0.0] * len(tasks), tasks.launch, tasks.time
    for command in range(len(tasks) - 1, -1, -1):
        longest = 0.0
        for successor in tasks.successors[command]:
            if ranks[successor] > longest:
                longest = ranks[successor]
        ranks[command] = launch + time[command] + longest
    return ranks


class Engine:
    """The active commands of one engine, under processor sharing.

    `ends` is the end of the next active command: infinity if there is none.
    """

    __slots__ = ("clock", "ends", "load", "now", "running")

    def __init__(self) -> None:
        self.clock = 0.0  # virtual µs: the work done by a command that is active since 0
        self.now = 0.0  # when `clock` was brought up to date
        self.load = 0.0  # sum of the active shares
        self.ends = NEVER
        self.running: list[tuple[float, int]] = []  # heap of (virtual finish, command)

    def begin(self, now: float, command: int, time: float, share: float) -> None:
        """Start `command`."""
        self.clock += (now - self.now) / (self.load if self.load > 1.0 else 1.0)
        self.now = now
        self.load += share
        heapq.heappush(self.running, (self.clock + time, command))
        self._look_ahead()

    def finish(self, share: Sequence[float]) -> tuple[float, int]:
        """End the next command; returns the time and the command."""
        now = self.ends
        finish, command = heapq.heappop(self.running)
        if finish > self.clock:
            self.clock = finish
        self.now = now
        if self.running:
            self.load -= share[command]
            self._look_ahead()
        else:  # drop accumulated rounding errors
            self.load, self.ends = 0.0, NEVER
        return now, command

    def _look_ahead(self) -> None:
        left = self.running[0][0] - self.clock
        if left < 0.0:
            left = 0.0
        self.ends = self.now + left * (self.load if self.load > 1.0 else 1.0)


def next_to_end(engines: tuple[Engine, Engine, Engine]) -> Engine:
    """The engine whose next command ends first; if its `ends` is NEVER, none is active."""
    first, second, third = engines
    found = first if first.ends <= second.ends else second
    return found if found.ends <= third.ends else third


def simulate(tasks: Tasks, order: Sequence[int], stream: Sequence[int]) -> Timeline:
    """Run the commands in issue order `order`, command c on stream `stream[c]`."""
    if not any(stream):
        return _one_after_another(tasks, order)
    following, missing = _stream_order(tasks, order, stream)
    place = [0] * len(tasks)
    for position, command in enumerate(order):
        place[command] = position
    ready, end = [0.0] * len(tasks), [0.0] * len(tasks)
    start = [0.0] * len(tasks)
    engines, launch, event = (Engine(), Engine(), Engine()), tasks.launch, tasks.event
    for number, command in enumerate(_forked(order, stream), 1):
        ready[command] = event + number * tasks.fork
    begins = [(ready[c] + launch, p) for p, c in enumerate(order) if not missing[c]]
    heapq.heapify(begins)
    while True:
        engine = next_to_end(engines)
        if begins and begins[0][0] < engine.ends:
            now, position = heapq.heappop(begins)
            command = order[position]
            start[command] = now - launch
            engines[tasks.engine[command]].begin(
                now, command, tasks.time[command], tasks.share[command]
            )
            continue
        if engine.ends == NEVER:
            return Timeline(start, end)
        now, command = engine.finish(tasks.share)
        end[command], own = now, stream[command]
        for successor in (*tasks.successors[command], following[command]):
            if successor < 0:
                continue
            at = now if stream[successor] == own else now + event
            if at > ready[successor]:
                ready[successor] = at
            missing[successor] -= 1
            if not missing[successor]:
                heapq.heappush(begins, (ready[successor] + launch, place[successor]))


def _one_after_another(tasks: Tasks, order: Sequence[int]) -> Timeline:
    """All on stream 0: nothing overlaps, so the times are sums."""
    start, end, now = [0.0] * len(tasks), [0.0] * len(tasks), 0.0
    for command in order:
        start[command] = now
        now += tasks.launch + tasks.time[command]
        end[command] = now
    return Timeline(start, end)


def _forked(order: Sequence[int], stream: Sequence[int]) -> list[int]:
    """The first command of each stream but the origin, which it forks from: an event."""
    first: dict[int, int] = {}
    for command in order:
        first.setdefault(stream[command], command)
    return list(first.values())[1:]


def _stream_order(
    tasks: Tasks, order: Sequence[int], stream: Sequence[int]
) -> tuple[list[int], list[int]]:
    """The next command on each command's stream (-1: none), and how many it has to wait for."""
    following = [-1] * len(tasks)
    missing = [len(needs) for needs in tasks.predecessors]
    last: dict[int, int] = {}
    for command in order:
        before = last.get(stream[command], -1)
        if before >= 0:
            following[before] = command
            missing[command] += 1
        last[stream[command]] = command
    return following, missing
