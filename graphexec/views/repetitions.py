"""Repetitions of blocks in pictures: "trunk.0.h", "trunk.1.h", … are drawn as "trunk.{i}.h ×12".

The names tell: "trunk.3.h" is of a repetition of `trunk` if there are its repetitions 0 and 1.
Arrows from a repetition to the next are left out, because they would go backward.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from graphexec.views.outline import Arrow, Box, Outline

_NEXT = "next"  # what stands for the next value of a state, in place of an op
_NUMBER = re.compile(r"\.(0|[1-9][0-9]*)(?=\.)")


class Repetition(NamedTuple):
    """One repetition of a block, by the name of the node that uses it."""

    use: str
    number: int


def repetition(name: str) -> Repetition | None:
    """The outermost repetition that a node of this name is in, if any."""
    found = _NUMBER.search(name)
    return None if found is None else Repetition(name[: found.start()], int(found[1]))


def stretches(names: Iterable[str], least: int) -> Iterator[int]:
    """The lengths of stretches of names, of at least `least` but for the last: each ends where a
    repetition does, or at a name that is in none."""
    length = 0
    numbered = ((n, repetition(name)) for n, name in enumerate(names))
    for _, members in groupby(numbered, lambda pair: pair[1] or pair[0]):
        length += sum(1 for _ in members)
        if length >= least:
            yield length
            length = 0
    if length:
        yield length


def folded(outline: Outline) -> Outline:
    """The outline with one box for all repetitions of a node, weight or state."""
    return fold(outline)[0]


def fold(outline: Outline) -> tuple[Outline, tuple[Arrow, ...]]:
    """The outline with one box for all repetitions of a node, weight or state, and the arrows from
    a repetition to the next, which are not in it."""
    groups: dict[object, list[int]] = {}
    repeated = _repeated(box.name for box in outline.boxes)
    for n, box in enumerate(outline.boxes):
        named = box.kind not in ("input", "output") or box.op == _NEXT
        pattern = _pattern(box.name, repeated) if named else box.name
        alone = pattern == box.name
        groups.setdefault(n if alone else (box.kind, box.op, pattern), []).append(n)
    if len(groups) == len(outline.boxes):
        return outline, ()
    whose = {n: at for at, members in enumerate(groups.values()) for n in members}
    boxes = tuple(_one([outline.boxes[n] for n in members], repeated)
                  for members in groups.values())  # fmt: skip
    arrows: dict[tuple[int, int, bool], Arrow] = {}
    for arrow in outline.arrows:
        source, target = whose[arrow.source], whose[arrow.target]
        key = source, target, arrow.order_only
        arrows.setdefault(key, replace(arrow, source=source, target=target))
    forward = tuple(a for a in arrows.values() if a.source < a.target)
    back = tuple(a for a in arrows.values() if a.source >= a.target)
    return Outline(outline.graph, boxes, forward), back


def _repeated(names: Iterable[str]) -> set[str]:
    """The beginnings "trunk." that "0." and "1." follow in names."""
    starts = {
        name[: found.end()] for name in names for found in _NUMBER.finditer(name)
        if found[1] in "01"
    }  # fmt: skip
    uses = (start.removesuffix(".0") for start in starts if start.endswith(".0"))
    return {f"{use}." for use in uses if f"{use}.1" in starts}


def _pattern(name: str, repeated: set[str]) -> str:
    """The name with {i} in place of the numbers of repetitions."""

    def hidden(found: re.Match[str]) -> str:
        return ".{i}" if f"{name[: found.start()]}." in repeated else found[0]

    return _NUMBER.sub(hidden, name)


def _one(members: list[Box], repeated: set[str]) -> Box:
    first = members[0]
    if len(members) == 1:
        return first
    same = all(box.type == first.type for box in members)
    return replace(
        first, name=f"{_pattern(first.name, repeated)} ×{len(members)}",
        type=first.type if same else "", names=tuple(n for box in members for n in box.names),
    )  # fmt: skip
