"""Ctrl-C ends the program within a second.

Python delivers signals to the main thread only, between its own instructions. A long matrix
product, or waiting for a worker thread, delays this. So a second thread listens to the signal,
gives the main thread a moment to end cleanly, and then ends the process.
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
        return  # another handler is installed, or it is ignored as by `nohup graphexec … &`
    receive, send = os.pipe()
    os.set_blocking(send, False)
    signal.set_wakeup_fd(send, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(receive,), daemon=True, name="interrupt").start()


def say() -> int:
    """Print the message once; returns the exit code."""
    if not _said.is_set():
        _said.set()
        # Not by sys.stderr: the interrupted thread may hold its lock. Also clears a progress line
        # and shows the cursor again.
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
