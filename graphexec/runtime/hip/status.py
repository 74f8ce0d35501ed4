"""The one place where HIP's status codes become exceptions.

hip-python returns `(status, *values)` from every call; the status is an IntEnum of the library
that was called (`hipError_t`, `hipblasStatus_t`, `hiprtcResult`), zero for success in each.

ExecutionError
└── HipError            a HIP, hipBLAS, hipBLASLt or hiprtc call failed
    └── HipOutOfMemory  ... for want of memory (also an OutOfMemory)
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

from graphexec.base.errors import ExecutionError, OutOfMemory

Step = Callable[[], object]

NO_STATUS = -1
"""The code of a call that returned none: the library or the function is missing."""

# Statuses that mean "no memory", by enumeration.
OUT_OF_MEMORY = {"hipError_t": 2, "hipblasStatus_t": 2, "hiprtcResult": 1}

# hipBLAS has names for its statuses but no texts.
HIPBLAS_MEANINGS = {
    1: "the library or its handle is not initialized",
    2: "memory for the library's own use could not be allocated",
    3: "an argument has a value the function does not take",
    4: "memory could not be mapped",
    5: "the kernel failed to run",
    6: "an internal error of the library",
    7: "this combination of arguments is not supported",
    8: "the device's architecture is not supported",
    9: "the handle is null",
    10: "an enumeration value is unknown",
    11: "an error the library has no name for",
}


# RCCL has texts that hip-python gives in other ways in each of its versions.
RCCL_MEANINGS = {
    1: "a call to the GPU's runtime failed",
    2: "a call to the system failed",
    3: "an internal error of the library",
    4: "an argument has a value the function does not take",
    5: "the call does not fit those before it, or those of other ranks",
    6: "another rank has ended, or the network failed",
}


class HipError(ExecutionError):
    """A call into HIP failed.

    `call` is the function, `code` and `name` its status (code -1 where the function returned
    none), `meaning` the library's text for it, `node` the plan's node it was made for, if any.
    """

    def __init__(
        self, call: str, code: int, name: str, meaning: str, node: str | None = None
    ) -> None:
        self.call = call
        self.code = code
        self.name = name
        self.meaning = meaning
        super().__init__(f"{call} failed: {name} ({code}): {meaning}", node)


class HipOutOfMemory(HipError, OutOfMemory):
    """A call into HIP failed because the device, or the host, has too little memory."""


class Checker:
    """Makes calls into hip-python and turns every failure into a HipError.

    After a failure the thread's pending HIP error is read, so that it does not surface again in a
    later call.
    """

    def __init__(self, hip: Any, hiprtc: Any) -> None:
        self._hip = hip
        self._hiprtc = hiprtc

    def check(self, result: tuple[Any, ...], call: str, node: str | None = None) -> Any:
        """The results of a call besides its status: None, the value, or a tuple of values.

        Raises HipError, or HipOutOfMemory, if the status is not success.
        """
        status, *values = result
        if status:
            raise self.error(status, call, node)
        if not values:
            return None
        return values[0] if len(values) == 1 else tuple(values)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of hip-python now; see `check` for what it returns and raises."""
        try:
            result = function(*arguments)
        except (RuntimeError, ValueError) as error:
            raise self.unanswered(error, function.__name__) from error
        return self.check(result, function.__name__)

    def step(self, function: Callable[..., Any], *arguments: Any, node: str | None = None) -> Step:
        """A prepared call, as cheap as a closure.

        Holds references to its arguments. Raises as `check` does when it is called.
        """

        def step() -> None:
            try:
                status = function(*arguments)[0]
            except (RuntimeError, ValueError) as error:
                raise self.unanswered(error, function.__name__, node) from error
            if status:
                raise self.error(status, function.__name__, node)

        return step

    def error(self, status: IntEnum, call: str, node: str | None = None) -> HipError:
        """The exception for a status that is not success."""
        kind = type(status).__name__
        meaning = self._meaning(status, kind)
        self._hip.hipGetLastError()
        out_of_memory = status == OUT_OF_MEMORY.get(kind)
        exception = HipOutOfMemory if out_of_memory else HipError
        return exception(call, int(status), status.name, meaning, node)

    def unanswered(self, error: Exception, call: str, node: str | None = None) -> HipError:
        """The exception for a call that gave no status.

        hip-python raises RuntimeError where a library or a function is missing, and ValueError
        where the library returned a code that its enumeration does not have.
        """
        return HipError(call, NO_STATUS, "no status", str(error), node)

    def _meaning(self, status: IntEnum, kind: str) -> str:
        if kind == "hipblasStatus_t":
            return HIPBLAS_MEANINGS.get(int(status), "unknown")
        if kind == "ncclResult_t":
            return RCCL_MEANINGS.get(int(status), "unknown")
        describe = {
            "hipError_t": self._hip.hipGetErrorString,
            "hiprtcResult": self._hiprtc.hiprtcGetErrorString,
        }.get(kind)
        # The text is the last value: hip-python 7.2 leaves the status out in hiprtc's case.
        return "unknown" if describe is None else str(describe(status)[-1])
