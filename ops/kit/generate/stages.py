"""The passes over a row in which a body with reductions is computed.

A reduction needs all elements of a row, so what depends on it belongs to a later pass. Steps that
are the same for all elements of a row stand between the passes. The others are computed again in
each pass that needs them. Where a row stays in registers, those that are dear are kept instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphexec.ir.body import Body, Step

DEAR = frozenset(
    ("div", "floordiv", "mod", "pow", "exp", "log", "log1p", "sqrt", "sin", "cos", "tanh",
     "sigmoid", "erf", "erfc")
)  # fmt: skip
"""Functions of more than a few instructions."""


@dataclass(frozen=True)
class Pass:
    """One pass over the elements of a row, by numbers of steps.

    `taken` were kept by earlier passes, `steps` are computed, `kept` of these for later passes.
    `reductions` go over the pass; `after` is computed once a row when they are known.
    """

    taken: tuple[int, ...]
    steps: tuple[int, ...]
    kept: tuple[int, ...]
    reductions: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def read(self) -> tuple[int, ...]:
        """Every step whose value is there for an element."""
        return tuple(sorted((*self.taken, *self.steps)))


@dataclass(frozen=True)
class Stages:
    """`before` is computed once a row, then pass follows pass; the last one has no reductions and
    makes the results. It has no steps if no result varies along a row."""

    before: tuple[int, ...]
    passes: tuple[Pass, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        """Every step that is kept."""
        return tuple(number for each in self.passes for number in each.kept)


def along_rows(body: Body, same: Sequence[bool], length: int) -> list[bool]:
    """For each step, whether it is the same for all elements of a row; `same` says so of the
    operands."""
    found: list[bool] = []
    for step in body.steps:
        if step.function == "load":
            found.append(same[int(step.value or 0)])
        elif step.function == "index":
            found.append(step.value != -1 or length == 1)
        else:
            found.append(step.reduces or all(found[a] for a in step.args))
    return found


def stages(body: Body, alike: Sequence[bool], varying: Iterable[int], keep: bool) -> Stages:
    """The passes of a body. `alike` is along_rows, `varying` the steps that are stored element by
    element."""
    steps, level = body.steps, _levels(body.steps)
    last = max(level)
    reduced = [
        tuple(n for n, s in enumerate(steps) if s.reduces and level[n] == each + 1)
        for each in range(last)
    ]
    wanted = [[steps[n].args[0] for n in numbers] for numbers in reduced] + [list(varying)]
    needed = [_needed(steps, alike, numbers) for numbers in wanted]
    kept = _kept(steps, alike, needed, wanted) if keep else set[int]()
    passes, held = list[Pass](), set[int]()
    for each, numbers in enumerate(wanted):
        computed = _needed(steps, alike, numbers, held)
        fresh = (kept & computed) - held
        after = _once(steps, alike, level, each + 1) if each < last else ()
        passes.append(
            Pass(
                tuple(sorted(computed & held)), tuple(sorted(computed - held)),
                tuple(sorted(fresh)), reduced[each] if each < last else (), after,
            )
        )  # fmt: skip
        held |= fresh
    return Stages(_once(steps, alike, level, 0), tuple(passes))


def _levels(steps: Sequence[Step]) -> list[int]:
    """How many reductions come before each step, one after another."""
    found: list[int] = []
    for step in steps:
        before = max((found[a] for a in step.args), default=0)
        found.append(before + step.reduces)
    return found


def _once(
    steps: Sequence[Step], alike: Sequence[bool], level: Sequence[int], wanted: int
) -> tuple[int, ...]:
    """The steps of a level that are computed once a row, but for reductions."""
    return tuple(
        n for n, step in enumerate(steps) if alike[n] and level[n] == wanted and not step.reduces
    )


def _needed(
    steps: Sequence[Step],
    alike: Sequence[bool],
    wanted: Iterable[int],
    held: set[int] | None = None,
) -> set[int]:
    """The varying steps that lead to `wanted`; what leads to those that are held is not needed."""
    found, left = set[int](), list(wanted)
    while left:
        number = left.pop()
        if alike[number] or number in found:
            continue
        found.add(number)
        if held is None or number not in held:
            left += steps[number].args
    return found


def _kept(
    steps: Sequence[Step], alike: Sequence[bool], needed: Sequence[set[int]],
    wanted: Sequence[Sequence[int]],
) -> set[int]:  # fmt: skip
    """Dear steps of a pass from which later passes go on."""
    dear: list[bool] = []
    for number, step in enumerate(steps):
        inside = any(dear[a] for a in step.args)
        dear.append(not alike[number] and (step.function in DEAR or inside))
    found, known = set[int](), set[int]()
    for numbers, results in zip(needed, wanted, strict=True):
        used = {a for n in numbers - known for a in steps[n].args} | set(results)
        found |= {n for n in used & known if dear[n]}
        known |= numbers
    return found
