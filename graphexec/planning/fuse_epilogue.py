"""fuse-epilogue: a product adds its bias, and beta · c with it, as it writes the result.

Ops lower to plain commands. This finds, of the same node or nodes,

    sums, then a product that is added to them       out = [beta · c +] bias;  out = product + out
    a product, then sums that take it in             t = product;  out = beta · c + bias + t

where the bias is one row for all rows of a product, and asks the target about the one product that
does all of that. If it does, the product takes the place of them all: a launch less, and the result
is written and read once less. t, where it is left out, takes no bytes.

The products of a batch are one product; their sums may be one batch or one command each. Their c
and biases must lie at constant strides, for which storages are bound to one another as for a batch
(graphexec.planning.layout). Arrays of pointers take no bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from graphexec.base.tensor import View
from graphexec.graph.rewriting import Note, ProgramRewrite, Target
from graphexec.ir.access import distinct_bytes
from graphexec.ir.program import Command, Cost, Gemm, GemmBatch, Kernel, Memcpy, Program
from graphexec.machine.support import Asking
from graphexec.planning.layout import Layout


@dataclass(frozen=True)
class Addends:
    """The addends of one member's product, and the place of the sum."""

    bias: View  # a row, (..., N)
    c: View | None
    beta: float
    out: View
    over_c: bool  # the sum may be written over c


@dataclass(frozen=True)
class Site:
    """Commands that could be one product, by index and in order; `product` is the one that
    multiplies."""

    parts: tuple[int, ...]
    product: int
    members: tuple[Addends, ...]

    @property
    def apart(self) -> bool:
        """Whether commands of others lie between."""
        return self.parts[-1] - self.parts[0] >= len(self.parts)


def sites(commands: Sequence[Command]) -> Iterator[Site]:
    """All sites, in order of their products."""
    by_node: dict[str, list[int]] = {}
    for index, command in enumerate(commands):
        for node in command.members:
            by_node.setdefault(node, []).append(index)
    for index, command in enumerate(commands):
        if _products(command):
            near = sorted({other for node in command.members for other in by_node[node]})
            if len(near) == 1:
                continue
            found = _sums_before(commands, index, near) or _sums_after(commands, index, near)
            if found is not None:
                yield found


def as_one(
    commands: Sequence[Command], site: Site, layout: Layout, support: Asking
) -> Command | str:
    """One product that does the work of all commands of a site, or the reason why there is none.

    It may bind storages in `layout`, even if it finds no product.
    """
    product, first = commands[site.product], site.members[0]
    if not isinstance(product.work, Gemm):
        return "arrays of pointers take no bias"

    def stacked(views: Sequence[View]) -> View | None:
        return layout.stacked(views) if product.nodes else views[0]

    out, bias = (stacked([getattr(m, name) for m in site.members]) for name in ("out", "bias"))
    c = None if first.c is None else stacked([m.c for m in site.members if m.c is not None])
    lost = {"results": out is None, "c": first.c is not None and c is None, "biases": bias is None}
    if out is None or any(lost.values()):
        return f"their {next(what for what in lost if lost[what])} lie at no constant stride"
    work = replace(product.work, out=out, c=c, bias=bias, beta=first.beta)
    answer = support(work)
    if answer.refused or site.apart:
        return answer.why or "commands of other nodes lie between"
    return _command(commands, site, work)


def _command(commands: Sequence[Command], site: Site, work: Gemm) -> Command:
    product = commands[site.product]
    each = len(product.reads) // len(site.members)
    reads: list[View] = []
    inplace: list[tuple[int, int]] = []
    for place, member in enumerate(site.members):
        reads += product.reads[place * each : place * each + 2]
        if member.over_c:
            inplace.append((len(reads), place))
        reads += [view for view in (member.c, member.bias) if view is not None]
    writes = tuple(member.out for member in site.members)
    parts = [commands[index] for index in site.parts]
    return replace(
        product,
        work=work,
        reads=tuple(reads),
        writes=writes,
        cost=Cost(product.cost.flops, sum(map(distinct_bytes, {*reads, *writes}))),
        after=tuple(sorted({index for part in parts for index in part.after})),
        after_nodes=tuple(dict.fromkeys(name for part in parts for name in part.after_nodes)),
        inplace=tuple(inplace),
    )


# Sites ----------------------------------------------------------------------------------------


def _sums_before(commands: Sequence[Command], product: int, near: Sequence[int]) -> Site | None:
    """The site of a product that is added to sums, which were put into its result before."""
    if any((w.beta, w.c, w.bias) != (1.0, None, None) for w in _products(commands[product])):
        return None
    before = [index for index in reversed(near) if index < product]
    return _matching(commands, product, before, lambda found: found.out)


def _sums_after(commands: Sequence[Command], product: int, near: Sequence[int]) -> Site | None:
    """The site of sums that read a product, which nothing else reads."""
    if any((w.beta, w.c, w.bias) != (0.0, None, None) for w in _products(commands[product])):
        return None
    after = [index for index in near if index > product]
    return _matching(commands, product, after, lambda found: found.taken)


def _products(command: Command) -> tuple[Gemm, ...]:
    if isinstance(command.work, GemmBatch):
        return command.work.members
    return (command.work,) if isinstance(command.work, Gemm) else ()


