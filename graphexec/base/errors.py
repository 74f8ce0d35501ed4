"""The exceptions graphexec raises.

GraphexecError
├── InputError            what the user wrote or passed is wrong (located, several at once)   exit 2
│   ├── GraphError        ... in a YAML file, a graph built in code, or a plan file
│   └── DataError         ... in an input array, a weights file, or an output path
├── DeviceUnavailable     the requested device cannot be used on this machine                 exit 3
├── HazardError           the verifier refuted the plan (graphexec.proof.hazard)              exit 1
├── ExecutionError        a command failed, or never finished, while the plan ran             exit 1
│   ├── AccessError       a command touched bytes that it does not declare (check_access)
│   ├── OutOfMemory       the device has too little memory for the plan
│   └── TimedOut          a run took longer than its timeout
├── SessionClosed         run() was called after close()                                      exit 1
└── InternalError         an invariant of graphexec itself is broken: please report           exit 1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphexec.base.diagnostics import Diagnostic


class GraphexecError(Exception):
    """Base class of all errors of graphexec; `exit_code` is that of the command line."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by their constructors, which take other arguments: a pool of processes hangs on an
        # exception that cannot be unpickled.
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[GraphexecError], args: tuple[Any, ...]) -> GraphexecError:
    return kind.__new__(kind, *args)


class InputError(GraphexecError):
    """One or more mistakes in the user's input; `diagnostics` has each with its place."""

    exit_code = 2

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n\n".join(d.render() for d in self.diagnostics))


class GraphError(InputError):
    """A graph (YAML or built in code) or a plan file is wrong."""


class DataError(InputError):
    """An input array, a weights file or an output path is wrong."""


class DeviceUnavailable(GraphexecError):
    """The requested device cannot be used here; the message has the reason and a help."""

    exit_code = 3


class ExecutionError(GraphexecError):
    """A command failed while the plan ran; `node` is its node, if known."""

    def __init__(self, message: str, node: str | None = None) -> None:
        self.node = node
        super().__init__(message if node is None else f"node '{node}': {message}")


class AccessError(ExecutionError):
    """A command read or wrote bytes that it does not declare, so no plan with it is safe."""


class OutOfMemory(ExecutionError):
    """The device has too little memory; the message states needed, free and total bytes."""


class TimedOut(ExecutionError):
    """A run took longer than its timeout; the message names completed and pending nodes."""


class RankFailed(ExecutionError):
    """A rank failed, so no rank can go on; the message says which and where."""


class SessionClosed(GraphexecError):
    """run() was called after close()."""


class InternalError(GraphexecError):
    """An invariant of graphexec is broken; not the user's mistake."""
