"""Inputs, weights and outputs of a plan, as nodes and edges of DOT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphexec.ir.names import port_name
from graphexec.ir.plan import Launch, PlacedTensor, Plan
from graphexec.ir.program import Role
from graphexec.views.dataflow import Edge
from graphexec.views.dot_look import ALARM
from graphexec.views.dot_syntax import SOFT, label, node
from graphexec.views.table import shape, size
from graphexec.views.transfers import Transfers

Line = tuple[str, str, dict[str, str]]
"""An edge: from, to, attributes."""
_KINDS = {"input": "input", "output": "output", "weights": "weight", "state": "state",
          "arena": "never written"}  # fmt: skip


class Boundary:
    """Buffers that are initialised before the run or read after it, and their edges."""

    def __init__(self, plan: Plan, launches: Sequence[Launch], edges: Sequence[Edge]) -> None:
        self.launches, self.transfers = launches, Transfers(plan)
        self.by_name = {t.name: t for t in plan.tensors}
        self.buffers = {b.id: b for b in plan.buffers}
        self.before = [e for e in edges if e.writer is None]
        self.read = {e.reader: e.tensor for e in reversed(edges) if e.writer is not None}
        outside = [(b.id, None) for b in plan.buffers if b.role in ("input", "output")]
        weights = [(e.buffer, self._name(e)) for e in self.before]
        self.keys = list(dict.fromkeys([*outside, *weights]))
        self.ids = {key: f"b{n}" for n, key in enumerate(self.keys)}

    def take_together(self) -> None:
        """Draw the buffers of one role as one."""
        roles = list(dict.fromkeys(self._role(buffer) for buffer, _ in self.keys))
        self.ids = {key: f"b{roles.index(self._role(key[0]))}" for key in self.keys}

    def nodes(self) -> Iterator[str]:
        """A node each, or a node a role."""
        members: dict[str, list[tuple[str, str | None]]] = {}
        for key, id in self.ids.items():
            members.setdefault(id, []).append(key)
        for id, keys in members.items():
            yield self._node(id, *keys[0]) if len(keys) == 1 else self._many(id, keys)

    def edges(self, block: Sequence[int]) -> Iterator[Line]:
        """What is read and written, by which block of launches."""
        for flow in self.before:
            target = self.transfers.tensor(self.launches[flow.reader])
            tensor = flow.tensor or self.by_name.get(target)
            id = self.ids[flow.buffer, self._name(flow)]
            yield id, f"n{block[flow.reader]}", typed(tensor)
        for number, launch in enumerate(self.launches):
            for buffer in dict.fromkeys(r.buffer for r in launch.writes):
                if (buffer, None) in self.ids and self._role(buffer) == "output":
                    tensor = self.read.get(number)
                    yield f"n{block[number]}", self.ids[buffer, None], typed(tensor)

    def _role(self, buffer: str) -> Role:
        return self.buffers[buffer].role if buffer in self.buffers else "arena"

    def _name(self, flow: Edge) -> str | None:
        """One node an input or output buffer; several weights may share one buffer."""
        if flow.tensor is None or self._role(flow.buffer) in ("input", "output"):
            return None
        return flow.tensor.name

    def _node(self, id: str, buffer_id: str, tensor: str | None) -> str:
        buffer = self.buffers.get(buffer_id)
        role = self._role(buffer_id)
        name = tensor or port_name(buffer_id, role)
        facts = [_KINDS[role], *([buffer.space] if buffer is not None else [])]
        if tensor is None and buffer is not None:
            facts.append(size(buffer.bytes))
        tip = {"tooltip": f"{name}: buffer {buffer_id}"}
        return node(id, label(name, " · ".join(facts)), _looks(role) | tip)

    def _many(self, id: str, keys: Sequence[tuple[str, str | None]]) -> str:
        role, first, last = self._role(keys[0][0]), keys[0], keys[-1]
        names = f"{first[1] or first[0]} … {last[1] or last[0]}"
        below = f"{len(keys)} × {_KINDS[role]}"
        tip = {"tooltip": f"{names}: {below}", "peripheries": "2"}
        return node(id, label(names, below), _looks(role) | tip)


def _looks(role: str) -> dict[str, str]:
    return {
        "shape": "folder" if role in ("weights", "state") else "cylinder",
        "style": "filled",
        "height": "0.65",
        "fillcolor": "#F2F2F2",
        "color": ALARM if role == "arena" else SOFT,
    }


def typed(tensor: PlacedTensor | None) -> dict[str, str]:
    """The label of an edge: dtype and shape, where they are known."""
    return {} if tensor is None else {"label": f" {tensor.dtype} {shape(tensor.shape)} "}
