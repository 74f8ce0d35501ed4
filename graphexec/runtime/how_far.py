"""The progress of a run that takes too long, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphexec.ir.plan import Launch, Plan, Record

_SHOWN = 12  # names


def progress(plan: Plan, is_done: Callable[[int], bool]) -> str:
    """The launch that completed last and those pending; `is_done(event)` asks for one record.

    A launch counts as completed if a later record on its stream is done.
    """
    open: dict[int, list[Launch]] = {}
    for instruction in plan.instructions:
        if isinstance(instruction, Launch):
            open.setdefault(instruction.stream, []).append(instruction)
        elif isinstance(instruction, Record) and is_done(instruction.event):
            open.pop(instruction.stream, None)
    left = {id(launch) for launches in open.values() for launch in launches}
    order = [*plan.launches.values()]
    done = [launch for launch in order if id(launch) not in left]
    return told(done, [launch for launch in order if id(launch) in left])


def told(completed: Sequence[Launch], pending: Sequence[Launch]) -> str:
    """The last of the launches that completed, and the nodes of those that are pending."""
    last = f"node '{completed[-1].title}'" if completed else "nothing"
    nodes = dict.fromkeys(name for launch in pending for name in launch.members)
    return f"completed last: {last}; pending: {listed(list(nodes))}"


def listed(names: list[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(f"'{name}'" for name in names[:_SHOWN]) or "nothing") + more
