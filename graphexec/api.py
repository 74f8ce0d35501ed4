"""What a user calls: `make_plan`, `compile`, and the options of both.

Planning knows no device and devices know no planning. Here the two meet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from graphexec.planning.options import OptionKeywords, Options, options_of
from graphexec.planning.pipeline import Compiled, plan_graph
from graphexec.planning.profile_cache import find as find_profile
from graphexec.planning.programs import check_graph

if TYPE_CHECKING:
    from graphexec.ir.graph import Graph
    from graphexec.ir.plan import Plan
    from graphexec.runtime.device import Device
    from graphexec.runtime.executable import Executable


def make_plan(
    graph: Graph, *, device: str | Device = "cpu", options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> Plan:  # fmt: skip
    """The plan of `graph`, proved free of races; nothing is loaded.

    `device` is a name, which is written into the plan and chooses the cost model unless the options
    have costs; no kept profile is used. Or it is a CpuDevice or HipDevice: then the plan is the one
    that `compile` makes for it. `keywords` are fields of Options and replace those of `options`.
    Raises InputError for a wrong graph, a wrong option or a memory limit that cannot be kept, and
    HazardError should the plan not be free of races.
    """
    if isinstance(device, str):
        return plan_graph(graph, device=device, options=options, **keywords).plan
    check_graph(graph)
    return plan_on(graph, device, options_of(options, keywords)).plan


def compile(
    graph: Graph, *, device: str | Device = "auto", options: Options | None = None,
    weights_from: Executable | None = None, **keywords: Unpack[OptionKeywords],
) -> Executable:  # fmt: skip
    """Plan `graph`, prove the plan, and load it on a device, ready to run.

    `device` is "cpu", "hip", "auto" (a GPU if one is usable, else the CPU, with a warning), or a
    CpuDevice or HipDevice with settings of its own. `keywords` are fields of Options and replace
    those of `options`. Without costs, what `graphexec tune` has measured of this graph on this
    device is used; `exe.plan.stats.costs` says so. The caller closes the executable, best by
    `with`. With `weights_from`, an executable of the same graph on the same device, the weights are
    those that it holds, until the last of the two closes; states are the new one's own.
    Raises as `make_plan`, and DeviceUnavailable.
    """
    from graphexec.runtime.executable import Executable
    from graphexec.runtime.find import find_device

    check_graph(graph)
    chosen = options_of(options, keywords)
    if weights_from is not None and device == "auto":
        device = weights_from.device_name
    on = find_device(device) if isinstance(device, str) else device
    on = on.reproducing() if chosen.reproducible else on

    if weights_from is not None:
        weights_from.lends_to(graph, on)

    def plan(source: Graph, resident: bool) -> Compiled:
        return plan_on(source, on, replace(chosen, resident=resident))

    return Executable(graph, plan, on, resident=chosen.resident, timeout=chosen.timeout,
                      weights_from=weights_from)  # fmt: skip


def plan_on(graph: Graph, device: Device, options: Options) -> Compiled:
    """Plan `graph` for a device at hand: it is asked what it does, and what was measured on it is
    used."""
    return plan_graph(
        graph, device=device.name, options=options,
        hardware=device,
        kept=lambda typed: find_profile(typed, lambda: device.machine()),
    )  # fmt: skip


__all__ = ["Options", "compile", "make_plan", "plan_on"]
