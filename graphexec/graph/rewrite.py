"""rewrite: replace parts of a typed graph by equivalent ones.

Each rewrite is a module of graphexec.graph.rewrites that binds REWRITE. They run in the order in
which they stand here, before `lower`. Those of programs are in graphexec.planning.rewrite.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from graphexec.graph.rewrites import (
    accumulate_in_place,
    common_subexpressions,
    concat_in_place,
    dead_nodes,
    fold_biases,
    fold_casts,
    fold_copies,
    fuse_attention,
    join_projections,
    join_ropes,
    permuted_results,
)
from graphexec.graph.rewriting import GraphRewrite, Note, Target
from graphexec.ir.typed import TypedGraph

GRAPH_REWRITES: tuple[GraphRewrite, ...] = (
    dead_nodes.REWRITE,  # first: dead nodes count as readers otherwise
    fuse_attention.REWRITE,  # before equal nodes are shared: shared scores prevent the fusion
    common_subexpressions.REWRITE,
    fold_casts.REWRITE,
    join_projections.REWRITE,  # before fold-copies: its products are read by windows
    join_ropes.REWRITE,
    fold_biases.REWRITE,
    fold_copies.REWRITE,
    permuted_results.REWRITE,
    concat_in_place.REWRITE,
    accumulate_in_place.REWRITE,
)


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
