"""fuse-maps: generated kernels that follow one another become one.

Commands of maps, norms, reductions and their like are generated from a Body (graphexec.ir.body),
and two bodies become one by writing the first into the second:

    t = x + a;  y = silu(t) * b        y = silu(x + a) * b
    h = x + a;  y = norm(h)            h, y = x + a, norm(x + a)      both are results

What the first stores for the second alone is not stored any more, and takes no bytes. What others
read as well stays a result. Nothing is computed twice, and nothing is rounded in between.

Both commands must go through the same elements in one order: over the same shape, or one that
strides can turn into it. Of a row, both must see all of it. The one command takes the place of the
second if nothing between them depends on the first, or of the first if the second needs nothing
that comes later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from graphexec.base.tensor import View
from graphexec.graph.rewriting import Note, ProgramRewrite, Target
from graphexec.ir.access import Access, In, Out, in_place, moved_bytes, recipe_of
from graphexec.ir.body import Body, Writer
from graphexec.ir.op_error import OpError
from graphexec.ir.program import Command, Cost, Generates, Kernel, Program

MAX_OPERANDS = 12
MAX_RESULTS = 4
MAX_STEPS = 400
LONGEST_ROW = 16_384
"""Elements of a row that stay in registers. What leads to a longer one would be computed again in
each pass over it."""

Moved = Callable[[View], View | None]


@dataclass(frozen=True)
class Loop:
    """A command that is generated: its body, and what the operands and results are."""

    generated: Generates
    reads: tuple[View, ...]
    writes: tuple[View, ...]
    nodes: tuple[str, ...]  # of each result; empty if several are of one node

    @property
    def body(self) -> Body:
        """The body of the kernel."""
        return self.generated.body

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the kernel goes through."""
        return max((v.shape for v in (*self.writes, *self.reads)), key=_elements)


def loop_of(command: Command) -> Loop | None:
    """The command as a loop; None if its kernel is not generated or it is a batch."""
    work = command.work
    if not isinstance(work, Kernel) or work.generated is None or command.recipe is None:
        return None
    nodes = command.nodes or ((command.node,) if len(command.writes) == 1 else ())
    return Loop(work.generated, command.reads, command.writes, nodes)


def fused(first: Loop, second: Loop, keep: Sequence[int]) -> Loop | str:
    """One loop for both, which also stores the results of `first` numbered `keep`; or the reason
    why there is none."""
    if len(keep) and not (first.nodes and second.nodes):
        return "one of them has several results"
    stored = {view.storage: number for number, view in enumerate(first.writes)}
    each = _of_each_row(first, second, stored)
    if each is not None:
        kept = [first.writes[number] for number in keep]
        return _joined(first, each, stored, list(first.reads), kept, keep, first.shape)
    moved = _aligned(first, second, stored)
    if isinstance(moved, str):
        return moved
    reads = [moved(view) for view in first.reads]
    writes = [moved(first.writes[number]) for number in keep]
    if None in reads or None in writes:
        return "they go through their elements in different orders"
    found = [v for v in reads if v], [v for v in writes if v]
    return _joined(first, second, stored, *found, keep, second.shape)


def _joined(
    first: Loop, second: Loop, stored: dict[str, int], reads: list[View], kept: list[View],
    keep: Sequence[int], shape: tuple[int, ...],
) -> Loop | str:  # fmt: skip
    writer, views = Writer(), list[View]()

    def load(view: View) -> int:
        if view not in views:
            views.append(view)
        return views.index(view)

    try:
        results = writer.include(
            first.body, [writer.load(load(view), view.dtype) for view in reads]
        )  # fmt: skip
        given = [
            results[stored[view.storage]] if view.storage in stored
            else writer.load(load(view), view.dtype)
            for view in second.reads
        ]  # fmt: skip
        found = writer.include(second.body, given)
    except OpError as exc:
        return str(exc)
    body = writer.body(*(results[number] for number in keep), *found)
    writes = (*kept, *second.writes)
    if len(views) > MAX_OPERANDS or len(writes) > MAX_RESULTS or len(body.steps) > MAX_STEPS:
        return "the one kernel would be too large"
    nodes = (*(first.nodes[number] for number in keep), *second.nodes)
    loop = Loop(first.generated.with_body(body), tuple(views), writes, nodes)
    if loop.shape != shape:  # coordinates alone were reduced
        return "nothing that the one kernel reads or stores would tell how long its rows are"
    return loop


