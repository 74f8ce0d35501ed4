"""fold-copies: copies that readers take as strides, and when they must stay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rewritten import after, applied, assert_right, commands, refused

import graphexec as gx
from graphexec.ir.program import Gemm

NAME = "fold-copies"


def before_gemm(
    shape: tuple[int, ...], columns: int = 8, dtype: str = "f16", **copy: Any
) -> gx.Graph:
    """y = (a copy of x) @ w."""
    g = gx.Graph("g")
    x = g.input("x", shape, dtype)
    moved = g.copy(x, name="moved", **copy)
    k = after(_with_output(g, moved)).graph.types()["moved"].shape[-1]
    g = gx.Graph("g")
    x, w = g.input("x", shape, dtype), g.input("w", (k, columns), dtype)
    g.output(y=g.gemm(g.copy(x, name="moved", **copy), w, name="y"))
    return g


def _with_output(g: gx.Graph, name: str) -> gx.Graph:
    g.output(name)
    return g


def gemm_of(found: Any, node: str = "y") -> Gemm:
    work = next(c.work for c in found.program.commands if c.node == node and c.label == "gemm")
    assert isinstance(work, Gemm)
    return work


@pytest.mark.parametrize(("shape", "copy"), [
    ((8, 16), {"permute": [1, 0]}),
    ((2, 8, 16), {"permute": [0, 2, 1]}),
    ((8, 2, 16), {"permute": [1, 0, 2]}),
    ((16, 16), {"slice": {0: [8, None, None]}}),
    ((16, 16), {"slice": {1: [8, None, None]}}),
    ((16, 16), {"slice": {0: [0, None, 2]}}),
    ((4, 8, 16), {"slice": {0: [1, 3, 1]}, "permute": [0, 2, 1]}),
    ((16, 4, 16), {"slice": {0: [0, 8, 1]}, "reshape": [32, 16]}),
    ((2, 8, 32), {"slice": {2: [16, None, None]}, "reshape": [2, 4, 2, 16]}),
    ((8, 8), {}),
])  # fmt: skip
def test_a_gemm_takes_the_copy_as_strides(shape: tuple[int, ...], copy: dict[str, Any]) -> None:
    g = before_gemm(shape, **copy)
    found = after(g, NAME)
    assert commands(found) == ["y:gemm"]
    assert gemm_of(found).a.storage == "x"
    for text in applied(found):  # none where the copy is free as it is
        assert text.startswith("'y' takes ")
    for dtype in ("f16", "f32", "f64"):
        assert_right(before_gemm(shape, dtype=dtype, **copy), NAME)


def test_the_words() -> None:
    found = after(before_gemm((8, 16), permute=[1, 0]), NAME)
    assert applied(found) == ["'y' takes permuted copy 'moved' from 'x' as strides"]


@pytest.mark.parametrize(("shape", "copy"), [
    ((8, 16), {"slice": {1: [0, None, 2]}}),  # neither rows nor columns have neighbours
    ((8, 8, 16), {"permute": [2, 0, 1]}),  # the rows are 16 apart in both directions
    ((16, 16), {"slice": {1: [1, 9, 1]}}),  # rows no longer start at 16 bytes
    ((16, 16), {"slice": {0: [None, None, -1]}}),  # no BLAS goes backwards
    ((4, 16, 16), {"slice": {0: [None, None, -1]}}),
    ((16, 12), {"slice": {1: [0, 8, 1]}}),
])  # fmt: skip
def test_strides_that_a_blas_does_not_take(shape: tuple[int, ...], copy: dict[str, Any]) -> None:
    g = before_gemm(shape, **copy)
    found = after(g, NAME)
    assert commands(found) == ["moved:copy", "y:gemm"]
    assert refused(found) == ["copy 'moved' stays: gemm 'y' cannot take such strides"]
    assert_right(g, NAME)


def test_what_is_no_window() -> None:
    for copy in ({"dtype": "f16"}, {"to": "host"}):
        g = gx.Graph("g")
        x = g.input("x", (8, 8))
        g.output(y=g.copy(g.copy(x, permute=[1, 0], name="moved", **copy), to="device", name="y"))
        found = after(g, NAME)
        assert "moved:copy" in commands(found)
        assert_right(g, NAME)


def test_a_reshape_that_strides_cannot_express_moves_bytes() -> None:
    g = before_gemm((8, 4, 8), permute=[1, 0, 2], reshape=[8, 32])
    assert commands(after(g, NAME)) == ["moved:copy", "y:gemm"]


def test_an_output_and_after_edges() -> None:
    g = before_gemm((8, 16), permute=[1, 0])
    g.output("moved")
    assert refused(after(g, NAME)) == ["copy 'moved' stays: it is an output"]
    g = gx.Graph("g")
    x = g.input("x", (8, 8))
    s = g.softmax(x, name="s")
    g.output(s, y=g.gemm(g.copy(x, permute=[1, 0], name="moved", after=["s"]), x, name="y"))
    assert refused(after(g, NAME)) == ["copy 'moved' stays: there is an `after` edge at it"]
    g = before_gemm((8, 16), permute=[1, 0])
    g.output(z=g.softmax("w", after=["moved"]))
    assert refused(after(g, NAME)) == ["copy 'moved' stays: there is an `after` edge at it"]


def test_every_reader_must_take_it() -> None:
    g = before_gemm((8, 16), permute=[1, 0])
    g.output(z=g.softmax("moved", name="z"))
    found = after(g, NAME)
    assert refused(found) == ["copy 'moved' stays: softmax 'z' cannot take such strides"]
    assert_right(g, NAME)


def test_all_readers_take_it() -> None:
    g = gx.Graph("g")
    x = g.input("x", (8, 16, 16), "f16")
    part = g.copy(x, slice={0: [4, None, None]}, name="part")
    g.output(y=g.gemm(part, part, trans_b=True, name="y"), z=g.softmax(part, name="z"))
    found = after(g, NAME)
    assert commands(found) == ["y:gemm", "z:softmax"]
    assert applied(found) == ["'y' and 'z' take sliced copy 'part' from 'x' as strides"]
    assert_right(g, NAME)


@pytest.mark.parametrize(("copy", "axis", "goes"), [
    ({"slice": {2: [0, 8, 1]}}, -1, True),
    ({"slice": {1: [0, 4, 1]}}, 1, True),
    ({"slice": {1: [0, 4, 1]}}, -1, False),  # the rows are not walked as one
    ({"permute": [0, 2, 1]}, -1, False),
    ({"slice": {2: [0, None, 2]}}, -1, False),
])  # fmt: skip
def test_a_softmax_takes_rows(copy: dict[str, Any], axis: int, goes: bool) -> None:
    g = gx.Graph("g")
    g.output(y=g.softmax(g.copy(g.input("x", (4, 8, 16)), name="moved", **copy), axis=axis))
    assert bool(applied(after(g, NAME))) == goes
    assert_right(g, NAME)


def test_an_op_that_says_nothing_takes_dense_windows_alone() -> None:
    from graphexec.ir.op import Op

    class Plain(type(gx.known_ops()["softmax"])):  # type: ignore[misc]
        name = "plain"
        accepts = Op.accepts

    for rows, goes in ((slice(2, 6), True), (slice(0, 8, 2), False)):
        g = gx.Graph("g", ops={**gx.known_ops(), "plain": Plain()})
        x = g.input("x", (8, 8))
        part = g.copy(x, slice={0: [rows.start, rows.stop, rows.step]}, name="part")
        g.output(y=g.plain(part))
        assert bool(applied(after(g, NAME))) == goes


def test_copies_of_copies_compose() -> None:
    g = gx.Graph("g")
    x = g.input("x", (16, 2, 16), "f16")
    turned = g.copy(x, permute=[1, 0, 2], name="turned")
    part = g.copy(turned, slice={1: [8, None, None]}, name="part")
    back = g.copy(part, permute=[0, 2, 1], name="back")
    g.output(y=g.gemm(back, back, trans_a=True, name="y"), z=g.copy(part, dtype="f32", name="z"))
    found = after(g, NAME)
    assert commands(found) == ["y:gemm", "z:copy"]
    assert len(applied(found)) == 3
    assert_right(g, NAME)


def test_a_copy_that_is_free_does_not_come_to_cost_anything() -> None:
    g = gx.Graph("g")
    x = g.input("x", (8, 4, 8))
    turned = g.copy(x, permute=[1, 0, 2], name="turned")
    flat = g.copy(turned, reshape=[4, 64], name="flat")
    g.output(y=g.gemm(flat, flat, trans_b=True), z=g.gemm(flat, flat, trans_b=True, alpha=2))
    found = after(g, NAME)
    assert refused(found) == ["copy 'turned' stays: copy 'flat' cannot take such strides"]
    assert commands(found)[0] == "turned:copy"
    # One whose reshape strides can express stays free.
    g = gx.Graph("g")
    x = g.input("x", (8, 4, 16))
    turned = g.copy(x, permute=[1, 0, 2], name="turned")
    flat = g.copy(turned, reshape=[4, 4, 2, 16], name="flat")
    g.output(y=g.gemm(flat, flat, trans_b=True, name="y"))
    found = after(g, NAME)
    assert commands(found) == ["y:gemm"]
    assert_right(g, NAME)


def heads(size: int, batch: int = 2) -> gx.Graph:
    """Scores of adjacent heads, as projections write them."""
    g = gx.Graph("heads")
    q, k = (g.input(n, (batch, size, 8, 64), "f16") for n in "qk")
    qh, kh = (g.copy(n, permute=[0, 2, 1, 3], name=f"{n}h") for n in (q, k))
    g.output(y=g.gemm(qh, kh, trans_b=True, name="y"))
    return g


def test_arrays_of_pointers_must_pay_on_a_gpu() -> None:
    one_batch = after(heads(64, batch=1), NAME, device="hip")
    assert len(applied(one_batch)) == 2
    small = after(heads(64), NAME, device="hip")
    assert commands(small) == ["y:gemm"]
    # The product grows with the square of the length, the copies with the length.
    large = after(heads(16384), NAME, device="hip")
    assert "arrays of pointers would cost" in refused(large)[0]
    assert commands(after(heads(16384), NAME, device="cpu")) == ["y:gemm"]


def test_the_numbers_of_heads() -> None:
    assert_right(heads(32), NAME)


@given(st.data())
def test_reshaped_views_are_numpys(data: st.DataObject) -> None:
    """View.reshaped gives strides exactly where NumPy reshapes without a copy."""
    import numpy as np

    from graphexec.base.tensor import DType, TensorType, View

    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)))
    axes = tuple(data.draw(st.permutations(range(len(shape)))))
    steps = [data.draw(st.integers(1, 2)) for _ in shape]
    array = np.arange(int(np.prod(shape))).reshape(shape)
    view = View.dense("x", TensorType(shape, DType.F64))
    array, view = array.transpose(axes), view.transpose(axes)
    array = array[tuple(slice(None, None, s) for s in steps)]
    strides = tuple(s * n for s, n in zip(view.strides, steps, strict=True))
    view = View("x", array.shape, DType.F64, strides)
    total, target = array.size, []
    while total > 1 and len(target) < 4:
        target.append(
            data.draw(st.sampled_from([d for d in range(1, total + 1) if total % d == 0]))
        )
        total //= target[-1]
    target.append(total)
    found = view.reshaped(tuple(target))
    moved = array.reshape(target)
    assert (found is not None) == np.shares_memory(moved, array)
    if found is not None:
        base = np.arange(int(np.prod(shape)))
        again = np.lib.stride_tricks.as_strided(
            base, found.shape, [s * base.itemsize for s in found.strides]
        )
        assert (again == moved).all()
