"""JSON text to a plan: tables of the values that each key may have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

from graphexec.base.diagnostics import Source
from graphexec.base.tensor import DType, Space
from graphexec.formats.plan_file.json_text import parse, repeated_keys, show
from graphexec.formats.plan_file.values import (
    Mistakes,
    Optional,
    Place,
    Reader,
    Wrong,
    boolean,
    extent,
    fields,
    integer,
    list_of,
    mapping_of,
    name,
    one_of,
    refuse_other_kinds,
    text,
)
from graphexec.formats.plan_file.write import VERSIONS, version_of
from graphexec.ir.figures import counted
from graphexec.ir.plan import (
    Buffer,
    HostWait,
    Instruction,
    Launch,
    PlacedTensor,
    Plan,
    Range,
    Record,
    Stats,
    Stream,
    Wait,
    WaitRole,
)
from graphexec.ir.program import Cost, Role, WorkKind

MAX_STREAMS = 1024
MAX_CLOCKS = 1 << 26  # streams times events: 512 MiB of counters


def loads(text: str, path: str = "<plan>") -> Plan:
    """The plan in a JSON text; messages call it `path`. Raises GraphError."""
    source = Source(path, text)
    document = parse(source)
    mistakes = Mistakes(source)
    plan = _read_plan(document, mistakes)
    mistakes.raise_if_any()
    assert plan is not None  # a plan is refused only with a mistake noted
    return plan


def _read_plan(document: Any, mistakes: Mistakes) -> Plan | None:
    try:
        refuse_other_kinds(document, "plan_version", "a plan")
        if isinstance(document, dict | list):
            for path in repeated_keys(document):
                mistakes.add(path, Wrong("this key is written twice"))
        return _plan(document, Place(mistakes))
    except Wrong as wrong:
        mistakes.add((), wrong)
        return None


def _plan(value: Any, place: Place) -> Plan:
    if isinstance(value, dict) and "plan_version" in value:
        # This version cannot judge a document of another version.
        _version(value["plan_version"], place)
    found = _PLAN(value, place)
    version = found.pop("plan_version")
    _check_clocks(found["streams"], found["instructions"])
    found["dims"] = dict(found["dims"])
    stats = found.pop("stats")
    plan = Plan(**found)
    _check_version(version, plan)
    return plan if stats is None else replace(plan, stats=_stats(stats, plan))


def _check_clocks(streams: tuple[Stream, ...], instructions: tuple[Instruction, ...]) -> None:
    """Refuse a plan whose proof would need too much memory: an event knows a number a stream."""
    ids = {stream.id for stream in streams}
    ids.update(i.stream for i in instructions if not isinstance(i, HostWait))
    if len(ids) > MAX_STREAMS:
        raise Wrong(f"streams: a plan may use {MAX_STREAMS:,} streams, this one uses {len(ids):,}")
    events = sum(isinstance(i, Record) for i in instructions)
    if events * len(ids) > MAX_CLOCKS:
        raise Wrong(
            f"instructions: {events:,} events on {len(ids):,} streams are more than can be "
            f"proved; their product may be {MAX_CLOCKS:,}"
        )


def _version(value: Any, place: Place) -> int:
    if type(value) is not int or value not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise Wrong(
            f"plan_version: this program reads versions {known} of the format, found {show(value)}"
        )
    return value


def _check_version(stated: int, plan: Plan) -> None:
    """Refuse a plan that uses what its version does not have."""
    if stated < version_of(plan):
        tensor = next((t for t in plan.tensors if not t.dtype.is_float), None)
        if tensor is None:
            raise Wrong(f"plan_version: states need version 2, found {stated}")
        raise Wrong(
            f"plan_version: tensors such as '{tensor.name}' of {tensor.dtype} need version 2, "
            f"found {stated}"
        )


def _stats(found: dict[str, Any], plan: Plan) -> Stats:
    """The figures of the file; what it leaves out and can be counted is counted."""
    return replace(counted(plan), **{key: v for key, v in found.items() if v is not None})


def _range(value: Any, place: Place) -> Range:
    if not isinstance(value, list) or len(value) != 3:
        raise Wrong(f"expected [buffer, first byte, past-last byte], found {show(value)}")
    buffer = place.read(name, value[0], 0)
    low = place.read(integer, value[1], 1)
    high = place.read(integer, value[2], 2)
    if buffer is None or low is None or high is None:
        raise Wrong
    return Range(buffer, low, high)


def _dtype(value: Any, place: Place) -> DType:
    return DType(one_of(*(dtype.value for dtype in DType))(value, place))


def _instruction(value: Any, place: Place) -> Instruction:
    kind = value.get("kind") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind in _INSTRUCTIONS:
        made: Instruction = _INSTRUCTIONS[kind](value, place)
        return made
    # Not one of the four: the general reader reports the wrong kind.
    fields({"kind": one_of(*_INSTRUCTIONS)})(value, place)
    raise Wrong


def _made(make: Callable[..., Any], table: dict[str, Reader | Optional]) -> Reader:
    """A reader of objects whose members are the arguments of `make`."""
    read_fields = fields(table)

    def read(value: Any, place: Place) -> Any:
        return make(**read_fields(value, place))

    return read


def _unique(read_items: Reader, key: str) -> Reader:
    """A reader of lists in which no two items have the same `key`."""

    def read(value: Any, place: Place) -> tuple[Any, ...]:
        items: tuple[Any, ...] = read_items(value, place)
        times = Counter(getattr(item, key) for item in items)
        repeated = [show(used) for used, count in times.items() if count > 1]
        if repeated:
            raise Wrong(f"each {key} may be used once; used again: {', '.join(repeated[:5])}")
        return items

    return read


def _launch(command: str, work: WorkKind | None, **found: Any) -> Launch:
    """A launch that does not say its kind of work is of the kind that its command is called."""
    nodes, writes = len(found["nodes"]), len(found["writes"])
    if nodes > writes:
        raise Wrong(f"nodes has {nodes} names and writes {writes} ranges; writes[i] is of nodes[i]")
    kind: Any = work or (command if command in _KINDS else None)
    return Launch(command=command, kind=kind, **found)


_KINDS = get_args(WorkKind)
_RANGES = list_of(_range)

_INSTRUCTIONS: dict[str, Reader] = {
    "launch": _made(
        _launch,
        {
            "stream": integer,
            "node": name,
            "command": name,
            "work": Optional(one_of(*_KINDS)),
            "cost": Optional(_made(Cost, {"flops": integer, "bytes": integer})),
            "reads": _RANGES,
            "writes": _RANGES,
            "blas_handle": Optional(integer),
            "after": Optional(list_of(name), ()),
            "nodes": Optional(list_of(name), ()),
        },
    ),
    "record": _made(Record, {"stream": integer, "event": integer}),
    "wait": _made(
        Wait,
        {
            "stream": integer,
            "event": integer,
            "role": Optional(one_of(*get_args(WaitRole)), "dependency"),
        },
    ),
    "host_wait": _made(HostWait, {"event": integer}),
}

_STREAM = _made(Stream, {"id": integer, "blas_handle": Optional(integer)})

_BUFFER = _made(
    Buffer,
    {
        "id": name,
        "bytes": integer,
        "space": one_of(*get_args(Space)),
        "role": one_of(*get_args(Role)),
    },
)

_TENSOR = _made(
    PlacedTensor,
    {
        "name": name,
        "buffer": name,
        "offset": integer,
        "bytes": integer,
        "shape": list_of(extent),
        "dtype": _dtype,
        "state": Optional(name, ""),
        "next": Optional(name, ""),
        "init": Optional(boolean, True),
    },
)

_STATS = fields(
    {
        "streams": Optional(integer),
        "waits": Optional(integer),
        "cross_stream_edges": Optional(integer),
        "events": Optional(integer),
        "arena_bytes": Optional(integer),
        "arena_lower_bound": Optional(integer),
        "naive_bytes": Optional(integer),
        "predicted_ns": Optional(integer),
        "makespan_lower_bound_ns": Optional(integer),
        "costs": Optional(text, ""),
        "schedule": Optional(text, ""),
    }
)

_PLAN = fields(
    {
        "plan_version": _version,
        "graph": text,
        "device": text,
        "dims": Optional(mapping_of(integer), {}),
        "streams": _unique(list_of(_STREAM), "id"),
        "buffers": _unique(list_of(_BUFFER), "id"),
        "tensors": _unique(list_of(_TENSOR), "name"),
        "instructions": list_of(_instruction),
        "stats": Optional(_STATS),
    }
)
