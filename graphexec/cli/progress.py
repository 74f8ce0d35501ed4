"""A progress line on the terminal, with a bar if the length of the work is known. Work under a
second shows nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Timer
from typing import TYPE_CHECKING

import click

from graphexec.base.progress import listening
from graphexec.cli.verbosity import level

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_PATIENCE = 1.0  # seconds


class Progress:
    """Shows the current step after a second. Silent unless standard error is a terminal."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._text, self._done, self._total = "", 0, 0
        self._bar: Bar | None = None
        self._timer: Timer | None = None

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Work described by `text`, such as "planning". Prints inside it appear between the
        updates of the line."""
        self._text, self._done, self._total = text, 0, 0
        start = time.perf_counter()
        if sys.stderr.isatty() and level() >= 0:
            self._timer = Timer(_PATIENCE, self._show)
            self._timer.daemon = True
            self._timer.start()
        try:
            if self._timer is None:
                yield
            else:
                with listening(lambda what, done, total: self._part(text, what, done, total)):
                    yield
        finally:
            self._hide()
        if level() > 0:
            took = 1e3 * (time.perf_counter() - start)
            click.echo(f"{took:10.3f} ms  {text}", err=True)

    def _part(self, text: str, what: str, done: int, total: int) -> None:
        with self._lock:
            over = done >= total  # of this part; the next work has no length
            self._text = text if over else f"{text}: {what}" if what else text
            self._done, self._total = (0, 0) if over else (done, total)
            self._update()

    def _update(self) -> None:
        if self._bar is not None:
            count = f"{self._done}/{self._total}" if self._total else ""
            self._bar.update(self._bar.task_ids[0], description=self._text, count=count,
                             completed=self._done, total=self._total or None)  # fmt: skip

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        with self._lock:
            if self._timer is None:
                return
            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False),
                       BarColumn(bar_width=24), TextColumn("{task.fields[count]}"))  # fmt: skip
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task(self._text, total=None, count="")
            self._update()
            self._bar.start()

    def _hide(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._bar is not None:
                self._bar.stop()
                self._bar = None
