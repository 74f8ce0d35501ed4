"""Transports: they move bytes between ranks, by sockets or by MPI.

`exchange` sends to some ranks and receives from some, all at once, so that two ranks that send
each other much never wait for one another. It looks every few milliseconds whether the ranks can
go on, and raises RankFailed if not: it never hangs.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Protocol

from graphexec.base.tensor import Array
from graphexec.runtime.ranks.group import Group
from graphexec.runtime.ranks.peer import PATIENCE

_LOOK = 0.05  # seconds between two looks at the group
_SPINS = 200  # looks at MPI's requests before a pause
_PAUSE = 1e-4  # seconds
_CHUNK = 1 << 20  # bytes


class Transport(Protocol):
    """Moves bytes (dense arrays of uint8) between the ranks of a group, for one thread at a
    time."""

    @property
    def group(self) -> Group:
        """The ranks."""
        ...

    def exchange(self, send: Mapping[int, Array], receive: Mapping[int, Array]) -> None:
        """Send to ranks and receive from ranks, all at once. What is received has the length of
        the array that is given for it."""
        ...

    def close(self) -> None:
        """End the connections."""
        ...


def open_transport(group: Group) -> Transport:
    """A transport of its own. All ranks call this, in the same order of calls."""
    number, links = group.channel()
    if group.communicator is None:
        return SocketTransport(group, links)
    return MpiTransport(group, number)


class SocketTransport:
    """One connection to every other rank."""

    def __init__(self, group: Group, links: Mapping[int, socket.socket]) -> None:
        self.group, self._links = group, links
        for link in links.values():
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.setblocking(False)

    def exchange(self, send: Mapping[int, Array], receive: Mapping[int, Array]) -> None:
        """By non-blocking calls on all connections."""
        _waits_for(self.group, send, receive)
        out = {rank: array.data for rank, array in send.items() if array.size}
        come = {rank: array.data for rank, array in receive.items() if array.size}
        with selectors.DefaultSelector() as selector:
            while out or come:
                if not self._moved(out, come):
                    self._wait(selector, out, come)

    def _moved(self, out: dict[int, memoryview], come: dict[int, memoryview]) -> bool:
        """Send and receive what can be at once; whether that was anything."""
        moved = False
        for parts, call in ((out, self._send), (come, self._receive)):
            for rank, rest in list(parts.items()):
                done = call(rank, rest[:_CHUNK])
                if done:
                    moved = True
                    parts[rank] = rest[done:]
                    if not parts[rank]:
                        del parts[rank]
        return moved

    def _send(self, rank: int, part: memoryview) -> int:
        try:
            return self._links[rank].send(part, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError:
            return self._cut(rank)

    def _receive(self, rank: int, part: memoryview) -> int:
        try:
            return self._links[rank].recv_into(part) or self._cut(rank)
        except BlockingIOError:
            return 0
        except OSError:
            return self._cut(rank)

    def _cut(self, rank: int) -> int:
        """A connection ended. The group will know why in a moment."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            self.group.check([rank])
            time.sleep(_PAUSE)
        raise self.group.unreachable(rank)

    def _wait(
        self, selector: selectors.BaseSelector, out: Mapping[int, Any], come: Mapping[int, Any]
    ) -> None:
        """Until something can be sent or received."""
        self.group.check([*out, *come])
        wanted = {
            self._links[rank]: (selectors.EVENT_WRITE if rank in out else 0)
            | (selectors.EVENT_READ if rank in come else 0)
            for rank in {*out, *come}
        }
        for link in [key.fileobj for key in selector.get_map().values()]:
            selector.unregister(link)
        for link, events in wanted.items():
            selector.register(link, events)
        selector.select(_LOOK)

    def close(self) -> None:
        """Close the sockets."""
        for link in self._links.values():
            link.close()


class MpiTransport:
    """Messages of MPI, with the number of the transport as their tag."""

    _lock = threading.Lock()

    def __init__(self, group: Group, number: int) -> None:
        from mpi4py import MPI

        self.group, self._tag = group, number % (1 << 15)
        self._communicator, self._request = group.communicator, MPI.Request
        # Several threads may call MPI at once only where it says so.
        multiple = MPI.Query_thread() == MPI.THREAD_MULTIPLE
        self._turn = nullcontext() if multiple else self._lock

    def exchange(self, send: Mapping[int, Array], receive: Mapping[int, Array]) -> None:
        """By non-blocking calls, whose requests are tested in turn."""
        _waits_for(self.group, send, receive)
        with self._turn:
            requests = [
                *(self._communicator.Irecv(a, r, self._tag) for r, a in receive.items() if a.size),
                *(self._communicator.Isend(a, r, self._tag) for r, a in send.items() if a.size),
            ]
        looks, looked = 0, time.monotonic()
        while not self._done(requests):
            looks += 1
            time.sleep(0 if looks < _SPINS else _PAUSE)
            if time.monotonic() - looked > _LOOK:
                looked = time.monotonic()
                self.group.check([*send, *receive])

    def _done(self, requests: list[Any]) -> bool:
        with self._turn:
            return bool(self._request.Testall(requests))

    def close(self) -> None:
        """Nothing: messages need no connection."""


def _waits_for(group: Group, out: Mapping[int, Any], come: Mapping[int, Any]) -> None:
    group.at = replace(group.at, waits_for=tuple(sorted({*come} or {*out})))
