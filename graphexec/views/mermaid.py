"""A graph or a plan as Mermaid, for Markdown files that draw it (GitHub, GitLab and others)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from graphexec.base.printable import printable
from graphexec.ir.bound_plan import Prediction
from graphexec.ir.plan import Launch, Plan, Record, Wait
from graphexec.views.blocks import MOST, Block, blocks
from graphexec.views.collapse import collapsed
from graphexec.views.dataflow import data_edges
from graphexec.views.layout import lanes
from graphexec.views.outline import Outline
from graphexec.views.paint import Color, Paint
from graphexec.views.predict import microseconds
from graphexec.views.svg import FILLS, OTHER, RAMP, TRANSFER
from graphexec.views.table import count, fit, shape

if TYPE_CHECKING:
    from graphexec.proof import Hazard

_MOST_ARROWS = 480  # Mermaid draws none of more than 500
_MARKS = {"start": "start([start])", "host": "host([host])"}
_Arrow = tuple[str, str, str]
"""From, to, and label."""
_SHAPES = {"input": ("[/", "/]"), "output": ("[/", "/]"), "weight": ("[(", ")]"),
           "state": ("[(", ")]"),
           "many": ("[[", "]]"), "op": ("[", "]")}  # fmt: skip


def graph_to_mermaid(outline: Outline, most: int = MOST) -> str:
    """The graph as a flowchart of at most `most` boxes, fewer where there are too many arrows. Ends
    with a newline."""
    shown = collapsed(outline, most)
    while len(shown.arrows) > _MOST_ARROWS and most > 1:
        most = most * 3 // 4
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
    """The plan as a flowchart, a subgraph a stream, waits dotted, races thick and red; of at most
    `most` boxes, fewer where there are too many arrows."""
    made, arrows = _drawn(plan, most, hazards)
    while len(arrows) > _MOST_ARROWS and most > 1:
        most = most * 3 // 4
        made, arrows = _drawn(plan, most, hazards)
    classes = _classes(plan, made, color, known)
    lines = ["flowchart LR"]
    for stream, row in lanes(plan).items():
        mine = [(k, b) for k, b in enumerate(made) if b.stream == stream]
        if mine:
            lines.append(f'  subgraph s{row}["stream {stream}"]')
            lines += [f"    n{k}[{_text(b.name, b.commands)}]:::{classes[k]}" for k, b in mine]
            lines.append("  end")
    lines += arrows
    ramp = {f"c{n}": fill for n, fill in enumerate(RAMP)}
    fills = {f"f{n}": fill for n, fill in enumerate(FILLS)} | {"ot": OTHER}
    shown = fills if color == "stream" else ramp if color == "cost" else fills | {"tr": TRANSFER}
    lines += [f"  classDef {name} fill:{fill},stroke:#3F3F3F,color:#1B1B1B"
              for name, fill in shown.items() if name in classes]  # fmt: skip
    return "\n".join(lines) + "\n"


def _drawn(plan: Plan, most: int, hazards: Sequence[Hazard]) -> tuple[list[Block], list[str]]:
    """The boxes, and a line for each arrow; those between the same two blocks are one."""
    made = blocks(plan, most)
    block = {n: k for k, b in enumerate(made) for n in b.members}
    lines = [*_merged(_data(plan, block), "-->", "tensor"),
             *_merged(_waits(plan, block), "-.->", "wait"),
             *dict.fromkeys(_races(plan, block, hazards))]  # fmt: skip
    return made, lines


def _merged(arrows: Iterable[_Arrow], line: str, noun: str) -> Iterator[str]:
    same: dict[tuple[str, str], dict[str, None]] = {}
    for source, target, label in arrows:
        same.setdefault((source, target), {})[label] = None
    for (source, target), labels in same.items():
        label = next(iter(labels)) if len(labels) == 1 else count(len(labels), noun)
        yield f"  {_MARKS.get(source, source)} {line}{_label(label)} {_MARKS.get(target, target)}"


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


def _data(plan: Plan, block: dict[int, int]) -> Iterator[_Arrow]:
    for e in data_edges(plan):
        if e.writer is not None and block[e.writer] != block[e.reader]:
            label = "" if e.tensor is None else f"{e.tensor.dtype} {shape(e.tensor.shape)}"
            yield f"n{block[e.writer]}", f"n{block[e.reader]}", label


def _waits(plan: Plan, block: dict[int, int]) -> Iterator[_Arrow]:
    """Waits from the launch before the record, or the start of the run, to the launch behind the
    wait, or to the host: it waits for whatever its stream has waited for."""
    last: dict[int, str] = {}
    waiting: dict[int, dict[str, str]] = {}  # by stream, since its last launch: sources, labels
    records: dict[int, dict[str, str]] = {}  # what each event stands for
    number = 0
    for i in plan.instructions:
        if isinstance(i, Launch):
            here = last[i.stream] = f"n{block[number]}"
            number += 1
            for source, label in waiting.pop(i.stream, {}).items():
                if source != here:
                    yield source, here, label
        elif isinstance(i, Record):
            own = {last[i.stream]: ""} if i.stream in last else {}
            records[i.event] = own | waiting.get(i.stream, {}) or {"start": ""}
        elif i.event in records:
            role = f" {i.role}" if isinstance(i, Wait) and i.role != "dependency" else ""
            found = {source: label or f"e{i.event}{role}"
                     for source, label in records[i.event].items()}  # fmt: skip
            if isinstance(i, Wait):
                waiting[i.stream] = waiting.get(i.stream, {}) | found
            else:
                yield from ((source, "host", label) for source, label in found.items())


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
