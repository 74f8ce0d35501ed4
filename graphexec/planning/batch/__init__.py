"""batch: independent commands with the same work on operands of the same shapes become one.

Requires a Program. Guarantees an equivalent one, in a new order, in which

1. members of a batch are independent of one another, `after` included, and no batch makes a cycle
   (agenda.py);
2. they differ only in the places of their operands (kinds.py);
3. their operands lie at a constant stride, for which their storages are bound to one another in
   groups that `allocate` keeps together, or are the same. A GEMM's may be anywhere: the BLAS then
   gets arrays of pointers (layout.py of planning, merged.py);
4. by the cost model the batch takes less time than its members one after another, and the whole
   program less than before (worth.py).

Commands that `fuse-epilogue` would make one product are batched together or not at all, and judged
by that product (units.py).

No operand is copied. Equal chains merge step by step: eight chains of eight GEMMs become eight
commands. A program in which nothing merges is returned unchanged.

Unsupported: transfers between host and device, commands with several results, kernels without a
recipe, kernels over operands that lie at no constant stride.
"""

from __future__ import annotations

from dataclasses import replace

from graphexec.graph.rewriting import Note, ProgramRewrite, Target
from graphexec.ir.program import Command, GemmBatch, Program
from graphexec.planning import fuse_epilogue
from graphexec.planning.batch.agenda import agenda
from graphexec.planning.batch.units import (
    Merged,
    Unit,
    in_order,
    merged_units,
    needs_of,
    partitioned,
    units_of,
)
from graphexec.planning.batch.worth import faster_as_one, loses
from graphexec.planning.layout import Layout


def apply(program: Program, target: Target) -> tuple[Program, tuple[Note, ...]]:
    """`program` with batches where they save time."""
    fusing = fuse_epilogue.fusing(program, target)
    units = units_of(fusing)
    order = agenda([unit.kind for unit in units], needs_of(units, program.predecessors))
    if all(len(alike) == 1 for alike in order):
        return program, ()
    batching = _Batching(program, target)
    for alike in order:
        batching.take([units[number] for number in alike])
    found = batching.program()
    if found is program:
        return program, tuple(batching.refused)
    against = loses(fusing.apply(), fuse_epilogue.fusing(found, target).apply(), target)
    made = batching.made
    if against is None:
        return found, (*map(_made, made), *batching.refused)
    return program, (*(_apart(c.nodes, against) for c in made), *batching.refused)


def _made(batch: Command) -> Note:
    how = " with arrays of pointers" if isinstance(batch.work, GemmBatch) else ""
    return Note(batch.nodes, f"{_members(batch.nodes)} run as one {batch.label}{how}")


def _apart(nodes: tuple[str, ...], against: str) -> Note:
    return Note(nodes, f"{_members(nodes)} stay apart: {against}", applied=False)


def _members(nodes: tuple[str, ...]) -> str:
    between = "and" if len(nodes) == 2 else "…"
    return f"'{nodes[0]}' {between} '{nodes[-1]}' ({len(nodes)})"


class _Batching:
    """The new program, built command by command."""

    def __init__(self, program: Program, target: Target) -> None:
        self.old, self.target = program, target
        self.layout = Layout(program.storages, program.groups)
        self.commands: list[Command] = []
        self.became: dict[int, int] = {}  # old index to new
        self.made: list[Command] = []
        self.refused: list[Note] = []

    def take(self, alike: list[Unit]) -> None:
        """Add units of one kind: as one batch, as several batches, or unchanged."""
        if len(alike) == 1 or self._merge(alike):
            self._keep(alike if len(alike) == 1 else [])
            return
        why, apart = self._why_apart(alike), list[Unit]()
        for part in partitioned(alike, self.layout):
            if not self._merge(part):
                self._keep(part)
                apart += part
        if why and len(apart) > 1:
            names = tuple(unit.commands[0].node for unit in sorted(apart, key=lambda u: u.indices))
            self.refused.append(_apart(names, why))

    def _keep(self, units: list[Unit]) -> None:
        for unit in units:
            for index, command in zip(unit.indices, unit.commands, strict=True):
                self._add(command, (index,))

    def _merge(self, alike: list[Unit]) -> bool:
        """Add the units as one, command by command, if possible and faster."""
        like, count, costs = alike[0].becomes, len(alike), self.target.costs
        if count < 2 or not faster_as_one(like, count, costs):
            return False
        before = len(self.layout.groups)
        found = self._merged(alike)
        if not found.commands or not faster_as_one(like, count, costs, found.becomes):
            self.layout.forget(before)
            return False
        for command, old in found.commands:
            self._add(command, old)
            if command.nodes:
                self.made.append(command)
        return True

    def _merged(self, alike: list[Unit]) -> Merged:
        return merged_units(in_order(alike, self.layout), self.layout, self.target.support)

    def _why_apart(self, alike: list[Unit]) -> str:
        """Why products with a bias are not one batch although that would be faster; "" for other
        units."""
        like, count, costs = alike[0].becomes, len(alike), self.target.costs
        if len(alike[0].commands) == 1 or not faster_as_one(like, count, costs):
            return ""
        before = len(self.layout.groups)
        found = self._merged(alike)
        self.layout.forget(before)
        slower = "putting the biases into the results first would not be faster"
        never = "no single command puts the biases into the results first"
        return f"{found.why}; {slower if found.commands else never}" if found.why else ""

    def _add(self, command: Command, old: tuple[int, ...]) -> None:
        """Add a command that does the work of old ones."""
        for index in old:
            self.became[index] = len(self.commands)
        if command.after:
            after = tuple(sorted({self.became[i] for i in command.after}))
            command = replace(command, after=after)
        self.commands.append(command)

    def program(self) -> Program:
        """The new program, or the old one if nothing was merged."""
        if not self.made:
            return self.old
        return replace(self.old, commands=tuple(self.commands), groups=tuple(self.layout.groups))


REWRITE = ProgramRewrite(
    "batch", "merges independent commands with the same work where that is faster", apply,
    lengthens=True,
)  # fmt: skip
