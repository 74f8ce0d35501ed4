"""Plans one mistake away from a given plan: what a wrong compiler could have written.

Some mutants are as safe as the plan they come from. Whether one is must be asked of somebody
who knows (tests/oracle.py); the verifier has to say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import permutations
from random import Random

from graphexec.ir.plan import (
    HostWait,
    Instruction,
    Launch,
    PlacedTensor,
    Plan,
    Range,
    Record,
    Stream,
    Wait,
)

Mutant = tuple[str, Plan]
"""The change (its kind, a colon, details), and the changed plan."""

DISTANCES = (1, 2, 3, 5, 8, 13, 21)


def mutants(plan: Plan) -> Iterator[Mutant]:
    """Every mutant, in a fixed order, the kinds one after another."""
    for kind in KINDS:
        for what, mutant in KINDS[kind](plan):
            yield f"{kind}: {what}", mutant


def sample(plan: Plan, random: Random, per_kind: int) -> Iterator[Mutant]:
    """At most `per_kind` mutants of each kind, chosen at random."""
    for kind in KINDS:
        found = list(KINDS[kind](plan))
        for what, mutant in random.sample(found, min(per_kind, len(found))):
            yield f"{kind}: {what}", mutant


# Order -----------------------------------------------------------------------------------


def _deleted(plan: Plan) -> Iterator[Mutant]:
    for place, step in _synchronization(plan):
        yield _says(place, step), _with_steps(plan, *_without(plan, place))


def _moved(plan: Plan) -> Iterator[Mutant]:
    last = len(plan.instructions) - 1
    for place, step in _synchronization(plan):
        near = {place + sign * far for far in DISTANCES for sign in (1, -1)}
        for target in sorted(({0, last} | {t for t in near if 0 <= t <= last}) - {place}):
            steps = _without(plan, place)
            steps.insert(target, step)
            yield f"{_says(place, step)} to {target}", _with_steps(plan, *steps)


def _swapped(plan: Plan) -> Iterator[Mutant]:
    for place in range(len(plan.instructions) - 1):
        steps = list(plan.instructions)
        steps[place : place + 2] = reversed(steps[place : place + 2])
        yield f"{place} and {place + 1}", _with_steps(plan, *steps)


def _to_other_event(plan: Plan) -> Iterator[Mutant]:
    events = sorted({step.event for _, step in _synchronization(plan)})
    for place, step in _synchronization(plan):
        for event in (*events, max(events) + 1):
            if event != step.event:
                changed = replace(step, event=event)
                yield f"{_says(place, step)} to event {event}", _with_step(plan, place, changed)


def _to_other_stream(plan: Plan) -> Iterator[Mutant]:
    for place, step in _synchronization(plan):
        if not isinstance(step, HostWait):
            for stream in _other_streams(plan, step.stream):
                changed = replace(step, stream=stream.id)
                yield f"{_says(place, step)} to s{stream.id}", _with_step(plan, place, changed)


def _merged(plan: Plan) -> Iterator[Mutant]:
    """All waits for `gone` become waits for `kept`."""
    records = {s.event: i for i, s in enumerate(plan.instructions) if isinstance(s, Record)}
    for gone, kept in permutations(records, 2):
        steps = [
            replace(step, event=kept) if not isinstance(step, Launch) and step.event == gone
            else step
            for i, step in enumerate(plan.instructions)
            if i != records[gone]
        ]  # fmt: skip
        yield f"event {gone} into {kept}", _with_steps(plan, *steps)


def _host_wait_dropped(plan: Plan) -> Iterator[Mutant]:
    kept = [step for step in plan.instructions if not isinstance(step, HostWait)]
    if len(kept) < len(plan.instructions):
        yield "all", _with_steps(plan, *kept)


def _launch_to_other_stream(plan: Plan) -> Iterator[Mutant]:
    """With its handle as it was, and with that of the new stream."""
    for place, launch in _launches(plan):
        for stream in _other_streams(plan, launch.stream):
            rebound = None if launch.blas_handle is None else stream.blas_handle
            handles = {launch.blas_handle, rebound}
            for handle in sorted(handles, key=str):
                changed = replace(launch, stream=stream.id, blas_handle=handle)
                what = f"{_says(place, launch)} to s{stream.id}, handle {handle}"
                yield what, _with_step(plan, place, changed)


# Handles ---------------------------------------------------------------------------------


def _handle_shared(plan: Plan) -> Iterator[Mutant]:
    """The launches of the second stream change with it, or do not."""
    for one, two in permutations(plan.streams, 2):
        if one.blas_handle is None:
            continue
        streams = tuple(
            replace(s, blas_handle=one.blas_handle) if s is two else s for s in plan.streams
        )
        what = f"that of s{one.id} with s{two.id}"
        yield what, replace(plan, streams=streams)
        steps = [
            replace(step, blas_handle=one.blas_handle)
            if isinstance(step, Launch) and step.stream == two.id and step.blas_handle is not None
            else step
            for step in plan.instructions
        ]
        yield f"{what} and its launches", replace(plan, streams=streams, instructions=tuple(steps))


def _handle_changed(plan: Plan) -> Iterator[Mutant]:
    for place, launch in _launches(plan):
        for handle in sorted({s.blas_handle for s in plan.streams} | {None}, key=str):
            if handle != launch.blas_handle:
                changed = replace(launch, blas_handle=handle)
                yield f"{_says(place, launch)} to {handle}", _with_step(plan, place, changed)


# Bytes -----------------------------------------------------------------------------------


def _flipped(plan: Plan) -> Iterator[Mutant]:
    """A read becomes a write, or a write a read."""
    for place, launch in _launches(plan):
        for i, item in enumerate(launch.reads):
            reads = launch.reads[:i] + launch.reads[i + 1 :]
            changed = replace(launch, reads=reads, writes=(*launch.writes, item))
            yield f"{_says(place, launch)} writes read {i}", _with_step(plan, place, changed)
        for i, item in enumerate(launch.writes):
            writes = launch.writes[:i] + launch.writes[i + 1 :]
            changed = replace(launch, reads=(*launch.reads, item), writes=writes)
            yield f"{_says(place, launch)} reads write {i}", _with_step(plan, place, changed)


def _shifted(plan: Plan) -> Iterator[Mutant]:
    """To where another tensor lies, by a few bytes, out of the buffer; one access or all."""
    for tensor in plan.tensors:
        size = plan.buffer(tensor.buffer).bytes
        others = {t.offset for t in plan.tensors if t.buffer == tensor.buffer}
        near = {tensor.offset + by for by in (-256, -tensor.bytes, -1, 1, tensor.bytes, 256)}
        for offset in sorted(others | near | {size - tensor.bytes + 1}):
            if offset != tensor.offset:
                yield from _replaced(plan, tensor, replace(tensor, offset=offset))


def _shrunk(plan: Plan) -> Iterator[Mutant]:
    for tensor in plan.tensors:
        sizes = {0, 1, tensor.bytes // 2, tensor.bytes - tensor.dtype.itemsize}
        for size in sorted(sizes - {tensor.bytes}):
            yield from _replaced(plan, tensor, replace(tensor, bytes=size))


def _replaced(plan: Plan, old: PlacedTensor, new: PlacedTensor) -> Iterator[Mutant]:
    """`new` in place of `old` in every range of the tensor, and in each range alone."""
    what = f"{old.name} from [{old.offset}, +{old.bytes}) to [{new.offset}, +{new.bytes})"
    tensors = tuple(new if t is old else t for t in plan.tensors)

    def moved(item: Range) -> Range:
        shift = new.offset - old.offset
        high = min(item.high, old.offset + new.bytes)
        return Range(item.buffer, item.low + shift, high + shift)

    steps, owners = list(plan.instructions), _accesses(plan, old)
    for place in owners:
        launch = plan.instructions[place]
        assert isinstance(launch, Launch)
        steps[place] = replace(
            launch,
            reads=tuple(moved(r) if _inside(r, old) else r for r in launch.reads),
            writes=tuple(moved(w) if _inside(w, old) else w for w in launch.writes),
        )
        yield f"{what} in {place}", _with_step(plan, place, steps[place])
    if owners:
        yield what, replace(plan, tensors=tensors, instructions=tuple(steps))


def _accesses(plan: Plan, tensor: PlacedTensor) -> list[int]:
    """The launches that touch the tensor: from the first write of its node until bytes of it
    are written by another. (Only for a tensor that is made in place of another this is rough.)
    """
    found: list[int] = []
    for place, launch in _launches(plan):
        own = launch.node in (tensor.name, f"{tensor.name}.h2d", f"{tensor.name}.d2h")
        writes = any(_touches(w, tensor) for w in launch.writes)
        if found and writes and not own:
            break
        if (found or (own and writes)) and any(
            _inside(item, tensor) for item in (*launch.reads, *launch.writes)
        ):
            found.append(place)
    return found


def _inside(item: Range, tensor: PlacedTensor) -> bool:
    high = tensor.offset + tensor.bytes
    return item.buffer == tensor.buffer and tensor.offset <= item.low and item.high <= high


def _touches(item: Range, tensor: PlacedTensor) -> bool:
    high = tensor.offset + tensor.bytes
    return item.buffer == tensor.buffer and item.low < high and tensor.offset < item.high


# Plans -----------------------------------------------------------------------------------


def _synchronization(plan: Plan) -> list[tuple[int, Record | Wait | HostWait]]:
    return [(i, s) for i, s in enumerate(plan.instructions) if not isinstance(s, Launch)]


def _launches(plan: Plan) -> list[tuple[int, Launch]]:
    return [(i, s) for i, s in enumerate(plan.instructions) if isinstance(s, Launch)]


def _other_streams(plan: Plan, stream: int) -> list[Stream]:
    return [s for s in plan.streams if s.id != stream]


def _without(plan: Plan, place: int) -> list[Instruction]:
    return [*plan.instructions[:place], *plan.instructions[place + 1 :]]


def _with_step(plan: Plan, place: int, step: Instruction) -> Plan:
    steps = list(plan.instructions)
    steps[place] = step
    return _with_steps(plan, *steps)


def _with_steps(plan: Plan, *steps: Instruction) -> Plan:
    return replace(plan, instructions=steps)


def _says(place: int, step: Instruction) -> str:
    if isinstance(step, Launch):
        return f"launch {place} ({step.command} of '{step.node}')"
    stream = "" if isinstance(step, HostWait) else f" on s{step.stream}"
    return f"{type(step).__name__.lower()} {place}{stream} of event {step.event}"


KINDS: dict[str, Callable[[Plan], Iterator[Mutant]]] = {
    "delete synchronization": _deleted,
    "move synchronization": _moved,
    "swap neighbours": _swapped,
    "other event": _to_other_event,
    "other stream": _to_other_stream,
    "merge events": _merged,
    "drop host_wait": _host_wait_dropped,
    "move launch": _launch_to_other_stream,
    "share handle": _handle_shared,
    "change handle": _handle_changed,
    "flip access": _flipped,
    "shift allocation": _shifted,
    "shrink allocation": _shrunk,
}
"""The kinds of changes, and their functions."""
