"""A graph cut into blocks is the graph it was, and a repeated block is its copies by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphexec as gx
from graphexec.frontend.expand import MAX_NODES, expand
from graphexec.graph.infer import infer
from graphexec.ir.graph import Block, Graph, Node
from graphexec.ir.typed import TypedGraph, TypedNode
from tests.strategies import Drawn, graphs, random_graph

Rename = Callable[[str], str]


def renamed(node: Node, name: Rename) -> Node:
    operands = {key: name(tensor) for key, tensor in node.operands.items()}
    return Node(name(node.name), node.op, operands, node.attrs, tuple(map(name, node.after)))


def plain(graph: TypedGraph, name: Rename) -> tuple[object, ...]:
    """What a typed graph says, without the places in files."""

    def node(item: TypedNode) -> TypedNode:
        operands = {key: name(tensor) for key, tensor in item.operands.items()}
        after = tuple(sorted(map(name, item.after)))
        return replace(item, name=name(item.name), operands=operands, after=after, line=None)

    outputs = {key: name(tensor) for key, tensor in graph.outputs.items()}
    return graph.inputs, [node(item) for item in graph.nodes], outputs


def cut(graph: Graph, lengths: Sequence[int]) -> Graph:
    """The graph with stretches of its nodes, of these lengths, as blocks used once each. The last
    of them is in a block of its own."""
    found = Graph(graph.name)
    for item in graph.inputs.values():
        found.add(item)
    made: dict[str, str] = {}
    waiting = list(graph.nodes.values())
    for number, length in enumerate(lengths):
        stretch, waiting = waiting[:length], waiting[length:]
        if stretch:
            _block(found, f"b{number}", stretch, made)
    for node in waiting:
        found.add(renamed(node, lambda name: made.get(name, name)))
    for output, tensor in graph.outputs.items():
        found.output(**{output: made.get(tensor, tensor)})
    return found


def _block(graph: Graph, name: str, nodes: Sequence[Node], made: dict[str, str]) -> None:
    inner = {node.name for node in nodes}
    named = [t for node in nodes for t in (*node.operands.values(), *node.after)]
    given = {t: f"i{n}" for n, t in enumerate(dict.fromkeys(t for t in named if t not in inner))}
    block = graph.block(name, list(given.values()))
    for node in nodes:
        block.add(renamed(node, lambda tensor: given.get(tensor, tensor)))
    for node in nodes:
        block.output(**{f"out.{node.name}": node.name})
    graph.use(name, *(made.get(t, t) for t in given), name=f"u.{name}")
    made |= {node.name: f"u.{name}.out.{node.name}" for node in nodes}


def after_use(name: str) -> str:
    """The name of a node that stood in a block: u.b3.gemm_1 was gemm_1."""
    return name.split(".")[-1]


@given(graphs(), st.lists(st.integers(0, 4), max_size=5))
def test_cut_into_blocks(graph: Graph, lengths: list[int]) -> None:
    blocks = cut(graph, lengths)
    assert plain(infer(blocks), after_use) == plain(infer(graph), after_use)
    again = gx.loads(blocks.to_yaml())
    assert again == blocks
    assert plain(infer(again), after_use) == plain(infer(graph), after_use)


@st.composite
def repeated(draw: Callable[..., object]) -> tuple[Graph, Graph]:
    """A graph with a block that is repeated, and one with copies of its nodes."""
    choices = Drawn(draw)
    pattern = random_graph(choices, 5)
    types = infer(pattern).types()
    times = choices.integer(1, 4)
    carried: dict[str, str] = {}
    for given_ in pattern.inputs:
        fits = [n for n in (*pattern.nodes, *pattern.inputs) if types[n] == types[given_]]
        if choices.chance(60) or not carried:
            carried[given_] = choices.pick(fits)
    blocks, flat = Graph("g"), Graph("g")
    for item in pattern.inputs.values():
        blocks.add(item)
        flat.add(item)
    block = blocks.block("layer", list(pattern.inputs))
    for node in pattern.nodes.values():
        block.add(node)
    block.output(**carried)
    blocks.use(block, *pattern.inputs, repeat=times, name="t")
    now = {name: name for name in pattern.inputs}
    for number in range(times):
        full = now | {name: f"t.{number}.{name}" for name in pattern.nodes}
        for node in pattern.nodes.values():
            flat.add(renamed(node, full.__getitem__))
        now |= {name: full[tensor] for name, tensor in carried.items()}
    for name in carried:
        blocks.output(**{name: f"t.{name}"})
        flat.output(**{name: now[name]})
    return blocks, flat


@given(repeated())
def test_repeated_is_copies_by_hand(pair: tuple[Graph, Graph]) -> None:
    blocks, flat = pair
    assert plain(infer(blocks), str) == plain(infer(flat), str)
    assert gx.loads(blocks.to_yaml()) == blocks
    if infer(flat).nodes:
        assert gx.make_plan(blocks).to_json() == gx.make_plan(flat).to_json()


# Built in code ----------------------------------------------------------------------------


def layers(dims: Mapping[str, int] | None = None) -> tuple[Graph, Block]:
    graph = gx.Graph("g", dims=dims or {"L": 3, "E": 4})
    graph.input("x", ("E", "E"))
    block = graph.block("layer", ["x", "n"])
    block.output(x=block.softmax(block["x"] @ block["n"].T) + block["x"])
    return graph, block


def test_calling_a_block_adds_a_node_to_the_graph_of_its_tensors() -> None:
    graph, block = layers()
    outer = graph.block("outer", ["x"])
    outer.output(x=block(outer["x"], n=outer["x"], repeat=2, name="in"))
    y = outer(graph["x"], repeat="L")
    graph.output(y=y * 2)
    assert str(y) == "outer"
    assert list(outer.nodes) == ["in"]
    names = [node.name for node in infer(graph).nodes]
    assert len(names) == 3 * 2 * 3 + 1
    assert names[3] == "outer.0.in.1.map"
    assert graph["outer.2.in.1.softmax"] == "outer.2.in.1.softmax"
    assert gx.loads(graph.to_yaml()) == graph


def test_several_outputs_are_a_tuple() -> None:
    graph, block = layers()
    block.output(scores="softmax")
    y, scores = block("x", "x")
    graph.output(y=y, scores=scores)
    assert infer(graph).outputs == {"y": "layer.map_1", "scores": "layer.softmax"}
    with pytest.raises(gx.GraphError, match="'layer' has several outputs"):
        infer_with_output(graph, "layer")


def infer_with_output(graph: Graph, name: str) -> TypedGraph:
    graph.output(extra=name)
    return infer(graph)


def test_copies_share_nothing() -> None:
    graph, block = layers()
    graph.output(y=block("x", n="x", repeat="L"))
    copy = graph.with_dims(L=2)
    copy.blocks["layer"].softmax("n", name="more")
    assert list(block.nodes) == ["map", "softmax", "map_1"]
    assert copy.blocks["layer"].dims is copy.dims
    assert len(infer(copy).nodes) == 8
    assert len(infer(graph).nodes) == 9


MISTAKES: dict[str, tuple[Callable[[Graph, Block], object], str]] = {
    "block twice": (lambda g, b: g.block("layer"), "the block 'layer' is declared twice"),
    "block name": (lambda g, b: g.block("3"), "'3' is not a name"),
    "unknown": (lambda g, b: g.use("lair", "x"), "unknown block 'lair'"),
    "too many": (lambda g, b: b("x", "x", "x"), "block 'layer' takes 2 inputs, got 3"),
    "missing": (lambda g, b: b("x"), "block 'layer' needs the input 'n'"),
    "unknown input": (lambda g, b: b("x", m="x"), "block 'layer' has no input 'm'"),
    "twice": (lambda g, b: b("x", x="x"), "block 'layer' got the input 'x' twice"),
    "no tensor": (lambda g, b: b("x", n="y"), "node 'layer' refers to 'y'"),
    "key": (lambda g, b: b.input("repeat"), "cannot be named 'repeat', a key of nodes"),
    "dtype": (lambda g, b: b.input("q", dtype="f16"), "has the dtype of what it is given"),
    "outer": (lambda g, b: b["x"] + g["x"], "'x' is a tensor of another graph, 'g'"),
    "sees": (lambda g, b: b.softmax("y"), "refers to 'y', which is not a tensor of the graph"),
    "item": (lambda g, b: g["xx"], "there is no tensor 'xx'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_in_code(case: str) -> None:
    make, message = MISTAKES[case]
    with pytest.raises(gx.GraphError) as caught:
        make(*layers())
    assert message in str(caught.value)


@pytest.mark.parametrize(("repeat", "message"), [
    (0, "repeat must be at least 1, found 0"), ("L - 3", "found L - 3 = 0"),
    (1.5, "expected an integer, found 1.5"), ("N", "unknown name 'N'"),
    (10**18, f"at most {MAX_NODES:,} are allowed"),
])  # fmt: skip
def test_bad_repeats(repeat: int | str, message: str) -> None:
    graph, block = layers()
    graph.output(y=block("x", n="x", repeat=repeat))
    with pytest.raises(gx.GraphError) as caught:
        expand(graph)
    assert message in str(caught.value)


def test_names_made_twice() -> None:
    graph, block = layers()
    graph.softmax("x", name="a.1.map")
    graph.output(y=block("x", n="x", repeat=2, name="a"))
    with pytest.raises(gx.GraphError, match=r"the name 'a\.1\.map' is used twice"):
        infer(graph)
    with pytest.raises(gx.GraphError, match=r"the name 'a\.0\.softmax' is used twice"):
        graph.softmax("x", name="a.0.softmax")


def test_blocks_in_a_circle() -> None:
    graph, block = layers()
    other = graph.block("other", ["x"])
    other.output(x=block(other["x"], n=other["x"]))
    other(block["x"])
    graph.output(y=block("x", n="x"))
    with pytest.raises(gx.GraphError, match=r"other: (layer|other) → (layer|other) → "):
        infer(graph)


def test_other_names_in_a_circle() -> None:
    graph = gx.loads("""\
version: 1
inputs: {x: {shape: [2], dtype: f32}}
blocks: {same: {inputs: [x], outputs: [x]}}
nodes: {a: {block: same, x: x}}
outputs: [a]
""")
    assert infer(graph).outputs == {"a": "x"}
    text = graph.to_yaml().replace(
        "  a: {block: same, x: x}\n", "  a: {block: same, x: b}\n  b: {block: same, x: a}\n"
    )
    with pytest.raises(gx.GraphError) as caught:
        gx.loads(text)
    assert caught.value.diagnostics[0].message in ("cycle: a → b → a", "cycle: b → a → b")
    assert all(d.mark for d in caught.value.diagnostics)
