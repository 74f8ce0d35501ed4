"""Figures of a plan: as its maker states them, if they fit the plan, else as they can be counted.

A plan that another program wrote may have none, and those of a plan that was edited may be of the
plan as it was.
"""

from __future__ import annotations

from graphexec.ir.plan import Plan, Record, Stats, Wait

_COUNTED = ("streams", "waits", "events", "arena_bytes")


def counted(plan: Plan) -> Stats:
    """The figures that follow from the plan alone."""
    return Stats(
        streams=len(plan.streams),
        waits=sum(isinstance(i, Wait) and i.role == "dependency" for i in plan.instructions),
        events=sum(isinstance(i, Record) for i in plan.instructions),
        arena_bytes=sum(b.bytes for b in plan.buffers if b.role == "arena"),
    )


def figures(plan: Plan) -> Stats:
    """What may be said of the plan: its stats, or if they are stale or missing what is counted."""
    return counted(plan) if plan.stats is None or stale(plan) else plan.stats


def stale(plan: Plan) -> list[str]:
    """What the stats of a plan say that is not so; empty if there are none."""
    stats = plan.stats
    if stats is None:
        return []
    true = counted(plan)
    pairs = [(name, getattr(stats, name), getattr(true, name)) for name in _COUNTED]
    found = [
        f"{name} is {said}, but the plan has {has}" for name, said, has in pairs if said != has
    ]
    if (stats.arena_lower_bound or 0) > true.arena_bytes and not found:
        found.append(f"arena_lower_bound {stats.arena_lower_bound} is above arena_bytes")
    if stats.predicted_ns is not None and (stats.makespan_lower_bound_ns or 0) > stats.predicted_ns:
        low = stats.makespan_lower_bound_ns
        found.append(f"makespan_lower_bound_ns {low} is above predicted_ns")
    return [f"the figures are of another plan: {text}" for text in found]
