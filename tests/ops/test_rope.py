"""rope: rotary embedding against its definition in exact angles, and every mistake."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from exact import DTYPES, Array, draw, run
from hypothesis import given
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.tensor import DType, TensorType
from graphexec.frontend.load import loads
from graphexec.graph.infer import infer
from graphexec.ir.approximate import Approximate
from graphexec.ops.rope import OP as ROPE

Shape = tuple[int, ...]


def graph_of(arrays: dict[str, Array], **settings: Any) -> gx.Graph:
    graph = gx.Graph("g")
    for name, array in arrays.items():
        graph.input(name, array.shape, array.dtype)
    graph.output(y=graph.rope(**{name: name for name in arrays}, name="out", **settings))
    return graph


def rotated(arrays: dict[str, Array], **settings: Any) -> Array:
    return run(graph_of(arrays, **settings), arrays)["y"]


def positions_of(arrays: dict[str, Array]) -> Array:
    """The position of each row, of the shape x.shape[:-1]."""
    shape = arrays["x"].shape[:-1]
    if "position" in arrays:
        return np.broadcast_to(arrays["position"], shape).astype(np.int64)
    at = arrays["at"].astype(np.int64)
    first = at.reshape(at.shape + (1,) * (len(shape) - at.ndim))
    return np.broadcast_to(first + np.arange(shape[-1]), shape)


def expected(arrays: dict[str, Array], theta: float = 10000, pairs: str = "halves",
             rotate: int | None = None) -> Array:  # fmt: skip
    """By complex numbers: (u + iv) · e^(i · angle), pair after pair."""
    x = arrays["x"].astype(np.float64)
    rotate = rotate or x.shape[-1]
    half = rotate // 2
    place = positions_of(arrays)
    y = x.copy()
    for pair in range(half):
        first, second = (pair, pair + half) if pairs == "halves" else (2 * pair, 2 * pair + 1)
        if "cos" in arrays:
            inside = (place >= 0) & (place < len(arrays["cos"]))
            row = np.where(inside, place, 0)
            cos, sin = (arrays[n][row, pair].astype(np.float64) for n in ("cos", "sin"))
            turn = np.where(inside, cos + 1j * sin, np.nan)
        else:
            turn = np.exp(1j * place * theta ** (-2 * pair / rotate))
        z = (x[..., first] + 1j * x[..., second]) * turn
        y[..., first], y[..., second] = z.real, z.imag
    return y


def bound_of(arrays: dict[str, Array], exact: Array, **settings: Any) -> Array:
    attrs = {a.name: a.default for a in ROPE.attributes} | settings
    known = {}
    for name, array in arrays.items():
        dtype = DType.of(array.dtype)
        known[name] = Approximate(array.astype(np.float64) if dtype.is_float else array, dtype)
    types = {n: TensorType(a.shape, DType.of(a.dtype)) for n, a in arrays.items()}
    return ROPE.error(known, attrs, ROPE.infer(types, attrs), exact)


@st.composite
def cases(draw_: Any) -> tuple[dict[str, Array], dict[str, Any]]:
    """Operands and settings of any kind."""
    shape = (*draw_(st.lists(st.integers(1, 3), max_size=2)), draw_(st.integers(1, 5)),
             draw_(st.integers(2, 12)))  # fmt: skip
    rng = np.random.default_rng(draw_(st.integers(0, 99)))
    arrays = {"x": draw(rng, shape, draw_(st.sampled_from(DTYPES)))}
    integer = draw_(st.sampled_from([np.int32, np.int64]))
    most = draw_(st.sampled_from([8, 5000]))
    if draw_(st.booleans()):
        own = shape[draw_(st.integers(0, len(shape) - 2)) : -1]
        own = tuple(draw_(st.sampled_from([1, e])) for e in own)
        arrays["position"] = rng.integers(-2, most, own, integer)
    else:
        own = (shape[0],) if len(shape) > 2 and draw_(st.booleans()) else ()
        arrays["at"] = np.asarray(rng.integers(0, most, own, integer))
    settings: dict[str, Any] = {"pairs": draw_(st.sampled_from(["halves", "interleaved"]))}
    rotate = 2 * draw_(st.integers(1, shape[-1] // 2))
    if rotate != shape[-1] or draw_(st.booleans()):
        settings["rotate"] = rotate
    if draw_(st.booleans()):
        table = draw_(st.sampled_from(["f32", "f16"]))
        size = (draw_(st.integers(1, 20)), rotate // 2)
        arrays |= {name: draw(rng, size, table) for name in ("cos", "sin")}
    else:
        settings["theta"] = draw_(st.sampled_from([10000, 500000.0, 2]))
    return arrays, settings


@given(cases())
def test_any_operands_and_settings(case):
    arrays, settings = case
    found = rotated(arrays, **settings).astype(np.float64)
    exact = expected(arrays, settings.get("theta", 10000), settings["pairs"],
                     settings.get("rotate"))  # fmt: skip
    np.testing.assert_array_equal(np.isnan(found), np.isnan(exact))
    bound = bound_of(arrays, exact, **settings)
    judged = ~np.isnan(exact)
    assert (np.abs(found - exact) <= 2 * bound + 1e-300)[judged].all()
    unit = {"f16": 2**-10, "bf16": 2**-7, "f32": 1e-5, "f64": 1e-10}
    largest = unit[DType.of(arrays["x"].dtype)] * (np.abs(exact[judged]).max(initial=1.0) + 4)
    assert (bound[judged] <= largest).all()


def test_features_that_are_not_rotated_keep_every_bit():
    x = draw(np.random.default_rng(0), (2, 3, 10), "f16")
    found = rotated({"x": x, "at": np.array(3, np.int32)}, rotate=4)
    assert found[..., 4:].tobytes() == x[..., 4:].tobytes()
    assert (found[..., :4] != x[..., :4]).any()


def test_angles_of_a_million_positions_keep_their_digits():
    """cos and sin of exact angles, by rational arithmetic: theta 16 and four pairs make
    frequencies of 1, 1/2, 1/4 and 1/8."""
    position = np.array([2**20, 2**20 - 1, 1_000_003, 999_999], np.int64)
    x = np.zeros((4, 8), np.float32)
    x[:, :4] = 1.0
    found = rotated({"x": x, "position": position}, theta=16)
    pi = Fraction(
        3141592653589793238462643383279502884197169399375105820974944592307816406286, 10**75
    )
    for row, place in enumerate(position.tolist()):
        for pair in range(4):
            angle = Fraction(place, 2**pair)
            turns = round(angle / (2 * pi))
            exact = float(angle - 2 * pi * turns)
            assert abs(found[row, pair] - np.cos(exact)) <= 2.5e-7
            assert abs(found[row, pair + 4] - np.sin(exact)) <= 2.5e-7


def test_at_counts_on_along_the_rows():
    x = draw(np.random.default_rng(1), (2, 4, 5, 6), "f32")
    whole = rotated({"x": x, "position": np.arange(7, 12, dtype=np.int32)})
    np.testing.assert_array_equal(rotated({"x": x, "at": np.array(7, np.int64)}), whole)
    each = rotated({"x": x, "at": np.array([7, 0], np.int32)})
    np.testing.assert_array_equal(each[0], whole[0])
    zero = rotated({"x": x, "at": np.array(0, np.int32)})
    np.testing.assert_array_equal(each[1], zero[1])


def test_tables_are_never_read_outside():
    table = np.ones((4, 3), np.float32)
    x = np.ones((6, 6), np.float32)
    place = np.array([-1, 0, 3, 4, 2**31 - 1, -(2**31)], np.int32)
    found = rotated({"x": x, "position": place, "cos": table, "sin": table})
    assert np.isnan(found).all(axis=1).tolist() == [True, False, False, True, True, True]
    np.testing.assert_array_equal(found[1], [0, 0, 0, 2, 2, 2])


def test_yaml():
    text = """\
