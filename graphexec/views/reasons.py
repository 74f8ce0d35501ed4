"""The reason of a wait: the two launches it orders, and the bytes they share.

A dependency wait comes directly before the launch that needs it, and its record directly after the
launch it waits for, so these two are compared. In plans of other programs this may differ; then
only the order is reported.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphexec.base.printable import printable
from graphexec.ir.plan import Launch, Plan, Range, Wait
from graphexec.views.transfers import Transfers
from graphexec.views.waits import Ends, wait_ends


def reasons(plan: Plan) -> dict[int, str]:
    """One sentence for every wait, by number of its instruction."""
    names = _Names(plan)
    return {
        e.number: _reason(names, plan, e.wait, e)
        for e in wait_ends(plan)
        if isinstance(e.wait, Wait)
    }


def _reason(names: _Names, plan: Plan, wait: Wait, ends: Ends) -> str:
    if ends.record is None:
        return f"event {wait.event} is not recorded before this wait: it orders nothing"
    stream = ends.record.stream
    if wait.role == "fork":
        return f"stream {wait.stream} starts when stream {stream} does"
    if wait.role == "join":
        return f"the run is over only when stream {stream} is"
    if ends.before is None or ends.after is None:
        return f"stream {wait.stream} goes on after event {wait.event} of stream {stream}"
    return _shared(names, plan.launches[ends.before], plan.launches[ends.after], stream)


def _shared(names: _Names, first: Launch, second: Launch, stream: int) -> str:
    early, late = f"'{printable(first.node)}' on stream {stream}", f"'{printable(second.node)}'"
    if shared := _overlap(first.writes, second.reads):
        return f"{late} reads {names.of(first, shared)}, which {early} writes"
    if shared := _overlap(first.reads, second.writes):
        return f"{late} overwrites bytes that {early} reads ({_bytes(shared)})"
    if shared := _overlap(first.writes, second.writes):
        return f"{late} overwrites bytes that {early} writes ({_bytes(shared)})"
    if first.node in second.after:
        return f"the graph says that {late} comes after {early}"
    return f"{late} comes after {early}"


def _overlap(firsts: Sequence[Range], seconds: Sequence[Range]) -> Range | None:
    for a in firsts:
        for b in seconds:
            if a.overlaps(b):
                return Range(a.buffer, max(a.low, b.low), min(a.high, b.high))
    return None


class _Names:
    """The names of bytes: their writer's, if a tensor has it."""

    def __init__(self, plan: Plan) -> None:
        self._buffers = {t.name: t.buffer for t in plan.tensors}
        self._transfers = Transfers(plan)

    def of(self, writer: Launch, r: Range) -> str:
        wanted = self._transfers.tensor(writer)
        return f"'{printable(wanted)}'" if self._buffers.get(wanted) == r.buffer else _bytes(r)


def _bytes(r: Range) -> str:
    return f"{printable(r.buffer)}[{r.low}, {r.high})"
