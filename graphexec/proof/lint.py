"""Redundant waits and unused events: no hazards, but they cost time on the device.

A dependency wait is reported when everything it waits for happens before the stream's next launch
or record also without it. The launches keep their order if all reported waits are deleted. Fork and
join waits are not reported: they are needed even if they order no launches.

Unsupported: a wait that affects only a later record, where that record adds no order, is not found.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphexec.ir.plan import HostWait, Launch, Plan, Record, Wait
from graphexec.proof.clocks import Clock, Stamp, merge, stream_slots
from graphexec.proof.hazard import Site


def lint(plan: Plan) -> list[str]:
    """Warnings, one a line, in issue order. Requires a plan without hazards."""
    found = [*_redundant_waits(plan), *_unused_events(plan)]
    return [text for _, text in sorted(found)]


def _unused_events(plan: Plan) -> Iterator[tuple[int, str]]:
    awaited = {i.event for i in plan.instructions if isinstance(i, Wait | HostWait)}
    for index, i in enumerate(plan.instructions):
        if isinstance(i, Record) and i.event not in awaited:
            site = Site.of(index, i)
            yield index, f"event {i.event} is never waited for: {site} could be left out."


def _redundant_waits(plan: Plan) -> Iterator[tuple[int, str]]:
    """Waits are collected until the stream's next launch or record, then judged together."""
    slots = stream_slots(plan)
    now: list[Clock] = [[0] * len(slots) for _ in slots]
    pending: list[list[tuple[int, Wait]]] = [[] for _ in slots]
    records: dict[int, Stamp] = {}
    started = {0}
    for index, i in enumerate(plan.instructions):
        if isinstance(i, HostWait):
            continue
        slot = slots[i.stream]
        if isinstance(i, Wait):
            pending[slot].append((index, i))
            continue
        yield from _judge(pending[slot], now[slot], records, first=i.stream not in started)
        started.add(i.stream)
        pending[slot].clear()
        if isinstance(i, Launch):
            now[slot][slot] += 1
        else:
            records[i.event] = tuple(now[slot])
    for waits in pending:
        for index, wait in waits:
            if wait.role == "dependency":
                yield _redundant(index, wait, "nothing follows it on its stream")


def _judge(
    waits: list[tuple[int, Wait]], clock: Clock, records: dict[int, Stamp], first: bool
) -> Iterator[tuple[int, str]]:
    """Those of the waits that the others make redundant.

    Updates the clock. With `first` one of them must stay, as the stream's fork.
    """
    known = [(index, wait, records[wait.event]) for index, wait in waits if wait.event in records]
    # How far the waits bring each stream, and how many of those left bring it that far.
    columns = list(zip(*(event for _, _, event in known), strict=True))
    reached = list(map(max, columns))
    reaching = [column.count(most) for column, most in zip(columns, reached, strict=True)]
    left = len(known)
    for index, wait, event in known:
        if wait.role != "dependency" or (first and left == 1):
            continue
        furthest = [slot for slot, count in enumerate(event) if count == reached[slot]]
        if all(reaching[slot] > 1 or event[slot] <= clock[slot] for slot in furthest):
            for slot in furthest:
                reaching[slot] -= 1
            left -= 1
            yield _redundant(index, wait, "its stream is already past that record")
    if known:
        merge(clock, reached)


def _redundant(index: int, wait: Wait, why: str) -> tuple[int, str]:
    return index, f"{Site.of(index, wait)} for event {wait.event} is redundant: {why}."
