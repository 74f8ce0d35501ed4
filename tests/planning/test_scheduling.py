from __future__ import annotations

from itertools import product

import pytest
import shapes
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from planner_tasks import made, random_tasks

from graphexec.machine import costs
from graphexec.machine.bounds import bounds
from graphexec.machine.simulate import Tasks, simulate
from graphexec.planning.schedule import CANDIDATES, _Portfolio, schedule
from graphexec.planning.scheduling import chains, exhaustive, greedy
from graphexec.planning.scheduling.assignment import Assignment
from graphexec.planning.scheduling.justify import Justifier
from graphexec.planning.scheduling.local_search import improve

FAMILIES = [n for n in shapes.MAKESPAN_SHAPES if not n.startswith("layered")] + ["layered 0"]
"""Each family once."""


def check(tasks: Tasks, streams: int, assignment: Assignment) -> None:
    assert sorted(assignment.order) == list(range(len(tasks)))
    assert all(0 <= s < streams for s in assignment.stream)
    place = {command: at for at, command in enumerate(assignment.order)}
    for command, needs in enumerate(tasks.predecessors):
        assert all(place[need] < place[command] for need in needs)


@pytest.mark.parametrize("name", CANDIDATES)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 20), streams=st.integers(1, 6))
@settings(max_examples=60)
def test_every_candidate_is_a_schedule(name, seed, count, streams):
    tasks, _ = random_tasks(seed, count, streams)
    found = CANDIDATES[name](tasks, streams)
    check(tasks, streams, found)


@given(st.integers(0, 2**32), st.integers(1, 16), st.integers(1, 4))
@settings(max_examples=60)
def test_the_portfolio_is_never_worse_than_a_candidate(seed, count, streams):
    program = shapes.random_dag(count, seed)
    made_schedule = schedule(program, streams, costs.GPU)
    prediction = made_schedule.prediction
    tasks = prediction.tasks
    names = CANDIDATES if streams > 1 else ["one stream"]
    for name in names:
        other = CANDIDATES[name](tasks, streams)
        slowest = simulate(tasks, other.order, other.stream).makespan
        assert prediction.timeline.makespan <= slowest * (1 + 1e-9)
    again = simulate(tasks, made_schedule.order, made_schedule.stream)
    assert prediction.timeline.makespan == pytest.approx(again.makespan)
    assert prediction.timeline.makespan >= prediction.bounds.best - 1e-6


@pytest.mark.parametrize("streams", [1, 2, 4, 8])
@pytest.mark.parametrize("resident", [False, True], ids=["transfers", "resident"])
@pytest.mark.parametrize("name", FAMILIES)
def test_no_candidate_beats_the_portfolio_on_a_known_shape(name, resident, streams):
    program = shapes.MAKESPAN_SHAPES[name]()
    prediction = schedule(shapes.resident(program) if resident else program, streams,
                          costs.GPU).prediction  # fmt: skip
    for candidate in CANDIDATES.values():
        other = candidate(prediction.tasks, streams)
        alone = simulate(prediction.tasks, other.order, other.stream).makespan
        assert prediction.timeline.makespan <= alone * (1 + 1e-9)


@given(
    seed=st.integers(0, 2**32), count=st.integers(1, 20), streams=st.integers(1, 6),
    patient=st.booleans(),
)  # fmt: skip
@settings(max_examples=60)
def test_what_the_search_makes_are_schedules(seed, count, streams, patient):
    tasks, stream = random_tasks(seed, count, streams)
    timeline = simulate(tasks, range(count), stream)
    justifier = Justifier(tasks)
    check(tasks, streams, justifier.justified(timeline.end, streams, patient))
    check(tasks, streams, justifier.shaken(timeline, streams, patient))
    check(tasks, streams, greedy.shaken(tasks, streams, seed % 50))
    first = Assignment(range(count), stream)
    found, better = improve(tasks, first, timeline, streams, budget=20, goal=0.0)
    check(tasks, streams, found)
    assert better.makespan <= timeline.makespan


