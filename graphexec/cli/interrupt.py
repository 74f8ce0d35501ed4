"""Ctrl-C ends the program within a second, whatever it is doing.

Python tells the main thread alone, and only between its own instructions: a long matrix product,
or a worker thread that is waited for, would hold it up. So a second thread listens to the signal
itself, leaves the main thread a moment to end in good order, and then ends the process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

EXIT_CODE = 130
PATIENCE = 0.6  # seconds

_said = threading.Event()


def watch() -> None:
    """Start listening; call it once, in the main thread."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # somebody else's to handle, or ignored as in `nohup graphexec … &`
    receive, send = os.pipe()
    os.set_blocking(send, False)
    signal.set_wakeup_fd(send, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(receive,), daemon=True, name="interrupt").start()


def say() -> int:
    """Tell the user, once, what happened; the exit code."""
    if not _said.is_set():
        _said.set()
        # Not by sys.stderr: the thread that was interrupted may hold its lock. A progress line
        # is wiped and the cursor it hides shown again.
        prefix = "\r\x1b[K\x1b[?25h" if sys.stderr.isatty() else ""
        os.write(2, f"{prefix}interrupted\n".encode())
    return EXIT_CODE


def _listen(receive: int) -> None:
    while received := os.read(receive, 1):
        if received[0] == signal.SIGINT:
            time.sleep(PATIENCE)
            _end()


def _end() -> None:
    from graphexec.base.atomic_file import discard_unfinished

    discard_unfinished()
    say()
    os._exit(EXIT_CODE)
