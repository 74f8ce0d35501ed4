"""rewrite: replace parts of a typed graph, and then of its program, by equivalent ones.

Each rewrite is a module of graphexec.graph.rewrites that binds REWRITE. Rewrites of graphs run
before `lower`, rewrites of programs after it, in the order of the lists below.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from graphexec.base.diagnostics import Diagnostic, did_you_mean
from graphexec.base.errors import InputError
from graphexec.graph.rewrites import (
    accumulate_in_place,
    common_subexpressions,
    dead_nodes,
    fold_casts,
    fold_copies,
    fuse_attention,
    permuted_results,
)
from graphexec.graph.rewriting import GraphRewrite, Note, ProgramRewrite, Rewrite, Target
from graphexec.ir.program import Program
from graphexec.ir.typed import TypedGraph
from graphexec.planning import batch

GRAPH_REWRITES: tuple[GraphRewrite, ...] = (
    dead_nodes.REWRITE,  # first: dead nodes count as readers otherwise
    fuse_attention.REWRITE,  # before equal nodes are shared: shared scores prevent the fusion
    common_subexpressions.REWRITE,
    fold_casts.REWRITE,
    fold_copies.REWRITE,
    permuted_results.REWRITE,
    accumulate_in_place.REWRITE,
)
PROGRAM_REWRITES: tuple[ProgramRewrite, ...] = (batch.REWRITE,)
ALL = "all"  # in place of a name: every rewrite


def known_rewrites() -> dict[str, Rewrite]:
    """Every rewrite by name, in the order in which they run."""
    every: list[Rewrite] = [*GRAPH_REWRITES, *PROGRAM_REWRITES]
    return {each.name: each for each in every}


def chosen_rewrites(on: Collection[str] = (), off: Collection[str] = ()) -> frozenset[str]:
    """Names of the rewrites to apply: those that are on by default and those of `on`, without
    those of `off`. "all" stands for every name; a name overrides "all".

    Raises InputError for an unknown name, and for one that is to be both on and off.
    """
    known = known_rewrites()
    both = set(on) & set(off)
    mistakes = [_unknown(name) for name in {**dict.fromkeys(on), **dict.fromkeys(off)}
                if name not in known and name != ALL]  # fmt: skip
    mistakes += [Diagnostic(f"rewrite '{name}' is switched both on and off") for name in both]
    if mistakes:
        raise InputError(mistakes)
    names = {name for name, r in known.items() if (r.default or ALL in on) and ALL not in off}
    return frozenset((names | (set(on) - {ALL})) - set(off))


def without_lengthening(names: Collection[str]) -> frozenset[str]:
    """The graph rewrites in `names` that lengthen no lifetime."""
    return frozenset(r.name for r in GRAPH_REWRITES if r.name in names and not r.lengthens)


def rewrite(
    graph: TypedGraph, target: Target, names: Collection[str]
) -> tuple[TypedGraph, tuple[Note, ...]]:
    """`graph` after the graph rewrites in `names`, and their notes."""
    notes: list[Note] = []
    for each in GRAPH_REWRITES:
        if each.name in names:
            graph, found = each.apply(graph, target)
            notes += [replace(note, rewrite=each.name) for note in found]
    return graph, tuple(notes)


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


def _unknown(name: str) -> Diagnostic:
    known = known_rewrites()
    help = did_you_mean(name, known) or f"known are {', '.join(known)}"
    return Diagnostic(f"there is no rewrite '{name}'", help=help)
