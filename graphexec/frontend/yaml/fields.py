"""Checks of single values in a graph's YAML.

A check returns the value as it was written, in plain Python. When the value is wrong, it notes a
problem and returns a placeholder: no Graph is built once there is a problem.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphexec.base.diagnostics import Mark, place_within
from graphexec.base.expressions import ExpressionError, Number, Want, evaluate, names_in
from graphexec.base.tensor import DType
from graphexec.frontend.yaml.problems import Problems, found, short
from graphexec.frontend.yaml.tree import ListNode, MapNode, Node, ScalarNode
from graphexec.ir.axes import names_of, parse_axes
from graphexec.ir.graph import Dim
from graphexec.ir.names import NAME
from graphexec.ir.op import Attribute

DTYPES = tuple(d.value for d in DType)
NAME_HELP = "letters, digits, '_', '-' and '.', beginning with a letter or '_'"
AXIS = re.compile(r"(0|-?[1-9][0-9]{0,8})\Z")
"""An axis as the key of a mapping: in JSON all keys are texts."""


class Fields:
    """Checks of single values; `names` are the dims and consts expressions may refer to."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.names: Mapping[str, Number] = {}
        self.faulty: set[str] = set()  # dims and consts with a problem that is noted
        self._values: dict[tuple[str, Want], Number | ExpressionError] = {}

    def expected(self, node: Node, what: str, help: str = "") -> None:
        """Note that `what` is expected where something else was found."""
        self.problems.add(node, f"expected {what}, found {found(node)}", help=help)

    def text(self, node: Node, what: str) -> str:
        """A text that is not empty."""
        if isinstance(node, ScalarNode) and isinstance(node.value, str) and node.value:
            return node.value
        number = isinstance(node, ScalarNode) and node.value not in (None, "")
        self.expected(node, what, "put it in quotes" if number else "")
        return ""

    def name(self, node: ScalarNode, what: str) -> str:
        """A name of a tensor or output."""
        name = self.text(node, f"the name of {what}")
        if name and not NAME.match(name):
            self.problems.add(node, f"'{short(name)}' is not a name", help=NAME_HELP)
        return name

    def dtype(self, node: Node) -> str:
        """An element type, by name."""
        return self.choice(node, DTYPES, "dtype")

    def choice(self, node: Node, choices: Sequence[str], what: str) -> str:
        """One of `choices`."""
        value = node.value if isinstance(node, ScalarNode) else None
        if isinstance(value, str) and value in choices:
            return value
        listed = ", ".join(choices)
        if isinstance(value, str):
            self.problems.add(
                node, f"unknown {what} '{short(value)}'", label=f"expected one of: {listed}",
                wrong=value, known=choices,
            )  # fmt: skip
        else:
            self.expected(node, f"one of: {listed}")
        return ""

    def evaluate(self, node: Node, want: Want) -> Number | None:
        """The value of a number or expression; None when it has none (noted)."""
        if not isinstance(node, ScalarNode) or node.value is None:
            kind = "an integer" if want == "int" else "a number"
            self.expected(node, f"{kind} or an expression")
            return None
        result = self._value(node.value, want)
        if not isinstance(result, ExpressionError):
            return result
        if not self.is_faulty(node.value):
            self.note_expression(node, result)
        return None

    def note_expression(self, node: ScalarNode, error: ExpressionError) -> None:
        """Note an expression's error at its place inside the expression where it is known."""
        mark = node.mark
        if error.start is not None:
            source, text = self.problems.source, str(node.value)
            mark = place_within(source, mark, text, error.start, error.length)
        self.problems.add(mark, error.message, help=error.help)

    def _value(self, value: str | Number, want: Want) -> Number | ExpressionError:
        if not isinstance(value, str):
            return _evaluated(value, self.names, want)
        result = self._values.get((value, want))
        if result is None:
            result = self._values[value, want] = _evaluated(value, self.names, want)
        return result

    def is_faulty(self, value: str | Number) -> bool:
        """Whether an expression refers to a dim or const that has a problem."""
        try:
            return isinstance(value, str) and not self.faulty.isdisjoint(names_in(value))
        except ExpressionError:
            return False

    def extent(self, node: Node, may_be_rest: bool = False) -> Dim:
        """An extent: at least 1, or -1 for "the rest" where that is allowed."""
        value = self.evaluate(node, "int")
        if value is None:
            return 1
        assert isinstance(node, ScalarNode)
        if value < 1 and not (may_be_rest and value == -1):
            equal = f" = {value}" if isinstance(node.value, str) else ""
            self.problems.add(
                node, f"an extent must be at least 1, found {short(node.value)}{equal}"
            )
        return node.value if isinstance(node.value, str) else int(value)

    def shape(self, node: Node, marks: dict[str, Mark]) -> tuple[Dim, ...]:
        """A list of extents; notes their places in `marks`."""
        if not isinstance(node, ListNode):
            self.expected(node, "a shape such as [B, S, 64]")
            return ()
        marks["shape"] = node.mark
        for i, item in enumerate(node.items):
            marks[f"shape[{i}]"] = item.mark
        return tuple(self.extent(item) for item in node.items)

    def attribute(self, attribute: Attribute, node: Node) -> Any:
        """An attribute's value by `attribute.kind`; null is allowed if the default is null."""
        if isinstance(node, ScalarNode) and node.value is None and attribute.default is None:
            return None
        return _KINDS[attribute.kind](self, attribute, node)

    # Kinds of attributes ----------------------------------------------------------------

    def _bool(self, attribute: Attribute, node: Node) -> bool:
        if isinstance(node, ScalarNode) and isinstance(node.value, bool):
            return node.value
        self.expected(node, f"true or false for '{attribute.name}'")
        return False

    def _int(self, attribute: Attribute, node: Node) -> Any:
        self.evaluate(node, "int")
        return node.value if isinstance(node, ScalarNode) else 0

    def _number(self, attribute: Attribute, node: Node) -> Any:
        value = node.value if isinstance(node, ScalarNode) else 0
        if isinstance(value, float) and not math.isfinite(value):
            self.problems.add(node, f"'{attribute.name}' must be finite, found {value}")
        else:
            self.evaluate(node, "number")
        return value

    def _dtype(self, attribute: Attribute, node: Node) -> str:
        return self.dtype(node)

    def _choice(self, attribute: Attribute, node: Node) -> str:
        return self.choice(node, attribute.choices, f"choice for '{attribute.name}':")

    def _axes(self, attribute: Attribute, node: Node) -> list[Any]:
        if not isinstance(node, ListNode):
            self.expected(node, f"a list of axes such as [0, 2, 1] for '{attribute.name}'")
            return []
        for item in node.items:
            self.evaluate(item, "int")
        return [item.value if isinstance(item, ScalarNode) else 0 for item in node.items]

    def _axis(self, attribute: Attribute, node: Node) -> Any:
        return (self._axes if isinstance(node, ListNode) else self._int)(attribute, node)

    def _dims(self, attribute: Attribute, node: Node) -> list[Dim]:
        if not isinstance(node, ListNode):
            self.expected(node, f"a list of extents such as [B, -1, 64] for '{attribute.name}'")
            return []
        dims = [self.extent(item, may_be_rest=True) for item in node.items]
        if dims.count(-1) > 1:
            self.problems.add(node, f"only one extent of '{attribute.name}' may be -1")
        return dims

    def _slices(self, attribute: Attribute, node: Node) -> dict[int, list[Any]]:
        if not isinstance(node, MapNode):
            self.expected(
                node, f"a mapping such as {{0: [start, stop, step]}} for '{attribute.name}'"
            )
            return {}
        slices: dict[int, list[Any]] = {}
        for key, value in node.pairs:
            axis = key.value
            if isinstance(axis, str) and AXIS.match(axis):
                axis = int(axis)
            if not isinstance(axis, int) or isinstance(axis, bool) or abs(axis) >= 10**9:
                self.expected(key, "an axis, which is an integer")
            elif axis in slices:
                self.problems.add(key, f"axis {axis} is sliced twice")
            else:
                slices[axis] = self._slice(value)
        return slices

    def _named(self, attribute: Attribute, node: Node) -> str:
        text = self.text(node, f"axes such as B S (H D) -> B H S D for '{attribute.name}'")
        if isinstance(node, ScalarNode) and text and self.faulty.isdisjoint(names_of(text)):
            try:
                parse_axes(text, self.names)
            except ExpressionError as exc:
                self.note_expression(node, exc)
        return text

    def _slice(self, node: Node) -> list[Any]:
        if not isinstance(node, ListNode) or not 1 <= len(node.items) <= 3:
            size = f" of {len(node.items)}" if isinstance(node, ListNode) else ""
            self.problems.add(
                node, f"expected [start, stop, step], found {found(node)}{size}",
                help="null stands for an end, as in [null, 8, 1]",
            )  # fmt: skip
            return []
        for item in node.items:
            if not (isinstance(item, ScalarNode) and item.value is None):
                self.evaluate(item, "int")
        return [item.value if isinstance(item, ScalarNode) else None for item in node.items]


def _evaluated(
    value: str | Number, names: Mapping[str, Number], want: Want
) -> Number | ExpressionError:
    try:
        return evaluate(value, names, want)
    except ExpressionError as exc:
        return exc


_KINDS: dict[str, Callable[[Fields, Attribute, Node], Any]] = {
    "bool": Fields._bool,
    "int": Fields._int,
    "number": Fields._number,
    "dtype": Fields._dtype,
    "choice": Fields._choice,
    "axes": Fields._axes,
    "axis": Fields._axis,
    "dims": Fields._dims,
    "slices": Fields._slices,
    "named": Fields._named,
}
