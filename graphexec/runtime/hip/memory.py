"""The memory of a session: one allocation for each buffer, one for the inputs and outputs that stay
on the device, pinned memory on the host, and weights uploaded once.

All memory is allocated before the first run, except pinned memory for buffers in device memory:
this is allocated when the host first fills or reads them, and reused. So is spare memory for inputs
that are given for one another.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import accumulate
from typing import Any

import numpy as np

from graphexec.base.interrupts import own
from graphexec.base.progress import tracked
from graphexec.base.tensor import Array, View
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.plan import Plan
from graphexec.ir.program import Direction, aligned
from graphexec.runtime.device import Step
from graphexec.runtime.hip.bindings import Bindings, HipError, HipOutOfMemory
from graphexec.runtime.hip.resources import Resources
from graphexec.runtime.pinned import PinnedPool

Pointer = Any

WORKSPACE = 32 << 20
"""Bytes of the workspace of one BLAS handle: the libraries' recommendation for large GPUs."""

_EDGE = ("input", "output")


class Memory:
    """The buffers of a plan. `host` has the bytes of buffers in pinned host memory."""

    def __init__(
        self, hip: Bindings, bound: BoundPlan, resources: Resources, lender: Memory | None,
        states: Memory | None = None,
    ) -> None:  # fmt: skip
        """Allocate the memory. The weights of a `lender` are shared; they are read only. So are the
        states of `states`."""
        plan = bound.plan
        self._hip, self._plan, self._resources = hip, plan, resources
        self.places = bound.places
        self._origin = resources.streams[0]
        self._pointers: dict[str, Pointer] = {}
        self._staged: dict[str, tuple[Array, Step]] = {}
        self.outgoing = resources.own(lambda: PinnedPool(hip), PinnedPool.close)
        self.sizes = {b.id: b.bytes for b in plan.buffers}
        self.host: dict[str, Array] = {}
        self.edge = (0, 0)  # addresses of the first byte of inputs and outputs, and after the last
        self._spare: dict[str, Pointer] = {}
        self._lent: set[str] = set()  # states that are another session's
        self._take_side_by_side()
        for buffer in plan.buffers:
            if buffer.id in self._pointers:
                continue
            if buffer.role == "weights" and lender is not None:
                self._pointers[buffer.id] = lender._pointers[buffer.id]
            elif buffer.role == "state" and states is not None:
                self._pointers[buffer.id] = states._pointers[buffer.id]
                self._lent.add(buffer.id)
            elif buffer.space == "device":
                self._pointers[buffer.id] = self._malloc(buffer.bytes)
            else:
                self._pointers[buffer.id], self.host[buffer.id] = self._pinned(buffer.bytes)

    def _take_side_by_side(self) -> None:
        """Allocate inputs and outputs in device memory together, in the order of the plan: those of
        a group are at its stride."""
        found = [b for b in self._plan.buffers if b.space == "device" and b.role in _EDGE]
        if not found:
            return
        places = list(accumulate((aligned(b.bytes) for b in found), initial=0))
        first = int(self._malloc(places[-1]))
        self.edge = (first, first + places[-1])
        for buffer, place in zip(found, places, strict=False):
            self._pointers[buffer.id] = self._hip.pointer(first + place)

    # Addresses ------------------------------------------------------------------------------

    def address(self, buffer: str) -> int:
        """The address of a buffer."""
        return int(self._pointers[buffer])

    def at(self, buffer: str, offset: int = 0) -> Pointer:
        """A pointer into a buffer."""
        return self._hip.pointer(self.address(buffer) + offset)

    def of(self, view: View) -> Pointer:
        """A pointer to the first element of a view."""
        buffer, offset = self.places[view.storage]
        return self.at(buffer, offset + view.offset * view.dtype.itemsize)

    # Filling --------------------------------------------------------------------------------

    def clear(self) -> None:
        """Fill device memory of its own except weights with zeros: no run depends on previous
        contents."""
        for buffer in self._plan.buffers:
            own = buffer.role != "weights" and buffer.id not in self._lent
            if buffer.space == "device" and own:
                self._fill_with_zeros(buffer.id)

    def zero(self, buffer: str) -> None:
        """Fill a buffer in device memory with zeros, while nothing runs."""
        self._fill_with_zeros(buffer)
        self._resources.wait([self._origin])
        self._hip.synchronize_stream(self._origin)

    def _fill_with_zeros(self, buffer: str) -> None:
        pointer = self._pointers[buffer]
        self._hip.prepare_fill(pointer, 0, self.sizes[buffer], self._origin)()

    def upload(self, weights: Mapping[str, Array]) -> None:
        """Upload weights through one pinned buffer of the size of the largest."""
        if not weights:
            return
        with ExitStack() as staging:
            pinned, view = self._pinned(max(a.nbytes for a in weights.values()), staging)
            for name, array in tracked("uploading weights", weights.items(), len(weights)):
                view[: array.nbytes] = array.reshape(-1).view(np.uint8)
                target = self.at(*self.places[name])
                self._copy(target, pinned, array.nbytes, "h2d")

    def table(self, addresses: Sequence[int]) -> Pointer:
        """An array of pointers in device memory."""
        content = np.array(addresses, dtype=np.uint64).view(np.uint8)
        pointer = self._malloc(content.nbytes)
        with ExitStack() as staging:
            pinned, view = self._pinned(content.nbytes, staging)
            view[:] = content
            self._copy(pointer, pinned, content.nbytes, "h2d")
        return pointer

    def staging(self, buffer: str) -> tuple[Array, Step]:
        """Pinned bytes for a buffer in device memory, and the copy on stream 0 from there."""
        if buffer not in self._staged:
            pinned, view = self._pinned(self.sizes[buffer])
            self._staged[buffer] = view, self.prepare_upload(buffer, pinned)
        return self._staged[buffer]

    def prepare_upload(self, buffer: str, pinned: Pointer) -> Step:
        """A copy on stream 0 to all of a buffer in device memory."""
        here, size = self._pointers[buffer], self.sizes[buffer]
        return self._hip.prepare_copy(here, pinned, size, "h2d", self._origin)

    def prepare_download(self, buffer: str, pinned: Pointer) -> Step:
        """A copy on stream 0 of all of a buffer in device memory."""
        here, size = self._pointers[buffer], self.sizes[buffer]
        return self._hip.prepare_copy(pinned, here, size, "d2h", self._origin)

    def assignment(self, sources: Mapping[str, int]) -> list[Step]:
        """Copies on stream 0 that fill buffers from addresses of device memory, as if at once:
        what lies in a buffer that is filled goes through spare memory first."""
        moves = {b: at for b, at in sources.items() if at != self.address(b)}
        filled = sorted((self.address(b), self.sizes[b]) for b in moves)
        aside, across = [], []
        for buffer, source in moves.items():
            pointer, size = self._hip.pointer(source), self.sizes[buffer]
            before = bisect_left(filled, (source + size, 0))
            if before and source < sum(filled[before - 1]):  # the last one shares bytes
                spare = self._spare_for(buffer)
                aside.append(self._hip.prepare_copy(spare, pointer, size, "d2d", self._origin))
                pointer = spare
            across.append(self._hip.prepare_copy(self.at(buffer), pointer, size, "d2d",
                                                 self._origin))  # fmt: skip
        return aside + across

    def _spare_for(self, buffer: str) -> Pointer:
        """Device memory of the size of a buffer, allocated when it is first needed."""
        if buffer not in self._spare:
            self._spare[buffer] = self._malloc(self.sizes[buffer])
        return self._spare[buffer]

    def read(self, buffer: str, low: int, high: int, stream: Any) -> Array:
        """A copy of some bytes, ordered after everything on `stream` so far."""
        if buffer in self.host:
            self._resources.wait([stream])
            self._hip.synchronize_stream(stream)
            return self.host[buffer][low:high].copy()
        with ExitStack() as staging:
            pinned, view = self._pinned(high - low, staging)
            self._copy(pinned, self.at(buffer, low), high - low, "d2h", stream)
            return view.copy()

    def contents(self, buffer: str) -> Array:
        """A copy of a buffer, while nothing runs."""
        return self.read(buffer, 0, self.sizes[buffer], self._origin)

    def replace(self, buffer: str, content: Array) -> None:
        """Replace what is in a buffer, while nothing runs."""
        if buffer in self.host:
            self.host[buffer][...] = content
            return
        with ExitStack() as staging:
            pinned, view = self._pinned(content.nbytes, staging)
            view[:] = content
            self._copy(self.at(buffer), pinned, content.nbytes, "h2d")

    def forget(self) -> None:
        """Drop references to freed memory."""
        self.host.clear()
        self._staged.clear()
        self._pointers.clear()
        self._spare.clear()

    def _malloc(self, nbytes: int) -> Pointer:
        return self._resources.own(lambda: self._hip.malloc(nbytes), self._hip.free)

    def _pinned(self, nbytes: int, owned: ExitStack | None = None) -> tuple[Pointer, Array]:
        stack = owned or self._resources.stack()
        pointer = own(stack, lambda: self._hip.host_malloc(nbytes), self._hip.host_free)
        return pointer, np.frombuffer(self._hip.host_view(pointer, nbytes), dtype=np.uint8)

    def _copy(
        self, to: Pointer, source: Pointer, nbytes: int, direction: Direction, stream: Any = None
    ) -> None:
        stream = stream or self._origin
        self._hip.prepare_copy(to, source, nbytes, direction, stream)()
        self._resources.wait([stream])
        self._hip.synchronize_stream(stream)


def too_little(plan: Plan, hip: Bindings, shortage: HipOutOfMemory) -> str:
    """A message with the memory needed and available, after a failed allocation is undone."""
    space = "host" if shortage.call == "hipHostMalloc" else "device"
    parts = {b.id: b.bytes for b in plan.buffers if b.space == space}
    needed = sum(parts.values())
    listed = ", ".join(f"{name} {_mib(size)}" for name, size in parts.items())
    if space == "host":
        return (f"the host has too little memory that can be pinned: {_mib(needed)} needed "
                f"({listed}); {shortage}")  # fmt: skip
    handles = sum(s.blas_handle is not None for s in plan.streams)
    needed += handles * WORKSPACE
    try:
        free, total = hip.memory_info()
        there = f"{_mib(free)} free of {_mib(total)}"
    except HipError as exc:
        there = f"how much is free is not known ({exc})"
    return (
        f"the device has too little memory: {_mib(needed)} needed at peak ({listed}; "
        f"{handles} BLAS workspaces of {_mib(WORKSPACE)}), {there}; {shortage}. "
        "Fewer streams need less"
    )


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:.1f} MiB"
