"""Any graph, each rewrite alone and all together: right numbers and an accepted plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from graph_files import FILES
from hypothesis import given, settings
from rewritten import after, applied, assert_right, draw
from strategies import Seeded, graphs, random_graph

import graphexec as gx
from graphexec.planning.pipeline import plan_graph
from graphexec.planning.rewrite import known_rewrites

NAMES = list(known_rewrites())


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20)
@given(graphs(bait=True))
def test_alone(name: str, graph: gx.Graph) -> None:
    assert_right(graph, name)


@settings(max_examples=80)
@given(graphs(bait=True))
def test_together(graph: gx.Graph) -> None:
    assert_right(graph)


@settings(max_examples=60)
@given(graphs(bait=True))
def test_a_rewrite_that_does_not_apply_changes_nothing(graph: gx.Graph) -> None:
    plain = after(graph, streams=1)  # a search over streams would take ten times as long
    for name in NAMES:
        found = after(graph, name, streams=1)
        if not applied(found):
            assert found.rewritten == plain.rewritten
            assert found.plan == plain.plan


@settings(max_examples=60)
@given(graphs(bait=True))
def test_a_second_time_finds_nothing_new(graph: gx.Graph) -> None:
    """Tensors keep their types, outputs their names, and nodes come after what they read."""
    found = plan_graph(graph, device="hip", streams=1).rewritten
    plain = after(graph, streams=1).graph
    assert found.outputs == plain.outputs
    seen = {*found.inputs, *found.weights}
    types = plain.types()
    for node in found.nodes:
        assert seen.issuperset((*node.operands.values(), *node.after))
        assert node.type == types[node.name]
        seen.add(node.name)


def test_the_strategy_has_something_for_every_rewrite() -> None:
    found = set()
    for seed in range(60):
        compiled = plan_graph(random_graph(Seeded(seed), 12, bait=True), streams=1)
        found |= {note.rewrite for note in compiled.notes if note.applied}
    assert found >= {
        "dead-nodes", "common-subexpressions", "fold-casts", "fold-copies", "permuted-results",
        "accumulate-in-place", "fuse-attention",
    }  # fmt: skip


def test_compare_measures_what_is_left_against_what_was_written() -> None:
    for seed in range(20):
        graph = random_graph(Seeded(seed), 8, bait=True)
        compiled = plan_graph(graph)
        found = gx.compare(graph, draw(compiled.graph.inputs), device="cpu")
        measured, gone = [r.name for r in found.nodes], [n.name for n in found.not_computed]
        assert sorted(measured + gone) == sorted(n.name for n in compiled.graph.nodes)
        for node in found.not_computed:
            notes = [x for x in compiled.notes if x.applied and node.name in x.nodes]
            if node.how == "view":
                (seen,) = node.by
                views = compiled.program.tensors
                assert views[node.name].storage == views[seen].storage
            else:
                assert notes, node
                assert (node.how == "left out") == any(x.rewrite == "dead-nodes" for x in notes)
        assert found.ok, seed


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_what_is_said_of_the_examples(file: Path, golden: Callable[[str, str], None]) -> None:
    lines = []
    for device in ("cpu", "hip"):
        lines.append(f"{file.stem} on {device}")
        for note in plan_graph(gx.load(file), device=device).notes:
            lines.append(f"  {note.rewrite}: {'' if note.applied else 'not: '}{note.text}")
    golden(f"rewrites/{file.stem}.txt", "\n".join(lines))


def test_a_scale_stays_in_softmax_because_alpha_would_overflow() -> None:
    """Scores of 20,000 times a scale of 8 are more than f16 holds, but not more than f32."""
    found = {}
    for name, alpha, scale in (("kept", 1.0, 8.0), ("folded", 8.0, 1.0)):
        g = gx.Graph("g")
        a, b = g.input("a", (2, 4), "f16"), g.input("b", (4, 2), "f16")
        g.output(p=g.softmax(g.gemm(a, b, alpha=alpha, name="s"), scale=scale, name="p"))
        assert [n.attrs.get("alpha", alpha) for n in plan_graph(g).rewritten.nodes] == [alpha] * 2
        inputs = {"a": np.full((2, 4), 100, np.float16), "b": np.full((4, 2), 50, np.float16)}
        with gx.compile(g, device="cpu", no_rewrite=["fuse-attention"]) as exe:
            found[name] = exe.run(**inputs)["p"]
    assert (found["kept"] == 0.5).all()
    assert np.isnan(found["folded"]).all()
