"""A measured run in the Trace Event Format, for ui.perfetto.dev and chrome://tracing; and back.

One track a stream, one for the host, arrows for the waits between streams, a counter of the
bytes in use. Every slice names its origin: node, line of the graph's file, number of the
instruction.
Format: N. Duca and D. Sinclair, "Trace Event Format", Google, 2016.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from graphexec.base.diagnostics import Diagnostic, Source
from graphexec.base.errors import DataError, GraphError
from graphexec.formats.plan_file.json_text import parse
from graphexec.formats.plan_file.values import MAX_MICROSECONDS
from graphexec.ir.bound_plan import Prediction
from graphexec.ir.plan import Launch, Plan, Wait
from graphexec.runtime.trace import Span, Trace
from graphexec.views.layout import lanes
from graphexec.views.lifetimes import tenants, usage
from graphexec.views.predict import Times, predict
from graphexec.views.transfers import Transfers
from graphexec.views.waits import by_launch, wait_ends

Event = dict[str, Any]
_PID = 1
_HOST = 1  # the host's track; streams follow


def to_json(
    plan: Plan, trace: Trace, file: str = "", known: Prediction | None = None
) -> str:  # fmt: skip
    """The trace as a JSON document. `file` is the graph's, `known` the planner's prediction."""
    events = [*_tracks(plan), *_slices(plan, trace), *_waiting(plan, trace), *_flows(plan, trace),
              *_counter(plan, trace)]  # fmt: skip
    other = {
        "graph": trace.graph,
        "device": trace.device,
        "file": file,
        "measured_us": round(trace.total, 3),
        "uninstrumented_us": trace.uninstrumented and round(trace.uninstrumented, 3),
        "predicted_us": round(predict(plan, known).total, 3),
        "note": f"{trace.how}; uninstrumented_us is what the plan takes, from its issue to its "
        "end, without measuring",
    }
    lines = ",\n".join(json.dumps(e, ensure_ascii=False, allow_nan=False) for e in events)
    tail = json.dumps(other, ensure_ascii=False)
    return f'{{"displayTimeUnit": "ns",\n"otherData": {tail},\n"traceEvents": [\n{lines}\n]}}\n'


def _track(plan: Plan, stream: int) -> int:
    return _HOST + 1 + lanes(plan)[stream]


def _tracks(plan: Plan) -> Iterator[Event]:
    yield _meta("process_name", _HOST, {"name": f"{plan.graph} on {plan.device}"})
    names = {_HOST: "host"} | {_track(plan, s): f"stream {s}" for s in lanes(plan)}
    for track, name in names.items():
        yield _meta("thread_name", track, {"name": name})
        yield _meta("thread_sort_index", track, {"sort_index": track})


def _meta(name: str, track: int, args: dict[str, object]) -> Event:
    return {"ph": "M", "name": name, "pid": _PID, "tid": track, "args": args}


def _slices(plan: Plan, trace: Trace) -> Iterator[Event]:
    transfers = Transfers(plan)
    for name, start, end in trace.host:
        yield _slice(name, "host", _HOST, start, end, {})
    for span in trace.spans:
        launch = plan.instructions[span.instruction]
        assert isinstance(launch, Launch)
        args = {
            "instruction": span.instruction,
            "node": launch.node,
            "nodes": ", ".join(launch.nodes) or None,
            "command": launch.command,
            "line": trace.lines.get(launch.node),
            "reads_bytes": sum(r.bytes for r in launch.reads),
            "writes_bytes": sum(r.bytes for r in launch.writes),
        }
        kind = "transfer" if transfers.of(launch) else "launch"
        track = _track(plan, launch.stream)
        yield _slice(launch.title, kind, track, span.start, span.end, args)


def _waiting(plan: Plan, trace: Trace) -> Iterator[Event]:
    for span in trace.waits:
        wait = plan.instructions[span.instruction]
        assert isinstance(wait, Wait)
        args: dict[str, object] = {
            "instruction": span.instruction, "event": wait.event, "role": wait.role,
        }  # fmt: skip
        name, track = f"wait e{wait.event}", _track(plan, wait.stream)
        yield _slice(name, "wait", track, span.start, span.end, args)


def _slice(
    name: str, kind: str, track: int, start: float, end: float, args: dict[str, object]
) -> Event:  # fmt: skip
    shown = {key: value for key, value in args.items() if value is not None}
    took = max(round(end - start, 3), 0.0)
    return {"ph": "X", "name": name, "cat": kind, "pid": _PID, "tid": track,
            "ts": round(start, 3), "dur": took, "args": shown}  # fmt: skip


def _flows(plan: Plan, trace: Trace) -> Iterator[Event]:
    """An arrow for each wait, from the launch before the record to the launch after the wait."""
    spans = {s.instruction: s for s in trace.spans}
    for e in by_launch(wait_ends(plan)):
        if e.record is None or e.before not in spans or e.after not in spans:
            continue
        first, second, wait = spans[e.before], spans[e.after], e.wait
        if isinstance(wait, Wait) and wait.stream != e.record.stream:
            # Slightly before the end: the arrow belongs to the slice in which it begins.
            start = max(first.end - 0.001, first.start)
            yield _flow("s", e.number, wait, _track(plan, e.record.stream), start)
            yield _flow("f", e.number, wait, _track(plan, wait.stream), second.start)


def _flow(phase: str, id: int, wait: Wait, track: int, at: float) -> Event:
    bound = {"bp": "e"} if phase == "f" else {}
    return {"ph": phase, "id": id, "name": f"e{wait.event}", "cat": wait.role, "pid": _PID,
            "tid": track, "ts": round(at, 3), **bound}  # fmt: skip


def _counter(plan: Plan, trace: Trace) -> Iterator[Event]:
    numbers = [*plan.launches]
    spans = {s.instruction: s for s in trace.spans}
    if any(n not in spans for n in numbers):
        return
    start, end = (tuple(getattr(spans[n], side) for n in numbers) for side in ("start", "end"))
    for at, used in usage(tenants(plan), Times(start, end, {}, {}, ())):
        yield {"ph": "C", "name": "arena", "pid": _PID, "tid": _HOST,
               "ts": round(at, 3), "args": {"bytes in use": used}}  # fmt: skip


# Reading --------------------------------------------------------------------------------


def from_json(text: str, plan: Plan, path: str = "<trace>") -> Trace:
    """The trace of a run of `plan`. Raises DataError for another file or another plan's trace."""
    try:
        document = parse(Source(path, text))
        other, events = document["otherData"], document["traceEvents"]
        slices = [e for e in events if e["ph"] == "X" and e["cat"] in ("launch", "transfer")]
        spans = tuple(_span(e) for e in slices)
        nodes = {s.instruction: e["args"]["node"] for s, e in zip(spans, slices, strict=True)}
        graph, device, plain = (other[k] for k in ("graph", "device", "uninstrumented_us"))
        plain = None if plain is None else _time(plain)
        if not isinstance(device, str) or len(nodes) < len(spans):
            raise ValueError
    except (GraphError, ValueError, KeyError, TypeError) as exc:
        message = f"'{path}' is not a trace that graphexec wrote"
        help = "write one with: graphexec run FILE --trace run.json"
        raise DataError([Diagnostic(message, help=help)]) from exc
    expected = {n: i.node for n, i in plan.launches.items()}
    if graph != plan.graph or nodes != expected:
        message = f"'{path}' is a trace of another plan: of '{graph}', {len(nodes)} launches"
        help = (
            f"the plan shown is of '{plan.graph}', {len(expected)} launches; "
            "use the same graph, sizes, streams and rewrites for both"
        )
        raise DataError([Diagnostic(message, help=help)])
    return Trace(graph, device, spans, uninstrumented=plain)


def _span(event: Event) -> Span:
    number, start = event["args"]["instruction"], _time(event["ts"])
    if type(number) is not int:
        raise TypeError
    return Span(number, start, start + abs(_time(event["dur"])))


def _time(value: Any) -> float:
    """Microseconds, as files may state them; ValueError for others."""
    if type(value) not in (int, float) or not abs(value) <= MAX_MICROSECONDS:
        raise ValueError
    return float(value)
