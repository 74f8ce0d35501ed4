"""The passes over a row that a body needs, for printers that go along it.

A reduction ends a pass; what depends on its value comes in a later one. A step that varies along
the row is computed in the first pass that needs it, and kept for later ones. A step that is the
same for the whole row is computed once, before the pass that needs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from graphexec.base.tensor import DType
from graphexec.ir.body import Body, Step

_HALVES = (DType.F16, DType.BF16)
_SIMPLE = ("add", "sub", "mul", "neg")


@dataclass
class Pass:
    """Numbers of steps, in their order: those computed once a row, before it; those of each
    element; the reductions that end it."""

    before: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    reductions: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Passes:
    """A body by passes. In the last there are no reductions, and all results are stored.

    `kept` are the steps whose elements a later pass needs again. `uniform` tells for each step
    whether it is the same for a whole row.
    """

    passes: tuple[Pass, ...]
    kept: tuple[int, ...]
    uniform: tuple[bool, ...]


def passes_of(body: Body) -> Passes:
    """The passes of a body; one if nothing is reduced."""
    uniform = tuple(_uniform(body))
    level = _levels(body)
    last = max((level[n] + 1 for n, step in enumerate(body.steps) if step.reduces), default=0)
    cheap = _cheap(body, uniform)
    needed = _needed(body, uniform, cheap, level, last)
    passes = tuple(Pass() for _ in range(last + 1))
    kept = []
    for number, step in enumerate(body.steps):
        if step.reduces:
            passes[level[number]].reductions.append(number)
        elif uniform[number]:
            passes[level[number]].before.append(number)
        elif needed[number]:
            for each in needed[number] if cheap[number] else [min(needed[number])]:
                passes[each].steps.append(number)
            if len(needed[number]) > 1 and not cheap[number]:
                kept.append(number)
    return Passes(passes, tuple(kept), uniform)


def _cheap(body: Body, uniform: tuple[bool, ...]) -> list[bool]:
    """For each step, whether to compute it again takes less than to keep it: to read what is not a
    half, and one operation on that."""
    found: list[bool] = []
    for step in body.steps:
        half = step.function == "load" and step.dtype in _HALVES
        simple = step.function in _SIMPLE and all(
            uniform[arg] or (found[arg] and not body.steps[arg].args) for arg in step.args
        )
        found.append(simple if step.args else not half)
    return found


def _uniform(body: Body) -> list[bool]:
    """For each step, whether it is the same along a row: only what is reduced has rows. Without
    reductions a run of elements may go along any axis, and only constants are the same."""
    found: list[bool] = []
    for step in body.steps:
        found.append(step.reduces or _constant(step, body.reduces) or (
            bool(step.args) and all(found[arg] for arg in step.args)))  # fmt: skip
    return found


def _constant(step: Step, rows: bool) -> bool:
    return step.function == "constant" or (rows and step.function == "index" and step.value != -1)


def _levels(body: Body) -> list[int]:
    """The first pass in which each step can be computed; that which a reduction ends."""
    found: list[int] = []
    for step in body.steps:
        found.append(max((found[a] + body.steps[a].reduces for a in step.args), default=0))
    return found


def _needed(
    body: Body, uniform: tuple[bool, ...], cheap: list[bool], level: list[int], last: int
) -> list[set[int]]:
    """The passes in which the elements of each step are needed.

    A step is computed in the first of them, or in each if it is cheap, and needs its arguments
    there.
    """
    found: list[set[int]] = [set() for _ in body.steps]
    for number in body.results:
        found[number].add(last)
    for number in reversed(range(len(body.steps))):
        step = body.steps[number]
        where = found[number]
        if step.reduces:
            where = {level[number]}
        elif uniform[number] or not where:
            continue
        elif not cheap[number]:
            where = {min(where)}
        for arg in step.args:
            found[arg] |= where
    return found
