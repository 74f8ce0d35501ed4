"""The verifier says what the brute-force oracle says: of random plans, and of real plans after
a mistake was made in them.

benchmarks/mutation_campaign.py does the same with as many mutants as one has time for.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from mutants import mutants, sample
from oracle import racy
from strategies import Seeded, graphs, plans, random_graph, random_plan, stream_counts
from test_oracle import CASES

from graphexec.api import make_plan
from graphexec.ir.graph import Graph
from graphexec.ir.plan import Plan
from graphexec.proof import find_hazards

BATCHES = 8


def assert_same_verdict(plan: Plan, what: str) -> None:
    reasons, hazards = racy(plan), find_hazards(plan)
    if bool(reasons) != bool(hazards):
        steps = "\n  ".join(f"{i}: {step}" for i, step in enumerate(plan.instructions))
        pytest.fail(
            f"{what}\noracle: {reasons}\nverifier: {[str(h) for h in hazards]}\n"
            f"{plan.streams}\n{plan.buffers}\n  {steps}"
        )


@pytest.mark.parametrize("rule", CASES)
def test_every_rule_and_its_nearest_miss(rule: str) -> None:
    _, wrong, right = CASES[rule]
    assert_same_verdict(wrong, rule)
    assert_same_verdict(right, f"not {rule}")


@settings(max_examples=300, deadline=None)
@given(plans())
def test_random_plans(plan: Plan) -> None:
    assert_same_verdict(plan, "random plan")


@pytest.mark.parametrize("batch", range(BATCHES))
def test_mutants_of_random_plans(batch: int) -> None:
    for seed in range(batch, 160, BATCHES):
        plan = random_plan(Seeded(seed))
        assert_same_verdict(plan, f"seed {seed}")
        for what, mutant in sample(plan, Random(seed), per_kind=3):
            assert_same_verdict(mutant, f"seed {seed}, {what}")


@pytest.mark.parametrize("batch", range(BATCHES))
def test_mutants_of_compiled_plans(batch: int) -> None:
    for seed in range(batch, 64, BATCHES):
        plan = make_plan(random_graph(Seeded(seed)), streams=1 + seed % 6, verify=False)
        assert not racy(plan)
        assert not find_hazards(plan)
        for what, mutant in sample(plan, Random(seed), per_kind=4):
            assert_same_verdict(mutant, f"seed {seed}, {what}")


@settings(max_examples=60, deadline=None)
@given(graphs(max_nodes=8), stream_counts())
def test_compiled_plans_are_safe_and_need_all_they_wait_for(graph: Graph, streams: int) -> None:
    """Without any record or wait, both the verifier and the oracle refute the plan."""
    plan = make_plan(graph, streams=streams)
    assert not racy(plan)
    assert not find_hazards(plan)
    for what, mutant in mutants(plan):
        if what.startswith("delete"):
            assert racy(mutant), what
            assert find_hazards(mutant), what
