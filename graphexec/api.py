"""What a user calls: `make_plan`, `compile`, and the options of both.

Planning knows no device and devices know no planning. Here the two meet.
"""

from __future__ import annotations

from dataclasses import fields, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Unpack

from graphexec.ir.ranks import Ranks
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
    weights_from: Executable | None = None, communicator: Any = None,
    **keywords: Unpack[OptionKeywords],
) -> Executable:  # fmt: skip
    """Plan `graph`, prove the plan, and load it on a device, ready to run.

    `device` is "cpu", "hip", "auto" (a GPU if one is usable, else the CPU, with a warning), or a
    CpuDevice or HipDevice with settings of its own. `keywords` are fields of Options and replace
    those of `options`. Without costs, what `graphexec tune` has measured of this graph on this
    device is used; `exe.plan.stats.costs` says so. The caller closes the executable, best by
    `with`. With `weights_from`, an executable of the same graph on the same device, the weights are
    those that it holds, until the last of the two closes; states are the new one's own.

    With a `mesh`, every rank compiles the same graph, and calls the same methods of its executable
    in the same order. The ranks are those of `communicator`, of mpi4py, or those that mpirun or the
    variables RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT started this process with.
    Raises as `make_plan`, DeviceUnavailable, and RankFailed when another rank fails.
    """
    from graphexec.runtime.executable import Executable
    from graphexec.runtime.find import find_device
    from graphexec.runtime.ranks.agree import agree, together
    from graphexec.runtime.ranks.world import check_size, world

    check_graph(graph)
    chosen = options_of(options, keywords)
    if weights_from is not None and device == "auto":
        device = weights_from.device_name
    on = find_device(device) if isinstance(device, str) else device
    on = on.reproducing() if chosen.reproducible else on
    group = None
    mesh = graph.mesh if chosen.mesh is None else chosen.mesh
    if mesh or communicator is not None:
        group = world(communicator)
        check_size(mesh, group, asked=chosen.mesh is not None)
    if group is not None:
        on = on.with_ranks(group)
        agree(group, facts_of(graph, chosen, on))

    if weights_from is not None:
        weights_from.lends_to(graph, on)

    def plan(source: Graph, resident: bool) -> Compiled:
        options = replace(chosen, resident=resident)
        ranks = None if group is None else Ranks.of(group.rank, mesh)
        compiled = together(group, lambda: plan_on(source, on, options, ranks))
        return compiled if ranks is None else ranked(compiled, ranks)

    return Executable(graph, plan, on, resident=chosen.resident, timeout=chosen.timeout,
                      weights_from=weights_from)  # fmt: skip


def ranked(compiled: Compiled, ranks: Ranks) -> Compiled:
    """The plan of a rank, which says so."""
    bound = compiled.bound
    return replace(compiled, bound=replace(bound, plan=replace(bound.plan, ranks=ranks)))


def facts_of(graph: Graph, options: Options, device: Device) -> dict[str, str]:
    """What has to be the same on all ranks, by what people call it."""
    dims = {name: value for name, value in graph.dims.items() if isinstance(value, int)}
    text = graph.with_dims(**dict.fromkeys(dims, 1)).to_yaml()
    same = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in _OWN}
    return {
        "device": device.name,
        **device.machine().versions,
        "graph": f"{graph.name} ({sha256(text.encode()).hexdigest()[:12]})",
        **{f"dim {name}": str(value) for name, value in dims.items()},
        "mesh": ",".join(f"{axis}={n}" for axis, n in (options.mesh or {}).items()),
        **{f"option {name}": str(value) for name, value in same.items()},
    }


_OWN = ("mesh", "costs", "timeout")  # options that ranks need not share, or that stand apart


def plan_on(graph: Graph, device: Device, options: Options, ranks: Ranks | None = None) -> Compiled:
    """Plan `graph` for a device at hand: it is asked what it does, and what was measured on it is
    used."""
    return plan_graph(
        graph, device=device.name, options=options,
        hardware=device, ranks=ranks,
        kept=lambda typed: find_profile(typed, lambda: device.machine()),
    )  # fmt: skip


__all__ = ["Options", "compile", "make_plan", "plan_on"]
