"""Redundant waits and unused events: no hazards, but they cost time on the device.

A dependency wait is reported when everything it waits for happens before the stream's next launch
or record also without it. The launches keep their order if all reported waits are deleted. Fork and
join waits are not reported: they are needed even if they order no launches.

Unsupported: a wait that affects only a later record, where that record adds no order, is not found.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphexec.ir.plan import HostWait, Launch, Plan, Record, Wait
from graphexec.proof.clocks import Clock, Stamp, covers, merge, stream_slots
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
    kept = list(known)
    for candidate in known:
        index, wait, event = candidate
        others = [other for other in kept if other is not candidate]
        if wait.role == "dependency" and (others or not first):
            without = clock.copy()
            for _, _, other_event in others:
                merge(without, other_event)
            if covers(without, event):
                kept = others
                yield _redundant(index, wait, "its stream is already past that record")
    for _, _, event in kept:
        merge(clock, event)


def _redundant(index: int, wait: Wait, why: str) -> tuple[int, str]:
    return index, f"{Site.of(index, wait)} for event {wait.event} is redundant: {why}."


__all__ = ["lint"]
