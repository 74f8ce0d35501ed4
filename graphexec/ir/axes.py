"""Axes by name: "B S (H D) -> B H S D" splits, permutes and joins the axes of a tensor.

An axis is a dim or a const with an integer value, or 1. Names side by side in parentheses are one
axis, the last of them fastest. … (or ...), on both sides, is for the axes that are not named, which
keep their order. Every name stands once on either side, so nothing is repeated or summed; 1 may
come and go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from graphexec.base.diagnostics import did_you_mean
from graphexec.base.tokens import ExpressionError
from graphexec.ir.op_error import OpError

_TOKEN = re.compile(r"\s*(?:(?P<name>[A-Za-z_]\w*)|(?P<number>\d+)|(?P<sign>->|…|\.\.\.|[()]))")
_EXAMPLE = "for example 'B S (H D) -> B H S D'"
_MAX_LENGTH = 200


class Axis(NamedTuple):
    """A named axis and its extent; the name of an axis of extent 1 may be "1"."""

    name: str
    extent: int


Group = tuple[Axis, ...]
"""Axes that are one: none for an axis of extent 1."""


class Moved(NamedTuple):
    """How a tensor moves: seen as `split`, its axes are taken in the order `order`."""

    split: tuple[int, ...]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Axes:
    """The two sides; None among the groups is the … for what is left."""

    text: str
    left: tuple[Group | None, ...]
    right: tuple[Group | None, ...]

    def __str__(self) -> str:
        return self.text

    def moved(self, shape: Sequence[int], key: str = "axes") -> Moved:
        """What happens to a tensor of a shape. OpError, blaming `key`, if it does not fit."""
        rest = self._rest(shape, key)
        before = _filled(self.left, rest)
        for number, (group, extent) in enumerate(zip(before, shape, strict=True)):
            if prod(axis.extent for axis in group) != extent:
                wanted = _told(group)
                raise OpError(f"axis {number} of {list(shape)} has {extent} elements, but "
                              f"`axes` says {wanted}", key)  # fmt: skip
        axes = [axis for group in before for axis in group]
        places = {axis.name: place for place, axis in enumerate(axes)}
        order = [places[axis.name] for group in _filled(self.right, rest) for axis in group]
        return Moved(tuple(axis.extent for axis in axes), tuple(order))

    def joined(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the result, in which the axes of a shape so `moved` are joined."""
        left = len(shape) - sum(len(group) for group in self.right if group is not None)
        rest = [(Axis("", extent),) for extent in shape]
        place = sum(len(group or ()) for group in self.right[: self._place_of_rest()])
        groups = _filled(self.right, rest[place : place + left])
        return tuple(prod(axis.extent for axis in group) for group in groups)

    def _place_of_rest(self) -> int:
        return self.right.index(None) if None in self.right else len(self.right)

    def _rest(self, shape: Sequence[int], key: str) -> list[Group]:
        """The axes that … stands for, each by its number."""
        named = sum(group is not None for group in self.left)
        if len(shape) < named or (len(shape) > named and None not in self.left):
            least = "at least " if None in self.left else ""
            raise OpError(
                f"`axes` needs {least}{named} ax{'i' if named == 1 else 'e'}s, found "
                f"{len(shape)}: {list(shape)}", key, help="'…' on both sides is for what is left",
            )  # fmt: skip
        if None not in self.left:
            return []
        first = self.left.index(None)
        last = first + len(shape) - named
        return [(Axis(f"…{i}", shape[i]),) for i in range(first, last)]


def parse_axes(text: str, names: Mapping[str, int | float]) -> Axes:
    """The axes in a text, with the extents that `names` have. Raises ExpressionError."""
    if len(text) > _MAX_LENGTH:
        raise ExpressionError(f"more than {_MAX_LENGTH} characters")
    return _Parser(text, names).parse()


def names_of(text: str) -> set[str]:
    """The names that a text has, right or wrong."""
    return set(re.findall(r"[A-Za-z_]\w*", text))


