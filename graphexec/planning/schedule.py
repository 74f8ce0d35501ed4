"""schedule: an issue order and a stream for each command.

Requires a Program and a cost model. Guarantees that the order is topological and uses at most K
streams, numbered by first use. Deterministic: same program, same costs, same schedule.

A portfolio (graphexec.planning.scheduling): every candidate is simulated. The shortest makespan
wins; among equal ones, the fewest dependencies between streams. A search within a budget improves
the winner: greedy with perturbed priorities, justification, and moves between streams. One stream
is always a candidate, so by prediction no schedule is slower than one stream. If a further stream
must save a part of the time (CostModel.gain, as on the CPU), portfolios for fewer streams come
first, so at most N streams are never slower than at most N - 1. Large programs get fewer
candidates:

1. up to 6 commands: every schedule is tried, so there is nothing to search;
2. up to 500: all candidates, then the search;
3. above: greedy list scheduling and one stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from typing import Literal

from graphexec.ir.program import Program
from graphexec.machine.bounds import bounds
from graphexec.machine.costs import CostModel, tasks_of
from graphexec.machine.simulate import NEVER, Tasks, Timeline, simulate
from graphexec.planning.scheduled import Prediction, Schedule
from graphexec.planning.scheduling import (
    ONE_STREAM,
    chains,
    exhaustive,
    frugal,
    greedy,
    heft,
    one_stream,
    paths,
)
from graphexec.planning.scheduling.assignment import Assignment
from graphexec.planning.scheduling.justify import Justifier
from graphexec.planning.scheduling.local_search import improve

Candidate = Callable[[Tasks, int], Assignment]

CANDIDATES: dict[str, Candidate] = {
    ONE_STREAM: one_stream.candidate,
    "greedy": greedy.candidate,
    "patient greedy": greedy.patient,
    "depth first": greedy.depth_first,
    "heft": heft.candidate,
    "chains": chains.candidate,
    "paths": paths.candidate,
}
"""The candidates by name; ties go to the first."""

AUTO_STREAMS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_ALL_UP_TO = 500
_BUDGET = 8000  # commands to simulate in the search ...
_MOST_TRIES = 400  # ... and schedules
_MOST_SHAKEN = 24
_NEAR = 1.01  # of the bound: the search ends there
_STARTS = 3  # candidates that are justified, the best ones
_PARTS = (4, 3, 2)  # quarters of the streams
_EQUAL = 1e-9  # relative difference of makespans below which they are equal
_AUTO_GAIN = 0.99  # what a further stream must bring


def schedule(
    program: Program, streams: int | Literal["auto"], costs: CostModel, prefer: str = ""
) -> Schedule:
    """Order the commands of `program` on at most `streams` streams ("auto": as many as pay).

    `prefer` is the name of a candidate that is taken, if it exists, without comparing makespans.
    """
    if prefer:
        (found,) = alternatives(program, streams, costs, 1, prefer)
        if found.prediction is not None and found.prediction.candidate == prefer:
            return found
    best = _best(program, streams, costs)
    most = best.streams if streams == "auto" else streams
    return _scheduled(program, best.tasks, best.name, best.best, best.timeline, most, costs)


def alternatives(
    program: Program, streams: int | Literal["auto"], costs: CostModel, most: int, first: str = ""
) -> list[Schedule]:
    """Up to `most` different schedules, the best by simulation first, but before it the one
    called `first`."""
    if streams == "auto":
        found = _fewest(program, _tries(program), costs, _AUTO_GAIN)
    else:
        found = _Portfolio(tasks_of(program, costs, streams), streams)
    tried = found.tried | {found.name: (found.best, found.timeline)}
    schedules: dict[object, Schedule] = {}
    for name in sorted(tried, key=lambda n: (n != first, n != found.name, tried[n][1].makespan)):
        made = _scheduled(program, found.tasks, name, *tried[name], found.streams, costs)
        schedules.setdefault((made.order, made.stream), made)
        if len(schedules) == most:
            break
    return list(schedules.values())


def schedule_frugally(program: Program, costs: CostModel) -> Schedule:
    """Order the commands on one stream so that few bytes live at a time, whatever it costs."""
    tasks = tasks_of(program, costs)
    name, found = "frugal", one_stream.candidate(tasks, 1)
    if len(tasks) <= frugal.MOST:
        found = frugal.candidate(program, tasks)
    timeline = simulate(tasks, found.order, found.stream)
    return _scheduled(program, tasks, name, found, timeline, 1, costs)


def _scheduled(
    program: Program, tasks: Tasks, name: str, found: Assignment, timeline: Timeline,
    streams: int, costs: CostModel,
) -> Schedule:  # fmt: skip
    stream = _by_first_use(found.order, found.stream)
    low = bounds(tasks, streams)
    alone = tasks_of(program, costs)
    one = sum(alone.time) + alone.launch * len(alone)
    prediction = Prediction(name, costs.name, timeline, low, tasks, costs.start, one)
    return Schedule(program, tasks.predecessors, tuple(found.order), tuple(stream), prediction)


class _Portfolio:
    """The best schedule of the candidates on `streams` streams."""

    def __init__(self, tasks: Tasks, streams: int) -> None:
        self.tasks, self.streams = tasks, streams
        self.goal = bounds(tasks, streams).best * (1 + 1e-9)
        self.name, self.best, self.timeline = "", Assignment((), ()), Timeline((), ())
        self._crossings = 0
        self.tried: dict[str, tuple[Assignment, Timeline]] = {}  # the best of each name
        starts = []
        for name, assignment in self._candidates():
            starts.append(self._judge(name, assignment))
            good = self.timeline.makespan <= self.goal
            if good and (not self._crossings or name == "exhaustive"):
                return
        if exhaustive.MOST < len(tasks) <= _ALL_UP_TO and streams > 1:
            self._search(starts)

    def _candidates(self) -> Iterator[tuple[str, Assignment]]:
        tasks, streams = self.tasks, self.streams
        for name in _names(len(tasks), streams):
            yield name, CANDIDATES[name](tasks, streams)
        if len(tasks) <= exhaustive.MOST and streams > 1:
            for assignment in exhaustive.candidates(tasks, streams):
                yield "exhaustive", assignment

    def _judge(self, name: str, assignment: Assignment) -> Timeline:
        timeline = simulate(self.tasks, assignment.order, assignment.stream)
        if name not in self.tried or timeline.makespan < self.tried[name][1].makespan:
            self.tried[name] = (assignment, timeline)
        crossings = assignment.crossings(self.tasks)
        if self.name:
            new, old = timeline.makespan, self.timeline.makespan
            fewer = crossings < self._crossings and new <= old * (1 + _EQUAL)
            if new >= old * (1 - _EQUAL) and not fewer:
                return timeline
        self.name, self.best, self.timeline = name, assignment, timeline
        self._crossings = crossings
        return timeline

    def _search(self, starts: Sequence[Timeline]) -> None:
        """Spend the budget: a quarter on other starting points, half on justification, the rest on
        moves."""
        self.goal *= _NEAR
        left = min(_BUDGET // len(self.tasks), _MOST_TRIES)
        quarter = left // 4
        left -= self._try("shaken greedy", self._shaken(), quarter)
        left -= self._try("justified", self._justified(starts), 2 * quarter)
        best, timeline = improve(
            self.tasks, self.best, self.timeline, self.streams, left, self.goal
        )
        if timeline.makespan < self.timeline.makespan:
            self.best, self.timeline = best, timeline
            self.name += ", improved"

    def _try(self, name: str, assignments: Iterator[Assignment], most: int) -> int:
        """Simulate up to `most` of them until the goal is reached; returns how many there were."""
        tried = 0
        for assignment in islice(assignments, most):
            self._judge(name, assignment)
            tried += 1
            if self.timeline.makespan <= self.goal:
                break
        return tried

    def _shaken(self) -> Iterator[Assignment]:
        for seed in range(_MOST_SHAKEN):
            # Fewer streams can be better: each stream forks, and takes part of the device.
            used = max(1, self.streams * _PARTS[seed // 2 % len(_PARTS)] // 4)
            yield greedy.shaken(self.tasks, used, seed)

    def _justified(self, starts: Sequence[Timeline]) -> Iterator[Assignment]:
        """Justify the best, on fewer streams too, and the next best; then with a little noise."""
        justifier = Justifier(self.tasks)
        fewer = sorted({max(1, self.streams * part // 4) for part in _PARTS}, reverse=True)
        for used in (self.streams, *fewer):
            for patient in (False, True):
                yield justifier.justified(self.timeline.end, used, patient)
        for start in sorted(starts, key=lambda t: t.makespan)[:_STARTS]:
            for patient in (False, True):
                yield justifier.justified(start.end, self.streams, patient)
        for patient in cycle((False, True)):
            yield justifier.shaken(self.timeline, self.streams, patient)


def _names(commands: int, streams: int) -> Sequence[str]:
    """The candidates for a program of this size."""
    if streams == 1:
        return (ONE_STREAM,)
    if commands > _ALL_UP_TO:
        return (ONE_STREAM, "greedy")
    return tuple(CANDIDATES)


def _best(program: Program, streams: int | Literal["auto"], costs: CostModel) -> _Portfolio:
    """The portfolio on at most `streams` streams, or on as few as pay."""
    if streams == "auto":
        return _fewest(program, _tries(program), costs, min(_AUTO_GAIN, 1 - costs.gain))
    if not costs.gain:
        return _Portfolio(tasks_of(program, costs, streams), streams)
    widest = min(streams, _width(program))
    return _fewest(program, [k for k in AUTO_STREAMS if k <= widest], costs, 1 - costs.gain)


def _fewest(program: Program, tries: Sequence[int], costs: CostModel, enough: float) -> _Portfolio:
    """The first number of streams; another one if it takes less than `enough` of the time."""
    best: _Portfolio | None = None
    for streams in tries:
        tasks = tasks_of(program, costs, streams)
        limit = NEVER if best is None else best.timeline.makespan * enough
        if bounds(tasks, streams).best >= limit:
            continue  # no schedule gets there
        found = _Portfolio(tasks, streams)
        if found.timeline.makespan < limit:
            best = found
    assert best is not None
    return best


def _tries(program: Program) -> list[int]:
    """The numbers of streams to compare for "auto"."""
    few = (1, 4, 16) if len(program.commands) > _ALL_UP_TO else AUTO_STREAMS
    return [k for k in few if k <= _width(program)]


def _width(program: Program) -> int:
    """The largest number of commands at the same depth, at least 1."""
    level = [0] * len(program.commands)
    for command, needs in enumerate(program.predecessors):
        level[command] = 1 + max((level[need] for need in needs), default=-1)
    counts = [0] * (max(level, default=0) + 1)
    for depth in level:
        counts[depth] += 1
    return max(1, *counts)


def _by_first_use(order: Sequence[int], stream: Sequence[int]) -> list[int]:
    names: dict[int, int] = {}
    for command in order:
        names.setdefault(stream[command], len(names))
    return [names[s] for s in stream]
