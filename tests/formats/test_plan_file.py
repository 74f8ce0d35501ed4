"""Plans as JSON: the round trip, the document of docs/plan-format.md, and everything refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import Draft, at

from graphexec.base.errors import GraphError
from graphexec.base.tensor import INT64_MAX, DType
from graphexec.cli.drawing import Drawing, write
from graphexec.formats.plan_file import dumps, loads, read
from graphexec.ir.plan import (
    Buffer,
    HostWait,
    Launch,
    PlacedTensor,
    Plan,
    Range,
    Record,
    Stats,
    Stream,
    Wait,
)
from graphexec.ir.program import Cost, WorkKind
from graphexec.proof import HazardKind, find_hazards

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "plan-format.md"


def document() -> dict[str, Any]:
    """A plan in which every key is used, as JSON values."""
    return {
        "plan_version": 1,
        "graph": "attention",
        "device": "cpu",
        "dims": {"S": 128},
        "streams": [{"id": 0, "blas_handle": 0}, {"id": 1}],
        "buffers": [
            {"id": "arena", "bytes": 128, "space": "device", "role": "arena"},
            {"id": "in.q", "bytes": 64, "space": "host", "role": "input"},
        ],
        "tensors": [
            {"name": "y", "buffer": "arena", "offset": 0, "bytes": 64, "shape": [4, 8],
             "dtype": "f16"},
        ],
        "instructions": [
            {"kind": "record", "stream": 0, "event": 0},
            {"kind": "wait", "stream": 1, "event": 0, "role": "fork"},
            {"kind": "launch", "stream": 1, "node": "y", "command": "memcpy", "after": ["q"],
             "reads": [["in.q", 0, 64]], "writes": [["arena", 0, 64]]},
            {"kind": "host_wait", "event": 0},
        ],
        "stats": {"streams": 2, "waits": 0, "cross_stream_edges": 0, "events": 1,
                  "arena_bytes": 128, "arena_lower_bound": 64, "naive_bytes": 64},
    }  # fmt: skip


def mistakes(text: str) -> list[str]:
    """The messages of the diagnostics of a text that is refused."""
    with pytest.raises(GraphError) as caught:
        loads(text, "plan.json")
    assert all(d.source is not None and d.source.path == "plan.json" for d in
               caught.value.diagnostics)  # fmt: skip
    str(caught.value).encode()  # can be printed
    return [d.message for d in caught.value.diagnostics]


def changed(*path: str | int, to: Any) -> str:
    """The document with another value at one path; `...` deletes the key."""
    root = document()
    place: Any = root
    for key in path[:-1]:
        place = place[key]
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return json.dumps(root)


# --- round trip ----------------------------------------------------------------------------------

names = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=5)
numbers = st.integers(0, INT64_MAX)
ranges = st.lists(st.builds(Range, names, numbers, numbers), max_size=3).map(tuple)
handles = st.none() | numbers
instructions = st.one_of(
    st.builds(
        Launch, numbers, names, names, ranges, ranges, handles,
        st.lists(names, max_size=2).map(tuple), kind=st.sampled_from(get_args(WorkKind)),
        cost=st.none() | st.builds(Cost, numbers, numbers),
    ),
    st.builds(Launch, numbers, st.just("n"), st.just("softmax"), ranges, ranges, handles),
    st.builds(Record, numbers, numbers),
    st.builds(Wait, numbers, numbers, st.sampled_from(["dependency", "fork", "join"])),
    st.builds(HostWait, numbers),
)  # fmt: skip
roles = st.sampled_from(["arena", "input", "output", "weights"])
shapes = st.lists(st.integers(1, INT64_MAX), max_size=3).map(tuple)
plans = st.builds(
    Plan,
    graph=names,
    device=names,
    dims=st.dictionaries(names, numbers, max_size=2),
    streams=st.lists(
        st.builds(Stream, numbers, handles), max_size=3, unique_by=lambda s: s.id
    ).map(tuple),
    buffers=st.lists(
        st.builds(Buffer, names, numbers, st.sampled_from(["device", "host"]), roles),
        max_size=3, unique_by=lambda b: b.id,
    ).map(tuple),
    tensors=st.lists(
        st.builds(PlacedTensor, names, names, numbers, numbers, shapes, st.sampled_from(DType)),
        max_size=3, unique_by=lambda t: t.name,
    ).map(tuple),
    instructions=st.lists(instructions, max_size=6).map(tuple),
    stats=st.none() | st.builds(Stats, *[numbers] * 7),
)  # fmt: skip


@given(plans)
def test_what_is_written_is_read(plan: Plan) -> None:
    text = dumps(plan)
    assert loads(text, "plan.json") == plan
    assert dumps(loads(text, "plan.json")) == text
    assert plan == Plan.from_json(plan.to_json())


@given(plans)
def test_version_2_is_for_integers_and_bools(plan: Plan) -> None:
    new = any(t.dtype.value in ("i8", "u8", "i32", "i64", "bool") for t in plan.tensors)
    assert json.loads(dumps(plan))["plan_version"] == (2 if new else 1)


def test_one_instruction_a_line() -> None:
    draft = Draft(streams=1)
    ranges = [at(0, 64, "in")], [at(0, 64)]
    draft.launch(0, "y", *ranges, "gemm", handle=0, after=("x",), kind="gemm")
    draft.instructions[0] = replace(draft.instructions[0], cost=Cost(8, 128))
    draft.join()
    launch = (
        '  {"kind": "launch", "stream": 0, "node": "y", "command": "gemm", "work": "gemm", '
        '"cost": {"flops": 8, "bytes": 128}, "blas_handle": 0, '
        '"after": ["x"], "reads": [["in", 0, 64]], "writes": [["arena", 0, 64]]},'
    )
    assert dumps(draft.plan()).splitlines()[-5:] == [
        ' "tensors": [],',
        ' "instructions": [',
        launch,
        '  {"kind": "record", "stream": 0, "event": 0},',
        '  {"kind": "host_wait", "event": 0}]}',
    ]


def test_the_example_of_the_documentation_is_a_safe_plan() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", DOCUMENTATION.read_text(), re.S)
    plan = loads(example, "plan-format.md")
    assert find_hazards(plan) == []
    assert dumps(plan) == example


def test_the_report_in_the_documentation_is_what_the_example_gives() -> None:
    text = DOCUMENTATION.read_text()
    (example,) = re.findall(r"```json\n(.*?)```", text, re.S)
    (report,) = re.findall(r"```text\n(.*?)\n```", text, re.S)
    plan = loads(example, "plan-format.md")
    less = replace(plan, instructions=plan.instructions[:2] + plan.instructions[3:])
    assert report in [str(hazard) for hazard in find_hazards(less)]


def test_the_documentation_names_every_hazard() -> None:
    text = DOCUMENTATION.read_text()
    assert [kind for kind in get_args(HazardKind) if f"`{kind}`" not in text] == []


@pytest.mark.parametrize("path", [
    ("dims",), ("stats",), ("streams", 0, "blas_handle"), ("instructions", 2, "after"),
    ("instructions", 1, "role"), ("stats", "events"), ("stats", "waits"), ("stats", "streams"),
    ("stats", "arena_bytes"),
])  # fmt: skip
def test_optional_keys(path: tuple[str | int, ...]) -> None:
    absent, null = loads(changed(*path, to=...)), loads(changed(*path, to=None))
    assert absent == null
    wait = absent.instructions[1]
    assert isinstance(wait, Wait)
    assert wait.role == ("dependency" if path[-1] == "role" else "fork")
    if path[-1] == "events":
        assert absent == loads(json.dumps(document()))


def test_keys_of_other_programs_are_ignored() -> None:
    more = document()
    more["x-origin"] = {"tool": ["other", {"deep": None}], "weight": 1.5, "big": 10**30}
    more["instructions"][2]["note"] = "from somewhere else"
    assert loads(json.dumps(more)) == loads(json.dumps(document()))


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "value", "message"), [
    (("instructions", 2, "stream"), True,
     "instructions[2].stream: expected an integer, found true"),
    (("instructions", 2, "stream"), 1.0, "instructions[2].stream: expected an integer, found 1.0"),
    (("instructions", 2, "stream"), -1,
     "instructions[2].stream: expected an integer of at least 0, found -1"),
    (("instructions", 2, "stream"), None,
     "instructions[2].stream: expected an integer, found null"),
    (("instructions", 2, "stream"), [0],
     "instructions[2].stream: expected an integer, found a list of 1"),
    (("instructions", 2, "blas_handle"), "0",
     'instructions[2].blas_handle: expected an integer, found "0"'),
    (("instructions", 2, "reads", 0, 1), 2**63,
     "instructions[2].reads[0][1]: 9223372036854775808 is not an integer of 64 bits"),
    (("instructions", 2, "reads", 0, 2), float("nan"),
     "instructions[2].reads[0][2]: NaN is not an integer of 64 bits"),
    (("instructions", 2, "reads", 0), ["arena", 0],
     "instructions[2].reads[0]: expected [buffer, first byte, past-last byte], found a list of 2"),
    (("instructions", 2, "reads"), {}, "instructions[2].reads: expected a list, found an object"),
    (("instructions", 2, "node"), "", "instructions[2].node: the name is empty"),
    (("instructions", 2, "node"), "\x1b[31m",
     'instructions[2].node: "\\u001b[31m" holds a character that cannot be printed'),
    (("instructions", 2, "node"), "\ud800",
     'instructions[2].node: "\\ud800" holds a character that cannot be printed'),
    (("instructions", 2, "after"), "q", 'instructions[2].after: expected a list, found "q"'),
    (("instructions", 2, "writes"), ..., "instructions[2]: the key 'writes' is missing"),
    (("instructions", 0), "record", 'instructions[0]: expected an object, found "record"'),
    (("instructions", 0, "kind"), 7,
     "instructions[0].kind: expected one of launch, record, wait, host_wait; found 7"),
    (("instructions", 0, "kind"), ..., "instructions[0]: the key 'kind' is missing"),
    (("instructions", 1, "role"), "forks",
     'instructions[1].role: expected one of dependency, fork, join; found "forks"'),
    (("tensors", 0, "shape", 1), 0,
     "tensors[0].shape[1]: expected an integer of at least 1, found 0"),
    (("tensors", 0, "dtype"), "float16",
     f"tensors[0].dtype: expected one of {', '.join(DType)}; found \"float16\""),
    (("buffers", 1, "id"), "arena", 'buffers: each id may be used once; used again: "arena"'),
    (("streams", 1, "id"), 0, "streams: each id may be used once; used again: 0"),
    (("buffers", 0, "space"), "gpu",
     'buffers[0].space: expected one of device, host; found "gpu"'),
    (("buffers", 0, "role"), "scratch",
     'buffers[0].role: expected one of arena, input, output, weights, state; found "scratch"'),
    (("dims", "S"), "128", 'dims.S: expected an integer, found "128"'),
    (("dims", "a b"), -1, 'dims["a b"]: expected an integer of at least 0, found -1'),
    (("dims", ""), 1, 'dims[""]: the name is empty'),
    (("dims",), [1], "dims: expected an object, found a list of 1"),
    (("graph",), 3, "graph: expected a string, found 3"),
    (("stats", "waits"), -1, "stats.waits: expected an integer of at least 0, found -1"),
    (("instructions",), ..., "the key 'instructions' is missing"),
    (("plan_version",), ..., "the key 'plan_version' is missing"),
    (("plan_version",), 3,
     "plan_version: this program reads versions 1 and 2 of the format, found 3"),
    (("plan_version",), True,
     "plan_version: this program reads versions 1 and 2 of the format, found true"),
    (("tensors", 0, "dtype"), "i32",
     "plan_version: tensors such as 'y' of i32 need version 2, found 1"),
])  # fmt: skip
def test_a_wrong_value_is_named_with_its_path(
    path: tuple[str | int, ...], value: Any, message: str
) -> None:
    assert mistakes(changed(*path, to=value)) == [message]


@pytest.mark.parametrize(("nodes", "writes", "named"), [
    (["y", "z"], [["arena", 0, 64]], "nodes has 2 names and writes 1 ranges"),
    (["y"], [], "nodes has 1 names and writes 0 ranges"),
    (["y", "z", "q"], [["arena", 0, 32], ["arena", 32, 64]], "nodes has 3 names and writes 2"),
])  # fmt: skip
def test_more_nodes_than_results_are_refused(nodes: Any, writes: Any, named: str) -> None:
    wrong = document()
    wrong["instructions"][2] |= {"nodes": nodes, "writes": writes}
    (message,) = mistakes(json.dumps(wrong))
    assert message.startswith(f"instructions[2]: {named}")


@pytest.mark.parametrize(("nodes", "writes"), [
    ([], []), (["y"], [["arena", 0, 64]]), (["y"], [["arena", 0, 64], ["arena", 64, 128]]),
])  # fmt: skip
@pytest.mark.parametrize("view", ["plan", "graph", "memory"])
def test_a_launch_with_enough_results_is_drawn(nodes: Any, writes: Any, view: Any) -> None:
    right = document()
    right["instructions"][2] |= {"nodes": nodes, "writes": writes}
    drawing = Drawing(loads(json.dumps(right)))
    for format in ("text", "json", "svg"):
        assert write(view, format, drawing)
    assert loads(drawing.plan.to_json()) == drawing.plan


def test_a_number_too_long_for_python_is_refused_and_cut() -> None:
    text = json.dumps(document()).replace('["in.q", 0, 64]', f'["in.q", {"9" * 5000}, 64]')
    (message,) = mistakes(text)
    assert message == (
        f"instructions[2].reads[0][1]: {'9' * 30}… (5000 characters) is not an integer of 64 bits"
    )


def test_tensor_names_are_used_once() -> None:
    twice = document()
    twice["tensors"] *= 2
    assert mistakes(json.dumps(twice)) == ['tensors: each name may be used once; used again: "y"']


@pytest.mark.parametrize(("path", "value", "help"), [
    (("instructions", 0, "kind"), "recrod", "did you mean 'record'?"),
    (("buffers", 0, "role"), "weight", "did you mean 'weights'?"),
])  # fmt: skip
def test_a_close_word_is_suggested(path: tuple[str | int, ...], value: str, help: str) -> None:
    with pytest.raises(GraphError) as caught:
        loads(changed(*path, to=value))
    assert [d.help for d in caught.value.diagnostics] == [help]


def test_a_misspelt_key_is_suggested() -> None:
    text = json.dumps(document()).replace('"event": 0}', '"evnt": 0}')
    with pytest.raises(GraphError) as caught:
        loads(text)
    assert {d.help for d in caught.value.diagnostics} == {
        "\"evnt\" is no key here; did you mean 'event'?"
    }


def test_several_mistakes_are_reported_together() -> None:
    wrong = document()
    wrong["streams"][0]["id"] = -1
    wrong["instructions"][0]["event"] = "0"
    del wrong["tensors"]
    assert mistakes(json.dumps(wrong)) == [
        "streams[0].id: expected an integer of at least 0, found -1",
        "the key 'tensors' is missing",
        'instructions[0].event: expected an integer, found "0"',
    ]


def test_a_flood_of_mistakes_is_cut() -> None:
    wrong = document()
    wrong["instructions"] = [{"kind": "wait"}] * 500
    found = mistakes(json.dumps(wrong))
    assert len(found) == 21
    assert found[-1] == "980 more mistakes are not shown"


def test_a_key_written_twice() -> None:
    text = json.dumps(document()).replace('"event": 0}', '"event": 1, "event": 0}', 1)
    assert mistakes(text) == ["instructions[0].event: this key is written twice"]
    other = '{"extra": [{"a": 1, "a": 2}], ' + json.dumps(document())[1:]
    assert mistakes(other) == ["extra[0].a: this key is written twice"]


@pytest.mark.parametrize(("text", "line", "column"), [
    ("", 1, 1),
    ("plan", 1, 1),
    ('{"plan_version": 1,\n "graph": }', 2, 11),
    ('{"plan_version": 1', 1, 19),
    ("{} {}", 1, 4),
    ('{"a": "\n"}', 1, 8),
    ("{'plan_version': 1}", 1, 2),
])  # fmt: skip
def test_text_that_is_not_json(text: str, line: int, column: int) -> None:
    with pytest.raises(GraphError, match="this is not JSON") as caught:
        loads(text, "plan.json")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.mark is not None
    assert (diagnostic.mark.line, diagnostic.mark.column) == (line, column)
    assert f"--> plan.json:{line}:{column}" in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 99_999 + "]" * 99_999])
def test_deep_nesting(text: str) -> None:
    assert mistakes(text) == ["the JSON is nested too deeply for a plan"]


@pytest.mark.parametrize(("text", "found"), [
    ("[]", "a list of 0"), ("1", "1"), ("null", "null"), ('"plan"', '"plan"'), ("NaN", "NaN"),
    ("1e999", "Infinity"), ("-Infinity", "-Infinity"), ("true", "true"),
])  # fmt: skip
def test_json_that_is_no_object(text: str, found: str) -> None:
    assert mistakes(text) == [f"expected an object, found {found}"]


def test_a_byte_order_mark_is_skipped() -> None:
    assert loads("\ufeff" + json.dumps(document())) == loads(json.dumps(document()))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from([*document(), "kind", "event", "x"]), children, max_size=4
        )
    ),
    max_leaves=8,
)


@given(st.data(), json_values)
def test_no_document_gives_anything_but_a_plan_or_a_graph_error(
    data: st.DataObject, value: Any
) -> None:
    """Any value at any place of a good document."""
    root: Any = document()
    place, key = root, data.draw(st.sampled_from(sorted(root)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
    place[key] = value
    try:
        plan = loads(json.dumps(root))
    except GraphError as error:
        str(error).encode()
    else:
        assert loads(dumps(plan)) == plan
        find_hazards(plan)


@given(st.text(alphabet='{}[]",:0123eE.-+tfn \n\\u\ud800', max_size=40))
def test_no_text_gives_anything_but_a_plan_or_a_graph_error(text: str) -> None:
    with pytest.raises(GraphError):
        loads(text)


def test_more_streams_than_can_be_proved() -> None:
    made = document()
    made["streams"] = [{"id": s} for s in range(1025)]
    with pytest.raises(GraphError, match="may use 1,024 streams, this one uses 1,025"):
        loads(json.dumps(made))
    made["streams"] = [{"id": 0}]
    made["instructions"] = [{"kind": "record", "stream": s, "event": s} for s in range(1025)]
    with pytest.raises(GraphError, match="may use 1,024 streams, this one uses 1,025"):
        loads(json.dumps(made))


def test_more_events_than_can_be_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MAX_CLOCKS", 3)
    made = document()
    loads(json.dumps(made))
    made["instructions"].insert(1, {"kind": "record", "stream": 1, "event": 1})
    with pytest.raises(GraphError, match="2 events on 2 streams are more than can be proved"):
        loads(json.dumps(made))
