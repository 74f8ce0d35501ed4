"""batch: independent commands with the same work on operands of the same shapes become one.

Requires a Program. Guarantees an equivalent one, in a new order, in which

1. members of a batch are independent of one another, `after` included, and no batch makes a cycle
   (agenda.py);
2. they differ only in the places of their operands (kinds.py);
3. their operands lie at a constant stride, for which their storages are bound to one another in
   groups that `allocate` keeps together, or are the same. A GEMM's may be anywhere: the BLAS then
   gets arrays of pointers, and biases are written into the results first. If that is not possible
   either, the commands stay apart (layout.py, merged.py, biases.py);
4. by the cost model the batch takes less time than its members one after another, and the whole
   program less than before (worth.py).

No operand is copied. Equal chains merge step by step: eight chains of eight GEMMs become eight
commands. A program in which nothing merges is returned unchanged.

Unsupported: transfers between host and device, commands with several results, kernels without a
recipe, kernels over operands that lie at no constant stride.
"""

from __future__ import annotations

from dataclasses import replace

from graphexec.graph.rewriting import Note, ProgramRewrite, Target
from graphexec.ir.program import Command, Gemm, GemmBatch, Program
from graphexec.planning.batch.agenda import agenda
from graphexec.planning.batch.biases import why_apart
from graphexec.planning.batch.kinds import kind_of
from graphexec.planning.batch.layout import Layout
from graphexec.planning.batch.merged import merged, partitioned
from graphexec.planning.batch.worth import faster_as_one, loses


def apply(program: Program, target: Target) -> tuple[Program, tuple[Note, ...]]:
    """`program` with batches where they save time."""
    kinds = [kind_of(command, program.storages) for command in program.commands]
    order = agenda(kinds, program.predecessors)
    if all(len(alike) == 1 for alike in order):
        return program, ()
    batching = _Batching(program, target)
    for alike in order:
        batching.take(alike)
    found = batching.program()
    if found is program:
        return program, tuple(batching.refused)
    against = loses(program, found, target)
    made = [c for c in found.commands if c.nodes]
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
        self.layout = Layout(program.storages)
        self.commands: list[Command] = []
        self.became: dict[int, int] = {}  # old index to new
        self.batches = 0
        self.refused: list[Note] = []

    def take(self, alike: list[int]) -> None:
        """Add commands of one kind: as one batch, as several, or unmerged."""
        if len(alike) > 1:
            if self._merge(alike):
                return
            why, apart = self._why_apart(alike), list[int]()
            for part in partitioned(alike, self.old.commands, self.layout):
                if not self._merge(part):
                    self._keep(part)
                    apart += part
            if why and len(apart) > 1:
                nodes = tuple(self.old.commands[index].node for index in sorted(apart))
                self.refused.append(_apart(nodes, why))
            return
        self._keep(alike)

    def _keep(self, alike: list[int]) -> None:
        for index in alike:
            self._add(self.old.commands[index], [index])

    def _merge(self, alike: list[int]) -> bool:
        """Add the commands as one command, or as two in turn, if possible and faster."""
        like, count, costs = self.old.commands[alike[0]], len(alike), self.target.costs
        if count < 2 or not faster_as_one(like, count, costs):
            return False
        before = len(self.layout.groups)
        found = merged(self._in_order(alike), self.layout, self.target.capabilities)
        if not found or not faster_as_one(like, count, costs, found):
            self.layout.forget(before)
            return False
        for command in found:
            self._add(command, alike)
        self.batches += 1
        return True

    def _why_apart(self, alike: list[int]) -> str:
        """Why commands that are not one are none for their biases; "" where these are not why."""
        members = self._in_order(alike)
        works = [c.work for c in members if isinstance(c.work, Gemm) and c.work.bias is not None]
        if not works or not faster_as_one(members[0], len(members), self.target.costs):
            return ""
        before, able = len(self.layout.groups), self.target.capabilities
        slower = bool(merged(members, self.layout, able))
        self.layout.forget(before)
        return why_apart(works, self.layout, able, slower)

    def _in_order(self, alike: list[int]) -> list[Command]:
        return [self.old.commands[i] for i in self.layout.in_order(alike, self.old.commands)]

    def _add(self, command: Command, old: list[int]) -> None:
        """Add a command that does the work of old ones, or the last part of that work."""
        for index in old:
            self.became[index] = len(self.commands)
        if command.after:
            after = tuple(sorted({self.became[i] for i in command.after}))
            command = replace(command, after=after)
        self.commands.append(command)

    def program(self) -> Program:
        """The new program, or the old one if nothing was merged."""
        if not self.batches:
            return self.old
        groups = self.old.groups + tuple(self.layout.groups)
        return replace(self.old, commands=tuple(self.commands), groups=groups)


REWRITE = ProgramRewrite(
    "batch", "merges independent commands with the same work where that is faster", apply
)
__all__ = ["REWRITE"]
