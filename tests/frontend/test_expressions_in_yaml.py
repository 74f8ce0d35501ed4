"""Nodes that are expressions: what their names mean, where errors point, and YAML's traps."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import graphexec as gx
from graphexec.base.diagnostics import Diagnostic
from graphexec.base.grammar import Binary, Name, Number, parse
from graphexec.base.tensor import DType, TensorType
from graphexec.frontend.load import loads
from graphexec.frontend.schema import schema
from graphexec.graph.infer import infer
from graphexec.ir.graph import Graph, Node
from graphexec.ir.op import Attribute, Attrs, Op, Types
from graphexec.ops.copy import OP as COPY


class Map(Op):
    """As much of the op as the reader needs."""

    name = "map"
    doc = "An expression."
    operands = ()
    attributes = (
        Attribute("expr", "expression", "", "what is computed"),
        Attribute("dtype", "dtype", None, "of the result"),
    )

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        return next(iter(types.values()), TensorType((1,), DType.F32))


OPS = {"map": Map(), "copy": COPY}
HEAD = """\
version: 1
name: g
dims: {S: 4, D: 8}
consts: {eps: 1e-5}
inputs:
  x: {shape: [4], dtype: f32}
  attn: {shape: [4], dtype: f32}
  a-b: {shape: [4], dtype: f32}
  trunk.h: {shape: [4], dtype: f32}
  a: {shape: [4], dtype: f32}
  b: {shape: [4], dtype: f32}
  D: {shape: [4], dtype: f32}
  pi: {shape: [4], dtype: f32}
