"""Measure one run: when each launch began and ended, as the device's own clocks say."""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from graphexec.devices.base import Recordable
from graphexec.errors import DeviceUnavailable
from graphexec.plan import Launch, Wait
from graphexec.trace import Span, Trace

if TYPE_CHECKING:
    import numpy as np

    from graphexec.executable import Executable

    Arrays = Mapping[str, np.ndarray[Any, Any]]


def measure(exe: Executable, inputs: Arrays) -> tuple[dict[str, np.ndarray[Any, Any]], Trace]:
    """The outputs of a run and what it took; with it what a run takes that nobody measures.

    Runs the plan three times: to warm up, plainly, and measured. Raises DeviceUnavailable when
    the device cannot tell.
    """
    session = exe.session
    if not isinstance(session, Recordable):
        raise DeviceUnavailable(
            f"the device '{exe.device_name}' does not measure single launches; use --device cpu"
        )
    exe.run(**inputs)
    start = time.perf_counter()
    exe.run(**inputs)
    plain = time.perf_counter() - start
    found: list[tuple[int, float, float]] = []
    lock = Lock()

    def recorder(instruction: int, start: float, end: float) -> None:
        with lock:
            found.append((instruction, start, end))

    session.record_to(recorder)
    try:
        start = time.perf_counter()
        pending = exe.submit(**inputs)
        issued = time.perf_counter()
        outputs = pending.result()
        end = time.perf_counter()
    finally:
        session.record_to(None)
    host = (("issue", 0.0, issued - start), ("wait for the outputs", issued - start, end - start))
    return outputs, _trace(exe, found, start, host, plain)


def _trace(
    exe: Executable, found: list[tuple[int, float, float]], zero: float,
    host: tuple[tuple[str, float, float], ...], plain: float,
) -> Trace:  # fmt: skip
    spans = {
        kind: tuple(
            Span(n, (start - zero) * 1e6, (end - zero) * 1e6)
            for n, start, end in sorted(found)
            if isinstance(exe.plan.instructions[n], kind)
        )
        for kind in (Launch, Wait)
    }
    return Trace(
        exe.plan.graph,
        exe.device_name,
        spans[Launch],
        spans[Wait],
        tuple((name, start * 1e6, end * 1e6) for name, start, end in host),
        plain * 1e6,
        {node.name: node.line for node in exe.graph.nodes if node.line is not None},
    )


__all__ = ["measure"]
