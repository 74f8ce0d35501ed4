"""Forks: a child process has the memory of its parent, but none of its threads and no GPU."""

from __future__ import annotations

import os

from graphexec.base.errors import ExecutionError


class Process:
    """The process in which something was made."""

    def __init__(self) -> None:
        self._id = os.getpid()

    @property
    def here(self) -> bool:
        """Whether this is that process, and not a fork of it."""
        return os.getpid() == self._id

    def check(self) -> None:
        """Raise ExecutionError in a fork, where waiting for a run would never end."""
        if not self.here:
            raise ExecutionError(
                f"the executable belongs to process {self._id}, and this is a fork of it without "
                "its threads and streams: compile the graph in this process"
            )