def test_justification_puts_copies_under_the_compute_before_them():
    """Sixteen results must all be copied out over one engine, which the candidates let stand
    idle for too long at first: they work on all results side by side."""
    tasks = schedule(shapes.fft(), 4, costs.GPU).prediction.tasks
    alone = [c(tasks, 4) for c in CANDIDATES.values()]
    best = min((simulate(tasks, a.order, a.stream) for a in alone), key=lambda t: t.makespan)
    found = Justifier(tasks).justified(best.end, 4, patient=True)
    assert simulate(tasks, found.order, found.stream).makespan < 0.9 * best.makespan


def brute_force(tasks: Tasks, streams: int) -> float:
    """The shortest makespan over every topological order and every assignment."""

    def orders(done: tuple[int, ...]):
        if len(done) == len(tasks):
            yield done
        for command in range(len(tasks)):
            if command not in done and set(tasks.predecessors[command]) <= set(done):
                yield from orders((*done, command))

    return min(
        simulate(tasks, order, stream).makespan
        for order in orders(())
        for stream in product(range(streams), repeat=len(tasks))
    )


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=25)
def test_a_few_commands_get_the_best_schedule_there_is(seed, count, streams):
    tasks, _ = random_tasks(seed, count, streams)
    best = brute_force(tasks, streams)
    found = min(
        simulate(tasks, a.order, a.stream).makespan for a in exhaustive.candidates(tasks, streams)
    )
    assert found == pytest.approx(best)
    assert bounds(tasks, streams).best <= best + 1e-6


@given(st.integers(0, 2**32))
@settings(max_examples=12)
def test_six_commands_on_two_streams_get_the_best_schedule_there_is(seed):
    tasks, _ = random_tasks(seed, 6, 2)
    assume(sum(map(len, tasks.predecessors)) > 3)  # fewer orders
    found = _Portfolio(tasks, 2)
    assert found.timeline.makespan == pytest.approx(brute_force(tasks, 2))


@given(
    time=st.lists(st.sampled_from([0.0, 1.0, 3.0, 8.0]), min_size=4, max_size=6),
    share=st.sampled_from([0.05, 0.4, 1.0]), launch=st.sampled_from([0.0, 1.0]),
    event=st.sampled_from([0.0, 1.5, 5.0]), streams=st.integers(1, 4), middle=st.booleans(),
)  # fmt: skip
@settings(max_examples=60)
def test_no_fork_and_join_is_faster_than_the_bound(time, share, launch, event, streams, middle):
    last = len(time) - 1
    branches = [(0,)] * (last - 1)
    if middle and last > 3:
        branches[-1] = (last - 2,)  # one branch of two commands
    joined = tuple(c for c in range(1, last) if not (middle and last > 3 and c == last - 2))
    tasks = made(time, [(), *branches, joined], share=share, launch=launch, event=event)
    found = min(
        simulate(tasks, a.order, a.stream).makespan for a in exhaustive.candidates(tasks, streams)
    )
    assert bounds(tasks, streams).best <= found + 1e-6


def test_the_third_branch_of_a_diamond_is_an_event_away_at_both_ends():
    """One branch may follow the fork on its stream, another precede the join on its stream."""
    tasks = made([2, 5, 5, 5, 2], [(), (0,), (0,), (0,), (1, 2, 3)], share=0.1, event=2)
    best = brute_force(tasks, 3)
    assert best == 2 + 2 + 5 + 2 + 2
    low = bounds(tasks, 3)
    assert (low.critical_path, low.combined) == (9, best)


def test_exhaustive_tries_each_schedule_once():
    tasks = made([1] * 4, [()] * 4)
    # Sets of k lists of 4 (Lah numbers 24, 36, 12, 1), one list of which is the origin.
    assert sum(1 for _ in exhaustive.candidates(tasks, 4)) == 24 + 2 * 36 + 3 * 12 + 4


