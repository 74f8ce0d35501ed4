"""Names of tensors inside of blocks: "trunk.3.h", "trunk.h" without repeat, and outputs "trunk.y".

A name may have dots of its own, so each dot may be the one after a node that uses a block.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import NamedTuple, Protocol

_NUMBER = re.compile(r"(0|[1-9][0-9]{0,17})\Z")


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
    dot = name.find(".")
    while dot > 0:
        use = scope.uses(name[:dot])
        if use is not None and use.block in blocks and _is_of(use, blocks, name[dot + 1 :]):
            return True
        dot = name.find(".", dot + 1)
    return False


def _is_of(use: Use, blocks: Mapping[str, Scope], rest: str) -> bool:
    """Whether `rest` names an output or inner tensor of a use."""
    block = blocks[use.block]
    if rest in block.outputs:
        return True
    if use.repeat is not None:
        number, _, rest = rest.partition(".")
        if not _NUMBER.match(number) or int(number) >= use.repeat:
            return False
    return block.makes(rest) or is_inner(block, blocks, rest)


def inner_names(scope: Scope, name: str) -> tuple[str, ...]:
    """A note on the names inside of the use that `name` begins with, if it begins with one."""
    head = name.rpartition(".")[0]
    while head and scope.uses(head) is None:
        head = head.rpartition(".")[0]
    use = scope.uses(head)
    if use is None:
        return ()
    if use.repeat is None:
        return (f"'{head}' is block '{use.block}', whose tensors are {head}.NAME",)
    last = f"{head}.{use.repeat - 1}.NAME"
    times = f"{use.repeat} times" if use.repeat > 1 else "once"
    return (f"'{head}' is block '{use.block}' {times}, whose tensors are {head}.0.NAME to {last}",)
