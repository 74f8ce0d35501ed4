"""Probes: small programs that measure one thing, such as a repeated command or empty launches.

Each has a fixed order and fixed streams; the planner is not involved. Operands of the command are
inputs here, which the host fills before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from graphexec.base.tensor import DType, TensorType, View
from graphexec.ir.program import DIRECTIONS, Command, Cost, Gemm, Kernel, Memcpy, Program, Storage

EMPTY = Path(__file__).with_name("empty.hip")
_BYTES = 256  # that an empty kernel declares as written


@dataclass(frozen=True)
class Probe:
    """A program and the stream of each of its commands, which are issued in order.

    It repeats the measured work `rounds` times, after the commands `before` on each stream.
    """

    program: Program
    stream: tuple[int, ...]
    rounds: int
    before: tuple[Command, ...] = ()


def repeated(command: Command, program: Program, copies: int, streams: int = 1) -> Probe:
    """`copies` of a command of `program` one after another, on each of `streams` streams.

    Every stream writes bytes of its own; bytes that are only read are shared. Bytes that are read
    and written are copied from an input first, so that every run begins with the same values.
    """
    command, storages = _merged(command, program)
    written = sorted({view.storage for view in command.writes})
    read = {view.storage for view in command.reads}
    commands: list[Command] = []
    own: dict[str, Storage] = {}
    for name in sorted(read.difference(written)):
        own[name] = replace(storages[name], role="input")
    before: list[Command] = []
    for number in range(streams):
        names = {name: f"{name}#{number}" for name in written}
        before = [_begun(storages[name], names[name], own) for name in written if name in read]
        for name in written:
            own[names[name]] = replace(storages[name], name=names[name], role="arena")
        places = {old: (new, 0) for old, new in names.items()}
        commands += before + [_moved(command, places)] * copies
    stream = tuple(number for number in range(streams) for _ in range(len(before) + copies))
    return Probe(_program(commands, own), stream, copies, tuple(before))


def _merged(command: Command, program: Program) -> tuple[Command, dict[str, Storage]]:
    """The command with each of its groups of storages as a single storage, and the storages."""
    storages, places = dict(program.storages), dict[str, tuple[str, int]]()
    used = {view.storage for view in (*command.reads, *command.writes)}
    for group in program.groups:
        if len(used.intersection(group.storages)) < 2:
            continue
        first = program.storages[group.storages[0]]
        whole = (len(group.storages) - 1) * group.stride + first.nbytes
        storages[first.name] = replace(first, nbytes=whole)
        places |= {name: (first.name, i * group.stride) for i, name in enumerate(group.storages)}
    return _moved(command, places), storages


def _begun(storage: Storage, name: str, storages: dict[str, Storage]) -> Command:
    """A copy from a new input to the storage called `name`, of the size of `storage`."""
    start = replace(storage, name=f"{storage.name}.start", role="input")
    storages[start.name] = start
    type = TensorType((storage.nbytes // 2,), DType.F16)
    source, target = View.dense(start.name, type), View.dense(name, type)
    cost = Cost(0, 2 * storage.nbytes)
    work = Memcpy(source, target, DIRECTIONS[storage.space, storage.space])
    return Command(name, "memcpy", work, (source,), (target,), cost)


def launches(count: int) -> Probe:
    """A chain of kernels that do nothing."""
    return chains(count, 1)


def chains(count: int, streams: int) -> Probe:
    """On each of some streams a chain of kernels that do nothing."""
    names = [f"s{number}" for number in range(streams)]
    commands = [_empty(i * count + j, name) for i, name in enumerate(names) for j in range(count)]
    stream = tuple(number for number in range(streams) for _ in range(count))
    return Probe(_program(commands, _bytes(*names)), stream, count)


def diamonds(count: int) -> Probe:
    """Forks and joins: an empty kernel on stream 0, then one on each of two streams, and again."""
    commands: list[Command] = []
    for first in range(0, 3 * count, 3):
        joined = (first - 2, first - 1) if first else ()
        commands.append(_empty(first, "a", joined))
        commands += [_empty(first + 1, "a", (first,)), _empty(first + 2, "b", (first,))]
    return Probe(_program(commands, _bytes("a", "b")), (0, 0, 1) * count, count)


def _moved(command: Command, places: Mapping[str, tuple[str, int]]) -> Command:
    """The same command with its storages mapped to others: a storage, and an offset in bytes."""

    def moved(value: Any) -> Any:
        if isinstance(value, View):
            storage, offset = places.get(value.storage, (value.storage, 0))
            return replace(
                value, storage=storage, offset=value.offset + offset // value.dtype.itemsize
            )
        if isinstance(value, tuple):
            return tuple(map(moved, value))
        return inside(value) if isinstance(value, Gemm) else value

    def inside(work: Any) -> Any:
        return replace(work, **{f.name: moved(getattr(work, f.name)) for f in fields(work)})

    return replace(
        command, work=inside(command.work), reads=moved(command.reads),
        writes=moved(command.writes), after=(), after_nodes=(), inplace=(),
    )  # fmt: skip


def _empty(number: int, storage: str, after: tuple[int, ...] = ()) -> Command:
    target = View.dense(storage, TensorType((_BYTES // 4,), DType.F32))
    kernel = Kernel(EMPTY, "empty", (target,), (1, 1, 1), (64, 1, 1), lambda arrays, parallel: None)
    return Command(f"empty{number}", "empty", kernel, (), (target,), after=after)


def _bytes(*names: str) -> dict[str, Storage]:
    return {name: Storage(name, _BYTES, "output", "device") for name in names}


def _program(commands: Sequence[Command], storages: Mapping[str, Storage]) -> Program:
    return Program("probe", {}, dict(storages), {}, tuple(commands), {}, {}, {})
