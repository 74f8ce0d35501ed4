"""What a notebook shows of plans, graphs and executables."""

from __future__ import annotations

import base64
import re
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest

import graphexec as gx
from graphexec.machine.costs import GPU
from graphexec.views.lanes import to_svg

GRAPHS = Path(__file__).parents[2] / "graphs"


def _shown(html: str) -> tuple[str, str]:
    found = re.fullmatch(
        r'<pre>(.*)</pre><img alt="" style="[^"]*" src="data:image/svg\+xml;base64,([^"]*)">',
        html, re.DOTALL,
    )  # fmt: skip
    assert found is not None
    svg = base64.b64decode(found[2]).decode()
    ElementTree.fromstring(svg)
    return unescape(found[1]), svg


def test_a_plan_is_its_picture() -> None:
    plan = gx.make_plan(gx.load(GRAPHS / "diamond.yaml"), streams=2, costs=GPU)
    text, svg = _shown(plan._repr_html_())
    assert text == "plan of diamond on cpu: 11 launches on 2 streams"
    assert svg == plan.to_svg() == to_svg(plan)


def test_a_graph_and_an_executable_are_pictures() -> None:
    graph = gx.load(GRAPHS / "attention.yaml", dims={"S": 16})
    text, svg = _shown(graph._repr_html_())
    assert text == repr(graph)
    assert "scores" in svg
    with gx.compile(graph, device="cpu") as exe:
        text, svg = _shown(exe._repr_html_())
        assert text == repr(exe)
        assert svg == exe.plan.to_svg()


def test_a_wrong_graph_says_what_is_wrong() -> None:
    graph = gx.Graph("wrong<b>")
    graph.input("x", (3, 5))
    graph.gemm("x", "x", name="y")
    shown = graph._repr_html_()
    assert shown.startswith("<pre>Graph(&#x27;wrong&lt;b&gt;")
    assert "error: " in shown
    assert "img" not in shown


@pytest.mark.parametrize("nodes", [2000])
def test_a_large_one_has_a_bounded_size(nodes: int) -> None:
    graph = gx.Graph()
    at = graph.input("x", (2, 2))
    for _ in range(nodes):
        at = graph.softmax(at)
    graph.output(y=at)
    assert len(graph._repr_html_()) < 400_000
    assert len(gx.make_plan(graph)._repr_html_()) < 400_000
