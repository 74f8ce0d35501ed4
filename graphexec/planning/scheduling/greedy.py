"""List scheduling inside the simulation: whenever a stream is free, the most urgent command.

Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17(2), 1969, with upward
ranks as priorities. Decisions are made during the simulation, so they know the shared capacity and
the copy engines. A copy is not issued while its engine is busy, so that it blocks no stream.
O((V + E) log V + V·K).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from random import Random

from graphexec.machine.simulate import COMPUTE, NEVER, Engine, Tasks, next_to_end, upward_ranks
from graphexec.planning.scheduling.assignment import Assignment, by_rank

_FULL = 1.0 + 1e-9


def candidate(tasks: Tasks, streams: int) -> Assignment:
    """Issue while a stream is free, however full the device is (this hides launches)."""
    return listed(tasks, streams, by_rank(tasks), patient=False)[0]


def patient(tasks: Tasks, streams: int) -> Assignment:
    """Issue only commands that the device has room for; others may overtake the rest."""
    return listed(tasks, streams, by_rank(tasks), patient=True)[0]


def depth_first(tasks: Tasks, streams: int) -> Assignment:
    """The program's own order: equal branches get out of step, so their phases overlap."""
    return listed(tasks, streams, range(len(tasks)), patient=True)[0]


def shaken(tasks: Tasks, streams: int, seed: int) -> Assignment:
    """With ranks that are wrong by up to 20 %, drawn from `seed`; odd seeds are patient.

    Starting points for the better of several tries, as in Feo and Resende, "Greedy randomized
    adaptive search procedures", J. Global Optimization 6, 1995.
    """
    random = Random(seed)
    ranks = [rank * (1 + random.uniform(-0.2, 0.2)) for rank in upward_ranks(tasks)]
    urgency = sorted(range(len(tasks)), key=lambda c: (-ranks[c], c))
    return listed(tasks, streams, urgency, patient=bool(seed % 2))[0]


def listed(
    tasks: Tasks, streams: int, urgency: Sequence[int], patient: bool
) -> tuple[Assignment, Sequence[float]]:
    """With the given priorities, the most urgent first; and when each command ends."""
    run = _Run(tasks, streams, urgency, patient)
    return run.assignment(), run.end


class _Run:
    """A simulation that decides the schedule while it runs."""

    def __init__(self, tasks: Tasks, streams: int, urgency: Sequence[int], patient: bool) -> None:
        self.tasks, self.patient = tasks, patient
        self.engines = (Engine(), Engine(), Engine())
        self.issued_share = [0.0, 0.0, 0.0]
        self.stream, self.end = [-1] * len(tasks), [0.0] * len(tasks)
        self.idle = dict.fromkeys(range(streams))  # longest idle first
        self.last = [-1] * streams
        self.order: list[int] = []
        self.begins: list[tuple[float, int]] = []
        self.by_urgency = urgency
        self.place = [0] * len(tasks)
        for place, command in enumerate(urgency):
            self.place[command] = place
        # Ready commands by engine: a full engine blocks only its own commands.
        self.ready: list[list[int]] = [[], [], []]

    def assignment(self) -> Assignment:
        tasks, ready, place = self.tasks, self.ready, self.place
        missing = [len(needs) for needs in tasks.predecessors]
        for command, count in enumerate(missing):
            if not count:
                heapq.heappush(ready[tasks.engine[command]], place[command])
        self.issue(0.0)
        while True:
            engine = next_to_end(self.engines)
            if self.begins and self.begins[0][0] < engine.ends:
                now, command = heapq.heappop(self.begins)
                self.engines[tasks.engine[command]].begin(
                    now, command, tasks.time[command], tasks.share[command]
                )
                continue
            if engine.ends == NEVER:
                return Assignment(self.order, self.stream)
            now, command = engine.finish(tasks.share)
            self.end[command] = now
            self.idle[self.stream[command]] = None
            self.issued_share[tasks.engine[command]] -= tasks.share[command]
            for successor in tasks.successors[command]:
                missing[successor] -= 1
                if not missing[successor]:
                    heapq.heappush(ready[tasks.engine[successor]], place[successor])
            self.issue(now)

    def issue(self, now: float) -> None:
        """Give commands to idle streams, the most urgent first, as far as there is room."""
        while self.idle:
            places = [
                queue[0] for engine, queue in enumerate(self.ready) if queue and self.room(engine)
            ]
            if not places:
                return
            command = self.by_urgency[min(places)]
            heapq.heappop(self.ready[self.tasks.engine[command]])
            self.start(command, now)

    def room(self, engine: int) -> bool:
        load = self.issued_share[engine]
        if engine != COMPUTE:
            return load < 0.5
        if not self.patient or load < 1e-9:
            return True
        command = self.by_urgency[self.ready[engine][0]]
        return load + self.tasks.share[command] <= _FULL

    def start(self, command: int, now: float) -> None:
        tasks, stream = self.tasks, self.stream
        own = self.choose(command)
        del self.idle[own]
        ready = now
        if self.last[own] < 0 and self.order:  # it forks from the first one used
            ready = max(now, tasks.event)
        for need in tasks.predecessors[command]:
            if stream[need] != own:
                ready = max(ready, self.end[need] + tasks.event)
        stream[command], self.last[own] = own, command
        self.order.append(command)
        self.issued_share[tasks.engine[command]] += tasks.share[command]
        heapq.heappush(self.begins, (ready + tasks.launch, command))

    def choose(self, command: int) -> int:
        """The idle stream of the predecessor that ended last, which needs no event; else the stream
        idle longest, whose last command most likely has no other successor."""
        found, latest = -1, -1.0
        for need in self.tasks.predecessors[command]:
            own = self.stream[need]
            if self.end[need] > latest and self.last[own] == need and own in self.idle:
                found, latest = own, self.end[need]
        return found if found >= 0 else next(iter(self.idle))
