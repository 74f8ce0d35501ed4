"""The first half of planning: from a graph to programs.

`prepare` infers types and chooses the target. `variants` rewrites the graph, lowers it and rewrites
the program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import InputError
from graphexec.graph.infer import infer
from graphexec.graph.partition import partition
from graphexec.graph.partition.cuts import cuts_of
from graphexec.graph.rewrite import rewrite as rewrite_graph
from graphexec.graph.rewriting import Note, Target, target_of
from graphexec.ir.graph import Graph
from graphexec.ir.program import Program
from graphexec.ir.ranks import Ranks
from graphexec.ir.typed import TypedGraph
from graphexec.machine.costs import CostModel, model_of
from graphexec.machine.support import Hardware
from graphexec.machine.variants import with_choices
from graphexec.planning.lower import lower
from graphexec.planning.options import Options, Streams
from graphexec.planning.profile import MeasuredSchedule, Profile
from graphexec.planning.profile import load as load_profile
from graphexec.planning.profile_cache import Kept
from graphexec.planning.rewrite import (
    changed_rewrites,
    chosen_rewrites,
    rewrite_program,
    seen_by,
    without_lengthening,
)

_STREAMS_OF_AUTO = 8  # as rewrites see it
_STREAMS_OF_REPRODUCIBLE = 4  # as rewrites see any number

FindProfile = Callable[[TypedGraph], Kept | None]
"""Looks for a profile that was kept of a graph."""


@dataclass(frozen=True)
class Job:
    """A typed graph, and what its plans are made for and with.

    Programs are made with the costs of the target, and scheduled with `costs`. They differ if the
    program is to be `reproducible`: then it is the same whatever was measured. `notes` say why the
    ranks meet, if there are several.
    """

    graph: TypedGraph
    target: Target
    rewrites: frozenset[str]
    streams: Streams
    resident: bool
    profile: Profile | None
    costs: CostModel
    reproducible: bool = False
    notes: tuple[Note, ...] = ()

    def on_streams(self, streams: Streams) -> Job:
        """The same on another number of streams."""
        most = _STREAMS_OF_AUTO if streams == "auto" else streams
        most = _STREAMS_OF_REPRODUCIBLE if self.reproducible else most
        most = 1 if self.target.costs.gain else most  # streams seldom pay there, and batches do
        return replace(self, streams=streams, target=replace(self.target, streams=most))

    @property
    def measured(self) -> MeasuredSchedule | None:
        """The schedules that were measured with these rewrites."""
        if self.profile is None:
            return None
        changed = changed_rewrites(self.rewrites)
        return self.profile.measured(self.streams, self.resident, changed)


@dataclass(frozen=True)
class Variant:
    """A program of the graph, and the notes of the rewrites that led to it."""

    rewritten: TypedGraph
    program: Program
    notes: tuple[Note, ...]


def prepare(
    graph: Graph, device: str, options: Options, hardware: Hardware | None = None,
    kept: FindProfile | None = None, ranks: Ranks | None = None,
) -> Job:  # fmt: skip
    """Infer the types of `graph`, take the part of it that a rank has, and choose costs, target and
    rewrites. Raises InputError."""
    check_graph(graph)
    names = chosen_rewrites(options.rewrite, options.no_rewrite)
    typed, notes = infer(graph), tuple[Note, ...]()
    if ranks is not None:
        cuts = cuts_of(graph, typed, ranks.mesh)
        typed, notes = partition(typed, cuts, ranks, graph.ops)
    model, profile = _costs(options, device, typed, kept)
    always, costs = options.reproducible, model
    if always:  # what was measured decides about the schedule alone
        model, profile = model_of(device), None
    target = target_of(device, hardware, model)
    job = Job(typed, target, names, options.streams, options.resident, profile, costs, always,
              notes)  # fmt: skip
    return job.on_streams(options.streams)


def check_graph(graph: object) -> None:
    """Raise InputError unless this is a Graph."""
    if not isinstance(graph, Graph):
        message = f"a Graph is wanted, not the {type(graph).__name__} {graph!r:.60}"
        raise InputError([Diagnostic(message, help="gx.load(path) reads one from a file")])


def variants(job: Job) -> Iterator[Variant]:
    """First the program that is fastest, then those that may need less memory."""
    names = job.rewrites
    target = seen_by(names, job.target)

    def lowered_from(graph: TypedGraph) -> Program:
        return lower(graph, job.resident, target)

    def tuned(program: Program) -> Program:
        return program if job.profile is None else with_choices(program, job.profile.commands)

    rewritten, notes = rewrite_graph(job.graph, target, names)
    lowered = lowered_from(rewritten)
    program, more = rewrite_program(lowered, target, names)
    notes = (*job.notes, *notes)
    yield Variant(rewritten, tuned(program), (*notes, *more))
    brief = without_lengthening(names)
    given_up = tuple(
        replace(note, applied=False, text=f"given up for the memory limit: {note.text}")
        for note in more if note.applied and note.rewrite not in brief
    )  # fmt: skip
    if given_up:  # tensors of a batch live as long as any of them
        program, kept = rewrite_program(lowered, target, brief)
        yield Variant(rewritten, tuned(program), (*notes, *kept, *given_up))
    shorter, fewer = rewrite_graph(job.graph, target, brief)
    if shorter != rewritten:
        program, kept = rewrite_program(lowered_from(shorter), target, brief)
        yield Variant(shorter, tuned(program), (*job.notes, *fewer, *kept, *given_up))


def _costs(
    options: Options, device: str, graph: TypedGraph, kept: FindProfile | None
) -> tuple[CostModel, Profile | None]:
    """The cost model, and the profile it is based on."""
    costs, model = options.costs, model_of(device)
    if isinstance(costs, CostModel):
        return costs, None
    if isinstance(costs, Profile):
        return costs.applied_to(model), costs
    if costs is not None:
        profile = load_profile(costs)
        return profile.applied_to(model, str(costs)), profile
    found = kept(graph) if kept is not None and options.use_profile else None
    if found is None:
        return model, None
    return found.profile.applied_to(model, f"profile {found.path.name}"), found.profile
