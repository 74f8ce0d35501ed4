"""Capture: the plan is issued once to capturing streams, and then launched as one graph.

Requires that the steps ran before, so that the libraries have done their lazy loading, and
that every stream the steps use forks from the origin and joins it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

from graphexec.base.collector import collector_paused
from graphexec.base.interrupts import uninterrupted
from graphexec.runtime.device import Step
from graphexec.runtime.hip.bindings import Bindings, HipError


class CaptureWarning(UserWarning):
    """A plan could not be captured as a graph; it is issued call by call."""


def capture(hip: Bindings, steps: Sequence[Step], origin: Any, owned: ExitStack) -> Step:
    """A step that repeats `steps` in one launch. Raises HipError if the capture fails. Ctrl-C comes
    before or after."""
    return uninterrupted(lambda: _captured(hip, steps, origin, owned))


def _captured(hip: Bindings, steps: Sequence[Step], origin: Any, owned: ExitStack) -> Step:
    graphs = hip.graphs
    with ExitStack() as made:
        graph = _noted_down(hip, steps, origin)
        made.callback(graphs.destroy, graph)
        if graphs.nodes(graph) == 0:
            raise HipError("hipStreamEndCapture", 0, "no nodes", "the captured graph is empty")
        executable = graphs.instantiate(graph)
        made.callback(graphs.destroy_exec, executable)
        graphs.upload(executable, origin)
        owned.push(made.pop_all())
    return graphs.prepare_launch(executable, origin)


def _noted_down(hip: Bindings, steps: Sequence[Step], origin: Any) -> Any:
    hip.graphs.begin_capture(origin)
    try:
        with collector_paused():  # freeing a dropped session would end the capture
            for step in steps:
                step()
        return hip.graphs.end_capture(origin)
    except BaseException:
        # Ends the capture on the streams. It reports the failure again.
        with suppress(HipError):
            hip.graphs.destroy(hip.graphs.end_capture(origin))
        raise
