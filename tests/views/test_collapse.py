"""Large graphs as few boxes: what is alike is a pile, what repeats is cut where it repeats."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import graphs

import graphexec as gx
from graphexec.graph.infer import infer
from graphexec.views import graph as picture
from graphexec.views.collapse import collapsed
from graphexec.views.graph_dot import to_dot
from graphexec.views.mermaid import graph_to_mermaid
from graphexec.views.outline import Box, Outline, of_graph


def outline(graph: gx.Graph) -> Outline:
    return of_graph(infer(graph))


def chains(width: int, length: int, alike: bool = True) -> gx.Graph:
    """x → c0_0 → c0_1 → … and so on, of one shape or each of its own."""
    graph = gx.Graph("chains")
    x = graph.input("x", (8, 8))
    for c in range(width):
        name = x if alike else graph.input(f"x{c}", (8 + c, 8))
        for step in range(length):
            name = (graph.gemm(name, "x", name=f"c{c}_{step}") if step % 2 == 0
                    else graph.softmax(name, name=f"c{c}_{step}"))  # fmt: skip
        graph.output(**{f"y{c}": name})
    return graph


def transformer(layers: int, before: int = 0) -> gx.Graph:
    """Layers of ten nodes, after so many that are none."""
    graph = gx.Graph("transformer")
    x = graph.input("x", (8, 8))
    for n in range(before):
        x = graph.softmax(x, name=f"before{n}")
    for n in range(layers):
        weights = [graph.input(f"l{n}_w{k}", (8, 8)) for k in range(6)]
        q, k, v = (graph.gemm(x, w, name=f"l{n}_{p}") for p, w in zip("qkv", weights, strict=False))
        probs = graph.softmax(graph.gemm(q, k, trans_b=True, name=f"l{n}_scores"), name=f"l{n}_p")
        ctx = graph.gemm(probs, v, name=f"l{n}_ctx")
        out = graph.gemm(ctx, weights[3], x, beta=1.0, name=f"l{n}_out")
        wide = graph.softmax(graph.gemm(out, weights[4], name=f"l{n}_up"), name=f"l{n}_act")
        x = graph.gemm(wide, weights[5], out, beta=1.0, name=f"l{n}_down")
    graph.output(y=x)
    return graph


def named(shown: Outline) -> dict[str, Box]:
    return {box.name: box for box in shown.boxes}


def ends(shown: Outline) -> set[tuple[str, str]]:
    return {(shown.boxes[a.source].name, shown.boxes[a.target].name) for a in shown.arrows}


def width(svg: str) -> float:
    return float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])


def test_branches_that_are_alike_are_one() -> None:
    shown = collapsed(outline(chains(32, 5)), 100)
    boxes = named(shown)
    assert list(boxes) == ["x", *(f"c0_{n} … c31_{n}" for n in range(5)), "y0 … y31"]
    assert (boxes["c0_1 … c31_1"].op, boxes["c0_1 … c31_1"].type) == ("32 × softmax", "f32[8, 8]")
    assert boxes["y0 … y31"].op == "32 outputs"
    assert ends(shown) == {
        *(("x", f"c0_{n} … c31_{n}") for n in (0, 2, 4)),
        *((f"c0_{n} … c31_{n}", f"c0_{n + 1} … c31_{n + 1}") for n in range(4)),
        ("c0_4 … c31_4", "y0 … y31"),
    }
    labels = {a.label for a in shown.arrows}
    assert labels == {"f32[8, 8]", "32 tensors"}


def test_what_differs_anywhere_is_not_alike() -> None:
    graph = chains(32, 5)
    graph.output(early=graph.softmax("c7_1", name="early"))
    shown = named(collapsed(outline(graph), 100))
    assert {f"c7_{n}" for n in (0, 1)} <= shown.keys(), "they lead to something else"
    assert "c0_1 … c31_1" in shown
    assert not {f"c0_{n}" for n in range(5)} & shown.keys()
    name = graph.softmax("x", name="first")
    for step in range(5):
        name = (
            graph.softmax(name, name=f"d{step}")
            if step % 2
            else graph.gemm(name, "x", name=f"d{step}")
        )
    graph.output(late=name)
    shown = named(collapsed(outline(graph), 100))
    assert {f"d{step}" for step in range(5)} <= shown.keys(), "they are fed by something else"


def test_few_that_are_alike_stay_apart() -> None:
    shown = named(collapsed(outline(chains(3, 40)), 122))
    assert {f"c{c}_{n}" for c in range(3) for n in range(40)} <= shown.keys()


@pytest.mark.parametrize(("layers", "most"), [(30, 100), (120, 150), (120, 20)])
def test_layers_are_cut_where_they_repeat(layers: int, most: int) -> None:
    shown = collapsed(outline(transformer(layers)), most)
    ops = [box for box in shown.boxes if box.kind == "many"]
    each = sum(times for _, times in ops[0].ops) // 10
    assert [box.name for box in ops] == [
        f"l{n}_q … l{min(n + each, layers) - 1}_down" for n in range(0, layers, each)
    ]
    assert len(ops) <= most
    assert ops[1].op == f"{10 * each} nodes:"
    assert ops[1].type == f"{8 * each} × gemm, {2 * each} × softmax + {6 * each} inputs"
    assert len(shown.arrows) == len(ops)  # from one to the next, and to the output


@pytest.mark.parametrize("before", range(1, 10))
def test_what_comes_before_the_layers_does_not_shift_the_cuts(before: int) -> None:
    """They are where one tensor goes on: between the layers, or in the middle of each."""
    shown = collapsed(outline(transformer(60, before)), 150)
    assert 60 < len(shown.boxes) <= 64
    assert {a.label for a in shown.arrows} == {"f32[8, 8]"}
    assert len(shown.arrows) == len(shown.boxes) - 1


def test_chains_that_differ_are_cut_in_equal_parts() -> None:
    shown = collapsed(outline(chains(10, 31, alike=False)), 100)
    sizes = Counter(sum(n for _, n in box.ops) for box in shown.boxes if box.kind == "many")
    assert sizes == {3: 50, 4: 40}
    for box in shown.boxes:
        assert len({name.split("_")[0] for name in box.names}) <= 1, "of one chain each"


@settings(max_examples=150, deadline=None)
@given(graph=graphs(), most=st.integers(1, 12))
def test_any_graph(graph: gx.Graph, most: int) -> None:
    whole = outline(graph)
    shown = collapsed(whole, most)
    assert all(a.source < a.target for a in shown.arrows)
    names = [name for box in shown.boxes for name in box.names]
    assert sorted(names) == sorted(name for box in whole.boxes for name in box.names)
    place = {name: n for n, box in enumerate(shown.boxes) for name in box.names}
    known = {(a.source, a.target) for a in shown.arrows}
    assert len(known) == len(shown.arrows) or shown is whole
    for arrow in whole.arrows:
        source, target = whole.boxes[arrow.source], whole.boxes[arrow.target]
        if source.kind == target.kind == "op" and place[source.name] != place[target.name]:
            assert (place[source.name], place[target.name]) in known
    assert len(shown.boxes) <= max(most, 4)
    for text in (picture.to_svg(whole, most=most), to_dot(whole, most), graph_to_mermaid(whole)):
        assert text


def test_ten_thousand_nodes_side_by_side_are_no_wider_than_a_screen_or_two() -> None:
    graph = outline(chains(100, 100))
    assert width(picture.to_svg(graph)) < 3000  # a hundred boxes beside one another: 22,000
    assert len(collapsed(graph, picture.MOST).boxes) == 100 + 2


def test_the_picture_has_every_op_in_its_legend_and_shares_in_its_boxes() -> None:
    svg = picture.to_svg(outline(transformer(60)))
    for entry in ("gemm", "softmax", "several nodes"):
        assert f">{entry}</text>" in svg
    first = svg.index("l0_q … l0_down")
    bars = re.findall(r'<rect class="(f\d)"[^>]* width="([\d.]+)" height="4"', svg[first:])[:2]
    assert [color for color, _ in bars] == ["f0", "f1"]
    assert float(bars[0][1]) == pytest.approx(4 * float(bars[1][1]), abs=0.2)
    alike = picture.to_svg(outline(chains(60, 4)))
    assert alike.count('class="bx f1"') == 2 * 2 + 1  # two piles of softmax, and the legend
    assert 'height="4"' not in alike
