"""Pictures of graphs with blocks: a block is drawn once, and plans are cut between repetitions."""

from __future__ import annotations

import pytest

import graphexec as gx
from graphexec.graph.infer import infer
from graphexec.views.blocks import blocks
from graphexec.views.graph_dot import to_dot
from graphexec.views.listing import graph_to_text
from graphexec.views.mermaid import graph_to_mermaid
from graphexec.views.outline import Outline, of_graph
from graphexec.views.recovered import of_plan
from graphexec.views.repetitions import Repetition, folded, repetition, stretches


def model(layers: int) -> gx.Graph:
    graph = gx.Graph("model")
    x = graph.input("x", (8, 8))
    inner = graph.block("inner", ["x"])
    inner.output(x=inner.gemm(inner["x"], inner["x"], name="g"))
    layer = graph.block("layer", ["x"])
    layer.softmax("x", name="h")
    layer.output(x=inner(layer["h"], repeat=3, name="t"))
    graph.output(y=graph.softmax(layer(x, repeat=layers, name="trunk"), name="last"))
    return graph


def names(outline: Outline) -> list[str]:
    return [box.name for box in outline.boxes]


def links(outline: Outline) -> set[tuple[str, str]]:
    return {(names(outline)[a.source], names(outline)[a.target]) for a in outline.arrows}


def test_a_block_is_drawn_once() -> None:
    found = folded(of_graph(infer(model(12))))
    assert links(found) == {
        ("x", "trunk.{i}.h ×12"), ("trunk.{i}.h ×12", "trunk.{i}.t.{i}.g ×36"),
        ("trunk.{i}.t.{i}.g ×36", "last"), ("last", "y"),
    }  # fmt: skip
    assert [len(box.names) for box in found.boxes] == [0, 12, 36, 1, 0]
    assert {box.op for box in found.boxes} == {"input", "softmax", "gemm", "output"}
    assert folded(found) == found


def test_every_picture_of_the_graph_folds() -> None:
    outline = of_graph(infer(model(12)))
    assert "trunk.{i}.h ×12" in to_dot(outline, 150)
    assert graph_to_mermaid(outline).count("-->") == 4
    assert "trunk.{i}.h ×12" in names(folded(of_plan(gx.make_plan(model(12)))))


def test_the_list_tells_a_block_once() -> None:
    text = graph_to_text(of_graph(infer(model(12))))
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert text.startswith("model: 49 nodes\n")
    assert rows["trunk.{i}.h ×12"].rstrip().endswith("x, ↺ trunk.{i}.t.{i}.g")
    assert "trunk.3" not in text


def test_one_repetition_is_no_fold() -> None:
    outline = of_graph(infer(model(1)))
    assert "trunk.0.h" in names(folded(outline))


@pytest.mark.parametrize("name", ["layer.1.h", "l.2.h", "v1.5.gemm", "a.00.b", "a.1"])
def test_other_numbers_are_names(name: str) -> None:
    graph = gx.Graph()
    graph.output(graph.softmax(graph.softmax(graph.input("x", (4,)), name=name), name="y"))
    outline = of_graph(infer(graph))
    assert folded(outline) == outline


def test_a_plan_is_cut_between_repetitions() -> None:
    found = blocks(gx.make_plan(model(40), streams=1), 20)
    assert len(found) <= 20
    first = [block.name.split(" … ")[0] for block in found[1:]]
    assert all(name.endswith(".h") for name in first if name.startswith("trunk"))


def test_stretches_end_with_repetitions() -> None:
    assert repetition("trunk.3.t.1.g") == Repetition("trunk", 3)
    assert repetition("trunk.h") is None
    lane = ["a", "b", "t.0.h", "t.0.g", "t.1.h", "t.1.g", "u.0.h", "z"]
    assert list(stretches(lane, 3)) == [4, 3, 1]
    assert list(stretches(lane, 1)) == [1, 1, 2, 2, 1, 1]
