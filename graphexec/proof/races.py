"""Conflicting accesses without an order, in a run and between a run and the next.

Guarantees:
1. RAW, WAR, WAW: every pair of launches that touch a common byte, at least one writing, neither
   happening before the other; the name says in which order the two are issued.
2. UNINITIALISED: every read of arena or output bytes that no launch issued earlier has written.
   (If one has, but does not happen before the read, that is a RAW.)
3. The relation "next run": the same pairs between a run and the one issued right after it.
   Later runs need no check: if run k had a conflict with run k + 2, the same launch of run k + 1,
   later on the same stream, would have it too.

Time: one pass over the launches (history.py) finds those with an unordered earlier access. Only
for these, the concurrent launches are searched. If all streams fork from and join into one
stream, there is no pair of the third kind; one clock a stream shows this.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from graphexec.ir.plan import Launch, Plan, Range
from graphexec.proof.clocks import Clock, Stamp, covers
from graphexec.proof.evidence import Evidence, show_tensors
from graphexec.proof.hazard import Hazard, HazardKind, Relation, Site, show_range
from graphexec.proof.regions import Regions

_VERBS = {
    "RAW": ("reads", "may still be writing it"),
    "WAR": ("writes", "may still be reading it"),
    "WAW": ("writes", "may still be writing it"),
}


def races(plan: Plan, evidence: Evidence) -> Iterator[Hazard]:
    """RAW, WAR, WAW and UNINITIALISED, those of one run first."""
    history = evidence.history
    for index, launch, range in history.unwritten:
        yield _uninitialised(index, launch, range, evidence)
    beside = _Beside(evidence)
    for index, launch, stamp in history.suspects:
        yield from beside.pairs(index, launch, stamp, "same run")
    clocks = history.clocks.next_run()
    everything = [clock[slot] for slot, clock in enumerate(clocks.now)]
    open_slots = {slot for slot, launches in enumerate(everything) if launches}
    for index, launch, slot, clock in clocks.replay():
        if covers(clock, everything):
            open_slots.discard(slot)  # so is every later launch of that stream
            if not open_slots:
                return
        elif not _ordered(history.regions, launch, clock):
            yield from beside.pairs(index, launch, clock, "next run")


def _ordered(regions: Regions, launch: Launch, clock: Clock) -> bool:
    """Whether all noted accesses that conflict with the launch happen before it."""
    return all(
        region.ordered(low, high, clock, write=write)
        for ranges, write in ((launch.reads, False), (launch.writes, True))
        for region, low, high in regions.find(ranges)
    )


class _Beside:
    """The launches that may run at the same time as a given one."""

    def __init__(self, evidence: Evidence) -> None:
        self._slots, self._evidence = evidence.history.clocks.slots, evidence

    def pairs(
        self, index: int, launch: Launch, clock: Clock | Stamp, relation: Relation
    ) -> Iterator[Hazard]:
        """A hazard for each earlier launch and conflict that does not happen before `launch`."""
        second = Site.of(index, launch)
        for stream, issued in self._evidence.launches.items():
            for earlier, other in issued[clock[self._slots[stream]] :]:
                if relation == "same run" and earlier >= index:
                    break
                first = Site.of(earlier, other)
                for kind, range in _conflicts(other, launch):
                    yield _race(kind, first, second, range, relation, self._evidence)


def _conflicts(first: Launch, second: Launch) -> list[tuple[HazardKind, Range]]:
    """The bytes in which two launches conflict, once for each kind."""
    found: dict[tuple[HazardKind, Range], None] = {}
    kinds: tuple[tuple[HazardKind, tuple[Range, ...], tuple[Range, ...]], ...] = (
        ("RAW", first.writes, second.reads),
        ("WAR", first.reads, second.writes),
        ("WAW", first.writes, second.writes),
    )
    for kind, ours, theirs in kinds:
        for a, b in product(ours, theirs):
            low, high = max(a.low, b.low), min(a.high, b.high)
            if a.buffer == b.buffer and low < high:
                found[kind, Range(a.buffer, low, high)] = None
    return list(found)


def _race(
    kind: HazardKind, first: Site, second: Site, range: Range, relation: Relation,
    evidence: Evidence,
) -> Hazard:  # fmt: skip
    shown, kind = kind, evidence.kept_kind(kind, range, first, second, relation)
    tensors = evidence.tensors(range)
    barriers = evidence.barriers(first, second, relation)
    missing = f"'{first.node}' → '{second.node}'"
    if relation == "next run":
        missing += " of the next run"
    verb, prior = _VERBS[shown]
    again = "issued again right after this run, " if relation == "next run" else ""
    message = (
        f"{again}{second} {verb} {show_range(range)}{show_tensors(tensors)} while {first} "
        f"{prior}; {barriers}: missing edge {missing}."
    )
    return Hazard(kind, message, first, second, tensors, range, relation, barriers, missing)


def _uninitialised(index: int, launch: Launch, range: Range, evidence: Evidence) -> Hazard:
    site = Site.of(index, launch)
    tensors = evidence.tensors(range)
    message = (
        f"{site} reads {show_range(range)}{show_tensors(tensors)}, which no launch before it "
        "has written."
    )
    kind: HazardKind = "STATE_INIT" if evidence.is_state(range) else "UNINITIALISED"
    return Hazard(kind, message, None, site, tensors, range)
