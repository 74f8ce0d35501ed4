"""The ranks of a run, watched by a thread: whoever dies, stops or fails ends the work of all.

Every rank sends a beat to every other one four times a second, with what it is doing. A rank has
died when its connection closes without a farewell. The network to it is cut when it does not
acknowledge beats for three seconds, which the system tells (TCP_USER_TIMEOUT, RFC 5482). It was
stopped when it is silent for as long and the system says so. This only ranks on the same machine
can ask, so one that is alone on its machine has longer: a library that is loading, or a compiler,
may keep Python from sending. The first failure is told to all, and is final: collectives that were
under way cannot be taken up again.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, astuple
from typing import Any

from graphexec.base.errors import RankFailed
from graphexec.runtime.ranks.identity import Identity
from graphexec.runtime.ranks.meet import Met, dial, meet
from graphexec.runtime.ranks.peer import (
    BEAT,
    PATIENCE,
    Failure,
    Peer,
    Position,
    is_stopped,
    send,
    silence,
)

_CHUNK = 1 << 16
_DIED = "died: its process has ended without a word"


class Group:
    """All ranks as this one sees them. Its methods may be called from any thread."""

    def __init__(self, identity: Identity, met: Met | None = None) -> None:
        """Meet the others (graphexec.runtime.ranks.meet)."""
        self._silence = silence()
        self._met = met or meet(identity)
        self.rank, self.ranks = identity.rank, identity.ranks
        self.communicator = identity.communicator
        self.members = self._met.members
        self.failure: Failure | None = None
        self.at = Position()
        self._peers = {r: Peer(self.members[r], link) for r, link in self._met.links.items()}
        self._condition = threading.Condition()
        self._sending = threading.Lock()
        self._on_failure: Callable[[Failure], None] | None = None
        self._channels = 0
        self._ended = False
        #: After a failure: whether this rank is the one that tells the user.
        self.tells = False
        for peer in self._peers.values():
            peer.link.settimeout(PATIENCE)
            milliseconds = round(PATIENCE * 1000)
            peer.link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="graphexec-ranks")
        self._watcher.start()

    # What ranks say to one another ------------------------------------------------------------

    def gather(self, document: object) -> list[Any]:
        """What each rank gives, in their order. All ranks call this, in the same order of calls.

        Raises RankFailed when one cannot.
        """
        self._send_all({"say": document})
        with self._condition:
            while True:
                waiting = [r for r, peer in self._peers.items() if not peer.said]
                if not waiting:
                    found = {r: peer.said.popleft() for r, peer in self._peers.items()}
                    return [found.get(r, document) for r in range(self.ranks)]
                self._check(waiting)
                self._condition.wait()

    def channel(self) -> tuple[int, Mapping[int, socket.socket]]:
        """A number and connections for the data of a session. All ranks call this. With MPI, the
        data go another way, and there are no connections."""
        self._channels += 1
        links = {} if self.communicator is not None else dial(
            self._met, self.rank, f"data {self._channels}"
        )  # fmt: skip
        return self._channels, links

    # Failing ----------------------------------------------------------------------------------

    def when_failed(self, act: Callable[[Failure], None]) -> None:
        """Call this once, on a thread of its own, when a failure becomes known."""
        with self._condition:
            self._on_failure = act

    @property
    def handled(self) -> bool:
        """Whether there is somebody who acts on a failure."""
        return self._on_failure is not None

    def fail(self, message: str, code: int = 1) -> None:
        """This rank failed: tell all. Only the first failure counts."""
        self._failed(Failure(self.rank, self.rank, message, code))

    def unreachable(self, rank: int) -> RankFailed:
        """The connection to a rank ended, and nothing else is known of it: tell all."""
        self._found(self._peers[rank], "cannot be reached any more")
        assert self.failure is not None
        return RankFailed(self.failure.message)

    def blamed(self, seconds: float) -> str:
        """What a rank says that waited too long: who did not come where others wait. Empty if
        nobody waits for another rank."""
        with self._condition:
            places = {r: peer.at for r, peer in self._peers.items()}
        places[self.rank] = self.at
        for rank, at in sorted(places.items()):
            late = [r for r in at.waits_for if not places[r].waits_for]
            if late:
                which = " and ".join(str(self.members[r]) for r in late)
                return f"{which} did not come to {at} within {seconds:g} s; rank {rank} waits there"
        return ""

    def has_left(self, ranks: Iterable[int]) -> bool:
        """Whether one of these has ended, having done its work."""
        return any(rank in self._peers and self._peers[rank].left for rank in ranks)

    def check(self, needed: Iterable[int] = ()) -> None:
        """Raise RankFailed if the ranks cannot go on, or one of those that are needed has left."""
        if self.failure is not None or any(self._peers[r].left for r in needed if r != self.rank):
            with self._condition:
                self._check(needed)

    def _check(self, needed: Iterable[int]) -> None:
        if self.failure is None:
            for rank in needed:
                peer = self._peers.get(rank)
                if peer is not None and peer.left:
                    self._found(peer, "has ended")
                    break
        if self.failure is not None:
            raise RankFailed(self.failure.message)

    def _failed(self, failure: Failure) -> None:
        with self._condition:
            if self.failure is not None or self._ended:
                return
            self.failure = failure
            self.tells = self._is_lowest(failure)
            self._condition.notify_all()
            act = self._on_failure
        self._send_all({"fail": asdict(failure)})
        self._end_stopped()
        if act is not None:  # not here: the thread that watches must go on
            threading.Thread(target=act, args=(failure,), daemon=True).start()

    @property
    def local(self) -> int:
        """How many lower ranks are on this machine: the index of this rank's GPU."""
        here = self.members[self.rank].host
        return sum(m.host == here for m in self.members[: self.rank])

    def _is_lowest(self, failure: Failure) -> bool:
        """Whether no lower rank knows of a failure. Who told it was there, though it may have ended
        meanwhile; who was found to have failed was not."""
        gone = {failure.rank} - {failure.by}
        there = {r for r, peer in self._peers.items() if peer.open} | {failure.by, self.rank}
        return min(there - gone) == self.rank

    def wait_for_lower(self, seconds: float) -> bool:
        """Wait until all lower ranks have ended, at most so long; whether they have, and one of
        them knew of the failure."""
        until = time.monotonic() + seconds
        lower = [peer for rank, peer in self._peers.items() if rank < self.rank]
        with self._condition:
            while any(peer.open for peer in lower):
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._condition.wait(left)
        return any(peer.told for peer in lower)

    # Ending -----------------------------------------------------------------------------------

    def say_goodbye(self) -> None:
        """This rank ends, which is no failure of it. Failures of others still count."""
        self._send_all({"bye": True})

    def leave(self) -> None:
        """This rank has done its work, and failures are no concern of it any more."""
        with self._condition:
            if self._ended:
                return
            self._ended = True
        self.say_goodbye()
        self._met.listener.close()

    # Watching ---------------------------------------------------------------------------------

    def _send_all(self, document: Mapping[str, Any]) -> None:
        line = json.dumps(document).encode() + b"\n"
        with self._sending:
            for peer in self._peers.values():
                if peer.open:
                    with suppress(OSError):  # who has died is found by reading
                        send(peer.link, line, patient="beat" not in document)

    def _watch(self) -> None:
        selector = selectors.DefaultSelector()
        for peer in self._peers.values():
            selector.register(peer.link, selectors.EVENT_READ, peer)
        last, woke = 0.0, time.monotonic()
        while selector.get_map():
            now = time.monotonic()
            if now - woke > PATIENCE / 2:
                self._slept()  # this process was stopped itself, or busy
            woke = now
            if now - last >= BEAT and not self._ended:
                self._send_all({"beat": astuple(self.at)})
                last = now
            for key, _ in selector.select(BEAT / 2):
                error = self._read(key.data)
                if error is not None:
                    selector.unregister(key.fileobj)
                    self._closed(key.data, error)
            self._find_silent()

    def _slept(self) -> None:
        for peer in self._peers.values():
            peer.heard = time.monotonic()

    def _read(self, peer: Peer) -> str | None:
        """Take in what has come. At the end, how it ended."""
        try:
            piece = peer.link.recv(_CHUNK)
        except ConnectionResetError:
            return _DIED
        except OSError as exc:
            return f"cannot be reached any more: {exc.strerror or exc}"
        peer.heard = time.monotonic()
        *lines, peer.unread = (peer.unread + piece).split(b"\n")
        for line in lines:
            self._take_in(peer, json.loads(line))
        return None if piece else _DIED

    def _take_in(self, peer: Peer, message: Mapping[str, Any]) -> None:
        if "fail" in message:
            peer.told = True
            self._failed(Failure(**message["fail"]))
            return
        with self._condition:
            if "beat" in message:
                node, collective, waits_for = message["beat"]
                peer.at = Position(node, collective, tuple(waits_for))
            elif "say" in message:
                peer.said.append(message["say"])
            elif "bye" in message:
                peer.left = True
            self._condition.notify_all()

    def _closed(self, peer: Peer, how: str) -> None:
        with self._condition:
            peer.open = False
            self._condition.notify_all()
        if not peer.left:
            self._found(peer, how)

    def _find_silent(self) -> None:
        now = time.monotonic()
        for peer in self._peers.values():
            silent = now - peer.heard
            if not peer.open or peer.left or silent < PATIENCE:
                continue
            near = peer.member.host == self.members[self.rank].host
            if near and is_stopped(peer.member.pid):
                self._lost(peer, "was stopped by a signal")
            elif not near and silent > self._silence:
                self._lost(peer, f"has not been heard of for {self._silence:g} s")

    def _end_stopped(self) -> None:
        """Ranks on this machine that are stopped would be left behind."""
        for peer in self._peers.values():
            member = peer.member
            if member.host == self.members[self.rank].host and is_stopped(member.pid):
                with suppress(OSError):
                    os.kill(member.pid, signal.SIGKILL)

    def _lost(self, peer: Peer, how: str) -> None:
        with self._condition:
            peer.open = False
            self._condition.notify_all()
        self._found(peer, how)

    def _found(self, peer: Peer, how: str) -> None:
        """Another rank was found to have failed."""
        message = f"{peer.member} {how}{self._meanwhile()}"
        self._failed(Failure(peer.member.rank, self.rank, message))

    def _meanwhile(self) -> str:
        """Where this rank is, for people."""
        if not self.at.node:
            return f"; rank {self.rank} had not come to a collective"
        word = "is waiting at" if self.at.waits_for else "was last at"
        return f"; rank {self.rank} {word} {self.at}"
