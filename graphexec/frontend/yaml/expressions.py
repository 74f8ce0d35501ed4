"""Expressions over tensors in a graph's YAML: a node that is a string, and attributes of the kind.

YAML has a say before the grammar has: a comma ends a value in {…} and […], ` #` begins a comment.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from graphexec.base.diagnostics import Diagnostic, Mark, place_within
from graphexec.base.expressions import ExpressionError
from graphexec.base.grammar import WORDS, parse
from graphexec.frontend.yaml.document import Document
from graphexec.frontend.yaml.problems import Problems, short
from graphexec.frontend.yaml.tree import MapNode, Node, ScalarNode
from graphexec.ir.expression import MAP, WITH, names_in, tensors_of
from graphexec.ir.graph import Node as GraphNode
from graphexec.ir.names import SYMBOL
from graphexec.ir.op import Op

COMMAS = "commas split what stands in {…} and […]; put the expression in quotes"

_CUT = re.compile(r"[ \t]+#[ \t]*(?:[-+*/%@<>]|[=!]=|(?:and|or)\b)")


class Expressions:
    """The expressions of one file. `reference` looks up the tensor that a value of `with` names."""

    def __init__(
        self, doc: Document, tensors: Collection[str], ops: Mapping[str, Op],
        reference: Callable[[str, Node, str, list[str]], str],
    ) -> None:  # fmt: skip
        self.doc, self.tensors, self.ops, self.reference = doc, tensors, ops, reference
        self.fields, self.problems = doc.fields, doc.problems
        self.slots = {name: slot for name, op in ops.items() if (slot := op.expression)}
        self.seen: list[ScalarNode] = []  # without quotes

    def is_node(self, value: Node) -> bool:
        """Whether a node is nothing but an expression."""
        return isinstance(value, ScalarNode) and isinstance(value.value, str) and MAP in self.slots

    def node(self, name: str, value: Node, marks: dict[str, Mark], needs: list[str]) -> GraphNode:
        """The node that an expression stands for; its places go into `marks`, and the tensors that
        it reads into `needs`."""
        text, operands = self._read(value, {}, marks)
        self._wait(name, operands, marks, needs)
        slot = self.slots[MAP]
        return GraphNode(name, MAP, operands, {slot: text}, marks={**marks, slot: value.mark})

    def next(
        self, value: Node, marks: dict[str, Mark], is_tensor: Callable[[str], bool]
    ) -> tuple[str, dict[str, str] | None]:
        """The next value of a state: a tensor, or an expression with the tensors that it reads."""
        text = value.value if isinstance(value, ScalarNode) else None
        if isinstance(text, str) and is_tensor(text):
            return text, None
        if MAP not in self.slots:
            self.fields.expected(value, "the name of a tensor for 'next'")
        return self._read(value, {}, marks)

    def attribute(
        self, name: str, op: str, node: MapNode, attrs: dict[str, Any], marks: dict[str, Mark],
        needs: list[str],
    ) -> tuple[dict[str, str], MapNode]:  # fmt: skip
        """The operands of a node that are in its expression, and the node without the keys that
        belong to that; the expression goes into `attrs`."""
        slot = self.slots.get(op)
        if slot is None:
            return {}, node
        pairs = {key.value: value for key, value in node.pairs}
        if slot not in pairs:
            self.problems.add(node, f"node '{short(name)}' lacks '{slot}' of op '{op}'")
            return {}, node
        given = {}
        for key, tensor in self._names(pairs[WITH]) if WITH in pairs else ():
            marks[key] = tensor.mark
            given[key] = self.reference(name, tensor, f"'{key}'", needs)
        attrs[slot], operands = self._read(pairs[slot], given, marks)
        marks[slot] = pairs[slot].mark
        direct = {key: tensor for key, tensor in operands.items() if key not in given}
        self._wait(name, direct, marks, needs)
        if operands:
            self._note_unused(pairs.get(WITH), attrs[slot], operands)
        pieces = is_cut(pairs[slot])
        rest = (p for p in node.pairs if not (pieces and _is_null(p[1])))
        return operands, node._replace(
            pairs=tuple(p for p in rest if p[0].value not in (slot, WITH))
        )

    def _read(
        self, value: Node, given: Mapping[str, str], marks: dict[str, Mark]
    ) -> tuple[str, dict[str, str]]:
        """The text, and the tensors in it by their names in it, whose places go into `marks`.
        Mistakes are noted; there are no tensors then."""
        if not isinstance(value, ScalarNode) or isinstance(value.value, bool | None):
            self.fields.expected(value, "an expression")
            return "", {}
        text = _text(value.value)
        if value.plain:
            self.seen.append(value)
        try:
            numbers = {*self.fields.names, *self.fields.faulty}
            found = tensors_of(text, given, self.tensors, numbers)
        except ExpressionError as exc:
            help = COMMAS if is_cut(value) else self._help(text) or exc.help
            self.fields.note_expression(
                value, ExpressionError(exc.message, help, exc.start, exc.length)
            )
            return text, {}
        for name in names_in(parse(text)):
            place = place_within(self.doc.source, value.mark, text, name.start, name.length)
            if name.name in found:
                marks.setdefault(name.name, place)
        return text, found

    def _wait(
        self, user: str, operands: Mapping[str, str], marks: Mapping[str, Mark], needs: list[str]
    ) -> None:
        """Note that a node waits for tensors."""
        for operand, tensor in operands.items():
            if tensor != user:
                needs.append(tensor)
                continue
            message = f"node '{short(user)}' uses itself"
            self.problems.add(marks[operand], message, label="a cycle of one")

    def _help(self, text: str) -> str:
        """What helps where the whole text is the name of something else."""
        if text in self.ops and text not in self.tensors:
            return f"an op is written as {{op: {text}, …}}"
        if text in self.tensors and not SYMBOL.match(text):
            return f"another name for a tensor is {{op: copy, x: {text}}}"
        return ""

    def _names(self, value: Node) -> Iterator[tuple[str, Node]]:
        """The pairs of `with`: what a tensor is called in the expression, and the tensor."""
        if not isinstance(value, MapNode):
            self.fields.expected(value, f"a mapping such as {{x: trunk.h}} for '{WITH}'")
            return
        for key, tensor in value.pairs:
            name = key.value
            if isinstance(name, str) and SYMBOL.match(name) and name not in WORDS:
                yield name, tensor
            else:
                message = f"'{short(name)}' is not a name expressions can use"
                help = "letters, digits and '_', beginning with a letter or '_'"
                self.problems.add(key, message, help=help)

    def _note_unused(self, value: Node | None, text: str, used: Collection[str]) -> None:
        """Note the names in `with` that the expression does not have."""
        for key, _ in value.pairs if isinstance(value, MapNode) else ():
            if isinstance(key.value, str) and SYMBOL.match(key.value) and key.value not in used:
                self.problems.add(
                    key, f"the expression has no name '{short(key.value)}'",
                    notes=(f"it is {short(text)}",), wrong=key.value, known=list(used),
                )  # fmt: skip

    def cut_short(self) -> list[Diagnostic]:
        """Warnings for expressions that end before ` #` where they seem to go on after it."""
        source = self.doc.source
        if not self.seen or "#" not in source.text:
            return []
        problems = Problems(source)
        starts = [0]
        for line in source.text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        for node in self.seen:
            end = starts[node.line - 1] + node.column - 1 + node.length
            match = _CUT.match(source.text, end)
            if match is not None:
                at = end + match[0].index("#")
                number = bisect_right(starts, at)
                problems.add(
                    Mark(number, at - starts[number - 1] + 1),
                    "the expression ends here: ' #' begins a comment",
                    help="put the expression in quotes if it goes on", severity="warning",
                )  # fmt: skip
        return problems.diagnostics()


def is_cut(value: Node) -> bool:
    """Whether an expression without quotes misses a ')': YAML may have ended it at a comma."""
    return (
        isinstance(value, ScalarNode) and value.plain and isinstance(value.value, str)
        and value.value.count("(") > value.value.count(")")
    )  # fmt: skip


def _is_null(value: Node) -> bool:
    return isinstance(value, ScalarNode) and value.value is None


def _text(value: str | float) -> str:
    """An expression that YAML took for a number, too."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan")
    return str(value)
