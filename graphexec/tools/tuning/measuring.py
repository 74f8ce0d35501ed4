"""Times of probes on a device, in microseconds.

A probe's plan is loaded, and its inputs are filled with random numbers (the values affect the power
that a GPU draws, and so its speed). It is run a few times to warm up, then for the median. On a GPU
the plan is one captured graph and the time is taken by events.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from types import TracebackType

import numpy as np

from graphexec.base.tensor import Array, DType, View
from graphexec.planning.pipeline import plan_program
from graphexec.runtime.device import Device, Session
from graphexec.tools.tuning.probes import Probe

_WARM_UP = 3  # runs
_LEAST, _MOST = 7, 41  # runs for a median,
_SECONDS = 0.03  # ... which take about this long
_TURN = 3  # runs of one plan before the next plan's turn
_FILLED = 256 << 20  # bytes; larger inputs stay zero
_PATTERN = 1 << 18  # random numbers, repeated


class Loaded:
    """A probe loaded on a device; its inputs hold numbers of `dtype`. Closed on leaving `with`."""

    def __init__(self, probe: Probe, device: Device, dtype: DType = DType.F32) -> None:
        order = range(len(probe.program.commands))
        self._bound = plan_program(probe.program, order, probe.stream, device.name)
        self._dtype = dtype
        self._session: Session = device.open(self._bound, {})
        try:
            self.fill()
        except BaseException:
            self._session.close()
            raise

    def fill(self) -> None:
        """Fill the inputs with random numbers, the same at each call."""
        random = np.random.default_rng(0)
        numbers = random.standard_normal(_PATTERN, np.float32).astype(self._dtype.numpy())
        pattern = numbers.view(np.uint8)
        for buffer in self._bound.plan.buffers:
            if buffer.role == "input" and buffer.bytes <= _FILLED:
                self._session.put(buffer.id, np.resize(pattern, buffer.bytes))

    def time(self) -> float:
        """The median of a few runs, in microseconds."""
        return time_runs(self._session)

    def result(self, view: View) -> Array:
        """The bytes (uint8) around a view after one run on the same inputs as ever."""
        buffer, offset = self._bound.places[view.storage]
        low, high = view.byte_range()
        self.fill()
        self._session.issue()
        self._session.fetch(buffer)
        self._session.wait()
        return self._session.get(buffer)[offset + low : offset + high]

    def __enter__(self) -> Loaded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._session.close()


def time_runs(session: Session) -> float:
    """Microseconds of a run of a loaded plan, the median of some."""
    for _ in range(_WARM_UP):
        session.time_run()
    found: list[float] = []
    end = time.monotonic() + _SECONDS
    while len(found) < _LEAST or (len(found) < _MOST and time.monotonic() < end):
        found.append(session.time_run() * 1e6)
    return median(found)


def time_in_turns(sessions: Sequence[Session], rounds: int = 9) -> list[float]:
    """Microseconds of a run of each of some loaded plans, medians. The plans take turns of a few
    runs, so that a slow moment hits all of them."""
    found: list[list[float]] = [[] for _ in sessions]
    for _ in range(rounds):
        for session, times in zip(sessions, found, strict=True):
            session.time_run()  # caches hold what the last plan used
            times += [session.time_run() * 1e6 for _ in range(_TURN)]
    return [median(times) for times in found]
