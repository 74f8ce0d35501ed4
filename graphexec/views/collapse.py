"""A large graph as few boxes, by rules that keep arrows forward.

Repetitions of a block are one to begin with (see repetitions.py).
1. Similar ops become one box: the same op and type, with similar operands and similar
   readers. So a hundred equal branches are drawn as one. Similar ops have equal depth, so no
   arrow points backward. A few similar ops, such as the projections of an attention, stay
   apart.
2. If that is not enough, the ops in a depth-first topological order are cut into stretches: where
   chains end, or where the ops repeat, or by length. Of the cuts with enough boxes, the one wins
   whose boxes have the fewest arrows, and whose arrows have the fewest tensors.
3. Inputs and weights that only one stretch reads belong to it. Others are merged if the same boxes
   read them, and so are outputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

from graphexec.views.blocks import period, summary
from graphexec.views.outline import Arrow, Box, Outline
from graphexec.views.repetitions import folded
from graphexec.views.table import count

_WIDE = 4  # similar ops from which they are drawn as one
_FEW = 4  # a cut may have this many times fewer boxes than allowed

Group = list[int]  # numbers of boxes, or of groups of them
Edges = set[tuple[int, int]]
_Key = TypeVar("_Key")


def collapsed(outline: Outline, most: int) -> Outline:
    """The outline with at most `most` boxes, or at most four: the ops, and an end of each kind.
    Blocks are drawn once; else it is unchanged if it has no more."""
    outline = folded(outline)
    if len(outline.boxes) <= most:
        return outline
    alike = _alike(outline)
    links = _between(((a.source, a.target) for a in outline.arrows), _whose(alike))
    words = _words(outline, alike, links)
    room = most
    while True:
        groups = alike
        if len(alike) > room:
            stretches = _cut(words, links, room)
            groups = [[n for at in stretch for n in alike[at]] for stretch in stretches]
        found = _drawn(outline, groups, room)
        if len(found.boxes) <= most or room == 1:
            return found
        # A cut has up to twice as many boxes as asked for, and inputs and outputs are beside it.
        room = max(room * most // len(found.boxes), 1)


# Similar ops ----------------------------------------------------------------------------------


def _alike(outline: Outline) -> list[Group]:
    """The ops, similar ones in one group, in a depth-first topological order."""
    above, below = _neighbours(outline)
    down = _colors(outline, above, range(len(outline.boxes)))
    up = _colors(outline, below, range(len(outline.boxes) - 1, -1, -1))
    classes = _by(
        (n for n, box in enumerate(outline.boxes) if box.kind == "op"), lambda n: (down[n], up[n])
    )
    groups = [
        group
        for members in classes
        for group in ([members] if len(members) >= _WIDE else [[n] for n in members])
    ]
    links = _between(((a.source, a.target) for a in outline.arrows), _whose(groups))
    return [groups[at] for at in _depth_first(len(groups), links)]


def _neighbours(outline: Outline) -> tuple[list[Group], list[Group]]:
    above: list[Group] = [[] for _ in outline.boxes]
    below: list[Group] = [[] for _ in outline.boxes]
    for arrow in outline.arrows:
        above[arrow.target].append(arrow.source)
        below[arrow.source].append(arrow.target)
    return above, below


def _colors(outline: Outline, near: Sequence[Group], order: Iterable[int]) -> dict[int, int]:
    """A number for each box, equal for boxes that are similar with all boxes on one side."""
    known: dict[object, int] = {}
    colors: dict[int, int] = {}
    for n in order:
        box = outline.boxes[n]
        seen = tuple(sorted(colors[m] for m in near[n]))
        colors[n] = known.setdefault((box.kind, box.op, box.type, seen), len(known))
    return colors


# Stretches ------------------------------------------------------------------------------------


def _words(outline: Outline, groups: list[Group], links: Edges) -> list[str]:
    """A word for each place of the order, to find repetitions: the op, the number of its operands
    and of its readers."""
    into, out_of = Counter(b for _, b in links), Counter(a for a, _ in links)
    ops = (outline.boxes[members[0]].op for members in groups)
    return [f"{op} {into[at]} {out_of[at]}" for at, op in enumerate(ops)]


def _cut(words: Sequence[str], links: Edges, most: int) -> list[Group]:
    """Stretches of a topological order, about `most`; `words` has a word for each place."""
    length = len(words)
    if most == 1:
        return [[*range(length)]]
    size = -(-length // max(most, 1))
    ways = [_by_length(length, size, 0)]
    chains = _chains(length, links, length)
    if len(chains) <= most:
        ways.append(
            [part for chain in chains for part in _parts(chain, len(chain) * most // length)]
        )
    short = _chains(length, links, size)
    if len(short) <= 2 * most:
        ways.append(short)
    every = period(words)
    if every > 1:
        whole = -(-size // every) * every
        starts = (_by_length(length, whole, first) for first in range(every))
        ways.append(min(starts, key=lambda groups: _tangle(groups, links)))
    enough = [groups for groups in ways if len(groups) * _FEW >= most]
    return min(
        enough or ways, key=lambda groups: (*_tangle(groups, links), abs(len(groups) - most))
    )


def _by_length(length: int, size: int, first: int) -> list[Group]:
    """Stretches of `size`, after a shorter one if `first` is not 0."""
    starts = [*([0] if first else []), *range(first, length, size)]
    return [[*range(a, b)] for a, b in zip(starts, [*starts[1:], length], strict=True)]


def _chains(length: int, links: Edges, longest: int) -> list[Group]:
    """Stretches in which each op is read by the next."""
    groups: list[Group] = []
    for n in range(length):
        if groups and len(groups[-1]) < longest and (n - 1, n) in links:
            groups[-1].append(n)
        else:
            groups.append([n])
    return groups


def _parts(chain: Group, parts: int) -> list[Group]:
    """A chain in equal parts, at least one."""
    parts = max(parts, 1)
    bounds = [len(chain) * k // parts for k in range(parts + 1)]
    return [chain[a:b] for a, b in pairwise(bounds)]


def _tangle(groups: list[Group], links: Edges) -> tuple[float, float]:
    """The arrows per box besides the first into it, and the tensors per arrow."""
    whose = _whose(groups)
    arrows = _between(links, whose)
    tensors = {(a, whose[b]) for a, b in links if whose[a] != whose[b]}
    targets = {target for _, target in arrows}
    return (len(arrows) - len(targets)) / len(groups), len(tensors) / max(len(arrows), 1)


# Drawing --------------------------------------------------------------------------------------


def _drawn(outline: Outline, groups: list[Group], most: int) -> Outline:
    """The outline with these groups of ops, and with groups of inputs, weights and outputs."""
    inside = _whose(groups)
    above, below = _neighbours(outline)
    with_op: dict[int, Group] = {}
    others: Group = []
    beside: dict[int, frozenset[int]] = {}  # the groups that an input, weight or output touches
    for n, box in enumerate(outline.boxes):
        if box.kind == "op":
            continue
        near = [*above[n], *below[n]]
        beside[n] = frozenset(inside.get(m, -1 - n) for m in near)  # or none like it
        (only,) = beside[n] if len(beside[n]) == 1 else (-1,)
        if only >= 0 and len(groups[only]) > 1 and box.kind != "output":
            with_op.setdefault(only, []).append(n)
        else:
            others.append(n)

    def key(n: int) -> object:
        return outline.boxes[n].kind, beside[n]

    edge = _by(others, key)
    if len(edge) + len(groups) > most:
        edge = _by(others, lambda n: outline.boxes[n].kind)
    first = [group for group in edge if outline.boxes[group[0]].kind != "output"]
    last = [group for group in edge if outline.boxes[group[0]].kind == "output"]
    boxes = [_edge([outline.boxes[n] for n in group]) for group in first]
    boxes += [
        _many([outline.boxes[n] for n in group], [outline.boxes[n] for n in with_op.get(at, ())])
        for at, group in enumerate(groups)
    ]
    boxes += [_edge([outline.boxes[n] for n in group]) for group in last]
    ops = [[*group, *with_op.get(at, ())] for at, group in enumerate(groups)]
    return Outline(outline.graph, tuple(boxes), _arrows(outline, [*first, *ops, *last]))


def _arrows(outline: Outline, groups: list[Group]) -> tuple[Arrow, ...]:
    """One arrow for all tensors from one group to another."""
    whose = _whose(groups)
    found: dict[tuple[int, int], list[Arrow]] = {}
    for arrow in outline.arrows:
        ends = whose[arrow.source], whose[arrow.target]
        if ends[0] != ends[1]:
            found.setdefault(ends, []).append(arrow)
    return tuple(_arrow(*ends, arrows) for ends, arrows in found.items())


def _arrow(source: int, target: int, arrows: list[Arrow]) -> Arrow:
    arrows = [a for a in arrows if not a.order_only]
    if not arrows:
        return Arrow(source, target, "after", True)
    tensors = {a.source for a in arrows}
    label = arrows[0].label if len(tensors) == 1 else count(len(tensors), "tensor")
    return Arrow(source, target, label)


def _many(members: list[Box], with_them: list[Box]) -> Box:
    """The box of merged ops, with the inputs and weights that only they read."""
    if len(members) == 1:
        return members[0]
    names = tuple(name for box in (*members, *with_them) for name in box.names)
    name = f"{members[0].name} … {members[-1].name}"
    ops = tuple(Counter(box.op for box in members).most_common())
    more = Counter(box.kind for box in with_them)
    theirs = "".join(f" + {count(times, kind)}" for kind, times in more.items())
    if len({(box.op, box.type) for box in members}) == 1:
        alike = f"{len(members)} × {members[0].op}"
        return Box("many", name, alike, f"{members[0].type}{theirs}", None, names, ops)
    text = f"{summary([box.op for box in members])}{theirs}"
    return Box("many", name, f"{count(len(members), 'node')}:", text, None, names, ops)


def _edge(members: list[Box]) -> Box:
    """The box of merged inputs, weights or outputs."""
    if len(members) == 1:
        return members[0]
    types = Counter(box.type for box in members).most_common()
    text = (
        ", ".join(f"{times} × {type}" for type, times in types) if len(types) > 1 else types[0][0]
    )
    name = f"{members[0].name} … {members[-1].name}"
    names = tuple(name for box in members for name in box.names)
    return Box(members[0].kind, name, count(len(members), members[0].kind), text, None, names)


# Helpers --------------------------------------------------------------------------------------


def _by(numbers: Iterable[int], key: Callable[[int], _Key]) -> list[Group]:
    """Groups of one key, in the order of their first members."""
    groups: dict[_Key, Group] = {}
    for n in numbers:
        groups.setdefault(key(n), []).append(n)
    return list(groups.values())


def _whose(groups: list[Group]) -> dict[int, int]:
    return {n: at for at, members in enumerate(groups) for n in members}


def _between(links: Iterable[tuple[int, int]], whose: dict[int, int]) -> Edges:
    """The links between groups; links with an end in no group are left out."""
    ends = ((whose.get(a, -1), whose.get(b, -1)) for a, b in links)
    return {(a, b) for a, b in ends if a != b and min(a, b) >= 0}


def _depth_first(size: int, links: Edges) -> Group:
    """A topological order that follows each chain to its end."""
    after: list[Group] = [[] for _ in range(size)]
    missing = [0] * size
    for a, b in sorted(links):
        after[a].append(b)
        missing[b] += 1
    stack = [n for n in reversed(range(size)) if missing[n] == 0]
    order = []
    while stack:
        n = stack.pop()
        order.append(n)
        for later in reversed(after[n]):
            missing[later] -= 1
            if missing[later] == 0:
                stack.append(later)
    return order
