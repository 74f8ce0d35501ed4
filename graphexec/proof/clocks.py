"""Happens-before of a plan, derived from its instructions alone, as vector clocks.

Guarantees: while the launches of a run are replayed in issue order, component s of a launch's
clock is the number of launches of stream s that happen before it (itself included). So launch
number n (from 1) of stream s happens before it exactly when `clock[s] >= n`.
A wait for an event that was not recorded before it in issue order gives no order. It is reported
elsewhere, and must not hide a race here.
Unsupported: the host's own order. A host_wait orders the record before the host's later reads, not
before what the host issues later. Nothing may be issued after a host_wait anyway.

Sources: L. Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System", CACM 1978;
F. Mattern, "Virtual Time and Global States of Distributed Systems", 1989.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import ge
from typing import TypeAlias

from graphexec.ir.plan import HostWait, Launch, Plan, Record, Wait

Clock: TypeAlias = list[int]
Stamp: TypeAlias = tuple[int, ...]
"""An immutable clock. (The garbage collector does not track a tuple of numbers.)"""
Point: TypeAlias = tuple[int, Launch, int, Clock]
"""A launch during the replay: instruction index, launch, slot of its stream, its clock.

The clock is the stream's and changes later: copy it to keep it."""


class Clocks:
    """The clock of every stream, every event and the host while a plan is replayed.

    Streams are numbered by `slots`, including those that the plan uses without declaring them.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.slots = stream_slots(plan)
        self.now: list[Clock] = [[0] * len(self.slots) for _ in self.slots]
        self.host: Clock = [0] * len(self.slots)
        self.records: dict[int, Stamp] = {}

    def replay(self) -> Iterator[Point]:
        """Replay one run; yields every launch."""
        slots, now, records = self.slots, self.now, self.records
        for index, instruction in enumerate(self._plan.instructions):
            if isinstance(instruction, Launch):
                slot = slots[instruction.stream]
                clock = now[slot]
                clock[slot] += 1
                yield index, instruction, slot, clock
            elif isinstance(instruction, Record):
                records[instruction.event] = tuple(now[slots[instruction.stream]])
            elif instruction.event in records:
                merge(self._waiting(instruction), records[instruction.event])

    def _waiting(self, instruction: Wait | HostWait) -> Clock:
        if isinstance(instruction, HostWait):
            return self.host
        return self.now[self.slots[instruction.stream]]

    def next_run(self) -> Clocks:
        """The clocks for issuing the plan again, before the host has waited.

        Launches keep counting; events will be recorded afresh.
        """
        again = Clocks(self._plan)
        again.now = [clock.copy() for clock in self.now]
        return again


def stream_slots(plan: Plan) -> dict[int, int]:
    """A dense number for each stream that the plan declares or uses."""
    ids = dict.fromkeys(stream.id for stream in plan.streams)
    ids.update(dict.fromkeys(i.stream for i in plan.instructions if not isinstance(i, HostWait)))
    return {id: slot for slot, id in enumerate(ids)}


def merge(clock: Clock, other: Clock | Stamp) -> None:
    """Set `clock` to the componentwise maximum with `other`."""
    clock[:] = [a if a > b else b for a, b in zip(clock, other, strict=True)]


def covers(clock: Clock | Stamp, other: Clock | Stamp) -> bool:
    """Whether `clock` is at least `other` in every component."""
    return all(map(ge, clock, other))
