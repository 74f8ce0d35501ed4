"""Why products that add a bias stay apart: no other products do, as they take arrays of pointers.

A batch of them is one strided batch whose biases the device adds, or two commands of which the
first puts the biases into the results (merged.py). Where it is neither, both have a reason.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from graphexec.ir.program import Gemm
from graphexec.machine.epilogue import needed, takes_bias
from graphexec.planning.batch.layout import Layout
from graphexec.planning.batch.merged import at_strides, no_stride


def why_apart(
    members: Sequence[Gemm], layout: Layout, capabilities: Collection[str], slower: bool
) -> str:
    """Both reasons, in words, where that is so; `slower` says that two commands could be had."""
    before = len(layout.groups)
    reason = _why_not_one(members, layout, capabilities)
    layout.forget(before)
    return f"{reason}; {_why_not_two(members[0], slower)}"


def _why_not_one(
    members: Sequence[Gemm], layout: Layout, capabilities: Collection[str]
) -> str:  # fmt: skip
    before = len(layout.groups)
    nowhere = no_stride(members, layout)
    if "bias" in nowhere:
        return "their biases lie at no constant stride"
    if nowhere:
        them = " and ".join(nowhere)
        return f"their {them} lie at no constant stride, and arrays of pointers take no bias"
    layout.forget(before)
    work = at_strides(members, layout)
    if work is None or not takes_bias(work):
        return "all of them are no strided batch to which a bias can be added"
    if not needed(work) <= set(capabilities):
        return "the device does not add a bias of its own to each product of a batch"
    return "the device has no algorithm that adds the biases of them all"


def _why_not_two(member: Gemm, slower: bool) -> str:
    if slower:
        return "putting the biases into the results first would not be faster"
    if member.c is not None and member.out.dtype.itemsize == 2:
        return "beta · c + bias, put into the results first, would be rounded to half precision"
    return "no single command puts the biases into the results first"


__all__ = ["why_apart"]
