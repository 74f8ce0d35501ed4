"""concat-in-place: which parts are written where they belong, near misses, and the numbers."""

from typing import Any

import numpy as np
import pytest
from exact import draw
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.ir.plan import Launch
from graphexec.planning.pipeline import plan_graph
from graphexec.tools.compare import compare


def commands(graph: gx.Graph, **options: Any) -> list[tuple[str, str]]:
    plan = gx.make_plan(graph, device="hip", resident=True, **options)
    return [(i.node, i.command) for i in plan.instructions if isinstance(i, Launch)]


def notes(graph: gx.Graph) -> list[str]:
    found = plan_graph(graph, device="hip", resident=True).notes
    return [note.text for note in found if note.rewrite == "concat-in-place"]


def two_softmaxes(axis: int = 0, columns: int = 64) -> gx.Graph:
    graph = gx.Graph("g")
    graph.input("x", (4, columns))
    graph.input("z", (4, columns))
    parts = [graph.softmax("x", name="p"), graph.softmax("z", scale=0.5, name="q")]
    graph.output(y=graph.concat(parts, axis=axis, name="y"))
    return graph


def gemms(axis: int, n: int = 32) -> gx.Graph:
    graph = gx.Graph("g")
    graph.input("x", (16, 8))
    graph.input("w", (8, n))
    graph.input("v", (8, n))
    parts = [graph.gemm("x", "w", name="p"), graph.gemm("x", "v", alpha=2.0, name="q")]
    graph.output(y=graph.concat(parts, axis=axis, name="y"))
    return graph


def assert_right(graph: gx.Graph, seed: int = 0, **options: Any) -> None:
    rng = np.random.default_rng(seed)
    inputs = {i.name: draw(rng, i.shape, i.dtype) for i in graph.inputs.values()}
    found = compare(graph, inputs, device=gx.CpuDevice(poison=True), **options)
    assert found.ok, found
    with gx.compile(graph, device=gx.CpuDevice(poison=True), **options) as exe:
        for _ in range(2):
            outputs = exe.run(**inputs)
    with gx.compile(graph, device="cpu", no_rewrite="all", streams=1) as exe:
        plain = exe.run(**inputs)
    for name, expected in plain.items():
        np.testing.assert_allclose(outputs[name], expected, 1e-5, 1e-6)


def test_parts_one_after_another_move_no_bytes():
    graph = two_softmaxes()
    assert sorted(commands(graph)) == [("p", "softmax"), ("q", "softmax")]
    assert notes(graph) == ["'p' and 'q' are written where concat 'y' has them"]
    assert_right(graph, streams=2)


def test_parts_one_after_another_are_written_in_any_order():
    program = plan_graph(two_softmaxes(), device="hip", resident=True, no_rewrite="batch").program
    assert program.predecessors == ((), ())
    assert_right(two_softmaxes(), streams=2, no_rewrite="batch")


def test_columns_of_products():
    graph = gemms(axis=1)
    assert sorted(commands(graph)) == [("p", "gemm"), ("q", "gemm")]
    program = plan_graph(graph, device="hip", resident=True).program
    assert program.predecessors == ((), (0,))  # their ranges of bytes meet
    assert_right(graph, streams=2)


def test_compare_sees_columns_that_are_written_in_place():
    graph = gemms(axis=1)
    rng = np.random.default_rng(1)
    inputs = {i.name: draw(rng, i.shape, i.dtype) for i in graph.inputs.values()}
    found = compare(graph, inputs, device="cpu")
    assert [row.name for row in found.nodes] == ["p", "q"]
    assert [(n.name, n.how, n.by) for n in found.not_computed] == [("y", "view", ("p", "q"))]


def test_a_concat_of_concats_is_one_place():
    graph = gx.Graph("g")
    for name in "abc":
        graph.input(name, (4, 64))
    p, q, r = (graph.softmax(name, name=f"{name}1") for name in "abc")
    inner = graph.concat([p, q], name="inner")
    graph.output(y=graph.concat([inner, r], name="y"))
    assert {command for _, command in commands(graph)} == {"softmax"}
    assert_right(graph, streams=3)


def test_what_reads_the_whole_waits_for_every_part():
    graph = two_softmaxes()
    graph.outputs.clear()
    graph.output(s=graph.softmax("y", axis=0, name="s"))
    found = plan_graph(graph, device="hip", resident=True, no_rewrite="batch").program
    assert found.predecessors == ((), (), (0, 1))
    assert_right(graph, streams=2)


