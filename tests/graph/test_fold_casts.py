"""fold-casts: a GEMM writes the dtype that a cast wants, and when it must not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rewritten import after, applied, assert_right, commands, draw, refused

import graphexec as gx

NAME = "fold-casts"


def cast_after_gemm(
    dtype: str, to: str, *, cast: dict[str, Any] | None = None, **gemm: Any
) -> gx.Graph:
    g = gx.Graph("g")
    a, b = g.input("a", (8, 16), dtype), g.input("b", (16, 4), dtype)
    for name in [n for n in ("c", "bias") if n in gemm]:
        gemm[name] = g.input(name, (8, 4) if name == "c" else (4,), gemm[name])
    y = g.gemm(a, b, name="y", **gemm)
    g.output(z=g.copy(y, dtype=to, name="z", **(cast or {})))
    return g


@pytest.mark.parametrize(("dtype", "out", "to"), [
    ("f16", None, "f32"), ("bf16", None, "f32"), ("f16", "f32", "f16"), ("bf16", "f32", "bf16"),
    ("f16", "bf16", "f32"), ("f32", "f16", "f32"),
])  # fmt: skip
def test_what_the_blas_can_write(dtype: str, out: str | None, to: str) -> None:
    g = cast_after_gemm(dtype, to, out_dtype=out)
    found = after(g, NAME)
    assert commands(found) == ["z:gemm"]
    assert applied(found) == [f"gemm 'y' writes the {to} of cast 'z'"]
    assert_right(g, NAME)


@pytest.mark.parametrize(("dtype", "to"), [
    ("f32", "f16"), ("f16", "bf16"), ("f16", "f64"), ("f64", "f32"),
])  # fmt: skip
def test_what_it_cannot(dtype: str, to: str) -> None:
    g = cast_after_gemm(dtype, to)
    assert applied(after(g, NAME)) == []
    assert_right(g, NAME)


def test_casting_up_leaves_out_a_rounding() -> None:
    g = cast_after_gemm("f16", "f32", alpha=1 / 3)
    inputs = draw(after(g).graph.inputs)
    exact = inputs["a"].astype(float) @ inputs["b"].astype(float) / 3
    errors = []
    for off in ([], ["all"]):
        with gx.compile(g, device="cpu", no_rewrite=off) as exe:
            errors.append(np.abs(exe.run(**inputs)["z"] - exact).max())
    assert errors[0] < 1e-5 < errors[1]


def test_casting_down_changes_no_bit() -> None:
    g = cast_after_gemm("f16", "f16", out_dtype="f32")
    inputs = draw(after(g).graph.inputs)
    found = []
    for off in ([], ["all"]):
        with gx.compile(g, device="cpu", no_rewrite=off) as exe:
            found.append(exe.run(**inputs)["z"].tobytes())
    assert found[0] == found[1]


def test_addends_come_along_where_they_may() -> None:
    up = cast_after_gemm("f16", "f32", c="f16", bias="f16")
    assert len(applied(after(up, NAME))) == 1
    assert_right(up, NAME)
    down = cast_after_gemm("f16", "f16", out_dtype="f32", c="f32")  # c would have no place
    assert applied(after(down, NAME)) == []


def test_a_cast_that_also_moves_stays() -> None:
    g = cast_after_gemm("f16", "f32", cast={"permute": [1, 0]})
    assert applied(after(g, NAME)) == []
    to_host = cast_after_gemm("f16", "f32", cast={"to": "host"})
    assert applied(after(to_host, NAME)) == []


def test_another_reader_keeps_the_half() -> None:
    g = cast_after_gemm("f16", "f32")
    g.output(w=g.softmax("y"))
    found = after(g, NAME)
    assert refused(found) == ["cast 'z' stays: 'y' has other readers"]
    assert_right(g, NAME)


def test_an_output_keeps_its_dtype() -> None:
    g = cast_after_gemm("f16", "f32")
    g.output("y")
    assert refused(after(g, NAME)) == ["cast 'z' stays: 'y' is an output"]


def test_after_edges() -> None:
    g = cast_after_gemm("f16", "f32")
    g.output(w=g.copy("a", after=["y"]))
    assert refused(after(g, NAME)) == ["cast 'z' stays: there is an `after` edge at 'y'"]
    g = gx.Graph("g")
    a = g.input("a", (4, 4), "f16")
    first = g.softmax(a, name="first")
    y = g.gemm(a, a, name="y")
    g.output(first, z=g.copy(y, dtype="f32", name="z", after=["first"]))
    assert refused(after(g, NAME)) == ["cast 'z' stays: there is an `after` edge at it"]


def test_chains_of_casts() -> None:
    g = gx.Graph("g")
    a = g.input("a", (4, 4), "f16")
    up = g.copy(g.gemm(a, a, name="y"), dtype="f32", name="up")
    g.output(down=g.copy(up, dtype="f16", name="down"))
    assert commands(after(g, NAME)) == ["down:gemm"]
    assert_right(g, NAME)


@pytest.mark.parametrize("to", ["i8", "i64", "bool"])
def test_no_op_writes_integers_for_a_cast(to: str) -> None:
    """An integer is truncated from what was stored, not from the sum."""
    g = cast_after_gemm("f16", to)
    assert commands(after(g, NAME)) == ["y:gemm", "z:copy"]
    g = gx.Graph("g")
    q = g.input("q", (4, 8))
    g.output(z=g.copy(g.attention(q, q, q, name="y"), dtype=to, name="z"))
    found = after(g, NAME)
    assert commands(found)[-1] == "z:copy"
    assert applied(found) == []
    assert gx.compare(g, draw(found.graph.inputs), device="cpu").ok
