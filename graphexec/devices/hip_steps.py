"""A plan's instructions as prepared HIP calls: one instruction, one call."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any

from graphexec.command import Gemm, GemmBatch, Kernel, Memcpy, Scalar, TritonKernel
from graphexec.devices.base import Step
from graphexec.devices.hip_bindings import Bindings, HipError
from graphexec.devices.hip_gemm import GemmCall, gemm_call
from graphexec.devices.hip_kernel_cache import KernelCache
from graphexec.devices.hip_memory import WORKSPACE, Memory
from graphexec.devices.hip_resources import Resources
from graphexec.devices.hip_triton import passed
from graphexec.errors import ExecutionError
from graphexec.plan import HostWait, Launch, Plan, Record, Wait
from graphexec.tensor import View

_CTYPES: dict[str, Any] = {"i32": ctypes.c_int32, "i64": ctypes.c_int64, "f32": ctypes.c_float,
           "f64": ctypes.c_double}  # fmt: skip


class Steps:
    """Prepares the calls of a plan; makes its events, and a BLAS handle for each stream with
    GEMMs, with a workspace of its own."""

    def __init__(
        self, hip: Bindings, plan: Plan, resources: Resources, memory: Memory, kernels: KernelCache
    ) -> None:
        self._hip, self._resources, self._memory, self._kernels = hip, resources, memory, kernels
        self._streams = resources.streams
        self._handles = {s.blas_handle: self._handle(s.id) for s in plan.streams
                         if s.blas_handle is not None}  # fmt: skip
        self.events: Mapping[int, Any] = {
            i.event: resources.own(hip.create_event(), hip.destroy_event)
            for i in plan.instructions
            if isinstance(i, Record)
        }

    def launch(self, instruction: Launch) -> Step:
        """A kernel launch, a BLAS call or a copy on the instruction's stream."""
        try:
            match instruction.work:
                case Gemm() as work:
                    return self._gemm([gemm_call(work)], instruction)
                case GemmBatch(members):
                    return self._gemm([gemm_call(member) for member in members], instruction)
                case Kernel() as work:
                    return self._kernel(work, instruction)
                case TritonKernel() as work:
                    return self._triton(work, instruction)
                case Memcpy() as work:
                    return self._memcpy(work, instruction)
                case None:
                    raise ExecutionError("a plan read from a file has no commands to run")
        except HipError as exc:  # of what is prepared here: say for which node
            if exc.node is not None:
                raise
            node = instruction.node
            raise type(exc)(exc.call, exc.code, exc.name, exc.meaning, node) from exc

    def record(self, instruction: Record) -> Step:
        """Record the event on the stream."""
        event, stream = self.events[instruction.event], self._streams[instruction.stream]
        return self._hip.prepare_record(event, stream)

    def wait_event(self, instruction: Wait) -> Step:
        """Let the stream wait for the event."""
        event, stream = self.events[instruction.event], self._streams[instruction.stream]
        return self._hip.prepare_wait(stream, event)

    def host_wait(self, instruction: HostWait) -> Step:
        """Nothing to issue: the host waits for stream 0, where the plan's last record is."""
        return nothing

    def _handle(self, stream: int) -> Any:
        blas, own = self._hip.blas, self._resources.own
        handle = own(blas.create(), blas.destroy)
        workspace = own(self._hip.malloc(WORKSPACE), self._hip.free)
        # In this order: binding the stream resets the workspace.
        blas.set_stream(handle, self._streams[stream])
        blas.set_workspace(handle, workspace, WORKSPACE)
        return handle

    def _gemm(self, calls: Sequence[GemmCall], instruction: Launch) -> Step:
        """One BLAS call for calls that differ in their addresses only."""
        assert instruction.blas_handle is not None
        handle, node = self._handles[instruction.blas_handle], instruction.node
        blas, first = self._hip.blas, calls[0]
        a, b, c = map(self._memory.of, first.views)
        if len(calls) == 1 and first.offsets is None:
            return blas.gemm(handle, first.gemm, a, b, c, node=node)
        tables = [self._addresses(calls, operand) for operand in range(3)]
        gemm = replace(first.gemm, batch=len(tables[0]))
        over_a, over_b, over_c = (self._step(calls, n, table) for n, table in enumerate(tables))
        if over_a is not None and over_b is not None and over_c is not None:
            gemm = replace(gemm, stride_a=over_a, stride_b=over_b, stride_c=over_c)
            return blas.gemm(handle, gemm, a, b, c, node=node)
        a, b, c = map(self._memory.table, tables)
        return blas.gemm_batched(handle, gemm, a, b, c, node=node)

    def _addresses(self, calls: Sequence[GemmCall], operand: int) -> list[int]:
        """Where the matrices of an operand lie."""
        return [
            int(self._memory.of(call.views[operand])) + offset
            for call in calls
            for offset in call.matrices[operand]
        ]

    def _step(self, calls: Sequence[GemmCall], operand: int, table: Sequence[int]) -> int | None:
        """Elements from one matrix to the next, where that is the same throughout one allocation:
        a BLAS knows more of matrices at a stride than of pointers."""
        views = [call.views[operand] for call in calls]
        steps = {after - before for before, after in pairwise(table)}
        if len(steps) > 1 or len({self._memory.block(view) for view in views}) > 1:
            return None
        step, odd = divmod(steps.pop(), views[0].dtype.itemsize)
        return None if odd or step < 0 else step

    def _kernel(self, work: Kernel, instruction: Launch) -> Step:
        kernels = self._hip.kernels
        return kernels.prepare_launch(
            self._kernels.function(work, self._resources.stack()), work.grid, work.block,
            work.shared_bytes, self._streams[instruction.stream],
            kernels.pack([self._argument(a) for a in work.args]), instruction.node,
        )  # fmt: skip

    def _triton(self, work: TritonKernel, instruction: Launch) -> Step:
        kernels, grid = self._hip.kernels, self._kernels.grid(work)
        function, binary = self._kernels.triton(work, self._resources.stack())
        scratch = binary.scratch_bytes * prod(grid) and self._resources.own(
            self._hip.malloc(binary.scratch_bytes * prod(grid)), self._hip.free
        )
        # The compiler adds two pointers to scratch memory; the second is for its profiler.
        extra = (ctypes.c_void_p(int(scratch)), ctypes.c_void_p(0))
        return kernels.prepare_launch(
            function, grid, (binary.threads, 1, 1), binary.shared_bytes,
            self._streams[instruction.stream],
            kernels.pack([*map(self._argument, passed(work.args)), *extra]), instruction.node,
        )  # fmt: skip

    def _memcpy(self, work: Memcpy, instruction: Launch) -> Step:
        low, high = work.dst.byte_range()
        return self._hip.prepare_copy(
            self._memory.of(work.dst), self._memory.of(work.src), high - low,
            self._memory.direction(work), self._streams[instruction.stream], instruction.node,
        )  # fmt: skip

    def _argument(self, argument: View | Scalar) -> Any:
        if isinstance(argument, View):
            return ctypes.c_void_p(int(self._memory.of(argument)))
        return _CTYPES[argument.type](argument.value)


def nothing() -> None:
    """A step with nothing to issue."""


__all__ = ["Steps", "nothing"]
