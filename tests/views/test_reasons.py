"""Why each wait exists, and what is known of a plan's times."""

import re
from dataclasses import replace

import pytest

import graphexec as gx
from graphexec.base.tensor import DType
from graphexec.ir.plan import Launch, PlacedTensor, Plan, Range, Record, Stream, Wait
from graphexec.ir.program import Cost
from graphexec.planning.pipeline import plan_graph
from graphexec.views import lanes
from graphexec.views.predict import microseconds, model, prediction
from graphexec.views.reasons import reasons


def why(first: Launch | None, second: Launch | None, *, role="dependency", recorded=True) -> str:
    """The reason of a wait on stream 1 between two launches on two streams."""
    steps = [first, Record(0, 4) if recorded else None, Wait(1, 4, role), second]
    kept = tuple(i for i in steps if i is not None)
    tensors = (PlacedTensor("w", "arena", 0, 64, (16,), DType.F32),)
    (text,) = reasons(Plan("p", "cpu", {}, (Stream(0), Stream(1)), (), tensors, kept)).values()
    return text


def launch(stream: int, node: str, reads=(), writes=(), after=()) -> Launch:
    ranges = [tuple(Range("arena", *r) for r in each) for each in (reads, writes)]
    return Launch(stream, node, "k", *ranges, after=after)


def test_a_wait_for_data_names_the_tensor_or_its_bytes():
    late = launch(1, "r", reads=[(0, 64)])
    assert (
        why(launch(0, "w", writes=[(0, 64)]), late) == "'r' reads 'w', which 'w' on stream 0 writes"
    )
    unnamed = launch(0, "odd", writes=[(16, 48)])
    assert why(unnamed, late) == "'r' reads arena[16, 48), which 'odd' on stream 0 writes"


def test_a_wait_before_bytes_that_are_read_are_overwritten():
    text = why(launch(0, "r", reads=[(8, 40)]), launch(1, "w", writes=[(32, 64)]))
    assert text == "'w' overwrites bytes that 'r' on stream 0 reads (arena[32, 40))"


def test_a_wait_before_bytes_that_are_written_are_overwritten():
    text = why(launch(0, "a", writes=[(0, 16)]), launch(1, "b", writes=[(12, 20)]))
    assert text == "'b' overwrites bytes that 'a' on stream 0 writes (arena[12, 16))"


def test_a_wait_for_an_order_that_the_graph_asks_for():
    text = why(launch(0, "a", writes=[(0, 8)]), launch(1, "b", writes=[(8, 16)], after=("a",)))
    assert text == "the graph says that 'b' comes after 'a' on stream 0"


def test_a_wait_that_nothing_explains_says_only_the_order():
    text = why(launch(0, "a", writes=[(0, 8)]), launch(1, "b", writes=[(8, 16)]))
    assert text == "'b' comes after 'a' on stream 0"


@pytest.mark.parametrize(("first", "second"), [(None, "b"), ("a", None), (None, None)])
def test_a_wait_with_a_launch_missing_says_event_and_streams(first, second):
    text = why(first and launch(0, first), second and launch(1, second))
    assert text == "stream 1 goes on after event 4 of stream 0"


def test_forks_joins_and_waits_for_nothing():
    a, b = launch(0, "a"), launch(1, "b")
    assert why(a, b, role="fork") == "stream 1 starts when stream 0 does"
    assert why(a, b, role="join") == "the run is over only when stream 0 is"
    assert (
        why(a, b, recorded=False) == "event 4 is not recorded before this wait: it orders nothing"
    )


# Costs that a plan does not hold ----------------------------------------------------------


def cost(launch: Launch, *tensors: PlacedTensor) -> float:
    """Microseconds of a launch without a cost, beyond those of launching it."""
    plan = Plan("p", "cpu", {}, (Stream(0),), (), tensors, (launch,))
    (us,) = microseconds(plan)
    return us - model(plan).launch


@pytest.mark.parametrize(("dtype", "m", "n", "k"), [
    (DType.F32, 512, 256, 1024), (DType.F64, 64, 2048, 300), (DType.F16, 700, 700, 700),
])  # fmt: skip
def test_a_product_of_unknown_shape_costs_its_operations(dtype, m, n, k):
    size = dtype.itemsize
    a, b, out = (Range(name, 0, count * size) for name, count in
                 (("a", m * k), ("b", k * n), ("out", m * n)))  # fmt: skip
    given = Launch(0, "y", "gemm", (a, b), (out,), kind="gemm")
    named = PlacedTensor("y", "out", 0, out.high, (m, n), dtype)
    moved = a.high + b.high + out.high
    known = replace(given, cost=Cost(2 * m * n * k, moved))
    assert cost(given, named) == pytest.approx(cost(known, named), rel=1e-6)
    assert cost(replace(given, kind="kernel"), named) == pytest.approx(
        cost(replace(given, kind="kernel", cost=Cost(0, moved)), named)
    )


def test_bytes_of_a_range_that_ends_before_it_begins_are_none():
    odd = Launch(0, "x", "k", (Range("a", 9, 2),), (), kind="kernel")
    assert cost(odd) == pytest.approx(cost(replace(odd, reads=(), cost=Cost(0, 0))))


# What was predicted -----------------------------------------------------------------------


@pytest.fixture
def compiled():
    return plan_graph(gx.load("graphs/diamond.yaml"), device="cpu")


def test_the_table_of_a_plan_has_the_times_of_its_launches(compiled):
    assert re.search(r"^ +#.* µs ", str(compiled.plan), re.MULTILINE)
    assert "no times of single launches" not in str(compiled.plan)


def test_a_plan_made_with_measured_times_says_why_it_shows_none(compiled):
    measured = replace(compiled.plan, stats=replace(compiled.plan.stats, costs="measured costs"))
    assert prediction(measured)[0] == {}
    assert (
        "no times of single launches: the plan was made with other costs (measured costs), which it"
        " does not hold"
    ) in str(measured)
    assert prediction(measured, compiled.bound.prediction) == (compiled.bound.prediction.spans, "")
    picture = lanes.to_svg(measured)
    assert "by the measured costs · drawn by an estimate" in picture
    assert "drawn by an estimate" not in lanes.to_svg(measured, known=compiled.bound.prediction)


def test_a_plan_of_another_cost_model_says_so(compiled):
    stats = replace(compiled.plan.stats, predicted_ns=compiled.plan.stats.predicted_ns * 2)
    assert "the cost model has since changed" in str(replace(compiled.plan, stats=stats))


def test_a_plan_whose_launches_have_no_cost_says_so(compiled):
    steps = tuple(replace(i, cost=None) if isinstance(i, Launch) else i
                  for i in compiled.plan.instructions)  # fmt: skip
    assert "launches do not say what they cost" in str(replace(compiled.plan, instructions=steps))


def test_a_plan_without_a_prediction_has_nothing_to_say(attention):
    assert "no times" not in str(attention)
