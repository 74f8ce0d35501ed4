"""The limit on boxes holds for every picture, and colours and letters are readable."""

import itertools
import re
from dataclasses import replace

import pytest

import graphexec as gx
from graphexec.base.units import shown
from graphexec.cli.drawing import _WRITERS, Drawing, write
from graphexec.graph.infer import infer
from graphexec.ir.plan import Instruction, Launch, Record, Wait
from graphexec.views import graph, lanes, memory, svg
from graphexec.views.blocks import MOST
from graphexec.views.dot import to_dot
from graphexec.views.dot_look import INK
from graphexec.views.graph_dot import to_dot as graph_to_dot
from graphexec.views.mermaid import graph_to_mermaid, plan_to_mermaid
from graphexec.views.outline import of_graph
from graphexec.views.recovered import of_plan

BOX = re.compile(r"^ +n\d+ ?\[", re.MULTILINE)
SVG_BOX = re.compile(r'<rect class="bx [^"]*"[^>]* height="(?!11")')


def narrowing(width: int = 60) -> gx.Graph:
    """Every node reads all before it: as many arrows as there can be."""
    g = gx.Graph("dense")
    x = g.input("x", (8, 8))
    names = [x]
    for n in range(width):
        names.append(g.gemm(names[-1], names[n // 2], name=f"n{n}", after=names[1:]))
    g.output(y=names[-1])
    return g


@pytest.mark.parametrize(("number", "streams", "length"), [(1, 1, 1000), (8, 4, 125), (40, 8, 25)])
@pytest.mark.parametrize("most", [20, MOST, 173])
def test_no_picture_has_more_boxes_than_the_limit(chains, number, streams, length, most):
    plan = chains(number, streams, length)
    outline = of_plan(plan)
    assert len(BOX.findall(to_dot(plan, most=most))) <= most
    assert len(BOX.findall(plan_to_mermaid(plan, most))) <= most
    assert len(BOX.findall(graph_to_dot(outline, most))) <= most
    assert len(re.findall(r"^  n\d+[\[]", graph_to_mermaid(outline, most), re.MULTILINE)) <= most
    assert lanes.to_svg(plan, most=most).count("<g data-l") <= most
    assert memory.to_svg(plan, most=most).count("<g data-t") <= most
    assert graph.to_svg(outline, most=most).count("<g data-n") <= most


def test_a_dot_of_a_thousand_nodes_has_bounded_labels(chains):
    assert to_dot(chains(1, 1, 1000)).count("label=") < 3 * MOST
    assert to_dot(chains(8, 4, 125)).count("label=") < 6 * MOST


def test_mermaid_has_fewer_arrows_than_it_refuses_to_draw(chains):
    dense = of_graph(infer(narrowing()))
    assert len(dense.arrows) > 500
    assert graph_to_mermaid(dense).count("->") <= 500
    crossing = chains(64, 16, 16)  # and each stream waits for each of the others again and again
    steps: list[Instruction] = []
    for i in crossing.instructions:
        steps.append(i)
        if isinstance(i, Launch):
            event = 1000 + len(steps)
            steps += [Record(i.stream, event), *(Wait(s.id, event) for s in crossing.streams[1:])]
    crossing = replace(crossing, instructions=tuple(steps))
    text = plan_to_mermaid(crossing)
    assert text.count("->") <= 500
    assert len(BOX.findall(text)) >= len(crossing.streams)


# Waits in Mermaid -----------------------------------------------------------------------


def test_mermaid_shows_a_fork_before_the_first_launch_and_a_join_after_the_last(sketch):
    s = sketch("two", 2)
    for name in "xyab":
        s.tensor(name, (4, 4))
    s.sync(0, 1, "fork")  # nothing was launched before
    s.input(1, "y")
    s.launch(1, "b", "gemm", "y", "y")
    s.input(0, "x")
    s.launch(0, "a", "gemm", "x", "x")
    s.sync(1, 0, "join")  # nothing is launched after
    text = plan_to_mermaid(s.plan())
    dotted = set(re.findall(r"^  (\w+)\S* -\.->\|(.*?)\| (\w+)", text, re.MULTILINE))
    assert dotted == {("start", '"e0 fork"', "n0"), ("n3", '"e2"', "host"),
                      ("n1", '"e1 join"', "host")}  # fmt: skip


@pytest.mark.parametrize("streams", [2, 3, 5])
def test_the_host_of_mermaid_waits_for_every_branch(sketch, streams):
    """Also through a stream that only hands on."""
    s = sketch("branches", streams)
    for n in range(streams):
        s.tensor(f"t{n}", (4,))
    for n in range(streams):
        s.input(n, f"t{n}")
    for n in range(streams - 1, 0, -1):  # a chain of joins
        s.sync(n, n - 1, "join")
    text = plan_to_mermaid(s.plan())
    found = {int(n) for n in re.findall(r"n(\d+) -\.->\S+(?: \S+)* host\(", text)}
    assert found == set(range(streams))


# Colours --------------------------------------------------------------------------------


def linear(color: str) -> list[float]:
    """Red, green and blue of "#RRGGBB", proportional to light."""
    each = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in each]


def contrast(one: str, two: str) -> float:
    """The contrast ratio of WCAG 2.1."""
    light = sorted(sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear(color), strict=True))
                   for color in (one, two))  # fmt: skip
    return (light[1] + 0.05) / (light[0] + 0.05)


