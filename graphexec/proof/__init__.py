"""Prove that a plan has no hazard, or say exactly which it has.

Requires: a Plan, of this compiler or of any other program.
Guarantees:
1. Independence: nothing here is shared with the stages that make plans. Happens-before is derived
   again from the instruction list alone (clocks.py).
2. Completeness: a plan in which `find_hazards` finds nothing has none of the hazards listed in
   docs/plan-format.md, also when it is issued again before the host has looked at the first run.
3. No false alarm: every hazard reported is one by the definitions given there. Bytes count, not
   what is written to them: two writes of the same value are a hazard too.
4. Time O(A log A + C · K) for A accesses on K streams, where C is the number of cells (tensors or
   parts of tensors) those accesses cover. No recursion.
Unsupported: whether a command touches the bytes it declares; the values; that BLAS libraries
keep workspaces of their own (one handle a stream is what keeps those apart).
"""

from __future__ import annotations

from itertools import islice

from graphexec.base.errors import HazardError
from graphexec.ir.plan import Plan
from graphexec.proof import edges, structure
from graphexec.proof.evidence import Evidence
from graphexec.proof.hazard import Hazard, HazardKind, Relation, Site
from graphexec.proof.lint import lint
from graphexec.proof.races import races

# What makes no sense comes first: it is often the cause of the races that follow.
_CHECKS = (
    structure.streams,
    structure.events,
    structure.bounds,
    structure.handles,
    structure.aliases,
    structure.read_only,
    edges.forks,
    edges.joins,
    edges.host_reads,
    edges.orders,
    races,
)


def prove(plan: Plan) -> Plan:
    """Return the plan as it is, or raise HazardError with everything found."""
    hazards = find_hazards(plan)
    if hazards:
        raise HazardError(hazards)
    return plan


def find_hazards(plan: Plan, limit: int = 100) -> list[Hazard]:
    """The hazards of a plan, at most `limit` of them; an empty list is the proof that it is safe.

    Malformed declarations come first, then forks, joins, what the host reads, and the pairs of
    launches that race: in one run, then between a run and the next.
    """
    evidence = Evidence(plan)
    found = (hazard for check in _CHECKS for hazard in check(plan, evidence))
    return list(islice(found, max(limit, 0)))


__all__ = ["Hazard", "HazardKind", "Relation", "Site", "find_hazards", "lint", "prove"]
