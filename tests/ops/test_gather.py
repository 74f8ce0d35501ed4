"""gather: what it infers, every mistake, the check of indices, and its bytes on every device."""

from typing import Any

import numpy as np
import pytest
from exact import Array, run
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import Applied, Harness, tensor

import graphexec as gx
from graphexec.base.tensor import DType, TensorType, View
from graphexec.graph.infer import infer
from graphexec.ops.gather import OP as GATHER
from graphexec.ops.gather.kernel import GatherRows

Shape = tuple[int, ...]
DTYPES = ("f16", "bf16", "f32", "f64", "i8", "u8", "i32", "i64", "bool")


def graph_of(x: TensorType, index: TensorType, axis: int = 0) -> gx.Graph:
    graph = gx.Graph("g")
    graph.input("x", x.shape, x.dtype.value)
    graph.input("ids", index.shape, index.dtype.value)
    graph.output(y=graph.gather("x", "ids", axis=axis, name="y"))
    return graph


def table(shape: Shape, dtype: str, seed: int) -> Array:
    """Numbers that the dtype holds."""
    raw = np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 100, shape)
    return raw.astype(DType(dtype).numpy())


def by_hand(x: Array, index: Array, axis: int) -> Array:
    """The definition, slice by slice, in the dtype of x."""
    axis %= x.ndim
    nothing = 0 if x.dtype.kind in "iub" else np.nan
    out = np.empty((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]), x.dtype)
    for place in np.ndindex(index.shape):
        target = (slice(None),) * axis + place
        number = int(index[place])
        if -x.shape[axis] <= number < x.shape[axis]:
            out[target] = x[(slice(None),) * axis + (number,)]
        else:
            out[target] = nothing
    return out


def test_infers_the_shape():
    graph = graph_of(tensor("f16", 7, 5, 3), tensor("i32", 2, 4), axis=1)
    assert str(infer(graph).types()["y"]) == "f16[7, 2, 4, 3]"
    graph = graph_of(tensor("bool", 7, 5), tensor("i64"), axis=-2)
    assert str(infer(graph).types()["y"]) == "bool[5]"


@pytest.mark.parametrize(
    ("x", "index", "axis", "message"),
    [
        (tensor("f32", 4), tensor("i32", 2), 1, "there is no axis 1 in x of shape [4]"),
        (tensor("f32"), tensor("i32", 2), 0, "there is no axis 0 in x of shape []"),
        (
            tensor("f32", 4), tensor("f32", 2), 0,
            "operand 'index' is f32[2], but its dtype must be i32, i64",
        ),
    ],
)  # fmt: skip
def test_mistakes(x, index, axis, message):
    with pytest.raises(gx.GraphError) as caught:
        infer(graph_of(x, index, axis))
    assert [d.message for d in caught.value.diagnostics] == [f"gather 'y': {message}"]


@st.composite
def gathers(draw: Any) -> tuple[Shape, Shape, int, list[int], str]:
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    named = tuple(draw(st.lists(st.integers(1, 5), max_size=3)))
    extent = shape[axis]
    count = int(np.prod(named))
    near = st.integers(-extent - 2, extent + 1)
    far = st.sampled_from([2**31 - 1, -(2**31)])
    numbers = draw(st.lists(st.one_of(near, far), min_size=count, max_size=count))
    return shape, named, axis, numbers, draw(st.sampled_from(["i32", "i64"]))


def arrays_of(case: Any, dtype: str) -> tuple[Array, Array, int]:
    shape, named, axis, numbers, integer = case
    index = np.array(numbers, DType(integer).numpy()).reshape(named)
    return table(shape, dtype, 1), index, axis


@given(gathers(), st.sampled_from(DTYPES))
@settings(max_examples=60, deadline=None)
def test_kernel_on_the_cpu(case, dtype):
    x, index, axis = arrays_of(case, dtype)
    types = {"x": tensor(dtype, *x.shape), "index": tensor(case[4], *index.shape)}
    applied = Applied(GATHER, types, axis=axis)
    outer, count = int(np.prod(x.shape[: axis % x.ndim])), index.size
    flat = x.reshape(outer, x.shape[axis], -1)
    out = np.empty((outer, count, flat.shape[2]), x.dtype)
    applied.kernels[0].compute([flat, index.reshape(-1), out], lambda n, body: body(0, n))
    expected = by_hand(x, index, axis)
    assert out.tobytes() == expected.tobytes()


@given(gathers())
@settings(max_examples=30, deadline=None)
def test_reference(case):
    x, index, axis = arrays_of(case, "f64")
    types = {"x": tensor("f64", *x.shape), "index": tensor(case[4], *index.shape)}
    found = Applied(GATHER, types, axis=axis).reference(x=x, index=index)
    np.testing.assert_array_equal(found, by_hand(x, index, axis))


@pytest.fixture(scope="module")
def harness() -> Harness:
    return Harness.open()


@given(gathers(), st.sampled_from(DTYPES))
@settings(max_examples=40, deadline=None)
def test_on_the_emulator(harness, case, dtype):
    x, index, axis = arrays_of(case, dtype)
    types = {"x": tensor(dtype, *x.shape), "index": tensor(case[4], *index.shape)}
    found = Applied(GATHER, types, axis=axis).run(harness, x=x, index=index)
    expected = by_hand(x, index, axis)
    assert found.tobytes() == expected.tobytes()


