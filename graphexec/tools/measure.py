"""Measure one run: start and end of each launch, by the device's own clocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from graphexec.base.tensor import Array
from graphexec.runtime.trace import Trace

if TYPE_CHECKING:
    from graphexec.runtime.device import Session
    from graphexec.runtime.executable import Executable

    Arrays = Mapping[str, Array]

_T = TypeVar("_T")
_RUNS, _SECONDS = 9, 1.0  # the median is of at most so many runs and seconds


def measure(exe: Executable, inputs: Arrays) -> tuple[dict[str, Array], Trace]:
    """The outputs of the plan, and the time of a run with and without measuring.

    Both times are medians of up to nine runs.
    Raises DeviceUnavailable if the device cannot measure.
    """
    session = exe.session
    with exe.lock:
        outputs = exe.run(**inputs)
        issued, done = _typical(lambda: _plain(session), lambda run: run[1])
        times = _typical(session.timed, lambda run: max((s.end for s in run.launches), default=0.0))
    # A GPU has a clock of its own, so the host's times are those of an unmeasured run.
    host = times.host or (
        ("issue, in a run that is not measured", 0.0, issued),
        ("wait, in a run that is not measured", issued, done),
    )
    trace = Trace(
        exe.plan.graph, exe.device_name, times.launches, times.waits, host, done,
        {node.name: node.line for node in exe.graph.nodes if node.line is not None}, how(session),
    )  # fmt: skip
    return outputs, trace


def how(session: Session) -> str:
    """The source of a session's times, in words."""
    mode = session.mode
    if mode is None:
        return "measured in a run of its own, by the clocks of the workers"
    behind = ", behind replays of the graph so that the host is ahead" if mode == "graph" else ""
    return f"measured in a run of its own by timing events, issued call by call{behind}"


def _plain(session: Session) -> tuple[float, float]:
    """The end of the issue and the end of a run, in microseconds since its beginning."""
    start = time.perf_counter()
    session.issue()
    issued = time.perf_counter()
    session.wait()
    return 1e6 * (issued - start), 1e6 * (time.perf_counter() - start)


def _typical(run: Callable[[], _T], took: Callable[[_T], float]) -> _T:
    """The median of several runs."""
    found, start = [run()], time.perf_counter()
    while len(found) < _RUNS and time.perf_counter() - start < _SECONDS:
        found.append(run())
    return sorted(found, key=took)[len(found) // 2]
