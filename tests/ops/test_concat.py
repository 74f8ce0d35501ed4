"""concat: what it infers, every mistake, and its bytes on the CPU and the emulator."""

from typing import Any

import numpy as np
import pytest
from exact import Array, draw, run
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import Applied, Harness, tensor

import graphexec as gx
from graphexec.base.tensor import DType, View
from graphexec.graph.infer import infer
from graphexec.ops.concat import OP as CONCAT

Shape = tuple[int, ...]


def graph_of(*parts: tuple[Shape, str], axis: int = 0) -> gx.Graph:
    graph = gx.Graph("g")
    names = [graph.input(f"i{n}", shape, dtype) for n, (shape, dtype) in enumerate(parts)]
    graph.output(y=graph.concat(names, axis=axis, name="y"))
    return graph


def mistake(*parts: tuple[Shape, str], axis: int = 0) -> tuple[str, str]:
    with pytest.raises(gx.GraphError) as caught:
        infer(graph_of(*parts, axis=axis))
    [found] = caught.value.diagnostics
    return found.message.removeprefix("concat 'y': "), found.help


def test_infers_the_sum_of_the_extents():
    graph = graph_of(((2, 3), "f16"), ((2, 1), "f16"), ((2, 4), "f16"), axis=-1)
    assert str(infer(graph).types()["y"]) == "f16[2, 8]"


def test_parts_of_different_dtypes_are_shown_with_their_origins():
    with pytest.raises(gx.GraphError) as caught:
        infer(graph_of(((2, 3), "f32"), ((2, 3), "f16")))
    text = str(caught.value)
    assert "concat 'y': the parts have one dtype, but x[0] is f32[2, 3], x[1] is f16[2, 3]" in text
    assert "'i1' is f16[2, 3] (input" in text
    assert "cast one of them: {op: copy, x: …, dtype: f32}" in text


