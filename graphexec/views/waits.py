"""What each wait of a plan orders: the launch before its record and the launch after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from graphexec.ir.plan import HostWait, Launch, Plan, Record, Wait


@dataclass(frozen=True)
class Ends:
    """A wait and its ends. Launches and the wait are numbers of instructions.

    `record` is None if the event is not recorded before the wait, `before` if nothing is launched
    on its stream before, `after` if nothing is launched on the stream of the wait afterwards.
    """

    number: int
    wait: Wait | HostWait
    record: Record | None
    before: int | None
    after: int | None = None


def wait_ends(plan: Plan) -> list[Ends]:
    """Every wait with its ends, in issue order."""
    last: dict[int, int] = {}
    records: dict[int, tuple[Record, int | None]] = {}
    waiting: dict[int, list[int]] = {}
    found: list[Ends] = []
    for number, i in enumerate(plan.instructions):
        if isinstance(i, Launch):
            last[i.stream] = number
            for place in waiting.pop(i.stream, ()):
                found[place] = replace(found[place], after=number)
        elif isinstance(i, Record):
            records[i.event] = i, last.get(i.stream)
        else:
            if isinstance(i, Wait):
                waiting.setdefault(i.stream, []).append(len(found))
            found.append(Ends(number, i, *records.get(i.event, (None, None))))
    return found


def by_launch(ends: Iterable[Ends]) -> list[Ends]:
    """The waits in the order of the launches after them; waits of the host where they stand."""
    return sorted(ends, key=lambda e: e.number if e.after is None else e.after)
