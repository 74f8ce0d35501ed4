"""rewrite: replace parts of a typed graph by equivalent ones.

Each rewrite is a module of graphexec.rewrites with a function `rewrite(graph) -> graph` and a
NAME by which it can be switched off. They run in the order of REWRITES.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from graphexec.command import Program
from graphexec.costs import CostModel
from graphexec.diagnostics import Diagnostic, did_you_mean
from graphexec.errors import InputError
from graphexec.rewrites import batch, dead_nodes
from graphexec.typed import TypedGraph

REWRITES: dict[str, Callable[[TypedGraph], TypedGraph]] = {
    dead_nodes.NAME: dead_nodes.rewrite,
}
PROGRAM_REWRITES: dict[str, Callable[[Program, CostModel], Program]] = {
    batch.NAME: batch.rewrite,
}


def rewrite(graph: TypedGraph, disabled: Collection[str] = ()) -> TypedGraph:
    """`graph` after every rewrite not named in `disabled`; InputError for an unknown name."""
    for name in disabled:
        known = (*REWRITES, *PROGRAM_REWRITES)
        if name not in known:
            raise InputError(
                [Diagnostic(f"there is no rewrite '{name}'", help=did_you_mean(name, known))]
            )
    for name, apply in REWRITES.items():
        if name not in disabled:
            graph = apply(graph)
    return graph


def rewrite_program(program: Program, costs: CostModel, disabled: Collection[str] = ()) -> Program:
    """`program` after every rewrite of programs not named in `disabled`."""
    for name, apply in PROGRAM_REWRITES.items():
        if name not in disabled:
            program = apply(program, costs)
    return program
