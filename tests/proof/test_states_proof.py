"""The hazards of states: each with a plan that has it, and the nearest plan that does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

import graphexec as gx
from graphexec.base.tensor import DType
from graphexec.ir.plan import (
    Buffer,
    HostWait,
    Instruction,
    Launch,
    PlacedTensor,
    Plan,
    Range,
    Record,
    Stream,
    Wait,
)
from graphexec.proof import find_hazards, find_hazards_together
from graphexec.runtime.requests import in_flight

HOME = Range("state.k", 0, 64)
OTHER = Range("arena", 0, 64)
K = PlacedTensor("k", "state.k", 0, 64, (16,), DType.F32, state="k")
K1 = PlacedTensor("k1", "state.k", 0, 64, (16,), DType.F32, next="k")


def plan_of(
    *instructions: Instruction, tensors: Sequence[PlacedTensor] = (K, K1), streams: int = 2,
    home: int = 64,
) -> Plan:  # fmt: skip
    buffers = (Buffer("state.k", home, "device", "state"), Buffer("arena", 64, "device", "arena"))
    return Plan("g", "cpu", {}, tuple(map(Stream, range(streams))), buffers, tuple(tensors),
                instructions, None)  # fmt: skip


def work(stream: int, node: str, reads: Sequence[Range], writes: Sequence[Range]) -> Launch:
    return Launch(stream, node, "map", tuple(reads), tuple(writes))


def two_streams(first: Launch, second: Launch, ordered: bool, **more: object) -> Plan:
    """The first on stream 0, the second on stream 1."""
    edge = (Record(0, 1), Wait(1, 1)) if ordered else ()
    return plan_of(
        Record(0, 0), Wait(1, 0, "fork"), first, *edge, second,
        Record(1, 2), Wait(0, 2, "join"), Record(0, 3), HostWait(3), **more,
    )  # fmt: skip


def kinds(plan: Plan) -> list[str]:
    return [hazard.kind for hazard in find_hazards(plan)]


READ = work(0, "y", [HOME], [OTHER])
WRITE = work(1, "k1", [], [HOME])


def test_the_old_value_is_read_before_it_is_overwritten() -> None:
    assert kinds(two_streams(READ, WRITE, ordered=False)) == ["STATE_WAR"]
    assert kinds(two_streams(READ, WRITE, ordered=True)) == []


def test_a_next_value_has_one_writer_at_a_time() -> None:
    again = work(0, "other", [], [HOME])
    assert kinds(two_streams(again, WRITE, ordered=False)) == ["STATE_WRITERS"]
    assert kinds(two_streams(again, WRITE, ordered=True)) == []


def test_one_tensor_is_the_next_value() -> None:
    line = (work(0, "k1", [HOME], [HOME]), Record(0, 0), HostWait(0))
    double = replace(K1, name="k2")
    assert kinds(plan_of(*line, tensors=(K, K1, double), streams=1)) == ["STATE_WRITERS"]
    assert kinds(plan_of(*line, tensors=(K, K1, replace(double, next="")), streams=1)) == []


def test_a_step_comes_after_the_one_before() -> None:
    def plan(forked: bool) -> Plan:
        fork = (Record(0, 0), Wait(1, 0, "fork")) if forked else ()
        ends = (Record(1, 2), Wait(0, 2, "join"), Record(0, 3), HostWait(3))
        return plan_of(*fork, work(1, "y", [HOME], [OTHER]), Record(1, 1), Wait(0, 1),
                       work(0, "k1", [], [HOME]), *ends)  # fmt: skip

    assert kinds(plan(forked=False)) == ["FORK", "STATE_STEP"]
    assert kinds(plan(forked=True)) == []


def test_a_state_without_a_value_is_written_before_it_is_read() -> None:
    def plan(init: bool, first: Launch, second: Launch) -> Plan:
        return plan_of(first, second, Record(0, 0), HostWait(0), streams=1,
                       tensors=(replace(K, init=init), K1))  # fmt: skip

    write = replace(WRITE, stream=0)
    assert kinds(plan(False, READ, write)) == ["STATE_INIT"]
    assert kinds(plan(True, READ, write)) == []
    assert kinds(plan(False, write, READ)) == []


PLACES = {
    "elsewhere": (K, replace(K1, buffer="arena")),
    "beside": (K, replace(K1, offset=4, bytes=60)),
    "no state": (replace(K, state=""), K1),
    "no next": (K, replace(K1, next="")),
    "in the arena": (replace(K, buffer="arena"), replace(K1, buffer="arena")),
    "in two places": (K, K1, replace(K, name="twin", offset=32, bytes=32)),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_next_value_lies_where_the_state_lies(place: str) -> None:
    line = (work(0, "k1", [HOME], [HOME]), Record(0, 0), HostWait(0))
    writes_arena = (work(0, "k1", [], [OTHER]), Record(0, 0), HostWait(0))
    used = writes_arena if place in ("in the arena", "elsewhere") else line
    assert kinds(plan_of(*used, tensors=PLACES[place], streams=1)) == ["STATE_PLACE"]
    assert kinds(plan_of(*line, streams=1)) == []


def test_something_writes_the_next_value() -> None:
    line = (work(0, "y", [HOME], [OTHER]), Record(0, 0), HostWait(0))
    assert kinds(plan_of(*line, streams=1)) == ["STATE_PLACE"]
    unchanged = replace(K, next="k")
    assert kinds(plan_of(*line, tensors=(unchanged,), streams=1)) == []


def test_requests_that_share_a_state_follow_one_another() -> None:
    line = plan_of(work(0, "k1", [HOME], [HOME]), Record(0, 0), HostWait(0), streams=1)
    found = {hazard.kind for hazard in find_hazards(in_flight(line, 2))}
    assert found == {"STATE_SHARED"}
    only_read = plan_of(work(0, "y", [HOME], []), Record(0, 0), HostWait(0),
                        tensors=(replace(K, next="k"),), streams=1)  # fmt: skip
    assert find_hazards(in_flight(only_read, 2)) == []


def test_plans_of_one_executable_agree_on_places() -> None:
    one = plan_of(work(0, "k1", [HOME], [HOME]), Record(0, 0), HostWait(0), streams=1)
    assert find_hazards_together([one, one]) == []
    moved = Range("state.k", 64, 128)
    other = plan_of(
        work(0, "k1", [moved], [moved]), Record(0, 0), HostWait(0), streams=1, home=128,
        tensors=(replace(K, offset=64), replace(K1, offset=64)),
    )  # fmt: skip
    assert kinds(other) == []
    assert [h.kind for h in find_hazards_together([one, other])] == ["STATE_PLACE"]
    half = plan_of(
        work(0, "k1", [HOME], [HOME]), Record(0, 0), HostWait(0), streams=1,
        tensors=(replace(K, shape=(8,), dtype=DType.F64), replace(K1, shape=(8,))),
    )  # fmt: skip
    assert [h.kind for h in find_hazards_together([one, half])] == ["STATE_PLACE"]


def test_a_run_of_one_plan_comes_after_a_run_of_another() -> None:
    one = plan_of(work(0, "k1", [HOME], [HOME]), Record(0, 0), HostWait(0), streams=1)
    late = two_streams(READ, WRITE, ordered=True)
    assert find_hazards_together([one, late]) == []
    unjoined = replace(late, instructions=tuple(
        i for i in late.instructions if not (isinstance(i, Wait) and i.role == "join")
    ))  # fmt: skip
    assert [h.kind for h in find_hazards_together([one, unjoined])] == ["STATE_STEP"] * 2


def test_two_sizes_of_a_graph_are_proved_together() -> None:
    graph = gx.loads(
        "version: 1\ndims: {S: 1}\ninputs: {x: {shape: [S, 3], dtype: f32}}\n"
        "state: {n: {shape: [], dtype: i32, next: n + S},\n"
        "        k: {shape: [8, 3], dtype: f32, next: k1}}\n"
        "nodes: {k1: {op: append, into: k, x: x, at: n}}\noutputs: {y: k1}"
    )
    plans = [gx.make_plan(graph.with_dims(S=size)) for size in (1, 4)]
    assert find_hazards_together(plans) == []
    text = plans[0].to_json()
    assert gx.Plan.from_json(text) == plans[0]
    assert '"plan_version": 2' in text
    with pytest.raises(gx.GraphError, match="need version 2"):
        gx.Plan.from_json(text.replace('"plan_version": 2', '"plan_version": 1'))
    with pytest.raises(gx.GraphError, match=r"tensors\[\d\].init: expected true or false"):
        gx.Plan.from_json(text.replace('"state": "k"', '"state": "k", "init": 1'))
