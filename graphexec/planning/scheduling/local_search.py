"""Improve a schedule by moving commands of its critical path, judged by the simulator.

A move takes a command to another stream, or exchanges the tails of two streams from that command
on. Only commands of the simulated critical path are moved. The budget counts simulations and no
clock is read, so the same graph gives the same plan on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphexec.machine.simulate import Tasks, Timeline, simulate
from graphexec.planning.scheduling.assignment import Assignment

_GAIN = 1 - 1e-6  # a smaller gain does not count


def improve(
    tasks: Tasks, first: Assignment, timeline: Timeline, streams: int, budget: int, goal: float
) -> tuple[Assignment, Timeline]:
    """The best schedule found with at most `budget` simulations; ends early at `goal` µs."""
    best = first
    while budget > 0 and timeline.makespan > goal:
        improved = False
        for changed in _neighbours(tasks, best, timeline, streams):
            if budget <= 0:
                break
            budget -= 1
            found = simulate(tasks, changed.order, changed.stream)
            if found.makespan < timeline.makespan * _GAIN:
                best, timeline, improved = changed, found, True
                break
        if not improved:
            break
    return best, timeline


def _neighbours(
    tasks: Tasks, assignment: Assignment, timeline: Timeline, streams: int
) -> Iterator[Assignment]:
    order = sorted(range(len(tasks)), key=lambda c: (timeline.start[c], c))
    for command in _holding_up(tasks, order, assignment.stream, timeline):
        own = assignment.stream[command]
        for other in range(streams):
            if other != own:
                moved = list(assignment.stream)
                moved[command] = other
                yield Assignment(order, moved)
                yield Assignment(order, _swapped(order, assignment.stream, command, other))


def _swapped(order: Sequence[int], stream: Sequence[int], command: int, other: int) -> list[int]:
    """From `command` on, its stream and `other` exchange their tails."""
    own, moved = stream[command], list(stream)
    for later in order[order.index(command) :]:
        if stream[later] in (own, other):
            moved[later] = other if stream[later] == own else own
    return moved


def _holding_up(
    tasks: Tasks, order: Sequence[int], stream: Sequence[int], timeline: Timeline
) -> list[int]:
    """The critical path, from the last command back to the start."""
    before: dict[int, int] = {}
    last: dict[int, int] = {}
    for command in order:
        before[command] = last.get(stream[command], -1)
        last[stream[command]] = command
    end = timeline.end
    command = max(order, key=lambda c: (end[c], -c))
    found = []
    while command >= 0:
        found.append(command)
        needs = [*tasks.predecessors[command], *([before[command]] if before[command] >= 0 else [])]
        command = max(needs, key=lambda c: (end[c], -c), default=-1)
    return found
