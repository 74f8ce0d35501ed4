"""keep-in-place: the next value of a state is computed where the state lies, so no bytes move.

A next value is computed elsewhere and copied home at the end of a run, when all have read the old
one. It can be computed at home instead when

1. it is a tensor with bytes of its own: no input, no weight, no output in place, no other state;
2. every other command that reads the old value can come before the first that writes the new one;
   these are put in that order;
3. a command that reads the old value and writes the new one reads each element before it writes
   the same one, as maps do, or only copies the one to the other: then it is left out;
4. if rows that do not fit may end a run (append), every writer heeds the fault word, and every
   check can come before it. Checks are put first, with what they are computed from.

Checks that are alike are made once.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphexec.base.tensor import View
from graphexec.graph.rewriting import Note, ProgramRewrite, Target
from graphexec.ir.program import (
    FAULT,
    Collective,
    Command,
    Gemm,
    GemmBatch,
    Kept,
    Kernel,
    Memcpy,
    Program,
    TritonKernel,
    Work,
)

Edges = dict[int, set[int]]
"""For each command those that must come before it."""


def apply(program: Program, target: Target) -> tuple[Program, tuple[Note, ...]]:
    """`program` with next values in place of the old ones."""
    if not program.states:
        return program, ()
    checks, program = _checks_once(_checks_first(program))
    plans: dict[str, _Change] = {}
    notes: list[Note] = []
    uses = _Uses(program)
    for name, kept in program.states.items():
        if kept.end == name:
            continue
        change = _change(kept, program, uses, checks)
        if not isinstance(change, str):
            taken = next((n for n, c in plans.items() if c.storage == change.storage), None)
            change = change if taken is None else f"it lies where state '{taken}' does"
        if isinstance(change, str):
            notes.append(_refused(name, kept, change))
        else:
            plans[name] = change
    order, left = _ordered(program, plans)
    for name in left:
        del plans[name]
        notes.append(_refused(name, program.states[name], "its old value is needed afterwards"))
    for name in plans:
        value = program.states[name].next
        notes.append(Note((value, name), f"'{value}' is written where state '{name}' lies"))
    return _changed(program, plans, order), tuple(notes)


def _refused(name: str, kept: Kept, why: str) -> Note:
    text = f"'{kept.next}' is copied to where state '{name}' lies: {why}"
    return Note((kept.next, name), text, applied=False)


@dataclass(frozen=True)
class _Change:
    """A next value computed at home: the storage that becomes the home, the commands that go, and
    the order that this needs."""

    storage: str
    home: str
    gone: frozenset[int]
    before: Edges = field(default_factory=dict)


class _Uses:
    """The commands that read and write each storage, in order."""

    def __init__(self, program: Program) -> None:
        self.readers: dict[str, list[int]] = {}
        self.writers: dict[str, list[int]] = {}
        self.at: dict[str, int] = {}
        for index, command in enumerate(program.commands):
            self.at.setdefault(command.node, index)
            for views, of in ((command.reads, self.readers), (command.writes, self.writers)):
                for storage in dict.fromkeys(view.storage for view in views):
                    of.setdefault(storage, []).append(index)


def _change(kept: Kept, program: Program, uses: _Uses, checks: Sequence[int]) -> _Change | str:
    """What computing a next value at home changes; or why it cannot be."""
    move = uses.at[kept.end]
    source, home = program.commands[move].reads[0], kept.home
    storage = program.storages[source.storage]
    if storage.role != "arena":  # 1
        return f"it is {_ROLES[storage.role]}"
    if source.offset or storage.nbytes != program.storages[home.storage].nbytes:
        return "it is a part of another tensor"
    writers = [w for w in uses.writers[source.storage] if not _copies(program, w, home, source)]
    gone = set(uses.writers[source.storage]) - set(writers)
    if not writers or (gone and min(gone) > writers[0]):
        return "it is a copy of it"
    first = writers[0]
    for writer in writers:  # 4
        heeds = any(view.storage == FAULT for view in program.commands[writer].reads)
        if program.faults and not heeds:
            return f"'{program.commands[writer].node}' would write it even if rows do not fit"
    readers = [r for r in uses.readers.get(home.storage, ()) if r not in gone]
    for reader in set(readers) & set(writers):  # 3
        if reader != first or not _is_in_place(program.commands[reader], home, source):
            return f"'{program.commands[reader].node}' reads it in another order than it is written"
    before: Edges = {first: {*(r for r in readers if r != first)}}  # 2
    for writer in (*writers, *_moves(program, uses)):
        before.setdefault(writer, set()).update(c for c in checks if c != writer)
    return _Change(source.storage, home.storage, frozenset((move, *gone)), before)


_ROLES = {"input": "an input", "output": "an output", "weights": "a weight", "state": "a state"}


def _moves(program: Program, uses: _Uses) -> list[int]:
    """The copies home."""
    return [uses.at[kept.end] for name, kept in program.states.items() if kept.end != name]


def _copies(program: Program, writer: int, home: View, source: View) -> bool:
    """Whether a command only copies the old value to the storage of the new one."""
    work = program.commands[writer].work
    return (
        isinstance(work, Memcpy)
        and (work.src.storage, work.dst.storage) == (home.storage, source.storage)
        and work.src.byte_range() == work.dst.byte_range() == home.byte_range()
    )


def _is_in_place(command: Command, home: View, source: View) -> bool:
    """Whether a command reads each element of the old value before it writes the same one."""
    reads = [n for n, view in enumerate(command.reads) if view.storage == home.storage]
    writes = [n for n, view in enumerate(command.writes) if view.storage == source.storage]
    return len(reads) == len(writes) == 1 and (reads[0], writes[0]) in command.inplace and (
        command.reads[reads[0]].byte_range() == home.byte_range()
    )  # fmt: skip


# The order ------------------------------------------------------------------------------------


def _ordered(program: Program, plans: Mapping[str, _Change]) -> tuple[list[int], list[str]]:
    """An order of the commands that all changes need, and the names of changes that must go.

    All at once if there is an order, else one after another.
    """
    needs = [set(before) for before in program.predecessors]
    order = _sorted(needs, plans.values())
    if order is not None:
        return order, []
    done: dict[str, _Change] = {}
    left = []
    order = list(range(len(needs)))
    for name, change in plans.items():
        found = _sorted(needs, [*done.values(), change])
        if found is None:
            left.append(name)
        else:
            done[name], order = change, found
    return order, left


def _sorted(needs: Sequence[set[int]], changes: Iterable[_Change]) -> list[int] | None:
    """The commands in an order that is as it was where it may be; None if there is none."""
    wanted = [set(before) for before in needs]
    for change in changes:
        for command, before in change.before.items():
            wanted[command] |= before
    after: list[list[int]] = [[] for _ in wanted]
    missing = [len(before) for before in wanted]
    for command, before in enumerate(wanted):
        for other in before:
            after[other].append(command)
    ready = [command for command, count in enumerate(missing) if not count]
    order = []
    while ready:
        command = heapq.heappop(ready)
        order.append(command)
        for other in after[command]:
            missing[other] -= 1
            if not missing[other]:
                heapq.heappush(ready, other)
    return order if len(order) == len(wanted) else None


# The change -----------------------------------------------------------------------------------


def _changed(program: Program, plans: Mapping[str, _Change], order: Sequence[int]) -> Program:
    """The program with the changes made."""
    homes = {change.storage: change.home for change in plans.values()}
    gone = {index for change in plans.values() for index in change.gone}
    kept = [index for index in order if index not in gone]
    if not homes and kept == list(range(len(program.commands))):
        return program
    at = {old: new for new, old in enumerate(kept)}
    commands = []
    for index in kept:
        command = _at_home(program.commands[index], homes)
        after = tuple(sorted({at[a] for a in command.after if a in at}))
        commands.append(replace(command, after=after) if command.after else command)
    ends = {program.states[name].end for name in plans}
    tensors = {
        name: _moved(view, homes) for name, view in program.tensors.items() if name not in ends
    }
    states = {
        name: replace(state, end=state.next) if name in plans else state
        for name, state in program.states.items()
    }
    storages = {name: s for name, s in program.storages.items() if name not in homes}
    return replace(program, commands=tuple(commands), tensors=tensors, states=states,
                   storages=storages)  # fmt: skip


def _moved(view: View, homes: Mapping[str, str]) -> View:
    home = homes.get(view.storage)
    return view if home is None else replace(view, storage=home)


def _at_home(command: Command, homes: Mapping[str, str]) -> Command:
    """The command over storages that became homes."""
    views = (*command.reads, *command.writes)
    if not any(view.storage in homes for view in views):
        return command
    return replace(
        command,
        work=_work(command.work, homes),
        reads=tuple(_moved(view, homes) for view in command.reads),
        writes=tuple(_moved(view, homes) for view in command.writes),
        instead=None,
    )


def _work(work: Work, homes: Mapping[str, str]) -> Work:
    def moved(view: View) -> View:
        return _moved(view, homes)

    match work:
        case Gemm(a, b, out, c=c, bias=bias):
            return replace(work, a=moved(a), b=moved(b), out=moved(out), c=c and moved(c),
                           bias=bias and moved(bias))  # fmt: skip
        case GemmBatch(members):
            found = tuple(_work(member, homes) for member in members)
            return GemmBatch(tuple(m for m in found if isinstance(m, Gemm)))
        case Kernel(args=args):
            return replace(work, args=tuple(moved(a) if isinstance(a, View) else a for a in args))
        case TritonKernel(views=views):
            return replace(work, views=tuple(map(moved, views)))
        case Memcpy(src, dst):
            return replace(work, src=moved(src), dst=moved(dst))
        case Collective(src=from_, dst=to):
            return replace(work, src=from_ and moved(from_), dst=to and moved(to))


# Checks ---------------------------------------------------------------------------------------


def _checks_first(program: Program) -> Program:
    """The program with its checks, and what they are computed from, before all else.

    A check that comes after a writer that heeds the fault word would have to follow it.
    """
    unordered = replace(program, commands=tuple(map(_heedless, program.commands)))
    first: set[int] = set()
    for index in reversed(range(len(program.commands))):
        if index in first or FAULT in {view.storage for view in program.commands[index].writes}:
            first |= {index, *unordered.predecessors[index]}
    order = sorted(range(len(program.commands)), key=lambda index: index not in first)
    at = {old: new for new, old in enumerate(order)}
    commands = (program.commands[index] for index in order)
    return replace(program, commands=tuple(
        replace(c, after=tuple(sorted(at[a] for a in c.after))) if c.after else c
        for c in commands
    ))  # fmt: skip


def _heedless(command: Command) -> Command:
    """The command as if there was no fault word."""
    return replace(
        command,
        reads=tuple(view for view in command.reads if view.storage != FAULT),
        writes=tuple(view for view in command.writes if view.storage != FAULT),
    )


def _checks_once(program: Program) -> tuple[list[int], Program]:
    """The numbers of the commands that set the fault word, and the program without those that
    repeat others."""
    seen: set[object] = set()
    repeated: set[int] = set()
    checks = [n for n, c in enumerate(program.commands)
              if any(view.storage == FAULT for view in c.writes)]  # fmt: skip
    for index in checks:
        key = _what(program, index)
        if key in seen:
            repeated.add(index)
        seen.add(key)
    if not repeated:
        return checks, program
    left = [n for n in range(len(program.commands)) if n not in repeated]
    at = {old: new for new, old in enumerate(left)}
    commands = tuple(
        replace(c, after=tuple(sorted({at[a] for a in c.after if a in at})))
        for n in left if (c := program.commands[n])
    )  # fmt: skip
    return [at[n] for n in checks if n in at], replace(program, commands=commands)


def _what(program: Program, index: int) -> object:
    """Equal for checks of the same rows: all but the number of the node, and who is first."""
    command = program.commands[index]
    work = command.work
    if not isinstance(work, Kernel) or command.after:
        return index
    return work.entry, work.defines, work.args[:-2], command.reads


REWRITE = ProgramRewrite(
    "keep-in-place", "computes the next value of a state where the state lies", apply
)
