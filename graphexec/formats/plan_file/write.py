"""A plan to JSON text, in a stable order of keys, one declaration or instruction a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from graphexec.ir.plan import HostWait, Instruction, Launch, PlacedTensor, Plan, Record, Stats, Wait

VERSIONS = (1, 2)
"""Version 2 has tensors of integers and bools, and states. A plan without them is of version 1, so
that older programs read it."""
_STATS = (
    "streams", "waits", "cross_stream_edges", "events", "arena_bytes", "arena_lower_bound",
    "naive_bytes", "predicted_ns", "makespan_lower_bound_ns", "costs", "schedule",
)  # fmt: skip


def dumps(plan: Plan) -> str:
    """The plan as JSON text that ends in a newline. Optional keys without a value are left out."""
    members = [
        ("plan_version", _line(version_of(plan))),
        ("graph", _line(plan.graph)),
        ("device", _line(plan.device)),
        ("dims", _line(dict(plan.dims))),
        ("streams", _lines(_present(asdict(stream)) for stream in plan.streams)),
        ("buffers", _lines(asdict(buffer) for buffer in plan.buffers)),
        ("tensors", _lines(map(_tensor, plan.tensors))),
        ("instructions", _lines(map(_instruction, plan.instructions))),
    ]
    if plan.stats is not None:
        members.append(("stats", _line(_stats(plan.stats))))
    body = ",\n ".join(f'"{key}": {value}' for key, value in members)
    return f"{{{body}}}\n"


def version_of(plan: Plan) -> int:
    """The least version of the format that has what the plan uses."""
    kept = any(b.role == "state" for b in plan.buffers)
    kept = kept or any(t.state or t.next or not t.init for t in plan.tensors)
    return 1 if all(t.dtype.is_float for t in plan.tensors) and not kept else 2


def _tensor(tensor: PlacedTensor) -> dict[str, Any]:
    members = asdict(tensor) | {"dtype": tensor.dtype.value}
    usual = {"state": "", "next": "", "init": True}
    return {key: value for key, value in members.items() if key not in usual or value != usual[key]}


def _instruction(i: Instruction) -> dict[str, Any]:
    match i:
        case Launch():
            return _launch(i)
        case Record():
            return {"kind": "record", "stream": i.stream, "event": i.event}
        case Wait():
            return {"kind": "wait", "stream": i.stream, "event": i.event, "role": i.role}
        case HostWait():
            return {"kind": "host_wait", "event": i.event}


def _launch(launch: Launch) -> dict[str, Any]:
    members: dict[str, Any] = {
        "kind": "launch",
        "stream": launch.stream,
        "node": launch.node,
        "nodes": launch.nodes or None,
        "command": launch.command,
        "work": launch.kind,
        "cost": launch.cost and {"flops": launch.cost.flops, "bytes": launch.cost.bytes},
        "blas_handle": launch.blas_handle,
        "after": launch.after or None,
        "reads": [(r.buffer, r.low, r.high) for r in launch.reads],
        "writes": [(r.buffer, r.low, r.high) for r in launch.writes],
    }
    return _present(members)


def _stats(stats: Stats) -> dict[str, Any]:
    values = asdict(stats)
    return {key: values[key] for key in _STATS if values[key] not in (None, "")}


def _present(members: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if value is not None}


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _lines(items: Iterable[object]) -> str:
    lines = ",\n  ".join(map(_line, items))
    return f"[\n  {lines}]" if lines else "[]"
