"""Where what a block makes comes from: the block, the node that uses it, and the repetition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphexec.base.diagnostics import Mark, Source

BLOCK = "block"
"""The `op` of a node that uses a block; `attrs` hold `block`, its name, and perhaps `repeat`."""


@dataclass(frozen=True)
class Origin:
    """One repetition of a use of a block. `use` is the full name of the node that uses it, `mark`
    its place; `number` is None without `repeat`; `outer` is the repetition that the use is in."""

    block: str
    use: str
    number: int | None = None
    mark: Mark | None = None
    outer: Origin | None = None

    @property
    def prefix(self) -> str:
        """What stands before the names of the block: "trunk.3."."""
        return f"{self.use}." if self.number is None else f"{self.use}.{self.number}."

    def chain(self) -> Iterator[Origin]:
        """This repetition, then those that it is in."""
        inner: Origin | None = self
        while inner is not None:
            yield inner
            inner = inner.outer

    def notes(self, source: Source | None) -> tuple[str, ...]:
        """Who uses the block, for a message: the innermost use first."""
        return tuple(o._note(source) for o in self.chain())

    def _note(self, source: Source | None) -> str:
        which = "" if self.number is None else f", repetition {self.number}"
        return f"block '{self.block}' is used by {at(self.use, self.mark, source)}{which}"


def at(name: str, mark: Mark | None, source: Source | None) -> str:
    """A declaration and its place, as text."""
    place = f" at {source.path}:{mark.line}:{mark.column}" if mark and source else ""
    return f"'{name}'{place}"