def test_many_words_on_the_emulator(harness):
    x = table((33, 1 << 12), "f16", 2)
    index = np.random.default_rng(3).integers(-35, 35, 1100).astype("i8").astype("i4")
    types = {"x": tensor("f16", *x.shape), "index": tensor("i32", *index.shape)}
    applied = Applied(GATHER, types, axis=0)
    assert dict(applied.kernels[0].defines)["PER_THREAD"] == "4"
    np.testing.assert_array_equal(
        applied.run(harness, x=x, index=index), by_hand(x, index, 0)
    )  # fmt: skip


@pytest.mark.parametrize("shared", ["nothing", "x", "index", "both"])
def test_members_of_a_batch_may_share(harness, shared):
    x, index = table((3, 2, 5, 4), "f32", 4), np.array([[0, -1], [4, 9], [-6, 2]], "i4")
    sizes = {"x": x.nbytes, "index": index.nbytes, "out": 3 * 2 * 2 * 4 * 4}
    x_step = 0 if shared in ("x", "both") else 40
    index_step = 0 if shared in ("index", "both") else 2
    views = (
        View("x", (3, 2, 5, 4), DType.F32, (x_step, 20, 4, 1)),
        View("index", (3, 2), DType.I32, (index_step, 1)),
        View.dense("out", tensor("f32", 3, 2, 2, 4)),
    )
    kernel = GatherRows()(*views)
    command = gx.ops.kit.Command("n", "gather", kernel, views[:2], views[2:])
    found = harness.run([command], {"x": x, "index": index}, sizes)["out"]
    expected = np.stack([
        by_hand(x[b if x_step else 0], index[b if index_step else 0], 1) for b in range(3)
    ])  # fmt: skip
    np.testing.assert_array_equal(found.view("f4").reshape(expected.shape), expected)


# Runs ------------------------------------------------------------------------------------


def test_a_run_gathers_rows():
    x, index = table((50, 600), "f32", 5), np.arange(-50, 50, dtype="i8").reshape(4, 25)
    index = index.astype("i8")
    graph = graph_of(tensor("f32", *x.shape), tensor("i64", 4, 25))
    found = run(graph, {"x": x, "ids": index.astype("int64")})["y"]
    np.testing.assert_array_equal(found, x[index.astype(int)])


def test_gathers_of_one_table_are_one_launch():
    graph = gx.Graph("three")
    graph.input("x", (8, 64))
    ids = np.array([3, 0, -1, 7], "i4")
    for n in range(3):
        graph.input(f"i{n}", (4,), "i32")
        graph.output(**{f"y{n}": graph.gather("x", f"i{n}", name=f"y{n}")})
    x = table((8, 64), "f32", 6)
    with gx.compile(graph, device="cpu", streams=1, resident=True) as exe:
        gathers = [i for i in exe.plan.instructions if getattr(i, "command", "") == "gather"]
        found = exe.run(x=x, i0=ids, i1=ids - 1, i2=-ids)
    assert [launch.nodes for launch in gathers] == [("y0", "y1", "y2")]
    for n, index in enumerate((ids, ids - 1, -ids)):
        np.testing.assert_array_equal(found[f"y{n}"], x[index])


@pytest.mark.parametrize(
    ("number", "place", "text"),
    [(7, (1, 2), "[1, 2]"), (-8, (0, 0), "[0, 0]"), (2**31 - 1, (0, 2), "[0, 2]")],
)
def test_indices_of_the_host_are_checked_before_a_run(number, place, text):
    ids = np.zeros((2, 3), "i4")
    ids[place] = number
    graph = graph_of(tensor("f32", 7, 4), tensor("i32", 2, 3))
    with gx.compile(graph, device="cpu") as exe:
        with pytest.raises(gx.DataError) as caught:
            exe.run(x=np.zeros((7, 4), "f4"), ids=ids)
        [found] = caught.value.diagnostics
        assert found.message == (
            f"gather 'y': input 'ids' has the index {number} at {text}, but there are 7 elements "
            "along the axis"
        )
        assert found.help == "an index is from -7 to 6"
        ids[place] = -7
        exe.run(x=np.zeros((7, 4), "f4"), ids=ids)  # the executable is as before


def test_indices_are_checked_through_casts_and_reshapes():
    graph = gx.Graph("g", dims={"N": 4})
    graph.input("x", (7, 4))
    graph.input("ids", ("N",), "i64")
    pairs = graph.copy("ids", dtype="i32", reshape=(2, -1))
    graph.output(y=graph.gather("x", pairs, name="y"))
    x = np.zeros((7, 4), "f4")
    with gx.compile(graph, device="cpu") as exe:
        with pytest.raises(gx.DataError, match=r"the index 7 at \[3\]"):
            exe.run(x=x, ids=np.array([0, 1, 2, 7]))
        with pytest.raises(gx.DataError, match=r"the index 9 at \[5\]"):  # at another size
            exe.run(x=x, ids=np.array([0, 1, 2, 3, 4, 9]))


def test_what_a_node_computes_is_not_checked_but_gives_nan():
    graph = gx.Graph("g")
    graph.input("x", (7, 4))
    graph.input("ids", (4,), "i64")
    part = graph.copy("ids", slice={0: (1, 3)})
    graph.output(y=graph.gather("x", part, name="y"))
    found = run(graph, {"x": np.ones((7, 4), "f4"), "ids": np.array([0, 7, -7, 99])})["y"]
    np.testing.assert_array_equal(found, [[np.nan] * 4, [1.0] * 4])
