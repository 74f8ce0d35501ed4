"""rewrite: replace parts of a program by equivalent ones; and the names of all rewrites.

A rewrite of programs is a module of graphexec.planning that binds REWRITE. They run after `lower`,
in the order of PROGRAM_REWRITES. Rewrites of graphs are in graphexec.graph.rewrite.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from graphexec.base.diagnostics import Diagnostic, unknown
from graphexec.base.errors import InputError
from graphexec.graph import rewrite as of_graphs
from graphexec.graph.rewriting import Note, ProgramRewrite, Rewrite, Target
from graphexec.ir.program import Gemm, Program, Work
from graphexec.machine.support import Asking, Support, no
from graphexec.planning import (
    batch,
    few_rows,
    fuse_activations,
    fuse_epilogue,
    fuse_few_rows,
    fuse_maps,
    keep_in_place,
)

PROGRAM_REWRITES: tuple[ProgramRewrite, ...] = (
    few_rows.REWRITE,
    fuse_maps.REWRITE,
    fuse_few_rows.REWRITE,
    keep_in_place.REWRITE,  # before batches, whose tensors lie together
    batch.REWRITE,
    fuse_epilogue.REWRITE,
    fuse_activations.REWRITE,
)
ALL = "all"  # instead of a name: every rewrite


def known_rewrites() -> dict[str, Rewrite]:
    """Every rewrite by name, in the order in which they run."""
    every: list[Rewrite] = [*of_graphs.GRAPH_REWRITES, *PROGRAM_REWRITES]
    return {each.name: each for each in every}


def chosen_rewrites(on: Collection[str] = (), off: Collection[str] = ()) -> frozenset[str]:
    """The names of the rewrites to apply: the default ones and those of `on`, without those of
    `off`. "all" stands for every name. A name overrides "all".

    Raises InputError for an unknown name, and for one that is to be both on and off.
    """
    known = known_rewrites()
    both = set(on) & set(off)
    given = dict.fromkeys((*on, *off))
    mistakes = [unknown("rewrite", n, known) for n in given if n not in known and n != ALL]
    mistakes += [Diagnostic(f"rewrite '{name}' is switched both on and off") for name in both]
    if mistakes:
        raise InputError(mistakes)
    names = {name for name, r in known.items() if (r.default or ALL in on) and ALL not in off}
    return frozenset((names | (set(on) - {ALL})) - set(off))


def changed_rewrites(names: Collection[str]) -> str:
    """How `names` differ from the rewrites that are on by default: "with x, without y", or ""."""
    usual = chosen_rewrites()
    more = [f"with {name}" for name in sorted(set(names) - usual)]
    return ", ".join([*more, *(f"without {name}" for name in sorted(usual - set(names)))])


def without_lengthening(names: Collection[str]) -> frozenset[str]:
    """The rewrites in `names` that make no tensor live longer."""
    known = known_rewrites()
    return frozenset(name for name in names if not known[name].lengthens)


def rewrite_program(
    program: Program, target: Target, names: Collection[str]
) -> tuple[Program, tuple[Note, ...]]:
    """`program` after the program rewrites in `names`, and their notes."""
    notes: list[Note] = []
    for each in PROGRAM_REWRITES:
        if each.name in names:
            program, found = each.apply(program, target)
            notes += [replace(note, rewrite=each.name) for note in found]
    return program, tuple(notes)


def seen_by(names: Collection[str], target: Target) -> Target:
    """The target as the rewrites in `names` see it."""
    if fuse_epilogue.REWRITE.name in names:
        return target
    return replace(target, support=_without_biases(target))


def _without_biases(target: Target) -> Asking:
    """The answers of a target, for rewrites, while `fuse-epilogue` is switched off."""

    def support(work: Work) -> Support:
        if isinstance(work, Gemm) and work.bias is not None:
            return no(f"{fuse_epilogue.REWRITE.name} is switched off")
        return target.support(work)

    return support
