"""A plan as Graphviz DOT: launches coloured by stream, op or cost, data solid, waits dashed.

Nodes are numbered (n0, n1, …) in issue order, so that no name can break the syntax. A wait
runs from the launch before the record to the launch after the wait; where there is none, from
the start of the stream or to the host. Launches that follow one another on a stream without
sharing data are joined by a dotted line. With fewer boxes than launches, a node is a block of
launches (see blocks.py), and edges between the same two nodes are merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from graphexec.base.printable import printable
from graphexec.ir.bound_plan import Prediction
from graphexec.ir.figures import figures
from graphexec.ir.plan import HostWait, Plan, Wait
from graphexec.views.blocks import MOST, Block, blocks
from graphexec.views.dataflow import data_edges
from graphexec.views.dot_boundary import Boundary, Line, typed
from graphexec.views.dot_look import ALARM, FAINT, HEAD, INK, Look
from graphexec.views.dot_syntax import SOFT, attributes, edge, html, label, node, quoted
from graphexec.views.paint import Color
from graphexec.views.svg import FILLS
from graphexec.views.table import count, size
from graphexec.views.waits import wait_ends

if TYPE_CHECKING:
    from graphexec.proof import Hazard

_KEY = f'<font point-size="10" color="{SOFT}">  ── data   ╌╌ wait   ┈┈ stream order</font>'


def to_dot(
    plan: Plan, hazards: Sequence[Hazard] = (), *, color: Color = "stream",
    most: int = MOST, known: Prediction | None = None,
) -> str:  # fmt: skip
    """The plan as a DOT digraph, the same text for the same plan. Ends with a newline.

    Launches are boxes; transfers and buffers have shapes of their own. Edges of data carry
    dtype and shape of the tensor, waits their event. Also draws plans with races, and names
    of any characters. `hazards` are what the verifier found; launches that race are joined in red.
    `known` is the planner's prediction, for colours by cost. Up to `most` launches and
    buffers are a node each; of more, launches become blocks and the buffers of a role one.
    """
    return _Picture(plan, hazards, Look(plan, color, known), most).text()


class _Picture:
    def __init__(
        self, plan: Plan, hazards: Sequence[Hazard], look: Look, most: int
    ) -> None:  # fmt: skip
        self.plan, self.hazards, self.look = plan, hazards, look
        self.launches = [*plan.launches.values()]
        self.host = {b.id for b in plan.buffers if b.space == "host"}
        self.flows = data_edges(plan)
        self.blocks = blocks(plan, most)
        at = {n: k for k, b in enumerate(self.blocks) for n in b.members}
        self.block = [at[n] for n in range(len(self.launches))]
        self.boundary = Boundary(plan, self.launches, self.flows)
        self.few = len(self.blocks) + len(self.boundary.keys) > most
        if self.few:
            self.boundary.take_together()
        self.few = self.few or len(self.blocks) < len(self.launches)

    def text(self) -> str:
        marks, waits = _waits(self.plan, dict(zip(self.plan.launches, self.block, strict=True)))
        sections = {
            "buffers": self.boundary.nodes(),
            "launches, in issue order": map(self.box, range(len(self.blocks)), self.blocks),
            "data": self.drawn([*self.boundary.edges(self.block), *self.data()], "tensor"),
            "stream order": self.drawn(self.stream_order(), "launch"),
            "waits": [*marks, *self.drawn(waits, "wait")],
        }
        if self.hazards:
            sections["races"] = self.races()
        lines = [f"digraph {quoted(self.plan.graph)} {{", HEAD, f"  label=<{self.title()}>;"]
        if self.few:  # merged edges are long: Graphviz would take minutes for the last crossing
            lines.append("  nslimit=1; nslimit1=1;")
        for title, section in sections.items():
            lines += ["", f"  // {title}", *section]
        return "\n".join([*lines, "}", ""])

    def title(self) -> str:
        """Name, figures, and a swatch a stream, op or cost."""
        plan, streams = self.plan, len(self.look.lanes)
        facts = [printable(plan.device)]
        if plan.dims:
            facts.append(" ".join(f"{printable(n)}={v}" for n, v in plan.dims.items()))
        stats = figures(plan)
        facts += [count(stats.waits, "wait"), f"arena {size(stats.arena_bytes)}"]
        if len(self.blocks) < len(self.launches):
            facts.append(f"drawn as {count(len(self.blocks), 'block')}")
        swatches = "".join(
            f'<td bgcolor="{fill}" cellpadding="4">{html(name)}</td>'
            for fill, name in self.look.swatches()
        )
        left_out = streams - len(FILLS) if self.look.paint.by == "stream" else 0
        more = f"<td>and {left_out} more</td>" if left_out > 0 else ""
        return (
            '<table border="0" cellborder="0" cellspacing="4" cellpadding="1"><tr>'
            f'<td align="left"><b>{html(plan.graph)}</b>   '
            f'<font color="{SOFT}">{html(" · ".join(facts))}</font></td></tr>'
            '<tr><td align="left"><table border="0" cellborder="0" cellspacing="4">'
            f"<tr>{swatches}{more}<td>{_KEY}</td></tr></table></td></tr></table>"
        )

    def box(self, number: int, block: Block) -> str:
        first = self.launches[block.members[0]]
        touches_host = any(r.buffer in self.host for r in (*first.reads, *first.writes))
        below = f"{block.commands} · s{block.stream}"
        given = self.look.box(first, block.members) | {"tooltip": f"{block.name}: {below}"}
        if len(block.members) > 1:
            given |= {"peripheries": "2"}
        elif self.look.paint.transfers.of(first) or touches_host:
            given |= {"shape": "parallelogram", "style": "filled", "margin": "0,0.04"}
        return node(f"n{number}", label(block.name, below), given)

    def data(self) -> Iterator[Line]:
        for flow in self.flows:
            if flow.writer is not None:
                straight = self.launches[flow.writer].stream == self.launches[flow.reader].stream
                weight = {"weight": "3"} if straight else {}
                ends = f"n{self.block[flow.writer]}", f"n{self.block[flow.reader]}"
                yield *ends, typed(flow.tensor) | weight

    def stream_order(self) -> Iterator[Line]:
        joined = {(self.block[e.writer], self.block[e.reader])
                  for e in self.flows if e.writer is not None}  # fmt: skip
        last: dict[int, int] = {}
        for number, block in enumerate(self.blocks):
            before = last.get(block.stream)
            if before is not None and (before, number) not in joined:
                color = self.look.stroke(block.stream)
                given = {"style": "dotted", "arrowhead": "none", "color": color, "weight": "2"}
                yield f"n{before}", f"n{number}", given
            last[block.stream] = number

    def races(self) -> Iterator[str]:
        indices = [*self.plan.launches]
        number = {index: self.block[n] for n, index in enumerate(indices)}
        alarm = attributes({"color": ALARM, "penwidth": "4"})
        lines: list[Line] = []
        racing: list[str] = []
        for hazard in self.hazards:
            ends = [f"n{number[site.index]}" for site in hazard.sites if site.index in number]
            racing += ends
            if len(ends) == 2:
                style = {"label": f" {hazard.kind} race ", "color": ALARM, "fontcolor": ALARM,
                         "penwidth": "2.5", "dir": "none", "constraint": "false"}  # fmt: skip
                lines.append((ends[0], ends[1], style))
        yield from (f"  {end} [{alarm}];" for end in dict.fromkeys(racing))
        yield from self.drawn(lines, "race")

    def drawn(self, edges: Iterable[Line], noun: str) -> Iterator[str]:
        """The statements; in a picture of few boxes one for all edges between the same two."""
        if not self.few:
            yield from (edge(*each) for each in edges)
            return
        same: dict[tuple[str, str, str], list[dict[str, str]]] = {}
        for source, target, given in edges:
            if source != target:
                same.setdefault((source, target, given.get("color", "")), []).append(given)
        for (source, target, _), found in same.items():
            label = {"label": f" {count(len(found), noun)} "} if len(found) > 1 else {}
            yield edge(source, target, found[0] | label)


# Waits ----------------------------------------------------------------------------------


def _waits(plan: Plan, block: Mapping[int, int]) -> tuple[list[str], list[Line]]:
    """Marks where waits begin or end without a launch, and their edges. `block` has the block of
    each launch, by the number of its instruction."""
    marks: dict[str, str] = {}
    edges: list[Line] = []
    for ends in wait_ends(plan):
        source = "never" if ends.before is None else f"n{block[ends.before]}"
        if ends.record is None:
            marks[source] = "never recorded"
        elif ends.before is None:
            source = f"start{ends.record.stream}"
            marks[source] = "start"
        target = "host" if ends.after is None else f"n{block[ends.after]}"
        if ends.after is None:
            marks[target] = "host"
        edges.append((source, target, _wait_style(ends.wait)))
    return [_mark(id, text) for id, text in marks.items()], edges


def _mark(id: str, text: str) -> str:
    color = ALARM if id == "never" else SOFT
    shape = {"shape": "oval", "style": "dashed", "height": "0.3"}
    return node(id, quoted(text), shape | {"color": color, "fontcolor": color})


def _wait_style(wait: Wait | HostWait) -> dict[str, str]:
    role = wait.role if isinstance(wait, Wait) else "join"
    color = INK if role == "dependency" else FAINT
    label = f" e{wait.event} " if role == "dependency" else f" e{wait.event} {role} "
    if isinstance(wait, HostWait):
        label = f" e{wait.event} "
    return {"label": label, "style": "dashed", "color": color, "fontcolor": SOFT,
            "arrowhead": "open"}  # fmt: skip