class _Parser:
    def __init__(self, text: str, names: Mapping[str, int | float]) -> None:
        self.text, self.names = text, names
        self.at, self.length = 0, 1
        self.places: list[dict[str, tuple[int, int]]] = []  # of the names on each side

    def parse(self) -> Axes:
        left = self.side("->")
        right = self.side("")
        self.same_names()
        if (None in left) != (None in right):
            where = "left" if None in left else "right"
            raise ExpressionError(
                f"'…' stands only on the {where}", "on both sides, it is for the axes left"
            )
        return Axes(" ".join(self.text.split()), left, right)

    def side(self, end: str) -> tuple[Group | None, ...]:
        """The groups up to `end`."""
        groups: list[Group | None] = []
        self.places.append({})
        while (token := self.next()) != end:
            if token == "(":
                groups.append(self.group())
            elif token in ("…", "..."):
                if None in groups:
                    raise self.error("'…' stands twice on one side")
                groups.append(None)
            elif token in (")", "->", ""):
                raise self.error(_UNEXPECTED[token], _EXAMPLE)
            else:
                groups.append(self.axis(token))
        return tuple(groups)

    def group(self) -> Group:
        """The names up to a closing parenthesis."""
        opened = self.at - 1
        axes: Group = ()
        while (token := self.next()) != ")":
            if token in ("(", "…", "..."):
                raise self.error(f"'{token}' cannot stand within parentheses", _EXAMPLE)
            if token in ("->", ""):
                raise ExpressionError("'(' is not closed", "", opened)
            axes += self.axis(token)
        return axes

    def axis(self, token: str) -> Group:
        """An axis by its name, or none for 1."""
        if token == "1":
            return ()
        if token.isdecimal():
            raise self.error(f"'{token}' is no axis: only 1 is",
                             "name other extents in dims or consts")  # fmt: skip
        if token not in self.names:
            raise self.error(f"unknown name '{token}'", did_you_mean(token, self.names)
                             or "an axis is a dim, a const, or 1")  # fmt: skip
        if token in self.places[-1]:
            raise self.error(f"'{token}' stands twice on one side")
        self.places[-1][token] = self.at - len(token), len(token)
        extent = self.names[token]
        if not isinstance(extent, int) or extent < 1:
            raise self.error(f"'{token}' is {extent}; an axis needs an integer of at least 1")
        return (Axis(token, extent),)

    def same_names(self) -> None:
        """Every name must be on both sides."""
        left, right = self.places
        for here, other, where, why in (
            (left, right, "left", "nothing is summed over: op reduce does that"),
            (right, left, "right", "nothing is repeated"),
        ):
            for name, place in here.items():
                if name not in other:
                    raise ExpressionError(f"'{name}' stands only on the {where}", why, *place)

    def next(self) -> str:
        """The next token; "" at the end."""
        match = _TOKEN.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
            self.length = len(match[0].strip())
            return match[0].strip()
        rest = self.text[self.at :]
        if rest.strip():
            self.at += len(rest) - len(rest.lstrip()) + 1
            self.length = 1
            raise self.error(f"'{self.text[self.at - 1]}' has no meaning in axes", _EXAMPLE)
        self.length = 0
        return ""

    def error(self, message: str, help: str = "") -> ExpressionError:
        """An error at the token just read."""
        start = min(self.at - self.length, max(0, len(self.text) - 1))
        return ExpressionError(message, help, start, max(1, self.length))


_UNEXPECTED = {
    ")": "')' closes nothing",
    "->": "'->' stands twice",
    "": "there is no '->'",
}


def _filled(groups: Sequence[Group | None], rest: Sequence[Group]) -> list[Group]:
    found: list[Group] = []
    for group in groups:
        found += rest if group is None else [group]
    return found


def _told(group: Group) -> str:
    if not group:
        return "1"
    names = " ".join(axis.name for axis in group)
    if len(group) == 1:
        return f"{names} = {group[0].extent}"
    factors = " · ".join(str(axis.extent) for axis in group)
    return f"({names}) = {factors} = {prod(axis.extent for axis in group)}"
