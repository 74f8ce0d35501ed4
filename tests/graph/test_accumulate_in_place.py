"""accumulate-in-place: a GEMM adds to c where c lies, and when it must not."""

from __future__ import annotations

from typing import Any

import pytest
from hardware import PLAIN
from rewritten import after, applied, assert_right, commands, refused

import graphexec as gx
from graphexec.ir.plan import Launch
from graphexec.planning.pipeline import plan_graph
from graphexec.proof import find_hazards

NAME = "accumulate-in-place"


def residual(dtype: str = "f32", **gemm: Any) -> gx.Graph:
    """y = (x @ x) @ w + s, with s = softmax(x)."""
    g = gx.Graph("residual")
    x, w = g.input("x", (8, 8), dtype), g.input("w", (8, 8), dtype)
    s = g.softmax(x, name="s")
    g.output(y=g.gemm(g.gemm(x, x, name="xx"), w, c=s, name="y", **gemm))
    return g


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
def test_the_sum_is_made_in_place(dtype: str) -> None:
    g = residual(dtype, beta=0.5)
    found = after(g, NAME)
    assert commands(found) == ["s:softmax", "xx:gemm", "y:gemm"]
    assert applied(found) == ["'y' adds to 's' in place"]
    assert found.program.tensors["y"] == found.program.tensors["s"]
    assert find_hazards(found.plan) == []
    assert_right(g, NAME)


def test_a_chain_of_sums_has_one_place() -> None:
    g = gx.Graph("sums")
    x = g.input("x", (8, 8))
    total = g.softmax(x, name="t")
    for i in range(4):
        total = g.gemm(x, x, alpha=0.1, c=total, name=f"t{i}")
    g.output(total)
    found = after(g, NAME)
    assert len(applied(found)) == 4
    assert {found.program.tensors[f"t{i}"].storage for i in range(4)} == {"t"}
    assert_right(g, NAME)


def test_what_has_no_place_to_give() -> None:
    cases = {
        "'x' is an input or a weight": "x",
        "'r' has no bytes of its own": "r",
    }
    for why, name in cases.items():
        g = gx.Graph("g")
        x = g.input("x", (8, 8))
        flat = g.softmax(g.input("flat", (64,)), name="f")
        g.copy(flat, reshape=[8, 8], name="r")
        g.output(y=g.gemm(x, x, c=name, name="y"), f="f")
        assert refused(after(g, NAME)) == [f"'y' adds to a copy of '{name}': {why}"]
        assert_right(g, NAME)


def test_an_output_keeps_its_numbers() -> None:
    g = residual()
    g.output("s")
    assert refused(after(g, NAME)) == ["'y' adds to a copy of 's': 's' is an output"]
    assert_right(g, NAME)


def test_after_edges() -> None:
    g = residual()
    g.output(z=g.softmax("w", after=["s"]))
    assert refused(after(g, NAME)) == ["'y' adds to a copy of 's': there is an `after` edge"]


def test_a_later_reader() -> None:
    g = residual()
    g.output(z=g.softmax("s", axis=0, name="z"))
    assert refused(after(g, NAME)) == ["'y' adds to a copy of 's': 'z' may read it later"]
    assert_right(g, NAME)


def test_a_later_reader_through_a_window() -> None:
    g = residual()
    flat = g.copy("s", reshape=[64], name="flat")
    g.output(z=g.softmax(flat, name="z"))
    assert applied(after(g, NAME)) == []
    assert_right(g, NAME)
    g = residual()
    g.output(z=g.copy("s", reshape=[64], name="flat"))
    assert applied(after(g, NAME)) == []
    assert_right(g, NAME)


def test_a_reader_that_the_sum_needs_anyway() -> None:
    """The residual of a transformer: its other readers happen before the product that adds it."""
    g = gx.Graph("g")
    x, w = g.input("x", (8, 8)), g.input("w", (8, 8))
    r = g.softmax(x, name="r")
    flat = g.copy(r, reshape=[64], name="flat")
    back = g.copy(flat, reshape=[8, 8], name="back")
    hidden = g.gemm(back, w, name="hidden")
    g.output(y=g.gemm(hidden, w, c=r, name="y"))
    found = after(g, NAME)
    assert applied(found) == ["'y' adds to 'r' in place"]
    assert_right(g, NAME)


def test_c_that_is_an_operand_too() -> None:
    for key in ("a", "b"):
        g = gx.Graph("g")
        x = g.input("x", (8, 8))
        s = g.softmax(x, name="s")
        g.output(y=g.gemm(**({"a": x, "b": x} | {key: s}), c=s, name="y"))
        text = "'y' adds to a copy of 's': it is read as another operand too"
        assert refused(after(g, NAME)) == [text]
        assert_right(g, NAME)


def test_an_operand_that_is_a_window_on_c() -> None:
    g = gx.Graph("g")
    x = g.input("x", (8, 8))
    s = g.softmax(x, name="s")
    g.output(y=g.gemm(g.copy(s, permute=[1, 0], name="t"), x, c=s, name="y"))
    assert applied(after(g, NAME)) == ["'y' adds to 's' in place"]  # t is a copy
    found = after(g, "fold-copies", NAME)
    assert "'y' adds to 's' in place" not in applied(found)  # t is s
    assert_right(g)


@pytest.mark.parametrize("gemm", [{"beta": 0}, {"out_dtype": "f64"}, {"bias": "b"}])
def test_gemms_that_do_not_add_in_place(gemm: dict[str, Any]) -> None:
    g = gx.Graph("g")
    x = g.input("x", (8, 8))
    g.input("b", (8,))
    g.output(y=g.gemm(x, x, c=g.softmax(x, name="s"), name="y", **gemm))
    assert applied(after(g, NAME)) == []
    assert_right(g, NAME)


def test_c_of_another_shape_or_dtype() -> None:
    g = gx.Graph("g")
    x = g.input("x", (8, 8), "f16")
    row = g.softmax(g.input("row", (1, 8), "f16"), name="row1")
    g.output(y=g.gemm(x, x, c=row), z=g.gemm(x, x, c=g.softmax(x), out_dtype="f32"))
    assert applied(after(g, NAME)) == []
    assert_right(g, NAME)


@pytest.mark.parametrize("able", [True, False])
def test_c_and_bias_share_the_bytes_of_c(able: bool) -> None:
    """What adds beta · c + bias works in place, if nothing else reads c: the product itself, or the
    kernel before it."""
    g = gx.Graph("g")
    x, bias = g.input("x", (64, 64)), g.input("b", (64,))
    g.output(y=g.gemm(x, x, c=g.softmax(x, name="s"), bias=bias, name="y"))
    plan = plan_graph(g, streams=1, hardware=None if able else PLAIN).plan
    labels = [i.command for i in plan.instructions if isinstance(i, Launch) and i.node == "y"]
    assert labels == (["gemm"] if able else ["affine", "gemm"])
    places = {t.name: (t.buffer, t.offset) for t in plan.tensors}
    assert places["s"] == places["y"]
    assert_right(g)
