"""Several plans of one executable: they share states and weights, and run in any order.

A plan for a prompt and one for a token, say. Proved of every two of them:

STATE_PLACE  a state lies on the same bytes in both, with the same shape and dtype
STATE_STEP   a run of one, and then one of the other on the same streams, before the host has waited
             in between: no access to bytes that are kept is without an order
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations

from graphexec.ir.plan import (
    Buffer,
    HostWait,
    Instruction,
    Launch,
    PlacedTensor,
    Plan,
    Range,
    Record,
    Wait,
)
from graphexec.proof.evidence import Evidence
from graphexec.proof.hazard import Hazard, HazardError, show_range
from graphexec.proof.races import races

_SHARED = ("weights", "state")


def prove_together(plans: Sequence[Plan]) -> None:
    """Raise HazardError with what is wrong with plans of one executable beside one another."""
    hazards = find_hazards_together(plans)
    if hazards:
        raise HazardError(hazards)


def find_hazards_together(plans: Sequence[Plan]) -> list[Hazard]:
    """What is wrong with plans of one executable beside one another; each alone is to be proved by
    `find_hazards`."""
    return [
        hazard
        for first, second in permutations(plans, 2)
        for hazard in (*_places(first, second), *_steps(first, second))
    ]


def _places(first: Plan, second: Plan) -> Iterator[Hazard]:
    """STATE_PLACE. The order of the two does not matter, so only one tells of a difference."""
    mine, theirs = _states(first), _states(second)
    for name, tensor in mine.items():
        other = theirs.get(name)
        if other is None:
            message = f"state '{name}' of one plan of '{first.graph}' is not in another."
        elif _place(other) != _place(tensor) and _place(other) > _place(tensor):
            message = (
                f"state '{name}' is {_shown(tensor)} in one plan of '{first.graph}' and "
                f"{_shown(other)} in another: they would not share it."
            )
        else:
            continue
        yield Hazard("STATE_PLACE", message, tensors=(tensor.name,), range=tensor.range)


def _states(plan: Plan) -> dict[str, PlacedTensor]:
    return {tensor.state: tensor for tensor in plan.tensors if tensor.state}


def _place(tensor: PlacedTensor) -> tuple[object, ...]:
    return (tensor.buffer, tensor.offset, tensor.bytes, tensor.shape, tensor.dtype.value)


def _shown(tensor: PlacedTensor) -> str:
    extents = ", ".join(map(str, tensor.shape))
    return f"{tensor.dtype}[{extents}] at {show_range(tensor.range)}"


def _steps(first: Plan, second: Plan) -> Iterator[Hazard]:
    """STATE_STEP: a run of the first, and one of the second behind it."""
    if not _states(first):
        return
    both = _one_after_another(first, second)
    border = sum(not isinstance(i, HostWait) for i in first.instructions)
    evidence = Evidence(both)
    for hazard in races(both, evidence):
        a, b = hazard.first, hazard.second
        if a is None or b is None or hazard.range is None or hazard.relation != "same run":
            continue
        if a.index < border <= b.index and evidence.is_state(hazard.range):
            message = f"a run of one plan, then one of another: {hazard.message}"
            yield replace(hazard, kind="STATE_STEP", message=message)


def _one_after_another(first: Plan, second: Plan) -> Plan:
    """One plan of the two: on the same streams, with the memory of each but for what they share."""
    events = 1 + max((i.event for i in first.instructions if isinstance(i, Record)), default=-1)
    own = {b.id for b in second.buffers if b.role not in _SHARED}
    issued = [i for i in first.instructions if not isinstance(i, HostWait)]
    later = [_renamed(i, events, own) for i in second.instructions]
    streams = {stream.id: stream for stream in (*first.streams, *second.streams)}
    return replace(
        first, streams=tuple(streams.values()), buffers=_buffers(first, second, own), tensors=(),
        instructions=(*issued, *later), stats=None,
    )  # fmt: skip


def _buffers(first: Plan, second: Plan, own: set[str]) -> tuple[Buffer, ...]:
    found = {buffer.id: buffer for buffer in first.buffers}
    for buffer in second.buffers:
        moved = replace(buffer, id=_own(buffer.id, own))
        found.setdefault(moved.id, moved)
    return tuple(found.values())


def _renamed(instruction: Instruction, events: int, own: set[str]) -> Instruction:
    match instruction:
        case Launch(reads=reads, writes=writes):
            return replace(instruction, after=(), reads=_ranges(reads, own),
                           writes=_ranges(writes, own))  # fmt: skip
        case Record(stream, event):
            return Record(stream, event + events)
        case Wait(stream, event, role):
            return Wait(stream, event + events, role)
        case HostWait(event):
            return HostWait(event + events)


def _ranges(ranges: tuple[Range, ...], own: set[str]) -> tuple[Range, ...]:
    return tuple(replace(r, buffer=_own(r.buffer, own)) for r in ranges)


def _own(buffer: str, own: set[str]) -> str:
    return f"{buffer}##" if buffer in own else buffer
