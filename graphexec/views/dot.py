"""A plan as Graphviz DOT: launches coloured by stream, data solid, waits dashed.

Nodes are numbered (n0, n1, …) in issue order, so that no name can break the syntax. A wait
runs from the launch before the record to the launch after the wait; where there is none, from
the start of the stream or to the host. Launches that follow one another on a stream without
sharing data are joined by a dotted line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from graphexec.plan import HostWait, Launch, PlacedTensor, Plan, Record, Wait
from graphexec.views.dataflow import Edge, data_edges
from graphexec.views.dot_syntax import SOFT, attributes, edge, html, label, node, quoted
from graphexec.views.table import count, printable, shape, size

if TYPE_CHECKING:
    from graphexec.verify import Hazard

# Okabe and Ito's colours, told apart by colour-blind readers, lightened to carry dark text.
FILLS = ("#9AD0F2", "#F7C873", "#8AD3BA", "#E9BCD7", "#F6EE93", "#9FBFE6", "#F2AE85", "#CFCFCF")
_STROKES = ("#1F78A8", "#A56F00", "#00704F", "#97527A", "#857B00", "#004F80", "#A14400", "#555555")
_INK, _SOFT, _FAINT, _ALARM = "#222222", SOFT, "#8A8A8A", "#C0122F"
_KINDS = {"input": "input", "output": "output", "weights": "weight", "arena": "never written"}

_KEY = f'<font point-size="10" color="{_SOFT}">  ── data   ╌╌ wait   ┈┈ stream order</font>'

HEAD = f"""\
  graph [bgcolor=white, nodesep=0.3, ranksep=0.42, labelloc=t, labeljust=l, pad=0.2,
         fontname="Helvetica,Arial,sans-serif", fontsize=14, fontcolor="{_INK}"];
  node  [shape=box, style="filled,rounded", fontname="Helvetica,Arial,sans-serif", fontsize=12,
         penwidth=1.5, margin="0.16,0.06", height=0.45, fontcolor="{_INK}"];
  edge  [fontname="Helvetica,Arial,sans-serif", fontsize=10, fontcolor="{_SOFT}",
         color="{_INK}", arrowsize=0.75];"""


def to_dot(plan: Plan, hazards: Sequence[Hazard] = ()) -> str:
    """The plan as a DOT digraph, the same text for the same plan. Ends with a newline.

    Launches are boxes; transfers and buffers have shapes of their own. Edges of data carry
    dtype and shape of the tensor, waits their event. Also draws plans with races, and names
    of any characters. `hazards` are what the verifier found; launches that race are joined in red.
    """
    launches = [i for i in plan.instructions if isinstance(i, Launch)]
    edges = data_edges(plan)
    boundary = _Boundary(plan, launches, edges)
    waits = list(_waits(plan))
    sections = {
        "buffers": boundary.nodes(),
        "launches, in issue order": _launches(plan, launches),
        "data": [*boundary.edges(), *_data(launches, edges)],
        "stream order": _stream_order(plan, launches, edges),
        "waits": waits,
    }
    if hazards:
        sections["races"] = _races(plan, hazards)
    lines = [f"digraph {quoted(plan.graph)} {{", HEAD, f"  label=<{_title(plan)}>;"]
    for title, section in sections.items():
        lines += ["", f"  // {title}", *section]
    return "\n".join([*lines, "}", ""])


def _title(plan: Plan) -> str:
    """Name, figures, and a swatch a stream."""
    facts = [printable(plan.device)]
    facts += [" ".join(f"{printable(n)}={v}" for n, v in plan.dims.items())] if plan.dims else []
    if plan.stats is not None:
        facts += [count(plan.stats.waits, "wait"), f"arena {size(plan.stats.arena_bytes)}"]
    lanes = list(_lanes(plan).items())
    swatches = "".join(
        f'<td bgcolor="{FILLS[lane % len(FILLS)]}" cellpadding="4">stream {stream}</td>'
        for stream, lane in lanes[: len(FILLS)]
    )
    more = f"<td>and {len(lanes) - len(FILLS)} more</td>" if len(lanes) > len(FILLS) else ""
    return (
        '<table border="0" cellborder="0" cellspacing="4" cellpadding="1"><tr>'
        f'<td align="left"><b>{html(plan.graph)}</b>   '
        f'<font color="{_SOFT}">{html(" · ".join(facts))}</font></td></tr>'
        '<tr><td align="left"><table border="0" cellborder="0" cellspacing="4">'
        f"<tr>{swatches}{more}<td>{_KEY}</td></tr></table></td></tr></table>"
    )


def _lanes(plan: Plan) -> dict[int, int]:
    """Streams in order of their numbers, also those a foreign plan forgot to declare."""
    used = {i.stream for i in plan.instructions if not isinstance(i, HostWait)}
    return {s: lane for lane, s in enumerate(sorted({s.id for s in plan.streams} | used))}


# Launches -------------------------------------------------------------------------------


def _launches(plan: Plan, launches: Iterable[Launch]) -> Iterator[str]:
    lanes = _lanes(plan)
    host = {b.id for b in plan.buffers if b.space == "host"}
    for number, launch in enumerate(launches):
        lane = lanes[launch.stream] % len(FILLS)
        transfer = launch.node.endswith((".h2d", ".d2h"))
        touches_host = any(r.buffer in host for r in (*launch.reads, *launch.writes))
        below = f"{launch.command} · s{launch.stream}"
        attributes = {
            "fillcolor": FILLS[lane],
            "color": _STROKES[lane],
            "tooltip": f"{launch.title}: {below}",
        }
        if transfer or touches_host:
            attributes |= {"shape": "parallelogram", "style": "filled", "margin": "0,0.04"}
        yield node(f"n{number}", label(launch.title, below), attributes)


def _stream_order(plan: Plan, launches: list[Launch], edges: list[Edge]) -> Iterator[str]:
    joined = {(e.writer, e.reader) for e in edges}
    lanes = _lanes(plan)
    last: dict[int, int] = {}
    for number, launch in enumerate(launches):
        before = last.get(launch.stream)
        if before is not None and (before, number) not in joined:
            color = _STROKES[lanes[launch.stream] % len(_STROKES)]
            attributes = {"style": "dotted", "arrowhead": "none", "color": color, "weight": "2"}
            yield edge(f"n{before}", f"n{number}", attributes)
        last[launch.stream] = number


# Data -----------------------------------------------------------------------------------


def _data(launches: list[Launch], edges: list[Edge]) -> Iterator[str]:
    for flow in edges:
        if flow.writer is not None:
            straight = launches[flow.writer].stream == launches[flow.reader].stream
            weight = {"weight": "3"} if straight else {}
            yield edge(f"n{flow.writer}", f"n{flow.reader}", _type(flow.tensor) | weight)


def _type(tensor: PlacedTensor | None) -> dict[str, str]:
    return {} if tensor is None else {"label": f" {tensor.dtype} {shape(tensor.shape)} "}


class _Boundary:
    """Buffers whose bytes come from before the run or are read after it, and their edges."""

    def __init__(self, plan: Plan, launches: list[Launch], edges: list[Edge]) -> None:
        self.launches = launches
        self.by_name = {t.name: t for t in plan.tensors}
        self.buffers = {b.id: b for b in plan.buffers}
        self.before = [e for e in edges if e.writer is None]
        self.read = {e.reader: e.tensor for e in reversed(edges) if e.writer is not None}
        outside = [(b.id, None) for b in plan.buffers if b.role in ("input", "output")]
        weights = [(e.buffer, self._name(e)) for e in self.before]
        self.ids = {key: f"b{n}" for n, key in enumerate(dict.fromkeys([*outside, *weights]))}

    def nodes(self) -> Iterator[str]:
        for (buffer, tensor), id in self.ids.items():
            yield self._node(id, buffer, tensor)

    def edges(self) -> Iterator[str]:
        for flow in self.before:
            target = self.launches[flow.reader].node.removesuffix(".h2d")
            tensor = flow.tensor or self.by_name.get(target)
            yield edge(self.ids[flow.buffer, self._name(flow)], f"n{flow.reader}", _type(tensor))
        for number, launch in enumerate(self.launches):
            for buffer in dict.fromkeys(r.buffer for r in launch.writes):
                if (buffer, None) in self.ids and self.buffers[buffer].role == "output":
                    tensor = self.read.get(number)
                    yield edge(f"n{number}", self.ids[buffer, None], _type(tensor))

    def _name(self, flow: Edge) -> str | None:
        """One node an input or output buffer; several weights may share one buffer."""
        buffer = self.buffers.get(flow.buffer)
        if flow.tensor is None or (buffer is not None and buffer.role in ("input", "output")):
            return None
        return flow.tensor.name

    def _node(self, id: str, buffer_id: str, tensor: str | None) -> str:
        buffer = self.buffers.get(buffer_id)
        role = buffer.role if buffer is not None else "arena"
        name = tensor or buffer_id.removeprefix("in.").removeprefix("out.")
        facts = [_KINDS[role], *([buffer.space] if buffer is not None else [])]
        if tensor is None and buffer is not None:
            facts.append(size(buffer.bytes))
        attributes = {
            "shape": "folder" if role == "weights" else "cylinder",
            "style": "filled",
            "height": "0.65",
            "fillcolor": "#F2F2F2",
            "color": _ALARM if role == "arena" else _SOFT,
            "tooltip": f"{name}: buffer {buffer_id}",
        }
        return node(id, label(name, " · ".join(facts)), attributes)


def _races(plan: Plan, hazards: Sequence[Hazard]) -> Iterator[str]:
    indices = [n for n, i in enumerate(plan.instructions) if isinstance(i, Launch)]
    number = {index: n for n, index in enumerate(indices)}
    for hazard in hazards:
        sites = [s for s in (hazard.first, hazard.second) if s is not None and s.index in number]
        for site in sites:
            alarm = attributes({"color": _ALARM, "penwidth": "4"})
            yield f"  n{number[site.index]} [{alarm}];"
        if len(sites) == 2:
            ends = [f"n{number[site.index]}" for site in sites]
            style = {"label": f" {hazard.kind} race ", "color": _ALARM, "fontcolor": _ALARM,
                     "penwidth": "2.5", "dir": "none", "constraint": "false"}  # fmt: skip
            yield edge(ends[0], ends[1], style)


# Waits ----------------------------------------------------------------------------------


def _waits(plan: Plan) -> Iterator[str]:
    """Edges of waits, and the marks they begin or end at where there is no launch."""
    records, after = _launch_before_record(plan), _launch_after(plan)
    marks: dict[str, str] = {}
    edges: list[str] = []
    for number, instruction in enumerate(plan.instructions):
        if not isinstance(instruction, (Wait, HostWait)):
            continue
        source = records.get(instruction.event, "never")
        target = after.get(number, "host")
        if source.startswith("start"):
            marks[source] = "start"
        elif source == "never":
            marks[source] = "never recorded"
        if target == "host":
            marks[target] = "host"
        edges.append(edge(source, target, _wait_style(instruction)))
    for id, text in marks.items():
        color = _ALARM if id == "never" else _SOFT
        shape = {"shape": "oval", "style": "dashed", "height": "0.3"}
        yield node(id, quoted(text), shape | {"color": color, "fontcolor": color})
    yield from edges


def _wait_style(wait: Wait | HostWait) -> dict[str, str]:
    role = wait.role if isinstance(wait, Wait) else "join"
    color = _INK if role == "dependency" else _FAINT
    label = f" e{wait.event} " if role == "dependency" else f" e{wait.event} {role} "
    if isinstance(wait, HostWait):
        label = f" e{wait.event} "
    return {"label": label, "style": "dashed", "color": color, "fontcolor": color,
            "arrowhead": "open"}  # fmt: skip


def _launch_before_record(plan: Plan) -> dict[int, str]:
    last: dict[int, str] = {}
    found: dict[int, str] = {}
    number = 0
    for instruction in plan.instructions:
        if isinstance(instruction, Launch):
            last[instruction.stream] = f"n{number}"
            number += 1
        elif isinstance(instruction, Record):
            found[instruction.event] = last.get(instruction.stream, f"start{instruction.stream}")
    return found


def _launch_after(plan: Plan) -> dict[int, str]:
    """For each wait, by its place among the instructions, the next launch on its stream."""
    following: dict[int, str] = {}
    found: dict[int, str] = {}
    number = sum(isinstance(i, Launch) for i in plan.instructions)
    for place in range(len(plan.instructions) - 1, -1, -1):
        instruction = plan.instructions[place]
        if isinstance(instruction, Launch):
            number -= 1
            following[instruction.stream] = f"n{number}"
        elif isinstance(instruction, Wait) and instruction.stream in following:
            found[place] = following[instruction.stream]
    return found
