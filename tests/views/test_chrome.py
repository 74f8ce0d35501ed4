"""The trace of a run: the format, what it says, and reading it again.

The rules of the Trace Event Format that Perfetto insists on are checked here one by one;
test_perfetto.py asks Perfetto itself.
"""

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest

import graphexec as gx
from graphexec.ir.plan import Launch, Wait
from graphexec.runtime.cpu.device import CpuDevice
from graphexec.tools.measure import measure
from graphexec.views.chrome import from_json, to_json

KEYS = {
    "X": {"ph", "name", "cat", "pid", "tid", "ts", "dur", "args"},
    "M": {"ph", "name", "pid", "tid", "args"},
    "C": {"ph", "name", "pid", "tid", "ts", "args"},
    "s": {"ph", "id", "name", "cat", "pid", "tid", "ts"},
    "f": {"ph", "id", "name", "cat", "pid", "tid", "ts", "bp"},
}


def check_format(document: dict) -> None:
    """The rules of the format."""
    assert set(document) == {"displayTimeUnit", "otherData", "traceEvents"}
    events = document["traceEvents"]
    tracks = {e["tid"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    slices: dict[int, list[tuple[float, float]]] = {}
    for event in events:
        assert set(event) == KEYS[event["ph"]], event
        assert event["tid"] in tracks
        if event["ph"] != "M":
            assert isinstance(event["ts"], float)
            assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
            slices.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"]))
        if event["ph"] == "C":
            assert all(type(value) is int for value in event["args"].values())
    check_nesting(slices)
    check_flows(events, slices)


def check_nesting(slices: dict[int, list[tuple[float, float]]]) -> None:
    """Slices of a track lie beside or inside one another: others are dropped on import."""
    for track in slices.values():
        track.sort()
        for (_, end), (start, _) in pairwise(track):
            assert end <= start + 0.0015  # microseconds are rounded to a nanosecond


def check_flows(events: list[dict], slices: dict[int, list[tuple[float, float]]]) -> None:
    """An arrow has one start and one end, in this order, each bound to a slice."""
    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert starts.keys() == ends.keys()
    assert len(starts) == sum(e["ph"] == "s" for e in events)
    for id, start in starts.items():
        assert start["ts"] <= ends[id]["ts"]
        for end in (start, ends[id]):
            assert any(low <= end["ts"] <= high for low, high in slices[end["tid"]])
            assert (end["name"], end["cat"]) == (start["name"], start["cat"])


@pytest.fixture(scope="module")
def measured():
    graph = gx.load("graphs/multi_head_attention.yaml")
    with gx.compile(graph, device=CpuDevice(delays=1), no_rewrite=["all"]) as exe:
        x = np.ones((2, 64, 64), np.float32)
        plain = exe.run(x=x)
        outputs, trace = measure(exe, {"x": x})
        assert np.array_equal(outputs["out"], plain["out"])
        return exe.plan, trace


@pytest.fixture(scope="module")
def document(measured) -> dict:
    return json.loads(to_json(*measured, file="graphs/multi_head_attention.yaml"))


def test_the_format_is_kept(document):
    check_format(document)


def test_there_is_a_track_a_stream_and_one_for_the_host(measured, document):
    names = [e["args"]["name"] for e in document["traceEvents"] if e["name"] == "thread_name"]
    assert names == ["host", *(f"stream {s.id}" for s in measured[0].streams)]
    host = [e["name"] for e in document["traceEvents"] if e.get("cat") == "host"]
    assert host == ["issue", "wait for the outputs"]


def test_every_launch_and_wait_was_measured(measured):
    plan, trace = measured
    for kind, spans in ((Launch, trace.spans), (Wait, trace.waits)):
        numbers = [n for n, i in enumerate(plan.instructions) if isinstance(i, kind)]
        assert [s.instruction for s in spans] == numbers
        assert all(s.start <= s.end for s in spans)
    assert trace.uninstrumented > 0


def test_slices_lead_back_to_the_file(measured, document):
    scores = next(e for e in document["traceEvents"] if e["name"] == "scores")
    number = scores["args"].pop("instruction")
    assert measured[0].instructions[number].node == "scores"
    assert scores["args"] == {
        "node": "scores", "command": "gemm", "line": 25,
        "reads_bytes": 65536, "writes_bytes": 131072,
    }  # fmt: skip
    assert document["otherData"]["file"] == "graphs/multi_head_attention.yaml"


def test_a_launch_of_several_nodes_names_them_all():
    with gx.compile(gx.load("graphs/multi_head_attention.yaml"), device="cpu") as exe:
        _, trace = measure(exe, {"x": np.ones((2, 64, 64), np.float32)})
        events = json.loads(to_json(exe.plan, trace))["traceEvents"]
    batch = next(e["args"] for e in events if e["name"].startswith("q … v"))
    assert (batch["node"], batch["nodes"], batch["line"]) == ("q", "q, k, v", 15)


def test_arrows_are_the_waits_between_streams(measured, document):
    plan, _ = measured
    arrows = {e["id"] for e in document["traceEvents"] if e["ph"] == "s"}
    dependency = {
        n for n, i in enumerate(plan.instructions)
        if isinstance(i, Wait) and i.role == "dependency"
    }  # fmt: skip
    assert arrows == dependency


def test_the_counter_stays_within_the_arena(measured, document):
    used = [e["args"]["bytes in use"] for e in document["traceEvents"] if e["ph"] == "C"]
    assert 0 < max(used) <= measured[0].stats.arena_bytes
    assert used[-1] == 0


def test_what_is_written_is_read_again(measured):
    plan, trace = measured
    again = from_json(to_json(plan, trace), plan)
    assert again.graph == trace.graph
    assert again.uninstrumented == pytest.approx(trace.uninstrumented, abs=0.01)
    for a, b in zip(again.spans, trace.spans, strict=True):
        assert a.instruction == b.instruction
        assert (a.start, a.end) == (
            pytest.approx(b.start, abs=0.01),
            pytest.approx(b.end, abs=0.01),
        )


def test_a_trace_of_another_graph_is_refused(measured):
    plan, trace = measured
    other = dataclasses.replace(plan, graph="other")
    with pytest.raises(gx.DataError, match="a trace of another plan"):
        from_json(to_json(plan, trace), other)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"otherData": {}, "traceEvents": 3}', "[" * 10**5]
)
def test_what_is_no_trace_is_refused(measured, text):
    with pytest.raises(gx.DataError, match="is not a trace that graphexec wrote"):
        from_json(text, measured[0], "x.json")


