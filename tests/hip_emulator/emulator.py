"""The emulator's own functions from Python: settings, faults, hanging, traces, live counts.

>>> emulator = Emulator.load()      # before the first call through hip-python
>>> emulator.set_seed(3)
>>> emulator.fail("hipMalloc:2=2")  # the second hipMalloc from here: hipErrorOutOfMemory
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from . import build


@dataclass(frozen=True)
class LiveCounts:
    """How many objects of each kind have been created and not destroyed."""

    device_allocations: int
    device_bytes: int
    pinned_allocations: int
    pinned_bytes: int
    streams: int
    events: int
    graphs: int
    execs: int
    modules: int
    blas_handles: int
    blaslt_objects: int
    programs: int


class Emulator:
    """The emulator loaded into this process; there is only one."""

    _loaded: ClassVar[Emulator | None] = None

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.emulatorSetSeed.argtypes = [ctypes.c_uint64]
        library.emulatorSetMemory.argtypes = [ctypes.c_uint64]
        library.emulatorPending.restype = ctypes.c_uint64
        for take in (library.emulatorTraceTake, library.emulatorExecutionTake):
            take.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
            take.restype = ctypes.c_size_t

    @classmethod
    def load(cls) -> Emulator:
        """Builds the emulator if needed and makes it this process's HIP."""
        if cls._loaded is None:
            cls._loaded = cls(build.load())
        return cls._loaded

    def reset(self) -> None:
        """Destroys everything and goes back to the environment's settings."""
        self.library.emulatorReset()

    def set_seed(self, seed: int) -> None:
        self.library.emulatorSetSeed(seed)

    def set_schedule(self, name: str) -> None:
        """``"adversarial"`` or ``"eager"``."""
        if self.library.emulatorSetSchedule(name.encode()) != 0:
            raise ValueError(f"no schedule is called {name!r}")

    def set_memory(self, nbytes: int) -> None:
        """The size of the device's memory."""
        self.library.emulatorSetMemory(nbytes)

    def set_wavefront(self, lanes: int) -> None:
        """32 or 64. Code compiled before does not load any more."""
        if self.library.emulatorSetWavefront(lanes) != 0:
            raise ValueError(f"a wavefront has 32 or 64 lanes, not {lanes}")

    def fail(self, faults: str) -> None:
        """``"name:call=status,…"``; the call is counted from 1, ``*`` is every call."""
        if self.library.emulatorFail(faults.encode()) != 0:
            raise ValueError(f"not name:call=status,…: {faults!r}")

    @contextmanager
    def hang(self, stream_number: int = -1) -> Iterator[None]:
        """The device makes no progress, at all or on one stream (0 is the NULL stream)."""
        self.library.emulatorHang(stream_number)
        try:
            yield
        finally:
            self.resume()

    def resume(self) -> None:
        self.library.emulatorResume()

    def pending(self) -> int:
        """Commands issued that have not run."""
        return int(self.library.emulatorPending())

    def trace(self) -> None:
        """Starts to collect calls and executed commands."""
        self.library.emulatorTraceStart()

    def calls(self) -> list[str]:
        """``name(arguments) -> status`` of each call since the start or the last time."""
        return _take_lines(self.library.emulatorTraceTake)

    def executed(self) -> list[str]:
        """The commands since the start or the last time, in the order in which they ran."""
        return _take_lines(self.library.emulatorExecutionTake)

    def live(self) -> LiveCounts:
        counts = (ctypes.c_int64 * 12)()
        self.library.emulatorLiveCounts(counts)
        return LiveCounts(*counts)


def _take_lines(take: Callable[[ctypes.Array[ctypes.c_char] | None, int], int]) -> list[str]:
    buffer = ctypes.create_string_buffer(take(None, 0))
    take(buffer, len(buffer))
    return buffer.value.decode().splitlines()
