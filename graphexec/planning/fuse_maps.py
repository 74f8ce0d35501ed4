"""fuse-maps: generated kernels that follow one another become one.

Commands of maps, norms, reductions and their like are generated from a Body (graphexec.ir.body),
and two bodies become one by writing the first into the second:

    t = x + a;  y = silu(t) * b        y = silu(x + a) * b
    h = x + a;  y = norm(h)            h, y = x + a, norm(x + a)      both are results

What the first stores for the second alone is not stored any more, and takes no bytes. What others
read as well stays a result. Nothing is computed twice, and nothing is rounded in between.

Both go through the same elements in one order (graphexec.planning.loops). The one command takes
the place of the second if nothing between them depends on the first, or of the first if the second
needs nothing that comes later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from graphexec.base.tensor import View
from graphexec.graph.rewriting import Note, ProgramRewrite, Target
from graphexec.ir.access import Access, In, Out, in_place, moved_bytes, recipe_of
from graphexec.ir.program import Command, Cost, Gemm, GemmBatch, Kernel, Memcpy, Program
from graphexec.planning.loops import Loop, fused, loop_of

LONGEST_ROW = 16_384
"""Elements of a row that stay in registers. What leads to a longer one would be computed again in
each pass over it."""


class Fusing:
    """A program on its way: commands by their old index, None for those that are gone."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.commands: list[Command | None] = list(program.commands)
        self.needs = [set(needs) for needs in program.predecessors]
        self.needed_by: list[set[int]] = [set() for _ in self.needs]
        self.became = list(range(len(self.needs)))
        self.notes: list[Note] = []
        for index, needs in enumerate(self.needs):
            for need in needs:
                self.needed_by[need].add(index)
        self.readers: dict[str, set[int]] = {}
        self.writers: dict[str, set[int]] = {}
        for index, command in enumerate(program.commands):
            for view in command.reads:
                self.readers.setdefault(view.storage, set()).add(index)
            for view in command.writes:
                self.writers.setdefault(view.storage, set()).add(index)

    def run(self) -> None:
        """Fuse each command with those whose results it reads, as far as possible."""
        for index in range(len(self.commands)):
            at = index
            tried: set[int] = set()
            while True:
                candidates = self.makers(at) - tried
                if not candidates:
                    break
                first = max(candidates)
                found = self.fuse(first, at)
                if found is None:
                    tried.add(first)
                else:
                    at = found

    def makers(self, index: int) -> set[int]:
        """The generated commands whose results a generated command reads."""
        command = self.commands[index]
        if command is None or loop_of(command) is None:
            return set()
        made: set[int] = set()
        for view in command.reads:
            writers = self.writers.get(view.storage, set())
            if len(writers) == 1:
                made |= writers
        return {
            m for m in made if m < index and (c := self.commands[m]) and loop_of(c)
            and not (_is_written(c) and _is_written(command))
        }  # fmt: skip

    def fuse(self, first: int, second: int) -> int | None:
        """Make one command of two; where it is now, or None."""
        one, two = self.commands[first], self.commands[second]
        assert one is not None
        assert two is not None
        keep = [n for n, view in enumerate(one.writes) if not self.droppable(view, second)]
        found = self._fused(one, two, keep, first, second)
        names = tuple(dict.fromkeys((*one.members, *two.members)))
        if isinstance(found, str):
            text = f"'{one.node}' and '{two.node}' stay apart: {found}"
            self.notes.append(Note(names, text, applied=False))
            return None
        place, loop = found
        gone = [name for n, name in enumerate(one.members) if n not in keep]
        self.notes.append(Note(names, _told(one, two, gone)))
        self.put(place, first + second - place, self.command(one, two, loop))
        return place

    def _fused(
        self, one: Command, two: Command, keep: Sequence[int], first: int, second: int
    ) -> tuple[int, Loop] | str:
        a, b = loop_of(one), loop_of(two)
        assert a is not None
        assert b is not None
        place = self.place(first, second, bool(keep))
        if place is None:
            return "what one of them needs or gives comes between"
        if (a.body.reduces or b.body.reduces) and max(a.shape[-1:] + b.shape[-1:]) > LONGEST_ROW:
            return f"rows of more than {LONGEST_ROW:,} elements are gone through several times"
        loop = fused(a, b, keep)
        return loop if isinstance(loop, str) else (place, loop)

    def droppable(self, view: View, reader: int) -> bool:
        """Whether nothing but a command reads what is stored in a view."""
        storage = self.program.storages[view.storage]
        return storage.role == "arena" and self.readers.get(view.storage, set()) <= {reader}

    def place(self, first: int, second: int, kept: bool) -> int | None:
        """Where the one command can stand."""
        if all(need < first for need in self.needs[second] - {first}):
            return first
        if kept:  # others would have to wait for what the second needs
            return None
        return second if not any(first < n < second for n in self.needed_by[first]) else None

    def command(self, one: Command, two: Command, loop: Loop) -> Command:
        """The command of a loop."""
        reads = [In(view, strided=True) for view in loop.reads]
        writes = [Out(view, over=loop.reads) for view in loop.writes]
        accesses: tuple[Access, ...] = (*reads, *writes)
        several = len(loop.writes) > 1 and bool(loop.nodes)
        parts = dict.fromkeys((*one.label.split(" + "), *two.label.split(" + ")))
        return replace(
            two,
            node=loop.nodes[0] if several else two.node,
            nodes=loop.nodes if several else (),
            label=" + ".join(parts),
            work=loop.generated(*loop.reads, *loop.writes),
            reads=loop.reads,
            writes=loop.writes,
            cost=Cost(one.cost.flops + two.cost.flops, moved_bytes(accesses)),
            after=tuple(sorted({*one.after, *two.after})),
            after_nodes=tuple(dict.fromkeys((*one.after_nodes, *two.after_nodes))),
            inplace=in_place(accesses),
            recipe=recipe_of(loop.generated, accesses),
        )

    def put(self, place: int, gone: int, command: Command) -> None:
        """Put a command at one of two indices; the other is gone."""
        for index in (place, gone):
            old = self.commands[index]
            assert old is not None
            for view in old.reads:
                self.readers[view.storage].discard(index)
            for view in old.writes:
                self.writers[view.storage].discard(index)
        self.commands[place], self.commands[gone] = command, None
        self.became[gone] = place
        for view in command.reads:
            self.readers.setdefault(view.storage, set()).add(place)
        for view in command.writes:
            self.writers.setdefault(view.storage, set()).add(place)
        for of, other in ((self.needs, self.needed_by), (self.needed_by, self.needs)):
            for index in of[gone]:
                other[index].discard(gone)
                if index != place:
                    other[index].add(place)
            of[place] = (of[place] | of[gone]) - {place, gone}
            of[gone] = set()

    def others(self) -> Iterator[Note]:
        """Why kernels that are generated are not one with what they read, where that is not."""
        for command in self.commands:
            if command is None or loop_of(command) is None or _is_written(command):
                continue
            made = {w for v in command.reads for w in self.writers.get(v.storage, ())}
            for maker in (self.commands[index] for index in sorted(made)):
                if maker and loop_of(maker) is None and not _is_for_others(maker):
                    names = (*command.members, *maker.members)
                    text = f"'{command.node}' and '{maker.node}' stay apart: {_why_other(maker)}"
                    yield Note(tuple(dict.fromkeys(names)), text, applied=False)

    def result(self) -> Program:
        """The program, without the storages that nothing is stored in any more."""
        kept = [index for index, command in enumerate(self.commands) if command is not None]
        if len(kept) == len(self.commands):
            return self.program
        at = {old: new for new, old in enumerate(kept)}
        left = [command for command in self.commands if command is not None]
        commands = []
        for new, command in enumerate(left):
            after = sorted({at[self._now(index)] for index in command.after} - {new})
            names = tuple(dict.fromkeys(left[index].node for index in after))
            commands.append(replace(command, after=tuple(after), after_nodes=names))
        used = _storages(commands)
        unused = _storages(self.program.commands) - used
        old = self.program
        return replace(
            old,
            commands=tuple(commands),
            storages={name: s for name, s in old.storages.items() if name not in unused},
            tensors={name: v for name, v in old.tensors.items() if v.storage not in unused},
        )

    def _now(self, index: int) -> int:
        while self.became[index] != index:
            index = self.became[index]
        return index


