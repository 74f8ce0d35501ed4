"""The sections `inputs`, `weights`, `nodes` and `outputs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphexec.base.diagnostics import Mark
from graphexec.frontend.yaml.document import NO_OUTPUTS, OUTPUTS_HELP, Document
from graphexec.frontend.yaml.expressions import Expressions
from graphexec.frontend.yaml.problems import found, short
from graphexec.frontend.yaml.tree import ListNode, MapNode, ScalarNode
from graphexec.frontend.yaml.tree import Node as Value
from graphexec.frontend.yaml.weights import read_dtype, read_weights
from graphexec.ir.graph import Graph, Input, Node
from graphexec.ir.names import NAME
from graphexec.ir.op import Attribute, Op
from graphexec.ir.operand import Operand, listed
from graphexec.ir.registry import OWN_OPS

INPUT_KEYS = ("shape", "dtype")
NODE_KEYS = ("op", "after", "shape")


class TensorReader:
    """Fills a graph's tensors. The result is valid only if there were no problems."""

    def __init__(self, doc: Document, graph: Graph) -> None:
        self.doc, self.graph = doc, graph
        self.fields, self.problems = doc.fields, doc.problems
        self.declared: dict[str, ScalarNode] = {}
        self.needs: dict[str, list[str]] = {}  # node → tensors it waits for
        self.slots = {name: _slots(op) for name, op in graph.ops.items()}
        self.expressions = Expressions(doc, self.declared, graph.ops, self._reference)

    def read(self) -> None:
        """Read all four sections; names are collected first, so their order does not matter."""
        sections = {s: list(self.doc.entries(s)) for s in ("inputs", "weights", "nodes")}
        keys = [key for entries in sections.values() for key, _ in entries]
        for key in sorted(keys, key=lambda k: (k.line, k.column)):
            self._declare(key)
        for key, value in sections["inputs"]:
            self._input(str(key.value), value, {"": key.mark})
        read_weights(self.doc, self.graph)
        for key, value in sections["nodes"]:
            self._node(str(key.value), key, value)
        self._outputs()

    def _declare(self, key: ScalarNode) -> None:
        name = str(key.value)
        if not NAME.match(name):
            self.fields.name(key, "a tensor")
        first = self.declared.get(name)
        if first is None:
            self.declared[name] = key
        else:
            self.problems.add(
                key, f"the name '{short(name)}' is used twice",
                notes=(f"first used at {self.doc.place(first.mark)}",),
                help="inputs, weights and nodes share one set of names",
            )  # fmt: skip

    def _input(self, name: str, value: Value, marks: dict[str, Mark]) -> None:
        members = self.doc.members(value, f"input '{short(name)}'", INPUT_KEYS, INPUT_KEYS)
        shape = self.fields.shape(members["shape"][1], marks) if "shape" in members else ()
        dtype = read_dtype(self.doc, members, marks) or ""
        self.graph.inputs[name] = Input(name, shape, dtype, marks)

    # Nodes ------------------------------------------------------------------------------

    def _node(self, name: str, key: ScalarNode, value: Value) -> None:
        marks = {"": key.mark}
        needs = self.needs[name] = []
        if self.expressions.is_node(value):
            self.graph.nodes[name] = self.expressions.node(name, value, marks, needs)
            return
        if not isinstance(value, MapNode):
            what = f"an expression or a mapping such as {{op: …}} for node '{short(name)}'"
            self.fields.expected(value, what)
            return
        op = self._op(name, value)
        slots = self.slots.get(op)
        attrs: dict[str, Any] = {}
        after: tuple[str, ...] = ()
        shape = None
        operands, value = self.expressions.attribute(name, op, value, attrs, marks, needs)
        for field, item in value.pairs:
            slot = field.value
            marks[str(slot)] = item.mark
            if slot == "op":
                continue
            if slot == "after":
                after = self._after(name, item, needs)
            elif slot == "shape":
                shape = self.fields.shape(item, marks)
            elif slots is None:  # an unknown op: anything may be right
                continue
            elif not isinstance(slot, str) or slot not in slots:
                self.doc.unknown_key(field, f"op '{op}'", [*NODE_KEYS, *slots])
            elif isinstance(known := slots[slot], Attribute):
                attrs[slot] = self.fields.attribute(known, item)
            elif known.many:
                operands |= self._list(name, known, item, marks, needs)
            else:
                operands[slot] = self._reference(name, item, f"operand '{slot}'", needs)
        if slots is not None:
            self._check_operands(name, key, self.graph.ops[op], operands)
        self.graph.nodes[name] = Node(name, op, operands, attrs, after, shape, marks)

    def _op(self, name: str, node: MapNode) -> str:
        known = self.graph.ops
        for key, value in node.pairs:
            if key.value == "op":
                op = self.fields.text(value, "the name of an op")
                if op and op not in known:
                    self.problems.add(
                        value, f"unknown op '{short(op)}'",
                        label=f"expected one of: {', '.join(known)}", wrong=op, known=known,
                        help=OWN_OPS,
                    )  # fmt: skip
                return op
        self.problems.add(node, f"node '{short(name)}' needs the key 'op'")
        return ""

    def _list(
        self, name: str, operand: Operand, value: Value, marks: dict[str, Mark], needs: list[str]
    ) -> dict[str, str]:
        """The members of an operand that is a list of tensors; notes their places in `marks`."""
        if not isinstance(value, ListNode) or not value.items:
            empty = " without tensors" if isinstance(value, ListNode) else ""
            self.problems.add(
                value, f"expected a list of tensors such as [a, b] for operand '{operand.name}', "
                f"found {found(value)}{empty}",
            )  # fmt: skip
            return {operand.member(0).name: ""}
        members = {}
        for index, item in enumerate(value.items):
            member = operand.member(index).name
            marks[member] = item.mark
            members[member] = self._reference(name, item, f"operand '{member}'", needs)
        return members

    def _check_operands(
        self, name: str, key: ScalarNode, op: Op, operands: Mapping[str, str]
    ) -> None:
        given = listed(operands)
        for operand in op.operands:
            if operand.name not in given and not operand.optional:
                self.problems.add(
                    key, f"node '{short(name)}' lacks operand '{operand.name}' of op '{op.name}'",
                    label=f"{operand.name}: {operand.text}",
                )  # fmt: skip

    def _after(self, name: str, value: Value, needs: list[str]) -> tuple[str, ...]:
        if not isinstance(value, ListNode):
            self.fields.expected(value, "a list of nodes such as [x, y] for 'after'")
            return ()
        return tuple(self._reference(name, item, "'after'", needs) for item in value.items)

    def _reference(self, user: str, value: Value, what: str, needs: list[str]) -> str:
        """The name of a tensor that must exist."""
        tensor = value.value if isinstance(value, ScalarNode) else None
        if not isinstance(tensor, str):
            self.fields.expected(value, f"the name of a tensor for {what}")
            return ""
        if tensor not in self.declared:
            self.problems.add(
                value, f"there is no tensor '{short(tensor)}'",
                label=f"{what} must name an input, weight or node",
                wrong=tensor, known=self.declared,
            )  # fmt: skip
        elif tensor == user:
            self.problems.add(value, f"node '{short(user)}' uses itself", label="a cycle of one")
        else:
            needs.append(tensor)
        return tensor

    # Outputs ----------------------------------------------------------------------------

    def _outputs(self) -> None:
        if "outputs" not in self.doc.sections:
            return
        key, value = self.doc.sections["outputs"]
        if isinstance(value, ListNode):
            for item in value.items:
                self._output(item, item)
        else:
            for name, tensor in self.doc.entries("outputs"):
                self._output(name, tensor)
        if _is_empty(value):
            self.problems.add(key, NO_OUTPUTS, help=OUTPUTS_HELP)

    def _output(self, key: Value, value: Value) -> None:
        tensor = self._reference("", value, "an output", [])
        if not isinstance(key, ScalarNode) or not isinstance(key.value, str):
            return
        name = tensor if key is value else self.fields.name(key, "an output")
        if name in self.graph.outputs:
            self.problems.add(key, f"the output '{short(name)}' is declared twice")
        self.graph.outputs[name] = tensor
        self.graph.output_marks[name] = value.mark


def _is_empty(value: Value) -> bool:
    if isinstance(value, ScalarNode):
        return value.value is None
    return not (value.items if isinstance(value, ListNode) else value.pairs)


def _slots(op: Op) -> dict[str, Attribute | Operand]:
    """What a node of `op` may set."""
    slots: dict[str, Attribute | Operand] = {operand.name: operand for operand in op.operands}
    return slots | {attribute.name: attribute for attribute in op.attributes}
