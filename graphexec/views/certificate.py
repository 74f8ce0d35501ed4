"""The certificate of a plan in a few lines: proved or refuted, and its distance from the bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphexec.base.printable import printable
from graphexec.base.units import shown
from graphexec.ir.figures import figures
from graphexec.ir.plan import Plan, Stats, Wait
from graphexec.views.table import count, size

if TYPE_CHECKING:
    from graphexec.proof import Hazard

_TOLD = 3  # hazards; one missing wait makes many


def certificate(plan: Plan, hazards: Sequence[Hazard]) -> str:
    """The verdict of the verifier; then, unless refuted, the distances from the bounds."""
    if hazards:
        return refutation(hazards)
    waits = sum(isinstance(i, Wait) and i.role == "dependency" for i in plan.instructions)
    proved = f"✓ proved free of races, with {count(waits, 'dependency wait')}"
    stats = figures(plan)
    return proved if stats.predicted_ns is None else f"{proved}\n{bounds(stats)}"


def refutation(hazards: Sequence[Hazard]) -> str:
    """How many hazards, and the first of them, a line each."""
    told = [printable(f"{h.kind} hazard: {h.message}") for h in hazards[:_TOLD]]
    more = [f"and {len(hazards) - _TOLD} more"] if len(hazards) > _TOLD else []
    return "\n".join([f"✗ refuted: {count(len(hazards), 'hazard')}", *told, *more])


def bounds(stats: Stats) -> str:
    """Waits, arena and predicted time, each beside its lower bound."""
    arena = f"arena {size(stats.arena_bytes)}"
    if stats.arena_lower_bound:
        arena += f" = {stats.arena_bytes / stats.arena_lower_bound:.2f} × lower bound"
    time = f"predicted {shown((stats.predicted_ns or 0) / 1000, 4)}"
    if stats.makespan_lower_bound_ns:
        ratio = (stats.predicted_ns or 0) / stats.makespan_lower_bound_ns
        time += f" = {ratio:.2f} × lower bound"
    how = f" ({printable(stats.schedule)}; {printable(stats.costs)})" if stats.schedule else ""
    return f"waits {stats.waits} = minimum for this order; {arena}; {time}{how}"
