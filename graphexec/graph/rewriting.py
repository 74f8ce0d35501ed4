"""Rewrites: named steps from a graph or program to an equivalent one, which can be switched off.

A rewrite takes the Target and returns the new graph or program with notes. A note says what was
done, or why something was not done. `graphexec explain` shows the notes.
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
    """The target of compilation: the name of a device, its answers about pieces of work, facts
    about it, the costs of commands, and the number of streams."""

    device: str = "cpu"
    support: Asking = Cpu().support
    facts: Facts = OF_THE_CPU
    costs: CostModel = CPU
    streams: int = 4


def target_of(
    device: str, hardware: Hardware | None = None, costs: CostModel | None = None
) -> Target:
    """The target of a device; without `hardware`, only its name is known."""
    found = named(device) if hardware is None else hardware
    return Target(device, found.support, found.facts(), costs or model_of(device))


@dataclass(frozen=True)
class Note:
    """What a rewrite did, or if `applied` is False, why it did nothing.

    `text` names the nodes in quotes; `nodes` are all of them, also those that are gone.
    """

    nodes: tuple[str, ...]
    text: str
    applied: bool = True
    rewrite: str = ""


@dataclass(frozen=True)
class GraphRewrite:
    """A rewrite of typed graphs, before `lower`. `doc` says in a line what it does.

    `lengthens`: the rewrite may make tensors live longer, so it is left out if a memory limit
    cannot be kept with it.
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