def _is_written(command: Command) -> bool:
    """Whether a kernel was written for what a command does, as for a softmax. Two of these stay
    apart: they were tuned for their sizes by measurements, a generated one was not."""
    return isinstance(command.work, Kernel) and not command.work.text


def _is_for_others(command: Command) -> bool:
    """Whether other rewrites, or nothing at all, could make a command one with its readers."""
    work = command.work
    return isinstance(work, Memcpy) or (isinstance(work, Kernel) and work.epilogue is not None)


def _why_other(command: Command) -> str:
    """Why a command is no loop."""
    if isinstance(command.work, Gemm | GemmBatch):
        return "a product is the library's"
    return f"the kernel of {command.label} is not generated from an expression"


def _told(one: Command, two: Command, gone: Sequence[str]) -> str:
    if len(gone) == len(one.members):
        return f"'{one.node}' is computed within '{two.node}', and not stored"
    return f"'{one.node}' and '{two.node}' are results of one kernel"


def _storages(commands: Iterable[Command]) -> set[str]:
    return {view.storage for c in commands for view in (*c.reads, *c.writes)}


def apply(program: Program, target: Target) -> tuple[Program, tuple[Note, ...]]:
    """`program` with fewer kernels."""
    if not any(loop_of(command) for command in program.commands):
        return program, ()
    fusing = Fusing(program)
    fusing.run()
    return fusing.result(), (*fusing.notes, *fusing.others())


REWRITE = ProgramRewrite(
    "fuse-maps", "generated kernels that follow one another become one", apply, lengthens=True
)
