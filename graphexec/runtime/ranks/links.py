"""Connections between ranks: a socket for each pair of them, and where they meet.

Rank 0 listens on the address that all know. Every other rank connects to it and says where it
listens itself; rank 0 answers with the list of all; of each pair of others, the higher rank
connects to the lower one. A listener speaks first, so that a port that belongs to another program
is recognised and left alone: torchrun's own store may have MASTER_PORT, then the next ports are
tried. What travels is JSON in lines; nothing is executed that came from outside.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import ExecutionError, InputError

GREETING = b"graphexec ranks 1\n"
PORTS = 8  # that follow one another, from MASTER_PORT on
START = 60.0  # seconds that ranks wait for one another when they start
_PAUSE = 0.05
_LONGEST = 1 << 20  # bytes of a line

_FAMILIES: tuple[dict[str, Any], ...] = (
    {"family": socket.AF_INET6, "dualstack_ipv6": True},
    {"family": socket.AF_INET},
)

Address = tuple[str, int]


def start_limit() -> float:
    """Seconds that ranks wait for one another: GRAPHEXEC_RANKS_START, else 60."""
    text = os.environ.get("GRAPHEXEC_RANKS_START", "")
    try:
        return max(0.1, float(text)) if text else START
    except ValueError as exc:
        message = f"GRAPHEXEC_RANKS_START must be a number of seconds, found '{text}'"
        raise InputError([Diagnostic(message)]) from exc


def own_addresses() -> list[str]:
    """Where others may reach this machine, the likelier first."""
    found = ["127.0.0.1"]
    with suppress(OSError):
        names = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
        found += [str(name[4][0]) for name in names]
    return [*dict.fromkeys(found[1:] + found[:1])]


def host() -> str:
    """Equal for processes of which one can send signals to the other."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {os.getpid()}"  # of none


class Listener:
    """Accepts connections of other ranks and keeps them, each under what its hello says it is for:
    `take` gives them out."""

    def __init__(self, address: Address | None) -> None:
        """`address` is that of MASTER_ADDR and MASTER_PORT, where rank 0 listens; others let the
        system choose."""
        self._socket = _listening(address)
        self.port: int = self._socket.getsockname()[1]
        self._came: dict[tuple[str, int], list[tuple[socket.socket, dict[str, Any]]]] = {}
        self._condition = threading.Condition()
        threading.Thread(target=self._accept, daemon=True, name="graphexec-listen").start()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._greet, args=(link,), daemon=True).start()

    def _greet(self, link: socket.socket) -> None:
        try:
            link.settimeout(5.0)
            link.sendall(GREETING)
            hello = read_line(link)
            key = str(hello["for"]), int(hello["rank"])
        except (OSError, ValueError, KeyError, TypeError):  # no rank of ours
            link.close()
            return
        with self._condition:
            self._came.setdefault(key, []).append((link, hello))
            self._condition.notify_all()

    def take(self, purpose: str, rank: int, until: float) -> tuple[socket.socket, dict[str, Any]]:
        """The oldest connection of `rank` for a purpose. TimeoutError at `until`."""
        key = purpose, rank
        with self._condition:
            while not self._came.get(key):
                left = until - time.monotonic()
                if left <= 0 or not self._condition.wait(left):
                    raise TimeoutError
            return self._came[key].pop(0)

    def came(self, purpose: str) -> list[tuple[int, dict[str, Any]]]:
        """The ranks, and their hellos, of what has come for a purpose and was not taken."""
        with self._condition:
            return [
                (rank, hello) for (what, rank), links in self._came.items() if what == purpose
                for _, hello in links
            ]  # fmt: skip

    def close(self) -> None:
        """Accept no more."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _listening(address: Address | None) -> socket.socket:
    ports = [0] if address is None else range(address[1], min(address[1] + PORTS, 65536))
    reason: Exception | None = None
    for port in ports:
        for options in _FAMILIES:
            try:
                return socket.create_server(("", port), backlog=512, **options)
            except (OSError, ValueError) as exc:
                reason = exc
    assert reason is not None
    where = f"the ports {ports[0]} to {ports[-1]}" if address else "any port"
    raise ExecutionError(f"this rank cannot listen on {where}: {reason}")


def connect(
    addresses: Sequence[str], ports: Sequence[int], hello: Mapping[str, Any], until: float
) -> socket.socket:
    """A connection to the rank that listens on one of these. TimeoutError at `until`."""
    while True:
        for where in addresses:
            for port in ports:
                link = _connected((where, port), hello)
                if link is not None:
                    return link
                if time.monotonic() > until:
                    raise TimeoutError
        time.sleep(_PAUSE)  # nobody listens yet


def _connected(address: Address, hello: Mapping[str, Any]) -> socket.socket | None:
    try:
        link = socket.create_connection(address, timeout=1.0)
    except OSError:
        return None
    try:
        if _read(link, len(GREETING)) == GREETING:
            send_line(link, hello)
            return link
    except OSError:
        pass
    link.close()
    return None


def _read(link: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (piece := link.recv(size - len(found))):
        found += piece
    return found


def send_line(link: socket.socket, document: object) -> None:
    """Send a document in a line."""
    link.sendall(json.dumps(document).encode() + b"\n")


def read_line(link: socket.socket) -> dict[str, Any]:
    """The next line, read byte by byte: what follows it is not touched. ValueError if it is no
    document."""
    line = bytearray()
    while len(line) < _LONGEST and (byte := link.recv(1)):
        if byte == b"\n":
            break
        line += byte
    found = json.loads(bytes(line))
    if not isinstance(found, dict):
        raise ValueError("no document")
    return found
