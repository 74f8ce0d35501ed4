"""NumPy arrays in pinned host memory, which the device copies from and to directly.

Ordinary memory must be copied into pinned memory before the device can read it, and out of it
again. On a fast link this limits `Executable.map`.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphexec.base.errors import DeviceUnavailable
from graphexec.base.interrupts import uninterrupted
from graphexec.base.tensor import Array, DType
from graphexec.runtime.process import Process

if TYPE_CHECKING:
    from graphexec.runtime.hip.bindings import Bindings

Pointer = Any

_lock = threading.RLock()  # reentrant: finalizers may run while it is held


def pinned_empty(shape: int | tuple[int, ...], dtype: Any) -> Array:
    """An uninitialized C-contiguous array in pinned memory; in ordinary memory without a GPU.

    As an input of `run`, `submit` or `map` on a GPU it is read in place: do not change it before
    the result is there. `dtype` is NumPy's, or the name of one of ours: f16, i8. Raises OutOfMemory
    if the memory cannot be pinned.
    """
    from graphexec.runtime.hip.bindings import load

    ours = isinstance(dtype, str) and dtype in set(DType)
    dtype = DType(dtype).numpy() if ours else np.dtype(dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    try:
        hip = load()
    except DeviceUnavailable:
        return np.empty(shape, dtype)
    if nbytes == 0:
        return np.empty(shape, dtype)
    array = uninterrupted(lambda: _allocated(hip, nbytes))
    typed: Array = array.view(dtype).reshape(shape)
    return typed


def _allocated(hip: Bindings, nbytes: int) -> Array:
    pointer = hip.host_malloc(nbytes)
    return _bytes_at(pointer, nbytes, lambda: hip.host_free(pointer), by_caller=True)


def is_pinned(array: Array) -> bool:
    """Whether `array` is one of `pinned_empty`, or a window on one in C order.

    Results in pinned memory do not count: their owner may change them at any time.
    """
    owner: Any = array.base
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return getattr(owner, "pinned_by_caller", False) and bool(array.flags.c_contiguous)


class PinnedPool:
    """Blocks of pinned memory, handed out as bytes and reused when no array refers to them."""

    def __init__(self, hip: Bindings) -> None:
        self._hip = hip
        self._idle: dict[int, list[Pointer]] = {}
        self._closed = False

    def take(self, nbytes: int) -> Array:
        """A block, as uint8. Raises HipOutOfMemory."""
        return uninterrupted(lambda: self._take(nbytes))

    def _take(self, nbytes: int) -> Array:
        with _lock:
            idle = self._idle.get(nbytes)
            pointer = idle.pop() if idle else None
        if pointer is None:
            pointer = self._hip.host_malloc(nbytes)
        return _bytes_at(pointer, nbytes, lambda: self._take_back(pointer, nbytes), by_caller=False)

    def close(self) -> None:
        """Free idle blocks, and from now on every returned block."""
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


def _bytes_at(pointer: Pointer, nbytes: int, dropped: Callable[[], None], by_caller: bool) -> Array:
    """The memory as an array; `dropped` is called after the last reference to it or a view."""
    kind: Any = type(
        "PinnedBytes", (ctypes.c_ubyte * nbytes,), {"pinned_by_caller": by_caller}
    )  # a class of its own, since only instances of such can be referred to weakly
    owner = kind.from_address(int(pointer))
    process = Process()

    def here() -> None:  # a fork must not free what its parent has
        if process.here:
            dropped()

    weakref.finalize(owner, here).atexit = False  # the process's end frees it
    return np.frombuffer(owner, dtype=np.uint8)
