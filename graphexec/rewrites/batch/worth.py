"""Whether batches pay: each by itself, and all of them together.

Launches follow one another even on many streams: eight streams of f16 GEMMs of 256³ took 2 µs a
GEMM on an H200, as long as the launch, with most of the device idle; the workers of the CPU device
share one interpreter. So commands apart take all their launches and all their work, and as one a
single launch and the same work. A command too small to fill the device has something to gain; one
that fills it has nothing worth waiting for the slowest member.

That a batch waits for all its members can cost more than it saves, most of all the overlap of
transfers with computing. And its tensors live as long as any of them. Both show only in the whole
program, so that is scheduled in a few ways and simulated with and without batches: they are made if
the time goes down, and by more than the bytes go up, if these are many.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphexec.command import Command, Program
from graphexec.costs import CostModel, tasks_of
from graphexec.scheduled import dependencies
from graphexec.scheduling import chains, greedy, heft
from graphexec.simulate import COMPUTE, simulate

_GAIN = 0.9  # of the time apart; what is nearer to it may be an error of the model
_LESS = 0.98  # of the time of the whole program
_STREAMS = 4
_ALL_UP_TO = 500  # commands; larger programs are scheduled in one way
_FEW_BYTES = 64 << 20  # of an arena: nothing to save for


def faster_as_one(members: Sequence[Command], one: Command, costs: CostModel) -> bool:
    """Whether the batch `one` takes clearly less time than its members."""
    alone = [costs.alone(member) for member in members]
    work = sum(time * share for time, share in alone)
    longest = max(time for time, _ in alone)
    apart = costs.launch * len(members) + max(work, longest)
    together = costs.launch + max(work, longest, costs.alone(one)[0])
    return together <= _GAIN * apart


def loses(before: Program, after: Program, costs: CostModel) -> str | None:
    """What speaks against the program `after`, with batches; None if it is to be preferred."""
    time, nbytes = _estimate(before, costs)
    new_time, new_bytes = _estimate(after, costs)
    if new_time > _LESS * time:
        return f"a run would take {new_time:.4g} µs, not {time:.4g} µs"
    if new_bytes > _FEW_BYTES and new_time * new_bytes > time * nbytes:
        more = f"{new_bytes / nbytes:.2f} times the bytes"
        return f"a run would take {new_time / time:.2f} times as long but {more}"
    return None


def _estimate(program: Program, costs: CostModel) -> tuple[float, int]:
    """Microseconds of a run, and the most bytes of arena that live at once."""
    tasks = tasks_of(program.commands, dependencies(program.commands), costs)
    ways = (greedy.candidate, heft.candidate, chains.candidate)
    schedules = [way(tasks, _STREAMS) for way in ways[: 1 if len(tasks) > _ALL_UP_TO else None]]
    times = [simulate(tasks, found.order, found.stream).makespan for found in schedules]
    work = sum(
        time * share
        for time, share, engine in zip(tasks.time, tasks.share, tasks.engine, strict=True)
        if engine == COMPUTE
    )
    return max(min(times), tasks.launch * len(tasks) + work), _peak(program, schedules[0].order)


def _peak(program: Program, order: Sequence[int]) -> int:
    """Live bytes in this order; a group lives as long as any of its storages."""
    group_of = {name: group for group in program.groups for name in group.storages}
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for place, index in enumerate(order):
        command = program.commands[index]
        for view in command.reads + command.writes:
            group = group_of.get(view.storage)
            name = view.storage if group is None else group.storages[0]
            first.setdefault(name, place)
            last[name] = place
    change = [0] * (len(order) + 1)
    for name, place in first.items():
        storage, group = program.storages[name], group_of.get(name)
        if storage.role == "arena" and storage.space == "device":
            nbytes = storage.nbytes if group is None else group.stride * len(group.storages)
            change[place] += nbytes
            change[last[name] + 1] -= nbytes
    live = most = 0
    for step in change:
        live += step
        most = max(most, live)
    return most


__all__ = ["faster_as_one", "loses"]
