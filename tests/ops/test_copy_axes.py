"""`axes` of copy: in YAML, through dims that change, on the CPU and the emulator, in rewrites."""

from typing import Any

import numpy as np
import pytest
from exact import draw, run
from kernel_harness import Applied, Harness, tensor

import graphexec as gx
from graphexec.frontend.load import loads
from graphexec.graph.infer import infer
from graphexec.ir.axes import parse_axes
from graphexec.ops.copy import OP as COPY

HEADS = """\
version: 1
name: heads
dims: {B: 2, S: 6, H: 4}
consts: {D: 8, half: 0.5}
inputs:
  x: {shape: [B, S, H * D], dtype: f32}
nodes:
  h: {op: copy, x: x, axes: "B S (H D) -> B H S D"}
outputs: {h: h}
"""


def mistakes(text: str) -> list[tuple[int, int, str]]:
    with pytest.raises(gx.GraphError) as caught:
        infer(loads(text))
    return [(d.mark.line, d.mark.column, d.message) for d in caught.value.diagnostics]


def test_yaml_and_builder_agree():
    graph = gx.Graph("heads", dims={"B": 2, "S": 6, "H": 4}, consts={"D": 8, "half": 0.5})
    graph.input("x", ("B", "S", "H * D"))
    graph.output(h=graph.copy("x", axes="B S (H D) -> B H S D", name="h"))
    assert loads(HEADS) == graph
    assert loads(graph.to_yaml()) == graph


def test_plain_text_needs_no_quotes():
    plain = HEADS.replace('"B S (H D) -> B H S D"', "B S (H D) -> B H S D")
    assert loads(plain) == loads(HEADS)
    ellipsis = HEADS.replace('"B S (H D) -> B H S D"', "… (H D) -> H … D")
    assert infer(loads(ellipsis)).types()["h"].shape == (4, 2, 6, 8)


def test_dims_stay_symbolic():
    graph = loads(HEADS)
    assert infer(graph).types()["h"].shape == (2, 4, 6, 8)
    assert infer(graph.with_dims(S=9, H=2)).types()["h"].shape == (2, 2, 9, 8)


def test_a_run_of_another_size():
    with gx.compile(loads(HEADS), device="cpu") as exe:
        for size in (6, 3):
            x = draw(np.random.default_rng(size), (2, size, 32), "f32")
            found = exe.run(x=x)["h"]
            expected = x.reshape(2, size, 4, 8).transpose(0, 2, 1, 3)
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("axes", "column", "message"),
    [
        ("B S (H Q) -> B H S Q", 36, "unknown name 'Q'"),
        ("B S (H D -> B H S D", 33, "'(' is not closed"),
        ("B S (H D) -> B H D", 31, "'S' stands only on the left"),
        ("B S (H half) -> B H S half", 36, "'half' is 0.5; an axis needs an integer of at least 1"),
    ],
)
def test_mistakes_point_into_the_text(axes, column, message):
    text = HEADS.replace('"B S (H D) -> B H S D"', axes)
    assert mistakes(text) == [(8, column, message)]


@pytest.mark.parametrize("value", ["[0, 2, 1]", "7", '""', "{B: S}"])
def test_only_a_text(value):
    [(line, column, message)] = mistakes(HEADS.replace('"B S (H D) -> B H S D"', value))
    assert (line, column) == (8, 29)
    assert message.startswith("expected axes such as B S (H D) -> B H S D for 'axes', found")


def test_a_shape_that_does_not_fit_is_located():
    text = HEADS.replace("shape: [B, S, H * D]", "shape: [B, S, 40]")
    message = (
        "copy 'h': axis 2 of [2, 6, 40] has 40 elements, but `axes` says (H D) = 4 · 8 = 32"
    )  # fmt: skip
    assert mistakes(text) == [(8, 29, message)]


@pytest.mark.parametrize("other", ["permute: [0, 1]", "reshape: [-1]"])
def test_not_with_permute_or_reshape(other):
    [(_, _, message)] = mistakes(HEADS.replace("axes:", f"{other}, axes:"))
    key = other.partition(":")[0]
    assert message == f"copy 'h': `axes` and `{key}` exclude one another"


