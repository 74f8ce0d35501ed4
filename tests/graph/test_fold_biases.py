"""fold-biases: the products that add the bias of a map, near misses, and the numbers."""

from typing import Any

import numpy as np
import pytest
from exact import DTYPES, draw
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.ir.plan import Launch
from graphexec.planning.pipeline import plan_graph
from graphexec.tools.compare import compare


def biased(
    expression: str = "g + b", dtype: str = "f32", shape: tuple[int, ...] = (3, 16, 24), n: int = 64
) -> gx.Graph:
    """A product g, and `y`, a map of it and of a vector b."""
    graph = gx.Graph("g")
    graph.input("x", shape, dtype)
    graph.input("w", (shape[-1], n), dtype)
    graph.input("b", (n,), dtype)
    graph.gemm("x", "w", name="g")
    graph.output(y=graph.map(expression, g="g", b="b", name="y"))
    return graph


def commands(graph: gx.Graph, device: str = "cpu", **options: Any) -> list[tuple[str, str]]:
    plan = gx.make_plan(graph, device=device, resident=True, **options)
    return [(i.node, i.command) for i in plan.instructions if isinstance(i, Launch)]


def notes(graph: gx.Graph, device: str = "cpu") -> list[str]:
    found = plan_graph(graph, device=device, resident=True).notes
    return [note.text for note in found if note.rewrite == "fold-biases"]


def assert_right(graph: gx.Graph, **options: Any) -> None:
    rng = np.random.default_rng(3)
    inputs = {i.name: draw(rng, i.shape, i.dtype) for i in graph.inputs.values()}
    found = compare(graph, inputs, device=gx.CpuDevice(poison=True), **options)
    assert found.ok, found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("expression", ["g + b", "b + g"])
def test_the_product_adds_it(expression: str, dtype: str) -> None:
    graph = biased(expression, dtype)
    assert commands(graph) == [("y", "gemm")]
    assert notes(graph) == ["product 'g' adds the bias 'b' of 'y'"]
    assert_right(graph)


def test_the_map_stays_where_the_device_adds_none() -> None:
    graph = biased()
    assert commands(graph, "hip") == [("g", "gemm"), ("y", "map")]
    assert commands(graph, no_rewrite="fold-biases") == [("g", "gemm"), ("y", "map")]
    assert commands(graph, no_rewrite="fuse-epilogue") == [("g", "gemm"), ("y", "map")]
    text = "'y' adds the bias 'b' by a command of its own: no device is at hand that could be asked"
    assert notes(graph, "hip")[0].startswith(text)


def test_what_follows_adds_it_for_nothing() -> None:
    for follow in ("norm", "map"):
        graph = biased()
        if follow == "norm":
            graph.output(z=graph.norm("y", name="z"))
        else:
            graph.output(z=graph.map("y * y", y="y", name="z"))
        found = commands(graph)
        assert found[0] == ("g", "gemm")
        assert len(found) == 2
        text = f"'y' adds the bias 'b' by a command of its own: {follow} 'z' follows, which may be"
        assert notes(graph)[0].startswith(text)
        assert_right(graph)


@pytest.mark.parametrize("expression", ["g - b", "g * b", "g + b + 1", "relu(g + b)", "g + b * 2"])
def test_other_maps_of_a_product_stay(expression: str) -> None:
    graph = biased(expression)
    assert commands(graph) == [("g", "gemm"), ("y", "map")]
    assert notes(graph) == []
    assert_right(graph)


def test_near_misses() -> None:
    column = gx.Graph("g")  # a number for every row, not for every column
    column.input("x", (16, 24))
    column.input("w", (24, 64))
    column.input("b", (16, 1))
    column.gemm("x", "w", name="g")
    column.output(y=column.map("g + b", g="g", b="b", name="y"))
    read_twice = biased()
    read_twice.output(h="g")
    edge = biased()
    edge.output(z=edge.map("x + 1", x="x", name="z", after=["g"]))
    twice = gx.Graph("g")
    twice.input("x", (16, 16))
    twice.gemm("x", "x", name="g")
    twice.output(y=twice.map("g + g", g="g", name="y"))
    wide = biased("cast(g, f64) + cast(b, f64)")
    for graph in (column, read_twice, edge, twice, wide):
        assert ("y", "map") in commands(graph)
        assert_right(graph)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(1, 7), min_size=2, max_size=4), st.integers(1, 40),
    st.sampled_from(DTYPES), st.integers(1, 4),
)  # fmt: skip
def test_random_shapes(shape: list[int], n: int, dtype: str, streams: int) -> None:
    graph = biased(dtype=dtype, shape=tuple(shape), n=n)
    assert_right(graph, streams=streams)
