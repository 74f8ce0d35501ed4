"""The CPU device is stream-ordered: plans hold under any delay, and wrong plans do not.

Where order matters, commands block on events that the test controls; nothing depends on time.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import graphs, stream_counts

import graphexec as gx
from graphexec.base.tensor import TensorType
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.op import Attrs, Call, In, Op, Operand, Out
from graphexec.ir.plan import Launch, Range, Wait
from graphexec.ir.program import Command, Kernel, Parallel
from graphexec.machine.costs import GPU
from graphexec.planning.options import Options
from graphexec.planning.pipeline import plan_graph
from graphexec.runtime.cpu.cores import Cores, single_threaded_blas
from graphexec.runtime.cpu.device import CpuDevice
from graphexec.runtime.cpu.streams import Streams
from graphexec.runtime.executable import Executable

Array = np.ndarray[Any, Any]
PATIENCE = 30  # seconds until a test gives up on something that must happen


class Hook(Op):
    """y = x + 1 element by element, after calling what the test wants called."""

    name = "hook"
    doc = "For tests."
    deterministic = False  # it depends on the node
    operands = (Operand("x", "any tensor"), Operand("y", "any tensor", optional=True))

    def __init__(
        self, before: Callable[[str, Parallel], None] = lambda node, parallel: None
    ) -> None:
        self.before = before

    def infer(self, types: Mapping[str, TensorType], attrs: Attrs) -> TensorType:
        return types["x"]

    def reference(self, arrays: Mapping[str, Array], attrs: Attrs, type: TensorType) -> Array:
        return arrays["x"] + 1

    def lower(self, call: Call) -> list[Command]:
        x, out = call.operands["x"], call.out

        def compute(arrays: list[Array], parallel: Parallel) -> None:
            self.before(call.node, parallel)
            arrays[-1][...] = arrays[0] + 1

        reads = list(call.operands.values())
        kernel = Kernel(
            Path("hook.hip"), "hook", (x, *reads[1:], out), (1, 1, 1), (1, 1, 1), compute
        )
        return [
            call.command("hook", kernel, *map(In, reads), Out(out), flops=2**25 - 1)
        ]  # worth a stream


def hooked(before: Callable[[str, Parallel], None] = lambda node, parallel: None) -> dict[str, Op]:
    return {**gx.known_ops(), "hook": Hook(before)}


def two_branches(ops: Mapping[str, Op], n: int = 8) -> gx.Graph:
    """x → slow → join and x → quick → join."""
    graph = gx.Graph("branches", ops=ops)
    graph.input("x", (n, n))
    graph.hook("x", name="slow")
    graph.hook("x", name="quick")
    graph.output(y=graph.gemm("slow", "quick", name="join"))
    return graph


def wrong(
    graph: gx.Graph, change: Callable[[BoundPlan], BoundPlan], streams: int = 2, **device: Any
) -> Executable:
    """The graph on the CPU with its plan changed, and not verified."""

    def plan(source: gx.Graph, resident: bool) -> Any:
        options = Options(streams=streams, costs=GPU, verify=False)
        compiled = plan_graph(source, options=options, resident=resident)
        return replace(compiled, bound=change(compiled.bound))

    return Executable(graph, plan, CpuDevice(**device))


def without(bound: BoundPlan, index: int) -> BoundPlan:
    steps = bound.plan.instructions
    plan = replace(bound.plan, instructions=(*steps[:index], *steps[index + 1 :]))
    work = {n - (n > index): work for n, work in bound.work.items() if n != index}
    return replace(bound, plan=plan, work=work)


def ones(n: int = 8) -> Array:
    return np.ones((n, n), np.float32)


@pytest.fixture(autouse=True)
def same_cores() -> Iterator[None]:
    """The caller of a run may use the same cores afterwards."""
    before = os.sched_getaffinity(0)
    yield
    assert os.sched_getaffinity(0) == before


# Order ----------------------------------------------------------------------------------------


def reference(graph: gx.Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    with gx.compile(graph, device=CpuDevice(), streams=1) as exe:
        return exe.run(**inputs)


def inputs_of(exe: Executable, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal(t.shape).astype(t.dtype.numpy()) for n, t in exe.inputs.items()}


@pytest.mark.parametrize("name", ["parallel_branches", "copies", "diamond"])
def test_results_do_not_depend_on_delays(name: str) -> None:
    graph = gx.load(Path(__file__).parents[2] / "graphs" / f"{name}.yaml")
    with gx.compile(graph, device=CpuDevice(), streams=1) as exe:
        inputs = inputs_of(exe, 0)
        expected = exe.run(**inputs)
    for seed in range(12):
        device = CpuDevice(delays=seed, poison=True)
        with gx.compile(graph, device=device, streams=1 + seed % 5) as exe:
            for _ in range(2):
                found = exe.run(**inputs)
                assert all(found[n].tobytes() == expected[n].tobytes() for n in expected)


@settings(max_examples=25, deadline=None)
@given(graphs(), stream_counts())
def test_any_graph_is_bitwise_the_same_on_any_streams(graph: gx.Graph, streams: int) -> None:
    with gx.compile(graph, device=CpuDevice(), streams=1) as exe:
        inputs = inputs_of(exe, 1)
    expected = reference(graph, inputs)
    with gx.compile(graph, device=CpuDevice(delays=7, poison=True), streams=streams) as exe:
        for _ in range(2):
            found = exe.run(**inputs)
            assert all(found[n].tobytes() == expected[n].tobytes() for n in expected)


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_results_are_bitwise_equal_run_to_run(cores: int) -> None:
    graph = gx.Graph("g")
    graph.input("x", (3, 250, 170), "f16")
    graph.softmax("x", axis=1, name="s")
    graph.output(graph.gemm("s", "x", trans_b=True, out_dtype="f32", name="m"), "s")
    with gx.compile(graph, device=CpuDevice(cores=cores)) as exe:
        inputs = inputs_of(exe, 2)
        first = exe.run(**inputs)
        for _ in range(5):
            found = exe.run(**inputs)
            assert all(found[n].tobytes() == first[n].tobytes() for n in first)


def test_streams_run_side_by_side() -> None:
    """Both branches are inside their command at the same time, or the barrier breaks."""
    barrier = threading.Barrier(2, timeout=PATIENCE)
    ops = hooked(lambda node, parallel: barrier.wait() and None)
    with gx.compile(two_branches(ops), device=CpuDevice(), streams=2) as exe:
        assert exe.run(x=ones())["y"][0, 0] == 2 * 2 * 8


def test_commands_of_a_stream_run_one_after_another() -> None:
    inside, seen = threading.Lock(), []

    def before(node: str, parallel: Parallel) -> None:
        assert inside.acquire(blocking=False)
        seen.append(node)
        inside.release()

    graph = gx.Graph("chain", ops=hooked(before))
    name = graph.input("x", (2,))
    for i in range(20):
        name = graph.hook(name, name=f"n{i}")
    graph.output(y=name)
    with gx.compile(graph, device=CpuDevice(delays=3), streams=1) as exe:
        assert exe.run(x=np.zeros(2, np.float32))["y"].tolist() == [20, 20]
    assert seen == [f"n{i}" for i in range(20)]


# Wrong plans give wrong numbers ---------------------------------------------------------------


def test_a_deleted_wait_gives_wrong_numbers() -> None:
    """The join reads before another stream's branch writes, which goes on only after the join."""
    joined, late = threading.Event(), set()

    def before(node: str, parallel: Parallel) -> None:
        if node in late:
            joined.wait(PATIENCE)

    def tap(node: str, written: Array) -> None:
        if node == "join":
            joined.set()

    graph = two_branches(hooked(before))
    bound = plan_graph(graph, streams=2, costs=GPU).bound
    plan = bound.plan
    stream = {i.node: i.stream for i in plan.instructions if isinstance(i, Launch)}
    late |= {node for node in ("slow", "quick") if stream[node] != stream["join"]}
    place = next(
        k for k, i in enumerate(plan.instructions) if isinstance(i, Launch) and i.node == "join"
    )
    wait = place - 1
    assert len(late) == 1
    assert isinstance(plan.instructions[wait], Wait)
    assert gx.find_hazards(without(bound, wait).plan)
    with wrong(graph, lambda p: without(p, wait), poison=True) as exe:
        assert np.isnan(exe.run_tapped({"x": ones()}, tap)["y"]).all()
    joined.set()
    with gx.compile(graph, device=CpuDevice(poison=True), streams=2) as exe:
        assert (exe.run(x=ones())["y"] == 32).all()


