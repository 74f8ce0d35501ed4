"""A run that has been started: ask for its outputs when they are wanted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from graphexec.errors import ExecutionError

if TYPE_CHECKING:
    from graphexec.devices.base import Session
    from graphexec.executable import Executable

Array = np.ndarray[Any, Any]


class Pending:
    """A run in flight, from `Executable.submit`."""

    def __init__(self, exe: Executable, session: Session) -> None:
        self._exe, self.session = exe, session
        self._outputs: dict[str, Array] | None = None
        self._error: Exception | None = None

    def done(self) -> bool:
        """Whether `result()` would return (or raise) at once."""
        with self._exe.freeing:  # the session must not go away while it is asked
            return self._collected or self.session.done()

    def result(self, timeout: float | None = None) -> dict[str, Array]:
        """The outputs, when they are there. Raises TimeoutError after `timeout` seconds (the run
        goes on), and ExecutionError when a command failed or the wait was interrupted."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while deadline is not None and not self.done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the run is not done after {timeout:g} s")
            time.sleep(5e-5)
        self.collect()
        if self._error is not None:
            raise self._error
        assert self._outputs is not None
        return self._outputs

    @property
    def _collected(self) -> bool:
        return self._outputs is not None or self._error is not None

    def collect(self) -> None:
        """Wait for the run, keep its outputs or its error, and give the session back."""
        exe = self._exe
        with exe.lock:
            if self._collected:
                return
            try:
                self.session.wait(exe.timeout)
                self._outputs = exe.outputs_of(self.session)
            except Exception as exc:
                self._error = exc
            except BaseException:  # Ctrl-C: the device may still be at it, the session copes
                self._error = ExecutionError("the run was interrupted")
                raise
            finally:
                exe.collected(self)


__all__ = ["Pending"]
