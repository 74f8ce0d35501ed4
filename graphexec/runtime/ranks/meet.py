"""How ranks find one another: every pair of them gets a connection."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import ExecutionError, InputError
from graphexec.runtime.ranks.identity import Identity
from graphexec.runtime.ranks.links import (
    PORTS,
    Listener,
    connect,
    host,
    own_addresses,
    read_line,
    send_line,
    start_limit,
)

_WATCH = "watch"


@dataclass(frozen=True)
class Member:
    """A rank as others know it: where it listens, and its process. `host` is equal for processes
    that can send signals to one another, `name` what people call the machine."""

    rank: int
    addresses: tuple[str, ...]
    port: int
    pid: int
    host: str
    name: str

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.pid} on {self.name})"


@dataclass(frozen=True)
class Met:
    """All ranks, this one's listener, and its connections to the others by rank."""

    members: tuple[Member, ...]
    listener: Listener
    links: Mapping[int, socket.socket]


def meet(me: Identity) -> Met:
    """Connect to all other ranks.

    Raises InputError on all of them if they do not agree on how many there are, and ExecutionError
    if some do not come in time.
    """
    until = time.monotonic() + start_limit()
    listener = Listener(me.address if me.rank == 0 and me.communicator is None else None)
    addresses, ports = _where(me, listener)
    try:
        if me.rank == 0:
            return _gathered(me, listener, until)
        return _joined(me, listener, addresses, ports, until)
    except BaseException:
        listener.close()
        raise


def dial(met: Met, me: int, purpose: str) -> dict[int, socket.socket]:
    """Further connections to the others, which call this too. ExecutionError if one does not."""
    until = time.monotonic() + start_limit()
    links: dict[int, socket.socket] = {}
    for other in met.members:
        try:
            if other.rank < me:
                hello = {"for": purpose, "rank": me}
                links[other.rank] = connect(other.addresses, [other.port], hello, until)
            elif other.rank > me:
                links[other.rank], _ = met.listener.take(purpose, other.rank, until)
        except TimeoutError as exc:
            raise ExecutionError(f"{other} cannot be reached for its data") from exc
    return links


def _where(me: Identity, listener: Listener) -> tuple[list[str], list[int]]:
    """The addresses and ports where rank 0 may listen."""
    if me.communicator is None:
        host, port = me.address
        return [host], [*range(port, min(port + PORTS, 65536))]
    addresses, port = me.communicator.bcast((own_addresses(), listener.port))
    return addresses, [port]


def _hello(me: Identity, listener: Listener) -> dict[str, Any]:
    return {
        "for": _WATCH, "rank": me.rank, "ranks": me.ranks, "addresses": own_addresses(),
        "port": listener.port, "pid": os.getpid(), "host": host(), "name": socket.gethostname(),
    }  # fmt: skip


def _gathered(me: Identity, listener: Listener, until: float) -> Met:
    links, hellos = {}, [_hello(me, listener)]
    for rank in range(1, me.ranks):
        try:
            links[rank], hello = listener.take(_WATCH, rank, until)
        except TimeoutError:
            return _refuse(me, listener, links)
        hellos.append(hello)
    members = [_member(links.get(hello["rank"]), hello) for hello in hellos]
    wrong = [hello for hello in hellos if hello["ranks"] != me.ranks]
    twice = [rank for rank, _ in listener.came(_WATCH)]
    message = ""
    if wrong:
        message = (f"rank {wrong[0]['rank']} was told that there are {wrong[0]['ranks']} ranks, "
                   f"rank 0 that there are {me.ranks}")  # fmt: skip
    elif twice:
        message = f"two processes were told that they are rank {twice[0]}"
    roster = {"error": message, "members": [vars(m) for m in members]}
    for link in links.values():
        send_line(link, roster)
    if message:
        raise InputError([Diagnostic(message)])
    return Met(tuple(members), listener, links)


def _refuse(me: Identity, listener: Listener, links: Mapping[int, socket.socket]) -> Met:
    """Some did not come: tell those that did."""
    strange = [rank for rank, _ in listener.came(_WATCH) if rank >= me.ranks]
    missing = [rank for rank in range(1, me.ranks) if rank not in links]
    came = {rank for rank, _ in listener.came(_WATCH)}
    missing = [rank for rank in missing if rank not in came]
    names = ", ".join(map(str, missing))
    which = f"rank {names} did" if len(missing) == 1 else f"ranks {names} did"
    message = f"{which} not come within {start_limit():g} s"
    if strange:
        message += f", but rank {strange[0]} did"
    for rank, _ in listener.came(_WATCH):
        links = {**links, rank: listener.take(_WATCH, rank, 0.0)[0]}
    for link in links.values():
        send_line(link, {"error": message, "late": True})
    raise ExecutionError(message)


def _joined(
    me: Identity, listener: Listener, addresses: list[str], ports: list[int], until: float
) -> Met:
    hello = _hello(me, listener)
    try:
        first = connect(addresses, ports, hello, until)
    except TimeoutError as exc:
        where = f"{addresses[0]}:{ports[0]}"
        message = f"rank 0 does not listen on {where} within {start_limit():g} s"
        raise ExecutionError(message) from exc
    # Rank 0 waits for the others as long as this one did, then says why it gives up.
    first.settimeout(2 * start_limit())
    try:
        roster = read_line(first)
    except (OSError, ValueError) as exc:
        raise ExecutionError("rank 0 ended before all ranks had come") from exc
    if roster["error"]:
        if roster.get("late"):
            raise ExecutionError(roster["error"])
        raise InputError([Diagnostic(roster["error"])])
    members = tuple(_member(None, each) for each in roster["members"])
    links = {0: first}
    for other in members[1:]:
        try:
            if other.rank < me.rank:
                links[other.rank] = connect(other.addresses, [other.port], hello, until)
            elif other.rank > me.rank:
                links[other.rank], _ = listener.take(_WATCH, other.rank, until)
        except TimeoutError as exc:
            raise ExecutionError(f"{other} cannot be reached from {members[me.rank]}") from exc
    return Met(members, listener, links)


def _member(link: socket.socket | None, hello: Mapping[str, Any]) -> Member:
    """A rank by its hello. Rank 0 knows the address that the hello came from, which is better than
    what the rank believes to be its own."""
    seen = [] if link is None else [link.getpeername()[0]]
    addresses = tuple(dict.fromkeys([*seen, *hello["addresses"]]))
    return Member(hello["rank"], addresses, hello["port"], hello["pid"], hello["host"],
                  hello["name"])  # fmt: skip