def test_overlapping_tensors_give_wrong_numbers() -> None:
    """The join reads one tensor twice, whichever branch writes last."""
    graph = gx.Graph("g", ops=hooked())
    graph.input("x", (8, 8))
    graph.input("z", (8, 8))
    graph.hook("x", name="slow")
    graph.hook("z", name="quick")
    graph.output(y=graph.gemm("slow", "quick", name="join"))

    def overlap(bound: BoundPlan) -> BoundPlan:
        """`quick` gets the bytes of `slow`."""
        slow, quick = bound.places["slow"], bound.places["quick"]

        def moved(r: Range) -> Range:
            inside = (r.buffer, r.low) == quick
            return Range(slow[0], slow[1], slow[1] + 256) if inside else r

        steps = tuple(
            replace(i, reads=tuple(map(moved, i.reads)), writes=tuple(map(moved, i.writes)))
            if isinstance(i, Launch) and i.node in ("quick", "join") else i
            for i in bound.plan.instructions
        )  # fmt: skip
        plan = replace(bound.plan, instructions=steps)
        return replace(bound, plan=plan, places={**bound.places, "quick": slow})

    inputs = {"x": ones(), "z": 2 * ones()}
    with gx.compile(graph, device=CpuDevice(), streams=2, costs=GPU) as exe:
        assert (exe.run(**inputs)["y"] == 2 * 3 * 8).all()
        assert gx.find_hazards(overlap(exe.bound).plan)
    with wrong(graph, overlap, delays=0) as exe:
        assert (exe.run(**inputs)["y"] != 2 * 3 * 8).any()


def test_poison_shows_bytes_that_nobody_wrote() -> None:
    graph = two_branches(hooked())

    def lose(bound: BoundPlan) -> BoundPlan:
        (index,) = [
            k for k, i in enumerate(bound.plan.instructions)
            if isinstance(i, Launch) and i.node == "slow"
        ]  # fmt: skip
        return without(bound, index)

    with wrong(graph, lose, poison=True) as exe:
        for _ in range(2):
            assert np.isnan(exe.run(x=ones())["y"]).all()


# Failures -------------------------------------------------------------------------------------


class Trouble(Exception):
    pass


