"""From the members of a batch to the one command that does their work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from graphexec.base.tensor import View
from graphexec.ir.program import Command, Cost, Gemm, GemmBatch, Kernel, Memcpy, TritonKernel, Work
from graphexec.machine.epilogue import adds_bias
from graphexec.planning.batch.layout import Layout, views_of


def merged(
    members: Sequence[Command], layout: Layout, capabilities: Collection[str]
) -> tuple[Command, ...]:
    """One command for commands of one kind that are independent, or two in this order; () if there
    is none.

    Binds storages in `layout` where a stride needs it. GEMMs that add a bias become one product if
    all lies at strides, and if the device adds biases that differ to the products of a batch.
    Otherwise they fall back to what they are without that, biases put into the results and products
    added: two commands for all, as if the bias had never been the GEMMs'. That is not done where
    beta · c + bias would be rounded to half precision.
    """
    work = _work(members, layout, capabilities)
    if work is not None:
        return (_one(members, work),)
    if isinstance(members[0].work, Gemm) and members[0].work.bias is not None:
        return _biases_first(members, layout, capabilities)
    return ()


def _biases_first(
    members: Sequence[Command], layout: Layout, capabilities: Collection[str]
) -> tuple[Command, ...]:
    from graphexec.ops.gemm import bias_first  # the commands it makes are of that op

    apart = [pair for pair in map(bias_first, members) if pair is not None]
    if not apart:
        return ()
    starts, products = ([pair[n] for pair in apart] for n in (0, 1))
    start = merged(starts, layout, capabilities)
    return start and (*start, *merged(products, layout, capabilities))


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


def partitioned(
    alike: Sequence[int], commands: Sequence[Command], layout: Layout
) -> Iterator[list[int]]:
    """The commands in parts whose operands could lie at a constant stride: each operand on one
    storage, as windows, or on storages that could lie beside one another."""
    operands = {i: [view.storage for view in views_of(commands[i])] for i in alike}
    users = Counter(place for names in operands.values() for place in enumerate(names))
    parts: dict[object, list[int]] = {}
    for index, names in operands.items():
        near = (name if users[place, name] > 1 else layout.company(name)
                for place, name in enumerate(names))  # fmt: skip
        parts.setdefault(tuple(near), []).append(index)
    yield from parts.values()


def _work(members: Sequence[Command], layout: Layout, capabilities: Collection[str]) -> Work | None:
    first = members[0]
    if isinstance(first.work, Gemm):
        return _gemm([m.work for m in members if isinstance(m.work, Gemm)], layout, capabilities)
    reads = _stacked([member.reads for member in members], layout)
    writes = _stacked([member.writes for member in members], layout)
    # What is written is dense, so that threads can go along it.
    if reads is None or writes is None or not all(view.is_dense for view in writes):
        return None
    if isinstance(first.work, Kernel | TritonKernel):
        return None if first.recipe is None else first.recipe(reads, writes)
    assert isinstance(first.work, Memcpy)
    return replace(first.work, src=reads[0], dst=writes[0]) if reads[0].is_dense else None


def _gemm(
    members: Sequence[Gemm], layout: Layout, capabilities: Collection[str]
) -> Gemm | GemmBatch | None:
    before = len(layout.groups)
    work = at_strides(members, layout)
    if work is not None and (work.bias is None or adds_bias(work, capabilities)):
        return work
    layout.forget(before)
    if members[0].bias is not None:
        return None
    layout.stacked([m.out for m in members])  # for those that read the results
    return GemmBatch(tuple(members))


def at_strides(members: Sequence[Gemm], layout: Layout) -> Gemm | None:
    """The products as one with a batch axis more; None where an operand lies at no stride."""
    found = _operands(members, layout)
    return None if None in found.values() else replace(members[0], **found)


def no_stride(members: Sequence[Gemm], layout: Layout) -> list[str]:
    """The operands that lie at no constant stride."""
    return [name for name, view in _operands(members, layout).items() if view is None]


def _operands(members: Sequence[Gemm], layout: Layout) -> dict[str, Any]:
    """By name one view over that of every member, or None."""
    first = members[0]
    return {
        name: layout.stacked([getattr(member, name) for member in members])
        for name in ("out", "a", "b", "c", "bias")
        if getattr(first, name) is not None
    }


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
        again = sum(_nbytes(view) for view in member.reads if view in seen)
        total += Cost(member.cost.flops, max(0, member.cost.bytes - again))
        seen.update(member.reads)
    return total


def _nbytes(view: View) -> int:
    extents = (e for e, step in zip(view.shape, view.strides, strict=True) if step)
    return prod(extents) * view.dtype.itemsize


__all__ = ["at_strides", "merged", "no_stride", "partitioned"]