def test_a_wrong_dim_is_told_once():
    text = HEADS.replace("H: 4}", "H: 0}").replace("H * D", "32")
    with pytest.raises(gx.GraphError) as caught:
        loads(text)
    assert len(caught.value.diagnostics) == 1


@pytest.fixture(scope="module")
def harness() -> Harness:
    return Harness.open()


@pytest.mark.parametrize(
    ("axes", "shape", "slices"),
    [
        ("B S (H D) -> B H S D", (2, 6, 32), None),
        ("B S (H D) -> (S B) D H", (2, 6, 32), None),
        ("B S … -> … S B", (2, 6, 3, 5), None),
        ("B (S H) -> B S H", (2, 30), {1: (3, 27, 1)}),
        ("B (S H) -> H S 1 B", (2, 48), {1: (None, None, 2)}),
    ],
)
@pytest.mark.parametrize("to", ["f32", "f16"])
def test_numbers(harness: Harness, axes: str, shape: Any, slices: Any, to: str):
    names = {"B": 2, "S": 6, "H": 4, "D": 8}
    x = draw(np.random.default_rng(0), shape, "f32")
    graph = gx.Graph("g", dims=names)
    graph.input("x", shape)
    copied = graph.copy("x", axes=axes, slice=slices, dtype=to)
    graph.output(y=copied)
    whole = x[:, slice(*slices[1])] if slices else x
    parsed = parse_axes(axes, names)
    split, order = parsed.moved(whole.shape)
    expected = whole.reshape(split).transpose(order)
    expected = expected.reshape(parsed.joined(expected.shape)).astype(to.replace("f", "float"))
    np.testing.assert_array_equal(run(graph, {"x": x})["y"], expected)

    attrs = {"axes": parsed, "slice": slices, "dtype": gx.DType(to)}
    applied = Applied(COPY, {"x": tensor("f32", *shape)}, **attrs)
    np.testing.assert_array_equal(applied.run(harness, x=x), expected)
    reference = applied.reference(x=x)
    np.testing.assert_array_equal(reference.astype(expected.dtype), expected)


def commands(graph: gx.Graph) -> list[str]:
    plan = gx.make_plan(graph, device="hip", resident=True)
    return [i.command for i in plan.instructions if hasattr(i, "command")]


def test_axes_that_stay_in_place_move_nothing():
    graph = gx.Graph("g", dims={"B": 2, "S": 3, "H": 4})
    graph.input("x", ("B", "S", "H"))
    flat = graph.copy("x", axes="B S H -> (B S) 1 H")
    graph.output(y=graph.softmax(flat))
    assert commands(graph) == ["softmax"]


def test_a_gemm_reads_split_heads_as_strides():
    graph = gx.Graph("g", dims={"B": 2, "S": 16, "H": 4, "D": 8})
    graph.input("q", ("B", "S", "H * D"))
    heads = graph.copy("q", axes="B S (H D) -> B H S D")
    graph.output(y=graph.gemm(heads, heads, trans_b=True))
    assert commands(graph) == ["gemm"]


def test_a_gemm_writes_where_joined_heads_belong():
    graph = gx.Graph("g", dims={"B": 2, "S": 16, "H": 4, "D": 8})
    graph.input("p", ("B", "H", "S", "S"))
    graph.input("v", ("B", "H", "S", "D"))
    context = graph.gemm("p", "v")
    graph.output(y=graph.copy(context, axes="B H S D -> B S (H D)"))
    assert commands(graph) == ["gemm"]
    rng = np.random.default_rng(1)
    p, v = draw(rng, (2, 4, 16, 16), "f32"), draw(rng, (2, 4, 16, 8), "f32")
    expected = (p @ v).transpose(0, 2, 1, 3).reshape(2, 16, 32)
    np.testing.assert_allclose(run(graph, {"p": p, "v": v})["y"], expected, 1e-4, 1e-4)


def test_a_rearranged_cast_is_not_folded_into_the_gemm():
    graph = gx.Graph("g", dims={"S": 16, "H": 4, "D": 8})
    graph.input("a", ("S", 32), "f16")
    graph.input("b", (32, "H * D"), "f16")
    product = graph.gemm("a", "b")
    graph.output(y=graph.copy(product, axes="S (H D) -> H S D", dtype="f32"))
    assert commands(graph) == ["gemm", "copy"]