# Orders of elements ---------------------------------------------------------------------------


def _aligned(first: Loop, second: Loop, stored: dict[str, int]) -> Moved | str:
    """How the views of `first` become views over the shape of `second`, such that each element is
    needed where it is computed; or why they do not."""
    wanted = [(stored[v.storage], v) for v in second.reads if v.storage in stored]
    for moved in _ways(first, second, wanted[0]):
        if all(_is_same(moved(first.writes[n]), view, second.shape) for n, view in wanted):
            return moved
    names = " and ".join(f"'{name}'" for name in (first.nodes or ("the first",))[:1])
    return f"the elements of {names} are needed in another order or shape"


def _of_each_row(first: Loop, second: Loop, stored: dict[str, int]) -> Loop | None:
    """`second` over the rows of `first`, if it goes through what `first` gives of each; None if it
    does not."""
    rows = (*first.shape[:-1], 1)
    if not first.body.reduces or second.body.reduces or second.body.indexes:
        return None
    if first.shape[-1] == 1 or _elements(rows) != _elements(second.shape):
        return None
    reads = [view.reshaped(rows) for view in second.reads]
    writes = [view.reshaped(rows) for view in second.writes]
    if None in reads or None in writes:
        return None
    given = [view for view in reads if view and view.storage in stored]
    if any(not _is_same(first.writes[stored[v.storage]], v, rows) for v in given):
        return None
    return replace(second, reads=tuple(v for v in reads if v), writes=tuple(v for v in writes if v))


def _ways(first: Loop, second: Loop, wanted: tuple[int, View]) -> Iterator[Moved]:
    shape = second.shape
    if first.shape == shape:
        yield lambda view: view
    if _elements(first.shape) != _elements(shape):
        return
    rows = first.body.reduces
    plain = not first.body.indexes or (
        _trimmed(first.shape) == _trimmed(shape) and -min(first.body.indexes) <= len(shape)
    )
    if plain and not (rows and first.shape[-1:] != shape[-1:]):
        reduced = (*shape[:-1], 1)
        yield lambda view: view.reshaped(shape if _elements(view.shape) > 1 and
                                         view.shape == first.shape else reduced)  # fmt: skip
    number, view = wanted
    axes = _permutation(first.writes[number], view)
    if axes is not None and not rows and not first.body.indexes:
        yield lambda view: view.transpose(axes)


def _is_same(found: View | None, wanted: View, shape: tuple[int, ...]) -> bool:
    """Whether two views have the same element at each place of a shape."""
    if found is None or len(found.shape) != len(shape):
        return False
    spread, other = found.broadcast_to(shape), wanted.broadcast_to(shape)
    return _normal(spread) == _normal(other)


def _normal(view: View) -> View:
    strides = tuple(s if e > 1 else 0 for e, s in zip(view.shape, view.strides, strict=True))
    return replace(view, strides=strides)


def _permutation(source: View, target: View) -> tuple[int, ...] | None:
    """The axes by which `source`, transposed, is `target`."""
    if len(source.shape) != len(target.shape):
        return None
    left = list(range(len(source.shape)))
    axes = []
    for extent, stride in zip(target.shape, target.strides, strict=True):
        found = next(
            (a for a in left if source.shape[a] == extent and
             (extent == 1 or source.strides[a] == stride)), None,
        )  # fmt: skip
        if found is None:
            return None
        left.remove(found)
        axes.append(found)
    return tuple(axes)


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    first = next((n for n, extent in enumerate(shape) if extent > 1), len(shape))
    return shape[first:]


# The rewrite ----------------------------------------------------------------------------------


class _Fusing:
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
        return {m for m in made if m < index and (c := self.commands[m]) and loop_of(c)}

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
    fusing = _Fusing(program)
    fusing.run()
    return fusing.result(), tuple(fusing.notes)


REWRITE = ProgramRewrite(
    "fuse-maps", "generated kernels that follow one another become one", apply, lengthens=True
)
