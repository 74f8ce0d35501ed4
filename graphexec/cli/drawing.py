"""The formats of each view, and their functions."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from graphexec.graph.rewriting import Note
    from graphexec.ir.bound_plan import Prediction
    from graphexec.ir.plan import Plan
    from graphexec.ir.typed import TypedGraph
    from graphexec.proof import Hazard
    from graphexec.runtime.trace import Trace
    from graphexec.views.outline import Outline
    from graphexec.views.paint import Color

View = Literal["graph", "plan", "memory"]

ENDINGS = {".txt": "text", ".json": "json", ".dot": "dot", ".gv": "dot", ".svg": "svg",
           ".png": "png", ".html": "html", ".mmd": "mermaid"}  # fmt: skip
FORMATS = tuple(dict.fromkeys(ENDINGS.values()))


@dataclass(frozen=True)
class Drawing:
    """A drawing: its data and options. `graph` is None for a plan that was read from a file, and so
    is `known`, the planner's prediction."""

    plan: Plan
    graph: TypedGraph | None = None
    color: Color = "stream"
    most: int | None = None
    to_terminal: bool = False
    hazards: list[Hazard] = field(default_factory=list)
    trace: Trace | None = None
    notes: tuple[Note, ...] = ()
    known: Prediction | None = None

    @cached_property
    def outline(self) -> Outline:
        """The graph as written, or recovered from the plan."""
        from graphexec.views.outline import of_graph
        from graphexec.views.recovered import of_plan

        return of_plan(self.plan) if self.graph is None else of_graph(self.graph)

    @property
    def ansi(self) -> bool:
        """Whether text may have colours."""
        return self.to_terminal and sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def told(self, text: str) -> str:
        """Text of a plan; a refuted plan begins with its hazards."""
        from graphexec.views.text import refuted

        return f"{refuted(self.hazards, self.ansi)}\n\n{text}" if self.hazards else text

    @property
    def boxes(self) -> int:
        """The most boxes to draw."""
        from graphexec.views.blocks import MOST

        return self.most or MOST


def check_options(
    view: View, format: str, *, color: Color | None, most: int | None, traced: bool
) -> None:  # fmt: skip
    """A UsageError for a given option that the picture cannot use."""
    view = "plan" if format == "html" else view
    drawn = format not in ("text", "json") and not (traced and format != "html")
    what = f"a {format} of a measured run" if traced else f"--view {view} as {format}"
    if most is not None and not drawn:
        raise click.UsageError(f"--max-nodes is for pictures; {what} shows everything.")
    if color is None or (drawn and view != "graph"):
        return
    if drawn and format != "mermaid":
        if color != "op":
            raise click.UsageError(f"--view graph is coloured by op; --color {color} is for "
                                   "pictures of the plan and of memory.")  # fmt: skip
        return
    raise click.UsageError(f"--color is for pictures with colours; {what} has none to choose.")


def write(view: View, format: str, drawing: Drawing) -> str | bytes:
    """The picture or text. A UsageError when a view has no such format."""
    if format == "html":
        view = "plan"  # the page has every view
    writers = _WRITERS[view]
    if format not in writers:
        known = ", ".join(writers)
        raise click.UsageError(f"--view {view} cannot be written as {format}; it can as {known}.")
    return writers[format](drawing)


def format_of(target: Path | None) -> str:
    """The format by the ending of the output file."""
    if target is None:
        return "text"
    if target.suffix not in ENDINGS:
        raise click.UsageError(
            f"'{target}' does not say which format to write: "
            f"end it in {', '.join(ENDINGS)}, or give --format."
        )
    return ENDINGS[target.suffix]


# The plan -------------------------------------------------------------------------------


def _text(d: Drawing) -> str:
    from graphexec.views.text import to_text

    return to_text(d.plan, d.ansi, d.hazards, d.known)


def _dot(d: Drawing) -> str:
    from graphexec.views.dot import to_dot

    return to_dot(d.plan, d.hazards, color=d.color, most=d.boxes, known=d.known)


def _svg(d: Drawing) -> str:
    from graphexec.views import compared
    from graphexec.views.lanes import to_svg

    if d.trace is not None:
        return compared.to_svg(d.plan, d.trace, known=d.known)
    return to_svg(d.plan, color=d.color, most=d.boxes, hazards=d.hazards, known=d.known)


def _png_of(draw: Callable[[Drawing], str]) -> Callable[[Drawing], bytes]:
    """The writer of a PNG, from that of the SVG."""

    def png(d: Drawing) -> bytes:
        from graphexec.views.png import readable, to_png

        return to_png(readable(lambda most: draw(replace(d, most=most)), d.boxes))

    return png


def _html(d: Drawing) -> str:
    from graphexec.views.page import to_html

    return to_html(d.plan, outline=d.outline, hazards=d.hazards, trace=d.trace, color=d.color,
                   most=d.most, notes=d.notes, known=d.known)  # fmt: skip


def _mermaid(d: Drawing) -> str:
    from graphexec.views.mermaid import plan_to_mermaid

    return plan_to_mermaid(d.plan, d.boxes, d.hazards, color=d.color, known=d.known)


# The graph ------------------------------------------------------------------------------


def _graph_svg(d: Drawing) -> str:
    from graphexec.views.graph import to_svg

    return to_svg(d.outline, most=d.boxes)


def _graph_dot(d: Drawing) -> str:
    from graphexec.views.graph_dot import to_dot

    return to_dot(d.outline, d.boxes)


def _graph_mermaid(d: Drawing) -> str:
    from graphexec.views.mermaid import graph_to_mermaid

    return graph_to_mermaid(d.outline, d.boxes)


def _graph_json(d: Drawing) -> str:
    from graphexec.views.outline import to_dict

    return json.dumps(to_dict(d.outline), indent=1, ensure_ascii=False)


def _graph_text(d: Drawing) -> str:
    from graphexec.views.listing import graph_to_text

    return d.told(graph_to_text(d.outline))


# Memory ---------------------------------------------------------------------------------


def _memory_svg(d: Drawing) -> str:
    from graphexec.views.memory import to_svg

    return to_svg(d.plan, color=d.color, most=d.boxes, known=d.known)


def _memory_text(d: Drawing) -> str:
    from graphexec.views.listing import memory_to_text

    return d.told(memory_to_text(d.plan, d.known))


def _memory_json(d: Drawing) -> str:
    from graphexec.views.listing import memory_to_dict

    return json.dumps(memory_to_dict(d.plan, d.known), indent=1, ensure_ascii=False)


_WRITERS: dict[View, dict[str, Callable[[Drawing], str | bytes]]] = {
    "plan": {"text": _text, "json": lambda d: d.plan.to_json(), "dot": _dot, "svg": _svg,
             "png": _png_of(_svg), "html": _html, "mermaid": _mermaid},
    "graph": {"text": _graph_text, "json": _graph_json, "dot": _graph_dot, "svg": _graph_svg,
              "png": _png_of(_graph_svg), "mermaid": _graph_mermaid},
    "memory": {"text": _memory_text, "json": _memory_json, "svg": _memory_svg,
               "png": _png_of(_memory_svg)},
}  # fmt: skip
