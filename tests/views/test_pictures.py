"""Pictures: well-formed, complete, small for large plans, and red where there is a race."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from test_dot import graphviz

import graphexec as gx
from graphexec.ir.plan import Launch, Plan
from graphexec.planning.pipeline import plan_graph
from graphexec.proof import find_hazards
from graphexec.views import graph, lanes, memory, svg
from graphexec.views.collapse import collapsed
from graphexec.views.graph_dot import to_dot as graph_to_dot
from graphexec.views.layers import place
from graphexec.views.listing import memory_to_dict, memory_to_text
from graphexec.views.mermaid import graph_to_mermaid, plan_to_mermaid
from graphexec.views.outline import of_graph
from graphexec.views.recovered import of_plan
from graphexec.views.table import size


def parse(picture: str) -> ElementTree.Element:
    root = ElementTree.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return root


def numbers(picture: str) -> set[int]:
    """The launches that boxes of a picture stand for."""
    found = re.findall(r'data-l="([\d ]+)"', picture)
    return {int(n) for numbers in found for n in numbers.split()}


@pytest.fixture
def compiled():
    return plan_graph(gx.load("graphs/multi_head_attention.yaml"), no_rewrite=["all"])


@pytest.fixture
def racing(attention) -> Plan:
    """Attention in which scores does not wait for k."""
    plan = attention
    kept = tuple(i for i in plan.instructions if getattr(i, "role", "") != "dependency")
    return Plan(plan.graph, plan.device, {}, plan.streams, plan.buffers, plan.tensors, kept)


@pytest.mark.parametrize("color", ["stream", "op", "cost"])
def test_pictures_are_well_formed(attention, awkward, chains, color):
    for plan in (attention, awkward, chains(8, 4), Plan("", "cpu", {}, (), (), (), ())):
        parse(lanes.to_svg(plan, color=color))
        parse(memory.to_svg(plan, color=color))
        parse(graph.to_svg(of_plan(plan)))


def test_every_launch_is_in_the_lanes(chains):
    for most in (10_000, 20):
        plan = chains(8, 4, 10)
        launches = sum(isinstance(i, Launch) for i in plan.instructions)
        assert numbers(lanes.to_svg(plan, most=most)) == set(range(launches))


def test_lanes_never_overlap_and_follow_the_order(chains):
    plan = chains(8, 4, 6)
    boxes: dict[float, list[tuple[float, float]]] = {}
    for rect in parse(lanes.to_svg(plan)).iter("{http://www.w3.org/2000/svg}rect"):
        if "bx" in rect.get("class", "") and rect.get("height") == "36":
            row = boxes.setdefault(float(rect.get("y")), [])
            row.append((float(rect.get("x")), float(rect.get("width"))))
    assert len(boxes) == 4
    for row in boxes.values():
        assert all(x + w <= y for (x, w), (y, _) in pairwise(row))


def test_the_critical_path_and_waits_are_marked(attention):
    picture = lanes.to_svg(attention)
    assert "kn" in picture
    assert " cw" in picture
    assert "&apos;scores&apos; reads" in picture or "'scores' reads 'k'" in picture


def test_races_are_red(racing):
    hazards = find_hazards(racing)
    assert hazards
    picture = lanes.to_svg(racing, hazards=hazards)
    assert 'class="rx"' in picture
    assert "RAW" in picture
    assert " ra" in picture
    assert 'class="rx"' not in lanes.to_svg(racing)
    assert "RAW race" in plan_to_mermaid(racing, hazards=hazards)


def test_large_plans_become_few_boxes(chains):
    plan = chains(8, 4, 300)
    assert lanes.to_svg(plan).count("<rect") < 300
    assert memory.to_svg(plan).count("<rect") < 300
    assert len(collapsed(of_plan(plan), 100).boxes) <= 200


def test_collapsing_keeps_arrows_forward(chains):
    small = collapsed(of_plan(chains(8, 4, 50)), 30)
    assert all(a.source < a.target for a in small.arrows)
    assert sum(len(b.names) for b in small.boxes) == 8 * 50 + 3


def test_hazards_are_written_out_in_whole_words(racing):
    hazards = find_hazards(racing)
    root = parse(lanes.to_svg(racing, hazards=hazards))
    texts = root.iter("{http://www.w3.org/2000/svg}text")
    notes = [t for t in texts if t.get("class") == "rt"]
    told = " ".join("".join(t.itertext()) for t in notes)
    assert all(str(h) in told for h in hazards[:6])
    assert "…" not in told
    width, height = (float(root.get(side, "0")) for side in ("width", "height"))
    assert max(len("".join(t.itertext())) * 6.6 for t in notes) < width
    assert max(float(t.get("y", "0")) for t in notes) < height


@pytest.mark.parametrize("name", ["multi_head_attention", "parallel_branches", "copies"])
@pytest.mark.parametrize("device", ["cpu", "hip"])
def test_the_peak_is_the_same_in_the_picture_and_in_the_text(name, device):
    graph = gx.load(f"graphs/{name}.yaml")
    plan = plan_graph(graph, device=device, streams=4, no_rewrite=["all"]).plan
    peak = memory_to_dict(plan)["peak_bytes"]
    assert f"peak {size(peak)} of {size(plan.stats.arena_bytes)}" in memory.to_svg(plan)
    assert f", peak {size(peak)}," in memory_to_text(plan)
    line = re.search(r'class="pr" d="M[\d.]+ [\d.]+((?:H[\d.]+V[\d.]+)+)V', memory.to_svg(plan))
    assert line
    at = [float(x) for x in re.findall(r"H([\d.]+)", line[1])]
    assert at == sorted(at)


def test_memory_shows_sharing_and_the_peak(compiled):
    picture = memory.to_svg(compiled.plan)
    assert re.search(r"peak \d+ KiB of \d+ KiB", picture)
    assert "probs" in picture
    assert "weights 64.2 KiB beside it" in picture


def test_the_graph_is_what_was_written(compiled):
    outline = of_graph(compiled.graph)
    assert "q_split" in {b.name for b in outline.boxes}  # moves no bytes: not in the plan
    picture = graph.to_svg(outline)
    assert "line 20" in picture
    assert "f32[2, 4, 64, 64]" in picture


def test_rows_of_a_graph_do_not_overlap():
    widths = [50.0, 80.0, 20.0, 60.0, 90.0, 30.0]
    placed = place(widths, [(0, 2), (1, 2), (0, 3), (2, 4), (0, 4), (1, 5)])
    for a in range(6):
        for b in range(a):
            if placed.row[a] == placed.row[b]:
                gap = abs(placed.x[a] - placed.x[b])
                assert gap >= (widths[a] + widths[b]) / 2 - 1e-6
    assert placed.row[4] > placed.row[2] > placed.row[0]


def test_dark_and_light_define_the_same_colours():
    for rules in (svg.LIGHT, svg.DARK):
        assert {".bg", ".tx", ".so", ".la"} <= set(re.findall(r"\.\w+", rules))


# Texts ----------------------------------------------------------------------------------


def test_mermaid(golden, attention, awkward):
    golden("views/attention.mmd", plan_to_mermaid(attention))
    golden("views/attention_graph.mmd", graph_to_mermaid(of_plan(attention)))
    for line in plan_to_mermaid(awkward).splitlines():
        assert line.count('"') % 2 == 0
        assert "\x1b" not in line


def test_dot_of_the_graph(golden, compiled, awkward):
    golden("views/multi_head_graph.dot", graph_to_dot(of_graph(compiled.graph), 100))
    graphviz(graph_to_dot(of_graph(compiled.graph), 100))
    graphviz(graph_to_dot(of_graph(compiled.graph), 4))
    graphviz(graph_to_dot(of_plan(awkward), 100))
