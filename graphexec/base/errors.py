"""Every exception graphexec raises.

GraphexecError
├── InputError            what the user wrote or passed is wrong (located, several at once)   exit 2
│   ├── GraphError        ... in a YAML file, a graph built in code, or a plan file
│   └── DataError         ... in an input array, a weights file, or an output path
├── DeviceUnavailable     the device asked for cannot be used on this machine                 exit 3
├── HazardError           the verifier refuted the plan                                       exit 1
├── ExecutionError        a command failed, or never finished, while the plan ran             exit 1
│   ├── NotCapable        a device turns out not to do what it was said to be capable of
│   ├── OutOfMemory       the device has too little memory for the plan
│   └── TimedOut          a run took longer than it was given
├── SessionClosed         a run was asked for after close()                                   exit 1
└── InternalError         an invariant of graphexec itself is broken: please report           exit 1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphexec.base.diagnostics import Diagnostic
    from graphexec.proof import Hazard


class GraphexecError(Exception):
    """Base class of all errors of graphexec; `exit_code` is what the command line ends with."""

    exit_code = 1


class InputError(GraphexecError):
    """One or more mistakes in what the user gave; `diagnostics` holds each with its place."""

    exit_code = 2

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n\n".join(d.render() for d in self.diagnostics))


class GraphError(InputError):
    """A graph (YAML or built in code) or a plan file is wrong."""


class DataError(InputError):
    """An input array, a weights file or an output path is wrong."""


class DeviceUnavailable(GraphexecError):
    """The device asked for cannot be used here; the message says why and what would help."""

    exit_code = 3


class HazardError(GraphexecError):
    """The verifier found hazards: the plan is not safe to run."""

    def __init__(self, hazards: Sequence[Hazard]) -> None:
        self.hazards = tuple(hazards)
        super().__init__("\n".join(str(h) for h in self.hazards))


class ExecutionError(GraphexecError):
    """A command failed while the plan ran; `node` names it where it is known."""

    def __init__(self, message: str, node: str | None = None) -> None:
        self.node = node
        super().__init__(message if node is None else f"node '{node}': {message}")


class NotCapable(ExecutionError):
    """The device does not do what it was said to be capable of: a kernel does not compile, or a
    library has no algorithm. The plan can do without; `capabilities` are those it must not use."""

    def __init__(self, message: str, capabilities: frozenset[str], node: str | None = None) -> None:
        self.capabilities = capabilities
        super().__init__(message, node)


class OutOfMemory(ExecutionError):
    """The device has too little memory; the message says needed, free and total bytes."""


class TimedOut(ExecutionError):
    """A run took longer than it was given; the message says what was done and what was not."""


class SessionClosed(GraphexecError):
    """A run was asked of an executable that was closed."""


class InternalError(GraphexecError):
    """An invariant of graphexec is broken; not the user's mistake."""
