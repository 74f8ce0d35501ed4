"""What a rewrite is: a named, switchable step from a graph or program to an equivalent one.

A rewrite is told the Target it works for, and returns what it made with notes: what it did, and
where that is worth knowing, why it did not. `graphexec explain` shows the notes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphexec.base.tensor import DType
from graphexec.ir.program import Program
from graphexec.ir.typed import TypedGraph
from graphexec.machine.costs import CPU, CostModel, model_of
from graphexec.machine.epilogue import BIASES, pairs

CAPABILITIES = {
    "cpu": frozenset(
        {
            "any-batch",
            *(f"attention:{dtype}" for dtype in DType),
            *(name(*types) for types in pairs() for name in BIASES),
        }
    ),
    "hip": frozenset[str](),
}
"""What every device of a name can do beyond plain commands. A device at hand may do more: see
Device.capabilities.

any-batch               GEMMs whose batch axes no single stride walks are as fast as others
attention:DTYPE         attention on tensors of that type as one command
attention-in-parts:N    ... or as two, the keys in parts, where few queries make less than N
                        programs: so many fill the device
gemm-bias:DTYPE         a GEMM of that type that adds its bias itself (graphexec.machine.epilogue);
                        with a result of another type gemm-bias:DTYPE:RESULT
gemm-bias-batch:DTYPE   ... of which each product of a strided batch has a bias of its own
gemm-bias-c:DTYPE       ... and that adds beta · c with it

Not listed is "gemm-bias of SIGNATURE", for products of one signature
(graphexec.machine.capabilities).
"""


@dataclass(frozen=True)
class Target:
    """What is compiled for: the name of a device, what it can do, what commands cost there, and on
    how many streams they may run."""

    device: str = "cpu"
    capabilities: frozenset[str] = CAPABILITIES["cpu"]
    costs: CostModel = CPU
    streams: int = 4


def target_of(device: str) -> Target:
    """The target when no more is known than the name of the device."""
    return Target(device, CAPABILITIES.get(device, frozenset()), model_of(device))


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
    """A rewrite of programs, after `lower`. `doc` says in a line what it does."""

    name: str
    doc: str
    apply: Callable[[Program, Target], tuple[Program, tuple[Note, ...]]]
    default: bool = True


Rewrite = GraphRewrite | ProgramRewrite

__all__ = ["CAPABILITIES", "GraphRewrite", "Note", "ProgramRewrite", "Rewrite", "Target",
           "target_of"]  # fmt: skip
