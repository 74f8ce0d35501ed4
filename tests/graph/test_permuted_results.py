"""permuted-results: a GEMM writes where a copy would move its result, and when it must not."""

from __future__ import annotations

from typing import Any

import pytest
from rewritten import after, applied, assert_right, commands, refused

import graphexec as gx

NAME = "permuted-results"


def gemm_then(
    batch: tuple[int, ...] = (2, 4), of: str = "f16", gemm: dict[str, Any] | None = None,
    **copy: Any,
) -> gx.Graph:  # fmt: skip
    g = gx.Graph("g")
    a, b = g.input("a", (*batch, 16, 8), of), g.input("b", (*batch, 8, 32), of)
    given = dict(gemm or {})
    for key, shape in (("c", (*batch, 16, 32)), ("bias", (32,))):
        if key in given:
            given[key] = g.input(key, shape, of)
    y = g.gemm(a, b, name="y", **given)
    g.output(z=g.copy(y, name="z", **copy))
    return g


@pytest.mark.parametrize("copy", [
    {"permute": [0, 2, 1, 3]},
    {"permute": [0, 2, 1, 3], "reshape": [2, 16, -1]},
    {"permute": [2, 1, 0, 3]},
    {"permute": [1, 0, 2, 3]},
    {"permute": [1, 2, -4, 3], "reshape": [-1]},
    {},
])  # fmt: skip
def test_heads_are_merged_on_the_way(copy: dict[str, Any]) -> None:
    found = after(gemm_then(**copy), NAME)
    assert commands(found) == ["z:gemm"]
    assert applied(found) == ["gemm 'y' writes to where copy 'z' moves it"]
    for dtype in ("f16", "f32", "f64"):
        assert_right(gemm_then(of=dtype, **copy), NAME)


@pytest.mark.parametrize("copy", [
    {"permute": [0, 1, 3, 2]},  # rows would be columns
    {"permute": [0, 2, 3, 1]},
    {"permute": [0, 2, 1, 3], "slice": {0: [0, 1, 1]}},
    {"permute": [0, 2, 1, 3], "dtype": "f32"},
    {"permute": [0, 2, 1, 3], "to": "host"},
    {"reshape": [-1]},  # moves nothing
])  # fmt: skip
def test_what_a_gemm_cannot_write(copy: dict[str, Any]) -> None:
    g = gemm_then(**copy)
    assert applied(after(g, NAME)) == []
    assert_right(g, NAME)


def test_addends_need_a_dense_result() -> None:
    for key in ("c", "bias"):
        g = gemm_then(gemm={key: key}, permute=[0, 2, 1, 3])
        assert applied(after(g, NAME)) == []
        assert_right(g, NAME)


def test_a_result_the_library_does_not_write() -> None:
    assert applied(after(gemm_then(gemm={"out_dtype": "bf16"}, permute=[0, 2, 1, 3]), NAME)) == []


def test_rows_must_stay_aligned() -> None:
    g = gx.Graph("g")
    a, b = g.input("a", (4, 16, 8), "f16"), g.input("b", (4, 8, 5), "f16")
    g.output(z=g.copy(g.gemm(a, b, name="y"), permute=[1, 0, 2], name="z"))
    assert commands(after(g, NAME)) == ["z:gemm"]  # 5 columns are no worse than before


def test_other_readers_outputs_and_after_edges() -> None:
    g = gemm_then(permute=[0, 2, 1, 3])
    g.output(s=g.softmax("y"))
    assert refused(after(g, NAME)) == ["copy 'z' stays: 'y' has other readers"]
    g = gemm_then(permute=[0, 2, 1, 3])
    g.output("y")
    assert refused(after(g, NAME)) == ["copy 'z' stays: 'y' is an output"]
    g = gemm_then(permute=[0, 2, 1, 3])
    g.output(s=g.softmax("a", after=["y"]))
    assert refused(after(g, NAME)) == ["copy 'z' stays: there is an `after` edge at 'y'"]
    g = gemm_then(permute=[0, 2, 1, 3])
    g.output(s=g.softmax("a", after=["z"]))
    assert refused(after(g, NAME)) == ["copy 'z' stays: there is an `after` edge at 'z'"]


def test_a_softmax_writes_dense() -> None:
    g = gx.Graph("g")
    g.output(z=g.copy(g.softmax(g.input("x", (4, 8)), name="y"), permute=[1, 0], name="z"))
    assert applied(after(g, NAME)) == []


def test_only_once() -> None:
    """A second permuting copy finds a result that already has a layout."""
    g = gemm_then(permute=[0, 2, 1, 3])
    g.output(w=g.copy("z", permute=[1, 0, 2, 3], name="w"))
    del g.outputs["z"]
    assert len(applied(after(g, NAME))) == 1
    assert_right(g, NAME)


def test_arrays_of_pointers_must_pay_on_a_gpu() -> None:
    g = gx.Graph("g")
    a, b = g.input("a", (2, 8, 64, 64), "f16"), g.input("b", (2, 8, 64, 64), "f16")
    g.output(z=g.copy(g.gemm(a, b, name="y"), permute=[0, 2, 1, 3], name="z"))
    assert commands(after(g, NAME, device="hip")) == ["z:gemm"]
    g = gx.Graph("g")
    a, b = g.input("a", (2, 8, 64, 65536), "f16"), g.input("b", (2, 8, 65536, 64), "f16")
    g.output(z=g.copy(g.gemm(a, b, name="y"), permute=[0, 2, 1, 3], name="z"))
    assert "arrays of pointers would cost" in refused(after(g, NAME, device="hip"))[0]


def test_with_folded_operands() -> None:
    g = gemm_then(permute=[0, 2, 1, 3], reshape=[2, 16, -1])
    assert_right(g)
    g = gx.Graph("g")
    x = g.input("x", (2, 16, 4, 8))
    heads = g.copy(x, permute=[0, 2, 1, 3], name="heads")
    y = g.gemm(heads, heads, trans_b=True, name="y")
    g.output(z=g.copy(y, permute=[0, 2, 1, 3], name="z"))
    assert commands(after(g, "fold-copies", NAME)) == ["z:gemm"]
    assert_right(g)
