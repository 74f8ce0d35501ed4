"""Operands that are lists of tensors: one contract for YAML, the builder, the schema and errors."""

from inspect import signature

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

import graphexec as gx
from graphexec.cli.app import app
from graphexec.frontend.load import loads
from graphexec.frontend.schema import schema
from graphexec.graph.infer import infer
from graphexec.ir.graph import Graph
from graphexec.ir.op import Attribute, Op, Operand
from graphexec.ir.operand import listed


class Total(Op):
    name = "total"
    doc = "The sum of all parts."
    operands = (
        Operand("x", "the parts", many=True, shape="(…, N)"),
        Operand("bias", optional=True, shape="(N,)"),
    )
    attributes = (Attribute("scale", "number", 1.0, "factor"),)
    result = "(…, N)"


class Written(Op):
    name = "written"
    doc = "An expression."
    operands = ()
    attributes = (Attribute("expr", "expression", "", "what is computed"),)


OPS = {"total": Total(), "written": Written()}

GRAPH = """\
version: 1
name: sums
inputs:
  a: {shape: [2, 4], dtype: f32}
  b: {shape: [4], dtype: f32}
nodes:
  t: {op: total, x: [a, b, a], bias: b, scale: 2}
outputs: {t: t}
"""


def build(*parts, **more):
    graph = Graph("sums", ops=OPS)
    graph.input("a", (2, 4), "f32")
    graph.input("b", (4,), "f32")
    graph.output(t=graph.total(*parts, name="t", **more))
    return graph


def mistakes(text):
    with pytest.raises(gx.GraphError) as caught:
        infer(loads(text, ops=OPS))
    return [(d.mark.line, d.mark.column, d.message) for d in caught.value.diagnostics]


def test_yaml_and_builder_make_the_same_node():
    loaded = loads(GRAPH, ops=OPS)
    assert dict(loaded.nodes["t"].operands) == {"x[0]": "a", "x[1]": "b", "x[2]": "a", "bias": "b"}
    assert build(["a", "b", "a"], bias="b", scale=2) == loaded
    assert build(x=("a", "b", "a"), bias="b", scale=2) == loaded


def test_to_yaml_writes_the_list():
    assert loads(GRAPH, ops=OPS).to_yaml() == GRAPH
    many = build(["a"] * 12)
    assert loads(many.to_yaml(), ops=OPS) == many
    assert listed(many.nodes["t"].operands) == {"x": ["a"] * 12}


def test_the_operands_of_a_node():
    op = OPS["total"]
    first, second, bias = op.operands_of(["x[0]", "x[11]", "bias"])
    assert (first.name, first.shape, first.many) == ("x[0]", "(…, N)", False)
    assert (second.name, bias) == ("x[11]", op.operands[1])
    assert [o.name for o in OPS["written"].operands_of(["gate", "up"])] == ["gate", "up"]


def test_members_are_checked_against_the_pattern():
    node = infer(loads(GRAPH, ops=OPS)).nodes[0]
    assert node.type.shape == (2, 4)
    wrong = GRAPH.replace("b: {shape: [4]", "b: {shape: [5]").replace(", bias: b", "")
    assert mistakes(wrong) == [
        (7, 25, "total 't': the extents N differ: 4 in x[0], 5 in x[1]"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "column", "message"),
    [
        ("a", 21, "expected a list of tensors such as [a, b] for operand 'x', found the text 'a'"),
        ("[]", 21, ("expected a list of tensors such as [a, b] for operand 'x', "
         "found a list without tensors")),
        ("[a, q]", 25, "there is no tensor 'q'"),
        ("[a, t]", 25, "node 't' uses itself"),
        ("[a, [b]]", 25, "expected the name of a tensor for operand 'x[1]', found a list"),
    ],
)  # fmt: skip
def test_a_wrong_list_in_yaml(given, column, message):
    assert mistakes(GRAPH.replace("[a, b, a]", given)) == [(7, column, message)]


def test_a_list_that_is_left_out():
    text = GRAPH.replace("x: [a, b, a], ", "")
    assert mistakes(text) == [(7, 3, "node 't' lacks operand 'x' of op 'total'")]


def test_a_cycle_through_a_member():
    text = GRAPH.replace("nodes:\n", "nodes:\n  s: {op: total, x: [a, t]}\n").replace(
        "[a, b, a]", "[a, s]"
    )
    [(line, column, message)] = mistakes(text)
    assert (line, column) in ((7, 25), (8, 25)), message
    assert message.startswith("cycle: ")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("a",), "operand 'x' of op 'total' is a list of tensors, not 'a'"),
        (([],), "operand 'x' of op 'total' is a list of tensors, not []"),
        ((), "op 'total' needs operand 'x'"),
        ((["a", "q"],), "node 't' refers to 'q', which is not a tensor of the graph"),
        ((["a"], "b", "b"), "op 'total' takes at most 2 operands, got 3"),
    ],
)
def test_a_wrong_list_in_code(parts, message):
    with pytest.raises(gx.GraphError) as caught:
        build(*parts)
    assert message in str(caught.value)


def test_tensors_of_an_expression_are_operands_by_their_names():
    graph = Graph(ops=OPS)
    graph.input("a", (2,), "f32")
    name = graph.written("gate * 2 + up", gate="a", up="a")
    node = graph.nodes[name]
    assert node.operands == {"gate": "a", "up": "a"}
    assert node.attrs == {"expr": "gate * 2 + up"}
    with pytest.raises(gx.GraphError, match="refers to 'q'"):
        graph.written("gate", gate="q")


def test_the_schema_has_a_list():
    validator = Draft202012Validator(schema(OPS))
    document = {"version": 1, "outputs": ["t"], "nodes": {"t": {"op": "total", "x": ["a", "b"]}}}
    assert validator.is_valid(document)
    for wrong in ("a", []):
        document["nodes"]["t"]["x"] = wrong
        assert not validator.is_valid(document)


def test_help_and_pages_say_that_it_is_a_list(tmp_path):
    method = build(["a"]).total
    assert "x: a list of tensors; (…, N); the parts" in method.__doc__
    assert list(signature(method).parameters)[:2] == ["x", "bias"]
    folder = tmp_path / "total"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from graphexec.ops.kit import Op, Operand\n"
        "class Total(Op):\n    name = 'total'\n    doc = 'Sums.'\n"
        "    operands = (Operand('x', many=True),)\nOP = Total()\n"
    )
    page = CliRunner().invoke(app, ["ops", "total", "--ops", str(folder)])
    assert "y: {op: total, x: [x, …]}" in page.output
    assert "x  a list of tensors" in page.output
