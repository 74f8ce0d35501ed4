"""Prove that a plan has no hazard, or report its hazards.

Requires: a Plan, of this compiler or of any other program.
Guarantees:
1. Independence: no code is shared with the stages that make plans. Happens-before is derived
   from the instruction list alone (clocks.py).
2. Completeness: if `find_hazards` returns nothing, the plan has none of the hazards listed in
   docs/plan-format.md, also when it is issued again before the host has waited for the first run.
3. No false alarm: every reported hazard is one by the definitions given there. Values do not
   matter: two writes of the same value are a hazard too.
4. Time O(A log A + C · K) for A accesses on K streams, where C is the number of cells (tensors or
   parts of tensors) those accesses cover. No recursion.
Not checked: whether a command touches only the bytes it declares; the values; the workspaces
of BLAS libraries (one handle a stream keeps them apart).
"""

from __future__ import annotations

from itertools import islice

from graphexec.ir.plan import Plan
from graphexec.proof import edges, structure
from graphexec.proof.evidence import Evidence
from graphexec.proof.hazard import Hazard, HazardError, HazardKind, Relation, Site
from graphexec.proof.lint import lint
from graphexec.proof.races import races
from graphexec.proof.states import states
from graphexec.proof.together import find_hazards_together, prove_together

# Malformed plans come first: the races that follow are often their consequence.
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
    states,
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

    Malformed declarations come first, then forks, joins, reads of the host, and pairs of launches
    that race: in one run, then between a run and the next.
    """
    evidence = Evidence(plan)
    found = (hazard for check in _CHECKS for hazard in check(plan, evidence))
    return list(islice(found, max(limit, 0)))


__all__ = [
    "Hazard", "HazardError", "HazardKind", "Relation", "Site", "find_hazards",
    "find_hazards_together", "lint", "prove", "prove_together",
]  # fmt: skip
