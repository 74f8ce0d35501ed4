"""map: types, shapes, numbers against NumPy, and every mistake with its place."""

import inspect
import math
import re
from typing import Any

import numpy as np
import pytest
from exact import Array, assert_within, run, to_dtype
from hypothesis import given
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.casts import cast
from graphexec.base.grammar import parse
from graphexec.base.tensor import DType, TensorType, View
from graphexec.frontend.load import loads
from graphexec.graph.infer import infer
from graphexec.ir.approximate import Approximate
from graphexec.ops.map import OP as MAP

Shape = tuple[int, ...]
ALL = list(DType)


def graph_of(text: str, arrays: dict[str, Array], **settings: Any) -> gx.Graph:
    graph = gx.Graph("g")
    for name, array in arrays.items():
        graph.input(name, array.shape, array.dtype)
    graph.output(y=graph.map(text, name="out", **settings))
    return graph


def mapped(text: str, arrays: dict[str, Array], **settings: Any) -> Array:
    return run(graph_of(text, arrays, **settings), arrays)["y"]


def type_of(text: str, tensors: dict[str, str], **settings: Any) -> str:
    graph = gx.Graph("g", dims={"B": 4})
    for name, dtype in tensors.items():
        graph.input(name, ("B", 3), dtype)
    graph.output(y=graph.map(text, name="y", **settings))
    return str(infer(graph).types()["y"].dtype)


def mistake(text: str, **settings: Any) -> tuple[str, str, str]:
    """Message, help and the part of the expression that it points at."""
    graph = gx.Graph("g", dims={"B": 4, "zero": 0})
    for name, dtype in (("x", "f32"), ("h", "f16"), ("i", "i32"), ("u", "u8"), ("m", "bool")):
        graph.input(name, (2, 3), dtype)
    with pytest.raises(gx.GraphError) as caught:
        infer_map(graph, text, **settings)
    [found] = caught.value.diagnostics
    start = found.mark.column - 1 if found.mark else 0
    pointed = text[start : start + found.mark.length] if found.mark else ""
    return found.message.removeprefix("map 'y': "), found.help, pointed


def infer_map(graph: gx.Graph, text: str, **settings: Any) -> None:
    graph.output(y=graph.map(text, name="y", **settings))
    infer(graph)


# Types -----------------------------------------------------------------------------------

WIDER = {
    ("f16", "f16"): "f16", ("f16", "bf16"): "f32", ("bf16", "f32"): "f32", ("f16", "f64"): "f64",
    ("f16", "i64"): "f16", ("bf16", "i8"): "bf16", ("f32", "bool"): "f32", ("i8", "u8"): "i32",
    ("i8", "i32"): "i32", ("u8", "i64"): "i64", ("i64", "i32"): "i64", ("bool", "u8"): "u8",
    ("i8", "i8"): "i8", ("bool", "i64"): "i64",
}  # fmt: skip


@pytest.mark.parametrize(("pair", "dtype"), WIDER.items(), ids=str)
def test_two_types_meet_whatever_their_order(pair, dtype):
    a, b = pair
    for text in ("a + b", "b + a", "max(a, b)", "where(a == b, a, b)"):
        assert type_of(text, {"a": a, "b": b}) == dtype


