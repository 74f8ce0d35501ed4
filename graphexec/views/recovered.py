"""The graph that a plan computes, recovered from the bytes that its launches read and write.

A node is one box for all its launches, at the place of its last launch, so that all its operands
come before it. Inputs, weights and outputs that launches access directly have a box, unless a
transfer has one. Nodes that move no bytes are not in the plan.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphexec.ir.names import port_name
from graphexec.ir.plan import Launch, PlacedTensor, Plan
from graphexec.ir.program import Direction
from graphexec.views.dataflow import data_edges
from graphexec.views.outline import Arrow, Box, Kind, Outline
from graphexec.views.table import shape
from graphexec.views.transfers import Transfers

_TRANSFERS: dict[Direction, Kind] = {"h2d": "input", "d2h": "output"}


def of_plan(plan: Plan) -> Outline:
    """The outline of `plan`; arrows that would go backward, as races may, are left out."""
    return _Recovered(plan).outline()


class _Recovered:
    def __init__(self, plan: Plan) -> None:
        self.plan, self.transfers = plan, Transfers(plan)
        self.types = {t.name: _type(t) for t in plan.tensors}
        self.roles = {b.id: b.role for b in plan.buffers}
        self.nodes: dict[str, list[Launch]] = {}
        self.launches = [*plan.launches.values()]
        for launch in self.launches:
            mine = self.nodes.pop(self.key(launch), [])
            self.nodes[self.key(launch)] = [*mine, launch]  # where its last launch is

    def key(self, launch: Launch) -> str:
        """Launches with the same key are one box: those of a node; a tensor may be copied out to
        several outputs."""
        return f"{launch.node} {self.outer(launch)}" if self.transfers.of(launch) else launch.node

    def outer(self, launch: Launch) -> str:
        """The name of the input or output that a transfer moves."""
        outside = (port_name(r.buffer, self.roles[r.buffer])
                   for r in (*launch.reads, *launch.writes)
                   if self.roles.get(r.buffer) in ("input", "output"))  # fmt: skip
        return next(outside, self.transfers.tensor(launch))

    def outline(self) -> Outline:
        ops = {node: self.box(launches) for node, launches in self.nodes.items()}
        before: dict[str, Box] = {}
        links: dict[tuple[str, str, str], str] = {}  # from, to, tensor: its type
        for edge in data_edges(self.plan):
            reader = self.key(self.launches[edge.reader])
            name, label = ("", "") if (t := edge.tensor) is None else (t.name, _type(t))
            if edge.writer is not None:
                links[self.key(self.launches[edge.writer]), reader, name] = label
            elif ops[reader].kind != "input" and (box := self.given(edge.buffer, edge.tensor)):
                before[key := f"before {box.name}"] = box
                links[key, reader, name] = box.type
        after = dict(self.taken())
        boxes = before | ops | {key: box for key, (_, box) in after.items()}
        links |= {(node, key, ""): box.type for key, (node, box) in after.items()}
        at = {key: n for n, key in enumerate(boxes)}
        arrows = [Arrow(at[s], at[t], label) for (s, t, _), label in links.items() if at[s] < at[t]]
        return Outline(self.plan.graph, tuple(boxes.values()), tuple(arrows))

    def box(self, launches: list[Launch]) -> Box:
        """A node, or the input or output that a transfer moves."""
        first = launches[0]
        direction = self.transfers.of(first)
        if direction is not None:
            kind, type = _TRANSFERS[direction], self.types.get(self.transfers.tensor(first), "")
            return Box(kind, self.outer(first), kind, type, None, (first.node,))
        op = " + ".join(dict.fromkeys(i.command for i in launches))
        names = tuple(dict.fromkeys(name for i in launches for name in i.members))
        title = max(launches, key=lambda i: len(i.members)).title
        return Box("op", title, op, self.types.get(first.node, ""), None, names)

    def given(self, buffer: str, tensor: PlacedTensor | None) -> Box | None:
        """The input or weight that a buffer holds before the run."""
        role = self.roles.get(buffer)
        kinds: dict[str, Kind] = {"input": "input", "weights": "weight", "state": "state"}
        kind = kinds.get(role) if role is not None else None
        if role is None or kind is None:
            return None
        name = tensor.name if tensor is not None else port_name(buffer, role)
        return Box(kind, name, kind, self.types.get(name, ""))

    def taken(self) -> Iterator[tuple[str, tuple[str, Box]]]:
        """Outputs that a node writes without a transfer, each by the last to do so."""
        for launch in self.launches:
            for written in launch.writes:
                if self.roles.get(written.buffer) == "output" and not self.transfers.of(launch):
                    name = port_name(written.buffer, "output")
                    type = self.types.get(launch.node_of(written), "")
                    yield f"after {name}", (launch.node, Box("output", name, "output", type))


def _type(tensor: PlacedTensor) -> str:
    return f"{tensor.dtype}{shape(tensor.shape)}"
