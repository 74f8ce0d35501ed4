"""infer: concrete shapes and dtypes for every tensor, and all independent mistakes at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphexec as gx
from graphexec.base.tensor import DType, TensorType
from graphexec.graph.infer import infer
from graphexec.ir.graph import Node
from graphexec.ir.op import Attribute, Attrs, Op, Operand, OpError


def base(**more: Any) -> gx.Graph:
    graph = gx.Graph("g", dims={"N": 4, "M": 6}, consts={"half": "N / 2", "r": "N ** -0.5"}, **more)
    graph.input("x", ("N", "M"))
    return graph


def messages(graph: gx.Graph) -> list[str]:
    with pytest.raises(gx.GraphError) as caught:
        infer(graph)
    return [d.message for d in caught.value.diagnostics]


class Probe(Op):
    """An op that records the arguments of its methods."""

    name = "probe"
    doc = "Every kind of attribute."
    operands = (Operand("x", "any"), Operand("y", "another", optional=True))
    attributes = (
        Attribute("flag", "bool", False, ""),
        Attribute("count", "int", 3, ""),
        Attribute("factor", "number", 1.0, ""),
        Attribute("type", "dtype", None, ""),
        Attribute("mode", "choice", "fast", "", ("fast", "slow")),
        Attribute("order", "axes", None, ""),
        Attribute("extents", "dims", None, ""),
        Attribute("parts", "slices", None, ""),
    )

    def infer(self, types: Mapping[str, TensorType], attrs: Attrs) -> TensorType:
        if attrs["count"] < 0:
            raise OpError("count is negative", "count", ("a note",), "a help")
        return types["x"]


def probe(**attrs: Any) -> Mapping[str, Any]:
    graph = base(ops={"probe": Probe()})
    graph.output(graph.node("probe", "x", name="p", **attrs))
    return infer(graph).nodes[0].attrs


# Types ----------------------------------------------------------------------------------------


def test_extents_are_evaluated() -> None:
    graph = base()
    graph.input("y", ("N * M // 5", "half", 3, "max(N, M) - 1"), "bf16")
    graph.output("y", "x")
    typed = infer(graph)
    assert typed.inputs["x"] == TensorType((4, 6), DType.F32)
    assert typed.inputs["y"] == TensorType((4, 2, 3, 5), DType.BF16)
    assert all(type(e) is int for e in typed.inputs["y"].shape)


def test_what_is_left() -> None:
    graph = base()
    graph.softmax("x", name="s", after=["x"])
    graph.output(a="s", b="x")
    typed = infer(graph)
    assert (typed.name, typed.dims, typed.outputs) == ("g", {"N": 4, "M": 6}, {"a": "s", "b": "x"})
    (node,) = typed.nodes
    assert (node.name, node.op, node.operands, node.after) == (
        "s",
        graph.ops["softmax"],
        {"x": "x"},
        ("x",),
    )
    assert node.attrs == {"axis": -1, "scale": 1.0, "causal": False}
    assert node.line is None
    assert typed.types() == {"x": typed.inputs["x"], "s": TensorType((4, 6), DType.F32)}


def test_lines_of_a_file_are_kept() -> None:
    graph = gx.loads(
        "version: 1\ninputs: {x: {shape: [2], dtype: f32}}\n"
        "nodes:\n  y: {op: copy, x: x}\noutputs: [y]\n"
    )
    assert infer(graph).nodes[0].line == 4


def test_nodes_come_in_a_topological_order() -> None:
    graph = gx.Graph("g")
    graph.input("x", (2,))
    graph.add(Node("c", "copy", {"x": "b"}, after=("d",)))
    graph.add(Node("b", "copy", {"x": "a"}))
    graph.add(Node("a", "copy", {"x": "x"}))
    graph.add(Node("d", "copy", {"x": "x"}))
    graph.output("c")
    assert [n.name for n in infer(graph).nodes] == ["a", "d", "b", "c"]


def test_an_order_that_is_right_is_kept() -> None:
    graph = base()
    for name in ("z", "a", "m"):
        graph.copy("x", name=name)
    graph.output("z")
    assert [n.name for n in infer(graph).nodes] == ["z", "a", "m"]


def test_a_cycle_that_was_added_is_found() -> None:
    graph = base()
    graph.add(Node("a", "copy", {"x": "b"}))
    graph.add(Node("b", "copy", {"x": "a"}))
    graph.outputs["a"] = "a"
    assert messages(graph) == ["the graph has a cycle: a → b → a"]


# Attributes -----------------------------------------------------------------------------------


def test_every_attribute_is_there_with_its_default() -> None:
    assert probe() == {
        "flag": False, "count": 3, "factor": 1.0, "type": None, "mode": "fast", "order": None,
        "extents": None, "parts": None,
    }  # fmt: skip


@pytest.mark.parametrize(("given", "value"), [
    ({"flag": True}, True),
    ({"count": "N - 1"}, 3),
    ({"count": "M / 3"}, 2),
    ({"factor": "r"}, 0.5),
    ({"factor": 3}, 3),
    ({"factor": "1 / 3"}, 1 / 3),
    ({"type": "bf16"}, DType.BF16),
    ({"mode": "slow"}, "slow"),
    ({"order": (1, "N - 4")}, (1, 0)),
    ({"extents": ["M", -1, "half"]}, (6, -1, 2)),
    ({"parts": {0: [None, "N - 1"], "-half + 1": [1, None, 2], 5: [3]}},
     {0: (None, 3, None), -1: (1, None, 2), 5: (3, None, None)}),
    ({"order": []}, ()),
])  # fmt: skip
def test_attributes_are_evaluated(given: dict[str, Any], value: Any) -> None:
    (name,) = given
    found = probe(**given)[name]
    assert found == value
    assert type(found) is type(value)


BAD_ATTRIBUTES: list[tuple[dict[str, Any], str]] = [
    ({"flag": "true"}, "flag: expected true or false, found 'true'"),
    ({"flag": 0}, "flag: expected true or false, found 0"),
    ({"count": True}, "count: expected an integer, found True"),
    ({"count": 1.5}, "count: expected an integer, found 1.5"),
    ({"count": "N / 3"}, "count: "),
    ({"count": "Q"}, "count: "),
    ({"count": [1]}, "count: expected an integer, found [1]"),
    ({"factor": "1 / 0"}, "factor: "),
    ({"factor": float("inf")}, "factor: "),
    ({"factor": "N ** N ** N ** N"}, "factor: "),
    ({"factor": False}, "factor: expected a number, found False"),
    ({"type": "f8"}, "type: unknown dtype 'f8'; expected f16, bf16, f32, f64, i8, "),
    ({"mode": "medium"}, "mode: expected one of fast, slow; found 'medium'"),
    ({"mode": ["fast"]}, "mode: expected one of fast, slow; found ['fast']"),
    ({"type": ["f16"]}, "type: unknown dtype"),
    ({"order": 1}, "order: expected a list, found 1"),
    ({"order": [0.5]}, "order: expected an integer, found 0.5"),
    ({"extents": ["M / 4"]}, "extents: "),
    ({"parts": [0, 1]}, "parts: expected a mapping from axis to [start, stop, step], found [0, 1]"),
    ({"parts": {0: []}}, "parts: axis 0: expected [start, stop, step], found []"),
    ({"parts": {"a": [0]}}, "parts: "),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(BAD_ATTRIBUTES)))
def test_bad_attributes(case: int) -> None:
    attrs, message = BAD_ATTRIBUTES[case]
    with pytest.raises(gx.GraphError) as caught:
        probe(**attrs)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.message.startswith(f"probe 'p': {message}")


def test_all_bad_attributes_of_a_node_are_reported() -> None:
    with pytest.raises(gx.GraphError) as caught:
        probe(flag=1, count=0.5, mode="x")
    assert len(caught.value.diagnostics) == 3


def test_an_ops_own_error_is_passed_on_whole() -> None:
    with pytest.raises(gx.GraphError) as caught:
        probe(count=-1)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.message == "probe 'p': count is negative"
    assert (diagnostic.notes, diagnostic.help) == (("a note",), "a help")


# Mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "message"), [
    ((0,), "input 'y': an extent must be at least 1, found 0"),
    ((-3,), "input 'y': an extent must be at least 1, found -3"),
    (("N - M",), "input 'y': an extent must be at least 1, found N - M = -2"),
    ((2.5,), "input 'y': extent 0 of the shape: "),
    ((True,), "input 'y': extent 0 of the shape: expected an integer, found True"),
    ((3, "Q"), "input 'y': extent 1 of the shape: "),
    (("M / 4",), "input 'y': extent 0 of the shape: "),
    (("r",), "input 'y': extent 0 of the shape: "),
    ((None,), "input 'y': extent 0 of the shape: expected an integer, found None"),
    (("10 ** 18", 2), "input 'y': f32[1000000000000000000, 2] has 8000000000000000000 bytes"),
    ((1,) * 9, "input 'y': f32[1, 1, 1, 1, 1, 1, 1, 1, 1] has 9 axes; at most 8 are supported"),
])  # fmt: skip
def test_bad_shapes(shape: tuple[Any, ...], message: str) -> None:
    graph = base()
    graph.input("y", shape)
    graph.output("x")
    if "has 8000000000000000000 bytes" in message:  # which fits
        assert infer(graph).inputs["y"].nbytes == 8 * 10**18
        graph.input("z", ("10 ** 18", 4))
        message = ("input 'z': f32[1000000000000000000, 4] has 16000000000000000000 bytes, "
                   "more than fit into int64")  # fmt: skip
    (found,) = messages(graph)
    assert found.startswith(message)


def test_a_result_past_int64_is_refused() -> None:
    graph = gx.Graph("g")
    graph.input("a", (2**31, 1))
    graph.output(graph.gemm("a", "a", trans_b=True, name="big"))
    (found,) = messages(graph)
    assert found.startswith(
        "node 'big': f32[2147483648, 2147483648] has 18446744073709551616 bytes"
    )


@pytest.mark.parametrize(("dtype", "help"), [("f12", "did you mean"), ("float32", ""), ("", "")])
def test_bad_dtypes(dtype: str, help: str) -> None:
    graph = base()
    graph.input("y", (1,), dtype)
    graph.output("x")
    with pytest.raises(gx.GraphError) as caught:
        infer(graph)
    (diagnostic,) = caught.value.diagnostics
    known = "f16, bf16, f32, f64, i8, u8, i32, i64 or bool"
    assert diagnostic.message == f"input 'y': unknown dtype '{dtype}'; expected {known}"
    assert help in diagnostic.help


def test_bad_consts() -> None:
    graph = gx.Graph("g", dims={"N": 4}, consts={"c": "N + Q"})
    graph.input("x", (1,))
    graph.output("x")
    (found,) = messages(graph)
    assert found.startswith("consts: const 'c'")


def test_asserted_shapes() -> None:
    graph = base()
    graph.softmax("x", name="good", shape=("N", "M"))
    graph.output("good")
    infer(graph)
    graph.softmax("x", name="bad", shape=("M", "N"))
    assert messages(graph) == ["node 'bad': shape is stated as [6, 4], but it is [4, 6]"]
    other = base()
    other.output(other.softmax("x", name="s", shape=("N", "Q")))
    (found,) = messages(other)
    assert found.startswith("node 's': extent 1 of the shape: ")


def test_a_graph_needs_outputs() -> None:
    assert messages(base()) == ["graph 'g' has no outputs"]


def test_independent_mistakes_are_reported_together_and_their_consequences_are_not() -> None:
    graph = base()
    graph.input("bad", ("Q",))
    graph.input("worse", (1,), "f8")
    graph.softmax("bad", name="after_bad")
    graph.gemm("x", "x", name="mismatch")
    graph.softmax("mismatch", name="after_mismatch")
    graph.copy("after_mismatch", permute=[7], name="after_that")
    graph.softmax("x", axis=2, name="axis")
    graph.copy("x", name="fine")
    found = messages(graph)
    assert [m.split(":")[0] for m in found] == [
        "input 'bad'", "input 'worse'", "gemm 'mismatch'", "softmax 'axis'",
        "graph 'g' has no outputs",
    ]  # fmt: skip


def test_places_in_the_file() -> None:
    text = (
        "version: 1\n"
        "inputs: {a: {shape: [2, 3], dtype: f32}, b: {shape: [4, 5], dtype: f32}}\n"
        "nodes:\n"
        "  y: {op: gemm, a: a, b: b}\n"
        "outputs: [y]\n"
    )
    with pytest.raises(gx.GraphError) as caught:
        infer(gx.loads(text, "g.yaml"))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.mark is not None
    assert (diagnostic.mark.line, diagnostic.mark.column) == (
        4,
        text.splitlines()[3].index("b: b") + 4,
    )
    assert "'b' is f32[4, 5] (input, g.yaml:2)" in diagnostic.notes
    assert "--> g.yaml:4:" in str(caught.value)


def test_weights(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.zeros((4, 6), np.float32))
    graph = base(folder=tmp_path)
    graph.weight("w", "w.npy", shape=("N", "M"), dtype="f32")
    graph.output(graph.gemm("x", "w", trans_b=True))
    typed = infer(graph)
    assert typed.weights["w"].type == TensorType((4, 6), DType.F32)
    assert typed.weights["w"].path == (tmp_path / "w.npy").resolve()
    graph.weight("v", "w.npy", shape=(6, 4))
    graph.weight("u", "missing.npy")
    graph.weight("t", "w.npy", dtype="f8")
    found = messages(graph)
    assert found[0] == "weight 'v': shape is stated as [6, 4], but it is [4, 6]"
    assert found[1].startswith("weight 'u': there is no weights file 'missing.npy'")
    assert found[2].startswith("weight 't': unknown dtype 'f8'")
    assert len(found) == 3


def test_a_chain_of_ten_thousand_nodes() -> None:
    graph = gx.Graph("g")
    graph.input("n0", (1,))
    for i in reversed(range(10_000)):
        graph.add(Node(f"n{i + 1}", "copy", {"x": f"n{i}"}))
    graph.output("n10000")
    assert [n.name for n in infer(graph).nodes] == [f"n{i + 1}" for i in range(10_000)]
