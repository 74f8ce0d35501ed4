"""The tenants of a plan's arenas: the tensor on each range of bytes, with its lifetime.

A tenant begins with the launch that writes its bytes and ends with the last launch that reads
them. If that launch writes its result in place, the tenant ends when it starts. A node of several
launches that update the same bytes is one tenant. Tenants are derived from byte ranges alone, so
unnamed scratch space is included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphexec.base.printable import printable
from graphexec.ir.plan import Launch, Plan, Range
from graphexec.views.dataflow import data_edges
from graphexec.views.predict import Times
from graphexec.views.transfers import Transfers


@dataclass(frozen=True)
class Tenant:
    """Bytes in use. `users` are the launches that access them, the writer first; `name` is
    their name in the plan."""

    range: Range
    users: tuple[int, ...]
    name: str

    @property
    def bytes(self) -> int:
        """The size in bytes."""
        return self.range.bytes

    def begin(self, times: Times) -> float:
        """The start of the writer."""
        return min(times.start[n] for n in self.users)

    def end(self, times: Times) -> float:
        """The end of the last user."""
        return max(times.end[n] for n in self.users)


def tenants(plan: Plan) -> list[Tenant]:
    """The tenants of every arena, in order of their writers."""
    launches = [*plan.launches.values()]
    arenas = {b.id for b in plan.buffers if b.role == "arena"}
    readers = _readers(plan)
    users: dict[tuple[int, Range], list[int]] = {}
    current: dict[Range, tuple[int, Range]] = {}  # the tenant of the bytes

    def same_node(r: Range, launch: Launch) -> bool:
        return launches[current[r][0]].node == launch.node

    for number, launch in enumerate(launches):
        for r in launch.writes:
            if r.buffer not in arenas or not 0 <= r.low < r.high:
                continue
            if not (r in launch.reads and r in current and same_node(r, launch)):
                current[r] = (number, r)
                users[current[r]] = []
            users[current[r]] += [number, *readers.get((number, r.buffer), ())]
    names = _Names(plan)
    return [
        Tenant(r, _until_handed_over(r, used, launches), names.of(r, launches[n]))
        for (n, r), used in users.items()
    ]


def _until_handed_over(
    r: Range, used: Sequence[int], launches: Sequence[Launch]
) -> tuple[int, ...]:  # fmt: skip
    """The users without those of another node that write their result over these bytes."""
    node = launches[used[0]].node
    return tuple(
        n
        for n in dict.fromkeys(used)
        if launches[n].node == node or not any(r.overlaps(w) for w in launches[n].writes)
    )


def usage(found: Sequence[Tenant], times: Times) -> list[tuple[float, int]]:
    """Bytes in use over time, as steps (time, bytes from then on)."""
    changes: dict[float, int] = {}
    for tenant in found:
        for at, change in ((tenant.begin(times), tenant.bytes), (tenant.end(times), -tenant.bytes)):
            at = round(at, 6)  # an end and the start that follows it are sums of different terms
            changes[at] = changes.get(at, 0) + change
    steps, used = [], 0
    for at in sorted(changes):
        used += changes[at]
        steps.append((at, used))
    return steps


def on_axis(
    steps: Sequence[tuple[float, int]], found: Sequence[Tenant], times: Times, axis: Times
) -> list[tuple[float, int]]:
    """Steps at `times`, moved to their places on `axis`. Unordered events may differ in order
    between the two; a step is never left of the previous one."""
    places: dict[float, float] = {}
    for tenant in found:
        for at, place in (
            (tenant.begin(times), tenant.begin(axis)), (tenant.end(times), tenant.end(axis)),
        ):  # fmt: skip
            at = round(at, 6)
            places[at] = max(places.get(at, 0.0), place)
    moved, right = [], 0.0
    for at, used in steps:
        right = max(right, places[at])
        moved.append((right, used))
    return moved


def _readers(plan: Plan) -> dict[tuple[int, str], list[int]]:
    found: dict[tuple[int, str], list[int]] = {}
    for edge in data_edges(plan):
        if edge.writer is not None:
            found.setdefault((edge.writer, edge.buffer), []).append(edge.reader)
    return found


class _Names:
    """The name of bytes: their writer's, else that of the only tensor placed there."""

    def __init__(self, plan: Plan) -> None:
        self.transfers = Transfers(plan)
        self.by_range: dict[Range, list[str]] = {}
        for t in plan.tensors:
            self.by_range.setdefault(t.range, []).append(t.name)

    def of(self, r: Range, writer: Launch) -> str:
        own = self.transfers.tensor(writer) if self.transfers.of(writer) else writer.node_of(r)
        here = self.by_range.get(r, [])
        if own in here:
            return printable(own)
        return printable(here[0]) if len(here) == 1 else f"{printable(own)} (scratch)"
