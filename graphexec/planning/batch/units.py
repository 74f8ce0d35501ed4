"""Units of batching: a command, or the commands that will be one product with its bias.

`fuse-epilogue` runs after `batch` and makes one product of a product and the sums next to it, if
the device does that. If products went into other batches than their sums, they could not be fused
any more. So such commands are one unit: its batches stand next to one another, and its gain is
judged by the product that it becomes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from graphexec.base.tensor import View
from graphexec.ir.program import Command, Gemm
from graphexec.machine.simulate import Edges
from graphexec.machine.support import Asking
from graphexec.planning.batch.kinds import kind_of
from graphexec.planning.batch.merged import merged
from graphexec.planning.fuse_epilogue import Fusing, as_one, sites
from graphexec.planning.layout import Layout


@dataclass(frozen=True)
class Unit:
    """Neighbouring commands, their indices in the program, and the command that they will
    become."""

    indices: tuple[int, ...]
    commands: tuple[Command, ...]
    becomes: Command
    kind: Hashable

    @property
    def views(self) -> tuple[View, ...]:
        """All operands."""
        return tuple(
            view for command in self.commands for view in (*command.reads, *command.writes)
        )


@dataclass(frozen=True)
class Merged:
    """The commands that do the work of units, each with the old indices that it stands for; none if
    units cannot be merged. `becomes` are the commands after `fuse-epilogue`; `why` is the reason if
    that is not one product."""

    commands: tuple[tuple[Command, tuple[int, ...]], ...] = ()
    becomes: tuple[Command, ...] = ()
    why: str = ""


def units_of(fusing: Fusing) -> list[Unit]:
    """The program in units, in order."""
    program, commands = fusing.program, fusing.program.commands
    units: list[Unit] = []
    at = 0
    while at < len(commands):
        last, becomes = fusing.instead.get(at, (at, commands[at]))
        end = last + 1
        kinds = [kind_of(command, program.storages) for command in commands[at:end]]
        kind = None if None in kinds else tuple(kinds)
        units.append(Unit(tuple(range(at, end)), commands[at:end], becomes, kind))
        at = end
    return units


def needs_of(units: Sequence[Unit], predecessors: Edges) -> list[tuple[int, ...]]:
    """For each unit the earlier ones that it must come after, from those of the commands."""
    unit_of = [number for number, unit in enumerate(units) for _ in unit.indices]
    needs: list[set[int]] = [set() for _ in units]
    for index, before in enumerate(predecessors):
        needs[unit_of[index]].update(unit_of[each] for each in before)
    return [tuple(sorted(need - {number})) for number, need in enumerate(needs)]


def partitioned(alike: Sequence[Unit], layout: Layout) -> Iterator[list[Unit]]:
    """Units in parts whose operands could lie at a constant stride: each operand on one storage, as
    windows, or on storages that could lie beside one another."""
    operands = [[view.storage for view in unit.views] for unit in alike]
    users = Counter(place for names in operands for place in enumerate(names))
    parts: dict[object, list[Unit]] = {}
    for unit, names in zip(alike, operands, strict=True):
        near = (name if users[place, name] > 1 else layout.company(name)
                for place, name in enumerate(names))  # fmt: skip
        parts.setdefault(tuple(near), []).append(unit)
    yield from parts.values()


def in_order(alike: Sequence[Unit], layout: Layout) -> list[Unit]:
    """The units in the order in which their operands lie, as far as that is known."""
    return sorted(alike, key=lambda unit: (*map(layout.position, unit.views), unit.indices))


def merged_units(alike: Sequence[Unit], layout: Layout, support: Asking) -> Merged:
    """Units of one kind as one, if there is a way. Binds storages in `layout`."""
    if len(alike[0].commands) == 1:
        found = _merged_at(0, alike, layout, support)
        return Merged() if found is None else Merged((found,), (found[0],))
    before = len(layout.groups)
    as_product = _product_alone(alike, layout, support)
    if not as_product.why:
        return as_product
    layout.forget(before)
    each = [_merged_at(n, alike, layout, support) for n in range(len(alike[0].commands))]
    parts = tuple(part for part in each if part is not None)
    if len(parts) < len(each):
        return Merged(why=as_product.why)
    return Merged(parts, tuple(command for command, _ in parts), as_product.why)


def _product_alone(alike: Sequence[Unit], layout: Layout, support: Asking) -> Merged:
    """The products as one command. Their sums stay, until the fused product replaces them."""
    parts: list[tuple[Command, tuple[int, ...]]] = []
    for number, command in enumerate(alike[0].commands):
        if isinstance(command.work, Gemm):
            found = _merged_at(number, alike, layout, support)
            parts += [] if found is None else [found]
        else:
            parts += [(unit.commands[number], (unit.indices[number],)) for unit in alike]
    commands = [command for command, _ in parts]
    site = next(iter(sites(commands)))
    becomes = as_one(commands, site, layout, support)
    if isinstance(becomes, str):
        return Merged(why=becomes)
    return Merged(tuple(parts), (becomes,))


def _merged_at(
    number: int, alike: Sequence[Unit], layout: Layout, support: Asking
) -> tuple[Command, tuple[int, ...]] | None:
    """The commands at one place of every unit as one."""
    found = merged([unit.commands[number] for unit in alike], layout, support)
    old = tuple(unit.indices[number] for unit in alike)
    return None if found is None else (found, old)