@pytest.mark.parametrize(
    ("text", "dtype", "result"),
    [
        ("x + 1", "f16", "f16"), ("x * 0.1", "bf16", "bf16"), ("x + 1", "u8", "u8"),
        ("x + B", "i8", "i8"), ("x * 0.5", "i32", "f32"), ("x / 2", "i64", "f32"),
        ("x // 2", "i64", "i64"), ("x / x", "i8", "f32"), ("x / x", "f64", "f64"),
        ("x < 1", "f16", "bool"), ("isnan(x)", "f32", "bool"), ("cast(x, i8) + 1", "f32", "i8"),
        ("x ** 2", "u8", "u8"), ("x ** 0.5", "f16", "f16"), ("not x", "bool", "bool"),
        ("x + 1", "bool", "i32"), ("where(x, 1, 0)", "bool", "i32"),
        ("where(x, 1.0, 0)", "bool", "f32"), ("floor(x)", "i32", "i32"), ("relu(x)", "u8", "u8"),
        ("x * sigmoid(2)", "f16", "f16"), ("where(1 < 2, x, 0.5)", "i32", "f32"),
        ("index(0) + x", "i64", "i64"), ("index(0)", None, "i32"), ("1.5", None, "f32"),
        ("1 < 2", None, "bool"), ("3000000000", None, "i64"), ("B", None, "i32"),
    ],
)  # fmt: skip
def test_types_of_results(text, dtype, result):
    tensors = {} if dtype is None else {"x": dtype}
    shape = (2, 2) if dtype is None else None
    assert type_of(text, tensors, shape=shape) == result


@pytest.mark.parametrize("dtype", ALL)
def test_dtype_casts_the_result(dtype):
    assert type_of("x * 2", {"x": "f32"}, dtype=dtype) == dtype
    found = mapped("x * 2", {"x": np.array([0.0, 1.75, -3.5], np.float32)}, dtype=dtype)
    numbers = {"bool": [0, 1, 1], "u8": [0, 3, 0], "f32": [0, 3.5, -7]}
    if dtype in numbers:
        assert found.tolist() == numbers[dtype]


def test_halves_are_rounded_once():
    x = np.array([1.0, 2049.0 / 2], np.float16)
    found = mapped("x * 3 - x - x - x + x / 1024", {"x": x})
    np.testing.assert_array_equal(found, (x.astype(np.float32) / 1024).astype(np.float16))


# Shapes ----------------------------------------------------------------------------------


@st.composite
def broadcast(draw: Any, most: int = 3) -> tuple[list[Shape], Shape]:
    """Shapes that broadcast together, and to what."""
    whole = tuple(draw(st.lists(st.integers(1, 6), min_size=0, max_size=4)))
    shapes = []
    for _ in range(draw(st.integers(1, most))):
        kept = whole[draw(st.integers(0, len(whole))) :]
        shapes.append(tuple(draw(st.sampled_from([1, e])) for e in kept))
    return shapes, tuple(np.broadcast_shapes(*shapes))


@given(broadcast(), st.booleans())
def test_operands_broadcast_as_in_numpy(case, stated):
    shapes, whole = case
    rng = np.random.default_rng(len(whole))
    arrays = {f"x{n}": rng.standard_normal(s).astype(np.float32) for n, s in enumerate(shapes)}
    shape = (5, *whole) if stated else None
    found = mapped(" + ".join(arrays), arrays, shape=shape)
    expected = np.broadcast_to(sum(arrays.values()), shape or whole)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_map_without_tensors_needs_its_shape():
    graph = gx.Graph("g", dims={"B": 3})
    graph.output(y=graph.map("where(index(1) > index(0), -inf, 0)", name="y", shape=("B", "B")))
    expected = np.triu(np.full((3, 3), -np.inf), 1)
    np.testing.assert_array_equal(run(graph, {})["y"], np.where(expected < 0, expected, 0))
    message, help, pointed = mistake("index(0)")
    assert message == "without tensors, the node needs its shape"
    assert (help, pointed) == ("shape: [M, N]", "")


def test_a_stated_shape_that_is_too_small_is_told():
    message, _, _ = mistake("x + 1", shape=(1, 3))
    assert message == "node 'y': shape is stated as [1, 3], but it is [2, 3]"


def test_a_bare_name_moves_no_bytes():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    graph = graph_of("x", {"x": x})
    plan = gx.make_plan(graph)
    assert [launch.command for launch in plan.launches.values()] == ["memcpy", "memcpy"]
    np.testing.assert_array_equal(run(graph, {"x": x})["y"], x)


