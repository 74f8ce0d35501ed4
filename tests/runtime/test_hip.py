"""The HIP device runs plans as they are: every call of a run, every number, both modes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hip_lab import (
    GRAPHS,
    MODES,
    Call,
    Lab,
    assert_right,
    bits,
    calls,
    example,
    inputs_of,
    session_of,
    small,
)

import graphexec as gx
from graphexec.ir.plan import HostWait, Instruction, Launch, Range, Record, Wait
from graphexec.runtime.executable import Executable
from graphexec.runtime.hip.device import Mode
from graphexec.tools.compare import compare_executable

SEEDS = range(6)

# Calls ----------------------------------------------------------------------------------------

FORBIDDEN = {
    "hipDeviceSynchronize", "hipMemcpy", "hipMemset", "hipMalloc", "hipFree", "hipHostMalloc",
    "hipHostFree", "hipMallocAsync", "hipFreeAsync", "hipStreamCreateWithFlags",
    "hipEventCreateWithFlags", "hipblasCreate", "hipblasSetStream", "hipblasSetWorkspace",
    "hipModuleLoadData", "hipSetDevice",
}  # fmt: skip
BLAS = {"hipblasGemmEx", "hipblasGemmStridedBatchedEx", "hipblasGemmBatchedEx"}
LAUNCHES = {
    "gemm": BLAS | {"hipblasLtMatmul"},
    "memcpy": {"hipMemcpyAsync"},
}


class Names:
    """What the emulator calls a plan's streams, events, handles and buffers, from the calls that
    made them: they are made in the plan's order."""

    def __init__(self, exe: Executable, opening: list[Call]) -> None:
        def made(*by: str) -> Iterator[str]:
            return (call.arguments[0] for call in opening if call.name in by)

        plan = exe.plan
        self.streams = dict(zip((s.id for s in plan.streams), made("hipStreamCreateWithFlags"),
                                strict=True))  # fmt: skip
        records = [i.event for i in plan.instructions if isinstance(i, Record)]
        _, *events = made("hipEventCreateWithFlags")  # the first is for arrays that others own
        self.events = dict(zip(records, events, strict=True))
        bound = {c.arguments[0]: c.arguments[1] for c in opening if c.name == "hipblasSetStream"}
        self.handles = bound
        blocks = [address.split("+")[0] for address in made("hipMalloc", "hipHostMalloc")]
        self.blocks = dict(zip(blocks, (b.id for b in plan.buffers), strict=False))

    def places(self, call: Call) -> list[tuple[str, int]]:
        """(buffer, offset) of every address among the arguments."""
        found = re.findall(r"((?:dev|host):alloc#\d+)\+(\d+)", ",".join(call.arguments))
        return [(self.blocks[block], int(offset)) for block, offset in found
                if block in self.blocks]  # fmt: skip


def inside(place: tuple[str, int], ranges: tuple[Range, ...]) -> bool:
    buffer, offset = place
    return any(r.buffer == buffer and r.low <= offset < r.high for r in ranges)


def assert_is(call: Call, instruction: Instruction, names: Names) -> None:
    """`call` is the one that `instruction` asks for."""
    assert call.status in ("hipSuccess", "HIPBLAS_STATUS_SUCCESS")
    match instruction:
        case Record(stream, event):
            assert call.name == "hipEventRecord"
            assert call.arguments == (names.events[event], names.streams[stream])
        case Wait(stream, event):
            assert call.name == "hipStreamWaitEvent"
            assert call.arguments == (names.streams[stream], names.events[event], "0")
        case Launch():
            stream = names.streams[instruction.stream]
            expected = LAUNCHES.get(instruction.command, {"hipModuleLaunchKernel"})
            if call.name in LAUNCHES["memcpy"]:
                expected = LAUNCHES["memcpy"]  # a copy node of bytes that lie side by side
            assert call.name in expected, instruction
            if call.name in BLAS:
                assert names.handles[call.arguments[0]] == stream
            else:
                assert stream in call.arguments
            places = names.places(call)
            if call.name != "hipblasGemmBatchedEx":  # its addresses are in tables
                for place in places:
                    assert inside(place, instruction.reads + instruction.writes), instruction
                # Of the members of a batch only the first is named: the others lie at a stride.
                for written in instruction.writes[: 1 if instruction.nodes else None]:
                    assert any(inside(place, (written,)) for place in places)
        case _:
            raise AssertionError(instruction)


def opened(
    lab: Lab, name: str, mode: Mode, streams: int, **options: Any
) -> tuple[Executable, list[Call]]:
    graph = example(name)
    lab.emulator.trace()
    exe = lab.compile(graph, mode, streams, **options)
    return exe, calls(lab.emulator)


