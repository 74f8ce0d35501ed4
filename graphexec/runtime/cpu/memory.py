"""The memory of a plan on the CPU: buffers of bytes, with tensors at their offsets.

Inputs and outputs that commands use in place are pieces of one array, in the order of the plan:
those of a group are at its stride. Others are arrays of their own, which are exchanged with the
caller's arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import numpy as np

from graphexec.base.errors import OutOfMemory
from graphexec.base.tensor import Array, View
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.plan import Buffer, Launch, Range
from graphexec.ir.program import aligned

_ALIGNMENT = 64  # bytes, a cache line
_EDGE = ("input", "output")
_WEIGHTS = "weights"


class Memory:
    """The buffers of a plan, by their ids, as arrays of uint8. OutOfMemory if they do not fit."""

    def __init__(
        self, bound: BoundPlan, weights: Mapping[str, Array], lender: Memory | None = None,
        states: Memory | None = None,
    ) -> None:  # fmt: skip
        """`weights` (by storage) are copied in, or those of a `lender` are shared; so are the
        states of `states`."""
        plan = self._plan = bound.plan
        self._places = bound.places
        shared = {_WEIGHTS: lender.buffers[_WEIGHTS]} if lender and weights else {}
        if states is not None:
            shared |= {b.id: states.buffers[b.id] for b in plan.buffers if b.role == "state"}
        launches = [*plan.launches.values()]
        fixed = {r.buffer for i in launches if not _moves(i) for r in i.reads + i.writes}
        fixed |= {b.id for b in plan.buffers if b.space == "device"}  # `in_place` gives them
        beside = [b for b in plan.buffers if b.role in _EDGE and b.id in fixed]
        self.buffers: dict[str, Array] = {}
        self._onwards: dict[str, Array] = _side_by_side(beside)  # each, to the end of the last
        self._edge = self._onwards[beside[0].id] if beside else None
        for b in plan.buffers:
            if b.id in shared:
                self.buffers[b.id] = shared[b.id]
            elif b.id in self._onwards:
                self.buffers[b.id] = self._onwards[b.id][: b.bytes]
            else:
                self.buffers[b.id] = _allocate(f"buffer '{b.id}'", b.bytes)
            if b.role == "state" and b.id not in shared:
                self.buffers[b.id].fill(0)
        for name, array in ({} if _WEIGHTS in shared else weights).items():
            buffer, offset = self._places[name]
            raw = array.reshape(-1).view(np.uint8)
            self.buffers[buffer][offset : offset + raw.size] = raw
        self._made: dict[View, Array] = lender._made if lender else {}
        # Buffers that only copies access: these look up the address when they run.
        movable = [b for b in plan.buffers if b.id not in fixed]
        self._inputs = {b.id: self.buffers[b.id] for b in movable if b.role == "input"}
        self._outputs = {b.id for b in movable if b.role == "output"}

    def fill(self, buffer: str, array: Array, lent: bool) -> None:
        """Copy to an input buffer; a lent array may replace it."""
        if buffer in self._inputs:
            self.buffers[buffer] = array if lent else self._inputs[buffer]
        target = self.buffers[buffer]
        if array.ctypes.data != target.ctypes.data:
            target[...] = array

    def apart(self, buffer: str, array: Array) -> Array:
        """The array, or a copy if it lies in a buffer that is in place, but not all in `buffer`."""
        if self._edge is None or array.ctypes.data == self.buffers[buffer].ctypes.data:
            return array
        return array.copy() if np.may_share_memory(array, self._edge) else array

    def in_place(self, view: View) -> Array:
        """A tensor that is a whole buffer, which the caller may write."""
        found = self.array(view)
        found.flags.writeable = True
        return found

    def hand_over(self, buffer: str) -> Array:
        """An output buffer, which a new one replaces, or a copy."""
        found = self.buffers[buffer]
        if buffer not in self._outputs:
            return found.copy()
        self.buffers[buffer] = _allocate(f"buffer '{buffer}'", found.size)
        return found

    def array(self, view: View, written: Sequence[Range] = ()) -> Array:
        """A tensor as an array on its bytes, read-only unless one is in `written`."""
        buffer, offset = self._places[view.storage]
        size = view.dtype.itemsize
        low, high = (offset + byte for byte in view.byte_range())
        found: Array = np.ndarray(
            view.shape,
            view.dtype.numpy(),
            buffer=self._from(buffer).data,
            offset=offset + view.offset * size,
            strides=tuple(s * size for s in view.strides),
        )
        found.flags.writeable = any(
            r.buffer == buffer and r.low < high and low < r.high for r in written
        )
        return found

    def is_weight(self, view: View) -> bool:
        """Whether the tensor never changes."""
        return self._places[view.storage][0] == _WEIGHTS

    def made_once(self, view: View, make: Callable[[], Array]) -> Array:
        """What `make` gives for a weight, at its first call for this view; siblings share it."""
        if view not in self._made:
            self._made[view] = make()
        return self._made[view]

    def read(self, buffer: str) -> Array:
        """A copy of a buffer."""
        return self.buffers[buffer].copy()

    def write(self, buffer: str, content: Array | np.uint8) -> None:
        """Replace what is in a buffer."""
        self.buffers[buffer][...] = content

    def bytes(self, view: View) -> Array:
        """The bytes from the first to the last of a tensor."""
        buffer, offset = self._places[view.storage]
        low, high = view.byte_range()
        return self._from(buffer)[offset + low : offset + high]

    def range(self, span: Range) -> Array:
        """The bytes of a range."""
        return self.buffers[span.buffer][span.low : span.high]

    def poison(self) -> None:
        """Fill the bytes that a run must write with a pattern: NaN in every dtype of floats."""
        for buffer in self._plan.buffers:
            if buffer.role in ("arena", "output"):
                self.buffers[buffer.id].fill(0xFF)

    def free(self) -> None:
        """Drop the buffers; lent ones stay alive."""
        self.buffers, self._inputs, self._onwards, self._edge = {}, {}, {}, None

    def _from(self, buffer: str) -> Array:
        """A buffer with the following buffers that a view of it may reach."""
        return self._onwards.get(buffer, self.buffers[buffer])


def _moves(launch: Launch) -> bool:
    """Whether a launch copies a whole buffer to a whole buffer."""
    return launch.kind == "memcpy" and len(launch.reads) == len(launch.writes) == 1


def _side_by_side(buffers: Sequence[Buffer]) -> dict[str, Array]:
    """From each buffer to the end of the last."""
    if not buffers:
        return {}
    places = list(accumulate((aligned(b.bytes) for b in buffers), initial=0))
    whole = _allocate("what goes in and out", places[-1])
    return {b.id: whole[place:] for b, place in zip(buffers, places, strict=False)}


def _allocate(what: str, nbytes: int) -> Array:
    try:
        raw = np.empty(nbytes + _ALIGNMENT, dtype=np.uint8)
    except MemoryError as exc:
        raise OutOfMemory(f"{what} needs {nbytes} bytes, more than the host has") from exc
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + nbytes]
