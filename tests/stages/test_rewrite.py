"""rewrite: an equivalent graph; each rewrite by itself and switched off by its name."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from strategies import graphs

import graphexec as gx
from graphexec.rewrites import dead_nodes
from graphexec.stages.infer import infer
from graphexec.stages.rewrite import REWRITES, rewrite
from graphexec.typed import TypedGraph


def typed() -> TypedGraph:
    graph = gx.Graph("g")
    graph.input("x", (2, 3))
    graph.softmax("x", name="a")
    graph.softmax("x", name="dead")
    graph.copy("dead", name="dead_too", after=["a"])
    graph.copy("x", name="first")
    graph.copy("a", name="b", after=["first"])
    graph.gemm("b", "b", trans_b=True, name="y")
    graph.output(out="y", again="a")
    return infer(graph)


def names(graph: TypedGraph) -> list[str]:
    return [n.name for n in graph.nodes]


def test_names_are_those_of_the_modules() -> None:
    assert REWRITES["dead-nodes"] is dead_nodes.rewrite
    assert dead_nodes.NAME == "dead-nodes"


def test_dead_nodes_are_left_out() -> None:
    """What `after` names is kept for a node that is needed; one that is not keeps nothing."""
    before = typed()
    after = rewrite(before)
    assert names(after) == ["a", "first", "b", "y"]
    assert (after.inputs, after.outputs, after.name) == (before.inputs, before.outputs, "g")
    assert all(n in before.nodes for n in after.nodes)
    assert rewrite(after) == after


def test_a_rewrite_can_be_switched_off() -> None:
    before = typed()
    assert rewrite(before, ["dead-nodes"]) == before
    assert rewrite(before, set(REWRITES)) is before


def test_the_old_graph_is_not_changed() -> None:
    before = typed()
    rewrite(before)
    assert before == typed()


def test_a_graph_whose_outputs_are_inputs_needs_no_node() -> None:
    graph = gx.Graph("g")
    graph.input("x", (2,))
    graph.copy("x")
    graph.output("x")
    assert rewrite(infer(graph)).nodes == ()


def test_the_pipeline_passes_the_names_on() -> None:
    graph = gx.Graph("g")
    graph.input("x", (2,))
    graph.copy("x", name="dead")
    graph.output("x")
    with_it = gx.make_plan(graph, no_rewrite=["dead-nodes"])
    assert "dead" in [t.name for t in with_it.tensors]
    assert "dead" not in [t.name for t in gx.make_plan(graph).tensors]


def test_a_chain_of_ten_thousand_nodes() -> None:
    graph = gx.Graph("g")
    name = graph.input("x", (1,))
    for _ in range(10_000):
        name = graph.node("copy", name, name=f"n{len(graph.nodes)}")
    graph.output("n4999")
    assert len(rewrite(infer(graph)).nodes) == 5000


@settings(max_examples=40, deadline=None)
@given(graphs(max_nodes=8))
def test_rewrites_change_no_output(graph: gx.Graph) -> None:
    rng = np.random.default_rng(0)
    before = infer(graph)
    inputs = {
        n: rng.standard_normal(t.shape).astype(t.dtype.numpy()) for n, t in before.inputs.items()
    }
    found = []
    for off in (set(), set(REWRITES)):
        with gx.compile(graph, device="cpu", streams=2, no_rewrite=off) as exe:
            found.append(exe.run(**inputs))
    assert found[0].keys() == found[1].keys()
    for name, array in found[0].items():
        assert array.tobytes() == found[1][name].tobytes()
