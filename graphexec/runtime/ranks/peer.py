"""Another rank as this one knows it: its connection, and what was heard of it."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import InputError
from graphexec.runtime.ranks.meet import Member

BEAT = 0.25  # seconds between two beats
PATIENCE = 3.0  # seconds without a beat, after which the system is asked
SILENCE = 30.0  # seconds without a beat of a rank of which no rank can ask the system


@dataclass(frozen=True)
class Failure:
    """Why the ranks cannot go on: `rank` failed, or was found by another one, `by`, to have died or
    stopped. `code` is the exit code of all."""

    rank: int
    by: int
    message: str
    code: int = 1


@dataclass(frozen=True)
class Position:
    """What a rank is doing: the collective that it is in, or was in last, and the ranks for which
    it waits there."""

    node: str = ""
    collective: str = ""
    waits_for: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"node '{self.node}' ({self.collective})"


def silence() -> float:
    """Seconds of silence after which a rank on another machine counts as stopped:
    GRAPHEXEC_RANKS_SILENCE, else 30."""
    text = os.environ.get("GRAPHEXEC_RANKS_SILENCE", "")
    try:
        return max(PATIENCE, float(text)) if text else SILENCE
    except ValueError as exc:
        message = f"GRAPHEXEC_RANKS_SILENCE must be a number of seconds, found '{text}'"
        raise InputError([Diagnostic(message)]) from exc


class Peer:
    """What is known of another rank."""

    def __init__(self, member: Member, link: socket.socket) -> None:
        self.member, self.link = member, link
        self.heard = time.monotonic()
        self.at = Position()
        self.said: deque[Any] = deque()  # documents that were not asked for yet
        self.left = False
        self.told = False  # that it knows of a failure
        self.open = True
        self.unread = b""


def is_stopped(process: int) -> bool:
    """Whether a process on this machine is stopped (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"T"
    except OSError:
        return False


def send(link: socket.socket, line: bytes, patient: bool) -> None:
    """Send a line, or nothing of it, to a rank that may not be reading."""
    with suppress(BlockingIOError):
        sent = link.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if sent < len(line):
            link.sendall(line[sent:], socket.MSG_NOSIGNAL)
        return
    if patient:
        link.sendall(line, socket.MSG_NOSIGNAL)
