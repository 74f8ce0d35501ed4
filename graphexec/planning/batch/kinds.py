"""The kind of a command: commands of one kind may be members of one batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from graphexec.base.tensor import View
from graphexec.ir.program import Command, Gemm, Kernel, Memcpy, Storage, TritonKernel


def kind_of(command: Command, storages: Mapping[str, Storage]) -> Hashable:
    """Equal for commands that differ only in the places of their operands; None for a command that
    cannot be batched."""
    if len(command.writes) != 1 or command.nodes:
        return None
    if any(storages[v.storage].space != "device" for v in (*command.reads, *command.writes)):
        return None
    match command.work:
        case Gemm(a, b, out, alpha, beta, None, None):
            return "gemm", alpha, beta, _shape(a), _shape(b), _shape(out)
        case Memcpy(src, dst):
            return "memcpy", _shape(src), _shape(dst)
        case Kernel() | TritonKernel() if command.recipe is not None:
            views = (*command.reads, *command.writes)
            return "kernel", command.recipe, command.inplace, *map(_shape, views)
    return None


def _shape(view: View) -> Hashable:
    return view.shape, view.strides, view.dtype
