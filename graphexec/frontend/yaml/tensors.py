"""The sections `inputs`, `weights`, `nodes` and `outputs`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from graphexec.base.diagnostics import Mark
from graphexec.frontend.yaml.document import OUTPUTS_HELP, Document
from graphexec.frontend.yaml.expressions import Expressions
from graphexec.frontend.yaml.problems import found, short
from graphexec.frontend.yaml.ranks import read_cut
from graphexec.frontend.yaml.states import read_states
from graphexec.frontend.yaml.tree import ListNode, MapNode, ScalarNode
from graphexec.frontend.yaml.tree import Node as Value
from graphexec.frontend.yaml.weights import read_dtype, read_weights
from graphexec.ir.graph import Graph, Input, Node
from graphexec.ir.inner import Use, inner_names, is_inner
from graphexec.ir.names import NAME
from graphexec.ir.op import Attribute, Op
from graphexec.ir.operand import Operand, listed
from graphexec.ir.origin import BLOCK
from graphexec.ir.registry import OWN_OPS

INPUT_KEYS = ("shape", "dtype", "cut")
NODE_KEYS = ("op", "after", "shape")
USE_KEYS = ("block", "repeat", "after")

Entry: TypeAlias = "tuple[ScalarNode, Value | None]"


class TensorReader:
    """Fills a graph's tensors. The result is valid only if there were no problems.

    `blocks` are the readers of the blocks that its nodes may use.
    """

    def __init__(
        self, doc: Document, graph: Graph, blocks: Mapping[str, TensorReader] | None = None
    ) -> None:
        self.doc, self.graph = doc, graph
        self.blocks = {} if blocks is None else blocks
        self.used: dict[str, Use] = {}  # the nodes that use blocks
        self.fields, self.problems = doc.fields, doc.problems
        self.declared: dict[str, ScalarNode] = {}
        self.needs: dict[str, list[str]] = {}  # node → tensors it waits for
        self.slots = {name: _slots(op) for name, op in graph.ops.items()}
        self.expressions = Expressions(doc, self.declared, graph.ops, self._reference)

    def declare(self) -> None:
        """Collect all names, so that their order does not matter."""
        nodes = list(self.doc.entries("nodes"))
        kept = [*self.doc.entries("weights"), *self.doc.entries("state")]
        entries = [*self.input_entries(), *kept, *nodes]
        for key in sorted((key for key, _ in entries), key=lambda k: (k.line, k.column)):
            self._declare(key)
        for key, value in nodes:
            if isinstance(value, MapNode):
                self._note_use(str(key.value), value)

    def read(self) -> None:
        """Read all four sections; `declare` comes first."""
        for key, value in self.input_entries():
            self.input(key, value)
        read_weights(self.doc, self.graph)
        for key, value in self.doc.entries("nodes"):
            self._node(str(key.value), key, value)
        read_states(self.doc, self.graph, self.expressions, self.is_tensor)
        self._outputs()

    def is_tensor(self, name: str) -> bool:
        """Whether a tensor of this name may be referred to."""
        return name in self.declared or is_inner(self, self.blocks, name)

    def input_entries(self) -> list[Entry]:
        """The names of inputs, and what is said of them."""
        return list(self.doc.entries("inputs"))

    # What other scopes ask --------------------------------------------------------------

    @property
    def outputs(self) -> Collection[str]:
        """The names of the outputs."""
        if "outputs" not in self.doc.sections:
            return ()
        value = self.doc.sections["outputs"][1]
        nodes = value.items if isinstance(value, ListNode) else [
            key for key, _ in (value.pairs if isinstance(value, MapNode) else ())]  # fmt: skip
        return {str(node.value) for node in nodes if isinstance(node, ScalarNode)}

    def uses(self, name: str) -> Use | None:
        """What the node of this name uses, if it uses a block."""
        return self.used.get(name)

    def makes(self, name: str) -> bool:
        """Whether a weight or node has this name."""
        return name in self.declared and name not in {k.value for k, _ in self.input_entries()}

    # Declarations -----------------------------------------------------------------------

    def _note_use(self, name: str, node: MapNode) -> None:
        pairs = {key.value: value for key, value in node.pairs}
        block = pairs.get("block")
        if not isinstance(block, ScalarNode) or "op" in pairs:
            return
        repeat = None
        if "repeat" in pairs:
            value = self.fields.evaluate(pairs["repeat"], "int")
            repeat = None if value is None else int(value)
        self.used[name] = Use(str(block.value), repeat)

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
                help="inputs, weights, states and nodes share one set of names",
            )  # fmt: skip

    def input(self, key: ScalarNode, value: Value | None) -> None:
        """Read an input."""
        assert value is not None
        name, marks = str(key.value), {"": key.mark}
        members = self.doc.members(value, f"input '{short(name)}'", INPUT_KEYS, INPUT_KEYS[:2])
        shape = self.fields.shape(members["shape"][1], marks) if "shape" in members else ()
        dtype = read_dtype(self.doc, members, marks) or ""
        cut = read_cut(self.doc, members, marks)
        self.graph.inputs[name] = Input(name, shape, dtype, marks, cut)

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
        if name in self.used:
            self.graph.nodes[name] = self._use(name, key, value, marks, needs)
            return
        if "block" in (keys := {k.value: k for k, _ in value.pairs}) and "op" in keys:
            message = f"node '{short(name)}' has an op and uses a block"
            self.problems.add(keys["block"], message, help="leave out 'op' or 'block'")
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

    def _use(
        self, name: str, key: ScalarNode, node: MapNode, marks: dict[str, Mark], needs: list[str]
    ) -> Node:
        """A node that uses a block."""
        called = self.used[name].block
        block = self.blocks.get(called)
        attrs: dict[str, Any] = {BLOCK: called}
        operands: dict[str, str] = {}
        after: tuple[str, ...] = ()
        known = [] if block is None else [str(k.value) for k, _ in block.input_entries()]
        for field, item in node.pairs:
            slot = str(field.value)
            marks[slot] = item.mark
            if slot == "block":
                self._check_block(item, called)
            elif slot == "repeat":
                attrs[slot] = self._repeat(name, item)
            elif slot == "after":
                after = self._after(name, item, needs)
            elif slot in known:
                operands[slot] = self._reference(name, item, f"input '{slot}'", needs)
            elif block is not None:
                self.doc.unknown_key(field, f"block '{short(called)}'", [*USE_KEYS, *known])
        for slot in known:
            if slot not in operands:
                self.problems.add(
                    key, f"node '{short(name)}' lacks input '{slot}' of block '{short(called)}'"
                )
        return Node(name, BLOCK, operands, attrs, after, None, marks)

    def _check_block(self, value: Value, name: str) -> None:
        text = self.fields.text(value, "the name of a block")
        if text and name not in self.blocks:
            self.problems.add(
                value, f"unknown block '{short(name)}'", wrong=name, known=self.blocks,
                label=f"expected one of: {', '.join(self.blocks)}" if self.blocks else "",
                help=f"an op is used as {{op: {name}, …}}" if name in self.graph.ops
                else "" if self.blocks else "blocks are declared in the section 'blocks'",
            )  # fmt: skip

    def _repeat(self, name: str, value: Value) -> Any:
        written = value.value if isinstance(value, ScalarNode) else None
        times = self.used[name].repeat
        if times is not None and times < 1:
            equal = f" = {times}" if isinstance(written, str) else ""
            self.problems.add(value, f"repeat must be at least 1, found {short(written)}{equal}")
        return written

    def _op(self, name: str, node: MapNode) -> str:
        known = self.graph.ops
        for key, value in node.pairs:
            if key.value == "op":
                op = self.fields.text(value, "the name of an op")
                if op and op not in known:
                    self.problems.add(
                        value, f"unknown op '{short(op)}'",
                        label=f"expected one of: {', '.join(known)}", wrong=op, known=known,
                        help=f"a block is used as {{block: {op}, …}}" if op in self.blocks
                        else OWN_OPS,
                    )  # fmt: skip
                return op
        help = "or 'block', to use a block" if self.blocks else ""
        self.problems.add(node, f"node '{short(name)}' needs the key 'op'", help=help)
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
        if not self.is_tensor(tensor):
            self.problems.add(
                value, f"there is no tensor '{short(tensor)}'",
                label=f"{what} must name an input, weight, state or node",
                wrong=tensor, known=self.declared, notes=inner_names(self, tensor),
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
                self.output(item, item)
        else:
            for name, tensor in self.doc.entries("outputs"):
                self.output(name, tensor)
        if _is_empty(value):
            self.problems.add(key, f"{self.doc.what} has no outputs", help=OUTPUTS_HELP)

    def output(self, key: Value, value: Value) -> None:
        """Read an output; in a list its name is that of the tensor."""
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
