"""A graph or a plan as Mermaid, for Markdown files that draw it (GitHub, GitLab and others)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from graphexec.base.printable import printable
from graphexec.ir.bound_plan import Prediction
from graphexec.ir.plan import HostWait, Plan
from graphexec.views.blocks import Block, blocks
from graphexec.views.collapse import collapsed
from graphexec.views.dataflow import data_edges
from graphexec.views.layout import lanes
from graphexec.views.outline import Outline
from graphexec.views.paint import Color, Paint
from graphexec.views.predict import microseconds
from graphexec.views.svg import FILLS, RAMP, TRANSFER
from graphexec.views.table import fit, shape
from graphexec.views.waits import by_launch, wait_ends

if TYPE_CHECKING:
    from graphexec.proof import Hazard

MOST = 200
"""The most nodes that Mermaid draws: it gives up at 500 edges."""
_SHAPES = {"input": ("[/", "/]"), "output": ("[/", "/]"), "weight": ("[(", ")]"),
           "many": ("[[", "]]"), "op": ("[", "]")}  # fmt: skip


def graph_to_mermaid(outline: Outline, most: int = MOST) -> str:
    """The graph as a flowchart. Ends with a newline."""
    shown = collapsed(outline, most)
    lines = ["flowchart TD"]
    for n, box in enumerate(shown.boxes):
        left, right = _SHAPES[box.kind]
        lines.append(f"  n{n}{left}{_text(box.name, f'{box.op} {box.type}')}{right}")
    for a in shown.arrows:
        line = "-.->" if a.order_only else "-->"
        lines.append(f"  n{a.source} {line}{_label(a.label)} n{a.target}")
    return "\n".join(lines) + "\n"


def plan_to_mermaid(
    plan: Plan, most: int = MOST, hazards: Sequence[Hazard] = (), *, color: Color = "stream",
    known: Prediction | None = None,
) -> str:  # fmt: skip
    """The plan as a flowchart, a subgraph a stream, waits dotted, races thick and red."""
    made = blocks(plan, most)
    classes = _classes(plan, made, color, known)
    block = {n: k for k, b in enumerate(made) for n in b.members}
    lines = ["flowchart LR"]
    for stream, row in lanes(plan).items():
        mine = [(k, b) for k, b in enumerate(made) if b.stream == stream]
        if mine:
            lines.append(f'  subgraph s{row}["stream {stream}"]')
            lines += [f"    n{k}[{_text(b.name, b.commands)}]:::{classes[k]}" for k, b in mine]
            lines.append("  end")
    edges = [*_data(plan, block), *_waits(plan, block), *_races(plan, block, hazards)]
    lines += dict.fromkeys(edges)
    ramp = {f"c{n}": fill for n, fill in enumerate(RAMP)}
    fills = {f"f{n}": fill for n, fill in enumerate(FILLS)}
    shown = fills if color == "stream" else ramp if color == "cost" else fills | {"tr": TRANSFER}
    lines += [f"  classDef {name} fill:{fill},stroke:#3F3F3F,color:#1B1B1B"
              for name, fill in shown.items()]  # fmt: skip
    return "\n".join(lines) + "\n"


def _classes(
    plan: Plan, made: Sequence[Block], color: Color, known: Prediction | None
) -> list[str]:  # fmt: skip
    """The class of each block."""
    rows, us = lanes(plan), microseconds(plan, known)
    if color == "stream":
        return [f"f{rows[b.stream] % len(FILLS)}" for b in made]
    paint = Paint(plan, color, us, rows)
    launches = [*plan.launches.values()]
    return [
        paint.of(launches[b.members[0]], sum(us[n] for n in b.members) / len(b.members))
        for b in made
    ]


def _data(plan: Plan, block: dict[int, int]) -> Iterator[str]:
    for e in data_edges(plan):
        if e.writer is not None and block[e.writer] != block[e.reader]:
            label = "" if e.tensor is None else f"{e.tensor.dtype} {shape(e.tensor.shape)}"
            yield f"  n{block[e.writer]} -->{_label(label)} n{block[e.reader]}"


def _waits(plan: Plan, block: dict[int, int]) -> Iterator[str]:
    numbers = {n: block[place] for place, n in enumerate(plan.launches)}
    for ends in by_launch(wait_ends(plan)):
        wait, source = ends.wait, None if ends.before is None else numbers[ends.before]
        if source is None:
            continue
        if isinstance(wait, HostWait):
            yield f"  n{source} -.->|e{wait.event}| host([host])"
        elif ends.after is not None and numbers[ends.after] != source:
            label = f"e{wait.event}" if wait.role == "dependency" else f"e{wait.event} {wait.role}"
            yield f"  n{source} -.->{_label(label)} n{numbers[ends.after]}"


def _races(plan: Plan, block: dict[int, int], hazards: Sequence[Hazard]) -> Iterator[str]:
    indices = [*plan.launches]
    number = {index: n for n, index in enumerate(indices)}
    for h in hazards:
        ends = [block[number[s.index]] for s in h.sites if s.index in number]
        for end in ends:
            yield f"  style n{end} stroke:#D0021B,stroke-width:4px"
        if len(ends) == 2:
            yield f"  n{ends[0]} ==>|{h.kind} race| n{ends[1]}"


def _text(name: str, below: str) -> str:
    return f'"<b>{_escaped(fit(printable(name), 40))}</b><br/>{_escaped(below)}"'


def _label(label: str) -> str:
    return f'|"{_escaped(label)}"|' if label else ""


def _escaped(text: str) -> str:
    """Mermaid reads entities written with # instead of &."""
    return "".join(
        c if c.isalnum() or c in " _.,:;·…×()[]-" else f"#{ord(c)};" for c in printable(text)
    )
