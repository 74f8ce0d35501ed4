"""An issue order with streams, and functions that several candidates share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphexec.machine.simulate import Tasks, upward_ranks


@dataclass(frozen=True)
class Assignment:
    """Commands in issue order (topological) and the stream of each, by command."""

    order: Sequence[int]
    stream: Sequence[int]

    def crossings(self, tasks: Tasks) -> int:
        """Dependencies between streams."""
        stream = self.stream
        return sum(
            stream[need] != stream[command]
            for command, needs in enumerate(tasks.predecessors)
            for need in needs
        )


def by_rank(tasks: Tasks) -> list[int]:
    """The commands by descending path length to the end: a topological order."""
    ranks = upward_ranks(tasks)
    # A rank exceeds those of its successors unless both take no time; then the index decides.
    return sorted(range(len(tasks)), key=lambda c: (-ranks[c], c))


def folded(tasks: Tasks, chains: Iterable[Sequence[int]], streams: int) -> Assignment:
    """Chains of commands on at most `streams` streams.

    The chains come in the order of their first commands' ranks. Each goes to the stream on which
    its first command starts earliest, among equals to a predecessor's stream.
    """
    order = by_rank(tasks)
    chain_of = {command: chain for chain in chains for command in chain}
    stream, end, free = [-1] * len(tasks), [0.0] * len(tasks), [0.0] * streams
    for command in order:
        if stream[command] < 0:
            best = _first_to_start(tasks, command, stream, end, free)
            for member in chain_of[command]:
                stream[member] = best
        own = stream[command]
        at = max(free[own], available(tasks, command, own, stream, end))
        end[command] = free[own] = at + tasks.launch + tasks.time[command]
    return Assignment(order, stream)


def available(
    tasks: Tasks, command: int, on: int, stream: Sequence[int], end: Sequence[float]
) -> float:
    """When the predecessors of `command` are done for stream `on` (events included)."""
    at = 0.0
    for need in tasks.predecessors[command]:
        at = max(at, end[need] + (tasks.event if stream[need] != on else 0.0))
    return at


def _first_to_start(
    tasks: Tasks, command: int, stream: Sequence[int], end: Sequence[float], free: Sequence[float]
) -> int:
    near = {stream[need] for need in tasks.predecessors[command]}
    return min(
        range(len(free)),
        key=lambda s: (
            max(free[s], available(tasks, command, s, stream, end)), s not in near, -free[s], s,
        ),
    )  # fmt: skip
