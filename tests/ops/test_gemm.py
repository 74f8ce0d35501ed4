"""gemm: what it infers, every mistake, and its numbers on the CPU against float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from exact import DTYPES, UNIT, Array, assert_within, draw, run, to_dtype, wide
from hardware import PLAIN, Chip, of, without
from hypothesis import given, settings
from hypothesis import strategies as st

import graphexec as gx
from graphexec.base.tensor import TensorType
from graphexec.graph.infer import infer
from graphexec.ir.plan import Plan, Range
from graphexec.ir.program import Command, Gemm, Memcpy, Work
from graphexec.machine.costs import signature
from graphexec.machine.support import Hardware, Support
from graphexec.planning.pipeline import plan_graph
from graphexec.tools.explain import explain

Shape = tuple[int, ...]


def graph_of(arrays: dict[str, tuple[Shape, str]], **attrs: Any) -> gx.Graph:
    graph = gx.Graph("g")
    for name, (shape, dtype) in arrays.items():
        graph.input(name, shape, dtype)
    graph.gemm(**{name: name for name in arrays}, **attrs, name="y")
    graph.output("y")
    return graph


def inferred(arrays: dict[str, tuple[Shape, str]], **attrs: Any) -> TensorType:
    return infer(graph_of(arrays, **attrs)).types()["y"]


def dtype_of(array: Array) -> str:
    return next(d for d in DTYPES if gx.DType(d).numpy() == array.dtype)


class Plain(gx.CpuDevice):
    """A device whose products add no bias: it is written into the result first."""

    def support(self, work: Work) -> Support:
        return PLAIN.support(work)


def check(arrays: dict[str, Array], **attrs: Any) -> Array:
    """Run the gemm and compare it with float64; returns what it gave. A bias both ways."""
    types = {name: (array.shape, dtype_of(array)) for name, array in arrays.items()}
    graph = graph_of(types, **attrs)
    if "bias" in arrays:
        with gx.compile(graph, device=Plain(poison=True)) as exe:
            assert all(c.work.bias is None for c in gemms(exe._compiled.program.commands))
            compare(exe.run(**arrays)["y"], arrays, **attrs)
    found = run(graph, arrays)["y"]
    compare(found, arrays, **attrs)
    return found


def gemms(commands: Iterable[Command]) -> list[Any]:
    return [command for command in commands if isinstance(command.work, Gemm)]


def compare(found: Array, arrays: dict[str, Array], **attrs: Any) -> None:
    """With float64."""
    a, b = wide(arrays["a"]), wide(arrays["b"])
    a = np.swapaxes(a, -1, -2) if attrs.get("trans_a") else a
    b = np.swapaxes(b, -1, -2) if attrs.get("trans_b") else b
    alpha, beta = attrs.get("alpha", 1.0), attrs.get("beta", 1.0)
    expected = alpha * np.einsum("...mk,...kn->...mn", a, b)
    size = abs(alpha) * np.einsum("...mk,...kn->...mn", abs(a), abs(b))
    if "c" in arrays and beta != 0:
        expected = expected + beta * wide(arrays["c"])
        size = size + abs(beta * wide(arrays["c"]))
    if "bias" in arrays:
        expected, size = expected + wide(arrays["bias"]), size + abs(wide(arrays["bias"]))
    of_a = dtype_of(arrays["a"])
    unit = UNIT["f64" if of_a == "f64" else "f32"]
    dtype = str(attrs.get("out_dtype") or of_a)
    assert_within(found, expected, dtype, (a.shape[-1] + 8) * unit * size)


# Types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b", "flags", "shape"), [
    ((3, 4), (4, 5), {}, (3, 5)),
    ((4, 3), (4, 5), {"trans_a": True}, (3, 5)),
    ((3, 4), (5, 4), {"trans_b": True}, (3, 5)),
    ((4, 3), (5, 4), {"trans_a": True, "trans_b": True}, (3, 5)),
    ((7, 3, 4), (4, 5), {}, (7, 3, 5)),
    ((3, 4), (2, 7, 4, 5), {}, (2, 7, 3, 5)),
    ((2, 1, 3, 4), (7, 4, 5), {}, (2, 7, 3, 5)),
    ((2, 1, 1, 4), (1, 7, 4, 1), {}, (2, 7, 1, 1)),
    ((1, 1), (1, 1), {}, (1, 1)),
])  # fmt: skip
def test_shapes(a: Shape, b: Shape, flags: dict[str, bool], shape: Shape) -> None:
    assert inferred({"a": (a, "f32"), "b": (b, "f32")}, **flags).shape == shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype: str) -> None:
    arrays = {"a": ((3, 4), dtype), "b": ((4, 5), dtype)}
    assert inferred(arrays) == TensorType((3, 5), gx.DType(dtype))
    for out in DTYPES:
        assert inferred(arrays, out_dtype=out) == TensorType((3, 5), gx.DType(out))


@pytest.mark.parametrize("addend", ["c", "bias"])
def test_addends_do_not_change_the_shape(addend: str) -> None:
    arrays = {"a": ((2, 3, 4), "f16"), "b": ((4, 5), "f16"), addend: ((5,), "f32")}
    assert inferred(arrays, out_dtype="f32").shape == (2, 3, 5)


F32 = {"a": ((3, 4), "f32"), "b": ((4, 5), "f32")}
ERRORS: dict[str, tuple[dict[str, tuple[Shape, str]], dict[str, Any], str]] = {
    "rank of a": ({**F32, "a": ((4,), "f32")}, {},
                  "operand 'a' needs at least 2 axes, (…, M, K); found [4]"),
    "rank of b": ({**F32, "b": ((), "f32")}, {},
                  "operand 'b' needs at least 2 axes, (…, K, N); found []"),
    "dtypes": ({**F32, "b": ((4, 5), "f16")}, {},
               "'a' and 'b' share a dtype: a is f32[3, 4], b is f16[4, 5]"),
    "dtype help": ({**F32, "b": ((4, 5), "f16")}, {}, "cast one of them"),
    "inner": ({**F32, "b": ((6, 5), "f32")}, {}, "the extents K differ: 4 in a, 6 in b"),
    "inner note": ({**F32, "b": ((6, 5), "f32")}, {"trans_b": True},
                   "b is f32[6, 5], (…, K, N) turned by trans_b"),
    "inner help b": ({**F32, "b": ((5, 4), "f32")}, {}, "trans_b: true would fit"),
    "inner help not b": ({**F32}, {"trans_b": True}, "trans_b: false would fit"),
    "inner help a": ({"a": ((4, 3), "f32"), "b": ((4, 5), "f32")}, {}, "trans_a: true would fit"),
    "where from": ({**F32, "b": ((6, 5), "f32")}, {}, "'b' is f32[6, 5] (input)"),
    "batch": ({"a": ((2, 3, 4), "f32"), "b": ((3, 4, 5), "f32")}, {},
              "the leading axes [3] of b do not broadcast with [2]"),
    "batch help": ({"a": ((2, 3, 4), "f32"), "b": ((3, 4, 5), "f32")}, {},
                   "equal extents, or 1 where the other is shared"),
    "c shape": ({**F32, "c": ((5, 3), "f32")}, {},
                "c of shape [5, 3] does not broadcast to the result [3, 5]"),
    "c rank": ({**F32, "c": ((1, 3, 5), "f32")}, {},
               "c of shape [1, 3, 5] does not broadcast to the result [3, 5]"),
    "c dtype": ({**F32, "c": ((3, 5), "f16")}, {}, "'c' is f16[3, 5], but its dtype must be f32"),
    "c dtypes": ({**F32, "c": ((3, 5), "bf16")}, {"out_dtype": "f16"},
                 "its dtype must be f32 or f16"),
    "bias shape": ({**F32, "bias": ((3,), "f32")}, {},
                   "the extents N differ: 5 in b, 3 in bias"),
    "bias rank": ({**F32, "bias": ((1, 5), "f32")}, {}, "'bias' needs 1 axis, (N,); found [1, 5]"),
    "bias of one": ({**F32, "bias": ((1,), "f32")}, {}, "the extents N differ: 5 in b, 1 in bias"),
    "bias dtype": ({**F32, "bias": ((5,), "f64")}, {}, "'bias' is f64[5], but its dtype must be"),
    "beta alone": (F32, {"beta": 1}, "beta is given, but there is no c to multiply with"),
    "beta zero alone": (F32, {"beta": 0}, "beta is given, but there is no c to multiply with"),
    "alpha": (F32, {"alpha": float("nan")}, "alpha: "),
    "alpha type": (F32, {"alpha": True}, "alpha: expected a number, found True"),
    "flag": (F32, {"trans_a": 1}, "trans_a: expected true or false, found 1"),
    "out_dtype": (F32, {"out_dtype": "f8"}, "unknown dtype 'f8'; expected f16, bf16, f32, "),
    "integer out": (F32, {"out_dtype": "i32"}, "expected f16, bf16, f32 or f64; found i32"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str) -> None:
    arrays, attrs, message = ERRORS[case]
    with pytest.raises(gx.GraphError) as caught:
        inferred(arrays, **attrs)
    assert len(caught.value.diagnostics) == 1
    assert "gemm 'y'" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("operand", ["a", "b", "c", "bias"])
def test_operands_in_host_memory_are_refused(operand: str) -> None:
    graph = gx.Graph()
    for name, shape in {"a": (3, 3), "b": (3, 3), "c": (3, 3), "bias": (3,)}.items():
        graph.input(name, shape)
    graph.copy(operand, to="host", name="parked")
    operands = {n: "parked" if n == operand else n for n in ("a", "b", "c", "bias")}
    graph.output(graph.gemm(**operands))
    with pytest.raises(gx.GraphError, match=f"operand '{operand}' is in host memory") as caught:
        infer(graph)
    assert "copy it with `to: device`" in str(caught.value)


def test_cost_counts_two_operations_a_product() -> None:
    graph = graph_of({"a": ((2, 4, 3), "f16"), "b": ((4, 5), "f16")}, trans_a=True)
    program = plan_graph(graph).program
    (gemm,) = [c for c in program.commands if isinstance(c.work, Gemm)]
    assert gemm.cost.flops == 2 * 2 * 3 * 5 * 4
    assert gemm.cost.bytes == 2 * (2 * 4 * 3 + 4 * 5 + 2 * 3 * 5)


# A bias in the product ------------------------------------------------------------------------


BIASED: dict[str, tuple[Shape, str]] = {
    "a": ((6, 64), "f16"), "b": ((64, 64), "f16"), "bias": ((64,), "f16"),
}  # fmt: skip
ABLE = Chip(biases=of("f16", "f32"), with_c=of("f16", "f32"), batches=())
WIDE = Chip(biases=of("f16:f32"), with_c=of("f16:f32"))


def commands_of(graph: gx.Graph, able: Hardware = ABLE) -> list[Command]:
    """Those of a plan for a GPU, without transfers."""
    program = plan_graph(graph, device="hip", hardware=able).program
    return [c for c in program.commands if not isinstance(c.work, Memcpy)]


def labels(graph: gx.Graph, able: Hardware = ABLE) -> list[str]:
    return [command.label for command in commands_of(graph, able)]


def test_a_product_that_adds_its_bias_is_one_command() -> None:
    (command,) = commands_of(graph_of(BIASED))
    work = command.work
    assert isinstance(work, Gemm)
    assert work.bias is not None
    assert (work.bias.storage, work.bias.shape, work.beta) == ("bias", (64,), 0.0)
    assert command.reads == (work.a, work.b, work.bias)
    assert command.cost.bytes == 2 * (6 * 64 + 64 * 64 + 64 + 6 * 64)
    assert command.cost.flops == 2 * 6 * 64 * 64


BOTH = {**BIASED, "c": ((6, 64), "f16")}


def test_a_product_that_adds_c_as_well_is_one_command() -> None:
    (command,) = commands_of(graph_of(BOTH, beta=0.5))
    work = command.work
    assert isinstance(work, Gemm)
    assert work.c is not None
    assert work.bias is not None
    assert (work.c.storage, work.out.storage, work.beta) == ("c", "y", 0.5)
    assert command.reads == (work.a, work.b, work.c, work.bias)
    assert command.cost.bytes == 2 * (3 * 6 * 64 + 64 * 64 + 64)
    assert command.inplace == ((2, 0),)


def test_its_plan_says_what_it_reads() -> None:
    plan = plan_graph(graph_of(BOTH), device="hip", hardware=ABLE).plan
    (launch,) = [i for i in plan.instructions if getattr(i, "command", "") == "gemm"]
    places = {t.name: Range(t.buffer, t.offset, t.offset + t.bytes) for t in plan.tensors}
    assert launch.reads == tuple(places[name] for name in ("a", "b", "c", "bias"))
    assert Plan.from_json(plan.to_json()) == plan


def test_where_it_is_not_its_sum_is_wide() -> None:
    """No rounding before both addends are added: the product is in f32, then all are summed."""
    assert labels(graph_of(BOTH), PLAIN) == ["gemm", "affine"]
    f32 = {name: (shape, "f32") for name, (shape, _) in BOTH.items()}
    assert labels(graph_of(f32), PLAIN) == ["affine", "gemm"]
    assert labels(graph_of(f32)) == ["gemm"]


def test_a_c_that_lies_by_columns_is_not_added_to() -> None:
    g = gx.Graph("g")
    given = {name: g.input(name, *BIASED[name]) for name in BIASED}
    c = g.copy(g.input("c", (64, 6), "f16"), permute=[1, 0])
    g.output(y=g.gemm(**given, c=c, name="y"))
    assert [c.label for c in commands_of(g)] == ["gemm", "affine"]
    check_graph(g)


@pytest.mark.parametrize("rows", [1, 8])
def test_a_c_that_begins_at_an_odd_address(rows: int) -> None:
    g = gx.Graph("g")
    given = {name: g.input(name, *BIASED[name]) for name in BIASED}
    c = g.copy(g.input("c", (6 + rows, 64), "f16"), slice={0: [rows, None, None]})
    g.output(y=g.gemm(**given, c=c, name="y"))
    found = [c.label for c in commands_of(g)]
    assert found == (["gemm"] if rows == 8 else ["gemm", "affine"])
    check_graph(g)


@pytest.mark.parametrize("late", ["bias", "c"])
def test_what_is_added_while_it_is_uploaded_is_a_race(late: str) -> None:
    """The same if nothing else depends on the upload."""
    g = gx.Graph("g")
    a, b, c, bias = (g.input(name, *BOTH[name]) for name in ("a", "b", "c", "bias"))
    g.output(y=g.gemm(g.gemm(a, b), b, c, bias=bias, name="y"))
    plan = plan_graph(g, device="hip", hardware=ABLE, streams=3).plan
    upload = next(i for i in plan.instructions if getattr(i, "node", "") == f"{late}.h2d")
    moved = [i for i in plan.instructions if i is not upload]
    at = next(n for n, i in enumerate(moved) if getattr(i, "node", "") == "y.d2h")
    moved.insert(at, upload)
    assert gx.find_hazards(plan) == []
    found = gx.find_hazards(dataclasses.replace(plan, instructions=tuple(moved)))
    assert any(f"'{late}'" in str(hazard) and "'y'" in str(hazard) for hazard in found)


@pytest.mark.parametrize(("change", "attrs", "able"), [
    ({}, {}, PLAIN),
    ({}, {}, Chip(biases=of("f32", "bf16", "f16:f32"))),
    ({}, {"out_dtype": "f32"}, ABLE),  # which does not do f16:f32,
    ({}, {"out_dtype": "f32"}, WIDE),  # ... and this is no bias in f32
    ({"c": ((6, 64), "f16")}, {}, PLAIN),
    ({"c": ((6, 64), "f16")}, {}, Chip(with_c=of("f32"))),
    ({"c": ((64,), "f16")}, {}, ABLE),  # c lies as rows of one ...
    ({"c": ((6, 1), "f16")}, {"beta": 0.5}, ABLE),  # ... and of equal elements
    ({"c": ((6, 64), "f16"), "bias": ((64,), "f32")}, {"out_dtype": "f32"}, WIDE),
    ({"a": ((2, 1, 3, 64), "f16"), "b": ((1, 5, 64, 64), "f16")}, {}, ABLE),  # arrays of pointers
])  # fmt: skip
def test_where_the_bias_is_added_apart(
    change: dict[str, tuple[Shape, str]], attrs: dict[str, Any], able: Hardware
) -> None:
    found = labels(graph_of(BIASED | change, **attrs), able)
    assert found in (["copy", "gemm"], ["affine", "gemm"], ["gemm", "affine"])


@pytest.mark.parametrize(("change", "attrs", "able"), [
    ({"bias": ((64,), "f32")}, {"out_dtype": "f32"}, WIDE),
    ({"c": ((6, 64), "f16")}, {"beta": 0}, ABLE),
    ({"c": ((6, 64), "f16")}, {}, ABLE),
    ({"c": ((6, 64), "f16")}, {"beta": 0.5}, ABLE),
    ({"c": ((6, 64), "f32"), "bias": ((64,), "f32")}, {"out_dtype": "f32"}, WIDE),
    ({"a": ((5, 6, 64), "f16"), "c": ((6, 64), "f16")}, {}, ABLE),
    ({"a": ((5, 6, 64), "f16"), "c": ((5, 6, 64), "f16")}, {}, ABLE),
    ({"a": ((64, 6), "f16")}, {"trans_a": True}, ABLE),
    ({"a": ((5, 6, 64), "f16")}, {}, ABLE),
    ({"a": ((5, 6, 64), "f16"), "b": ((5, 64, 64), "f16")}, {}, ABLE),
])  # fmt: skip
def test_where_it_is_not(
    change: dict[str, tuple[Shape, str]], attrs: dict[str, Any], able: Hardware
) -> None:
    assert labels(graph_of(BIASED | change, **attrs), able) == ["gemm"]


def test_a_result_that_is_cast_adds_the_bias_before() -> None:
    graph = graph_of({name: (shape, "f32") for name, (shape, _) in BIASED.items()}, out_dtype="f16")
    assert labels(graph) == ["gemm", "copy"]


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("sliced", ["a", "b", "bias"])
def test_what_begins_at_an_odd_address_is_not_added_to(sliced: str, rows: int) -> None:
    """hipBLASLt assumes 256-byte alignment; a row or eight elements of f16 are fewer bytes."""
    g = gx.Graph("g")
    given = {}
    for name, (shape, dtype) in BIASED.items():
        skip = (rows if len(shape) == 2 else 8 * rows) if name == sliced else 0
        x = g.input(name, (shape[0] + skip, *shape[1:]), dtype)
        given[name] = g.copy(x, slice={0: [skip, None, None]}) if skip else x
    g.output(y=g.gemm(**given))
    aligned = rows == 8 and sliced != "bias"  # eight rows of 64 f16 are 1024 bytes
    found = commands_of(g)
    assert [c.label for c in found] == (["gemm"] if aligned else ["copy", "gemm"])
    assert isinstance(found[-1].work, Gemm)
    assert (found[-1].work.bias is not None) == aligned
    check_graph(g)


def check_graph(graph: gx.Graph) -> None:
    with gx.compile(graph, device=gx.CpuDevice(poison=True)) as exe:
        rng = np.random.default_rng(0)
        inputs = {n: draw(rng, t.shape, t.dtype.value) for n, t in exe.inputs.items()}
        assert gx.compare(graph, inputs, device="cpu").ok


def test_signatures_tell_products_with_a_bias_apart() -> None:
    plain = {name: BIASED[name] for name in "ab"}
    found = {signature(commands_of(graph_of(types))[-1]) for types in (plain, BIASED)}
    found.add(signature(commands_of(graph_of(BIASED), PLAIN)[-1]))
    found.add(signature(commands_of(graph_of(BOTH))[-1]))
    assert found == {
        "gemm: f16[6,64] f16[64,64] f16[6,64] f16[64] -> f16[6,64]",
        "gemm: f16[6,64] f16[64,64] -> f16[6,64]",
        "gemm: f16[6,64] f16[64,64] f16[64] -> f16[6,64]",
        "gemm: f16[6,64] f16[64,64] f16[6,64] -> f16[6,64]",
    }


def test_explain_says_where_the_bias_is_added() -> None:
    told = explain(plan_graph(graph_of(BIASED), device="hip", hardware=ABLE), "y")
    assert "adds bias bias in its epilogue, which takes no command of its own" in told
    assert "in its epilogue" not in explain(plan_graph(graph_of(BIASED), device="hip"), "y")
    told = explain(plan_graph(graph_of(BOTH), device="hip", hardware=ABLE), "y")
    assert "adds c c and bias bias in its epilogue, which takes no command of its own" in told


def test_a_product_may_be_the_only_one_that_adds_no_bias() -> None:
    """A device is asked about each of them."""
    g = graph_of(BIASED)
    g.output(z=g.gemm(g.input("d", (9, 64), "f16"), "b", bias="bias", name="z"))
    (work,) = [c.work for c in commands_of(g) if c.node == "y"]
    assert isinstance(work, Gemm)
    compiled = plan_graph(g, device="hip", hardware=without(ABLE, work))
    assert sorted(c.label for c in compiled.program.commands if c.label != "memcpy") == [
        "copy", "gemm", "gemm",
    ]  # fmt: skip
    assert "'y' adds the bias by a command of its own: there is no algorithm" in explain(
        compiled, "y"
    )
    assert "'z' adds the bias as it writes the result" in explain(compiled, "z")


def test_a_c_that_is_one_row_is_a_bias() -> None:
    """What is added tells, not what it is called."""
    row = {**BIASED, "c": ((64,), "f16")}
    del row["bias"]
    (command,) = commands_of(graph_of(row))
    assert isinstance(command.work, Gemm)
    assert command.work.bias is not None
    assert command.work.bias.storage == "c"
    assert labels(graph_of(row, beta=0.5)) == ["copy", "gemm"]


def test_switched_off_nothing_is_fused() -> None:
    plan = plan_graph(graph_of(BOTH), device="hip", hardware=ABLE, no_rewrite=["fuse-epilogue"])
    assert [c.label for c in plan.program.commands if c.label != "memcpy"] == ["gemm", "affine"]


# Numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", [None, *DTYPES])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pair_of_dtypes(dtype: str, out: str | None) -> None:
    rng = np.random.default_rng(1)
    arrays = {"a": draw(rng, (2, 9, 17), dtype), "b": draw(rng, (2, 17, 5), dtype)}
    check(arrays, out_dtype=out, alpha=0.75)
    for of_c in {dtype, out or dtype}:
        check({**arrays, "c": draw(rng, (9, 5), of_c)}, out_dtype=out, alpha=-0.5, beta=3)
        check({**arrays, "bias": draw(rng, (5,), of_c)}, out_dtype=out)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("trans_a", [False, True])
def test_flags(trans_a: bool, trans_b: bool, dtype: str) -> None:
    rng = np.random.default_rng(2)
    a = draw(rng, (3, 11, 6) if trans_a else (3, 6, 11), dtype)
    b = draw(rng, (4, 11) if trans_b else (11, 4), dtype)
    check({"a": a, "b": b}, trans_a=trans_a, trans_b=trans_b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 5])
@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("k", [1, 7])
def test_extents_of_one(m: int, n: int, k: int, dtype: str) -> None:
    rng = np.random.default_rng(3)
    for batch in ((), (1,), (2, 1)):
        a, b = draw(rng, (*batch, m, k), dtype), draw(rng, (k, n), dtype)
        check({"a": a, "b": b, "c": draw(rng, (m, 1), dtype)}, beta=2, alpha=0.5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("left", "right"), [
    ((2,), ()), ((), (2,)), ((3, 1), (1, 2)), ((2, 3), (3,)), ((2, 1, 3), (2, 4, 1)),
    ((1, 1), (1, 1)), ((2, 4, 3), (2, 1, 1)), ((5, 2, 2), (1, 2, 2)),
])  # fmt: skip
def test_batches_broadcast(left: Shape, right: Shape, dtype: str) -> None:
    rng = np.random.default_rng(4)
    a, b = draw(rng, (*left, 3, 6), dtype), draw(rng, (*right, 6, 2), dtype)
    check({"a": a, "b": b})


def test_grouped_query_heads_share_keys() -> None:
    rng = np.random.default_rng(5)
    q, k = draw(rng, (2, 2, 4, 7, 16), "bf16"), draw(rng, (2, 2, 1, 9, 16), "bf16")
    found = check({"a": q, "b": k}, trans_b=True, out_dtype="f32")
    repeated = np.repeat(k, 4, axis=2)
    alone = check({"a": q, "b": repeated}, trans_b=True, out_dtype="f32")
    assert np.allclose(found, alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 3, 5), (2, 1, 1), (3, 5), (3, 1), (1, 5), (5,),
                                   (1,), ()])  # fmt: skip
@pytest.mark.parametrize("dtype", DTYPES)
def test_c_broadcasts(shape: Shape, dtype: str) -> None:
    rng = np.random.default_rng(6)
    arrays = {"a": draw(rng, (2, 3, 4), dtype), "b": draw(rng, (4, 5), dtype)}
    check({**arrays, "c": draw(rng, shape, dtype)})
    check({**arrays, "c": draw(rng, shape, dtype)}, beta=-1.5, alpha=0)
    check({**arrays, "c": draw(rng, shape, dtype)}, beta=0.25, out_dtype="f32")


@pytest.mark.parametrize("shape", [(3, 1), (3, 5), (1, 3, 5), (2, 3, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_c_and_bias_together(dtype: str, shape: Shape) -> None:
    rng = np.random.default_rng(7)
    arrays = {"a": draw(rng, (2, 3, 4), dtype), "b": draw(rng, (4, 5), dtype)}
    addends = {"c": draw(rng, shape, dtype), "bias": draw(rng, (5,), dtype)}
    check({**arrays, **addends}, alpha=2, beta=-0.5)


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("shape", [(6, 64), (3, 3000, 64)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_c_is_added_in_place_if_nobody_needs_it(dtype: str, shape: Shape, over: bool) -> None:
    """c and the result have one place, with a bias as well; also where cores share the rows."""
    g = gx.Graph("g")
    x, b, bias = (
        g.input("x", shape, dtype),
        g.input("b", (64, 64), dtype),
        g.input("v", (64,), dtype),
    )
    c = g.softmax(x, scale=3.0, name="c")
    g.output(y=g.gemm(x, b, c, bias=bias, beta=-2, name="y"), **({} if over else {"c": c}))
    with gx.compile(g, device=gx.CpuDevice(poison=True), streams=1) as exe:
        (command,) = gemms(exe._compiled.program.commands)
        assert command.work.c is not None
        places = {t.name: t.offset for t in exe.plan.tensors}
        assert (places["c"] == places["y"]) == over
        rng = np.random.default_rng(0)
        inputs = {n: draw(rng, t.shape, t.dtype.value) for n, t in exe.inputs.items()}
        first, second = (exe.run(**inputs)["y"] for _ in range(2))
        assert first.tobytes() == second.tobytes()
    assert gx.compare(g, inputs, device="cpu", streams=1).ok


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_c_and_bias_are_summed_in_f32(dtype: str) -> None:
    """beta · c + bias alone may need more digits, and a larger range, than the result."""
    rng = np.random.default_rng(8)
    arrays = {"a": draw(rng, (8, 4), dtype), "b": draw(rng, (4, 5), dtype)}
    c = draw(rng, (8, 5), dtype, 100)
    check({**arrays, "c": c, "bias": to_dtype(-wide(c)[0], dtype)}, beta=1.01)
    if dtype == "f16":
        ones = to_dtype([[1.0]], dtype)
        large = {"a": to_dtype([[60000.0]], dtype), "b": ones, "c": to_dtype([[40000.0]], dtype),
                 "bias": to_dtype([40000.0], dtype)}  # fmt: skip
        assert wide(check(large, alpha=-1)) == 20000


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out", [None, "f16", "f32"])
def test_beta_zero_never_reads_c(dtype: str, out: str | None) -> None:
    rng = np.random.default_rng(9)
    arrays = {"a": draw(rng, (3, 4), dtype), "b": draw(rng, (4, 5), dtype)}
    c = to_dtype(np.full((3, 5), np.nan), dtype)
    check({**arrays, "c": c}, beta=0, out_dtype=out)
    check({**arrays, "c": c, "bias": draw(rng, (5,), dtype)}, beta=0.0, out_dtype=out)


def test_beta_zero_makes_no_dependency_on_c() -> None:
    graph = graph_of({**F32, "c": ((3, 5), "f32")}, beta=0)
    plan = gx.make_plan(graph)
    launches = [i for i in plan.instructions if hasattr(i, "reads") and i.node == "y"]
    (placed,) = [t for t in plan.tensors if t.name == "c"]
    span = (placed.buffer, placed.offset, placed.offset + placed.bytes)
    assert all((r.buffer, r.low, r.high) != span for i in launches for r in i.reads)


def test_nan_in_an_operand_spoils_its_row_or_column_only() -> None:
    rng = np.random.default_rng(10)
    a, b = draw(rng, (4, 6), "f32"), draw(rng, (6, 5), "f32")
    a[2, 3] = np.nan
    b[1, 4] = np.nan
    found = run(graph_of({"a": ((4, 6), "f32"), "b": ((6, 5), "f32")}), {"a": a, "b": b})["y"]
    expected = np.zeros((4, 5), bool)
    expected[2], expected[:, 4] = True, True
    assert np.array_equal(np.isnan(found), expected)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_half_precision_sums_in_f32(dtype: str) -> None:
    """4096 ones and many small numbers: a sum in half precision would lose all but the first."""
    k = 4096
    a, b = to_dtype(np.ones((1, k)), dtype), to_dtype(np.full((k, 1), 0.25), dtype)
    assert wide(check({"a": a, "b": b})) == k / 4
    b[0] = 2048
    assert wide(check({"a": a, "b": b}, out_dtype="f32")) == 2048 + (k - 1) / 4


def test_f64_sums_in_f64() -> None:
    a = to_dtype([[1.0, 2.0**-40, -1.0]], "f64")
    b = to_dtype([[1.0], [1.0], [1.0]], "f64")
    assert check({"a": a, "b": b}) == 2.0**-40


@pytest.mark.parametrize("out", ["f16", "bf16", "f64"])
def test_results_past_the_range_are_infinite(out: str) -> None:
    a, b = to_dtype([[3e20, 1.0]], "f32"), to_dtype([[1e18, -1e18], [0.0, 0.0]], "f32")
    found = run(graph_of({"a": ((1, 2), "f32"), "b": ((2, 2), "f32")}, out_dtype=out),
                {"a": a, "b": b})["y"]  # fmt: skip
    if out == "f16":
        assert wide(found).tolist() == [[np.inf, -np.inf]]
    else:
        assert np.allclose(wide(found), [[3e38, -3e38]], rtol=2 * UNIT["bf16"])


def test_the_same_tensor_may_be_every_operand() -> None:
    rng = np.random.default_rng(11)
    x = draw(rng, (6, 6), "f64")
    graph = gx.Graph()
    graph.input("x", (6, 6), "f64")
    graph.output(graph.gemm("x", "x", "x", trans_b=True, beta=2))
    found = run(graph, {"x": x})["gemm"]
    assert np.allclose(found, x @ x.T + 2 * x, rtol=1e-13)


@pytest.mark.parametrize("shape", [(257, 130, 65), (64, 512, 33)])
@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_sizes_that_are_shared_among_cores(shape: tuple[int, int, int], dtype: str) -> None:
    m, k, n = shape
    rng = np.random.default_rng(12)
    a, b = draw(rng, (3, m, k), dtype), draw(rng, (3, n, k), dtype)
    check({"a": a, "b": b, "c": draw(rng, (m, n), dtype)}, trans_b=True, alpha=1 / k, beta=0.5)
    check({"a": a, "b": b[:1]}, trans_b=True, alpha=1 / k)


extents = st.integers(1, 6)


@st.composite
def calls(draw_from: st.DrawFn) -> tuple[dict[str, Array], dict[str, Any]]:
    pick = lambda *options: draw_from(st.sampled_from(options))  # noqa: E731
    batch = tuple(draw_from(st.lists(extents, max_size=3)))
    part = lambda: tuple(pick(1, e) for e in batch[pick(0, len(batch)) :])  # noqa: E731
    m, n, k = (draw_from(extents) for _ in range(3))
    trans_a, trans_b = pick(False, True), pick(False, True)
    dtype, out = pick(*DTYPES), pick(None, *DTYPES)
    rng = np.random.default_rng(draw_from(st.integers(0, 2**32 - 1)))
    arrays = {
        "a": draw(rng, (*part(), *((k, m) if trans_a else (m, k))), dtype),
        "b": draw(rng, (*part(), *((n, k) if trans_b else (k, n))), dtype),
    }
    attrs: dict[str, Any] = {"trans_a": trans_a, "trans_b": trans_b, "out_dtype": out,
                             "alpha": pick(1.0, -0.5, 0, 1 / 3)}  # fmt: skip
    of_addends = pick(dtype, out or dtype)
    if pick(False, True):
        arrays["bias"] = draw(rng, (n,), of_addends)
    if pick(False, True):
        shape = (*np.broadcast_shapes(arrays["a"].shape[:-2], arrays["b"].shape[:-2]), m, n)
        if pick(False, True):
            shape = tuple(pick(1, e) for e in shape)[pick(0, len(shape) - 1) :]
        arrays["c"] = draw(rng, shape, of_addends)
        attrs["beta"] = pick(1.0, 0, -2.5)
    return arrays, attrs


@settings(max_examples=120, deadline=None)
@given(calls())
def test_any_call(call: tuple[dict[str, Array], dict[str, Any]]) -> None:
    arrays, attrs = call
    check(arrays, **attrs)


# Factors --------------------------------------------------------------------------------------


def scaled(dtype: str, alpha: float, a: float, b: float, **more: Any) -> Array:
    graph = gx.Graph()
    graph.input("a", (2, 3), dtype)
    graph.input("b", (3, 5), dtype)
    inputs = {"a": np.full((2, 3), a, gx.DType(dtype).numpy()),
              "b": np.full((3, 5), b, gx.DType(dtype).numpy())}  # fmt: skip
    if "c" in more:
        inputs["c"] = np.full((2, 5), more.pop("c"), gx.DType(dtype).numpy())
        graph.input("c", (2, 5), dtype)
        more["c"] = "c"
    graph.output(y=graph.gemm("a", "b", alpha=alpha, **more))
    with gx.compile(graph, device="cpu") as exe:
        return exe.run(**inputs)["y"].astype(np.float64)


@pytest.mark.parametrize(
    ("alpha", "a", "b", "expected"),
    [
        (1e30, 1e20, 1e-30, 3e20),  # alpha · a would be infinite
        (1e-30, 1e-20, 1e30, 3e-20),  # ... or zero
        (1e30, 1e-30, 1e20, 3e20),
        (-2.0, 3.0, 5.0, -90.0),
    ],
)
def test_alpha_multiplies_the_sums(alpha: float, a: float, b: float, expected: float) -> None:
    assert np.allclose(scaled("f32", alpha, a, b), expected, rtol=1e-6)
    assert np.allclose(scaled("f64", alpha, a, b), expected, rtol=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_alpha_zero_reads_neither_a_nor_b(dtype: str, bad: float) -> None:
    assert (scaled(dtype, 0.0, bad, bad) == 0).all()
    assert (scaled(dtype, 0.0, bad, 1.0, c=3.0) == 3).all()
    assert (scaled(dtype, 0.0, 1.0, bad, c=3.0, beta=0.5) == 1.5).all()


def test_a_factor_that_is_infinite_in_the_type_of_the_sums_is_an_error() -> None:
    with pytest.raises(gx.GraphError, match=r"alpha: 1e\+39 is infinite in f32"):
        scaled("f32", 1e39, 1.0, 1.0)
    with pytest.raises(gx.GraphError, match=r"beta: -1e\+300 is infinite in f32"):
        scaled("f16", 1.0, 1.0, 1.0, c=1.0, beta=-1e300)
    assert np.allclose(scaled("f64", 1e39, 1.0, 1.0), 3e39)