def test_after_waits_for_parts_in_place():
    graph = two_softmaxes()
    graph.output(t=graph.copy("x", after=["y"], permute=(1, 0), name="t"))
    found = plan_graph(graph, device="hip", resident=True, no_rewrite="batch").program
    assert [c.node for c in found.commands] == ["p", "q", "t"]
    assert found.commands[2].after == (0, 1)


def other(graph: gx.Graph, kind: str) -> gx.Graph:
    match kind:
        case "output":
            graph.output(p="p")
        case "read":
            graph.output(z=graph.softmax("p", axis=0))
        case "after":
            graph.output(z=graph.copy("z", after=["p"], permute=(1, 0)))
    return graph


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("output", "'p' is an output"),
        ("read", "'p' has other readers"),
        ("after", "there is an `after` edge at 'p'"),
    ],
)
def test_near_misses(kind, why):
    graph = other(two_softmaxes(), kind)
    assert f"concat 'y' copies 'p': {why}" in notes(graph)
    assert ("y", "concat") in commands(graph)
    assert_right(graph, streams=2)


def test_twice_the_same_part():
    graph = gx.Graph("g")
    graph.input("x", (4, 64))
    part = graph.softmax("x", name="p")
    graph.output(y=graph.concat([part, part], name="y"))
    assert ("y", "concat") in commands(graph)
    assert_right(graph)


def test_inputs_are_copied_beside_what_is_in_place():
    graph = gx.Graph("g")
    graph.input("x", (4, 64))
    graph.input("z", (3, 64))
    graph.output(y=graph.concat([graph.softmax("x", name="p"), "z"], name="y"))
    assert notes(graph) == [
        "concat 'y' copies 'z': it is an input or a weight",
        "'p' is written where concat 'y' has them",
    ]
    assert sorted(commands(graph)) == [("p", "softmax"), ("y", "concat")]
    assert_right(graph, streams=2)


def test_what_cannot_write_columns_is_copied():
    graph = two_softmaxes(axis=1)
    assert notes(graph)[0] == "concat 'y' copies 'p': softmax 'p' cannot write such strides"
    assert_right(graph, streams=2)


def test_a_place_that_is_not_aligned_is_copied():
    graph = two_softmaxes(columns=63)  # 4 rows of 63 numbers are no multiple of 16 bytes apart
    assert "'p' and 'q'" in notes(graph)[0]
    graph = gx.Graph("g")
    graph.input("x", (1, 63))
    graph.output(y=graph.concat([graph.softmax("x"), graph.softmax("x", scale=2.0)], name="y"))
    assert notes(graph)[0] == "concat 'y' copies 'softmax_1': its rows would be less aligned"
    assert_right(graph)


def test_a_product_with_a_bias_keeps_its_epilogue():
    graph = gx.Graph("g")
    graph.input("x", (3, 8))
    graph.input("w", (8, 16))
    graph.input("b", (16,))
    parts = [graph.gemm("x", "w", bias="b", alpha=a, name=n) for a, n in ((1.0, "p"), (2.0, "q"))]
    graph.output(y=graph.concat(parts, name="y"))
    assert notes(graph) == [
        "concat 'y' copies 'q': gemm 'q' cannot write such strides",
        "'p' is written where concat 'y' has them",
    ]
    assert_right(graph, streams=2)


@st.composite
def graphs(draw: Any) -> gx.Graph:
    graph = gx.Graph("g")
    rows = draw(st.sampled_from([1, 3, 4]))
    graph.input("x", (rows, 16))
    graph.input("w", (16, 16))
    tensors = ["x"]
    for number in range(draw(st.integers(2, 9))):
        kind = draw(st.sampled_from(["softmax", "gemm", "concat", "cut"]))
        one = draw(st.sampled_from(tensors))
        if kind == "softmax":
            made = graph.softmax(one, scale=1 + number / 8)
        elif kind == "gemm":
            made = graph.gemm(one, "w", alpha=1 + number / 8)
        elif kind == "concat":
            some = draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=3))
            if draw(st.booleans()):
                made = graph.concat(some, axis=0)
            else:  # columns of one tensor, so that the numbers of rows agree
                halves = [graph.copy(one, slice={1: (8, None)}), graph.gemm(one, "w")]
                wide = graph.concat(halves, axis=-1)
                made = graph.copy(wide, slice={1: (4, 20)})
        else:
            made = graph.copy(one, slice={0: (0, 1)})
        tensors.append(made)
    outputs = draw(st.lists(st.sampled_from(tensors[1:]), min_size=1, max_size=2, unique=True))
    graph.output(*outputs)
    return graph


@given(graphs(), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_any_graph_of_parts(graph, streams):
    assert_right(graph, streams=streams)
