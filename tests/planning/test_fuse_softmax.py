"""fuse-maps with softmaxes: maps before and after become one kernel with them, alone they keep
their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from exact import DTYPES, Array, draw
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.ir.plan import Launch
from graphexec.ir.program import Kernel
from graphexec.planning.pipeline import plan_graph
from graphexec.tools.compare import compare


def between(shape: tuple[int, ...], dtype: str = "f32", **attrs: Any) -> gx.Graph:
    """softmax of a map, and a map of it."""
    graph = gx.Graph("g")
    graph.input("x", shape, dtype)
    graph.input("z", shape, dtype)
    graph.map("x * 0.5 + z", x="x", z="z", name="before")
    graph.softmax("before", name="p", **attrs)
    graph.output(y=graph.map("p * z", p="p", z="z", name="y"))
    return graph


def launches(graph: gx.Graph, **options: Any) -> list[tuple[str, str]]:
    plan = gx.make_plan(graph, device="cpu", resident=True, **options)
    return [(i.node, i.command) for i in plan.instructions if isinstance(i, Launch)]


def inputs_of(graph: gx.Graph, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {i.name: draw(rng, i.shape, i.dtype) for i in graph.inputs.values()}


def assert_right(graph: gx.Graph, inputs: dict[str, Array] | None = None) -> None:
    given = inputs_of(graph) if inputs is None else inputs
    found = compare(graph, given, device=gx.CpuDevice(poison=True))
    assert found.ok, found


@pytest.mark.parametrize("dtype", DTYPES)
def test_maps_before_and_after_are_in_one_kernel_with_it(dtype: str) -> None:
    graph = between((3, 5, 40), dtype)
    assert launches(graph) == [("y", "map + softmax")]
    assert len(launches(graph, no_rewrite="fuse-maps")) == 3
    assert_right(graph)
    assert_right(between((3, 7, 40), dtype, causal=True))
    assert_right(between((3, 40, 7), dtype, causal=True, scale=-2.0))


def test_a_mask_that_a_map_makes_is_computed_inside() -> None:
    graph = gx.Graph("g")
    graph.input("x", (4, 6, 30))
    graph.input("seen", (4, 6, 30), "i32")
    graph.map("where(seen != 0, 0.0, -inf)", seen="seen", name="mask")
    graph.output(y=graph.softmax("x", "mask", scale=3.0, name="y"))
    assert launches(graph) == [("y", "map + softmax")]
    given = inputs_of(graph) | {
        "seen": np.random.default_rng(1).integers(0, 2, (4, 6, 30), np.int32)
    }
    given["seen"][0] = 0  # rows that see nothing are zero
    assert_right(graph, given)
    with gx.compile(graph, device="cpu") as exe:
        np.testing.assert_array_equal(exe.run(**given)["y"][0], 0)


def test_a_sum_of_weights_times_values_stays_in_the_rows() -> None:
    graph = gx.Graph("g")
    graph.input("x", (9, 70))
    graph.input("v", (9, 70))
    graph.softmax("x", name="p")
    graph.map("p * v", p="p", v="v", name="weighted")
    graph.output(y=graph.reduce("weighted", kind="sum", axis=-1, name="y"))
    assert [node for node, _ in launches(graph)] == ["y"]
    assert_right(graph)


def test_alone_it_keeps_its_own_kernel() -> None:
    graph = gx.Graph("g")
    graph.input("x", (4, 64))
    graph.output(y=graph.softmax("x", name="y"))
    (command,) = plan_graph(graph, device="hip", resident=True).program.commands
    assert isinstance(command.work, Kernel)
    assert command.work.source.name == "softmax.hip"


def test_two_of_them_keep_theirs() -> None:
    graph = gx.Graph("g")
    graph.input("x", (4, 64))
    graph.softmax("x", name="p")
    graph.output(y=graph.softmax("p", name="y"))
    assert launches(graph) == [("p", "softmax"), ("y", "softmax")]


def test_near_misses() -> None:
    other = between((3, 40, 16), axis=1)  # not along the last axis
    assert len(launches(other)) == 3
    long = between((2, 20_000))  # would be computed again in each pass
    assert len(launches(long)) == 3
    for graph in (other, long):
        assert_right(graph)
    narrow = gx.Graph("g")  # the map gives fewer elements than the rows have
    narrow.input("x", (4, 1))
    narrow.input("z", (4, 50))
    narrow.map("x * 2", x="x", name="before")
    narrow.output(y=narrow.softmax("z", "before", name="y"))
    assert_right(narrow)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e30])
def test_numbers_that_are_none(value: float) -> None:
    """The one kernel gives what the commands apart do."""
    graph = between((3, 8))
    given = inputs_of(graph)
    given["x"][0, 2] = given["x"][1, :] = value
    found = []
    with np.errstate(all="ignore"):
        for off in ((), ("fuse-maps",)):
            with gx.compile(graph, device="cpu", no_rewrite=off) as exe:
                found.append(exe.run(**given)["y"])
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-7)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 130),
    st.sampled_from(DTYPES), st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
def test_random_shapes(outer: list[int], length: int, dtype: str, causal: bool, seed: int) -> None:
    graph = between((*outer, length), dtype, causal=causal)
    assert_right(graph, inputs_of(graph, seed))