def test_a_failing_command_names_its_node_and_the_session_goes_on() -> None:
    fail = threading.Event()

    def before(node: str, parallel: Parallel) -> None:
        if node == "quick" and fail.is_set():
            raise Trouble("no more")

    with gx.compile(
        two_branches(hooked(before)), device=CpuDevice(delays=1, poison=True), streams=2
    ) as exe:
        for _ in range(3):
            assert (exe.run(x=ones())["y"] == 32).all()
            fail.set()
            with pytest.raises(gx.ExecutionError, match="node 'quick': Trouble: no more") as caught:
                exe.run(x=ones())
            assert caught.value.node == "quick"
            assert isinstance(caught.value.__cause__, Trouble)
            fail.clear()


def test_nothing_is_launched_after_a_failure_on_its_stream() -> None:
    seen = []

    def before(node: str, parallel: Parallel) -> None:
        seen.append(node)
        if node == "n1":
            raise Trouble

    graph = gx.Graph("chain", ops=hooked(before))
    name = graph.input("x", (2,))
    for i in range(5):
        name = graph.hook(name, name=f"n{i}")
    graph.output(y=name)
    with gx.compile(graph, device=CpuDevice(), streams=1) as exe, pytest.raises(gx.ExecutionError):
        exe.run(x=np.zeros(2, np.float32))
    assert seen == ["n0", "n1"]


def test_a_failure_in_a_part_that_another_core_does() -> None:
    """Raised by the helper thread while the command's own thread waits in its part."""
    met = threading.Barrier(2, timeout=PATIENCE)
    broken = threading.Event()
    broken.set()

    def before(node: str, parallel: Parallel) -> None:
        if node != "slow" or not broken.is_set():
            return
        own = threading.current_thread()

        def body(low: int, high: int) -> None:
            if low < 2:  # the first two parts: one on each thread
                met.wait()
            if threading.current_thread() is not own:
                raise Trouble("in a part")

        parallel(8, body)

    graph = gx.Graph("one", ops=hooked(before))
    graph.input("x", (2, 2))
    graph.output(y=graph.hook("x", name="slow"))
    with gx.compile(graph, device=CpuDevice(cores=2), streams=1) as exe:
        with pytest.raises(gx.ExecutionError, match="node 'slow': Trouble: in a part"):
            exe.run(x=ones(2))
        broken.clear()
        assert exe.run(x=ones(2))["y"].tolist() == [[2, 2], [2, 2]]


STOPPED_BY_EXIT = """
import sys
sys.path[:0] = sys.argv[1:]
import graphexec as gx
import numpy as np
from test_cpu import hooked, two_branches

def before(node, parallel):
    if node == "quick" and fail:
        raise {error}("stop")

fail = True
with gx.compile(two_branches(hooked(before)), device=gx.CpuDevice(), streams=2) as exe:
    try:
        exe.run(x=np.ones((8, 8), np.float32))
    except gx.ExecutionError as exc:
        assert exc.node == "quick", exc
    else:
        raise AssertionError("no error")
    fail = False
    assert (exe.run(x=np.ones((8, 8), np.float32))["y"] == 32).all()
"""


