"""The order of the stages: from a graph to a plan, and to an executable."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphexec import costs
from graphexec.command import Program
from graphexec.diagnostics import Diagnostic
from graphexec.errors import InputError
from graphexec.graph import Graph
from graphexec.plan import Plan
from graphexec.stages.allocate import allocate
from graphexec.stages.assemble import assemble
from graphexec.stages.infer import infer
from graphexec.stages.lower import lower
from graphexec.stages.rewrite import rewrite
from graphexec.stages.schedule import schedule
from graphexec.stages.synchronize import synchronize
from graphexec.typed import TypedGraph
from graphexec.verify import verify as prove

if TYPE_CHECKING:
    from graphexec.devices.base import Device
    from graphexec.executable import Executable

MAX_STREAMS = 256


@dataclass(frozen=True)
class Compiled:
    """A plan with the graph it computes, as inferred and as lowered."""

    graph: TypedGraph
    program: Program
    plan: Plan


def plan_graph(
    graph: Graph,
    *,
    streams: int = 4,
    device: str = "cpu",
    verify: bool = True,
    no_rewrite: Collection[str] = (),
    resident: bool = False,
) -> Compiled:
    """Run every stage up to the proof; nothing is executed and no device is opened.

    With `resident`, inputs and outputs lie in device memory and the plan has no transfers.
    """
    if isinstance(streams, bool) or not isinstance(streams, int) or streams < 1:
        raise InputError([Diagnostic(f"streams must be an integer of at least 1, not {streams}")])
    typed = infer(graph)
    rewritten = rewrite(typed, no_rewrite)
    program = lower(rewritten, resident)
    scheduled = schedule(
        program, min(streams, MAX_STREAMS), costs.model_of(device)
    )
    synchronized = synchronize(scheduled)
    plan = assemble(synchronized, allocate(synchronized), device)
    if verify:
        prove(plan)
    return Compiled(typed, program, plan)


def make_plan(
    graph: Graph,
    *,
    streams: int = 4,
    device: str = "cpu",
    verify: bool = True,
    no_rewrite: Collection[str] = (),
) -> Plan:
    """The plan of `graph` on at most `streams` streams.

    `device` is the name written into the plan and chooses the cost model. `verify=False` leaves
    out the proof; `no_rewrite` names rewrites to switch off. Raises InputError for a wrong graph
    and HazardError should the plan not be free of races.
    """
    return plan_graph(
        graph, streams=streams, device=device, verify=verify, no_rewrite=no_rewrite
    ).plan


def compile(
    graph: Graph,
    *,
    device: str | Device = "auto",
    streams: int = 4,
    verify: bool = True,
    no_rewrite: Collection[str] = (),
    resident: bool = False,
    timeout: float | None = None,
) -> Executable:
    """Plan `graph`, prove the plan, and load it on a device, ready to run.

    `device` is "cpu", "hip", "auto" (a GPU if one is usable, else the CPU, with a warning), or a
    Device with options of its own. With `resident`, inputs and outputs stay in device memory
    (see Executable.device_array). A run that takes more than `timeout` seconds raises TimedOut.
    The caller closes the executable, best by `with`. Raises as `make_plan`, and
    DeviceUnavailable.
    """
    from graphexec.devices.base import find_device
    from graphexec.executable import Executable

    chosen = find_device(device) if isinstance(device, str) else device

    def plan(source: Graph, resident: bool) -> Compiled:
        return plan_graph(
            source, streams=streams, device=chosen.name, verify=verify, no_rewrite=no_rewrite,
            resident=resident,
        )  # fmt: skip

    return Executable(graph, plan, chosen, resident=resident, timeout=timeout)
