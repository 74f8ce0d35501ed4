"""The order of the stages: from a graph to a proved plan.

    prepare     infer types, choose costs, target and rewrites           (programs.py)
    variants    rewrite the graph, lower it, rewrite the program         (programs.py)
    schedule    an order and a stream for each command                   (schedule.py)
    finish      synchronize, allocate, assemble, prove                   (here)

Nothing is executed and no device is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Unpack

from graphexec.base.collector import collector_paused
from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import InputError
from graphexec.graph.rewriting import Note
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.graph import Graph
from graphexec.ir.plan import Plan
from graphexec.ir.program import Program
from graphexec.ir.ranks import Ranks
from graphexec.ir.typed import TypedGraph
from graphexec.machine.support import Hardware
from graphexec.planning.allocate import allocate
from graphexec.planning.assemble import assemble
from graphexec.planning.options import OptionKeywords, Options, options_of
from graphexec.planning.profile import MeasuredSchedule, Profile
from graphexec.planning.programs import FindProfile, Job, Variant, prepare, variants
from graphexec.planning.schedule import alternatives, schedule, schedule_frugally
from graphexec.planning.scheduled import Allocation, Schedule, Synchronized
from graphexec.planning.scheduling import ONE_STREAM
from graphexec.planning.synchronize import synchronize
from graphexec.proof import prove

_MANY_COMMANDS = 500  # larger programs: halve the number of streams at each try


@dataclass(frozen=True)
class Finished:
    """The plan of a schedule, and what it was assembled from."""

    bound: BoundPlan
    synchronized: Synchronized
    allocation: Allocation

    @property
    def plan(self) -> Plan:
        """The portable plan."""
        return self.bound.plan

    @property
    def program(self) -> Program:
        """The program that was scheduled."""
        return self.synchronized.schedule.program


@dataclass(frozen=True)
class Compiled(Finished):
    """A plan with the graph it computes, as inferred and as rewritten.

    `notes` say what the rewrites did; `profile` has the measured times that were used, if any;
    `measured` those of whole plans.
    """

    graph: TypedGraph
    rewritten: TypedGraph
    notes: tuple[Note, ...]
    profile: Profile | None
    measured: MeasuredSchedule | None = None


def plan_graph(
    graph: Graph, *, device: str = "cpu", options: Options | None = None,
    hardware: Hardware | None = None, kept: FindProfile | None = None,
    ranks: Ranks | None = None, **keywords: Unpack[OptionKeywords],
) -> Compiled:  # fmt: skip
    """The fastest plan found whose bytes fit into the memory limit.

    It tries fewer and fewer streams, then an order on one stream that saves memory, then the same
    for programs that need less memory. `device` is the name of a device, `hardware` the device
    itself if it is at hand. `kept` looks for a profile if no costs are given. With `ranks` it is
    the plan of one of several. Raises InputError for
    a wrong graph, a wrong option or a limit that cannot be kept, and HazardError.
    """
    chosen = options_of(options, keywords)
    too_large = []
    with collector_paused():
        job = prepare(graph, device, chosen, hardware, kept, ranks)
        measured = job.measured
        prefer = measured.best if measured is not None else ""
        if prefer == ONE_STREAM:  # batches pay or not depending on the number of streams
            job = job.on_streams(1)
        for variant in _admitted(job, device, chosen.memory_limit):
            for scheduled in _schedules(variant.program, job, prefer):
                try:
                    finished = finish(scheduled, device, chosen.memory_limit, chosen.verify)
                except DoesNotFit as exc:
                    too_large.append(exc.bytes)
                else:
                    return _compiled(job, variant, finished, measured)
    assert chosen.memory_limit is not None
    raise _no_plan_fits(min(too_large), chosen.memory_limit)


def alternative_plans(
    graph: Graph, most: int, *, device: str, options: Options | None = None,
    hardware: Hardware | None = None, **keywords: Unpack[OptionKeywords],
) -> list[Compiled]:  # fmt: skip
    """Plans of `graph` that differ in how they were scheduled: up to `most`, the best by prediction
    first, and the best on one stream, which may be of another program. No memory limit holds.
    """
    chosen = options_of(options, keywords)
    with collector_paused():
        several = prepare(graph, device, chosen, hardware)
        alone = several.on_streams(1)
        variant, other = next(variants(several)), next(variants(alone))
        costs, streams = several.costs, chosen.streams
        found = [
            (variant, s) for s in alternatives(variant.program, streams, costs, most)
            if s.streams > 1
        ]  # fmt: skip
        found.append((other, schedule(other.program, 1, costs, ONE_STREAM)))
        return [_compiled(several, v, finish(s, device)) for v, s in found]


def plan_program(
    program: Program, order: Sequence[int], stream: Sequence[int], device: str
) -> BoundPlan:  # fmt: skip
    """The plan of commands in a given order on given streams, proved."""
    scheduled = Schedule(program, program.predecessors, tuple(order), tuple(stream))
    return finish(scheduled, device).bound


class DoesNotFit(Exception):
    """A schedule needs `bytes` of device memory, more than the limit."""

    def __init__(self, bytes: int) -> None:
        self.bytes = bytes
        super().__init__(f"{bytes:,} bytes of device memory are needed")


def finish(
    scheduled: Schedule, device: str, memory_limit: int | None = None, verify: bool = True
) -> Finished:
    """Add waits and places to a schedule, write the plan down, and prove it.

    Raises DoesNotFit above `memory_limit` bytes, and HazardError.
    """
    synchronized = synchronize(scheduled)
    allocation = allocate(synchronized)
    if memory_limit is not None and allocation.device_bytes > memory_limit:
        raise DoesNotFit(allocation.device_bytes)
    bound = assemble(synchronized, allocation, device)
    if verify:
        prove(bound.plan)
    return Finished(bound, synchronized, allocation)


def _schedules(program: Program, job: Job, prefer: str) -> Iterator[Schedule]:
    """From the fastest to the one that needs the least memory."""
    costs = job.costs
    first = schedule(program, job.streams, costs, prefer)
    yield first
    many = len(program.commands) > _MANY_COMMANDS
    fewer = first.streams - 1
    while fewer > 0:
        yield schedule(program, fewer, costs)
        fewer = fewer // 2 if many else fewer - 1
    yield schedule_frugally(program, job.target.costs)


def _admitted(job: Job, device: str, limit: int | None) -> Iterator[Variant]:
    """The variants to try. Whether schedules of a program fit into a limit depends on the number of
    streams; so a reproducible one counts only if its most frugal schedule does, or as the last."""
    found = variants(job)
    if limit is None or not job.reproducible:
        yield from found
        return
    every = list(found)
    for variant in every[:-1]:
        try:
            finish(schedule_frugally(variant.program, job.target.costs), device, limit, False)
        except DoesNotFit:
            continue
        yield variant
    yield every[-1]


def _no_plan_fits(smallest: int, limit: int) -> InputError:
    message = (
        f"the plan does not fit: at least {smallest:,} bytes of device memory were needed, "
        f"the limit is {limit:,}"
    )
    help = f"allow {smallest:,} bytes, or make the graph's dims smaller"
    return InputError([Diagnostic(message, help=help)])


def _compiled(
    job: Job, variant: Variant, made: Finished, measured: MeasuredSchedule | None = None
) -> Compiled:
    return Compiled(
        made.bound, made.synchronized, made.allocation, job.graph, variant.rewritten,
        variant.notes, job.profile, measured,
    )  # fmt: skip
