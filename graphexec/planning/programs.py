"""From a graph to the programs that its plans can be made from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from graphexec.base.collector import collector_at_rest
from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import InputError
from graphexec.graph.infer import infer
from graphexec.graph.rewrite import chosen_rewrites, rewrite_program, without_lengthening
from graphexec.graph.rewrite import rewrite as rewrite_graph
from graphexec.graph.rewriting import Note, Target, target_of
from graphexec.ir.graph import Graph
from graphexec.ir.program import Program
from graphexec.ir.typed import TypedGraph
from graphexec.machine.costs import CostModel, model_of
from graphexec.machine.variants import with_choices
from graphexec.planning.lower import lower
from graphexec.planning.profile import Profile

MAX_STREAMS = 256
_STREAMS_OF_AUTO = 8  # as rewrites see it

Streams = int | Literal["auto"]


@dataclass(frozen=True)
class Variant:
    """A program of the graph, and which rewrites it is the result of."""

    rewritten: TypedGraph
    program: Program
    notes: tuple[Note, ...]


def variants(
    graph: TypedGraph, target: Target, names: frozenset[str], resident: bool,
    profile: Profile | None,
) -> Iterator[Variant]:  # fmt: skip
    """First the program that is fastest, then those that may need less memory."""

    def tuned(program: Program) -> Program:
        return program if profile is None else with_choices(program, profile.commands)

    able = target.capabilities
    rewritten, notes = rewrite_graph(graph, target, names)
    lowered = lower(rewritten, resident, able)
    program, more = rewrite_program(lowered, target, names)
    yield Variant(rewritten, tuned(program), (*notes, *more))
    given_up = tuple(
        replace(note, applied=False, text=f"given up for the memory limit: {note.text}")
        for note in more if note.applied
    )  # fmt: skip
    if program is not lowered:  # tensors of a batch live as long as any of them
        yield Variant(rewritten, tuned(lowered), (*notes, *given_up))
    brief, fewer = rewrite_graph(graph, target, without_lengthening(names))
    if brief != rewritten:
        yield Variant(brief, tuned(lower(brief, resident, able)), (*fewer, *given_up))


def target_for(
    device: str, capabilities: Collection[str] | None, model: CostModel, most: Streams
) -> Target:
    """What rewrites are told of a device, which plans with `model` on at most `most` streams."""
    streams = _STREAMS_OF_AUTO if most == "auto" else most
    target = replace(target_of(device), costs=model, streams=streams)
    if capabilities is not None:
        target = replace(target, capabilities=frozenset(capabilities))
    return target


def most_streams(streams: Streams) -> Streams:
    """How many streams a plan may have. Raises InputError for what is no such number."""
    if streams == "auto":
        return streams
    if isinstance(streams, bool) or not isinstance(streams, int) or streams < 1:
        message = f"streams must be an integer of at least 1, or 'auto', not {streams}"
        raise InputError([Diagnostic(message)])
    return min(streams, MAX_STREAMS)


def programmed(
    graph: Graph, *, streams: Streams, device: str, resident: bool, costs: Profile | None = None,
    capabilities: Collection[str] | None = None, no_rewrite: Collection[str] = (),
) -> tuple[TypedGraph, Variant]:  # fmt: skip
    """The graph with its types, and the program that its plans are made from."""
    model = model_of(device) if costs is None else costs.applied_to(model_of(device))
    target = target_for(device, capabilities, model, most_streams(streams))
    with collector_at_rest():
        typed = infer(graph)
        names = chosen_rewrites((), no_rewrite)
        return typed, next(variants(typed, target, names, resident, costs))


__all__ = [
    "Streams",
    "Variant",
    "most_streams",
    "programmed",
    "target_for",
    "variants",
]
