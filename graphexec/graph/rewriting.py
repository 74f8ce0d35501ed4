"""What a rewrite is: a named, switchable step from a graph or program to an equivalent one.

A rewrite is told the Target it works for, and returns what it made with notes: what it did, and
where that is worth knowing, why it did not. `graphexec explain` shows the notes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphexec.ir.program import Program
from graphexec.ir.typed import TypedGraph
from graphexec.machine.costs import CPU, CostModel, model_of
from graphexec.machine.support import OF_THE_CPU, Asking, Cpu, Facts, Hardware, named


@dataclass(frozen=True)
class Target:
    """What is compiled for: the name of a device, whether it does a piece of work, what else is
    known of it, what commands cost there, and on how many streams they may run."""

    device: str = "cpu"
    support: Asking = Cpu().support
    facts: Facts = OF_THE_CPU
    costs: CostModel = CPU
    streams: int = 4


def target_of(
    device: str, hardware: Hardware | None = None, costs: CostModel | None = None
) -> Target:
    """The target of a device; without `hardware` no more is known than its name."""
    found = named(device) if hardware is None else hardware
    return Target(device, found.support, found.facts(), costs or model_of(device))


@dataclass(frozen=True)
class Note:
    """What a rewrite did, or with `applied` False why it did not.

    `text` names the nodes in quotes; `nodes` are all of them, also those that are gone.
    """

    nodes: tuple[str, ...]
    text: str
    applied: bool = True
    rewrite: str = ""


@dataclass(frozen=True)
class GraphRewrite:
    """A rewrite of typed graphs, before `lower`. `doc` says in a line what it does.

    `lengthens`: tensors may live longer for it. It is left out where a memory limit is not kept
    otherwise.
    """

    name: str
    doc: str
    apply: Callable[[TypedGraph, Target], tuple[TypedGraph, tuple[Note, ...]]]
    default: bool = True
    lengthens: bool = False


@dataclass(frozen=True)
class ProgramRewrite:
    """A rewrite of programs, after `lower`. `doc` and `lengthens` are as in GraphRewrite."""

    name: str
    doc: str
    apply: Callable[[Program, Target], tuple[Program, tuple[Note, ...]]]
    default: bool = True
    lengthens: bool = False


Rewrite = GraphRewrite | ProgramRewrite
