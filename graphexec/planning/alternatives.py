"""Plans that are measured: several of one graph, and those of probes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from graphexec.base.collector import collector_at_rest
from graphexec.ir.graph import Graph
from graphexec.ir.plan import Plan
from graphexec.ir.program import Program
from graphexec.ir.typed import TypedGraph
from graphexec.machine.costs import model_of
from graphexec.planning.allocate import allocate
from graphexec.planning.assemble import assemble
from graphexec.planning.pipeline import Compiled
from graphexec.planning.profile import Profile
from graphexec.planning.programs import Streams, Variant, most_streams, programmed
from graphexec.planning.schedule import alternatives, schedule
from graphexec.planning.scheduled import Schedule, dependencies
from graphexec.planning.scheduling import ONE_STREAM
from graphexec.planning.synchronize import synchronize
from graphexec.proof import verify as prove


def alternative_plans(
    graph: Graph, most: int, *, streams: Streams, device: str, resident: bool, costs: Profile,
    capabilities: Collection[str] | None = None, no_rewrite: Collection[str] = (),
) -> list[Compiled]:  # fmt: skip
    """Plans of `graph` that differ in how they were scheduled: up to `most`, the best by prediction
    first, and the best on one stream.

    What is worth a batch depends on the number of streams, so the last may be of another program.
    """

    def program(streams: Streams) -> tuple[TypedGraph, Variant]:
        return programmed(
            graph, streams=streams, device=device, resident=resident, costs=costs,
            capabilities=capabilities, no_rewrite=no_rewrite,
        )  # fmt: skip

    model, limit = costs.applied_to(model_of(device)), most_streams(streams)
    (typed, several), (_, alone) = program(streams), program(1)
    with collector_at_rest():
        found = [
            (several, s) for s in alternatives(several.program, limit, model, most) if s.streams > 1
        ]
        found.append((alone, schedule(alone.program, 1, model, ONE_STREAM)))
        return [_proved(typed, variant, s, device, costs) for variant, s in found]


def _proved(
    graph: TypedGraph, variant: Variant, scheduled: Schedule, device: str, costs: Profile
) -> Compiled:  # fmt: skip
    synchronized = synchronize(scheduled)
    allocation = allocate(synchronized)
    plan = assemble(synchronized, allocation, device)
    prove(plan)
    return Compiled(
        graph, variant.rewritten, variant.program, plan, synchronized, allocation, variant.notes,
        costs,
    )  # fmt: skip


def plan_program(
    program: Program, order: Sequence[int], stream: Sequence[int], device: str
) -> Plan:  # fmt: skip
    """The plan of commands in a given order on given streams, proved."""
    needs = dependencies(program.commands)
    synchronized = synchronize(Schedule(program, needs, tuple(order), tuple(stream)))
    plan = assemble(synchronized, allocate(synchronized), device)
    prove(plan)
    return plan


__all__ = ["alternative_plans", "plan_program"]