def test_chains_of_a_matching_are_the_width_of_the_order():
    # Two chains joined by edges that the reduction drops or the matching need not use.
    successors = [[1, 2, 3], [3], [3, 4], [5], [5], []]
    reduced = chains.transitive_reduction(successors)
    assert reduced == [[1, 2], [3], [3, 4], [5], [5], []]
    partner = chains.maximum_matching(reduced)
    assert sum(p < 0 for p in partner) == 2


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_matching_is_maximum(seed, count):
    import networkx as nx

    tasks, _ = random_tasks(seed, count, 2)
    edges = chains.transitive_reduction(tasks.successors)
    ours = sum(p >= 0 for p in chains.maximum_matching(edges))
    graph = nx.Graph()
    graph.add_nodes_from(("l", i) for i in range(count))
    graph.add_edges_from((("l", i), ("r", j)) for i, js in enumerate(edges) for j in js)
    theirs = nx.bipartite.hopcroft_karp_matching(graph, [("l", i) for i in range(count)])
    assert ours == len(theirs) // 2
    directed = nx.DiGraph([(i, j) for i, js in enumerate(tasks.successors) for j in js])
    assert set(nx.transitive_reduction(directed).edges) == {
        (i, j) for i, js in enumerate(edges) for j in js
    }


# Shapes known from MIGraphX's schedule tests, and of task benchmarks -----------------------


def predicted(program, streams=4):
    return schedule(program, streams, costs.GPU)


def test_a_chain_stays_on_one_stream():
    net = shapes.Net()
    x = net.input()
    for _ in range(10):
        x = net.node(x)
    assert predicted(net.program()).streams == 1


def test_two_heavy_branches_get_two_streams():
    net = shapes.Net()
    x = net.node(net.input(1024))
    left = right = x
    for _ in range(4):
        left, right = net.node(left), net.node(right)
    net.node(left, right)
    assert predicted(net.program()).streams == 2


def test_branches_that_each_fill_the_device_stay_together():
    net = shapes.Net()
    x = net.node(net.input(1024))
    net.node(net.node(x, mflop=20_000), net.node(x, mflop=20_000))
    found = predicted(net.program())
    # A second stream hides a launch at most.
    one = simulate(found.prediction.tasks, range(len(found.order)), [0] * len(found.order))
    assert found.prediction.timeline.makespan <= one.makespan


def test_a_tiny_branch_is_not_worth_an_event():
    net = shapes.Net()
    x = net.node(net.input(1024), mflop=5000)
    net.node(net.node(x, mflop=0.001, nbytes=256), net.node(x, mflop=2000))
    cheap = costs.CostModel(200e6, 3e6, 50e3, launch=0.1, wait=30.0, wave=0.2)
    assert schedule(net.program(), 4, cheap).streams == 1


@pytest.mark.parametrize("streams", [1, 2, 3, 8])
@pytest.mark.parametrize("name", FAMILIES)
def test_shapes_are_within_reach_of_the_bound(name, streams):
    found = predicted(shapes.MAKESPAN_SHAPES[name](), streams)
    assert found.streams <= streams
    ratio = found.prediction.timeline.makespan / found.prediction.bounds.best
    assert 1 - 1e-9 <= ratio < 1.2


def test_nested_splits_and_merges_and_a_join_of_no_cost():
    net = shapes.Net()
    x = net.node(net.input(1024))
    halves = []
    for _ in range(2):
        half = net.node(x)
        halves.append(net.node(net.node(half), net.node(half), mflop=0))
    net.node(*halves, mflop=0)
    found = predicted(net.program())
    assert 2 <= found.streams <= 4


def test_same_tensor_twice():
    net = shapes.Net()
    x = net.input()
    net.node(x, x)
    assert predicted(net.program()).predecessors[1] == (0,)


def test_auto_takes_as_many_streams_as_pay():
    chain = shapes.Net()
    x = chain.input()
    for _ in range(8):
        x = chain.node(x)
    assert schedule(chain.program(), "auto", costs.GPU).streams == 1
    wide = schedule(shapes.heads(8), "auto", costs.GPU)
    four = schedule(shapes.heads(8), 4, costs.GPU)
    assert 4 < wide.streams <= 32
    assert wide.prediction.timeline.makespan <= four.prediction.timeline.makespan


def test_same_program_same_schedule():
    one, two = (predicted(shapes.layered(seed=3)) for _ in range(2))
    assert (one.order, one.stream) == (two.order, two.stream)


def test_large_programs_are_cheap_and_never_slower_than_one_stream():
    found = predicted(shapes.layered(layers=300, width=10), 8)
    tasks = found.prediction.tasks
    one = sum(tasks.time) + tasks.launch * len(tasks)
    assert found.prediction.timeline.makespan < one