def lab(color: str) -> list[float]:
    """CIELAB, for D65."""
    rows = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    x, y, z = (sum(a * b for a, b in zip(row, linear(color), strict=True)) / w
               for row, w in zip(rows, white, strict=True))  # fmt: skip
    f = [t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z)]
    return [116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])]


def test_letters_stand_out_from_every_box():
    ink = re.search(r"\.in\{fill:(#\w+)\}", svg.SHAPES)[1]
    for fill in (*svg.FILLS, *svg.RAMP, svg.TRANSFER, svg.MIXED, svg.OTHER, svg.WEIGHT):
        assert contrast(ink, fill) >= 4.5
        assert contrast(INK, fill) >= 4.5


@pytest.mark.parametrize("color", ["stream", "op", "cost"])
def test_small_print_on_coloured_nodes_of_dot_is_not_grey(attention, color):
    nodes = [n for n in to_dot(attention, color=color).splitlines() if n.startswith("  n")]
    assert not any(
        "font color" in n or 'point-size="10" color' in n for n in nodes if "->" not in n
    )


def test_no_two_fills_look_alike():
    """Nor those of ops and of inputs, weights and outputs, whose shapes differ as well."""
    others = (svg.OTHER, svg.WEIGHT, svg.TRANSFER)
    pairs = [*itertools.combinations(svg.FILLS, 2), *itertools.product(svg.FILLS, others)]
    for one, two in pairs:
        distance = sum((a - b) ** 2 for a, b in zip(lab(one), lab(two), strict=True)) ** 0.5
        assert distance > 15, (one, two, distance)


@pytest.mark.parametrize("ops", [5, len(svg.FILLS), len(svg.FILLS) + 4])
def test_no_two_ops_have_one_colour_until_there_are_more_than_colours(ops):
    classes = svg.op_classes(f"op{n}" for n in range(ops))
    own = [cls for cls in classes.values() if cls != "ot"]
    assert len(set(own)) == len(own) == min(ops, len(svg.FILLS))
    assert ("ot", "other ops") in svg.legend_of(classes) or ops <= len(svg.FILLS)


# Arrows and times -----------------------------------------------------------------------


def test_the_arrows_of_a_shared_weight_pass_no_box():
    """A chain of which every node reads one weight: its arrows go beside the boxes."""
    g = gx.Graph("shared")
    x, w = g.input("x", (8, 8)), g.input("w", (8, 8))
    for n in range(120):
        x = g.gemm(x, w, name=f"n{n}")
    g.output(y=x)
    drawn = graph.to_svg(of_graph(infer(g)))
    assert len(drawn) < 200_000, "what the arrows have in common is drawn once"
    rect = r'<rect class="bx [^"]*" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="40"'
    boxes = [tuple(map(float, found)) for found in re.findall(rect, drawn)]
    assert len(boxes) == 123
    for d in re.findall(r'class="d" d="M([^"]+)"', drawn):
        points = [float(n) for n in re.findall(r"-?[\d.]+", d)]
        ends = list(zip(points[0::2], points[1::2], strict=True))[::3]  # of its curves
        for px, py in ends[1:-1]:
            assert not any(x < px < x + wide and y < py < y + 40 for x, y, wide in boxes)
        for (_, above), (_, below) in itertools.pairwise(ends):
            assert below - above < 100, "a bend in every row"


@pytest.mark.parametrize(("us", "text"), [
    (9.38, "9.38 µs"), (999.94, "999.9 µs"), (999.96, "1 ms"), (37_550.0, "37.55 ms"),
    (2.5e6, "2.5 s"), (3.2e9, "3200 s"), (4.56e12, "4,560,000 s"), (0.0, "0 µs"),
])  # fmt: skip
def test_times_have_no_exponent(us, text):
    assert shown(us, 4) == text


@pytest.mark.parametrize("view", ["plan", "graph", "memory"])
def test_the_command_draws_no_more_boxes_than_it_says(chains, view):
    drawing = Drawing(chains(4, 2, 120))
    written = {f: write(view, f, drawing) for f in ("svg", "dot", "mermaid") if f in _WRITERS[view]}
    for format, text in written.items():
        count = len(re.findall(r"<g data-[lnt]|^ +n\d+ ?\[", str(text), re.MULTILINE))
        assert 20 < count <= MOST, format
