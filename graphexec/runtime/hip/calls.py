"""The HIP calls graphexec makes, as typed methods over hip-python.

Methods make the call at once. Methods called `prepare_...` return a step: a call without arguments
that can be repeated at little more than the cost of hip-python. Every failure is a HipError. Sizes
are bytes, times milliseconds.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphexec.ir.program import Direction
from graphexec.runtime.hip.blas import Blas
from graphexec.runtime.hip.blaslt import BlasLt
from graphexec.runtime.hip.graphs import Graphs
from graphexec.runtime.hip.kernels import Kernels
from graphexec.runtime.hip.platform import Platform, Source, platform_name, version_text
from graphexec.runtime.hip.rccl import Rccl
from graphexec.runtime.hip.status import Checker, Step

# hip-python's classes, which are opaque here.
Pointer = Any
Stream = Any
Event = Any

NOT_READY = 600  # hipErrorNotReady
EVENT_DISABLE_TIMING = 2
STREAM_NON_BLOCKING = 1

_KINDS: Mapping[Direction, str] = {
    "h2d": "hipMemcpyHostToDevice",
    "d2h": "hipMemcpyDeviceToHost",
    "d2d": "hipMemcpyDeviceToDevice",
    "h2h": "hipMemcpyHostToHost",
}


@dataclass(frozen=True)
class Modules:
    """hip-python's modules, of either version. `hipblaslt` and `rccl` are None where there are
    none."""

    flavour: str
    version: str
    hip: Any
    hiprtc: Any
    hipblas: Any
    hipblaslt: Any
    rccl: Any
    types: Any
    helpers: Any


@dataclass(frozen=True)
class DeviceProperties:
    """The properties of a device. Memory sizes are bytes; `architecture` is, for example, gfx90a
    or sm_90."""

    name: str
    architecture: str
    total_memory: int
    warp_size: int
    multiprocessors: int
    max_threads_per_block: int
    shared_memory_per_block: int
    l2_cache: int


@dataclass(frozen=True)
class PointerInfo:
    """The place of memory: `kind` is unregistered, host, device or managed."""

    kind: str
    device: int


class Bindings:
    """hip-python bound to one HIP runtime: devices, memory, streams and events. Further calls are
    in `graphs`, `kernels`, `blas`, `lt` and `rccl`. The last two are None where they are
    missing."""

    def __init__(self, modules: Modules, source: Source) -> None:
        self._hip = modules.hip
        self._types = modules.types
        checker = Checker(modules.hip, modules.hiprtc)
        self.check = checker.check
        self._call = checker.call
        self._step = checker.step
        self._directions = {
            direction: modules.hip.hipMemcpyKind[kind] for direction, kind in _KINDS.items()
        }
        self.graphs = Graphs(modules.hip, source.runtime, checker)
        self.kernels = Kernels(modules.hip, modules.hiprtc, modules.types, modules.helpers, checker)
        self.blas = Blas(modules.hip, modules.hipblas, modules.types, checker)
        self.lt = modules.hipblaslt and BlasLt(
            modules.hip, modules.hipblas, modules.hipblaslt, modules.types, checker
        )
        self.rccl = modules.rccl and Rccl(modules.rccl, checker)
        self.platform = Platform(
            name=platform_name(source, self.properties(0).architecture),
            runtime_path=source.path,
            runtime_version=version_text(self._call(self._hip.hipRuntimeGetVersion)),
            devices=source.devices,
            hip_python_version=modules.version,
            flavour=modules.flavour,
        )

    # Devices

    def set_device(self, device: int) -> None:
        """Make a device current for this thread. Each thread starts on device 0."""
        self._call(self._hip.hipSetDevice, device)

    def properties(self, device: int) -> DeviceProperties:
        """The properties of a device."""
        fields = self._out_parameter(
            self._hip.hipGetDeviceProperties, self._hip.hipDeviceProp_t, device
        )
        return DeviceProperties(
            name=_text(fields.name),
            architecture=_text(fields.gcnArchName),
            total_memory=fields.totalGlobalMem,
            warp_size=fields.warpSize,
            multiprocessors=fields.multiProcessorCount,
            max_threads_per_block=fields.maxThreadsPerBlock,
            shared_memory_per_block=fields.sharedMemPerBlock,
            l2_cache=fields.l2CacheSize,
        )

    def synchronize_device(self) -> None:
        """Wait for every stream of the device. Never used in a run: it hides missing edges."""
        self._call(self._hip.hipDeviceSynchronize)

    # Memory

    def memory_info(self) -> tuple[int, int]:
        """Free and total memory of this thread's device."""
        free, total = self._call(self._hip.hipMemGetInfo)
        return free, total

    def malloc(self, nbytes: int) -> Pointer:
        """Device memory, 256-byte aligned. Raises HipOutOfMemory."""
        return self._call(self._hip.hipMalloc, nbytes)

    def free(self, pointer: Pointer) -> None:
        """Free device memory; waits for all work of the device."""
        self._call(self._hip.hipFree, pointer)

    def host_malloc(self, nbytes: int) -> Pointer:
        """Pinned host memory, which asynchronous copies need. Raises HipOutOfMemory."""
        return self._call(self._hip.hipHostMalloc, nbytes, 0)

    def host_free(self, pointer: Pointer) -> None:
        """Free pinned host memory."""
        self._call(self._hip.hipHostFree, pointer)

    def pointer(self, address: int) -> Pointer:
        """A pointer prepared for calls. hip-python builds one at each call from a plain int."""
        return self._types.Pointer(address)

    def host_view(self, pointer: Pointer, nbytes: int) -> memoryview:
        """The bytes of host memory, writable. Valid until the memory is freed."""
        return memoryview((ctypes.c_ubyte * nbytes).from_address(int(pointer))).cast("B")

    def pointer_info(self, pointer: Pointer) -> PointerInfo:
        """The place of an address, for foreign memory."""
        fields = self._out_parameter(
            self._hip.hipPointerGetAttributes, self._hip.hipPointerAttribute_t, pointer
        )
        kind = self._hip.hipMemoryType(fields.type).name.removeprefix("hipMemoryType").lower()
        return PointerInfo(kind, fields.device)

    def copy(self, to: Pointer, source: Pointer, nbytes: int, direction: Direction) -> None:
        """Copy now, on the null stream, and wait."""
        self._call(self._hip.hipMemcpy, to, source, nbytes, self._directions[direction])

    def prepare_copy(
        self,
        to: Pointer,
        source: Pointer,
        nbytes: int,
        direction: Direction,
        stream: Stream,
        node: str | None = None,
    ) -> Step:
        """A copy on a stream. Host memory must be pinned, and stay until the copy is done."""
        kind = self._directions[direction]
        function = self._hip.hipMemcpyAsync
        return self._step(function, to, source, nbytes, kind, stream, node=node)

    def prepare_fill(
        self, to: Pointer, value: int, nbytes: int, stream: Stream, node: str | None = None
    ) -> Step:
        """Set every byte to `value`, 0 to 255."""
        return self._step(self._hip.hipMemsetAsync, to, value, nbytes, stream, node=node)

    # Streams and events

    def create_stream(self) -> Stream:
        """A stream that is not ordered with the null stream."""
        return self._call(self._hip.hipStreamCreateWithFlags, STREAM_NON_BLOCKING)

    def destroy_stream(self, stream: Stream) -> None:
        """Free a stream; work already on it still completes."""
        self._call(self._hip.hipStreamDestroy, stream)

    def synchronize_stream(self, stream: Stream) -> None:
        """Wait for everything on a stream. hip-python 7.2 keeps the GIL meanwhile."""
        self._call(self._hip.hipStreamSynchronize, stream)

    def stream_is_done(self, stream: Stream) -> bool:
        """Whether everything on a stream has completed."""
        return self._is_done(self._hip.hipStreamQuery, stream)

    def create_event(self, timing: bool = False) -> Event:
        """An event; without timing it is cheaper and only orders."""
        flags = 0 if timing else EVENT_DISABLE_TIMING
        return self._call(self._hip.hipEventCreateWithFlags, flags)

    def destroy_event(self, event: Event) -> None:
        """Free an event."""
        self._call(self._hip.hipEventDestroy, event)

    def prepare_record(self, event: Event, stream: Stream, node: str | None = None) -> Step:
        """Let an event mark everything issued to a stream so far."""
        return self._step(self._hip.hipEventRecord, event, stream, node=node)

    def prepare_wait(self, stream: Stream, event: Event, node: str | None = None) -> Step:
        """Let later work on a stream start after the event's last record."""
        return self._step(self._hip.hipStreamWaitEvent, stream, event, 0, node=node)

    def synchronize_event(self, event: Event) -> None:
        """Wait for an event. hip-python 7.2 keeps the GIL meanwhile."""
        self._call(self._hip.hipEventSynchronize, event)

    def event_is_done(self, event: Event) -> bool:
        """Whether an event is complete, or was never recorded."""
        return self._is_done(self._hip.hipEventQuery, event)

    def elapsed(self, start: Event, stop: Event) -> float:
        """Milliseconds between two completed events made with timing."""
        milliseconds: float = self._call(self._hip.hipEventElapsedTime, start, stop)
        return milliseconds

    def _is_done(self, query: Callable[..., Any], thing: Any) -> bool:
        result = query(thing)
        if int(result[0]) == NOT_READY:
            return False
        self.check(result, query.__name__)
        return True

    def _out_parameter(
        self, function: Callable[..., Any], kind: Callable[[], Any], argument: Any
    ) -> Any:
        """Call a function that fills a structure: 7.2 takes it as a parameter, 10 returns it."""
        if len(inspect.signature(function).parameters) == 1:
            return self._call(function, argument)
        fields = kind()
        self._call(function, fields, argument)
        return fields


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