def test_a_bare_name_may_broadcast_or_cast():
    x = np.array([1.5, 2.5, -0.5], np.float32)
    np.testing.assert_array_equal(mapped("x", {"x": x}, shape=(2, 3)), np.stack([x, x]))
    np.testing.assert_array_equal(mapped("x", {"x": x}, dtype="i8"), [1, 2, 0])


# Numbers ---------------------------------------------------------------------------------

NUMPY: dict[str, Any] = {
    "where": np.where, "min": np.minimum, "max": np.maximum, "abs": np.abs, "sign": np.sign,
    "floor": np.floor, "ceil": np.ceil, "round": np.rint, "clip": np.clip, "exp": np.exp,
    "log": np.log, "log1p": np.log1p, "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x),
    "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": np.vectorize(math.erf, otypes=[float]),
    "gelu": lambda x: x * 0.5 * np.vectorize(math.erfc, otypes=[float])(-x * math.sqrt(0.5)),
    "gelu_tanh": lambda x: (
        x / (1 + np.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    "silu": lambda x: x / (1 + np.exp(-x)), "relu": lambda x: np.maximum(x, 0),
    "softplus": lambda x: np.logaddexp(x, 0), "isnan": np.isnan, "isinf": np.isinf,
    "inf": math.inf, "nan": math.nan, "pi": math.pi,
}  # fmt: skip
"""The language by NumPy: Python evaluates the text of an expression with it."""

ONE = ["abs", "sign", "floor", "ceil", "round", "exp", "log", "log1p", "sqrt", "rsqrt", "sin",
       "cos", "tanh", "sigmoid", "erf", "gelu", "gelu_tanh", "silu", "relu",
       "softplus"]  # fmt: skip


@st.composite
def texts(draw: Any, depth: int = 3) -> str:
    """Texts of floating-point expressions over x and y."""
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(["x", "y", "2", "0.5", "pi", "1e-2"]))
    inner = texts(depth=depth - 1)
    match draw(st.integers(0, 6)):
        case 0 | 1:
            operator = draw(st.sampled_from(["+", "-", "*", "/"]))
            left, right = draw(inner), draw(inner)
            if operator == "/":
                right = f"(1.5 + abs({right}))"
            return draw(st.sampled_from([f"{left} {operator} {right}",
                                         f"({left} {operator} {right})"]))  # fmt: skip
        case 2:
            return f"-{draw(inner)}"
        case 3:
            return f"{draw(st.sampled_from(['min', 'max']))}({draw(inner)}, {draw(inner)})"
        case 4:
            compared = draw(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]))
            condition = f"{draw(inner)} {compared} {draw(inner)}"
            return f"where({condition}, {draw(inner)}, {draw(inner)})"
        case 5:
            return f"(x * 0 + {draw(inner)}) ** {draw(st.sampled_from(['2', '3', '-1']))}"
        case _:
            name = draw(st.sampled_from(ONE))
            argument = f"x * 0 + {draw(inner)}"  # not a number that is known beforehand
            if name in ("log", "sqrt", "rsqrt", "log1p"):
                argument = f"abs({argument}) + 0.01"
            if name == "exp":
                argument = f"-abs({argument})"
            return f"{name}({argument})"


def by_numpy(text: str, arrays: dict[str, Array]) -> Array:
    with np.errstate(all="ignore"):
        found = eval(text, {"__builtins__": {}}, {**NUMPY, **arrays})
    return np.broadcast_to(np.asarray(found, np.float64), (3, 5))


def faults_of(graph: gx.Graph) -> str:
    try:
        infer(graph)
    except gx.GraphError as exc:
        return str(exc)
    return ""