@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt"])
def test_no_exception_of_an_op_hangs_the_run(error: str) -> None:
    """Also those that are no Exception: `sys.exit()` in an op must not end the stream's thread."""
    here = Path(__file__).parent
    code = [sys.executable, "-c", STOPPED_BY_EXIT.format(error=error), str(here), str(here.parent)]
    done = subprocess.run(code, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def test_an_exception_without_a_text_hangs_no_run() -> None:
    """Whatever its `__str__` raises: it is the op's, too."""
    raised: list[type[BaseException]] = []

    class Wordless(Exception):
        def __str__(self) -> str:
            raise raised[0]

    def before(node: str, parallel: Parallel) -> None:
        if raised and node == "quick":
            raise Wordless

    with gx.compile(two_branches(hooked(before)), device=CpuDevice(), streams=2, timeout=9) as exe:
        for kind in (ValueError, SystemExit, KeyboardInterrupt, RecursionError, Wordless):
            raised[:] = [kind]
            with pytest.raises(gx.ExecutionError, match=r"'quick': Wordless: \(.*__str__ raised"):
                exe.run(x=ones())
        raised.clear()
        assert (exe.run(x=ones())["y"] == 32).all()


@pytest.mark.parametrize("error", [SystemExit(3), Trouble("no"), ValueError("no")])
def test_what_an_op_raises_while_a_plan_is_loaded_is_its_nodes(error: BaseException) -> None:
    class Unready:
        def prepare(self) -> Unready:
            raise error

        def __call__(self, arrays: list[Array], parallel: Parallel) -> None:
            raise AssertionError

    class Unprepared(Hook):
        def lower(self, call: Call) -> list[Command]:
            (command,) = super().lower(call)
            assert isinstance(command.work, Kernel)
            return [replace(command, work=replace(command.work, compute=Unready()))]

    graph = gx.Graph("one", ops={"hook": Unprepared()})
    graph.output(y=graph.hook(graph.input("x", (2, 2)), name="only"))
    before = own_threads()
    with pytest.raises(gx.ExecutionError, match=f"node 'only': {type(error).__name__}: "):
        gx.compile(graph, device=CpuDevice())
    assert own_threads() == before


def test_warnings_of_numpy_do_not_stop_a_run() -> None:
    """Infinities and NaN are valid results, as on a GPU, with any warning filter."""
    graph = gx.Graph("g")
    graph.input("x", (2, 2))
    graph.softmax("x", name="s")
    graph.copy("x", dtype="f16", name="c")
    graph.output("s", "c", graph.gemm("x", "x", name="m"))
    x = np.array([[np.inf, np.inf], [3e38, -3e38]], np.float32)
    with gx.compile(graph, device=CpuDevice()) as exe:
        found = exe.run(x=x)
    assert np.isnan(found["s"][0]).any()
    assert np.isinf(found["c"]).all()


def test_an_interrupt_leaves_the_session_usable() -> None:
    """KeyboardInterrupt in the thread that waits, while a command runs."""
    started, proceed = threading.Event(), threading.Event()
    interrupted = threading.Event()

    def before(node: str, parallel: Parallel) -> None:
        if node == "slow" and not interrupted.is_set():
            started.set()
            proceed.wait(5)  # should the interrupt not be seen before

    with gx.compile(two_branches(hooked(before)), device=CpuDevice(poison=True), streams=2) as exe:

        def interrupt() -> None:
            started.wait(PATIENCE)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        helper = threading.Thread(target=interrupt)
        helper.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                exe.run(x=ones())
        finally:
            helper.join()
            interrupted.set()
            proceed.set()
        for _ in range(3):
            assert (exe.run(x=ones())["y"] == 32).all()


def test_an_interrupt_while_the_plan_is_issued_leaves_the_session_usable() -> None:
    """After each instruction in turn: streams may wait for events that are never recorded."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    normal = blas_threads()
    with gx.compile(two_branches(hooked()), device=CpuDevice(poison=True), streams=2) as exe:
        session: Any = exe.session
        steps = list(session._steps)
        for place in range(len(steps) + 1):
            session._steps = [*steps[:place], interrupt, *steps[place:]]
            with pytest.raises(KeyboardInterrupt):
                exe.run(x=ones())
            assert blas_threads() == normal
            session._steps = steps
            assert (exe.run(x=ones())["y"] == 32).all()


def test_a_run_that_takes_too_long() -> None:
    proceed = threading.Event()

    def before(node: str, parallel: Parallel) -> None:
        if node == "slow":
            proceed.wait(PATIENCE)

    graph = two_branches(hooked(before))
    with gx.compile(graph, device=CpuDevice(), streams=2, timeout=0.05) as exe:
        with pytest.raises(gx.ExecutionError, match=r"did not finish within 0\.05 s") as caught:
            exe.run(x=ones())
        assert type(caught.value).__name__ == "TimedOut"
        assert "completed last: node '" in str(caught.value)
        assert "pending: 'slow'" in str(caught.value)
        proceed.set()
    with gx.compile(graph, device=CpuDevice(), streams=2, timeout=PATIENCE) as exe:
        assert (exe.run(x=ones())["y"] == 32).all()


# Closing --------------------------------------------------------------------------------------


def own_threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith("graphexec")}


def test_closing_ends_every_thread() -> None:
    before = own_threads()
    graph = gx.Graph("g")
    graph.input("x", (300, 300))
    graph.output(graph.gemm("x", "x"))
    with gx.compile(graph, device=CpuDevice(cores=2), streams=3) as exe:
        exe.run(x=ones(300))
        pending = [exe.submit(x=ones(300)) for _ in range(2)]
        assert own_threads() - before
    assert own_threads() <= before
    assert all((p.result()["gemm"] == 300).all() for p in pending)


def test_a_plan_that_cannot_be_loaded_leaves_no_thread() -> None:
    before = own_threads()
    graph = two_branches(hooked())
    with pytest.raises(KeyError):
        wrong(graph, lambda bound: replace(bound, work={}))
    assert own_threads() <= before


def test_close_twice_and_use_after_close() -> None:
    exe = gx.compile(two_branches(hooked()), device=CpuDevice(), streams=2)
    pending = exe.submit(x=ones())
    exe.close()
    exe.close()
    assert (pending.result()["y"] == 32).all()
    assert "closed" in repr(exe)
    for use in (lambda: exe.run(x=ones()), lambda: exe.submit(x=ones()),
                lambda: [*exe.map([{"x": ones()}])],
                exe.replay):  # fmt: skip
        with pytest.raises(gx.GraphexecError, match="the executable is closed"):
            use()
    assert exe.plan.graph == "branches"


def test_closing_waits_for_what_is_in_flight() -> None:
    started, proceed = threading.Event(), threading.Event()

    def before(node: str, parallel: Parallel) -> None:
        if node == "slow":
            started.set()
            proceed.wait(PATIENCE)

    exe = gx.compile(two_branches(hooked(before)), device=CpuDevice(), streams=2)
    pending = [exe.submit(x=ones()), exe.submit(x=2 * ones())]
    assert started.wait(PATIENCE)
    closing = threading.Thread(target=exe.close)
    closing.start()
    assert not any(p.done() for p in pending)
    assert closing.is_alive()
    proceed.set()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert [p.result()["y"][0, 0] for p in pending] == [32, 72]


def test_closing_with_a_failure_in_flight() -> None:
    def before(node: str, parallel: Parallel) -> None:
        raise Trouble

    exe = gx.compile(two_branches(hooked(before)), device=CpuDevice(), streams=2)
    pending = exe.submit(x=ones())
    exe.close()
    for _ in range(2):
        with pytest.raises(gx.ExecutionError, match="Trouble"):
            pending.result()


# Several requests and threads -----------------------------------------------------------------


def test_submit_returns_before_the_run_is_done() -> None:
    proceed = threading.Event()

    def before(node: str, parallel: Parallel) -> None:
        proceed.wait(PATIENCE)

    x = ones()
    with gx.compile(two_branches(hooked(before)), device=CpuDevice(), streams=2) as exe:
        pending = exe.submit(x=x)
        x[...] = 99  # inputs are read before submit returns
        assert not pending.done()
        with pytest.raises(TimeoutError, match=r"the run is not done after 0\.01 s"):
            pending.result(timeout=0.01)
        proceed.set()
        assert (pending.result(timeout=PATIENCE)["y"] == 32).all()
        assert pending.done()
        assert pending.result()["y"] is pending.result(timeout=0)["y"]


def test_two_requests_overlap_and_a_third_waits_for_the_first() -> None:
    """Both requests are in `slow` at once; with separate memory neither disturbs the other."""
    barrier = threading.Barrier(2, timeout=PATIENCE)
    ops = hooked(lambda node, parallel: barrier.wait() and None if node == "slow" else None)
    with gx.compile(two_branches(ops), device=CpuDevice(poison=True), streams=1) as exe:
        requests = [exe.submit(x=i * ones()) for i in range(2)]
        assert [p.result()["y"][0, 0] for p in requests] == [8, 32]
    with gx.compile(
        two_branches(hooked()), device=CpuDevice(delays=5, poison=True), streams=2
    ) as exe:
        requests = [exe.submit(x=i * ones()) for i in range(7)]
        assert requests[0].done()
        assert [p.result()["y"][0, 0] for p in reversed(requests)] == [
            8 * (i + 1) ** 2 for i in range(7)
        ][::-1]


@pytest.mark.parametrize("in_flight", [1, 2, 3, 5])
def test_map_keeps_the_order(in_flight: int) -> None:
    with gx.compile(
        two_branches(hooked()), device=CpuDevice(delays=2, poison=True), streams=2
    ) as exe:
        found = exe.map(({"x": i * ones()} for i in range(9)), in_flight)
        assert isinstance(found, Iterator)
        assert [out["y"][0, 0] for out in found] == [8 * (i + 1) ** 2 for i in range(9)]
        assert list(exe.map([], in_flight)) == []


def test_map_refuses_no_requests_in_flight() -> None:
    with (
        gx.compile(two_branches(hooked()), device=CpuDevice()) as exe,
        pytest.raises(gx.DataError, match="in_flight must be at least 1, not 0"),
    ):
        next(exe.map([{"x": ones()}], 0))


@pytest.mark.parametrize("times", [0, -1, 1.5, "2", None])
def test_numbers_of_runs_are_integers_of_at_least_one(times: Any) -> None:
    with gx.compile(two_branches(hooked()), device=CpuDevice()) as exe:
        for what, use in (("in_flight", lambda: exe.map([], times)),
                          ("times", lambda: exe.replay(times))):  # fmt: skip
            with pytest.raises(gx.DataError, match=rf"{what} must be .*at least 1, not {times!r}"):
                use()


@pytest.mark.parametrize(("request_", "found"), [
    (3, "int 3"), (None, "None"), ([("x", 1)], r"list \[\('x', 1\)\]"),
    ("x" * 99, r"str 'x+\.\.\.$"),
])  # fmt: skip
def test_a_request_that_is_none_is_named(request_: Any, found: str) -> None:
    with gx.compile(two_branches(hooked()), device=CpuDevice(), streams=2) as exe:
        outputs = exe.map([{"x": ones()}, request_], 1)
        assert (next(outputs)["y"] == 32).all()
        expected = rf"(?m)request 1 must map names of inputs to arrays, found .*{found}"
        with pytest.raises(gx.DataError, match=expected):
            next(outputs)
        assert (exe.run(x=ones())["y"] == 32).all()


@pytest.mark.parametrize(("wrong", "message"), [
    ({}, "request 1: input 'x' .* is missing"),
    ({"x": ones(), 3: 3}, "request 1: there is no input '3'"),
    ({"x": ones().astype("f8")}, "request 1: input 'x' must be f32"),
    ({"x": ones()[:1]}, r"request 1: .* an array of shape \[1, 8\]"),
])  # fmt: skip
def test_a_wrong_request_is_named(wrong: Any, message: str) -> None:
    with gx.compile(two_branches(hooked()), device=CpuDevice(), streams=2) as exe:
        with pytest.raises(gx.DataError, match=message):
            list(exe.map([{"x": ones()}, wrong]))
        assert (exe.run(x=ones())["y"] == 32).all()


def test_a_wrong_request_costs_no_other_its_outputs() -> None:
    """Neither those that were started before, nor later ones."""
    with gx.compile(two_branches(hooked()), device=CpuDevice(), streams=2) as exe:
        found = exe.map([{"x": ones()}, {"x": ones()}, {"x": ones()[:1]}, {"x": ones()}], 3)
        assert [(next(found)["y"] == 32).all() for _ in range(2)] == [True, True]
        with pytest.raises(gx.DataError, match="request 2: "):
            next(found)
        assert (exe.run(x=ones())["y"] == 32).all()


def test_requests_that_cannot_be_gone_through() -> None:
    with (
        gx.compile(two_branches(hooked()), device=CpuDevice()) as exe,
        pytest.raises(gx.DataError, match="requests must be an iterable of them, found int 3"),
    ):
        exe.map(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("resident", [False, True])
def test_nothing_lies_in_the_memory_of_a_gpu(resident: bool) -> None:
    """Inputs that stay in place are for the CPU too, but no other library can share them."""
    with gx.compile(two_branches(hooked()), device=CpuDevice(), resident=resident) as exe:
        assert (exe.run(x=ones())["y"] == 32).all()
        exe.replay()
        for name in "xy":
            with pytest.raises(gx.DataError, match=f"'{name}' lies in the memory of the host"):
                exe.device_array(name)
        for wrong, help in (("xs", "did you mean 'x'"), ("out", "there are x, y"), (3, "x, y")):
            with pytest.raises(gx.DataError, match=rf"no input or output '{wrong}'(.|\n)*{help}"):
                exe.device_array(wrong)  # type: ignore[arg-type]


def test_a_resident_executable_copies_nothing() -> None:
    """Inputs are filled and outputs are read where they lie, in every order."""
    graph = gx.Graph("resident")
    for name in "abc":
        graph.output(**{name.upper(): graph.softmax(graph.input(name, (3, 2)), name=f"s{name}")})
    graph.output(moved=graph.copy(graph.input("d", (5,)), name="move"))
    rows = {name: np.arange(6, dtype=np.float32).reshape(3, 2) * n for n, name in enumerate("abc")}
    with gx.compile(graph, device=CpuDevice(poison=True), resident=True) as exe:
        lent = np.ones(5, np.float32)
        wanted = exe.run(**rows, d=lent)
        moved = exe.host_array("moved")
        exe.host_array("d")[...] = 7
        for name, array in rows.items():
            exe.host_array(name)[...] = array + 1
        held = {name: exe.host_array(name) for name in "ABC"}
        exe.replay(2)
        for name, array in held.items():  # a softmax does not depend on the 1
            np.testing.assert_allclose(array, wanted[name], rtol=1e-6)
        assert (moved == 7).all()
        assert (lent == 1).all()
        for name in "abc":
            exe.host_array(name)[...] = rows[name]
        own = {name: exe.host_array(name) for name in "abcd"}
        assert np.shares_memory(own["a"], exe.session._memory.buffers["in.a"])  # type: ignore[attr-defined]
        again = exe.run(**own)
        assert all(np.array_equal(again[n], wanted[n]) for n in "ABC")
        turned = exe.run(a=own["b"], b=own["c"], c=own["a"], d=own["d"])
        assert [turned[n].tolist() for n in "ABC"] == [wanted[n].tolist() for n in "BCA"]
        given = exe.run(a=own["c"], b=exe.host_array("A"), c=own["c"], d=own["d"])
        second = wanted["B"].astype(np.float64)  # what the run before left in A
        e = np.exp(second)
        np.testing.assert_allclose(given["B"], e / e.sum(-1, keepdims=True), rtol=1e-5)
    with gx.compile(graph, device=CpuDevice()) as exe:
        with pytest.raises(gx.DataError, match=r"'a' lies in the arena(.|\n)*resident=True"):
            exe.host_array("a")
        with pytest.raises(gx.DataError, match="no input or output 'z'"):
            exe.host_array("z")


def test_a_handle_can_be_awaited() -> None:
    with gx.compile(two_branches(hooked()), device=CpuDevice(), streams=2) as exe:

        async def several() -> list[dict[str, Array]]:
            return [await handle for handle in [exe.submit(x=ones() * n) for n in range(5)]]

        assert [float(found["y"][0, 0]) for found in asyncio.run(several())] == [
            float(exe.run(x=ones() * n)["y"][0, 0]) for n in range(5)
        ]


def test_a_failing_request_does_not_disturb_the_others() -> None:
    def before(node: str, parallel: Parallel) -> None:
        if node == "quick" and fail.is_set():
            fail.clear()
            raise Trouble

    fail = threading.Event()
    with gx.compile(two_branches(hooked(before)), device=CpuDevice(poison=True), streams=2) as exe:
        good = exe.submit(x=ones())
        good.result()
        fail.set()
        bad, other = exe.submit(x=ones()), None
        with pytest.raises(gx.ExecutionError, match="quick"):
            bad.result()
        other = exe.submit(x=ones())
        assert (other.result()["y"] == 32).all()


def test_two_threads_on_one_executable() -> None:
    wrong_results: list[object] = []
    with gx.compile(
        two_branches(hooked()), device=CpuDevice(delays=9, poison=True), streams=2
    ) as exe:

        def work(base: int) -> None:
            try:
                for i in range(base, base + 15):
                    found = (
                        exe.run(x=i * ones())["y"]
                        if i % 3
                        else exe.submit(x=i * ones()).result()["y"]
                    )
                    if not (found == 8 * (i + 1) ** 2).all():
                        wrong_results.append((i, found))
            except BaseException as exc:
                wrong_results.append(exc)

        threads = [threading.Thread(target=work, args=(100 * t,)) for t in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong_results


def test_outputs_are_the_callers_own() -> None:
    with gx.compile(two_branches(hooked()), device=CpuDevice(), streams=2) as exe:
        first = exe.run(x=ones())["y"]
        second = exe.run(x=2 * ones())["y"]
        assert (first == 32).all()
        assert (second == 72).all()
        first[...] = 0
        assert (second == 72).all()


def test_a_run_reads_its_inputs_where_they_lie() -> None:
    """Arrays of `submit` are copied; arrays lent to an earlier run are not changed."""
    lent, given = ones(), 2 * ones()
    lent.flags.writeable = False
    with gx.compile(two_branches(hooked()), device=CpuDevice(poison=True), streams=2) as exe:
        assert (exe.run(x=lent)["y"] == 32).all()
        assert np.shares_memory(exe.session._memory.buffers["in.x"], lent)
        assert (exe.submit(x=given).result()["y"] == 72).all()
        assert not np.shares_memory(exe.session._memory.buffers["in.x"], given)
        assert (exe.run(x=given[::-1])["y"] == 72).all()
    assert (lent == 1).all()
    assert (given == 2).all()


def test_inputs_that_commands_read_are_copied() -> None:
    with gx.compile(two_branches(hooked()), device=CpuDevice(), resident=True) as exe:
        for value in (1, 2):
            x = value * ones()
            assert (exe.run(x=x)["y"] == 8 * (value + 1) ** 2).all()
        exe.replay()
        assert (exe.outputs_of(exe.session)["y"] == 72).all()


def test_an_output_of_two_names() -> None:
    graph = gx.Graph("g")
    graph.input("x", (4, 4))
    graph.gemm("x", "x", name="m")
    graph.output(a="m", b="m")
    with gx.compile(graph, device=CpuDevice(poison=True)) as exe:
        found = exe.run(x=ones(4))
    assert all((array == 4).all() for array in found.values())
    assert not np.shares_memory(found["a"], found["b"])


def test_inputs_of_the_wrong_kind_are_all_reported() -> None:
    graph = gx.Graph("g")
    for name in ("a", "b", "c"):
        graph.input(name, (2, 3))
    graph.output(*[graph.softmax(n, name=f"s{n}") for n in "abc"])
    good = np.ones((2, 3), np.float32)
    with gx.compile(graph, device="cpu") as exe:
        with pytest.raises(gx.DataError) as caught:
            exe.run(a=good.astype(np.float64), b=good.astype(np.int32), aa=good)
        text = str(caught.value)
        assert len(caught.value.diagnostics) == 4
        assert "there is no input 'aa'" in text
        assert "input 'a' must be f32[2, 3], found float64[2, 3]" in text
        assert "convert it: a.astype('float32')" in text
        assert "input 'b' must be f32[2, 3], found int32[2, 3]" in text
        assert "input 'c' (f32[2, 3]) is missing" in text
        with pytest.raises(gx.DataError, match="input 'b'"):
            exe.run(a=good, b=good.T, c=good)
        with pytest.raises(gx.DataError, match="found >f4"):
            exe.run(a=good.astype(">f4"), b=good, c=good)
        strided = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
        found = exe.run(a=strided, b=good[::-1], c=good)["sa"]
        assert np.allclose(found, exe.run(a=strided.copy("C"), b=good, c=good)["sa"])


# Weights --------------------------------------------------------------------------------------


def test_weights_are_uploaded_once_and_shared(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.eye(4, dtype=np.float32))
    graph = gx.Graph("g", folder=tmp_path)
    graph.input("x", (4, 4))
    graph.weight("w", "w.npy")
    graph.output(y=graph.gemm("x", "w"))
    with gx.compile(graph, device=CpuDevice(poison=True)) as exe:
        (tmp_path / "w.npy").unlink()
        x = np.arange(16, dtype=np.float32).reshape(4, 4)
        pending = [exe.submit(x=i * x) for i in range(4)]
        assert all(np.array_equal(p.result()["y"], i * x) for i, p in enumerate(pending))
        memories = [s._memory.buffers["weights"] for s in exe._sessions]
        assert len(memories) == 2
        assert np.shares_memory(*memories)


# Cores and BLAS -------------------------------------------------------------------------------


def blas_threads() -> list[int]:
    from threadpoolctl import threadpool_info

    return [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]


def test_blas_uses_one_thread_during_runs_and_gets_its_threads_back() -> None:
    from threadpoolctl import threadpool_limits

    seen: list[list[int]] = []
    ops = hooked(lambda node, parallel: seen.append(blas_threads()))
    with (
        threadpool_limits(2, user_api="blas"),
        gx.compile(two_branches(ops), device=CpuDevice()) as one,
    ):
        normal = blas_threads()
        assert set(normal) == {2}
        with gx.compile(two_branches(ops), device=CpuDevice()) as two:
            one.run(x=ones())
            assert blas_threads() == normal
            first, second = one.submit(x=ones()), two.submit(x=ones())
            first.result()
            second.result()
            assert blas_threads() == normal
            kept = [one.submit(x=ones())]
        kept.append(one.submit(x=ones()))
        one.close()
        assert blas_threads() == normal
    assert seen
    assert all(set(threads) == {1} for threads in seen)


def test_blas_gets_its_threads_back_after_a_failure() -> None:
    def before(node: str, parallel: Parallel) -> None:
        raise Trouble

    normal = blas_threads()
    with gx.compile(two_branches(hooked(before)), device=CpuDevice()) as exe:
        with pytest.raises(gx.ExecutionError):
            exe.run(x=ones())
        assert blas_threads() == normal


def test_blas_gets_its_threads_back_when_a_request_is_dropped() -> None:
    """Before its run is done, and whether or not the executable is dropped, too."""
    proceed = threading.Event()

    def before(node: str, parallel: Parallel) -> None:
        proceed.wait(PATIENCE)

    normal = blas_threads()
    exe = gx.compile(two_branches(hooked(before)), device=CpuDevice())
    for drop_all in (False, True):
        proceed.clear()
        pending = exe.submit(x=ones())
        if drop_all:
            del exe
        del pending
        assert blas_threads() == normal
        proceed.set()
        if not drop_all:
            assert (exe.run(x=ones())["y"] == 32).all()


def test_a_failure_of_a_dropped_request_is_nobodys() -> None:
    fails = [True]

    def before(node: str, parallel: Parallel) -> None:
        if fails:
            raise Trouble

    with gx.compile(two_branches(hooked(before)), device=CpuDevice()) as exe:
        pending = exe.submit(x=ones())
        while not pending.done():
            pass
        del pending
        fails.clear()
        assert (exe.run(x=ones())["y"] == 32).all()


@pytest.mark.parametrize("last", ["run", "submit", "collected", "resized", "timed", "nothing"])
def test_a_dropped_executable_frees_its_threads_and_its_arena(last: str) -> None:
    """Without `close`, and without the garbage collector."""
    before = own_threads()
    graph = gx.Graph("sized", dims={"N": 512})
    s = graph.softmax(graph.input("x", ("N", "N")), name="s")
    graph.output(y=graph.gemm(s, graph.softmax("x", axis=0, name="t"), name="y"))
    gc.collect()
    gc.disable()
    try:
        exe = gx.compile(graph, device=CpuDevice(cores=2), streams=2)
        arena: Any = weakref.ref(exe.session._memory.buffers["arena"].base)  # type: ignore[attr-defined]
        assert arena() is not None
        if last == "run":
            exe.run(x=ones(512))
        elif last == "submit":
            exe.submit(x=ones(512))
        elif last == "collected":
            exe.submit(x=ones(512)).result()
        elif last == "resized":
            exe.run(x=ones(256))
            exe.submit(x=ones(256))
        elif last == "timed":
            exe.session.timed()
        del exe
        while own_threads() != before:  # helpers may only begin
            for thread in own_threads() - before:
                thread.join(PATIENCE)
                assert not thread.is_alive()
        assert arena() is None
    finally:
        gc.enable()


def test_workers_keep_no_last_task() -> None:
    """What tasks refer to is freed when they are done, though the threads live on."""

    class Large:
        pass

    cores, streams = Cores(2), Streams(1)
    streams.start()
    large = Large()
    gone = weakref.ref(large)

    def use(low: int, high: int, large: Large = large) -> None:
        pass

    cores.parallel(8, use)
    streams.put[0](partial(use, 0, 1))
    streams.drain()
    streams.drain()
    del large, use
    assert gone() is None
    cores.close()
    streams.close()


def test_nested_limits() -> None:
    normal = blas_threads()
    with single_threaded_blas():
        with single_threaded_blas():
            assert set(blas_threads()) <= {1}
        assert set(blas_threads()) <= {1}
    assert blas_threads() == normal


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 100])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_parallel_covers_every_index_once(n: int, count: int) -> None:
    cores = Cores(count)
    seen: list[tuple[int, int]] = []
    cores.parallel(n, lambda low, high: seen.append((low, high)))
    cores.close()
    assert sorted(i for low, high in seen for i in range(low, high)) == list(range(n))


def test_parallel_raises_what_its_own_part_raised_after_all_parts_are_done() -> None:
    cores = Cores(2)
    running = []

    def body(low: int, high: int) -> None:
        running.append(low)
        if low == 0:
            raise Trouble("first")
        running.remove(low)

    with pytest.raises(Trouble, match="first"):
        cores.parallel(8, body)
    assert running == [0]
    assert cores._busy == 0
    cores.close()


def test_helpers_work_on_other_cores_than_the_thread_they_help() -> None:
    met = threading.Barrier(2, timeout=PATIENCE)
    seen: dict[int, set[int]] = {}

    def body(low: int, high: int) -> None:
        met.wait()  # one part on each thread
        seen[threading.get_ident()] = os.sched_getaffinity(0)

    before, cores = os.sched_getaffinity(0), Cores(2)
    for _ in range(2):
        cores.parallel(2, body)
        own = seen.pop(threading.get_ident())
        ((_, others),) = seen.items()
        assert (own, others) == (before, before) if len(before) == 1 else (
            len(own) == 1 and others == before - own
        )  # fmt: skip
        assert os.sched_getaffinity(0) == before
    cores.close()


def test_helpers_work_where_threads_must_not_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: int, cores: set[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    met, cores = threading.Barrier(2, timeout=PATIENCE), Cores(2)
    cores.parallel(2, lambda low, high: met.wait() and None)
    cores.close()


def test_the_device_describes_itself() -> None:
    assert CpuDevice(cores=1).describe().endswith(", 1 core")
    assert CpuDevice(cores=3).describe().endswith(", 3 cores")
    assert CpuDevice().cores >= 1


def test_every_launch_and_wait_is_timed() -> None:
    with gx.compile(gx.load("graphs/diamond.yaml"), device=CpuDevice(delays=3)) as exe:
        inputs = {name: np.ones(t.shape, t.dtype.numpy()) for name, t in exe.inputs.items()}
        expected = exe.run(**inputs)
        times = exe.session.timed()
        assert np.array_equal(exe.outputs_of(exe.session)["out"], expected["out"])
        for kind, spans in ((Launch, times.launches), (Wait, times.waits)):
            numbers = [n for n, i in enumerate(exe.plan.instructions) if isinstance(i, kind)]
            assert [s.instruction for s in spans] == numbers
        assert all(0 <= s.start <= s.end for s in (*times.launches, *times.waits))
        for number in [s.instruction for s in times.launches]:
            assert 0 < exe.session.time_command(number, repeats=3) < 60
        assert np.array_equal(exe.run(**inputs)["out"], expected["out"])
