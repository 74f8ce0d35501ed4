"""Several requests in flight: the plan they make together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import graphs, stream_counts

import graphexec as gx
from graphexec.ir.plan import HostWait, Launch, Plan, Range, Record, Wait
from graphexec.machine.costs import GPU
from graphexec.runtime.requests import in_flight


@pytest.fixture
def plan() -> Plan:
    graph = gx.Graph("g")
    graph.input("x", (1024, 1024))
    graph.softmax("x", name="s")
    graph.softmax("x", axis=0, name="t")
    graph.gemm("s", "t", name="m", after=["s"])
    graph.output("s", "m")
    return gx.make_plan(graph, streams=3, costs=GPU)


@settings(max_examples=30, deadline=None)
@given(graphs(max_nodes=8), stream_counts())
def test_requests_with_memory_of_their_own_are_safe(graph: gx.Graph, streams: int) -> None:
    plan = gx.make_plan(graph, streams=streams, costs=GPU)
    for requests in (1, 2, 3):
        assert not gx.find_hazards(in_flight(plan, requests))


@pytest.mark.parametrize("requests", [1, 2, 4])
def test_every_request_has_everything_once(plan: Plan, requests: int) -> None:
    together = in_flight(plan, requests)
    launches = [i for i in together.instructions if isinstance(i, Launch)]
    own = [i for i in plan.instructions if isinstance(i, Launch)]
    assert len(launches) == requests * len(own)
    assert {i.node for i in launches} == {f"{i.node}#{r}" for i in own for r in range(requests)}
    assert len(together.streams) == 1 + requests * len(plan.streams)
    assert len(together.buffers) == requests * len(plan.buffers)
    handles = [s.blas_handle for s in together.streams if s.blas_handle is not None]
    assert len(handles) == len(set(handles))
    events = [i.event for i in together.instructions if isinstance(i, Record)]
    assert len(events) == len(set(events))
    assert isinstance(together.instructions[-1], HostWait)
    # In one request nothing changed but names.
    first = [i for i in launches if i.node.endswith("#0")]
    assert [(i.node, i.stream, i.command) for i in first] == [
        (f"{i.node}#0", i.stream + 1, i.command) for i in own
    ]
    assert [i.after for i in first] == [tuple(f"{a}#0" for a in i.after) for i in own]


def test_weights_are_shared_and_read_only(plan: Plan) -> None:
    buffers = tuple(
        replace(b, id="w", role="weights") if b.role == "input" else b for b in plan.buffers
    )
    (name,) = [b.id for b in plan.buffers if b.role == "input"]
    steps = tuple(
        replace(i, reads=tuple(replace(r, buffer="w") if r.buffer == name else r for r in i.reads))
        if isinstance(i, Launch) else i
        for i in plan.instructions
    )  # fmt: skip
    together = in_flight(replace(plan, buffers=buffers, instructions=steps), 3)
    assert [b.id for b in together.buffers].count("w") == 1
    assert not gx.find_hazards(together)


def test_memory_that_is_not_its_own_is_found(plan: Plan) -> None:
    """Two requests in one arena race, whatever each of them waits for."""
    together = in_flight(plan, 2)
    shared = tuple(b for b in together.buffers if b.id != "arena#1")

    def moved(ranges: tuple[Range, ...]) -> tuple[Range, ...]:
        return tuple(replace(r, buffer=r.buffer.replace("arena#1", "arena#0")) for r in ranges)

    steps = tuple(
        replace(i, reads=moved(i.reads), writes=moved(i.writes)) if isinstance(i, Launch) else i
        for i in together.instructions
    )
    kinds = {h.kind for h in gx.find_hazards(replace(together, buffers=shared, instructions=steps))}
    assert "WAW" in kinds


def test_requests_are_not_ordered_among_each_other(plan: Plan) -> None:
    """No wait of one names an event of another, but for the common fork and joins."""
    together = in_flight(plan, 2)
    count = len(plan.streams)
    owner = {0: -1} | {1 + r * count + s: r for r in range(2) for s in range(count)}
    recorded = {i.event: i.stream for i in together.instructions if isinstance(i, Record)}
    for i in together.instructions:
        if isinstance(i, Wait) and -1 not in (owner[i.stream], owner[recorded[i.event]]):
            assert owner[i.stream] == owner[recorded[i.event]]


def test_a_wait_that_is_missing_in_the_plan_is_missing_in_all(plan: Plan) -> None:
    index = next(
        i for i, s in enumerate(plan.instructions) if isinstance(s, Wait) and s.role == "dependency"
    )
    steps = plan.instructions[:index] + plan.instructions[index + 1 :]
    found = gx.find_hazards(in_flight(replace(plan, instructions=steps), 2))
    assert {h.first.node.rsplit("#")[-1] for h in found if h.first} >= {"0", "1"}


def test_requests_in_flight_give_what_they_give_alone() -> None:
    graph = gx.Graph("g")
    graph.input("x", (16, 16))
    graph.output(graph.gemm("x", graph.softmax("x", name="s"), name="m"))
    rng = np.random.default_rng(0)
    requests = [{"x": rng.standard_normal((16, 16), np.float32)} for _ in range(6)]
    with gx.compile(graph, device=gx.CpuDevice(delays=1, poison=True), streams=2, costs=GPU) as exe:
        alone = [exe.run(**r)["m"] for r in requests]
        together = [out["m"] for out in exe.map(requests, in_flight=4)]
    assert all(np.array_equal(a, t) for a, t in zip(alone, together, strict=True))
