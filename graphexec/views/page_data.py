"""The data of each launch and instruction for the script of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphexec.base.printable import printable
from graphexec.base.units import shown
from graphexec.ir.bound_plan import Prediction
from graphexec.ir.plan import HostWait, Instruction, Launch, Plan, Range, Record, Wait
from graphexec.views.outline import Outline
from graphexec.views.predict import predict
from graphexec.views.reasons import reasons
from graphexec.views.table import shape, size
from graphexec.views.transfers import Transfers

if TYPE_CHECKING:
    from graphexec.graph.rewriting import Note
    from graphexec.proof import Hazard
    from graphexec.runtime.trace import Trace


def launches_of(plan: Plan, notes: Sequence[Note] = ()) -> dict[str, list[int]]:
    """The launches (numbers in issue order) that do the work of each node, also of nodes that a
    rewrite took into others; `notes` are what the rewrites say of it."""
    found: dict[str, list[int]] = {}
    launches = [*plan.launches.values()]
    for n, launch in enumerate(launches):
        for node in launch.members:
            found.setdefault(node, []).append(n)
    for note in reversed(notes):  # a later rewrite may remove a node of an earlier one
        heirs = [n for node in note.nodes for n in found.get(node, ())] if note.applied else []
        for node in note.nodes if heirs else ():
            found.setdefault(node, sorted(set(heirs)))
    return found


def page_data(
    plan: Plan, outline: Outline, hazards: Sequence[Hazard], trace: Trace | None,
    notes: Sequence[Note] = (), known: Prediction | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The data: `launches` in issue order, `instructions` as lines of text, `search` the same in
    small letters with nodes and tensors, `why` of each wait, `launchAt` of each instruction that
    is one."""
    why = reasons(plan)
    launches = _Launches(plan, outline, hazards, trace, why, notes, known).all()
    lines = [f"{n:>4}  {_line(i)}" for n, i in enumerate(plan.instructions)]
    search = [line.lower() for line in lines]
    for launch in launches:
        more = " ".join([launch["type"] or "", *launch["nodes"], *launch["reads"],
                         *launch["writes"], *launch["rewrites"]])  # fmt: skip
        search[launch["instruction"]] += f" {more.lower()}"
    return {
        "launches": launches,
        "instructions": lines,
        "search": search,
        "why": {str(n): text for n, text in why.items()},
        "launchAt": {str(launch["instruction"]): n for n, launch in enumerate(launches)},
    }


def _line(i: Instruction) -> str:
    match i:
        case Launch():
            return f"s{i.stream}  {printable(i.title)}  {printable(i.command)}"
        case Record():
            return f"s{i.stream}    record e{i.event}"
        case Wait():
            return f"s{i.stream}    wait e{i.event} ({i.role})"
        case HostWait():
            return f"host  wait e{i.event}"


class _Launches:
    def __init__(
        self, plan: Plan, outline: Outline, hazards: Sequence[Hazard], trace: Trace | None,
        why: Mapping[int, str], notes: Sequence[Note], known: Prediction | None,
    ) -> None:  # fmt: skip
        self.plan, self.why, self.transfers = plan, why, Transfers(plan)
        self.times = predict(plan, known)
        self.lines = {b.name: b.line for b in outline.boxes}
        self.types = {t.name: f"{t.dtype}{shape(t.shape)} · {size(t.bytes)}" for t in plan.tensors}
        self.named: dict[Range, list[str]] = {}
        for t in plan.tensors:
            self.named.setdefault(t.range, []).append(t.name)
        self.spans = {s.instruction: s for s in trace.spans} if trace is not None else {}
        self.told: dict[int, list[str]] = {}
        found = launches_of(plan, notes)
        self.nodes: dict[int, list[str]] = {}
        for node, does in found.items():
            for n in does:
                self.nodes.setdefault(n, []).append(node)
        for note in notes:
            for n in sorted({n for node in note.nodes for n in found.get(node, ())}):
                self.told.setdefault(n, []).append(f"{note.rewrite}: {note.text}")
        self.races: dict[int, list[str]] = {}
        for hazard in hazards:
            for site in hazard.sites:
                self.races.setdefault(site.index, []).append(str(hazard))

    def all(self) -> list[dict[str, Any]]:
        """Every launch; the waits before it on its stream are its own."""
        pending: dict[int, list[dict[str, Any]]] = {}
        found: list[dict[str, Any]] = []
        for number, i in enumerate(self.plan.instructions):
            if isinstance(i, Wait):
                wait = {"instruction": number, "event": i.event, "role": i.role,
                        "why": self.why[number]}  # fmt: skip
                pending.setdefault(i.stream, []).append(wait)
            elif isinstance(i, Launch):
                waits = pending.pop(i.stream, [])
                found.append(self.launch(len(found), number, i) | {"waits": waits})
        return found

    def launch(self, n: int, number: int, i: Launch) -> dict[str, Any]:
        start, end = self.times.start[n], self.times.end[n]
        span = self.spans.get(number)
        tensor = self.transfers.tensor(i)
        return {
            "node": printable(i.title),
            "nodes": [printable(node) for node in self.nodes.get(n, [])],
            "command": printable(i.command),
            "stream": i.stream,
            "instruction": number,
            "type": self.types.get(tensor),
            "line": self.lines.get(tensor),
            "predicted": f"{shown(end - start)}, from {shown(start)} to {shown(end)}",
            "measured": span and f"{shown(span.end - span.start)}, from {shown(span.start)}",
            "reads": [self.range(r) for r in i.reads],
            "writes": [self.range(r) for r in i.writes],
            "rewrites": [printable(text) for text in self.told.get(n, [])],
            "races": self.races.get(number, []),
        }

    def range(self, r: Range) -> str:
        names = ", ".join(map(printable, self.named.get(r, [])[:3]))
        where = f"{printable(r.buffer)}[{r.low}, {r.high}) {size(max(r.high - r.low, 0))}"
        return f"{where} ({names})" if names else where
