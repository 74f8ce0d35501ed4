"""A line on the terminal that says what takes so long; nothing for work under a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Timer
from typing import TYPE_CHECKING

import click

from graphexec.cli.verbosity import level

if TYPE_CHECKING:
    from rich.status import Status

_PATIENCE = 1.0  # seconds


class Progress:
    """Shows the step at work, once that is worth it. Silent unless standard error is a terminal."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._text = ""
        self._status: Status | None = None
        self._timer: Timer | None = None

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Work that is described by `text`, such as "planning"; what is printed inside comes
        between the updates of the line."""
        self._text = f"{text} …"
        start = time.perf_counter()
        if sys.stderr.isatty() and level() >= 0:
            self._timer = Timer(_PATIENCE, self._show)
            self._timer.daemon = True
            self._timer.start()
        try:
            yield
        finally:
            self._hide()
        if level() > 0:
            took = 1e3 * (time.perf_counter() - start)
            click.echo(f"{took:10.3f} ms  {text}", err=True)

    def _show(self) -> None:
        from rich.console import Console
        from rich.status import Status

        with self._lock:
            if self._timer is not None:
                self._status = Status(self._text, console=Console(stderr=True))
                self._status.start()

    def _hide(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._status is not None:
                self._status.stop()
                self._status = None