def _matching(
    commands: Sequence[Command],
    product: int,
    near: Sequence[int],
    place: Callable[[_Sum], View | None],
) -> Site | None:
    """The site of a product and of sums among the commands `near`, the nearest first, `place` of
    each being the result of one of the product's members."""
    command = commands[product]
    wanted, found, parts = set(command.writes), dict[View, _Sum](), [product]
    for index in near:
        if not wanted - found.keys():
            break
        sums = _sums(commands[index])
        places = [view for each in sums if (view := place(each)) is not None]
        if not sums or len(places) < len(sums) or not wanted.issuperset(places):
            return None
        found |= dict(zip(places, sums, strict=True))
        parts.append(index)
    if wanted - found.keys():
        return None
    taken = parts[-1] > product
    members = [_addends(found[view], taken) for view in command.writes]
    known = [member for member in members if member is not None]
    if len(known) < len(members) or len({(m.beta, m.c is None) for m in known}) > 1:
        return None
    return Site(tuple(sorted(parts)), product, tuple(known))


@dataclass(frozen=True)
class _Sum:
    """out = the sum of reads, each times its factor. `taken` is the last, if others precede it."""

    factors: tuple[float, ...]
    reads: tuple[View, ...]
    out: View
    over_first: bool

    @property
    def taken(self) -> View | None:
        return self.reads[-1] if len(self.reads) > 1 and self.factors[-1] == 1.0 else None


def _sums(command: Command) -> list[_Sum]:
    """The sum of each node of a command; empty if the command does something else."""
    factors = command.work.factors if isinstance(command.work, Kernel) else ()
    factors = (1.0,) if isinstance(command.work, Memcpy) else factors
    each = len(factors)
    if not factors or len(command.reads) != each * len(command.writes):
        return []
    return [
        _Sum(factors, command.reads[place * each : (place + 1) * each], out,
             (place * each, place) in command.inplace)
        for place, out in enumerate(command.writes)
    ]  # fmt: skip


def _addends(found: _Sum, taken: bool) -> Addends | None:
    """A sum as c and a bias. If the product is one of its terms (`taken`), that is left out."""
    terms = list(zip(found.factors, found.reads, strict=True))[: -1 if taken else None]
    if len(terms) not in (1, 2) or terms[-1][0] != 1.0:
        return None
    bias, out = terms[-1][1], found.out
    if bias.strides[-2] and out.shape[-2] != 1:
        return None
    row = replace(
        bias, shape=(*out.shape[:-2], out.shape[-1]), strides=(*bias.strides[:-2], bias.strides[-1])
    )
    if len(terms) == 1:
        return Addends(row, None, 0.0, out, over_c=False)
    return Addends(row, terms[0][1], terms[0][0], out, found.over_first)


# The rewrite ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fusing:
    """The fused products of a program. `instead` maps the index of the first command of a site to
    the index of its last, and the product. `layout` has the groups of storages that these need."""

    program: Program
    instead: Mapping[int, tuple[int, Command]]
    layout: Layout
    notes: tuple[Note, ...]

    def apply(self) -> Program:
        """The program with these products."""
        return replaced(self.program, self.instead, self.layout) if self.instead else self.program


def fusing(program: Program, target: Target) -> Fusing:
    """The sites of `program` that become one product on the target."""
    layout = Layout(program.storages, program.groups)
    notes: list[Note] = []
    instead: dict[int, tuple[int, Command]] = {}
    for site in sites(program.commands):
        before = len(layout.groups)
        found = as_one(program.commands, site, layout, target.support)
        notes.append(_note(program.commands[site.product].members, site, found))
        if isinstance(found, str):
            layout.forget(before)
        else:
            instead[site.parts[0]] = site.parts[-1], found
    return Fusing(program, instead, layout, tuple(notes))


def apply(program: Program, target: Target) -> tuple[Program, tuple[Note, ...]]:
    """`program` with the products that the target does."""
    found = fusing(program, target)
    return found.apply(), found.notes


def _note(nodes: tuple[str, ...], site: Site, found: Command | str) -> Note:
    what = "c and the bias" if site.members[0].c is not None else "the bias"
    who = f"'{nodes[0]}'" if len(nodes) == 1 else f"'{nodes[0]}' to '{nodes[-1]}' ({len(nodes)})"
    if isinstance(found, str):
        return Note(nodes, f"{who} adds {what} by a command of its own: {found}", applied=False)
    return Note(nodes, f"{who} adds {what} as it writes the result")


def replaced(
    program: Program, instead: Mapping[int, tuple[int, Command]], layout: Layout
) -> Program:
    """The program with one command in place of those from one index to another."""
    commands: list[Command] = []
    became: list[int] = []  # by old index
    while len(became) < len(program.commands):
        at = len(became)
        last, command = instead.get(at, (at, program.commands[at]))
        became += [len(commands)] * (last + 1 - at)
        after = tuple(sorted({became[index] for index in command.after}))
        commands.append(command if after == command.after else replace(command, after=after))
    used = {view.storage for c in commands for view in (*c.reads, *c.writes)}
    unused = {view.storage for c in program.commands for view in c.writes} - used
    return replace(
        program,
        commands=tuple(commands),
        storages={name: s for name, s in program.storages.items() if name not in unused},
        tensors={name: v for name, v in program.tensors.items() if v.storage not in unused},
        groups=tuple(group for group in layout.groups if not unused.intersection(group.storages)),
    )


REWRITE = ProgramRewrite(
    "fuse-epilogue", "products add their bias, and c with it, as they write the result", apply
)
