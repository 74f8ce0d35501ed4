"""The predicted run: starts, costs, and the critical path."""

import dataclasses

import pytest
from graph_files import STEMS

import graphexec as gx
from graphexec.ir.plan import Launch, Plan, Wait
from graphexec.planning.pipeline import plan_graph
from graphexec.views.blocks import blocks, period, summary
from graphexec.views.lifetimes import tenants, usage
from graphexec.views.predict import microseconds, model, predict, simulate
from graphexec.views.reasons import reasons


def test_a_launch_starts_after_its_stream_and_its_waits(attention):
    times = simulate(attention, [10, 20, 30, 5, 5, 5, 1], 2)
    assert times.start == (0, 12, 12, 34, 39, 44, 49)
    assert times.total == 50
    assert times.critical() == {0, 1, 3, 4, 5, 6}


@pytest.mark.parametrize("name", STEMS)
def test_estimated_costs_are_near_the_planners(name):
    """For plans that do not say: a product of matrices without a batch is right."""
    bound = plan_graph(gx.load(f"graphs/{name}.yaml"), no_rewrite=["all"]).bound
    steps = tuple(dataclasses.replace(i, cost=None) if isinstance(i, Launch) else i
                  for i in bound.plan.instructions)  # fmt: skip
    found = microseconds(dataclasses.replace(bound.plan, instructions=steps))
    known = microseconds(bound.plan, bound.prediction)
    assert all(one / 4 < two < one * 4 for one, two in zip(found, known, strict=True))


@pytest.mark.parametrize("device", ["cpu", "hip"])
@pytest.mark.parametrize("streams", [1, 2, 4])
@pytest.mark.parametrize("name", STEMS)
def test_what_is_shown_is_what_the_planner_predicted(name, streams, device):
    """Of the plan with the planner's answer, by itself, and read from a file."""
    bound = plan_graph(gx.load(f"graphs/{name}.yaml"), streams=streams, device=device).bound
    for plan in (bound.plan, Plan.from_json(bound.plan.to_json())):
        for known in (None, bound.prediction):
            times = predict(plan, known)
            assert round(times.total * 1000) == plan.stats.predicted_ns
            spans = [t for span in bound.prediction.spans.values() for t in span]
            found = [t for span in zip(times.start, times.end, strict=True) for t in span]
            assert found == pytest.approx(spans)
            assert microseconds(plan, known) == pytest.approx([*bound.prediction.alone.values()])
            path = sorted(times.critical())
            assert times.end[path[-1]] == times.total
            assert all(times.end[times.after[n]] <= times.start[n] + 1e-9 for n in path[1:])


def test_a_gemm_costs_its_operations(attention):
    flops = 2 * 2 * 8 * 128 * 128 * 64
    rates = model(attention)
    split = flops / rates.flops + rates.wake  # over the cores
    assert microseconds(attention)[3] == pytest.approx(rates.launch + split)


def test_a_wait_for_nothing_is_passed_over(attention):
    waits = tuple(i for i in attention.instructions if not isinstance(i, Wait))
    odd = dataclasses.replace(attention, instructions=(Wait(0, 99), *waits))
    assert predict(odd).start[0] == 0


def test_blocks_hold_every_launch_once(chains):
    plan = chains(8, 4, 20)
    made = blocks(plan, 12)
    members = sorted(n for b in made for n in b.members)
    assert members == list(range(sum(isinstance(i, Launch) for i in plan.instructions)))
    assert len(made) <= 16


def test_repetition_is_found():
    assert period(["a", "b"] * 5) == 2
    assert period(["a", "b", "c"]) == 0
    assert summary(["gemm", "softmax"] * 3) == "3 × (gemm, softmax)"
    assert summary(["gemm"] * 3) == "3 × gemm"
    assert summary(["a", "b", "c", "a"]) == "2 × a, 1 × b, 1 × c"


# Why waits exist ------------------------------------------------------------------------


def test_a_wait_says_what_it_protects(attention):
    found = list(reasons(attention).values())
    assert found[0] == "stream 1 starts when stream 0 does"
    assert found[2] == "'scores' reads 'k', which 'k.h2d' on stream 1 writes"


def test_waits_of_the_examples_all_have_a_reason():
    for name in ("multi_head_attention", "parallel_branches", "copies"):
        plan = plan_graph(gx.load(f"graphs/{name}.yaml")).plan
        for number, text in reasons(plan).items():
            if plan.instructions[number].role == "dependency":
                assert "reads" in text or "overwrites" in text or "says" in text, text


# Who has the bytes ----------------------------------------------------------------------


def test_tenants_that_share_bytes_do_not_meet():
    plan = plan_graph(gx.load("graphs/multi_head_attention.yaml"), no_rewrite=["all"]).plan
    times, found = predict(plan), tenants(plan)
    assert {t.name for t in found} >= {"x", "q", "scores", "probs", "y"}
    for a in found:
        for b in found:
            apart = a.range.high <= b.range.low or b.range.high <= a.range.low
            gaps = (b.begin(times) - a.end(times), a.begin(times) - b.end(times))
            before = max(gaps) > -1e-6  # sums of times in another order differ in the last digit
            assert a is b or apart or before, (a, b)


def test_usage_ends_at_nothing_and_stays_in_the_arena():
    plan = plan_graph(gx.load("graphs/multi_head_attention.yaml"), no_rewrite=["all"]).plan
    steps = usage(tenants(plan), predict(plan))
    assert steps[-1][1] == 0
    assert 0 < max(used for _, used in steps) <= plan.stats.arena_bytes
