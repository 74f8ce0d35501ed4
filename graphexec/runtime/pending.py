"""Runs that have been started: ask for their outputs when they are wanted, or in their order."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import DataError, ExecutionError
from graphexec.base.tensor import Array
from graphexec.runtime.process import Process

if TYPE_CHECKING:
    from threading import Lock, RLock

    from graphexec.runtime.device import Session

Inputs = Mapping[str, Array]


class Pending:
    """A run in flight, from `Executable.submit`; `await` gives its outputs, too.

    `finish` waits for the run of a session and returns its outputs; `release` is called when the
    session is free. `lock` is held by whoever uses sessions, `closing` while they are closed. A run
    whose handle is dropped is finished, and its outputs are dropped. Nothing here refers to the
    executable, so that both are freed at once when they are dropped.
    """

    def __init__(
        self, session: Session, finish: Callable[[Session], dict[str, Array]],
        release: Callable[[], object], lock: RLock, closing: Lock,
    ) -> None:  # fmt: skip
        self.session, self._finish, self._release = session, finish, release
        self._lock, self._closing = lock, closing
        self._process = Process()
        self._dropped = weakref.finalize(self, session.abandon)
        self._dropped.atexit = False
        self._outputs: dict[str, Array] | None = None
        self._error: Exception | None = None

    def done(self) -> bool:
        """Whether `result()` would return (or raise) at once."""
        self._process.check()
        with self._closing:  # the session must not be closed meanwhile
            return self._collected or self.session.done()

    def result(self, timeout: float | None = None) -> dict[str, Array]:
        """Wait for the outputs and return them. Raises TimeoutError after `timeout` seconds (the
        run goes on), and ExecutionError when a command failed or the wait was interrupted."""
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

    def __await__(self) -> Generator[Any, None, dict[str, Array]]:
        """As `result`, while other tasks of the asyncio event loop run."""
        return self._arrived().__await__()

    async def _arrived(self) -> dict[str, Array]:
        import asyncio

        pause = 1e-4
        while not self.done():
            await asyncio.sleep(pause)
            pause = min(2 * pause, 5e-3)
        return self.result()

    @property
    def _collected(self) -> bool:
        return self._outputs is not None or self._error is not None

    def collect(self) -> None:
        """Wait for the run, keep its outputs or its error, and give the session back."""
        self._process.check()
        with self._lock:
            if self._collected:
                return
            try:
                self._outputs = self._finish(self.session)
            except Exception as exc:
                self._error = exc
            except BaseException:  # Ctrl-C: the device may still be busy; the session handles that
                self._error = ExecutionError("the run was interrupted")
                raise
            finally:
                self._dropped.detach()
                self._release()


def in_order(
    requests: Iterable[Inputs], in_flight: int, submit: Callable[[Inputs], Pending]
) -> Iterator[dict[str, Array]]:
    """The outputs of each request, in order, with up to `in_flight` of them started.

    Raises DataError at once if there are no requests to go through, and where one of them is
    wrong, with its number from 0, after the outputs of those before.
    """
    try:
        numbered = enumerate(requests)
    except TypeError as exc:
        message = f"requests must be an iterable of them, found {_what(requests)}"
        raise DataError([Diagnostic(message, help=_EXAMPLE)]) from exc
    return _in_order(numbered, in_flight, submit)


def _in_order(
    requests: Iterator[tuple[int, object]], in_flight: int, submit: Callable[[Inputs], Pending]
) -> Iterator[dict[str, Array]]:
    waiting: deque[Pending] = deque()
    for number, inputs in requests:
        if len(waiting) == in_flight:
            yield waiting.popleft().result()
        try:
            waiting.append(_submitted(number, inputs, submit))
        except DataError:
            while waiting:
                yield waiting.popleft().result()
            raise
    while waiting:
        yield waiting.popleft().result()


def _submitted(number: int, inputs: object, submit: Callable[[Inputs], Pending]) -> Pending:
    if not isinstance(inputs, Mapping):
        message = f"request {number} must map names of inputs to arrays, found {_what(inputs)}"
        raise DataError([Diagnostic(message, help=_EXAMPLE)])
    try:
        return submit(inputs)
    except DataError as exc:
        raise DataError(
            [replace(d, message=f"request {number}: {d.message}") for d in exc.diagnostics]
        ) from exc


_EXAMPLE = "map([{'x': x0}, {'x': x1}]), with every input of the graph in each request"


def _what(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else f'{text[:37]}...'}"
