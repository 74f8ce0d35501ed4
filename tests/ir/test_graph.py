"""The builder: what it makes, every mistake it finds, and when two graphs are equal."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphexec as gx
from graphexec.base.errors import GraphError
from graphexec.graph.infer import infer
from graphexec.ir.graph import Node

Build = Callable[[gx.Graph], object]


def base() -> gx.Graph:
    graph = gx.Graph("g", dims={"N": 4}, consts={"half": "N // 2"})
    graph.input("x", ("N", "N"))
    graph.input("y", (4, 4), "f32")
    return graph


def test_the_example_of_the_module() -> None:
    g = gx.Graph("attention")
    q = g.input("q", (2, 8, 128, 64), "f16")
    s = g.gemm(q, q, trans_b=True, alpha=64**-0.5)
    g.output(out=g.softmax(s))
    assert list(g.nodes) == ["gemm", "softmax"]
    assert g.nodes["gemm"].operands == {"a": "q", "b": "q"}
    assert g.nodes["gemm"].attrs == {"trans_b": True, "alpha": 0.125}
    assert g.outputs == {"out": "softmax"}
    assert infer(g).types()["softmax"].shape == (2, 8, 128, 128)


def test_names_are_returned_and_found() -> None:
    g = base()
    assert g.input("z", (1,)) == "z"
    assert g.weight("w", "w.npy") == "w"
    assert g.node("softmax", "x", name="s") == "s"
    assert all(name in g for name in "xyzws")
    assert "t" not in g
    assert None not in g


def test_automatic_names_are_new() -> None:
    g = base()
    g.input("copy_1", (1,))
    assert [g.copy("x") for _ in range(3)] == ["copy", "copy_2", "copy_3"]
    assert g.softmax("x") == "softmax"


def test_op_methods_are_nodes() -> None:
    one, two = base(), base()
    one.gemm("x", "y", trans_a=True, name="n", after=["x"], shape=("N", 4))
    two.node("gemm", a="x", b="y", trans_a=True, name="n", after=("x",), shape=["N", 4])
    assert one == two
    assert {"gemm", "softmax", "copy", "input", "output"} <= set(dir(one))


def test_positional_and_named_operands_mean_the_same() -> None:
    g = base()
    g.gemm("x", "y", "x", name="one")
    g.gemm("x", b="y", c="x", name="two")
    assert g.nodes["one"].operands == g.nodes["two"].operands == {"a": "x", "b": "y", "c": "x"}


def test_an_operand_given_as_none_is_absent() -> None:
    g = base()
    g.gemm("x", "y", c=None, bias=None)
    assert g.nodes["gemm"].operands == {"a": "x", "b": "y"}


MISTAKES: dict[str, tuple[Build, str, str]] = {
    "unknown op": (lambda g: g.node("gem", "x", "y"), "unknown op 'gem'", "did you mean 'gemm'?"),
    "too many": (
        lambda g: g.softmax("x", "y", "x"), "op 'softmax' takes at most 2 operands, got 3", "",
    ),
    "unknown setting": (
        lambda g: g.gemm("x", "y", trans_x=True),
        "op 'gemm' has no operand or attribute 'trans_x'", "did you mean 'trans_",
    ),
    "twice": (lambda g: g.gemm("x", "y", a="x"), "op 'gemm' got operand 'a' twice", ""),
    "missing": (lambda g: g.gemm("x"), "op 'gemm' needs operand 'b'", ""),
    "missing as none": (lambda g: g.gemm("x", b=None), "op 'gemm' needs operand 'b'", ""),
    "unknown tensor": (
        lambda g: g.softmax("xx", name="s"),
        "node 's' refers to 'xx', which is not a tensor of the graph", "",
    ),
    "unknown after": (
        lambda g: g.softmax("x", name="s", after=["scors"]),
        "node 's' refers to 'scors', which is not a tensor of the graph", "",
    ),
    "operand of another type": (
        lambda g: g.softmax(3, name="s"), "node 's' refers to 3, which is not a tensor", "",
    ),
    "itself": (lambda g: g.softmax("s", name="s"), "node 's' refers to 's', which is not", ""),
    "used twice": (lambda g: g.input("x", (1,)), "the name 'x' is used twice", ""),
    "node as input": (lambda g: g.softmax("x", name="y"), "the name 'y' is used twice", ""),
    "weight as input": (lambda g: g.weight("y", "w.npy"), "the name 'y' is used twice", ""),
    "empty name": (lambda g: g.input("", (1,)), "'' is not a name", "beginning with a letter or"),
    "digit first": (lambda g: g.input("1x", (1,)), "'1x' is not a name", "letters, digits"),
    "blank in name": (lambda g: g.softmax("x", name="a b"), "'a b' is not a name", ""),
    "newline at end": (lambda g: g.input("x2\n", (1,)), "is not a name", ""),
    "unknown output": (lambda g: g.output("z"), "output 'z' names no tensor of the graph: 'z'", ""),
    "output renamed": (
        lambda g: g.output(out="z"), "output 'out' names no tensor of the graph: 'z'", "",
    ),
    "output twice": (lambda g: g.output("x", x="y"), "output 'x' is declared twice", ""),
    "output name": (lambda g: g.output(**{"../x": "y"}), "'../x' is not a name", ""),
    "unknown dim": (lambda g: g.with_dims(M=1), "the graph has no dim 'M'", ""),
    "similar dim": (lambda g: g.with_dims(n=1, N=2), "the graph has no dim 'n'", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(case: str) -> None:
    build, message, help = MISTAKES[case]
    graph, before = base(), base()
    with pytest.raises(gx.GraphError) as caught:
        build(graph)
    (diagnostic,) = caught.value.diagnostics
    assert message in diagnostic.message
    assert help in diagnostic.help
    if case != "output twice":  # whose first half is right
        assert graph == before


def test_unknown_attributes_of_the_graph_are_no_ops() -> None:
    with pytest.raises(AttributeError, match="no attribute or op 'gemmm': did you mean 'gemm'"):
        base().gemmm("x", "y")


# Equality -------------------------------------------------------------------------------------

CHANGES: dict[str, Build] = {
    "name": lambda g: setattr(g, "name", "other"),
    "dim": lambda g: g.dims.update(N=5),
    "const": lambda g: g.consts.update(half=2),
    "input": lambda g: g.input("z", (1,)),
    "weight": lambda g: g.weight("w", "w.npy"),
    "node": lambda g: g.copy("x"),
    "output": lambda g: g.output("x"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_graphs_of_other_content_differ(change: str) -> None:
    graph = base()
    assert graph == base()
    CHANGES[change](graph)
    assert graph != base()


@pytest.mark.parametrize("settings", [
    {"trans_a": True}, {"alpha": 2}, {"c": "x"}, {"after": ["y"]}, {"shape": (4, 4)}, {"name": "m"},
])  # fmt: skip
def test_nodes_of_other_content_differ(settings: dict[str, object]) -> None:
    one, two = base(), base()
    one.gemm("x", "y")
    two.gemm("x", "y", **settings)
    assert one != two


def test_places_do_not_count() -> None:
    loaded = gx.loads(
        "version: 1\nname: g\ndims: {N: 4}\nconsts: {half: N // 2}\n"
        "inputs: {x: {shape: [N, N], dtype: f32}, y: {shape: [4, 4], dtype: f32}}\n"
        "nodes: {s: {op: softmax, x: x, axis: 0}}\noutputs: {s: s}\n"
    )
    built = base()
    built.softmax("x", name="s", axis=0)
    built.output("s")
    assert loaded.nodes["s"].marks
    assert loaded == built
    assert loaded != "g"


def test_graphs_cannot_be_hashed() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(base())


def test_attributes_are_kept_as_yaml_has_them() -> None:
    g = base()
    g.copy("x", dtype=gx.DType.F16, permute=(1, np.int64(0)), slice={0: (1, None, 2)}, name="c")
    g.gemm("x", "y", alpha=np.float64(0.5), out_dtype=gx.DType.F64, name="m")
    assert g.nodes["c"].attrs == {"dtype": "f16", "permute": [1, 0], "slice": {0: [1, None, 2]}}
    assert type(g.nodes["c"].attrs["dtype"]) is str
    assert g.nodes["m"].attrs == {"alpha": 0.5, "out_dtype": "f64"}
    assert type(g.nodes["m"].attrs["alpha"]) is float


def test_a_built_graph_is_the_one_its_yaml_makes() -> None:
    g = base()
    g.weight("w", "w.npz", "k", shape=("N", 2), dtype="bf16")
    g.copy("x", dtype=gx.DType.F16, permute=(1, 0), slice={0: (1, None, 2), -1: (0, "half")},
           reshape=("half", -1), to="host", name="c", after=["y"])  # fmt: skip
    g.gemm("x", "y", alpha="half", out_dtype="f64", name="m", shape=("N", 4))
    g.output("m", other="c")
    assert gx.loads(g.to_yaml()) == g


def test_shapes_may_be_numpy_integers() -> None:
    g = gx.Graph()
    g.input("x", np.array([2, 3]))
    g.output(g.softmax("x", shape=(np.int64(2), 3)))
    assert infer(g).types()["softmax"].shape == (2, 3)
    assert gx.loads(g.to_yaml()) == g


def test_an_asserted_scalar_shape_is_not_forgotten() -> None:
    g = gx.Graph()
    g.input("x", (3,))
    g.output(g.copy("x", name="c", shape=()))
    with pytest.raises(gx.GraphError, match=r"shape is stated as \[\], but it is \[3\]"):
        infer(g)


@pytest.mark.parametrize("name", ["self", "names", "op", "name"])
def test_any_well_formed_name_can_be_used(name: str) -> None:
    g = gx.Graph("g", dims={name: 2})
    g.input(name, (2,), "f32")
    g.node("copy", name, name="c")
    g.output(**{name: "c"})
    x = np.array([1, 2], np.float32)
    with gx.compile(g.with_dims(**{name: 3}), device="cpu") as exe:
        assert exe.run(**{name: x})[name].tolist() == [1, 2]
        assert exe.submit(**{name: x}).result()[name].tolist() == [1, 2]


# with_dims ------------------------------------------------------------------------------------


def test_with_dims() -> None:
    graph = base()
    graph.gemm("x", "x")
    graph.output("gemm")
    other = graph.with_dims(N=7)
    assert other.dims == {"N": 7}
    assert graph.dims == {"N": 4}
    assert infer(other).types()["gemm"].shape == (7, 7)
    assert infer(graph).types()["gemm"].shape == (4, 4)
    assert other.with_dims(N=4) == graph
    assert (other.folder, other.ops, other.source) == (graph.folder, graph.ops, graph.source)


def test_the_graph_with_other_dims_is_another_graph() -> None:
    """What is added to one does not appear in the other."""
    graph, before = base(), base()
    other = graph.with_dims(N=7)
    other.copy("x")
    other.output("y")
    other.input("z", (1,))
    assert graph == before


def test_repr() -> None:
    g = base()
    assert repr(g) == "Graph('g': 2 inputs, 0 weights, 0 nodes, outputs none)"
    g.output("x", other="y")
    assert repr(g) == "Graph('g': 2 inputs, 0 weights, 0 nodes, outputs x, other)"


def test_add_keeps_a_declaration_as_it_is() -> None:
    """`load` adds nodes in any order; names are resolved by it."""
    g = base()
    node = Node("late", "softmax", {"x": "later"})
    g.add(node)
    assert g.nodes["late"] is node


def test_a_deep_graph_needs_no_recursion() -> None:
    g = base()
    name = "x"
    for _ in range(3000):
        name = g.copy(name)
    g.output(name)
    assert len(infer(g).nodes) == 3000
    assert g == g.with_dims(N=4)


@pytest.mark.parametrize(("given", "name"), [
    (np.float16, "f16"), (np.dtype("f4"), "f32"), (float, "f64"),
    (ml_dtypes.bfloat16, "bf16"), (np.dtype(ml_dtypes.bfloat16), "bf16"),
    (gx.DType.BF16, "bf16"), ("bf16", "bf16"), (np.int8, "i8"), (np.dtype("u1"), "u8"),
    (np.int32, "i32"), (np.dtype("i8"), "i64"), (int, "i64"), (bool, "bool"), (np.bool_, "bool"),
    ("i8", "i8"), ("bool", "bool"),
])  # fmt: skip
def test_dtypes_of_numpy_are_taken(given: Any, name: str) -> None:
    graph = gx.Graph()
    graph.input("x", np.ones((2, 3)).shape, given)
    graph.weight("w", "w.npy", dtype=given)
    graph.copy("x", name="y", dtype=given)
    assert graph.inputs["x"].dtype == graph.weights["w"].dtype == name
    assert graph.nodes["y"].attrs["dtype"] == name


@pytest.mark.parametrize(
    "given", [np.int16, np.dtype("u2"), np.uint32, complex, 3, ">f4", object()]
)
def test_other_dtypes_are_a_mistake(given: Any) -> None:
    def planned() -> None:
        graph = gx.Graph()
        graph.input("x", (2,), given)
        graph.output(graph.copy("x"))
        gx.make_plan(graph)

    with pytest.raises(gx.GraphError, match="unknown dtype"):
        planned()


@pytest.mark.parametrize("op", sorted(gx.known_ops().values(), key=lambda op: op.name))
def test_help_of_an_op_is_the_ops_own_text(op: gx.Op) -> None:
    graph = gx.Graph()
    shown = pydoc.plain(pydoc.render_doc(getattr(graph, op.name)))
    words = " ".join(shown.split())
    assert words.startswith(f"Python Library Documentation: function {op.name}")
    assert " ".join(op.doc.split()) in words
    for part in (*op.operands, *op.attributes):
        assert f"{part.name}: " in words
    parameters = inspect.signature(getattr(graph, op.name)).parameters
    needed = [o.name for o in op.operands if not o.optional]
    if op.expression is not None:
        needed += [op.expression, "tensors"]
    assert [n for n, p in parameters.items() if p.default is p.empty] == needed
    for attribute in op.attributes:
        if attribute.name not in needed:
            assert parameters[attribute.name].default == attribute.default
    assert {"name", "after", "shape"} <= set(parameters)


@pytest.mark.parametrize("build", [
    lambda g: g.input("z", 3), lambda g: g.input("z", "34"), lambda g: g.input("z", None),
    lambda g: g.input(4, (2,)), lambda g: g.output(7), lambda g: g.copy("x", shape=5),
])  # fmt: skip
def test_arguments_of_another_type_are_mistakes(build: Callable[[gx.Graph], Any]) -> None:
    graph = gx.Graph()
    graph.input("x", (3, 5))
    with pytest.raises(gx.GraphError, match=r"a name is a string|a shape is a sequence"):
        build(graph)


@pytest.mark.parametrize(("make", "told"), [
    (lambda: gx.Graph(3), "the name is a text, not 3"),
    (lambda: gx.Graph(dims=3, consts=[1]), "'dims' is a mapping, not 3"),
    (lambda: gx.Graph(dims=3, consts=[1]), "'consts' is a mapping, not [1]"),
    (lambda: gx.Graph(ops={"a": 3}), "op 'a' is not an Op, but 3"),
    (lambda: gx.Graph(file=3, prefix=4), "prefix is a text, not 4"),
    (lambda: gx.Graph(folder=7), "folder is a text, not 7"),
    (lambda: gx.load(3), "a path is wanted, not 3"),
    (lambda: gx.loads(3), "a text is wanted, not 3"),
])  # fmt: skip
def test_arguments_of_another_kind(make: Callable[[], object], told: str) -> None:
    with pytest.raises(GraphError) as caught:
        make()
    assert told in str(caught.value)


@pytest.mark.parametrize("after", ["x", 3])
def test_after_is_a_list(after: object) -> None:
    g = gx.Graph()
    x = g.input("x", (2,))
    with pytest.raises(GraphError, match="'after' is a list of nodes"):
        g.softmax(x, after=after)
