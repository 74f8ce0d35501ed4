"""fuse-maps: what is computed stays the same where commands become one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exact import draw

import graphexec as gx
from graphexec.ir.plan import Launch
from graphexec.planning.pipeline import plan_graph
from graphexec.tools.compare import compare

COORDINATES = """
version: 1
name: coordinates
inputs:
  x: {{shape: [4], dtype: f32}}
nodes:
  twice: {{op: map, expr: "index(-1) * 2.0", shape: [4, 40]}}
  total: {{op: reduce, x: twice, kind: {kind}, axis: -1}}
  y: total + x
outputs: [y{more}]
"""


def graph(path: Path, kind: str, more: str = "") -> gx.Graph:
    path.write_text(COORDINATES.format(kind=kind, more=more))
    return gx.load(path)


@pytest.mark.parametrize(("kind", "expected"), [("sum", 1560.0), ("max", 78.0), ("mean", 39.0)])
def test_rows_of_coordinates_keep_their_length(tmp_path: Path, kind: str, expected: float) -> None:
    """A kernel that reads nothing and stores one element a row could not know its rows."""
    g = graph(tmp_path / "graph.yaml", kind)
    with gx.compile(g, device="cpu") as exe:
        y = exe.run(x=np.arange(4, dtype=np.float32))["y"]
    np.testing.assert_array_equal(y, np.float32(expected) + np.arange(4, dtype=np.float32))
    assert "twice" in plan_graph(g).program.tensors


def test_a_stored_row_tells_its_length(tmp_path: Path) -> None:
    """Then one kernel computes all."""
    g = graph(tmp_path / "graph.yaml", "sum", ", twice")
    assert ("twice", "y") in [c.nodes for c in plan_graph(g).program.commands]
    with gx.compile(g, device="cpu") as exe:
        found = exe.run(x=np.zeros(4, np.float32))
    np.testing.assert_array_equal(found["y"], np.full(4, 1560, np.float32))
    np.testing.assert_array_equal(found["twice"], np.tile(np.arange(40) * 2.0, (4, 1)))


def test_coordinates_along_axes_that_are_gone(tmp_path: Path) -> None:
    """A reshape leaves out an axis whose coordinate is computed with."""
    path = tmp_path / "graph.yaml"
    path.write_text(
        "version: 1\nname: gone\ninputs:\n  x: {shape: [1, 1, 7], dtype: f32}\nnodes:\n"
        "  a: x + index(-2) + index(-1)\n  b: {op: copy, x: a, reshape: [7]}\n"
        "  y: b * 2\noutputs: [y]\n"
    )
    with gx.compile(gx.load(path), device="cpu") as exe:
        y = exe.run(x=np.ones((1, 1, 7), np.float32))["y"]
    np.testing.assert_array_equal(y, 2.0 * (1 + np.arange(7)))


def launches(g: gx.Graph) -> list[str]:
    plan = gx.make_plan(g, device="hip", resident=True)
    return [i.node for i in plan.instructions if isinstance(i, Launch)]


def assert_right(g: gx.Graph) -> None:
    rng = np.random.default_rng(2)
    inputs = {i.name: draw(rng, i.shape, i.dtype) for i in g.inputs.values()}
    found = compare(g, inputs, device=gx.CpuDevice(poison=True))
    assert found.ok, found


def test_the_mean_over_a_middle_axis_is_one_kernel_with_the_map_before_it() -> None:
    g = gx.Graph("pooling")
    g.input("x", (3, 20, 48))
    g.input("seen", (3, 20, 1))
    g.map("x * seen", x="x", seen="seen", name="kept")
    g.reduce("kept", kind="mean", axis=1, name="mean")
    g.output(y=g.map("mean * 2", mean="mean", name="y"))
    assert launches(g) == ["y"]
    assert_right(g)


def test_l2_normalisation_is_one_kernel() -> None:
    g = gx.Graph("length")
    g.input("x", (6, 40))
    g.map("x * x", x="x", name="square")
    g.reduce("square", kind="sum", axis=-1, keep=True, name="total")
    g.output(y=g.map("x / max(sqrt(total), 1e-12)", x="x", total="total", name="y"))
    assert launches(g) == ["y"]
    assert_right(g)


def test_a_norm_along_one_axis_and_a_sum_along_another_stay_apart() -> None:
    g = gx.Graph("apart")
    g.input("x", (3, 20, 48))
    g.norm("x", kind="rms", name="h")
    g.output(y=g.reduce("h", kind="sum", axis=1, name="y"))
    assert launches(g) == ["h", "y"]
    assert_right(g)


def test_what_comes_after_a_fused_node_comes_after_the_kernel_it_is_in() -> None:
    g = gx.Graph("edges")
    g.input("x", (4, 8))
    g.map("x + 1", x="x", name="a")
    g.output(b=g.map("a * 2", a="a", name="b"))
    g.output(c=g.map("x - 1", x="x", name="c", after=["a"]))
    commands = plan_graph(g, device="hip", resident=True).program.commands
    (last,) = [c for c in commands if c.node == "c"]
    assert last.after_nodes == ("b",)
    assert_right(g)


def test_what_is_computed_of_each_row_is_in_the_kernel_of_the_rows() -> None:
    """Also over an axis more than the reduction kept, and with a result of the rows kept."""
    g = gx.Graph("rows")
    g.input("x", (3, 5, 20))
    g.input("n", (3, 5))
    g.map("x + 1", x="x", name="t")
    g.reduce("t", kind="sum", axis=-1, name="total")
    g.output(y=g.map("total / max(n, 1)", total="total", n="n", name="y"), t="t")
    assert launches(g) == ["t"]
    assert_right(g)


def test_coordinates_of_rows_and_other_orders_of_them_stay_apart() -> None:
    for expression in ("total * index(-1)", "total + total2"):
        g = gx.Graph("rows")
        g.input("x", (5, 5, 20))
        g.reduce("x", kind="sum", axis=-1, name="total")
        g.copy("total", permute=[1, 0], name="total2")
        named = {n: n for n in ("total", "total2") if f"{n} " in f"{expression} "}
        g.output(y=g.map(expression, name="y", **named))
        assert "total" in launches(g)
        assert_right(g)


def test_every_neighbour_that_is_no_part_of_a_kernel_has_a_reason() -> None:
    g = gx.Graph("reasons")
    g.input("x", (4, 8))
    g.input("w", (8, 8))
    g.gemm("x", "w", name="g")
    g.gather("g", g.input("at", (3,), "i32"), name="rows")
    g.output(y=g.map("gelu(g)", g="g", name="y"), z=g.map("rows * 2", rows="rows", name="z"))
    notes = plan_graph(g, device="hip", resident=True).notes
    texts = [note.text for note in notes if note.rewrite == "fuse-maps" and not note.applied]
    assert texts == [
        "'y' and 'g' stay apart: a product is the library's",
        "'z' and 'rows' stay apart: the kernel of gather is not generated from an expression",
    ]