nodes:
"""
FIRST = HEAD.count("\n") + 1  # the line of the first node


def graph(*nodes: str) -> Graph:
    return loads(HEAD + "".join(f"  {node}\n" for node in nodes) + "outputs: [y]\n", ops=OPS)


def faults(*nodes: str) -> list[Diagnostic]:
    with pytest.raises(gx.GraphError) as caught:
        graph(*nodes)
    return caught.value.diagnostics


def fault(*nodes: str) -> Diagnostic:
    (only,) = faults(*nodes)
    return only


def shown(found: Diagnostic) -> str:
    """The characters that a diagnostic points at."""
    assert found.mark is not None
    assert found.source is not None
    line = found.source.line(found.mark.line)
    assert line is not None
    return line[found.mark.column - 1 : found.mark.column - 1 + found.mark.length]


# Reading ----------------------------------------------------------------------------------


def test_a_string_is_a_map() -> None:
    node = graph("y: x + attn * S").nodes["y"]
    assert node == Node("y", "map", {"x": "x", "attn": "attn"}, {"expr": "x + attn * S"})
    assert shown_at(node, "attn") == (FIRST, 10, 4)


def shown_at(node: Node, key: str) -> tuple[int, int, int]:
    mark = node.marks[key]
    return (mark.line, mark.column, mark.length)


def test_a_mapping_renames_and_casts() -> None:
    node = graph("y: {op: map, expr: 'max(u, v, x)', with: {u: a-b, v: trunk.h}, dtype: f16, "
                 "shape: [S], after: [a]}").nodes["y"]  # fmt: skip
    assert node.operands == {"u": "a-b", "v": "trunk.h", "x": "x"}
    assert node.attrs == {"expr": "max(u, v, x)", "dtype": "f16"}
    assert (node.shape, node.after) == (("S",), ("a",))


def test_names_of_functions_are_names_before_anything_but_a_bracket() -> None:
    text = HEAD.replace("attn", "exp") + "  y: exp(exp) * exp\noutputs: [y]\n"
    assert loads(text, ops=OPS).nodes["y"].operands == {"exp": "exp"}


def test_the_op_gets_numbers_for_dims_consts_and_constants() -> None:
    typed = infer(graph("y: x * S + eps - inf", "z: x + pi"))
    by_name = {n.name: n.attrs["expr"] for n in typed.nodes}
    assert by_name["y"] == Binary(
        "-", Binary("+", Binary("*", Name("x"), Number(4)), Number(1e-5)), Number(float("inf"))
    )
    assert by_name["z"] == parse("x + pi")  # there is a tensor pi
    assert infer(graph("y: 'cast(x, f32) + nan'")).nodes[0].attrs["expr"] == Binary(
        "+", parse("cast(x, f32)"), Number(float("nan"))
    )


def test_a_number_may_be_an_expression_where_a_shape_is_stated() -> None:
    for number, text in (("3", "3"), ("-0.5", "-0.5"), (".inf", "inf"), ("-.inf", "-inf")):
        assert graph(f"y: {{op: map, expr: {number}, shape: [4]}}").nodes["y"].attrs["expr"] == text


def test_order_of_nodes_does_not_matter() -> None:
    assert [n.name for n in infer(graph("y: z * 2", "z: x + 1")).nodes] == ["z", "y"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("x + foo", (0, 10)), ("'x + foo'", (0, 11)), ('"x + foo"', (0, 11)),
        ("'  x + foo'", (0, 13)), ("\n    x +\n      foo", (2, 7)), (">\n    x +\n    foo", (2, 5)),
        ("|\n    x +\n    foo", (2, 5)), ("'x +\n     foo'", (1, 6)),
    ],
)  # fmt: skip
def test_places_are_inside_the_expression(text: str, place: tuple[int, int]) -> None:
    found = fault(f"y: {text}")
    assert shown(found) == "foo"
    assert found.mark is not None
    assert (found.mark.line - FIRST, found.mark.column) == place


def test_escapes_have_the_place_of_the_whole() -> None:
    assert shown(fault('y: "x +\\x20foo"')) == '"x +\\x20foo"'


# Mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "message", "help", "at"),
    [
        ("x + atn", "'atn' is no tensor, dim or const", "did you mean 'attn'?", "atn"),
        ("x + D", "'D' is a tensor and a dim or const", "with: {x: D}", "D"),
        ("2 * a-b", "'a-b' is a subtraction here, and there is a tensor", "a - b", "a-b"),
        ("a-b", "'a-b' is a subtraction", "{op: copy, x: a-b}", "a-b"),
        ("x-a-b - a-b-x", "'a-b' is a subtraction", "a - b", "a-b"),
        ("x + trunk.h", "'.' has no meaning in expressions", "with: {x: trunk.h}", "."),
        ("trunk.h", "'.' has no meaning in expressions", "{op: copy, x: trunk.h}", "."),
        ("copy", "'copy' is no tensor", "{op: copy, …}", "copy"),
        ("gleu(x)", "unknown function 'gleu'", "did you mean 'gelu'?", "gleu"),
        ("x + exp(a, b)", "exp() takes 1 argument, found 2", "", "exp(a, b)"),
        ("min(x)", "min() takes at least 2 arguments", "{op: reduce, kind: min, x: …}", "min(x)"),
        ("cast(x, 1)", "the second argument of cast() is a dtype", "cast(x, f32)", "1"),
        ("x @ a @ b", "more than one '@' in a node", "make a node of each", "x @ a @ b"),
        ("x @ (a + b)", "an operand of '@' is the name of a tensor or T(name)", "", "a + b"),
        ("x @ T(2)", "an operand of '@' is the name", "", "T(2)"),
        ("x @ S", "an operand of '@' is the name", "", "S"),
        ("x + T(a)", "T() stands only beside '@'", "permute", "T(a)"),
        ("y + x", "node 'y' uses itself", "", "y"),
        ("a < x < b", "comparisons are not chained", "a < b and b < c", "<"),
    ],
)
def test_mistakes(node: str, message: str, help: str, at: str) -> None:
    found = fault(f"y: {node}")
    assert message in found.message
    assert help in found.help
    assert shown(found) == at


def test_hyphens_with_blanks_subtract() -> None:
    assert graph("y: a - b").nodes["y"].operands == {"a": "a", "b": "b"}
    assert graph("y: x-a").nodes["y"].operands == {"x": "x", "a": "a"}


@pytest.mark.parametrize(
    ("rest", "message", "at"),
    [
        ("expr: x, with: {u: a}", "the expression has no name 'u'", "u"),
        ("expr: u, with: {u: trunk}", "there is no tensor 'trunk'", "trunk"),
        ("expr: u, with: [a]", "expected a mapping such as {x: trunk.h} for 'with'", "[a]"),
        ("expr: x, with: {u.v: a}", "'u.v' is not a name expressions can use", "u.v"),
        ("expr: x, with: {not: a}", "'not' is not a name expressions can use", "not"),
        ("expr: S, with: {S: a}", "'S' is a tensor and a dim or const", "S"),
        ("expr: u, with: {u: y}", "node 'y' uses itself", "y"),
        ("expr: true", "expected an expression, found true", "true"),
        ("expr: [x]", "expected an expression, found a list", "[x]"),
        ("expr: ''", "an empty expression", "''"),
        ("with: {u: x}", "node 'y' lacks 'expr' of op 'map'", "{op: map, with: {u: x}}"),
        ("expr: x, exp: 1", "op 'map' has no key 'exp'", "exp"),
    ],
)
def test_mistakes_in_a_mapping(rest: str, message: str, at: str) -> None:
    found = [d for d in faults(f"y: {{op: map, {rest}}}") if message in d.message]
    assert found
    assert shown(found[0]) == at


def test_each_mistake_is_told() -> None:
    found = faults("y: x + foo", "z: bar * 2", "u: {op: map, expr: gelu()}")
    assert [shown(d) for d in found] == ["foo", "bar", "gelu()"]


def test_a_faulty_dim_is_told_once() -> None:
    with pytest.raises(gx.GraphError) as caught:
        loads(HEAD.replace("S: 4", "S: no") + "  y: x * S\noutputs: [y]\n", ops=OPS)
    assert len(caught.value.diagnostics) == 1


def test_cycles_through_expressions() -> None:
    found = fault("y: x + z", "z: u * 2", "u: {op: map, expr: w, with: {w: y}}")
    assert found.message in ("cycle: y → z → u → y", "cycle: y → u → z → y")


def test_huge_expressions_are_refused_at_once() -> None:
    started = time.perf_counter()
    assert "nested deeper than 100" in fault("y: " + "(" * 4_000 + "x" + ")" * 4_000).message
    assert "nested deeper than 100" in fault("y: " + "-" * 9_000 + "x").message
    assert "at most 10,000" in fault("y: " + "x + " * 250_000 + "x").message
    assert time.perf_counter() - started < 5


# YAML's traps -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "help"),
    [
        ("y: - x", "'- ' begins an item of a list in YAML; write '-x'"),
        ("y: > 0", "'>' begins a block of text in YAML"),
        ("y: *x", "'*' begins an alias in YAML"),
        ("y: @ x", "'@' begins no value in YAML"),
        ("y: {op: map, expr: - x}", "'- ' begins an item of a list in YAML"),
        ("y: {op: map, expr: > 0}", "'>' begins a block of text in YAML"),
        ("y: {op: map, expr: *x}", "'*' begins an alias in YAML"),
        ("y: {op: map, expr: where(x, a, b)}", "commas split what stands in {…} and […]; put"),
        ("y: {op: map, expr: where(x, a, b), dtype: f32}", "commas split"),
        ("y: {op: map, expr: max(x, min(a, b) + 1)}", "commas split"),
    ],
)
def test_traps(node: str, help: str) -> None:
    assert help in fault(node).help


def test_commas_are_fine_in_blocks_and_in_quotes() -> None:
    for node in ("y: where(x > 0, a, b)", "y: {op: map, expr: 'where(x > 0, a, b)'}",
                 "y:\n    op: map\n    expr: where(x > 0, a, b)"):  # fmt: skip
        assert graph(node).nodes["y"].attrs["expr"] == "where(x > 0, a, b)"


@pytest.mark.parametrize(
    ("node", "cut"),
    [
        ("y: x # + a", True), ("y: x  #* a", True), ("y: x #and a", True), ("y: x # == a", True),
        ("y: {op: map, expr: x # / a\n    }", True), ("y: x\n    + a # - b", True),
        ("y: x # the input", False), ("y: x #", False), ("y: 'x' # + a", False),
        ("y: x # android", False), ("y: {op: copy, x: x} # + a", False),
    ],
)  # fmt: skip
def test_a_comment_that_cuts_an_expression(node: str, cut: bool) -> None:
    warnings = [w for w in graph(node).warnings if "begins a comment" in w.message]
    assert len(warnings) == cut
    assert all(shown(w) == "#" for w in warnings)


# Writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "written"),
    [
        ("y: x + attn", "x + attn"), ("y: 'where(x > S, a, -b)'", "where(x > S, a, -b)"),
        ("y: x @ T(a) + b", "x @ T(a) + b"), ("y: -x", '"-x"'), ("y: '3'", '"3"'),
        ("y: {op: map, expr: x + a}", "x + a"), ("y: 'x != a'", "x != a"),
        ("y: .5 * x", '".5 * x"'),
        ("y: {op: map, expr: u, with: {u: a-b}}", "{op: map, expr: u, with: {u: a-b}}"),
        ("y: {op: map, expr: x, dtype: f16}", "{op: map, expr: x, dtype: f16}"),
        ("y: {op: map, expr: 'max(x, a)', shape: [S]}",
         '{op: map, expr: "max(x, a)", shape: [S]}'),
    ],
)  # fmt: skip
def test_to_yaml(node: str, written: str) -> None:
    first = graph(node)
    text = first.to_yaml()
    assert f'  "y": {written}\n' in text
    assert loads(text, ops=OPS) == first


# The schema -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "good"),
    [
        ("x + 1", True), ("", False), (3, False), (None, False), (["x"], False),
        ({"op": "map", "expr": "u * 2", "with": {"u": "a-b"}, "dtype": "f16"}, True),
        ({"op": "map", "expr": 0.5, "shape": ["S"]}, True), ({"op": "map", "expr": True}, False),
        ({"op": "map", "expr": "x", "with": {"a-b": "x"}}, False),
        ({"op": "map", "expr": "x", "with": {"not": "x"}}, False),
        ({"op": "map", "expr": "x", "with": None}, False), ({"op": "map"}, False),
        ({"op": "map", "expr": "x", "x": "x"}, False),
        ({"op": "copy", "x": "x", "with": {"u": "x"}}, False),
    ],
)  # fmt: skip
def test_the_schema_agrees(node: Any, good: bool) -> None:
    document = {"version": 1, "nodes": {"y": node}, "outputs": ["y"]}
    assert Draft202012Validator(schema(OPS)).is_valid(document) == good
    text = f"{HEAD}  y: {json.dumps(node)}\noutputs: [y]\n"
    try:
        loads(text, ops=OPS)
    except gx.GraphError:
        assert not good
    else:
        assert good


pieces = st.sampled_from(
    ["x", "a", "attn", "S", "eps", "inf", "2", "0.5", "1e3", "u", "-", "+", "* ", " / ", " < ", "@",
     " and ", "not ", "(", ")", ", ", "where(", "max(", "exp(", "T(", "cast(", "f32", " #", ": ",
     "\n", "  ", "'", '"', "a-b", "null", "#", "&", "*"]
)  # fmt: skip


@given(st.lists(pieces, max_size=8).map("".join), st.booleans())
def test_any_text_is_a_node_or_a_located_mistake(text: str, quoted: bool) -> None:
    node = f"y: {json.dumps(text)}" if quoted else f"y: {text}"
    try:
        first = graph(node)
    except gx.GraphError as exc:
        found = exc.diagnostics
    else:
        assert loads(first.to_yaml(), ops=OPS) == first
        found = first.warnings
    assert all(d.mark is not None for d in found)


# In code ----------------------------------------------------------------------------------


def built(*operands: Any, **settings: Any) -> Node:
    g = Graph("g", dims={"S": 4}, ops=OPS)
    for name in ("gate", "up", "a-b"):
        g.input(name, (4,))
    return g.nodes[g.node("map", *operands, **settings)]


def test_the_builder_finds_the_tensors() -> None:
    assert built("silu(gate) * up").operands == {"gate": "gate", "up": "up"}
    assert built("silu(u) * v * S", u="gate", v="a-b").operands == {"u": "gate", "v": "a-b"}
    assert built(expr="gate + 1", dtype="f16").attrs == {"expr": "gate + 1", "dtype": "f16"}


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("silu(gat)", {}, "'gat' is no tensor, dim or const"),
        ("gate + 1", {"u": "up"}, "the expression 'gate + 1' has no name 'u'"),
        ("S + u", {"S": "up", "u": "up"}, "'S' is a tensor and a dim or const"),
        ("gate +", {}, "the expression ends"),
        (None, {}, "op 'map' needs 'expr', an expression"),
        ("u", {"u": "nowhere"}, "which is not a tensor of the graph"),
    ],
)
def test_the_builder_tells_mistakes(text: Any, given: dict[str, str], message: str) -> None:
    with pytest.raises(gx.GraphError) as caught:
        built(text, **given)
    assert message in str(caught.value)
