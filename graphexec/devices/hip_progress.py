"""How far a run that hangs has come, as far as the plan's events tell."""

from __future__ import annotations

from collections.abc import Callable

from graphexec.plan import Launch, Plan, Record

_SHOWN = 12  # names


def progress(plan: Plan, is_done: Callable[[int], bool]) -> str:
    """The launch that completed last and those pending; `is_done(event)` asks for one record.

    A launch counts as completed if a later record on its stream is done.
    """
    completed: list[Launch] = []
    open: dict[int, list[Launch]] = {}
    for instruction in plan.instructions:
        if isinstance(instruction, Launch):
            open.setdefault(instruction.stream, []).append(instruction)
        elif isinstance(instruction, Record) and is_done(instruction.event):
            completed += open.pop(instruction.stream, [])
    left = {id(launch) for launches in open.values() for launch in launches}
    order = [i for i in plan.instructions if isinstance(i, Launch)]
    last = [launch.title for launch in order if id(launch) not in left][-1:]
    pending = dict.fromkeys(
        name for launch in order if id(launch) in left for name in launch.members
    )
    done = f"node '{last[0]}'" if completed else "nothing"
    return f"completed last: {done}; pending: {listed(list(pending))}"


def listed(names: list[str]) -> str:
    """Names for people, not too many."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(f"'{name}'" for name in names[:_SHOWN]) or "nothing") + more


__all__ = ["listed", "progress"]
