"""Whether batches save time: each batch by itself, and all of them together.

Launches are serial even on many streams. Eight streams of f16 GEMMs of 256³ took 2 µs a GEMM on an
H200, as long as the launch, with most of the device idle; the workers of the CPU device share one
interpreter. So separate commands take all their launches and all their work; a batch takes a
single launch and the same work. A command too small to fill the device can gain. A command that
fills it gains nothing and would wait for the slowest member.

A batch waits for all its members. This can cost more than it saves, mostly the overlap of transfers
with computing. Its tensors live as long as any of them. Both show only in the whole program. With
batches, the program is scheduled in a few ways and simulated. Without, its time is the lower bound
of graphexec.machine.bounds, which no schedule beats. Batches are made if they still take less
time, and, for large arenas, if the time falls by more than the bytes grow.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphexec.base.units import shown
from graphexec.graph.rewriting import Target
from graphexec.ir.program import Command, Program
from graphexec.machine.bounds import bounds
from graphexec.machine.costs import CostModel, tasks_of
from graphexec.machine.simulate import COMPUTE, Tasks, simulate
from graphexec.planning.scheduling import chains, greedy, heft, one_stream
from graphexec.planning.scheduling.assignment import Assignment

_GAIN = 0.9  # of the time apart; a smaller gain may be an error of the model
_LESS = 0.98  # of the time of the whole program
_ALL_UP_TO = 500  # commands; larger programs are scheduled in one way
_FEW_BYTES = 64 << 20  # of an arena: too few to matter


def faster_as_one(
    member: Command, count: int, costs: CostModel, found: Sequence[Command] = ()
) -> bool:
    """Whether `count` commands like `member` take clearly less time as the commands `found`, or,
    if these are not known yet, as a single command."""
    time, share = costs.alone(member)
    if costs.cores > 1:  # cores share a batch, and separate commands only on streams that pay
        share = 1.0
    work = max(time, count * time * share)
    launches = costs.launch * max(1, len(found))
    together = max(work, sum(costs.alone(command)[0] for command in found))
    return launches + together <= _GAIN * (costs.launch * count + work)


def loses(before: Program, after: Program, target: Target) -> str | None:
    """Why the program `after`, with batches, is worse; None if it is better."""
    streams = target.streams
    old, new = tasks_of(before, target.costs), tasks_of(after, target.costs)
    least = max(bounds(old, streams).best, _in_turn(old))
    ways = _schedules(new, streams)
    time = max(_in_turn(new), min(simulate(new, w.order, w.stream).makespan for w in ways))
    if time > _LESS * least:
        return f"a run would take {shown(time, 4)}, apart perhaps {shown(least, 4)}"
    nbytes = _peak(after, ways[0].order)
    if nbytes > _FEW_BYTES:
        more = nbytes / _peak(before, greedy.candidate(old, streams).order)
        if more * time > least:
            return (
                f"a run would take {time / least:.2f} times as long, but {more:.2f} times the bytes"
            )
    return None


def _in_turn(tasks: Tasks) -> float:
    """Microseconds of launches and computing without any overlap."""
    each = zip(tasks.time, tasks.share, tasks.engine, strict=True)
    work = sum(time * share for time, share, engine in each if engine == COMPUTE)
    return tasks.launch * len(tasks) + work


def _schedules(tasks: Tasks, streams: int) -> list[Assignment]:
    ways = (greedy.candidate, one_stream.candidate, heft.candidate, chains.candidate)
    return [way(tasks, streams) for way in ways[: 2 if len(tasks) > _ALL_UP_TO else None]]


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
