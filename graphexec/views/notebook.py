"""Plans, graphs and executables in the cells of a notebook: a line and a bounded picture."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING

from graphexec.base.errors import GraphError
from graphexec.base.printable import printable_lines
from graphexec.graph.infer import infer
from graphexec.ir.plan import Launch, Plan
from graphexec.views import graph as picture
from graphexec.views import lanes
from graphexec.views.outline import of_graph
from graphexec.views.table import count

if TYPE_CHECKING:
    from graphexec.ir.graph import Graph


def cell(text: str, svg: str = "") -> str:
    """HTML of a text and a picture, which stands apart: its styles and names touch no others."""
    found = f"<pre>{escape(printable_lines(text))}</pre>"
    if svg:
        data = b64encode(svg.encode()).decode()
        found += f'<img alt="" style="max-width: 100%" src="data:image/svg+xml;base64,{data}">'
    return found


def plan_cell(plan: Plan, title: str = "") -> str:
    """A plan by its picture."""
    streams, launches = len(plan.streams), sum(isinstance(i, Launch) for i in plan.instructions)
    title = title or (f"plan of {plan.graph} on {plan.device}: {count(launches, 'launch')} on "
                      f"{count(streams, 'stream')}")  # fmt: skip
    return cell(title, lanes.to_svg(plan))


def graph_cell(graph: Graph) -> str:
    """A graph by its picture, or by what is wrong with it."""
    try:
        typed = infer(graph)
    except GraphError as exc:
        return cell(f"{graph!r}\n\n{exc}")
    return cell(repr(graph), picture.to_svg(of_graph(typed)))
