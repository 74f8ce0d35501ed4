"""Acquiring resources that a signal must not come between: Ctrl-C, and SIGTERM where it raises.

Python runs handlers of signals between any two bytecodes of the main thread. One that raises after
a call has returned a resource and before anybody owns it leaks the resource.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

Result = TypeVar("Result")


def uninterrupted(work: Callable[[], Result]) -> Result:
    """What `work` returns. Signals that arrive meanwhile are handled afterwards, so it must be
    brief."""
    if threading.current_thread() is not threading.main_thread():
        return work()  # handlers run in the main thread only
    return _deferred(signal.SIGINT, partial(_deferred, signal.SIGTERM, work))


def own(stack: ExitStack, acquire: Callable[[], Any], release: Callable[[Any], object]) -> Any:
    """What `acquire` returns; `stack` will release it. No signal comes between."""

    def acquired() -> Any:
        resource = acquire()
        stack.callback(release, resource)
        return resource

    return uninterrupted(acquired)


def _deferred(number: signal.Signals, work: Callable[[], Result]) -> Result:
    handler = signal.getsignal(number)
    if not callable(handler):  # then it does not raise
        return work()
    came: list[Any] = []
    try:
        signal.signal(number, lambda _, frame: came.append(frame))
        return work()
    finally:
        signal.signal(number, handler)
        if came:
            handler(number, came[0])
