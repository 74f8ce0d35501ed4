"""NumPy arrays in pinned host memory, which copies read and write without a stop in between.

Ordinary memory has to be copied into pinned memory before the device can fetch it, and out of it
again. On a fast link the host's memory is then what limits `Executable.map`.
"""

from __future__ import annotations

import bisect
import ctypes
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from graphexec.devices.hip_bindings import Bindings

Array = np.ndarray[Any, Any]
Pointer = Any

_lock = threading.RLock()  # finalizers run wherever an array is dropped, also inside of it
_blocks: list[tuple[int, int]] = []  # address and past-last address of all arrays there are


def pinned_empty(shape: int | tuple[int, ...], dtype: Any) -> Array:
    """An uninitialized C-contiguous array in pinned memory; in ordinary memory without a GPU.

    Given as an input to `run`, `submit` or `map` on a GPU, the device reads it in place: leave it
    as it is until the result is there. Raises OutOfMemory when so much cannot be pinned.
    """
    from graphexec.devices.hip_bindings import load
    from graphexec.errors import DeviceUnavailable

    dtype = np.dtype(dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    try:
        hip = load()
    except DeviceUnavailable:
        return np.empty(shape, dtype)
    if nbytes == 0:
        return np.empty(shape, dtype)
    pointer = hip.host_malloc(nbytes)
    array: Array = _bytes_at(hip, pointer, nbytes, lambda: hip.host_free(pointer)).view(dtype)
    return array.reshape(shape)


def is_pinned(array: Array) -> bool:
    """Whether all of `array` lies in one block of pinned memory of ours, in C order."""
    if not _blocks or not array.flags.c_contiguous or array.nbytes == 0:
        return False
    first = array.ctypes.data
    with _lock:
        at = bisect.bisect_right(_blocks, (first, 1 << 64)) - 1
        return at >= 0 and first + array.nbytes <= _blocks[at][1]


class PinnedPool:
    """Blocks of pinned memory, given out as bytes and used again once nobody refers to them."""

    def __init__(self, hip: Bindings) -> None:
        self._hip = hip
        self._idle: dict[int, list[Pointer]] = {}
        self._closed = False

    def take(self, nbytes: int) -> Array:
        """A block, as uint8. Raises HipOutOfMemory."""
        with _lock:
            idle = self._idle.get(nbytes)
            pointer = idle.pop() if idle else None
        if pointer is None:
            pointer = self._hip.host_malloc(nbytes)
        return _bytes_at(self._hip, pointer, nbytes, lambda: self._take_back(pointer, nbytes))

    def close(self) -> None:
        """Free what is idle, and from now on whatever comes back."""
        with _lock:
            self._closed = True
            idle = [pointer for pointers in self._idle.values() for pointer in pointers]
            self._idle.clear()
        for pointer in idle:
            self._hip.host_free(pointer)

    def _take_back(self, pointer: Pointer, nbytes: int) -> None:
        with _lock:
            if not self._closed:
                self._idle.setdefault(nbytes, []).append(pointer)
                return
        self._hip.host_free(pointer)


def _bytes_at(hip: Bindings, pointer: Pointer, nbytes: int, dropped: Callable[[], None]) -> Array:
    """The memory as an array; `dropped` is called when neither it nor a view of it is left."""
    address = int(pointer)
    owner = _owner_type(nbytes).from_address(address)
    block = (address, address + nbytes)
    with _lock:
        bisect.insort(_blocks, block)

    def forget() -> None:
        with _lock:
            del _blocks[bisect.bisect_left(_blocks, block)]
        dropped()

    weakref.finalize(owner, forget).atexit = False  # the process's end frees it
    return np.frombuffer(owner, dtype=np.uint8)


def _owner_type(nbytes: int) -> Any:
    """A ctypes array type whose instances can be referred to weakly."""
    return type("PinnedBytes", (ctypes.c_ubyte * nbytes,), {})


__all__ = ["PinnedPool", "is_pinned", "pinned_empty"]
