"""The collectives of a plan on a GPU: RCCL's, on the plan's communication stream.

A session has communicators of its own, so that two sessions in flight need no common order. All
ranks make them in the same order. When the ranks fail, the communicators are aborted, which ends
the kernels that wait on the device.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any

from graphexec.base.errors import ExecutionError, RankFailed
from graphexec.base.tensor import View
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.plan import Launch
from graphexec.ir.program import Collective
from graphexec.runtime.device import Step
from graphexec.runtime.hip.bindings import HipError
from graphexec.runtime.hip.memory import Memory
from graphexec.runtime.hip.rccl import Rccl
from graphexec.runtime.hip.resources import Resources
from graphexec.runtime.ranks.group import Group
from graphexec.runtime.ranks.meetings import compare, meetings_of, ranks_of, titled
from graphexec.runtime.ranks.peer import PATIENCE, Position

_A_MOMENT = 1.0  # seconds


class HipMeetings:
    """The collectives of one session. All ranks open it, in the same order of sessions."""

    def __init__(self, bound: BoundPlan, group: Group, rccl: Rccl, resources: Resources) -> None:
        """Raises InputError on all ranks if their plans do not fit together."""
        self.group, self._rccl = group, rccl
        ranks = ranks_of(bound, group)
        compare(group, meetings_of(bound, ranks))
        launches = bound.plan.launches.items()
        found = [(i, w) for n, i in launches if isinstance(w := bound.work[n], Collective)]
        wanted = {name for used in group.gather([w.communicator for _, w in found])
                  for name in used}  # fmt: skip
        self._members = {one.id: one.ranks for one in ranks.communicators}
        self._handles: dict[str, Any] = {}
        for name, members in self._members.items():
            if name in wanted:
                first = group.rank == members[0]
                ids = group.gather(rccl.unique_id().hex() if first else None)
                if group.rank in members:
                    id, place = bytes.fromhex(ids[members[0]]), members.index(group.rank)
                    self._handles[name] = rccl.join(id, place, len(members))
        resources.stack().callback(self._close)
        self._sizes = Counter(w.group for _, w in found if w.kind in ("send", "recv"))
        self._seen: Counter[int] = Counter()
        self._position = _where(found)
        self._complete = time.monotonic()  # when all ranks were there

    def prepare(self, launch: Launch, work: Collective, memory: Memory, stream: Any) -> Step:
        """What issues this rank's part in a collective. Sends and recvs of one group are one
        meeting, which the last of them starts."""
        src, dst = (None if view is None else memory.of(view) for view in (work.src, work.dst))
        handle, members = self._handles[work.communicator], self._members[work.communicator]
        if work.kind == "all_to_all":
            return self._all_to_all(launch, work, memory, stream)
        peer = members.index(work.peer) if work.peer is not None else -1
        step = self._rccl.prepare(work, src, dst, peer, handle, stream, launch.node)
        if work.group is None or work.kind not in ("send", "recv"):
            return step
        self._seen[work.group] += 1
        before = [self._rccl.begin_group()] if self._seen[work.group] == 1 else []
        last = self._seen[work.group] == self._sizes[work.group]
        return _in_turn([*before, step, *([self._rccl.end_group(launch.node)] if last else [])])

    def _all_to_all(self, launch: Launch, work: Collective, memory: Memory, stream: Any) -> Step:
        """As sends and recvs of equal parts: NCCL has no such call."""
        handle, members = self._handles[work.communicator], self._members[work.communicator]
        assert work.src is not None
        assert work.dst is not None
        steps = [self._rccl.begin_group()]
        for place in range(len(members)):
            part, into = (_part(view, place, len(members)) for view in (work.src, work.dst))
            for one, src, dst in (
                (Collective("send", work.communicator, part, None), memory.of(part), None),
                (Collective("recv", work.communicator, None, into), None, memory.of(into)),
            ):
                steps.append(self._rccl.prepare(one, src, dst, place, handle, stream, launch.node))
        return _in_turn([*steps, self._rccl.end_group(launch.node)])

    def look(self) -> None:
        """While the host waits: raise RankFailed if the ranks cannot go on. A rank that has ended
        may have done its part before, so it has a while to arrive."""
        others = tuple(rank for rank in range(self.group.ranks) if rank != self.group.rank)
        self.group.at = replace(self._position, waits_for=others)
        now = time.monotonic()
        if not self.group.has_left(others):
            self._complete = now
        try:
            self.group.check(others if now - self._complete > PATIENCE else ())
        except RankFailed:
            self.abort()
            raise

    def done(self) -> None:
        """The host waits no more."""
        self.group.at = self._position

    def failed(self, failure: ExecutionError) -> None:
        """This rank failed: no rank can go on."""
        if not isinstance(failure, RankFailed):
            self.group.fail(f"rank {self.group.rank}: {failure}")

    def broken(self, error: HipError) -> ExecutionError:
        """What a run failed of. The ranks may know of a reason in a moment."""
        others = tuple(rank for rank in range(self.group.ranks) if rank != self.group.rank)
        self.group.at = replace(self._position, waits_for=others)
        until = time.monotonic() + _A_MOMENT
        try:
            while time.monotonic() < until:
                self.group.check(others)
                time.sleep(1e-3)
        except RankFailed as failed:
            return failed
        self.failed(error)
        return error

    def late(self, seconds: float, failure: ExecutionError) -> ExecutionError:
        """As `failed`, for a run that took too long; the error names who is late."""
        self.group.fail(self.group.blamed(seconds) or f"rank {self.group.rank}: {failure}")
        self.abort()
        assert self.group.failure is not None
        return RankFailed(self.group.failure.message)

    def abort(self) -> None:
        """End what waits on the device for ranks that will not come."""
        while self._handles:
            _, handle = self._handles.popitem()
            with suppress(ExecutionError):  # the failure of the ranks is what is told
                self._rccl.abort(handle)

    def _close(self) -> None:
        if self.group.failure is not None:
            self.abort()
        while self._handles:
            self._rccl.destroy(self._handles.popitem()[1])


def _where(found: list[tuple[Launch, Collective]]) -> Position:
    """The collectives of a plan as one place: a GPU does not say in which of them it waits."""
    if not found:
        return Position()
    (first, work), (last, _) = found[0], found[-1]
    if len(found) == 1:
        return Position(first.node, titled(work))
    return Position(f"{first.node} … {last.node}", f"{len(found)} collectives")


def _part(view: View, place: int, parts: int) -> View:
    """One of so many equal leading parts of a dense view, without its shape."""
    size = view.elements // parts
    return View(view.storage, (size,), view.dtype, (1,), view.offset + place * size)


def _in_turn(steps: list[Step]) -> Step:
    def step() -> None:
        for each in steps:
            each()

    return step
