"""Launches on the CPU: functions without arguments, prepared once and called often."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from graphexec.base.tensor import Array, View
from graphexec.ir.plan import Launch
from graphexec.ir.program import (
    Collective,
    Compute,
    Gemm,
    GemmBatch,
    Kernel,
    Memcpy,
    Preparable,
    TritonKernel,
    Work,
)
from graphexec.machine.blas_layout import fold_rows
from graphexec.runtime.cpu.cores import Cores
from graphexec.runtime.cpu.gemm import in_turn, prepare_gemm
from graphexec.runtime.cpu.memory import Memory
from graphexec.runtime.ranks.meetings import Meetings

_MEMCPY_PART = 1 << 20  # bytes
_MEMCPY_SERIAL = 1 << 22  # smaller copies are done before another thread wakes up


def prepare_command(
    launch: Launch, work: Work, memory: Memory, cores: Cores, meetings: Meetings | None = None
) -> Callable[[], None]:
    """A function that does the work of a launch on the buffers in `memory`, with idle cores, and
    with other ranks if it is a collective."""
    match work:
        case Gemm() as gemm:
            return _gemm(gemm, launch, memory, cores)
        case GemmBatch(members):
            flops = sum(2 * gemm.out.elements * gemm.a.shape[-1] for gemm in members)
            return in_turn([_gemm(gemm, launch, memory, cores) for gemm in members], flops, cores)
        case Kernel(args=args, compute=compute):
            arrays = [memory.array(v, launch.writes) for v in args if isinstance(v, View)]
            return partial(_prepared(compute), arrays, cores.parallel)
        case TritonKernel(views=views, compute=compute):
            arrays = [memory.array(v, launch.writes) for v in views]
            return partial(_prepared(compute), arrays, cores.parallel)
        case Memcpy() as copy:
            return lambda: _memcpy(memory.bytes(copy.dst), memory.bytes(copy.src), cores)
        case Collective() as collective:
            assert meetings is not None
            return meetings.prepare(launch, collective, lambda v: memory.array(v, launch.writes))


def _prepared(compute: Compute) -> Compute:
    return compute.prepare() if isinstance(compute, Preparable) else compute


def _gemm(gemm: Gemm, launch: Launch, memory: Memory, cores: Cores) -> Callable[[], None]:
    gemm = fold_rows(gemm)  # one tall product is faster than many
    a, b, out = (memory.array(view, launch.writes) for view in (gemm.a, gemm.b, gemm.out))
    c, bias = (None if view is None else memory.array(view) for view in (gemm.c, gemm.bias))
    once = partial(memory.made_once, gemm.b) if memory.is_weight(gemm.b) else None
    relu = gemm.activation == "relu"
    return prepare_gemm(a, b, out, gemm.alpha, gemm.beta, cores, c, bias, relu, once)


def _memcpy(target: Array, source: Array, cores: Cores) -> None:
    if target.size < _MEMCPY_SERIAL:
        target[...] = source
        return

    def body(low: int, high: int) -> None:
        first, last = low * _MEMCPY_PART, high * _MEMCPY_PART
        target[first:last] = source[first:last]

    cores.parallel(-(-target.size // _MEMCPY_PART), body)