@given(texts(), st.sampled_from(["f16", "bf16", "f32", "f64"]), st.integers(0, 99))
def test_any_expression_is_what_numpy_says(text, dtype, seed):
    rng = np.random.default_rng(seed)
    arrays = {name: to_dtype(rng.standard_normal((3, 5)) * 2, dtype) for name in ("x", "y")}
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    expected = by_numpy(text, wide)
    tree = text if re.search(r"\b[xy]\b", text) else f"x * 0 + ({text})"
    graph = graph_of(tree, arrays)
    faults = faults_of(graph)
    if faults:  # constant parts may have no value
        assert "division by zero" in faults or " is " in faults, faults
        return
    type = infer(graph).types()["out"]
    node = infer(graph).nodes[0]
    known = {name: Approximate(wide[name], DType(dtype)) for name in node.operands}
    exact = MAP.reference({name: wide[name] for name in node.operands}, node.attrs, type)
    bound = np.broadcast_to(MAP.error(known, node.attrs, type, exact), (3, 5))
    fine = np.isfinite(bound) & np.isfinite(expected)
    found = run(graph, {n: a for n, a in arrays.items() if n in graph.inputs})["y"]
    off = np.abs(found.astype(np.float64) - np.where(fine, expected, 0.0))
    bound = bound * (5 if dtype == "f64" else 1)  # what is expected is rounded as well
    assert (off <= bound)[fine].all(), (found[fine], expected[fine], bound[fine])


@pytest.mark.parametrize("name", [*ONE, "isnan", "isinf"])
def test_functions_at_the_ends(name):
    x = np.array([0.0, -0.0, 1.0, -1.0, 30.0, -30.0, np.inf, -np.inf, np.nan, 1e-20, 88.0, -88.0])
    found = mapped(f"{name}(x)", {"x": x})
    with np.errstate(all="ignore"):
        expected = np.asarray(NUMPY[name](x))
    if name in ("gelu", "gelu_tanh", "silu"):
        expected[7] = np.nan  # -inf · 0
    near = np.isclose(found, expected, rtol=1e-13, atol=0, equal_nan=True)
    assert near.all(), (x[~near], found[~near], expected[~near])


INTEGERS = {"i8": np.int8, "u8": np.uint8, "i32": np.int32, "i64": np.int64}


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("operator", ["+", "-", "*", "//", "%"])
def test_integers_wrap_and_floor(dtype, operator):
    info = np.iinfo(INTEGERS[dtype])
    some = np.array([info.min, info.min + 1, -7 if info.min else 7, -1 if info.min else 9, 0, 1, 2,
                     3, info.max - 1, info.max], info.dtype)  # fmt: skip
    a, b = np.meshgrid(some, some)
    found = mapped(f"a {operator} b", {"a": a, "b": b})
    exact = [_exact(int(p), operator, int(q)) for p, q in zip(a.flat, b.flat, strict=True)]
    span = int(info.max) - int(info.min) + 1
    wrapped = [(e - int(info.min)) % span + int(info.min) for e in exact]
    assert found.dtype == info.dtype
    assert found.reshape(-1).tolist() == wrapped


def _exact(a: int, operator: str, b: int) -> int:
    if operator in ("//", "%"):
        return 0 if b == 0 else a // b if operator == "//" else a % b
    return {"+": a + b, "-": a - b, "*": a * b}[operator]


def test_nan_wins_in_min_and_max():
    a = np.array([np.nan, 1.0, np.nan, 2.0], np.float32)
    b = np.array([1.0, np.nan, np.nan, 3.0], np.float32)
    np.testing.assert_array_equal(mapped("min(a, b)", {"a": a, "b": b}), [np.nan] * 3 + [2.0])
    np.testing.assert_array_equal(mapped("max(a, b, 1)", {"a": a, "b": b}), [np.nan] * 3 + [3.0])
    np.testing.assert_array_equal(mapped("clip(a, 0, 1.5)", {"a": a}), [np.nan, 1.0, np.nan, 1.5])


