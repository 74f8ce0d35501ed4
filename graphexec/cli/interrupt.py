"""Ctrl-C and SIGTERM end the program within a second, whatever it is doing.

Python tells the main thread alone, and only between its own instructions: a long matrix product,
or a worker thread that is waited for, would hold it up. So a second thread listens to the signal
itself, leaves the main thread a moment to end in good order, and then ends the process. No file
that was being written is left behind.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

PATIENCE = 0.6  # seconds
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

_said = threading.Event()
_quiet = threading.Event()
_received = signal.SIGINT
_acts: list[Callable[[], object]] = []


def watch() -> None:
    """Start listening; call it once, in the main thread."""
    usual = signal.default_int_handler, signal.SIG_DFL
    # Others are somebody else's to handle, or ignored as in `nohup graphexec … &`.
    for number in [number for number in _WORDS if signal.getsignal(number) in usual]:
        signal.signal(number, _interrupt)
    sys.unraisablehook = _unraisable
    receive, send = os.pipe()
    os.set_blocking(send, False)
    signal.set_wakeup_fd(send, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(receive,), daemon=True, name="interrupt").start()


def say() -> int:
    """Tell the user, once, what happened; the exit code, as a shell reports the signal."""
    if not _said.is_set():
        _said.set()
        if _quiet.is_set():
            return 128 + _received
        # Not by sys.stderr: the interrupted thread may hold its lock. Also clears a progress line
        # and shows the cursor again.
        prefix = "\r\x1b[K\x1b[?25h" if sys.stderr.isatty() else ""
        os.write(2, f"{prefix}{_WORDS[_received]}\n".encode())
    return 128 + _received


def was_said() -> bool:
    """Whether the user was told."""
    return _said.is_set()


def quiet() -> None:
    """Others tell the user."""
    _quiet.set()


def when_interrupted(act: Callable[[], object]) -> None:
    """Call this, on a thread of its own, when a signal has come that ends the program."""
    _acts.append(act)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _note(number)
    raise KeyboardInterrupt


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """What Python says of an exception that nobody can catch; an interrupt is told otherwise."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def _note(number: int) -> None:
    global _received
    _received = signal.Signals(number)


def _listen(receive: int) -> None:
    while received := os.read(receive, 1):
        if received[0] in _WORDS:
            _note(received[0])
            for act in _acts:
                act()
            time.sleep(PATIENCE)
            end()


def end() -> NoReturn:
    """End the process as the signal asks.

    Not by sys.exit: once a KeyboardInterrupt has passed through an exec() of a text, as it does
    where it meets the making of a dataclass, Python ends itself by SIGINT whatever the code.
    """
    from graphexec.base.atomic_file import discard_unfinished

    discard_unfinished()
    os._exit(say())
