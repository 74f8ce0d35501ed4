"""Checks that need no happens-before: names, bytes, events, handles.

Each check is a generator of hazards and reads only the instruction list and the declarations:

STREAM    every stream used is declared, once; stream 0, the origin, exists if anything runs
EVENT     an event is recorded once, and before it is waited for
BOUNDS    ranges and tensors lie in buffers of the plan, and ranges hold at least a byte
HANDLE    a BLAS handle belongs to one stream, and a launch that the BLAS executes, as its kind
          says, carries the handle of its own stream
ALIAS     a launch writes no byte that it also reads, but for the same range (in place), and no
          byte twice
READONLY  nothing writes inputs (the host's) or weights (they survive the run)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from graphexec.ir.plan import HostWait, Launch, PlacedTensor, Plan, Range, Record
from graphexec.proof.evidence import Evidence, show_tensors
from graphexec.proof.hazard import Hazard, Site, show_range

_BLAS = ("gemm", "gemm_batch")
_FEW = 16  # ranges of a launch
_OWNERS = {
    "input": "an input buffer: its bytes belong to the host",
    "weights": "a weights buffer: its bytes must survive the run",
}


def streams(plan: Plan, evidence: Evidence) -> Iterator[Hazard]:
    """STREAM: declared once, and known where it is used."""
    declared = [stream.id for stream in plan.streams]
    for id in _repeated(declared):
        yield Hazard("STREAM", f"stream {id} is declared twice.")
    known = set(declared)
    if plan.instructions and 0 not in known:
        yield Hazard("STREAM", "the plan has no stream 0, the origin every stream forks from.")
    for index, i in enumerate(plan.instructions):
        if not isinstance(i, HostWait) and i.stream not in known:
            site = Site.of(index, i)
            yield Hazard("STREAM", f"{site} is on a stream the plan does not have.", None, site)


def events(plan: Plan, evidence: Evidence) -> Iterator[Hazard]:
    """EVENT: recorded once, and before any wait for it."""
    records: dict[int, int] = {}
    waits: list[tuple[int, int]] = []
    for index, i in enumerate(plan.instructions):
        if isinstance(i, Record):
            if i.event in records:
                sites = (Site.of(j, plan.instructions[j]) for j in (records[i.event], index))
                yield _recorded_twice(i.event, *sites)
            records[i.event] = index
        elif not isinstance(i, Launch) and i.event not in records:
            waits.append((index, i.event))
    for index, event in waits:
        later = records.get(event)
        record = None if later is None else Site.of(later, plan.instructions[later])
        yield _waits_for_nothing(event, record, Site.of(index, plan.instructions[index]))


def _recorded_twice(event: int, first: Site, second: Site) -> Hazard:
    message = (
        f"event {event} is recorded twice, by {first} and again by {second}: a wait for it is "
        "ambiguous."
    )
    return Hazard("EVENT", message, first, second)


def _waits_for_nothing(event: int, record: Site | None, wait: Site) -> Hazard:
    when = "is never recorded" if record is None else f"is only recorded later, by {record}"
    message = f"{wait} is for event {event}, which {when}: it orders nothing."
    return Hazard("EVENT", message, record, wait)


def bounds(plan: Plan, evidence: Evidence) -> Iterator[Hazard]:
    """BOUNDS: every range and every tensor lies inside a buffer."""
    for id in _repeated([buffer.id for buffer in plan.buffers]):
        yield Hazard("BOUNDS", f"buffer '{id}' is declared twice.")
    sizes = {buffer.id: buffer.bytes for buffer in plan.buffers}
    for buffer in plan.buffers:
        if buffer.bytes < 0:
            yield Hazard("BOUNDS", f"buffer '{buffer.id}' has {buffer.bytes} bytes.")
    for tensor in plan.tensors:
        yield from _tensor_bounds(tensor, sizes)
    for index, launch in evidence.issued:
        for verb, ranges in (("reads", launch.reads), ("writes", launch.writes)):
            for range in ranges:
                size = sizes.get(range.buffer, -1)
                if not 0 <= range.low < range.high <= size:
                    yield _out_of_bounds(Site.of(index, launch), verb, range, size)


def _tensor_bounds(tensor: PlacedTensor, sizes: dict[str, int]) -> Iterator[Hazard]:
    low, high = tensor.offset, tensor.offset + tensor.bytes
    size = sizes.get(tensor.buffer)
    range = Range(tensor.buffer, low, high)
    if size is None:
        what = f"in buffer '{tensor.buffer}', which the plan does not have."
    elif not 0 <= low <= high <= size:
        what = f"at {show_range(range)}, outside the buffer's {size} bytes."
    else:
        return
    yield Hazard(
        "BOUNDS", f"tensor '{tensor.name}' is placed {what}", tensors=(tensor.name,), range=range
    )


def _out_of_bounds(site: Site, verb: str, range: Range, size: int) -> Hazard:
    if size < 0:
        what = f"buffer '{range.buffer}', which the plan does not have"
    elif range.low >= range.high:
        what = f"{show_range(range)}, a range without bytes"
    else:
        what = f"{show_range(range)}, outside the buffer's {size} bytes"
    return Hazard("BOUNDS", f"{site} {verb} {what}.", None, site, range=range)


def handles(plan: Plan, evidence: Evidence) -> Iterator[Hazard]:
    """HANDLE: BLAS work runs on the stream it was issued to."""
    owner: dict[int, int] = {}
    for stream in plan.streams:
        if stream.blas_handle is not None:
            other = owner.setdefault(stream.blas_handle, stream.id)
            if other != stream.id:
                yield _shared_handle(stream.blas_handle, other, stream.id)
    bound = {stream.id: stream.blas_handle for stream in plan.streams}
    # The CPU needs no handles: a plan for it may omit all of them.
    needed = plan.device != "cpu" or any(handle is not None for handle in bound.values())
    for index, launch in evidence.issued:
        handle = bound.get(launch.stream)
        if launch.blas_handle is None:
            if launch.kind in _BLAS and needed:
                yield _no_handle(Site.of(index, launch))
        elif launch.blas_handle != handle:
            yield _wrong_handle(Site.of(index, launch), launch.blas_handle, handle)


def _shared_handle(handle: int, first: int, second: int) -> Hazard:
    message = (
        f"BLAS handle {handle} is bound to stream {first} and to stream {second}: a handle and "
        "its workspace serve one stream."
    )
    return Hazard("HANDLE", message)


def _wrong_handle(site: Site, handle: int, expected: int | None) -> Hazard:
    has = "has no handle" if expected is None else f"has handle {expected}"
    message = (
        f"{site} carries BLAS handle {handle}, but stream {site.stream} {has}: BLAS handle not "
        "bound to the launch's stream."
    )
    return Hazard("HANDLE", message, None, site)


def _no_handle(site: Site) -> Hazard:
    message = (
        f"{site} carries no BLAS handle: BLAS handle not bound to the launch's stream: it would "
        "run on the default stream."
    )
    return Hazard("HANDLE", message, None, site)


def aliases(plan: Plan, evidence: Evidence) -> Iterator[Hazard]:
    """ALIAS: what a launch writes overlaps none of its other operands."""
    for index, launch in evidence.issued:
        if len(launch.reads) + len(launch.writes) > _FEW and not _any_overlap(launch):
            continue  # comparing all pairs is slow
        for written in launch.writes:
            for other in (*launch.reads, *launch.writes):
                if other is not written and _overlap(other, written) and other != written:
                    yield _alias(Site.of(index, launch), written, other, evidence)


def _any_overlap(launch: Launch) -> bool:
    """Whether a range that is written overlaps another: one pass in order of bytes."""
    written = set(launch.writes)
    buffer, end, end_of_written = "", 0, 0
    for r in sorted({*launch.reads, *written}, key=lambda r: (r.buffer, r.low)):
        if r.buffer != buffer:
            buffer, end, end_of_written = r.buffer, 0, 0
        if r.low < end_of_written or (r in written and r.low < end):
            return True
        end = max(end, r.high)
        if r in written:
            end_of_written = max(end_of_written, r.high)
    return False


def _alias(site: Site, written: Range, other: Range, evidence: Evidence) -> Hazard:
    tensors = evidence.tensors(written)
    message = (
        f"{site} writes {show_range(written)}{show_tensors(tensors)}, which overlaps its operand "
        f"{show_range(other)}: a command touches its operands in no particular order."
    )
    return Hazard("ALIAS", message, site, site, tensors, written)


def read_only(plan: Plan, evidence: Evidence) -> Iterator[Hazard]:
    """READONLY: inputs and weights are not written."""
    roles = {buffer.id: buffer.role for buffer in plan.buffers}
    for index, launch in evidence.issued:
        for range in launch.writes:
            owner = _OWNERS.get(roles.get(range.buffer, "arena"))
            if owner is not None:
                site, tensors = Site.of(index, launch), evidence.tensors(range)
                message = f"{site} writes {show_range(range)}{show_tensors(tensors)}, {owner}."
                yield Hazard("READONLY", message, None, site, tensors, range)


def _overlap(a: Range, b: Range) -> bool:
    return a.buffer == b.buffer and a.low < b.high and b.low < a.high


def _repeated(ids: Iterable[int | str]) -> Iterator[int | str]:
    seen: set[int | str] = set()
    for id in ids:
        if id in seen:
            yield id
        seen.add(id)