@given(st.sampled_from(ALL), st.sampled_from(ALL))
def test_casts_are_those_of_copy(source, target):
    values = np.array([0, 1, -1, 2.5, -2.5, 127.6, 200, -300, 65519, 1e10, -1e10, 3e38, np.nan,
                       np.inf, -np.inf])  # fmt: skip
    with np.errstate(all="ignore"):
        x = values.astype(source.numpy()) if source.is_float else (
            np.nan_to_num(values, posinf=9).astype(np.int64).astype(source.numpy()))  # fmt: skip
    found = mapped(f"cast(x, {target})", {"x": x})
    with np.errstate(all="ignore"):
        expected = cast(x, target.numpy())
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.astype(np.float64), expected.astype(np.float64))


def test_index_is_the_coordinate_in_the_result():
    x = np.zeros((2, 1, 3), np.int32)
    found = mapped("x + 100 * index(0) + 10 * index(1) + index(-1)", {"x": x}, shape=(2, 4, 3))
    expected = np.fromfunction(lambda i, j, k: 100 * i + 10 * j + k, (2, 4, 3))
    np.testing.assert_array_equal(found, expected)


def test_large_maps_are_shared_among_cores():
    x = np.random.default_rng(0).standard_normal((300, 401)).astype(np.float32)
    found = mapped("silu(x) * index(0) + index(1)", {"x": x})
    wide = x.astype(np.float64)
    expected = wide / (1 + np.exp(-wide)) * np.arange(300)[:, None] + np.arange(401)
    assert_within(found, expected, "f32", 1e-6 * (np.abs(expected) + 400))


# Mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "pointed"),
    [
        ("x + sgimoid(x)", "unknown function 'sgimoid'", "sgimoid"),
        ("x + clip(x, 0)", "clip() takes 3 arguments, found 2", "clip(x, 0)"),
        ("x + nothing", "'nothing' is no tensor, dim or const", "nothing"),
        ("x * erf(i)", "erf() takes floats, found i32", "erf(i)"),
        ("gelu(u) + 1", "gelu() takes floats, found u8", "gelu(u)"),
        ("x + i // 0", "division by zero", "i // 0"),
        ("x + i % (2 - 2)", "division by zero", "i % (2 - 2)"),
        ("x / zero", "division by zero", "x / zero"),
        ("1 / 0 + x", "division by zero", "1 / 0"),
        ("x + index(2)", "there is no axis 2: the result has 2", "index(2)"),
        ("x + index(-3)", "there is no axis -3: the result has 2", "index(-3)"),
        ("x + index(i)", "the axis of index() is an integer", "index(i)"),
        ("x + cast(i, f33)", "unknown dtype 'f33'", "f33"),
        ("x and m", "'and' of f32", "x and m"),
        ("1 + (m + m)", "add of two bools", "m + m"),
        ("where(x, 1, 2)", "the condition is f32", "where(x, 1, 2)"),
        ("where(1, x, h)", "the condition is the number 1", "where(1, x, h)"),
        ("u + 256", "256 does not fit into u8", "u + 256"),
        ("u - -1", "-1 does not fit into u8", "u - -1"),
        ("x + 1e300", "1e+300 is infinite in f32, which is computed in", "x + 1e300"),
        ("x * (-8) ** 0.5", "a fractional power of a negative number", "(-8) ** 0.5"),
        ("x * 9 ** 9 ** 9", "9 ** 387420489 is past int64", "9 ** 9 ** 9"),
        ("x * 1e200 ** 2", "the value is too large", "1e200 ** 2"),
        ("x + log(0)", "log(0) is -inf", "log(0)"),
        ("x + sqrt(-1)", "sqrt(-1) is nan", "sqrt(-1)"),
        ("i ** -1", "i32 to a negative power", "i ** -1"),
        ("2 ** i", "** of i32 by an exponent that is no constant whole number", "2 ** i"),
        ("-m", "neg of a bool", "-m"),
    ],
)  # fmt: skip
def test_mistakes_point_into_the_expression(text, message, pointed):
    assert mistake(text)[::2] == (message, pointed)


def test_mistakes_help():
    assert mistake("erf(i)")[1] == "erf(cast(…, f32))"
    assert mistake("x + sgimoid(x)")[1] == "did you mean 'sigmoid'?"
    assert mistake("x and m")[1] == "x != 0 is a bool"


