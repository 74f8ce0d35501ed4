"""copy: what it infers, every mistake, and its numbers on the CPU against NumPy's indexing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from exact import DTYPES, Array, draw, rounded, run, to_dtype, wide
from hypothesis import given, settings
from hypothesis import strategies as st
from numbers_table import cast

import graphexec as gx
from graphexec.base.tensor import TensorType
from graphexec.graph.infer import infer
from graphexec.ir.plan import Launch

Shape = tuple[int, ...]


def graph_of(shape: Shape, of: str = "f32", **attrs: Any) -> gx.Graph:
    graph = gx.Graph("g")
    graph.input("x", shape, of)
    graph.copy("x", **attrs, name="y")
    graph.output("y")
    return graph


def inferred(shape: Shape, of: str = "f32", **attrs: Any) -> TensorType:
    return infer(graph_of(shape, of, **attrs)).types()["y"]


def dtype_of(array: Array) -> str:
    return gx.DType.of(array.dtype).value


def moved(x: Array, attrs: dict[str, Any]) -> Array:
    """x sliced, permuted, reshaped by NumPy, and cast by the rules, in float64."""
    y = wide(x) if gx.DType(dtype_of(x)).is_float else x
    index = [slice(None)] * y.ndim
    for axis, bounds in (attrs.get("slice") or {}).items():
        index[axis] = slice(*(tuple(bounds) + (None,) * (3 - len(bounds))))
    y = y[tuple(index)]
    if attrs.get("permute") is not None:
        y = np.transpose(y, attrs["permute"])
    if attrs.get("reshape") is not None:
        y = y.reshape(attrs["reshape"])
    dtype = attrs.get("dtype") or dtype_of(x)
    if dtype in DTYPES and y.dtype == np.float64:
        return rounded(y, dtype)
    values = [cast(value, gx.DType(dtype)) for value in y.reshape(-1).tolist()]
    return np.array(values, np.float64).reshape(y.shape)


def check(x: Array, **attrs: Any) -> Array:
    found = run(graph_of(x.shape, dtype_of(x), **attrs), {"x": x})["y"]
    assert dtype_of(found) == (attrs.get("dtype") or dtype_of(x))
    expected = moved(x, attrs)
    assert found.shape == expected.shape
    assert np.array_equal(wide(found), expected, equal_nan=True)
    return found


def nodes_launched(graph: gx.Graph) -> list[str]:
    return [i.node for i in gx.make_plan(graph).instructions if isinstance(i, Launch)]


# Types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attrs", "shape"), [
    ({}, (4, 6, 5)),
    ({"slice": {0: [1, 3, 1]}}, (2, 6, 5)),
    ({"slice": {1: [None, None, 4]}}, (4, 2, 5)),
    ({"slice": {1: [None, None, 100]}}, (4, 1, 5)),
    ({"slice": {-1: [-2, None, None], 0: [0, -1, 2]}}, (2, 6, 2)),
    ({"slice": {2: [-100, 100]}}, (4, 6, 5)),
    ({"slice": {2: [3]}}, (4, 6, 2)),
    ({"slice": {0: [None, None, -1], 1: [-1, 0, -2], 2: [3, None, -3]}}, (4, 3, 2)),
    ({"permute": [2, 0, 1]}, (5, 4, 6)),
    ({"permute": [-1, 0, -2]}, (5, 4, 6)),
    ({"reshape": [-1]}, (120,)),
    ({"reshape": [8, -1, 3]}, (8, 5, 3)),
    ({"reshape": [1, 120, 1]}, (1, 120, 1)),
    ({"slice": {1: [0, 3, 1]}, "permute": [1, 2, 0], "reshape": [3, -1]}, (3, 20)),
])  # fmt: skip
def test_shapes(attrs: dict[str, Any], shape: Shape) -> None:
    assert inferred((4, 6, 5), **attrs).shape == shape


def test_dtype_and_place() -> None:
    assert inferred((2,), "bf16") == TensorType((2,), gx.DType.BF16, "device")
    assert inferred((2,), "bf16", dtype="f64").dtype == gx.DType.F64
    assert inferred((2,), to="host").space == "host"
    assert inferred((2,), to="device").space == "device"


def test_a_copy_stays_where_its_operand_is() -> None:
    graph = graph_of((2,), to="host")
    graph.output(graph.copy("y", name="z"))
    assert infer(graph).types()["z"].space == "host"


def test_slices_and_shapes_may_be_expressions() -> None:
    graph = gx.Graph("g", dims={"N": 8})
    graph.input("x", ("N", 3))
    graph.output(graph.copy("x", slice={0: ["N // 4", "N - 1"]}, reshape=["N - 3", -1], name="y"))
    assert infer(graph).types()["y"].shape == (5, 3)


ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "slice axis": ({"slice": {3: [0, 1, 1]}}, "there is no axis 3 to slice in [4, 6, 5]"),
    "slice axis below": ({"slice": {-4: [0, 1, 1]}}, "there is no axis -4 to slice in [4, 6, 5]"),
    "slice twice": ({"slice": {0: [2, None, 1], -3: [2, None, 1]}}, "axis 0 is sliced twice"),
    "step zero": ({"slice": {0: [0, 1, 0]}}, "the step of a slice must not be 0"),
    "empty back": ({"slice": {0: [0, 3, -1]}}, "the slice of axis 0 is empty: [0, 3, -1] of 4"),
    "empty": ({"slice": {1: [3, 3, 1]}}, "the slice of axis 1 is empty: [3, 3, 1] of 6"),
    "empty past": ({"slice": {-2: [6, None, None]}}, "slice of axis 1 is empty: [6, None, None]"),
    "slice type": ({"slice": [0, 1]}, "expected a mapping from axis to [start, stop, step]"),
    "slice bounds": ({"slice": {0: 2}}, "axis 0: expected [start, stop, step], found 2"),
    "slice length": ({"slice": {0: [0, 1, 2, 3]}}, "axis 0: expected [start, stop, step]"),
    "slice fraction": ({"slice": {0: [0.5]}}, "expected an integer, found 0.5"),
    "permute short": ({"permute": [1, 0]}, "each of the axes 0 to 2 once, found [1, 0]"),
    "permute twice": ({"permute": [0, 1, 1]}, "permute needs each of the axes 0 to 2 once"),
    "permute twice, negative": ({"permute": [0, 1, -2]}, "each of the axes 0 to 2 once"),
    "permute range": ({"permute": [0, 1, 3]}, "permute needs each of the axes 0 to 2 once"),
    "permute type": ({"permute": 1}, "permute: expected a list, found 1"),
    "reshape": ({"reshape": [7, 7]}, "cannot reshape [4, 6, 5] (120 elements) to [7, 7]"),
    "reshape rest": ({"reshape": [7, -1]}, "cannot reshape [4, 6, 5] (120 elements) to [7, -1]"),
    "reshape too large": ({"reshape": [240, -1]}, "cannot reshape [4, 6, 5] (120 elements)"),
    "reshape two": ({"reshape": [-1, -1]}, "extents must be at least 1, and only one may be -1"),
    "reshape zero": ({"reshape": [0, -1]}, "extents must be at least 1, and only one may be -1"),
    "reshape negative": ({"reshape": [-2, 60]}, "extents must be at least 1"),
    "to": ({"to": "disk"}, "expected one of host, device; found 'disk'"),
    "dtype": ({"dtype": "i16"}, "unknown dtype 'i16'; expected f16, bf16, f32, f64, i8, "),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str) -> None:
    attrs, message = ERRORS[case]
    with pytest.raises(gx.GraphError) as caught:
        inferred((4, 6, 5), **attrs)
    assert len(caught.value.diagnostics) == 1
    assert "copy 'y'" in str(caught.value)
    assert message in str(caught.value)


# Numbers --------------------------------------------------------------------------------------

X = np.random.default_rng(1).standard_normal((4, 6, 5)) * 100


@pytest.mark.parametrize("target", DTYPES)
@pytest.mark.parametrize("source", DTYPES)
def test_casts_round_to_nearest_even(source: str, target: str) -> None:
    ties = [1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-24,
            1 + 2.0**-8 + 2.0**-20, 65519.0, 65504.0, 2.0**-24, 1.5 * 2.0**-24, 2.0**-25,
            3e38, 1e-40, 2.0**-133, 0.0, -0.0, np.inf, -np.inf, np.nan]  # fmt: skip
    values = np.array(ties)
    if "f16" in (source, target):  # past the range: see below
        values = values[~np.isfinite(values) | (abs(values) < 65520)]
    x = to_dtype(values, source)
    found = check(x, dtype=target)
    assert np.array_equal(np.signbit(wide(found)), np.signbit(wide(x)))


@pytest.mark.parametrize(("source", "target"), [("f32", "f16"), ("f64", "f16"), ("bf16", "f16"),
                                                ("f64", "f32"), ("f64", "bf16")])  # fmt: skip
def test_casts_past_the_range_are_infinite(source: str, target: str) -> None:
    value = 1e300 if source == "f64" else 1e6
    found = check(to_dtype([value, -value, 1.0], source), dtype=target)
    assert wide(found).tolist() == [np.inf, -np.inf, 1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("attrs", [
    {},
    {"slice": {0: [1, 3, 1]}},
    {"slice": {0: [None, None, 3], 1: [1, None, 2], 2: [-4, -1, 2]}},
    {"slice": {-1: [-100, 100, 3]}},
    {"slice": {2: [4, None, 7]}},
    {"slice": {0: [None, None, -1], 1: [None, None, -1], 2: [None, None, -1]}},
    {"slice": {1: [4, 0, -2], 2: [1, None, -1]}, "permute": [2, 0, 1]},
    {"slice": {0: [2, None, -1]}, "reshape": [-1, 10]},
    {"permute": [0, 1, 2]},
    {"permute": [2, 1, 0]},
    {"permute": [1, -1, 0]},
    {"reshape": [12, 10]},
    {"slice": {1: [0, 6, 3]}, "permute": [2, 0, 1], "reshape": [-1, 4]},
    {"permute": [1, 0, 2], "reshape": [24, 5]},
    {"slice": {0: [1, 3, 1]}, "reshape": [-1]},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("to", [None, "host"])
def test_movements(attrs: dict[str, Any], dtype: str, to: str | None) -> None:
    x = to_dtype(X, dtype)
    check(x, **attrs, to=to)
    check(x, **attrs, to=to, dtype="f32" if dtype == "f64" else "f64")


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (3, 1, 4)])
def test_extents_of_one(shape: Shape) -> None:
    x = draw(np.random.default_rng(2), shape, "f32")
    check(x)
    check(x, dtype="f64", permute=list(reversed(range(len(shape)))))
    check(x, reshape=[-1], dtype="f64")
    if x.size == 1:
        check(x, reshape=[])
        check(x, reshape=[1, 1, 1])


def test_bytes_are_kept_as_they_are() -> None:
    """A copy without a cast keeps the payload of a NaN and the sign of a zero."""
    x = np.array([0x7FC12345, 0xFFC00001, 0x80000000], np.uint32).view(np.float32)
    for attrs in ({}, {"reshape": [3, 1]}, {"slice": {0: [0, None, 2]}}):
        found = run(graph_of((3,), **attrs), {"x": x})["y"].reshape(-1)
        kept = x[::2] if "slice" in attrs else x
        assert np.array_equal(found.view(np.uint32), kept.view(np.uint32))


@pytest.mark.parametrize("shape", [(300, 400), (1, 400, 300)])
def test_sizes_that_are_shared_among_cores(shape: Shape) -> None:
    x = draw(np.random.default_rng(3), shape, "f32")
    axes = list(reversed(range(len(shape))))
    check(x, permute=axes)
    check(x, dtype="f16", slice={-1: [1, None, 2]})
    check(draw(np.random.default_rng(4), (900, 700), "f64"))  # a Memcpy of several parts


# Aliases --------------------------------------------------------------------------------------


@pytest.mark.parametrize("attrs", [
    {"reshape": [-1]}, {"reshape": [8, 15], "dtype": "f32"}, {"reshape": [120], "to": "device"},
    {"slice": {0: [1, 3, 1]}, "reshape": [-1]}, {"permute": [0, 1, 2], "reshape": [24, 5]},
])  # fmt: skip
def test_a_reshape_of_dense_elements_moves_nothing(attrs: dict[str, Any]) -> None:
    graph = gx.Graph()
    graph.input("x", (4, 6, 5))
    graph.softmax("x", name="s")
    graph.copy("s", **attrs, name="seen")
    graph.output(graph.softmax("seen", axis=0, name="y"))
    assert nodes_launched(graph) == ["x.h2d", "s", "y", "y.d2h"]
    plan = gx.make_plan(graph)
    s, seen = (next(t for t in plan.tensors if t.name == n) for n in ("s", "seen"))
    skipped = 4 * 30 if "slice" in attrs else 0
    assert (seen.buffer, seen.offset) == (s.buffer, s.offset + skipped)
    x = draw(np.random.default_rng(5), (4, 6, 5), "f32")
    powers = np.exp(wide(x))
    expected = moved(
        powers / powers.sum(-1, keepdims=True), {k: attrs[k] for k in attrs if k != "dtype"}
    )
    powers = np.exp(expected)
    assert np.allclose(run(graph, {"x": x})["y"], powers / powers.sum(0), rtol=1e-5)


@pytest.mark.parametrize("attrs", [
    {}, {"permute": [1, 0, 2], "reshape": [-1]}, {"slice": {1: [0, 2, 1]}, "reshape": [-1]},
    {"reshape": [-1], "dtype": "f16"}, {"reshape": [-1], "to": "host"},
    {"slice": {0: [1, 3, 1]}},
])  # fmt: skip
def test_other_copies_move_bytes(attrs: dict[str, Any]) -> None:
    graph = graph_of((4, 6, 5), **attrs)
    assert "y" in nodes_launched(graph)


def test_an_alias_of_an_alias() -> None:
    graph = gx.Graph()
    graph.input("x", (4, 6))
    graph.copy("x", slice={0: [1, None, 1]}, reshape=[-1], name="one")
    graph.copy("one", slice={0: [3, 15, 1]}, reshape=[2, 6], name="two")
    graph.output("one", "two", again="two")
    assert nodes_launched(graph) == ["x.h2d", "one.d2h", "two.d2h"]
    x = draw(np.random.default_rng(6), (4, 6), "f32")
    found = run(graph, {"x": x})
    flat = x[1:].reshape(-1)
    assert np.array_equal(found["one"], flat)
    assert np.array_equal(found["two"], flat[3:15].reshape(2, 6))
    assert np.array_equal(found["again"], found["two"])


def test_an_alias_with_an_after_edge_moves_bytes() -> None:
    """The bytes under another name must not be read before the other node is done."""
    graph = graph_of((4, 6))
    graph.output(graph.copy("x", reshape=[-1], after=["y"], name="late"))
    assert "late" in nodes_launched(graph)


# Placement ------------------------------------------------------------------------------------


@pytest.mark.parametrize("attrs", [
    {}, {"dtype": "f16"}, {"permute": [1, 0]}, {"slice": {1: [0, None, 2]}},
    {"slice": {0: [1, 3, 1]}}, {"reshape": [-1]},
    {"permute": [1, 0], "dtype": "f64", "reshape": [2, -1]},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("to", [None, "host", "device"])
def test_copies_of_tensors_in_host_memory(attrs: dict[str, Any], to: str | None) -> None:
    graph = gx.Graph()
    graph.input("x", (4, 6))
    graph.copy("x", to="host", name="parked")
    graph.copy("parked", **attrs, to=to, name="y")
    graph.output("y")
    x = draw(np.random.default_rng(7), (4, 6), "f32")
    found = run(graph, {"x": x})["y"]
    assert np.array_equal(wide(found), moved(x, attrs))


def test_a_result_in_host_memory_is_written_where_the_host_reads_it() -> None:
    graph = graph_of((4, 6), to="host")
    plan = gx.make_plan(graph)
    assert nodes_launched(graph) == ["x.h2d", "y"]
    (placed,) = [t for t in plan.tensors if t.name == "y"]
    assert plan.buffer(placed.buffer).role == "output"


def test_host_tensors_between_nodes_lie_in_a_host_arena() -> None:
    graph = gx.Graph()
    graph.input("x", (4, 6))
    graph.copy("x", to="host", name="parked")
    graph.output(graph.copy("parked", to="device", name="y"))
    plan = gx.make_plan(graph)
    (placed,) = [t for t in plan.tensors if t.name == "parked"]
    assert (plan.buffer(placed.buffer).space, plan.buffer(placed.buffer).role) == ("host", "arena")


@pytest.mark.parametrize("attrs", [
    {"reshape": [-1]}, {"slice": {0: [1, 3, 1]}, "reshape": [-1]},
    {"slice": {0: [3, 4, 1]}, "reshape": [6]},
], ids=str)  # fmt: skip
def test_an_output_may_be_a_part_of_another_output(attrs: dict[str, Any]) -> None:
    graph = gx.Graph()
    graph.input("x", (4, 6))
    graph.copy("x", to="host", name="parked")
    graph.copy("parked", **attrs, name="part")
    graph.output("parked", "part")
    x = draw(np.random.default_rng(8), (4, 6), "f32")
    found = run(graph, {"x": x})
    assert np.array_equal(found["parked"], x)
    assert np.array_equal(wide(found["part"]), moved(x, attrs))
    assert not np.shares_memory(found["parked"], found["part"])


def test_an_input_may_be_an_output() -> None:
    graph = gx.Graph()
    graph.input("x", (4, 6))
    graph.copy("x", reshape=[24], name="flat")
    graph.output("x", "flat", again="x")
    x = draw(np.random.default_rng(9), (4, 6), "f32")
    found = run(graph, {"x": x})
    assert all(np.array_equal(found[name].reshape(-1), x.reshape(-1)) for name in found)
    assert set(found) == {"x", "flat", "again"}


extents = st.integers(1, 5)
ALL = tuple(d.value for d in gx.DType)


def some(rng: np.random.Generator, shape: Shape, dtype: str) -> Array:
    """Numbers of a dtype, of either sign where there are negative ones."""
    if dtype in DTYPES:
        return draw(rng, shape, dtype, 100)
    if dtype == "bool":
        return np.asarray(rng.integers(0, 2, shape), bool)
    kind = gx.DType(dtype).numpy()
    least = max(-(2**40), int(np.iinfo(kind).min))
    return np.asarray(rng.integers(least, min(2**40, int(np.iinfo(kind).max)), shape), kind)


@st.composite
def copies(draw_from: st.DrawFn) -> tuple[Array, dict[str, Any]]:
    shape = tuple(draw_from(st.lists(extents, max_size=4)))
    rng = np.random.default_rng(draw_from(st.integers(0, 2**32 - 1)))
    x = some(rng, shape, draw_from(st.sampled_from(ALL)))
    attrs: dict[str, Any] = {}
    left = list(shape)
    if draw_from(st.booleans()):
        attrs["slice"] = {}
        for axis in draw_from(st.sets(st.sampled_from(range(len(shape))))) if shape else ():
            start = draw_from(st.none() | st.integers(-7, 7))
            stop = draw_from(st.none() | st.integers(-7, 7))
            step = draw_from(st.none() | st.sampled_from([1, 2, 3, -1, -2, -3]))
            count = len(range(*slice(start, stop, step).indices(shape[axis])))
            if count:
                given_as = draw_from(st.sampled_from([axis, axis - len(shape)]))
                attrs["slice"][given_as], left[axis] = [start, stop, step], count
    if draw_from(st.booleans()):
        axes = draw_from(st.permutations(range(len(shape))))
        attrs["permute"] = [draw_from(st.sampled_from([a, a - len(shape)])) for a in axes]
        left = [left[a] for a in axes]
    if draw_from(st.booleans()):
        attrs["reshape"] = draw_from(st.sampled_from([[-1], [*left, 1], [1, -1], left[::-1]]))
    if draw_from(st.booleans()):
        attrs["dtype"] = draw_from(st.sampled_from(ALL))
    if draw_from(st.booleans()):
        attrs["to"] = draw_from(st.sampled_from(["host", "device"]))
    return x, attrs


@settings(max_examples=150, deadline=None)
@given(copies())
def test_any_copy(call: tuple[Array, dict[str, Any]]) -> None:
    x, attrs = call
    check(x, **attrs)
