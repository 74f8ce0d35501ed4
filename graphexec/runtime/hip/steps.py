"""A plan's instructions as prepared HIP calls: one instruction, one call."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from math import prod
from typing import Any

from graphexec.base.tensor import View
from graphexec.ir.plan import HostWait, Launch, Plan, Record, Wait
from graphexec.ir.program import (
    Collective,
    Gemm,
    GemmBatch,
    Kernel,
    Memcpy,
    Scalar,
    TritonKernel,
    Work,
)
from graphexec.runtime.device import Step
from graphexec.runtime.hip.bindings import Bindings, HipError
from graphexec.runtime.hip.kernel_cache import KernelCache
from graphexec.runtime.hip.meetings import HipMeetings
from graphexec.runtime.hip.memory import Memory
from graphexec.runtime.hip.products import Products
from graphexec.runtime.hip.resources import Resources
from graphexec.runtime.hip.triton import passed

_CTYPES: dict[str, Any] = {"i32": ctypes.c_int32, "i64": ctypes.c_int64, "f32": ctypes.c_float,
           "f64": ctypes.c_double}  # fmt: skip


class Steps:
    """Prepares the calls of a plan; makes its events."""

    def __init__(
        self, hip: Bindings, plan: Plan, resources: Resources, memory: Memory,
        kernels: KernelCache, products: Products, meetings: HipMeetings | None = None,
    ) -> None:  # fmt: skip
        self._meetings = meetings
        self._products = products
        self._hip, self._resources, self._memory, self._kernels = hip, resources, memory, kernels
        self._streams = resources.streams
        self.events: Mapping[int, Any] = {
            i.event: resources.own(hip.create_event, hip.destroy_event)
            for i in plan.instructions
            if isinstance(i, Record)
        }
        self._nodes = _nodes_of_events(plan)

    def launch(self, instruction: Launch, work: Work) -> Step:
        """A kernel launch, a BLAS call or a copy on the instruction's stream."""
        try:
            match work:
                case Gemm():
                    return self._products.prepare(work, instruction)
                case GemmBatch():
                    return self._products.prepare_batch(work, instruction)
                case Kernel():
                    return self._kernel(work, instruction)
                case TritonKernel():
                    return self._triton(work, instruction)
                case Memcpy():
                    return self._memcpy(work, instruction)
                case Collective():
                    assert self._meetings is not None
                    stream = self._streams[instruction.stream]
                    return self._meetings.prepare(instruction, work, self._memory, stream)
        except HipError as exc:  # add the node
            if exc.node is not None:
                raise
            node = instruction.node
            raise type(exc)(exc.call, exc.code, exc.name, exc.meaning, node) from exc

    def record(self, instruction: Record) -> Step:
        """Record the event on the stream."""
        event, stream = self.events[instruction.event], self._streams[instruction.stream]
        return self._hip.prepare_record(event, stream, self._nodes.get(instruction))

    def wait_event(self, instruction: Wait) -> Step:
        """Let the stream wait for the event."""
        event, stream = self.events[instruction.event], self._streams[instruction.stream]
        return self._hip.prepare_wait(stream, event, self._nodes.get(instruction))

    def host_wait(self, instruction: HostWait) -> Step:
        """Nothing to issue: the host waits for stream 0, where the plan's last record is."""
        return nothing

    def _kernel(self, work: Kernel, instruction: Launch) -> Step:
        kernels = self._hip.kernels
        return kernels.prepare_launch(
            self._kernels.function(work, self._resources.stack()), work.grid, work.block,
            work.shared_bytes, self._streams[instruction.stream],
            kernels.pack([self._argument(a) for a in work.args]), instruction.node,
        )  # fmt: skip

    def _triton(self, work: TritonKernel, instruction: Launch) -> Step:
        kernels, launch = self._hip.kernels, self._kernels.launch(work)
        grid = launch.grid
        function, binary = self._kernels.triton(work, self._resources.stack())
        scratch = self._scratch(binary.scratch_bytes * prod(grid))
        # The compiler adds two pointers to scratch memory; the second is for its profiler.
        extra = (ctypes.c_void_p(int(scratch)), ctypes.c_void_p(0))
        return kernels.prepare_launch(
            function, grid, (binary.threads, 1, 1), binary.shared_bytes,
            self._streams[instruction.stream],
            kernels.pack([*map(self._argument, passed(launch.args)), *extra]), instruction.node,
        )  # fmt: skip

    def _scratch(self, nbytes: int) -> Any:
        """Scratch memory of a kernel, cleared like other memory; 0 if it needs none."""
        if not nbytes:
            return 0
        pointer = self._resources.own(lambda: self._hip.malloc(nbytes), self._hip.free)
        self._hip.prepare_fill(pointer, 0, nbytes, self._streams[0])()
        return pointer

    def _memcpy(self, work: Memcpy, instruction: Launch) -> Step:
        low, high = work.dst.byte_range()
        return self._hip.prepare_copy(
            self._memory.of(work.dst), self._memory.of(work.src), high - low,
            work.direction, self._streams[instruction.stream], instruction.node,
        )  # fmt: skip

    def _argument(self, argument: View | Scalar) -> Any:
        if isinstance(argument, View):
            return ctypes.c_void_p(int(self._memory.of(argument)))
        return _CTYPES[argument.type](argument.value)


def _nodes_of_events(plan: Plan) -> dict[Record | Wait, str]:
    """The node of each event, for errors: a record's is the last node before it on its stream, a
    wait's the next one."""
    found: dict[Record | Wait, str] = {}
    last: dict[int, str] = {}
    waiting: dict[int, list[Wait]] = {}
    for instruction in plan.instructions:
        match instruction:
            case Launch(stream=stream, node=node):
                last[stream] = node
                found |= dict.fromkeys(waiting.pop(stream, ()), node)
            case Record(stream=stream) if stream in last:
                found[instruction] = last[stream]
            case Wait(stream=stream):
                waiting.setdefault(stream, []).append(instruction)
    return found


def nothing() -> None:
    """A step with nothing to issue."""