@pytest.mark.parametrize(("key", "value"), [
    ("ts", 1e308), ("ts", 10**400), ("ts", float("nan")), ("ts", "nan"), ("ts", None), ("ts", True),
    ("dur", -1e308), ("dur", float("inf")), ("dur", [1]), ("args", {}), ("args", []),
    ("args", {"instruction": 1.0, "node": "a"}), ("args", {"instruction": {}, "node": "a"}),
])  # fmt: skip
def test_a_trace_of_absurd_numbers_is_refused(measured, document, key, value):
    event = next(e for e in document["traceEvents"] if e.get("cat") == "launch")
    text = json.dumps({**document, "traceEvents": [{**event, key: value}]})
    with pytest.raises(gx.DataError, match="is not a trace that graphexec wrote"):
        from_json(text, measured[0], "x.json")


@pytest.mark.parametrize(("key", "value"), [
    ("uninstrumented_us", 1e300), ("uninstrumented_us", "1"), ("device", 3), ("device", None),
])  # fmt: skip
def test_a_trace_with_absurd_figures_is_refused(measured, document, key, value):
    text = json.dumps({**document, "otherData": {**document["otherData"], key: value}})
    with pytest.raises(gx.DataError, match="is not a trace that graphexec wrote"):
        from_json(text, measured[0], "x.json")


def test_the_trace_says_how_it_was_measured(document):
    assert document["otherData"]["note"].startswith(
        "measured in a run of its own, by the clocks of the workers; uninstrumented_us is"
    )
