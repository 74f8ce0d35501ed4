"""The order of the stages: from a graph to a plan, and to an executable."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graphexec.base.collector import collector_at_rest
from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import InputError
from graphexec.graph.infer import infer
from graphexec.graph.rewrite import chosen_rewrites, known_rewrites
from graphexec.graph.rewriting import Note
from graphexec.ir.graph import Graph
from graphexec.ir.plan import Plan
from graphexec.ir.program import Program
from graphexec.ir.typed import TypedGraph
from graphexec.machine.capabilities import reduced
from graphexec.machine.costs import CostModel, model_of
from graphexec.planning.allocate import allocate
from graphexec.planning.assemble import assemble
from graphexec.planning.profile import Profile
from graphexec.planning.profile import load as load_profile
from graphexec.planning.profile_cache import find as find_profile
from graphexec.planning.programs import Streams, Variant, most_streams, target_for, variants
from graphexec.planning.schedule import schedule, schedule_frugally
from graphexec.planning.scheduled import Allocation, Schedule, Synchronized
from graphexec.planning.scheduling import ONE_STREAM
from graphexec.planning.synchronize import synchronize
from graphexec.proof import verify as prove

if TYPE_CHECKING:
    from graphexec.runtime.device import Device, Machine
    from graphexec.runtime.executable import Executable

_MANY_COMMANDS = 500  # beyond this the numbers of streams that are tried for a limit are halved

Costs = CostModel | Profile | str | Path | None
"""A model, measured times, the path of a file with them, or None for the device's model."""


@dataclass(frozen=True)
class Compiled:
    """A plan with the graph it computes, as inferred, rewritten and lowered, and how it came about.

    `notes` say what the rewrites did; `profile` is what the plan was made with, if it was.
    """

    graph: TypedGraph
    rewritten: TypedGraph
    program: Program
    plan: Plan
    synchronized: Synchronized
    allocation: Allocation
    notes: tuple[Note, ...] = ()
    profile: Profile | None = None


def plan_graph(
    graph: Graph,
    *,
    streams: Streams = 4,
    device: str = "cpu",
    verify: bool = True,
    rewrite: Collection[str] = (),
    no_rewrite: Collection[str] = (),
    capabilities: Collection[str] | None = None,
    resident: bool = False,
    costs: Costs = None,
    memory_limit: int | None = None,
    machine: Callable[[], Machine] | None = None,
) -> Compiled:
    """Run every stage up to the proof; nothing is executed and no device is opened.

    With `resident`, inputs and outputs lie in device memory and the plan has no transfers.
    `capabilities` are those of the device (Device.capabilities), if it is known better than by
    name. Where no costs are given, `machine` is asked for what a kept profile must have been
    measured on. The other parameters are those of `make_plan`.
    """
    most = most_streams(streams)
    names = chosen_rewrites(rewrite, no_rewrite)
    with collector_at_rest():
        typed = infer(graph)
        model, profile = _costs(costs, device, typed, machine)
        usual = profile is not None and names == chosen_rewrites()  # as they were for `tune`
        prefer = profile.best_schedule(streams, resident) if profile and usual else ""
        if prefer == ONE_STREAM:  # which may be of another program
            most = 1
        target = target_for(device, capabilities, model, most)
        programs = variants(typed, target, names, resident, profile)
        taken, synchronized, allocation = _placed(programs, most, model, memory_limit, prefer)
        plan = assemble(synchronized, allocation, device)
        if verify:
            prove(plan)
    return Compiled(
        typed, taken.rewritten, taken.program, plan, synchronized, allocation, taken.notes, profile
    )


def _costs(
    costs: Costs, device: str, graph: TypedGraph, machine: Callable[[], Machine] | None
) -> tuple[CostModel, Profile | None]:
    """The model to plan with, and the profile it is from."""
    if isinstance(costs, CostModel):
        return costs, None
    if isinstance(costs, Profile):
        return costs.applied_to(model_of(device)), costs
    if costs is not None:
        profile = load_profile(costs)
        return profile.applied_to(model_of(device), str(costs)), profile
    kept = find_profile(graph, machine) if machine is not None else None
    if kept is None:
        return model_of(device), None
    return kept.profile.applied_to(model_of(device), f"profile {kept.path.name}"), kept.profile


