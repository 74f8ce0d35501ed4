"""assemble: the plan says what the schedule and the allocation say, and nothing else."""

from __future__ import annotations

from hypothesis import given, settings
from strategies import graphs, stream_counts

import graphexec as gx
from graphexec.base.tensor import INT64_MAX, View
from graphexec.graph.infer import infer
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.plan import HostWait, Launch, Range, Record, Stream, Wait
from graphexec.ir.program import Gemm, work_kind
from graphexec.machine import costs
from graphexec.planning.allocate import allocate
from graphexec.planning.assemble import assemble
from graphexec.planning.lower import lower
from graphexec.planning.schedule import schedule
from graphexec.planning.scheduled import Allocation, Synchronized
from graphexec.planning.synchronize import synchronize


def stages(graph: gx.Graph, streams: int) -> tuple[Synchronized, Allocation, BoundPlan]:
    synchronized = synchronize(schedule(lower(infer(graph)), streams, costs.CPU))
    allocation = allocate(synchronized)
    return synchronized, allocation, assemble(synchronized, allocation, "cpu")


def absolute(view: View, allocation: Allocation) -> Range:
    buffer, offset = allocation.places[view.storage]
    low, high = view.byte_range()
    return Range(buffer, offset + low, offset + high)


@settings(max_examples=50, deadline=None)
@given(graphs(), stream_counts())
def test_the_plan_says_what_the_stages_said(graph: gx.Graph, streams: int) -> None:
    synchronized, allocation, bound = stages(graph, streams)
    plan = bound.plan
    chosen, program = synchronized.schedule, synchronized.schedule.program
    assert len(plan.instructions) == len(synchronized.steps)
    for number, step in enumerate(synchronized.steps):
        instruction = plan.instructions[number]
        if not isinstance(step, int):
            assert instruction == step
            continue
        command = program.commands[step]
        assert isinstance(instruction, Launch)
        assert instruction.stream == chosen.stream[step]
        assert (instruction.node, instruction.command) == (command.node, command.label)
        assert bound.work[number] is command.work
        assert (instruction.kind, instruction.cost) == (work_kind(command.work), command.cost)
        for ranges, views in (
            (instruction.reads, command.reads),
            (instruction.writes, command.writes),
        ):
            assert len(set(ranges)) == len(ranges)
            assert set(ranges) == {absolute(v, allocation) for v in views}
        is_gemm = isinstance(command.work, Gemm)
        assert instruction.blas_handle == (chosen.stream[step] if is_gemm else None)
        assert set(instruction.after) == {program.commands[i].node for i in command.after}
    assert plan.buffers == allocation.buffers
    assert bound.places == allocation.places
    assert len(bound.work) == len(program.commands)


@settings(max_examples=50, deadline=None)
@given(graphs(), stream_counts())
def test_tensors_streams_and_figures(graph: gx.Graph, streams: int) -> None:
    synchronized, allocation, bound = stages(graph, streams)
    plan = bound.plan
    program = synchronized.schedule.program
    assert [t.name for t in plan.tensors] == list(program.tensors)
    for tensor in plan.tensors:
        view = program.tensors[tensor.name]
        found = Range(tensor.buffer, tensor.offset, tensor.offset + tensor.bytes)
        assert found == absolute(view, allocation)
        assert (tensor.shape, tensor.dtype) == (view.shape, view.dtype)
        assert tensor.bytes == view.elements * view.dtype.itemsize
    used = {i.stream for i in plan.instructions if isinstance(i, Launch)}
    gemms = {
        i.stream for i in plan.instructions if isinstance(i, Launch) and i.blas_handle is not None
    }
    assert plan.streams == tuple(Stream(s, s if s in gemms else None) for s in range(len(used)))
    stats = plan.stats
    assert stats is not None
    assert stats.streams == len(used) <= streams
    waits = [i for i in plan.instructions if isinstance(i, Wait)]
    assert stats.waits == sum(w.role == "dependency" for w in waits)
    assert stats.events == sum(isinstance(i, Record) for i in plan.instructions)
    assert stats.cross_stream_edges == synchronized.cross_stream_edges >= stats.waits
    assert (stats.arena_bytes, stats.arena_lower_bound, stats.naive_bytes) == (
        allocation.arena_bytes, allocation.lower_bound, allocation.naive_bytes,
    )  # fmt: skip
    assert (plan.graph, plan.device, plan.dims) == (graph.name, "cpu", graph.dims)


def test_a_range_that_is_read_twice_is_named_once() -> None:
    graph = gx.Graph("g")
    graph.input("x", (3, 3))
    graph.output(graph.gemm("x", "x", name="m"))
    plan = stages(graph, 2)[2].plan
    (launch,) = [i for i in plan.instructions if isinstance(i, Launch) and i.node == "m"]
    assert len(launch.reads) == 1


def test_a_plan_too_large_to_count_can_be_read_back() -> None:
    graph = gx.Graph("g")
    graph.input("x", (2**29, 2**29))
    graph.output(graph.gemm("x", "x", name="m"))
    plan = gx.make_plan(graph, streams=1)
    (cost,) = {i.cost for i in plan.instructions if isinstance(i, Launch) and i.node == "m"}
    assert cost is not None
    assert cost.flops == INT64_MAX
    assert gx.Plan.from_json(plan.to_json()) == plan


def test_the_last_instruction_is_the_hosts() -> None:
    graph = gx.Graph("g")
    graph.input("x", (3, 3))
    graph.output("x")
    plan = stages(graph, 2)[2].plan
    assert isinstance(plan.instructions[-1], HostWait)
    assert sum(isinstance(i, HostWait) for i in plan.instructions) == 1
