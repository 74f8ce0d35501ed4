"""Every schedule of a few commands.

Streams other than the origin are interchangeable, and only the order within each matters. So it
tries every split of the commands into at most K sequences that agree with a topological order.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphexec.machine.simulate import Tasks
from graphexec.planning.scheduling.assignment import Assignment

MOST = 6
"""Commands up to which this is affordable: at most 9,276 ways."""


def candidates(tasks: Tasks, streams: int) -> Iterator[Assignment]:
    """All schedules that differ, each once."""
    seen: set[tuple[tuple[int, ...], frozenset[tuple[int, ...]]]] = set()
    for order, stream in _grow(tasks, streams, (), {}):
        lanes: dict[int, list[int]] = {}
        for command in order:
            lanes.setdefault(stream[command], []).append(command)
        # The stream of the first command is the origin: the others fork from it.
        ways = (tuple(next(iter(lanes.values()))), frozenset(map(tuple, lanes.values())))
        if ways not in seen:
            seen.add(ways)
            yield Assignment(order, [stream[c] for c in range(len(tasks))])


def _grow(
    tasks: Tasks, streams: int, order: tuple[int, ...], stream: dict[int, int]
) -> Iterator[tuple[tuple[int, ...], dict[int, int]]]:
    if len(order) == len(tasks):
        yield order, stream
    used = max(stream.values(), default=-1) + 1
    for command in range(len(tasks)):
        needs = tasks.predecessors[command]
        if command in stream or any(n not in stream for n in needs):
            continue
        for own in range(min(used + 1, streams)):  # one new stream is as good as another
            last = order[-1] if order else -1
            if len(order) > 1 and command < last and last not in needs and stream[last] != own:
                continue  # the exchanged order is equivalent, and is tried
            yield from _grow(tasks, streams, (*order, command), {**stream, command: own})