def assert_waits_like_a_host(after: list[Call], origin: str) -> None:
    *polls, last = after
    assert all(c.name == "hipStreamQuery" and c.arguments == (origin,) for c in polls)
    assert (last.name, last.arguments) == ("hipStreamSynchronize", (origin,))


def assert_keeps_the_rules(run: list[Call]) -> None:
    assert not {call.name for call in run} & FORBIDDEN
    assert not [c for c in run if "stream" in c.name.lower() and "null" in c.arguments]
    assert not [c for c in run if "null" in c.arguments[-1:]]  # where the stream stands


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_run_in_stream_mode_is_the_plan_call_by_call(
    emulated: Lab, name: str, streams: int
) -> None:
    exe, opening = opened(emulated, name, "stream", streams)
    with exe:
        names, inputs = Names(exe, opening), inputs_of(exe)
        for _ in range(2):
            exe.run(**inputs)
            run = calls(emulated.emulator)
            issued = [i for i in exe.plan.instructions if not isinstance(i, HostWait)]
            for call, instruction in zip(run, issued, strict=False):
                assert_is(call, instruction, names)
            assert_waits_like_a_host(run[len(issued) :], names.streams[0])
            assert_keeps_the_rules(run)
    used = {call.arguments[0] for call in opening if call.name == "hipStreamCreateWithFlags"}
    assert used == set(names.streams.values()), "every stream is non-blocking and in the plan"


@pytest.mark.parametrize("name", GRAPHS)
def test_a_capture_is_the_plan_and_a_replay_one_launch(emulated: Lab, name: str) -> None:
    exe, opening = opened(emulated, name, "graph", 3)
    with exe:
        assert session_of(exe).mode == "graph"
        names, inputs = Names(exe, opening), inputs_of(exe)
        order = [call.name for call in opening]
        begin, end = order.index("hipStreamBeginCapture"), order.index("hipStreamEndCapture")
        assert opening[begin].arguments == (names.streams[0], "1"), "a thread-local capture"
        issued = [i for i in exe.plan.instructions if not isinstance(i, HostWait)]
        for call, instruction in zip(opening[begin + 1 : end], issued, strict=True):
            assert_is(call, instruction, names)
        launches = [i for i in issued if isinstance(i, Launch)]
        nodes = next(call for call in opening if call.name == "hipGraphGetNodes")
        assert nodes.arguments[-1] == str(len(launches))
        for _ in range(2):
            exe.run(**inputs)
            first, *rest = calls(emulated.emulator)
            assert first.name == "hipGraphLaunch"
            assert first.arguments[1] == names.streams[0]
            assert_waits_like_a_host(rest, names.streams[0])


def test_blas_handles_have_a_stream_and_a_workspace_each(emulated: Lab) -> None:
    exe, opening = opened(emulated, "parallel_branches", "graph", 4, no_rewrite=["batch"])
    handles = sum(s.blas_handle is not None for s in exe.plan.streams)
    exe.close()
    per_handle: dict[str, list[str]] = {}
    workspaces = []
    for call in opening:
        if call.name.startswith("hipblasSet"):
            per_handle.setdefault(call.arguments[0], []).append(call.name)
        if call.name == "hipblasSetWorkspace":
            workspaces.append(call.arguments[1])
    assert len(per_handle) == handles > 1
    assert set(map(tuple, per_handle.values())) == {("hipblasSetStream", "hipblasSetWorkspace")}
    assert len(set(workspaces)) == handles


def test_weights_are_uploaded_once_and_shared(emulated: Lab) -> None:
    graph = example("multi_head_attention")
    emulated.emulator.trace()
    with emulated.compile(graph, "stream", no_rewrite=["all"]) as exe:  # no tables of pointers
        weights = exe.plan.buffer("weights").bytes
        opening = calls(emulated.emulator)
        inputs = inputs_of(exe)
        first = bits(exe.run(**inputs))
        for found in exe.map([inputs] * 5, in_flight=3):
            assert bits(found) == first
        later = calls(emulated.emulator)
    sizes = [int(c.arguments[1]) for c in opening if c.name == "hipMalloc"]
    assert sizes.count(weights) == 1
    copied = sum(int(c.arguments[2]) for c in opening if c.name == "hipMemcpyAsync")
    assert copied == sum(w.type.nbytes for w in exe.graph.weights.values())
    assert not [c for c in later if c.name == "hipMalloc" and int(c.arguments[1]) == weights]


# Numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", GRAPHS)
def test_example_graphs(lab: Lab, name: str, mode: Mode, streams: int) -> None:
    """Right numbers, and the same bits in every order of execution."""
    with lab.nothing_left(), lab.compile(name, mode, streams) as exe:
        assert session_of(exe).mode == mode, session_of(exe).fallback
        inputs = inputs_of(exe)
        found = []
        for seed in SEEDS:
            lab.seed(seed)
            found.append(exe.run(**inputs))
        assert_right(exe, inputs, found[0])
        for outputs in found[1:]:
            assert bits(outputs) == bits(found[0])


@pytest.mark.parametrize("lanes", [32, 64])
@pytest.mark.parametrize("name", GRAPHS)
def test_example_graphs_with_wavefronts_of_both_sizes(emulated: Lab, name: str, lanes: int) -> None:
    emulated.emulator.set_wavefront(lanes)
    with emulated.compile(name) as exe:
        found = compare_executable(exe, inputs_of(exe))
        assert found.ok, (found.first_bad, found.outputs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
def test_dtypes(lab: Lab, dtype: str, mode: Mode) -> None:
    with lab.compile(small(dtype), mode, 2) as exe:
        inputs = inputs_of(exe)
        assert_right(exe, inputs, exe.run(**inputs))


def test_batches_that_strides_cannot_express(lab: Lab) -> None:
    """Two batch axes, of which an operand lacks the inner one: arrays of pointers."""
    g = gx.Graph("grouped")
    a, b = g.input("a", (2, 3, 4, 5), "f32"), g.input("b", (3, 1, 5, 6), "f32")
    c = g.copy(b, permute=[1, 0, 2, 3], name="turned")
    g.output(y=g.gemm(a, c, name="y"))
    for mode in MODES:
        with lab.compile(g, mode) as exe:
            inputs = inputs_of(exe)
            assert_right(exe, inputs, exe.run(**inputs))


def test_inputs_need_not_be_contiguous(lab: Lab) -> None:
    with lab.compile(small()) as exe:
        inputs = inputs_of(exe)
        turned = {name: np.asfortranarray(array) for name, array in inputs.items()}
        assert bits(exe.run(**turned)) == bits(exe.run(**inputs))


def test_outputs_belong_to_the_caller(lab: Lab) -> None:
    with lab.compile(small()) as exe:
        inputs = inputs_of(exe)
        first = exe.run(**inputs)
        kept = bits(first)
        exe.run(**inputs_of(exe, seed=1))
    assert bits(first) == kept


def test_compare_looks_at_every_node(lab: Lab) -> None:
    with lab.compile("diamond", streams=3) as exe:
        found = compare_executable(exe, inputs_of(exe))
    assert found.ok
    assert {row.name for row in found.nodes} == {node.name for node in exe.graph.nodes}


def test_a_device_that_is_not_there(lab: Lab) -> None:
    from graphexec.runtime.hip.device import HipDevice

    with pytest.raises(gx.DeviceUnavailable, match="there is no HIP device 99; found "):
        HipDevice(index=99).describe()
    with pytest.raises(gx.DeviceUnavailable, match="there is no HIP device 99"):
        gx.compile(small(), device=HipDevice(index=99))


# Teeth: what these tests would notice -----------------------------------------------------------


@pytest.mark.parametrize("name", ["diamond", "parallel_branches", "multi_head_attention"])
def test_a_wait_that_is_not_issued_is_seen_in_the_numbers(
    emulated: Lab, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the waits, numbers are wrong under some seed: the emulator does find races."""
    from graphexec.runtime.hip.steps import Steps, nothing

    wait_event, dropped = Steps.wait_event, -1

    def all_but_one(steps: Steps, wait: Wait) -> object:
        return nothing if wait.event == dropped else wait_event(steps, wait)

    monkeypatch.setattr(Steps, "wait_event", all_but_one)
    apart = {"no_rewrite": ["batch"]}  # or there is nothing to wait for
    with emulated.compile(name, "stream", 3, **apart) as exe:
        inputs, others = inputs_of(exe), inputs_of(exe, seed=1)
        expected = bits(exe.run(**inputs))
        waits = [i for i in exe.plan.instructions
                 if isinstance(i, Wait) and i.role == "dependency"]  # fmt: skip
    assert waits
    for wait in waits:
        dropped = wait.event
        with emulated.compile(name, "stream", 3, **apart) as exe:
            seeds = iter(range(200))
            found = expected
            while found == expected:
                emulated.seed(next(seeds))  # StopIteration: nobody noticed
                exe.run(**others)
                found = bits(exe.run(**inputs))
