"""One self-contained HTML page that explains a plan: pictures, instructions and text, linked.

The template is page.html with page.css and page.js beside it. The page needs no network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING

from graphexec.base.printable import printable
from graphexec.ir.bound_plan import Prediction
from graphexec.ir.figures import figures
from graphexec.ir.plan import Plan
from graphexec.proof import find_hazards
from graphexec.views import compared, graph, lanes, memory, svg
from graphexec.views.blocks import MOST
from graphexec.views.certificate import certificate
from graphexec.views.outline import Outline
from graphexec.views.page_data import launches_of, page_data
from graphexec.views.recovered import of_plan
from graphexec.views.table import count, size

if TYPE_CHECKING:
    from graphexec.graph.rewriting import Note
    from graphexec.proof import Hazard
    from graphexec.runtime.trace import Trace
    from graphexec.views.paint import Color

_EVERY = 1200  # launches up to which each is drawn

_DARK_PAGE = (
    "color-scheme:dark;--ground:#16181B;--ink:#ECECEC;--soft:#AEB4BA;--edge:#3A4048;"
    "--raised:#22262B;--chosen:#24485E;--good:#8AD3BA;--bad:#FF6B75;--ring:#FF4D5A;"
)


def to_html(
    plan: Plan, *, outline: Outline | None = None, hazards: Sequence[Hazard] | None = None,
    trace: Trace | None = None, color: Color = "stream", most: int | None = None,
    notes: Sequence[Note] = (), known: Prediction | None = None,
) -> str:  # fmt: skip
    """The page. `outline` is the graph (by default recovered from the plan), `trace` a run to show
    under the prediction, `notes` are those of the rewrites, `known` is the planner's prediction.
    Without `hazards` the plan is verified here, so that the certificate is always checked."""
    if hazards is None:
        hazards = find_hazards(plan)
    outline = outline or of_plan(plan)
    launches = len(plan.launches)
    written = sum(len(i.writes) for i in plan.launches.values())
    boxes = most or (max(launches, written) if launches <= _EVERY else MOST)
    data = page_data(plan, outline, hazards, trace, notes, known)
    pieces = {
        "title": svg.escape(plan.graph),
        "facts": svg.escape(_facts(plan, launches)),
        "verdict": "refuted" if hazards else "proved",
        "certificate": "\n".join(map(svg.escape, certificate(plan, hazards).splitlines())),
        "rewrites": _rewrites(notes),
        "style": _style(),
        "arrow": svg.ARROW,
        "pictures": _pictures(plan, outline, hazards, trace, color, boxes, most, notes, known),
        # HTML ends a script at "</", also inside quotes.
        "data": json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
        "script": _read("page.js"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: pieces[found[1]], _read("page.html"))


def _facts(plan: Plan, launches: int) -> str:
    facts = [f"on {printable(plan.device)}", count(launches, "launch"),
             count(len(plan.streams), "stream")]  # fmt: skip
    facts += [" ".join(f"{printable(n)}={v}" for n, v in plan.dims.items())] if plan.dims else []
    facts.append(f"arena {size(figures(plan).arena_bytes)}")
    return " · ".join(facts)


def _pictures(
    plan: Plan, outline: Outline, hazards: Sequence[Hazard], trace: Trace | None, color: Color,
    boxes: int, most: int | None, notes: Sequence[Note], known: Prediction | None,
) -> str:  # fmt: skip
    shown = {
        "Plan: a lane a stream": lanes.to_svg(
            plan, color=color, most=boxes, hazards=hazards, inline=True, known=known
        ),
        "Memory: bytes over the run": memory.to_svg(
            plan, color=color, most=boxes, inline=True, known=known
        ),
        "Graph: as written": graph.to_svg(
            outline, most=most or max(boxes, MOST),
            launches=_numbers(plan, notes), inline=True,
        ),
    }  # fmt: skip
    if trace is not None:
        run = compared.to_svg(plan, trace, inline=True, known=known)
        shown = {"Run: predicted and measured": run} | shown
    return "\n".join(
        f'<details open><summary>{name}</summary><div class="picture">{picture}</div></details>'
        for name, picture in shown.items()
    )


def _numbers(plan: Plan, notes: Sequence[Note]) -> Mapping[str, str]:
    """The launches of each node, for the boxes of the graph."""
    return {node: " ".join(map(str, numbers)) for node, numbers in launches_of(plan, notes).items()}


def _rewrites(notes: Sequence[Note]) -> str:
    """The notes of the rewrites, folded."""
    done = [f"<li>{svg.escape(f'{note.rewrite}: {note.text}')}</li>" for note in notes
            if note.applied]  # fmt: skip
    if not done:
        return ""
    many = count(len(done), "rewrite")
    head = f"<summary>{many} of what was written</summary>"
    return f'<details id="rewrites">{head}<ul>{"".join(done)}</ul></details>'


def _style() -> str:
    """The style of the page and the pictures; dark if the reader or the button chooses it."""
    dark = f"{{{_DARK_PAGE}\n{svg.DARK}}}"
    system = f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){dark}}}"
    light = ":root[data-theme=light]{color-scheme:light}"
    ours = f"{svg.SHAPES}\n{svg.LIGHT}\n{light}"
    return f"{ours}\n{system}\n:root[data-theme=dark]{dark}\n{_read('page.css')}"


def _read(name: str) -> str:
    return resources.files("graphexec.views").joinpath(name).read_text(encoding="utf-8")
