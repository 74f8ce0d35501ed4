"""Measure many runs in several configurations.

A whole run goes from NumPy to NumPy. The device part is one issue of the plan until the host may
read the outputs: kernels and the plan's transfers. The resident part is the same without
transfers: inputs and outputs stay on the device. Several requests in flight give the throughput in
requests a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from graphexec.base.progress import tracked
from graphexec.base.tensor import Array
from graphexec.ir.plan import Launch, Wait
from graphexec.views.table import count

if TYPE_CHECKING:
    from graphexec.planning.options import Streams
    from graphexec.runtime.executable import Executable

    Inputs = Mapping[str, Array]

_IN_FLIGHT = 2


@dataclass(frozen=True)
class Figures:
    """Statistics of many times, in milliseconds."""

    min: float
    median: float
    p90: float
    p99: float

    @staticmethod
    def of(seconds: Sequence[float]) -> Figures:
        """The statistics of at least one time."""
        ordered = sorted(seconds)

        def at(part: float) -> float:
            return 1e3 * ordered[min(round(part * (len(ordered) - 1)), len(ordered) - 1)]

        return Figures(at(0), 1e3 * median(ordered), at(0.9), at(0.99))


@dataclass(frozen=True)
class CommandTime:
    """A launch: its median in milliseconds, in runs in which every launch was measured."""

    node: str
    command: str
    stream: int
    median: float


@dataclass(frozen=True)
class Result:
    """One configuration: `asked` is the number of streams allowed ("auto": as many as pay),
    `streams` the number used. `waiting` is the median waiting time of each stream in a run,
    `measured` the median of the runs in which it was measured, in milliseconds. They and
    `commands` are empty unless requested and known."""

    mode: str | None
    asked: Streams
    streams: int
    whole: Figures
    device: Figures
    resident: Figures | None
    requests_per_second: float
    commands: tuple[CommandTime, ...] = ()
    waiting: Mapping[int, float] | None = None
    measured: float | None = None

    @property
    def name(self) -> str:
        """Its name in tables."""
        ways = [self.mode] if self.mode else []
        if self.asked == "auto":
            return ", ".join([*ways, f"auto: {count(self.streams, 'stream')}"])
        return ", ".join([*ways, f"{self.streams} of {self.asked} streams"])

    def to_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return asdict(self)


def bench(
    exe: Executable, resident: Executable | None, inputs: Inputs, runs: int, warmup: int,
    detailed: bool, asked: Streams | None = None,
) -> Result:  # fmt: skip
    """Measure `exe`, and `resident`: the same graph compiled without transfers. `asked` is the
    number of streams allowed for the plan. States are afterwards as they were."""
    with exe.state.frozen(), nullcontext() if resident is None else resident.state.frozen():
        return _bench(exe, resident, inputs, runs, warmup, detailed, asked)


def _bench(
    exe: Executable, resident: Executable | None, inputs: Inputs, runs: int, warmup: int,
    detailed: bool, asked: Streams | None,
) -> Result:  # fmt: skip
    session = exe.session
    for _ in tracked("warming up", range(warmup), warmup):
        exe.run(**inputs)
    whole = _times("whole runs", lambda: exe.run(**inputs), runs)

    def issue() -> None:
        session.issue()
        session.wait(exe.timeout)

    device = _times("the device part", issue, runs)
    still = None
    if resident is not None:
        for _ in range(max(warmup, 1)):
            resident.run(**inputs)  # uploads the inputs
        still = Figures.of(_times("resident runs", resident.replay, runs))
    for _ in exe.map([inputs] * _IN_FLIGHT, in_flight=_IN_FLIGHT):
        pass  # the second session is made here
    start = time.perf_counter()
    requests = tracked("requests in flight", [inputs] * runs, runs)
    for _ in exe.map(requests, in_flight=_IN_FLIGHT):
        pass
    rate = runs / (time.perf_counter() - start)
    details = _details(exe, inputs, min(runs, 50)) if detailed else ((), None, None)
    streams = len(exe.plan.streams)
    figures = Figures.of(whole), Figures.of(device), still
    return Result(session.mode, asked or streams, streams, *figures, rate, *details)


def _times(what: str, run: Callable[[], object], runs: int) -> list[float]:
    found = []
    for _ in tracked(what, range(runs), runs):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found


def _details(
    exe: Executable, inputs: Inputs, runs: int
) -> tuple[tuple[CommandTime, ...], Mapping[int, float] | None, float | None]:  # fmt: skip
    """The time of each launch and the waiting time of each stream, in concurrent runs."""
    session = exe.session
    exe.run(**inputs)
    times: dict[int, list[float]] = {}
    ends: list[float] = []
    for _ in tracked("measured runs", range(runs), runs):
        found = session.timed()
        ends.append(1e-3 * max((span.end for span in found.launches), default=0.0))
        for span in (*found.launches, *found.waits):
            times.setdefault(span.instruction, []).append(1e-3 * (span.end - span.start))
    commands, waiting = [], dict.fromkeys((s.id for s in exe.plan.streams), 0.0)
    for number, i in enumerate(exe.plan.instructions):
        if isinstance(i, Launch):
            commands.append(CommandTime(i.title, i.command, i.stream, median(times[number])))
        elif isinstance(i, Wait) and number in times:
            waiting[i.stream] += median(times[number])
    return tuple(commands), waiting, median(ends)
