"""Stream capture and graphs."""

from __future__ import annotations

import ctypes
from typing import Any

from graphexec.runtime.hip.status import Checker, Step

# hip-python's classes, which are opaque here.
Stream = Any
Graph = Any
GraphExec = Any


class Graphs:
    """Capture of issued work, and launches of the captured graph."""

    def __init__(self, hip: Any, runtime: ctypes.CDLL, checker: Checker) -> None:
        self._hip = hip
        self._runtime = runtime
        self._check = checker.check
        self._call = checker.call
        self._step = checker.step

    def begin_capture(self, stream: Stream) -> None:
        """Record what this thread issues to a stream, and to streams that fork from it."""
        mode = self._hip.hipStreamCaptureMode.hipStreamCaptureModeThreadLocal
        self._call(self._hip.hipStreamBeginCapture, stream, mode)

    def end_capture(self, stream: Stream) -> Graph:
        """The graph recorded since `begin_capture`; every forked stream must have joined."""
        return self._call(self._hip.hipStreamEndCapture, stream)

    def is_capturing(self, stream: Stream) -> bool:
        """Whether a capture is under way on a stream."""
        return bool(self._call(self._hip.hipStreamIsCapturing, stream))

    def nodes(self, graph: Graph) -> int:
        """How many nodes a graph has."""
        return self._count("hipGraphGetNodes", graph, None)

    def edges(self, graph: Graph) -> int:
        """How many edges a graph has."""
        return self._count("hipGraphGetEdges", graph, None, None)

    def instantiate(self, graph: Graph) -> GraphExec:
        """An instantiated graph, ready to launch; the graph may be destroyed afterwards."""
        return self._call(self._hip.hipGraphInstantiateWithFlags, graph, 0)

    def prepare_launch(self, exec_: GraphExec, stream: Stream) -> Step:
        """Launch a graph on a stream."""
        return self._step(self._hip.hipGraphLaunch, exec_, stream)

    def upload(self, exec_: GraphExec, stream: Stream) -> None:
        """Send a graph to the device ahead of its first launch."""
        self._call(self._hip.hipGraphUpload, exec_, stream)

    def destroy(self, graph: Graph) -> None:
        """Free a captured graph."""
        self._call(self._hip.hipGraphDestroy, graph)

    def destroy_exec(self, exec_: GraphExec) -> None:
        """Free an instantiated graph."""
        self._call(self._hip.hipGraphExecDestroy, exec_)

    def _count(self, name: str, graph: Graph, *arrays: None) -> int:
        """The length of a list. hip-python passes an uninitialized length and room for one
        element, which overwrites memory, so the runtime is called directly."""
        length = ctypes.c_size_t(0)
        code = getattr(self._runtime, name)(
            ctypes.c_void_p(int(graph)), *arrays, ctypes.byref(length)
        )
        self._check((self._hip.hipError_t(code),), name)
        return length.value
