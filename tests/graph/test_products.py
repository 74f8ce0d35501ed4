"""`@` in expressions: which gemm and which map a node stands for."""

from typing import Any

import pytest

import graphexec as gx
from graphexec.base.grammar import Binary, Expression, Name, parse
from graphexec.base.tensor import DType, TensorType
from graphexec.frontend.load import loads
from graphexec.graph.infer import infer
from graphexec.ir.graph import Graph, Node
from graphexec.ir.op import Attribute, Attrs, Op, OpError, Types
from graphexec.ir.registry import known_ops
from graphexec.ir.typed import TypedNode


class Map(Op):
    """As much of the op as inference needs."""

    name = "map"
    doc = "An expression."
    operands = ()
    attributes = (
        Attribute("expr", "expression", "", "what is computed"),
        Attribute("dtype", "dtype", None, "of the result"),
    )

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        shapes = {t.shape for t in types.values()}
        if len(shapes) > 1:
            raise OpError(f"shapes {sorted(shapes)}", list(types)[-1])
        return TensorType(*shapes, attrs["dtype"] or DType.F32)


OPS = {**known_ops(), "map": Map()}
HEAD = """\
version: 1
dims: {S: 4}
inputs:
  x: {shape: [4, 6], dtype: f32}
  c: {shape: [4, 8], dtype: f32}
  w: {shape: [6, 8], dtype: f32}
  h.w: {shape: [8, 6], dtype: f32}
nodes:
"""


def graph(*nodes: str) -> Graph:
    return loads(HEAD + "".join(f"  {node}\n" for node in nodes) + "outputs: [y]\n", ops=OPS)


def typed(*nodes: str) -> list[TypedNode]:
    return list(infer(graph(*nodes)).nodes)


def told(*nodes: str) -> str:
    with pytest.raises(gx.GraphError) as caught:
        infer(graph(*nodes))
    return str(caught.value)


def renamed(tree: Expression, product: str) -> Expression:
    """The tree in which `p` stands for the product."""
    assert isinstance(tree, Binary)
    sides = [Name(product) if side == Name("p") else side for side in (tree.left, tree.right)]
    return Binary(tree.operator, *sides)


def test_a_product_alone_is_a_gemm() -> None:
    (node,) = typed("y: x @ w")
    assert (node.name, node.op.name, node.operands) == ("y", "gemm", {"a": "x", "b": "w"})
    assert not node.attrs["trans_a"]
    assert not node.attrs["trans_b"]


@pytest.mark.parametrize(
    ("text", "operands", "turned", "shape"),
    [
        ("x @ T(x)", {"a": "x", "b": "x"}, (False, True), (4, 4)),
        ("T(x) @ x", {"a": "x", "b": "x"}, (True, False), (6, 6)),
        ("T(w) @ T(x)", {"a": "w", "b": "x"}, (True, True), (8, 4)),
    ],
)
def test_turned_sides(
    text: str, operands: dict[str, str], turned: tuple[bool, bool], shape: tuple[int, ...]
) -> None:
    (node,) = typed(f"y: {text}")
    assert node.operands == operands
    assert (node.attrs["trans_a"], node.attrs["trans_b"]) == turned
    assert node.type.shape == shape


def test_what_is_around_a_product_is_a_map() -> None:
    gemm, rest = typed("y: c * S + x @ w")
    assert (gemm.name, gemm.operands) == ("y.gemm", {"a": "x", "b": "w"})
    assert (rest.name, rest.op.name) == ("y", "map")
    assert rest.operands == {"c": "c", "y.gemm": "y.gemm"}
    assert rest.attrs["expr"] == renamed(parse("c * 4 + p"), "y.gemm")


def test_an_operand_of_both() -> None:
    text = HEAD.replace("w: {shape: [6, 8]", "w: {shape: [6, 6]") + "  y: x @ w - x\noutputs: [y]\n"
    gemm, rest = infer(loads(text, ops=OPS)).nodes
    assert gemm.operands == {"a": "x", "b": "w"}
    assert rest.operands == {"y.gemm": "y.gemm", "x": "x"}


def test_names_of_its_own_shapes_and_after() -> None:
    nodes = typed("z: {op: copy, x: x}", "y: {op: map, expr: c @ u, with: {u: h.w}, after: [z], "
                  "shape: [S, 6]}")  # fmt: skip
    assert [n.name for n in nodes] == ["z", "y"]
    assert nodes[1].operands == {"a": "c", "b": "h.w"}
    assert nodes[1].after == ("z",)
    cast = typed("z: {op: copy, x: x}", "y: {op: map, expr: x @ w, dtype: f16, after: [z]}")
    assert [(n.name, n.type.dtype, n.after) for n in cast[1:]] == [
        ("y.gemm", DType.F32, ("z",)), ("y", DType.F16, ()),
    ]  # fmt: skip


def test_the_graph_keeps_the_expression() -> None:
    first = graph("y: c + x @ w")
    infer(first)
    assert first.nodes == {"y": Node("y", "map", {"c": "c", "x": "x", "w": "w"},
                                     {"expr": "c + x @ w"})}  # fmt: skip
    assert loads(first.to_yaml(), ops=OPS) == first


def test_in_code() -> None:
    g = Graph("g", ops=OPS)
    x: Any = g.input("x", (4, 6))
    w: Any = g.input("w", (8, 6))
    g.output(y=x @ w.T)
    (node,) = infer(g).nodes
    assert node.op.name == "gemm"
    assert node.type.shape == (4, 8)


def test_errors_of_the_gemm_point_into_the_expression() -> None:
    message = told("y: c * 2 + x @ T(w)")
    assert "gemm 'y.gemm': the extents K differ: 6 in a, 8 in b" in message
    assert "<text>:9:20" in message
    assert "help: w without T() would fit" in message
    assert "help: T(x) would fit" in told("y: x @ x")


def test_errors_of_the_map_point_at_the_product() -> None:
    message = told("y: x + x @ w")
    assert "map 'y': shapes" in message
    assert "<text>:9:10" in message
    assert "^^^^^" in message


def test_a_name_that_is_taken() -> None:
    message = told("y.gemm: {op: copy, x: x}", "z: {op: copy, x: y}", "y: c + x @ w")
    assert "the product in 'y' makes a tensor 'y.gemm', and there is one of that name" in message
    assert "declared at <text>:9:3" in message
    assert message.count("error") == 1
    assert infer(graph("y.gemm: {op: copy, x: x}", "y: x @ w"))  # nothing is made beside y