@pytest.mark.parametrize(
    ("parts", "axis", "message"),
    [
        ([(2, 3), (2, 3, 1)], 0, ("the parts have one number of axes, but x[0] is f32[2, 3], "
         "x[1] is f32[2, 3, 1]")),
        ([(2, 3), (4, 3), (2, 5)], 0, ("the parts have one shape but for axis 0, but x[0] is "
         "f32[2, 3], x[2] is f32[2, 5]")),
        ([(2, 3), (4, 3)], -1, ("the parts have one shape but for axis 1, but x[0] is f32[2, 3], "
         "x[1] is f32[4, 3]")),
        ([(2, 3)], 2, "there is no axis 2 in [2, 3]"),
        ([(2, 3)], -3, "there is no axis -3 in [2, 3]"),
        ([(), ()], 0, "there is no axis 0 in []"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(parts, axis, message):
    assert mistake(*((shape, "f32") for shape in parts), axis=axis)[0] == message


@st.composite
def concats(draw: Any) -> tuple[list[Shape], int]:
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    extents = draw(st.lists(st.integers(1, 17), min_size=1, max_size=20))
    parts = []
    for extent in extents:
        parts.append(tuple(extent if i == axis % len(shape) else e for i, e in enumerate(shape)))
    return parts, axis


def drawn(parts: list[Shape], dtype: str, seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [draw(rng, shape, dtype) for shape in parts]


@given(concats(), st.sampled_from(["f16", "bf16", "f32", "f64"]), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_on_the_cpu(case, dtype, seed):
    parts, axis = case
    arrays = drawn(parts, dtype, seed)
    graph = graph_of(*((shape, dtype) for shape in parts), axis=axis)
    found = run(graph, {f"i{n}": a for n, a in enumerate(arrays)})["y"]
    assert found.tobytes() == np.concatenate(arrays, axis=axis).tobytes()


def test_large_parts_are_shared_among_cores():
    arrays = drawn([(3, 70_000), (3, 40_001)], "f32", 0)
    graph = graph_of(*((a.shape, "f32") for a in arrays), axis=1)
    found = run(graph, {f"i{n}": a for n, a in enumerate(arrays)})["y"]
    np.testing.assert_array_equal(found, np.concatenate(arrays, axis=1))


@pytest.fixture(scope="module")
def harness() -> Harness:
    return Harness.open()


CASES = [
    ("rows", "f16", [(3, 8), (5, 8)], 0),
    ("columns", "f32", [(7, 4), (7, 12), (7, 8)], 1),
    ("odd columns", "bf16", [(7, 3), (7, 1), (7, 5)], -1),
    ("inner axis", "f64", [(3, 2, 5), (3, 1, 5)], 1),
    ("one part", "f16", [(4, 4)], 0),
    ("one element wide", "f32", [(1,)], 0),
    ("many parts", "f16", [(2, n, 4) for n in range(1, 40)], 1),
    ("large", "f16", [(1 << 10, 1 << 12), (1 << 10, 1 << 12)], 1),
]


@pytest.mark.parametrize(("name", "dtype", "parts", "axis"), CASES, ids=[c[0] for c in CASES])
def test_on_the_emulator(harness, name, dtype, parts, axis):
    if name == "large" and harness.emulator is not None:
        parts = [(64, 1 << 15), (64, 1 << 15)]  # as many words as make a thread move several
    arrays = {f"x[{n}]": a for n, a in enumerate(drawn(parts, dtype, 1))}
    applied = Applied(CONCAT, {n: tensor(dtype, *a.shape) for n, a in arrays.items()}, axis=axis)
    found = applied.run(harness, **arrays)
    assert found.tobytes() == np.concatenate(list(arrays.values()), axis=axis).tobytes()


@given(concats(), st.sampled_from(["f16", "f32", "f64"]))
@settings(max_examples=25, deadline=None)
def test_on_the_emulator_for_any_shapes(harness, case, dtype):
    parts, axis = case
    arrays = {f"x[{n}]": a for n, a in enumerate(drawn(parts, dtype, 2))}
    applied = Applied(CONCAT, {n: tensor(dtype, *a.shape) for n, a in arrays.items()}, axis=axis)
    found = applied.run(harness, **arrays)
    assert found.tobytes() == np.concatenate(list(arrays.values()), axis=axis).tobytes()


@pytest.mark.parametrize("dtype", ["i8", "u8", "i32", "i64", "bool"])
def test_integers_keep_every_bit(harness, dtype):
    info = DType(dtype).numpy()
    raw = np.random.default_rng(3).integers(0, 2 if dtype == "bool" else 256, (3, 72), "u1")
    parts = [raw.astype(info), raw[:, 31:].astype(info)]
    applied = Applied(CONCAT, {f"x[{n}]": tensor(dtype, *a.shape) for n, a in enumerate(parts)},
                      axis=1)  # fmt: skip
    found = applied.run(harness, **{f"x[{n}]": a for n, a in enumerate(parts)})
    np.testing.assert_array_equal(found, np.concatenate(parts, axis=1))


def test_words_are_as_wide_as_the_blocks_allow():
    def word(dtype: str, *parts: Shape, axis: int) -> str:
        types = {f"x[{n}]": tensor(dtype, *shape) for n, shape in enumerate(parts)}
        return dict(Applied(CONCAT, types, axis=axis).kernels[0].defines)["WORD"]

    assert word("f16", (2, 8), (2, 16), axis=1) == "16"
    assert word("f16", (2, 4), (2, 16), axis=1) == "8"
    assert word("f16", (2, 3), (2, 16), axis=1) == "2"
    assert word("f16", (2, 3), (6, 3), axis=0) == "4"
    assert word("f64", (2, 1), (2, 2), axis=1) == "8"


def test_accepts_blocks_at_equal_distances():
    dense = View.dense("a", tensor("f32", 4, 3, 8))
    window = View("a", (4, 3, 8), DType.F32, (48, 8, 1), 8)  # of a whole (4, 6, 8)
    turned = View("a", (4, 3, 8), DType.F32, (1, 32, 4))
    for view, axis, expected in (
        (dense, 1, True), (window, 1, True), (window, 0, False), (window, 2, False),
        (turned, 1, False),
    ):  # fmt: skip
        assert CONCAT.accepts({"x[0]": view}, {"axis": axis}, dense) is expected, (view, axis)
