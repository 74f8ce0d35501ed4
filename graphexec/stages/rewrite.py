"""rewrite: replace parts of a typed graph by equivalent ones.

Each rewrite is a module of graphexec.rewrites with a function `rewrite(graph) -> graph` and a
NAME by which it can be switched off. They run in the order of REWRITES.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from graphexec.diagnostics import Diagnostic, did_you_mean
from graphexec.errors import InputError
from graphexec.rewrites import dead_nodes
from graphexec.typed import TypedGraph

REWRITES: dict[str, Callable[[TypedGraph], TypedGraph]] = {
    dead_nodes.NAME: dead_nodes.rewrite,
}


def rewrite(graph: TypedGraph, disabled: Collection[str] = ()) -> TypedGraph:
    """`graph` after every rewrite not named in `disabled`; InputError for an unknown name."""
    for name in disabled:
        if name not in REWRITES:
            raise InputError(
                [Diagnostic(f"there is no rewrite '{name}'", help=did_you_mean(name, REWRITES))]
            )
    for name, apply in REWRITES.items():
        if name not in disabled:
            graph = apply(graph)
    return graph