def test_shapes_that_do_not_broadcast_are_both_shown():
    graph = gx.Graph("g")
    for name, shape in (("a", (2, 3)), ("b", (2, 1)), ("c", (4, 3))):
        graph.input(name, shape)
    graph.output(y=graph.map("a + b * c", name="y"))
    with pytest.raises(gx.GraphError) as caught:
        infer(graph)
    assert "'a' of shape [2, 3] and 'c' of shape [4, 3] do not broadcast" in str(caught.value)
    assert "'a' is f32[2, 3] (input" in str(caught.value)
    message, help, _ = mistake("x + 1", shape=(4, 2))
    assert message == "'x' of shape [2, 3] and the stated shape of shape [4, 2] do not broadcast"
    assert help == "extents from the last on must be equal or 1"


def test_a_tensor_in_host_memory_is_copied_first():
    graph = gx.Graph("g")
    host = graph.copy(graph.input("x", (2,)), to="host", name="host")
    graph.output(y=graph.map(f"{host} + 1", name="y"))
    with pytest.raises(gx.GraphError, match="operand 'host' is in host memory"):
        infer(graph)


@pytest.mark.parametrize("text", ["(" * 10_000 + "x" + ")" * 10_000, "x" + " + x" * 250_000,
                                  "-" * 10_000 + "x"])  # fmt: skip
def test_huge_expressions_are_refused_at_once(text):
    with pytest.raises(gx.GraphError, match=r"nested deeper|characters; at most"):
        graph_of(text, {"x": np.zeros(2, np.float32)})


def test_an_expression_in_yaml_points_into_the_file():
    text = """\
version: 1
name: g
inputs:
  x: {shape: [2, 3], dtype: f32}
nodes:
  y: {op: map, expr: x * erf(1) + x // (1 - 1)}
outputs: {y: y}
"""
    with pytest.raises(gx.GraphError) as caught:
        infer(loads(text))
    [found] = caught.value.diagnostics
    assert found.message == "map 'y': division by zero"
    assert (found.mark.line, found.mark.column, found.mark.length) == (6, 35, 12)


# The contract -----------------------------------------------------------------------------


def test_accepts_windows_with_neighbours_along_the_last_axis():
    dense = View.dense("a", TensorType((4, 6), DType.F32))
    window = View("a", (4, 6), DType.F32, (12, 1), 6)
    repeated = View("a", (4, 6), DType.F32, (1, 0))
    turned = View("a", (4, 6), DType.F32, (1, 4))
    attrs = {"expr": parse("x"), "dtype": None}
    for view, expected in ((dense, True), (window, True), (repeated, True), (turned, False)):
        assert MAP.accepts({"x": view}, attrs, dense) is expected


def test_flops_count_operations():
    types = {name: TensorType((10,), DType.F32) for name in ("x", "y")}
    attrs = {"expr": parse("x * y + 1"), "dtype": None}
    assert MAP.flops(types, attrs, types["x"]) == 20


def test_builders_and_operators_make_the_same_node():
    graph = gx.Graph("g")
    gate, up = graph.input("u", (2, 3)), graph.input("v", (2, 3))
    graph.map("silu(gate) * up", gate=gate, up=up, name="a")
    assert graph.nodes["a"].operands == {"gate": "u", "up": "v"}
    graph.map("silu(u) * v", name="b")
    graph.output(a="a", b="b")
    arrays = {n: np.random.default_rng(1).standard_normal((2, 3)).astype("f4") for n in "uv"}
    found = run(graph, arrays)
    np.testing.assert_array_equal(found["a"], found["b"])


def test_the_signature_takes_the_expression_first_and_tensors_by_name():
    signature = str(inspect.signature(gx.Graph("g").map))
    assert signature.startswith("(expr, *, dtype=None,")
    assert "**tensors)" in signature
