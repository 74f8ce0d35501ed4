"""From the members of a batch to the one command that does their work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphexec.base.tensor import View
from graphexec.ir.access import distinct_bytes
from graphexec.ir.program import Command, Cost, Gemm, GemmBatch, Memcpy, Work
from graphexec.machine.support import Asking
from graphexec.planning.layout import Layout


def merged(members: Sequence[Command], layout: Layout, support: Asking) -> Command | None:
    """One command for commands of one kind that are independent; None if there is none.

    Binds storages in `layout` where a stride needs it.
    """
    work = _work(members, layout, support)
    return None if work is None else _one(members, work)


def _one(members: Sequence[Command], work: Work) -> Command:
    first = members[0]
    return replace(
        first,
        work=work,
        reads=tuple(view for member in members for view in member.reads),
        writes=tuple(member.writes[0] for member in members),
        cost=_cost(members),
        after=tuple(sorted({index for member in members for index in member.after})),
        after_nodes=tuple(dict.fromkeys(n for member in members for n in member.after_nodes)),
        inplace=tuple(
            (place * len(first.reads) + read, place)
            for place, member in enumerate(members)
            for read, _ in member.inplace
        ),
        nodes=tuple(member.node for member in members),
        recipe=None,
    )


def _work(members: Sequence[Command], layout: Layout, support: Asking) -> Work | None:
    first = members[0]
    if isinstance(first.work, Gemm):
        return _gemm([m.work for m in members if isinstance(m.work, Gemm)], layout)
    reads = _stacked([member.reads for member in members], layout)
    writes = _stacked([member.writes for member in members], layout)
    # Results must be dense: threads walk along them.
    if reads is None or writes is None or not all(view.is_dense for view in writes):
        return None
    if isinstance(first.work, Memcpy):
        return replace(first.work, src=reads[0], dst=writes[0]) if reads[0].is_dense else None
    work = None if first.recipe is None else first.recipe(reads, writes)
    return None if work is None or support(work).refused else work


def _gemm(members: Sequence[Gemm], layout: Layout) -> Gemm | GemmBatch:
    before = len(layout.groups)
    out, a, b = (
        layout.stacked([getattr(member, name) for member in members]) for name in ("out", "a", "b")
    )
    if a is not None and b is not None and out is not None:
        return replace(members[0], a=a, b=b, out=out)
    layout.forget(before)
    layout.stacked([m.out for m in members])  # for those that read the results
    return GemmBatch(tuple(members))


def _stacked(members: Sequence[Sequence[View]], layout: Layout) -> list[View] | None:
    """For each operand one view over that of every member."""
    found = []
    for views in zip(*members, strict=True):
        view = layout.stacked(views)
        if view is None:
            return None
        found.append(view)
    return found


def _cost(members: Sequence[Command]) -> Cost:
    """All operations; bytes that several members read are read once."""
    total = Cost()
    seen: set[View] = set()
    for member in members:
        again = sum(distinct_bytes(view) for view in member.reads if view in seen)
        total += Cost(member.cost.flops, max(0, member.cost.bytes - again))
        seen.update(member.reads)
    return total