def _placed(
    programs: Iterable[Variant],
    streams: Streams,
    model: CostModel,
    limit: int | None,
    prefer: str,
) -> tuple[Variant, Synchronized, Allocation]:
    """The fastest schedule found whose bytes fit, of the first of the programs for which there is
    one: fewer and fewer streams, then one stream in an order that saves memory."""
    smallest = None
    for variant in programs:
        for scheduled in _schedules(variant.program, streams, model, prefer):
            synchronized = synchronize(scheduled)
            allocation = allocate(synchronized)
            if limit is None or allocation.device_bytes <= limit:
                return variant, synchronized, allocation
            smallest = min(smallest or allocation.device_bytes, allocation.device_bytes)
    message = (
        f"the plan does not fit: at least {smallest:,} bytes of device memory were needed, "
        f"the limit is {limit:,}"
    )
    help = f"allow {smallest:,} bytes, or make the graph's dims smaller"
    raise InputError([Diagnostic(message, help=help)])


def _schedules(
    program: Program, streams: Streams, model: CostModel, prefer: str
) -> Iterator[Schedule]:
    """From the fastest to the most frugal."""
    first = schedule(program, streams, model, prefer)
    yield first
    many = len(program.commands) > _MANY_COMMANDS
    fewer = first.streams - 1
    while fewer > 0:
        yield schedule(program, fewer, model)
        fewer = fewer // 2 if many else fewer - 1
    yield schedule_frugally(program, model)


def make_plan(
    graph: Graph,
    *,
    streams: Streams = 4,
    device: str = "cpu",
    verify: bool = True,
    rewrite: Collection[str] = (),
    no_rewrite: Collection[str] = (),
    costs: Costs = None,
    memory_limit: int | None = None,
) -> Plan:
    """The plan of `graph` on at most `streams` streams ("auto": as many as pay).

    `device` is the name written into the plan and chooses the cost model, unless `costs` is a
    CostModel, a Profile, or the path of a profile. With `memory_limit`, arena and weights together
    take at most that many bytes of device memory, at the price of concurrency. `verify=False`
    leaves out the proof. `no_rewrite` names rewrites to switch off, `rewrite` those to switch on
    that are off by default; "all" stands for every one. Raises InputError for a wrong graph or a
    limit that cannot be kept, and HazardError should the plan not be free of races.
    """
    return plan_graph(
        graph, streams=streams, device=device, verify=verify, rewrite=rewrite,
        no_rewrite=no_rewrite, costs=costs, memory_limit=memory_limit,
    ).plan  # fmt: skip


def compile(
    graph: Graph,
    *,
    device: str | Device = "auto",
    streams: Streams = 4,
    verify: bool = True,
    rewrite: Collection[str] = (),
    no_rewrite: Collection[str] = (),
    resident: bool = False,
    timeout: float | None = None,
    costs: Costs = None,
    memory_limit: int | None = None,
    use_profile: bool = True,
) -> Executable:
    """Plan `graph`, prove the plan, and load it on a device, ready to run.

    `device` is "cpu", "hip", "auto" (a GPU if one is usable, else the CPU, with a warning), or a
    Device with options of its own. With `resident`, inputs and outputs stay in device memory
    (see Executable.device_array). A run that takes more than `timeout` seconds raises TimedOut.
    Without `costs`, what `graphexec tune` has measured of this graph on this device is used, unless
    `use_profile` is False; `exe.plan.stats.costs` says so.
    The caller closes the executable, best by `with`. Raises as `make_plan`, and
    DeviceUnavailable.
    """
    from graphexec.runtime.device import find_device
    from graphexec.runtime.executable import Executable

    chosen = find_device(device) if isinstance(device, str) else device

    def plan(source: Graph, resident: bool, without: frozenset[str]) -> Compiled:
        return plan_graph(
            source, streams=streams, device=chosen.name, verify=verify, rewrite=rewrite,
            no_rewrite=no_rewrite, resident=resident, costs=costs, memory_limit=memory_limit,
            capabilities=reduced(chosen.capabilities(source), without),
            machine=(lambda: chosen.machine()) if use_profile else None,
        )  # fmt: skip

    return Executable(graph, plan, chosen, resident=resident, timeout=timeout)


__all__ = [
    "Compiled", "Costs", "Streams", "compile", "known_rewrites", "make_plan", "plan_graph",
]  # fmt: skip
