"""Names of tensors inside of blocks: "trunk.3.h", "trunk.h" without repeat, and outputs "trunk.y".

A name may have dots of its own, so each dot may be the one after a node that uses a block.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from typing import NamedTuple, Protocol

MAX_LENGTH = 1000  # characters of a name that is looked up inside of blocks

_NUMBER = re.compile(r"(0|[1-9][0-9]{0,17})\.")


class Use(NamedTuple):
    """A use of a block: its name, and how often it is repeated. None: without `repeat`."""

    block: str
    repeat: int | None


class Scope(Protocol):
    """A graph or block, as far as its names need it."""

    @property
    def outputs(self) -> Container[str]:
        """The names of the outputs."""
        ...

    def uses(self, name: str, /) -> Use | None:
        """What the node of this name uses, if it uses a block."""
        ...

    def makes(self, name: str, /) -> bool:
        """Whether it has a weight or node of this name; inputs are not its own."""
        ...


def is_inner(scope: Scope, blocks: Mapping[str, Scope], name: str) -> bool:
    """Whether a name that the scope does not declare is of a tensor inside of a block in it."""
    if len(name) > MAX_LENGTH:
        return False
    places: list[tuple[str | None, int]] = [(None, 0)]  # a block, and where a name in it begins
    for block, start in places:  # grows during the loop
        within = scope if block is None else blocks[block]
        for use, rest in _uses(within, name, start):
            if use.block not in blocks:
                continue
            inner = blocks[use.block]
            if name[rest:] in inner.outputs:
                return True
            begin = _begin(use, name, rest)
            if begin is None or (use.block, begin) in places:
                continue
            if inner.makes(name[begin:]):
                return True
            places.append((use.block, begin))
    return False


def _uses(scope: Scope, name: str, start: int) -> Iterator[tuple[Use, int]]:
    """The uses of blocks that the name may begin with, from `start` on, and where each ends."""
    dot = name.find(".", start)
    while dot > 0:
        use = scope.uses(name[start:dot])
        if use is not None:
            yield use, dot + 1
        dot = name.find(".", dot + 1)


def _begin(use: Use, name: str, start: int) -> int | None:
    """Where the name inside of the block begins: after the number of a repetition, if any."""
    if use.repeat is None:
        return start
    number = _NUMBER.match(name, start)
    return number.end() if number and int(number[1]) < use.repeat else None


def inner_names(scope: Scope, name: str) -> tuple[str, ...]:
    """A note on the names inside of the use that `name` begins with, if it begins with one."""
    found = next(_uses(scope, name[:MAX_LENGTH], 0), None)
    if found is None:
        return ()
    use, end = found
    head = name[: end - 1]
    if use.repeat is None:
        return (f"'{head}' is block '{use.block}', whose tensors are {head}.NAME",)
    last = f"{head}.{use.repeat - 1}.NAME"
    times = f"{use.repeat} times" if use.repeat > 1 else "once"
    return (f"'{head}' is block '{use.block}' {times}, whose tensors are {head}.0.NAME to {last}",)
