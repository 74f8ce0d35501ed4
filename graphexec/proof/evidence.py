"""Lookups for checks and reports: tensors at bytes, waits between two instructions.

Each is computed on first use; most are only needed for a report.
"""

from __future__ import annotations

from functools import cached_property

from graphexec.ir.plan import Launch, PlacedTensor, Plan, Range, Record, Wait
from graphexec.proof.hazard import HazardKind, Relation, Site
from graphexec.proof.history import History

_NAMES_SHOWN = 3


class Evidence:
    """Cached lookups in a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def tensors(self, range: Range) -> tuple[str, ...]:
        """The tensors placed on any of these bytes; those on exactly these bytes first."""
        exact, others = [], []
        for tensor in self._tensors.get(range.buffer, ()):
            low, high = tensor.offset, tensor.offset + tensor.bytes
            if (low, high) == (range.low, range.high):
                exact.append(tensor.name)
            elif low < range.high and range.low < high:
                others.append(tensor.name)
        return tuple(exact + others)

    def is_state(self, range: Range) -> bool:
        """Whether the bytes are kept from run to run."""
        return range.buffer in self._kept

    def kept_kind(
        self, kind: HazardKind, range: Range, first: Site, second: Site, relation: Relation
    ) -> HazardKind:
        """What a race is called: one for bytes that are kept has a name of its own."""
        if not self.is_state(range):
            return kind
        if first.request != second.request:
            return "STATE_SHARED"
        if relation != "same run":
            return "STATE_STEP"
        renamed: dict[HazardKind, HazardKind] = {"WAR": "STATE_WAR", "WAW": "STATE_WRITERS"}
        return renamed.get(kind, kind)

    def barriers(self, first: Site, second: Site, relation: Relation) -> str:
        """The waits between two launches, and why they do not order these, as text."""
        stream, other = second.stream, first.stream
        if relation == "next run":
            return (
                f"stream {stream} of the next run starts '{second.node}' after nothing that "
                f"follows '{first.node}'"
            )
        wait = self._last_wait(second, other)
        if wait is None:
            said = f"stream {stream} waits for nothing recorded after '{first.node}'"
        else:
            said = (
                f"the last event of stream {other} that stream {stream} waits for before it is "
                f"event {wait.event}, recorded by instruction {self._records[wait.event][0]}, "
                f"before '{first.node}'"
            )
        unused = self._record_after(first)
        if unused is not None and unused[0] < second.index:
            said += (
                f"; event {unused[1].event} marks '{first.node}' (instruction {unused[0]}) but "
                f"does not reach stream {stream} in time"
            )
        return said

    def _last_wait(self, second: Site, recorded_on: int | None) -> Wait | None:
        """The last wait of the second's stream before it for an event of the given stream."""
        assert second.stream is not None
        for index, wait in reversed(self._waits.get(second.stream, ())):
            recorded, record = self._records.get(wait.event, (index, None))
            if recorded < index < second.index and record and record.stream == recorded_on:
                return wait
        return None

    def _record_after(self, first: Site) -> tuple[int, Record] | None:
        """The first record of the first's stream after it."""
        for index, record in self._records.values():
            if record.stream == first.stream and index > first.index:
                return index, record
        return None

    @cached_property
    def history(self) -> History:
        """The accesses of one run, and the clocks at its end."""
        return History(self._plan)

    @cached_property
    def issued(self) -> list[tuple[int, Launch]]:
        """All launches with their indices, in issue order."""
        instructions = self._plan.instructions
        return [(index, i) for index, i in enumerate(instructions) if isinstance(i, Launch)]

    @cached_property
    def launches(self) -> dict[int, list[tuple[int, Launch]]]:
        """The launches of each stream id with their indices, in issue order."""
        found: dict[int, list[tuple[int, Launch]]] = {}
        for index, launch in self.issued:
            found.setdefault(launch.stream, []).append((index, launch))
        return found

    @cached_property
    def _kept(self) -> set[str]:
        return {buffer.id for buffer in self._plan.buffers if buffer.role == "state"}

    @cached_property
    def _tensors(self) -> dict[str, list[PlacedTensor]]:
        found: dict[str, list[PlacedTensor]] = {}
        for tensor in self._plan.tensors:
            found.setdefault(tensor.buffer, []).append(tensor)
        return found

    @cached_property
    def _records(self) -> dict[int, tuple[int, Record]]:
        return {
            i.event: (index, i)
            for index, i in enumerate(self._plan.instructions)
            if isinstance(i, Record)
        }

    @cached_property
    def _waits(self) -> dict[int, list[tuple[int, Wait]]]:
        found: dict[int, list[tuple[int, Wait]]] = {}
        for index, i in enumerate(self._plan.instructions):
            if isinstance(i, Wait):
                found.setdefault(i.stream, []).append((index, i))
        return found


def show_tensors(names: tuple[str, ...]) -> str:
    """The names in brackets for a sentence, or "" when no tensor lies there."""
    if not names:
        return ""
    shown = ", ".join(f"'{name}'" for name in names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    plural = "s" if len(names) > 1 else ""
    return f" (tensor{plural} {shown}{f' and {more} more' if more > 0 else ''})"