version: 1
name: g
inputs:
  x: {shape: [2, 3, 8], dtype: f32}
  n: {shape: [], dtype: i32}
nodes:
  y: {op: rope, at: n, x: x, pairs: interleaved, rotate: 4}
outputs: {y: y}
"""
    arrays = {"x": draw(np.random.default_rng(2), (2, 3, 8), "f32"), "n": np.array(5, np.int32)}
    named = {"x": arrays["x"], "at": arrays["n"]}
    found = run(loads(text), arrays)["y"]
    np.testing.assert_array_equal(found, rotated(named, pairs="interleaved", rotate=4))


# Mistakes --------------------------------------------------------------------------------


def mistake(tensors: dict[str, tuple[Shape, str]], **settings: Any) -> str:
    graph = gx.Graph("g")
    for name, (shape, dtype) in tensors.items():
        graph.input(name, shape, dtype)
    graph.output(y=graph.rope(**{name: name for name in tensors}, name="out", **settings))
    with pytest.raises(gx.GraphError) as caught:
        infer(graph)
    [found] = caught.value.diagnostics
    return found.message.removeprefix("rope 'out': ")


X = {"x": ((2, 4, 5, 6), "f32")}
AT = {"at": ((), "i32")}
TABLES = dict.fromkeys(("cos", "sin"), ((9, 3), "f32"))


@pytest.mark.parametrize(
    ("tensors", "settings", "message"),
    [
        (X, {}, "one of position and at is needed, and only one"),
        ({**X, **AT, "position": ((5,), "i32")}, {},
         "one of position and at is needed, and only one"),
        ({"x": ((6,), "f32"), **AT}, {}, "x must have at least two axes, (…, S, D), found [6]"),
        ({"x": ((4, 7), "f32"), **AT}, {}, "rotate must be even, from 2 to 7, found 7"),
        ({**X, **AT}, {"rotate": 8}, "rotate must be even, from 2 to 6, found 8"),
        ({**X, **AT}, {"rotate": 0}, "rotate must be even, from 2 to 6, found 0"),
        ({**X, **AT}, {"theta": 0}, "theta must be positive, found 0"),
        ({**X, **AT}, {"pairs": "odd"},
         "pairs: expected one of halves, interleaved; found 'odd'"),
        ({**X, "at": ((3,), "i32")}, {}, "at must have the shape [] or [2], found [3]"),
        ({"x": ((4, 6), "f32"), "at": ((4,), "i32")}, {},
         "at must have the shape [] where x is (S, D), found [4]"),
        ({**X, "position": ((2, 5), "i32")}, {},
         "position of shape [2, 5] does not broadcast to [2, 4, 5]"),
        ({**X, "position": ((7, 2, 4, 5), "i32")}, {},
         "position of shape [7, 2, 4, 5] does not broadcast to [2, 4, 5]"),
        ({**X, **AT, "cos": ((9, 3), "f32")}, {}, "cos and sin are given together"),
        ({**X, **AT, **TABLES}, {"rotate": 4},
         "cos must have the shape (positions, 2), found [9, 3]"),
        ({**X, **AT, **TABLES, "sin": ((8, 3), "f32")}, {},
         "cos is f32[9, 3], sin is f32[8, 3]"),
        ({**X, "at": ((), "f32")}, {},
         "operand 'at' is f32[], but its dtype must be i32, i64"),
        ({"x": ((4, 6), "i32"), **AT}, {},
         "operand 'x' is i32[4, 6], but its dtype must be f16, bf16, f32, f64"),
    ],
)  # fmt: skip
def test_mistakes(tensors, settings, message):
    assert mistake(tensors, **settings) == message


def test_compare_sees_the_whole_of_a_rope_that_leaves_features_as_they_are() -> None:
    graph = gx.Graph("g")
    graph.input("x", (3, 5, 8))
    graph.input("at", (), "i32")
    graph.rope("x", at="at", rotate=4, name="r")
    graph.output(y=graph.softmax("r", name="y"))
    given = {"x": np.random.default_rng(0).standard_normal((3, 5, 8), np.float32)}
    found = gx.compare(graph, given | {"at": np.array(3, np.int32)}, device="cpu")
    assert found.ok
    assert [row.name for row in found.nodes] == ["r", "y"]
