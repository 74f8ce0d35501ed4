"""What fails is named and leaves nothing behind: every function, memory, capture, hanging."""

from __future__ import annotations

import gc
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hip_lab import (
    MODES,
    ROOT,
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
from graphexec.base.errors import OutOfMemory, SessionClosed, TimedOut
from graphexec.cli.app import app
from graphexec.ir.plan import Launch, Record, Wait
from graphexec.runtime.hip.bindings import HipError
from graphexec.runtime.hip.device import CaptureWarning, HipDevice, Mode
from graphexec.runtime.hip.status import Checker

FOLDERS = [str(ROOT / folder) for folder in ("tests", "tests/runtime", "benchmarks")]
"""Of the modules that a process of its own imports."""

APART = ["batch"]  # what is switched off for several streams with a GEMM each
CAPTURING = {
    "hipStreamBeginCapture", "hipStreamEndCapture", "hipGraphGetNodes",
    "hipGraphInstantiateWithFlags", "hipGraphUpload",
}  # fmt: skip
ASKED_ONLY = {"hipGetDeviceCount", "hipRuntimeGetVersion"}  # once a process
LETTING_GO = {
    "hipFree", "hipHostFree", "hipStreamDestroy", "hipEventDestroy", "hipModuleUnload",
    "hipblasDestroy", "hipGraphDestroy", "hipGraphExecDestroy", "hiprtcDestroyProgram",
}  # fmt: skip


def all_kinds() -> gx.Graph:
    """A gemm, a batched gemm, a kernel, copies and a weight-free input on two branches."""
    g = gx.Graph("all_kinds")
    a, b = g.input("a", (2, 3, 4, 5), "f32"), g.input("b", (3, 1, 5, 6), "f32")
    turned = g.copy(b, permute=[1, 0, 2, 3], name="turned")
    y = g.gemm(a, turned, name="y")
    g.output(y=y, p=g.softmax(a, name="p"))
    return g


def made_calls(lab: Lab, mode: Mode) -> dict[str, list[int]]:
    """Which calls are made while opening and in one run: the numbers of each by name."""
    lab.emulator.trace()
    with lab.compile(all_kinds(), mode, 2) as exe:
        exe.run(**inputs_of(exe))
        found: dict[str, list[int]] = {}
        for call in calls(lab.emulator):
            found.setdefault(call.name, []).append(len(found.get(call.name, [])) + 1)
        del found["hipStreamQuery"][1:]  # how often it is asked is up to chance
    return found


def numbers(count: int) -> list[int]:
    """Some calls of many: the first, the second, one in the middle, the last."""
    return sorted({1, min(2, count), (count + 1) // 2, count})


@pytest.mark.parametrize("mode", MODES)
def test_every_call_may_fail(emulated: Lab, mode: Mode) -> None:
    """Whichever call fails, it is named, nothing stays behind, and the next attempt works."""
    emulator = emulated.emulator
    made = made_calls(emulated, mode)  # compiles the kernels, so what follows reads the cache
    made = made_calls(emulated, mode)
    assert {"hipMalloc", "hipblasGemmBatchedEx", "hipModuleLoadData", "hipMemcpyAsync"} <= set(made)
    before = emulator.live()
    messages: list[tuple[str, str, str]] = []
    for name in made.keys() - ASKED_ONLY - LETTING_GO:
        for number in numbers(len(made[name])):
            code = 8 if name.startswith(("hipblas", "hiprtc")) else 719
            emulator.fail(f"{name}:{number}={code}")
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", CaptureWarning)
                    exe = emulated.compile(all_kinds(), mode, 2)
                with exe:
                    outputs = exe.run(**inputs_of(exe))
                    emulator.fail("")
                    assert name in session_of(exe).fallback, f"{name} failed and nobody noticed"
                    assert session_of(exe).mode == "stream"
                    assert_right(exe, inputs_of(exe), outputs)
            except gx.ExecutionError as exc:
                messages.append((f"{name} failed: ", f"({code})", str(exc)))
            emulator.fail("")
            gc.collect()
            assert emulator.live() == before, f"{name} number {number} leaves something behind"
    assert len(messages) >= 20
    for call, status, message in messages:
        assert call in message
        assert status in message
    with emulated.compile(all_kinds(), mode, 2) as exe:
        assert_right(exe, inputs_of(exe), exe.run(**inputs_of(exe)))


@pytest.mark.parametrize("name", sorted(LETTING_GO - {"hiprtcDestroyProgram"}))
def test_what_cannot_be_freed_does_not_keep_the_rest(emulated: Lab, name: str) -> None:
    emulator = emulated.emulator
    exe = emulated.compile(small(), "graph", 2)
    exe.run(**inputs_of(exe))
    emulator.fail(f"{name}:1={8 if 'blas' in name else 719}")
    with pytest.raises(HipError, match=name):
        exe.close()
    emulator.fail("")
    exe.close()
    live = emulator.live()
    left = [live.device_allocations, live.pinned_allocations, live.streams, live.events,
            live.graphs, live.execs, live.modules, live.blas_handles]  # fmt: skip
    assert sum(left) <= 1, live


@pytest.mark.parametrize("call", ["hipblasGemmEx", "hipModuleLaunchKernel", "hipMemcpyAsync"])
def test_a_launch_that_fails_in_a_run(emulated: Lab, call: str) -> None:
    """The error names the call and its node, and the executable stays usable."""
    emulator = emulated.emulator
    with emulated.nothing_left(), emulated.compile(small(), "stream", 2) as exe:
        inputs = inputs_of(exe)
        expected = bits(exe.run(**inputs))
        for number in (1, 2):
            code = 6 if "blas" in call else 700
            emulator.fail(f"{call}:{number}={code}")
            if call == "hipModuleLaunchKernel" and number == 2:
                continue  # there is one
            with pytest.raises(HipError) as caught:
                exe.run(**inputs)
            error = caught.value
            assert error.call == call
            assert error.code == code
            assert error.node in {i.node for i in exe.plan.instructions if hasattr(i, "node")}
            assert f"node '{error.node}': {call} failed: {error.name} ({code}): " in str(error)
            emulator.fail("")
            assert bits(exe.run(**inputs)) == expected


def test_half_a_run_is_waited_for_before_the_next(emulated: Lab) -> None:
    """After a failure in the middle, what was issued before it must not meet the next run."""
    with emulated.compile("parallel_branches", "stream", 4, no_rewrite=APART) as exe:
        inputs, others = inputs_of(exe), inputs_of(exe, seed=1)
        expected = bits(exe.run(**inputs))
        for seed in range(8):
            emulated.seed(seed)
            emulated.emulator.fail(f"hipblasGemmEx:{3 + 3 * seed}=6")
            with pytest.raises(HipError):
                exe.run(**others)
            emulated.emulator.fail("")
            assert bits(exe.run(**inputs)) == expected


# Memory ---------------------------------------------------------------------------------------


def test_out_of_memory_says_what_was_needed_and_what_there_is(emulated: Lab) -> None:
    emulated.emulator.set_memory(40 << 20)
    with emulated.nothing_left(), pytest.raises(OutOfMemory) as caught:
        emulated.compile("parallel_branches", streams=4, no_rewrite=APART)
    found = re.search(
        r"(?P<needed>[\d.]+) MiB needed at peak \(arena (?P<arena>[\d.]+) MiB; "
        r"(?P<handles>\d+) BLAS workspaces of 32.0 MiB\), (?P<free>[\d.]+) MiB free of 40.0 MiB; "
        r"hipMalloc failed: "
        r"hipErrorOutOfMemory \(2\)", str(caught.value))  # fmt: skip
    assert found, caught.value
    assert float(found["needed"]) == pytest.approx(
        float(found["arena"]) + int(found["handles"]) * 32, abs=0.1
    )
    assert float(found["free"]) == 40.0, "everything was freed before the question"
    with emulated.compile("parallel_branches", streams=1) as exe:
        exe.run(**inputs_of(exe))


def test_out_of_memory_for_a_second_request_leaves_the_first(emulated: Lab) -> None:
    with emulated.compile(small(), streams=1) as exe:
        inputs = inputs_of(exe)
        expected = bits(exe.run(**inputs))
        emulated.emulator.set_memory(40 << 20)
        first = exe.submit(**inputs)
        with pytest.raises(OutOfMemory, match="too little memory"):
            exe.submit(**inputs)
        assert bits(first.result()) == expected
        assert bits(exe.run(**inputs)) == expected


def test_pinned_memory_runs_out(emulated: Lab) -> None:
    emulated.emulator.fail("hipHostMalloc:2=2")
    with (
        emulated.nothing_left(),
        pytest.raises(OutOfMemory, match=r"can be pinned: .* needed \(in\.x "),
    ):
        emulated.compile(small())


# Capture --------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", sorted(CAPTURING))
def test_a_capture_that_fails_is_explained(emulated: Lab, call: str) -> None:
    emulated.emulator.fail(f"{call}:1=900")
    with emulated.nothing_left():
        with pytest.warns(CaptureWarning, match=f"small runs in stream mode: .*{call} failed: "):
            exe = emulated.compile(small(), "graph", 2)
        emulated.emulator.fail("")
        session = session_of(exe)
        assert session.mode == "stream"
        assert session.fallback.startswith(f"{call} failed: hipErrorStreamCaptureUnsupported (900)")
        assert emulated.live().graphs == emulated.live().execs == 0
        assert_right(exe, inputs_of(exe), exe.run(**inputs_of(exe)))
        exe.close()


def test_a_launch_that_cannot_be_captured(emulated: Lab) -> None:
    emulated.emulator.fail("hipModuleLaunchKernel:2=900")  # the first is the warm-up
    with emulated.nothing_left():
        with pytest.warns(CaptureWarning, match="node 'right': hipModuleLaunchKernel failed"):
            exe = emulated.compile(small(), "graph", 2)
        emulated.emulator.fail("")
        assert_right(exe, inputs_of(exe), exe.run(**inputs_of(exe)))
        exe.close()


# Hanging --------------------------------------------------------------------------------------


def test_a_hang_names_what_is_done_and_what_is_not(emulated: Lab) -> None:
    emulator = emulated.emulator
    exe = emulated.compile(small(), "stream", 2, timeout=0.5)
    inputs = inputs_of(exe)
    expected = bits(exe.run(**inputs))
    calls_before = {s.id for s in exe.plan.streams}
    assert len(calls_before) == 2
    with emulator.hang(), pytest.raises(TimedOut) as caught:
        exe.run(**inputs)
    assert "the run did not finish within 0.5 s; completed last: nothing; pending: " in str(
        caught.value
    )
    for node in ("'x.h2d'", "'left'", "'right'", "'join'"):
        assert node in str(caught.value)
    # The device goes on, and so does the executable.
    assert bits(exe.run(**inputs)) == expected
    exe.close()


def test_a_hang_in_the_middle(emulated: Lab) -> None:
    """One of two streams hangs: what the other did before it had to wait is completed."""
    emulator = emulated.emulator
    g = gx.Graph("two")
    x, y = g.input("x", (64, 64), "f32"), g.input("y", (64, 64), "f32")
    g.output(a=g.softmax(x, name="a"), b=g.softmax(y, name="b"))
    exe = emulated.compile(g, "stream", 2, timeout=0.2, no_rewrite=APART)
    other = session_of(exe)._resources.streams[1]
    number = int(other) & 0xFFFF
    with emulator.hang(number), pytest.raises(TimedOut) as caught:
        exe.run(**inputs_of(exe))
    completed, pending = str(caught.value).split("completed last: ")[1].split("; pending: ")
    on_second = {i.node for i in exe.plan.instructions if getattr(i, "stream", 0) == 1
                 and hasattr(i, "node")}  # fmt: skip
    assert on_second <= {name.strip(" '") for name in pending.split(",")}
    assert completed.strip("node '") not in on_second
    exe.close()


def test_a_graph_that_hangs(emulated: Lab) -> None:
    with (
        emulated.compile(small(), "graph", 2, timeout=0.05) as exe,
    ):
        with emulated.emulator.hang(), pytest.raises(TimedOut) as caught:
            exe.run(**inputs_of(exe))
        assert "a graph does not say how far it came, mode 'stream' does; pending: " in str(
            caught.value
        )
        assert "'join'" in str(caught.value)
    assert emulated.live().streams == 0, "the hang was over when it was closed"


def test_closing_while_the_device_hangs(emulated: Lab) -> None:
    """Resources of a hanging device cannot be freed: `close` keeps them and does not wait."""
    exe = emulated.compile(small(), "stream", 2, timeout=0.05)
    with emulated.emulator.hang():
        with pytest.raises(TimedOut):
            exe.run(**inputs_of(exe))
        with pytest.raises(gx.ExecutionError, match="an earlier run of this executable never"):
            exe.run(**inputs_of(exe))
        exe.close()
        assert emulated.live().streams == 2
    with pytest.raises(SessionClosed):
        exe.run(**inputs_of(exe))
    with emulated.compile(small()) as another:
        assert_right(another, inputs_of(another), another.run(**inputs_of(another)))


def test_a_device_that_hangs_while_a_plan_is_loaded(emulated: Lab) -> None:
    device = HipDevice(timeout=0.05)
    with emulated.emulator.hang(), pytest.raises(TimedOut, match=r"did not answer within 0\.05 s"):
        gx.compile(small(), device=device, streams=2)


def test_the_watchdog_on_the_command_line(emulated: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run = gx.Executable.run

    def hung(exe: gx.Executable, /, **inputs: Any) -> Any:
        with emulated.emulator.hang():
            return run(exe, **inputs)

    monkeypatch.setattr(gx.Executable, "run", hung)
    graph = str(ROOT / "graphs" / "attention.yaml")
    options = ["--device", "hip", "--mode", "stream", "--timeout", "0.05"]
    done = CliRunner().invoke(app, ["run", graph, *options])
    assert done.exit_code == 1
    assert "error: the run did not finish within 0.05 s; completed last: nothing; pending: " in (
        done.stderr
    )
    assert "'scores'" in done.stderr


def test_ctrl_c_while_the_device_hangs(emulated: Lab, tmp_path: Path) -> None:
    """The program ends within a second, although nothing can be freed."""
    script = f"""
import sys
sys.path[:0] = {FOLDERS!r}
from hip_lab import Lab
import graphexec as gx
lab = Lab.open()
run = gx.Executable.run
def hung(exe, /, **inputs):
    lab.emulator.library.emulatorHang(-1)
    open({str(tmp_path / "begun")!r}, "w").close()
    return run(exe, **inputs)
gx.Executable.run = hung
sys.argv = ["graphexec", "run", {str(ROOT / "graphs" / "diamond.yaml")!r}, "--device", "hip"]
from graphexec.cli import main
main()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        limit = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and time.monotonic() < limit:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert time.monotonic() - start < 2
    assert process.returncode == 130
    assert out == b""
    assert err.endswith(b"interrupted\n")
    assert b"Traceback" not in err


# Ending ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_closing(emulated: Lab, mode: Mode) -> None:
    with emulated.nothing_left():
        exe = emulated.compile(small(), mode)
        inputs = inputs_of(exe)
        expected = bits(exe.run(**inputs))
        waiting = [exe.submit(**inputs), exe.submit(**inputs)]
        exe.close()
        exe.close()
        assert all(pending.done() for pending in waiting)
        assert [bits(pending.result()) for pending in waiting] == [expected, expected]
        for use in (exe.run, exe.submit):
            with pytest.raises(SessionClosed):
                use(**inputs)
        with pytest.raises(SessionClosed):
            exe.replay()
        with pytest.raises(SessionClosed):
            exe.session.issue()
        assert "closed" in repr(exe)


def test_a_dropped_executable_is_freed(emulated: Lab) -> None:
    with emulated.nothing_left():
        exe = emulated.compile(small())
        exe.submit(**inputs_of(exe))
        exe.submit(**inputs_of(exe))
        del exe
        gc.collect()


def test_ctrl_c_while_waiting(emulated: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait ends but the run continues; the next run waits for the rest of it."""
    with emulated.nothing_left(), emulated.compile("diamond", "graph") as exe:
        inputs = inputs_of(exe)
        expected = bits(exe.run(**inputs))
        session = session_of(exe)
        for use in (lambda: exe.run(**inputs), lambda: exe.submit(**inputs).result()):
            for seed in range(4):
                emulated.seed(seed)
                with monkeypatch.context() as patch:
                    patch.setattr(session, "wait", _interrupted)
                    with pytest.raises(KeyboardInterrupt):
                        use()
                assert bits(exe.run(**inputs)) == expected


def test_ctrl_c_leaves_a_handle_that_says_so(
    emulated: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with emulated.compile(small()) as exe:
        pending = exe.submit(**inputs_of(exe))
        monkeypatch.setattr(session_of(exe), "wait", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            pending.result()
        with pytest.raises(gx.ExecutionError, match="the run was interrupted"):
            pending.result()
        monkeypatch.undo()


def _interrupted(timeout: float | None = None) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("mode", MODES)
def test_ctrl_c_while_a_plan_is_loaded_leaks_nothing(
    emulated: Lab, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    """A signal that arrives as a call returns, before its result is anybody's: at each call that
    makes something in turn."""
    left = [0]
    original = Checker.check
    graph = gx.Graph("all")
    a = graph.input("a", (4, 4))
    graph.output(y=graph.gemm(a, a, bias=graph.input("bias", (4,))), p=graph.softmax(a))

    def interrupted(checker: Checker, *arguments: Any) -> Any:
        found = original(checker, *arguments)
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGINT)
        return found

    with emulated.compile(graph, mode, 2) as exe:  # what is made once a process is made
        inputs = inputs_of(exe)
        exe.run(**inputs)
    monkeypatch.setattr(Checker, "check", interrupted)
    before, number, finished = emulated.live(), 0, False
    while not finished:
        number += 2 if mode == "stream" else 1
        left[0] = number
        try:
            with emulated.compile(graph, mode, 2) as exe:
                exe.session.timed()
                left[0] = 0
                finished = True
        except KeyboardInterrupt:
            pass
        gc.collect()
        assert emulated.live() == before, f"call {number}"
    assert number > 60


def test_events_of_a_measured_run_are_freed_when_one_cannot_be_made(emulated: Lab) -> None:
    with emulated.compile("diamond", "stream", 2) as exe:
        exe.run(**inputs_of(exe))
        before = emulated.live()
        for measure in (
            exe.session.timed,
            partial(exe.session.time_command, 1),
            exe.session.time_run,
        ):
            for number in (1, 2, 3, 9):
                emulated.emulator.fail(f"hipEventCreateWithFlags:{number}=2")
                with suppress(gx.ExecutionError):
                    measure()
                    assert number > 2
                emulated.emulator.fail("")
                if measure != exe.session.time_run:  # it keeps its two
                    assert emulated.live() == before
        assert emulated.live().events == before.events + 2


def test_threads_take_turns(emulated: Lab) -> None:
    with emulated.nothing_left(), emulated.compile("diamond", streams=2) as exe:
        requests = [inputs_of(exe, seed) for seed in range(4)]
        expected = [bits(exe.run(**inputs)) for inputs in requests]
        found: dict[tuple[int, int], dict[str, bytes]] = {}

        def work(number: int) -> None:
            for turn in range(6):
                inputs = requests[(number + turn) % 4]
                outputs = exe.run(**inputs) if turn % 2 else exe.submit(**inputs).result(60)
                found[number, turn] = bits(outputs)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 24
        for (number, turn), outputs in found.items():
            assert outputs == expected[(number + turn) % 4]


def test_closing_while_others_run(emulated: Lab) -> None:
    with emulated.nothing_left():
        exe = emulated.compile(small(), streams=2)
        inputs = inputs_of(exe)
        expected = bits(exe.run(**inputs))
        wrong: list[object] = []
        started = threading.Barrier(4)

        def work() -> None:
            started.wait()
            try:
                while True:
                    if bits(exe.submit(**inputs).result(60)) != expected:
                        wrong.append("numbers")
            except SessionClosed:
                pass
            except BaseException as exc:
                wrong.append(exc)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        started.wait()
        exe.close()
        for thread in threads:
            thread.join()
        assert wrong == []


EXIT = """
import sys
sys.path[:0] = {folders!r}
import threading
import warnings
from hip_lab import Lab, inputs_of, small
lab = Lab.open()
exe = lab.compile(small(), {mode!r})
exe.run(**inputs_of(exe))
{body}
print("end")
"""
ENDINGS = {
    "open": "",
    "requests in flight": "exe.submit(**inputs_of(exe)); exe.submit(**inputs_of(exe))",
    "a failed capture": "lab.emulator.fail('hipStreamEndCapture:1=901'); import warnings; "
    "warnings.simplefilter('ignore'); other = lab.compile(small(), 'graph')",
    "opened in a thread": "t = threading.Thread(target=lambda: globals().update("
    "other=lab.compile(small()))); t.start(); t.join()",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_interpreter_ends_without_close(emulated: Lab, ending: str, mode: Mode) -> None:
    script = EXIT.format(folders=FOLDERS, mode=mode, body=ENDINGS[ending])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
    assert done.stderr == ""


def test_the_interpreter_ends_while_the_device_hangs(emulated: Lab) -> None:
    body = ("import graphexec.runtime.hip.resources as r\n"
            "exe = lab.compile(small(), timeout=0.05)\n"
            "lab.emulator.library.emulatorHang(-1)\n"
            "try: exe.run(**inputs_of(exe))\n"
            "except Exception as exc: assert 'did not finish' in str(exc)\n"
            "exe.close()\n")  # fmt: skip
    script = EXIT.format(folders=FOLDERS, mode="stream", body=body)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr


# Leaks ----------------------------------------------------------------------------------------


def resident_kib() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


@pytest.mark.parametrize("mode", MODES)
def test_a_thousand_runs_leak_nothing(emulated: Lab, mode: Mode) -> None:
    emulated.emulator.set_schedule("eager")
    with emulated.nothing_left(), emulated.compile(small(size=8), mode, 2) as exe:
        inputs = inputs_of(exe)
        for _ in range(100):
            expected = bits(exe.run(**inputs))
        live, before = emulated.live(), resident_kib()
        for _ in range(1000):
            assert bits(exe.run(**inputs)) == expected
        assert emulated.live() == live
        assert resident_kib() - before < 4096


def test_a_hundred_executables_leak_nothing(emulated: Lab) -> None:
    emulated.emulator.set_schedule("eager")
    graph = example("diamond")
    with emulated.nothing_left():
        for number in range(110):
            with emulated.compile(graph, streams=2) as exe:
                exe.run(**inputs_of(exe))
            if number == 10:
                gc.collect()
                before = resident_kib()
        gc.collect()
        assert resident_kib() - before < 16384


@pytest.mark.parametrize("call", ["hipEventRecord", "hipStreamWaitEvent"])
def test_failures_of_events_name_a_node(emulated: Lab, call: str) -> None:
    with emulated.compile("diamond", "stream", 2, no_rewrite=["all"]) as exe:
        nodes = {i.node for i in exe.plan.instructions if isinstance(i, Launch)}
        roles = [i.role for i in exe.plan.instructions if isinstance(i, Wait)]
        records = sum(isinstance(i, Record) for i in exe.plan.instructions)
        # The first record forks and the last wait joins: no command is near.
        number = records if call == "hipEventRecord" else roles.index("dependency") + 1
        emulated.emulator.fail(f"{call}:{number}=719")
        with pytest.raises(gx.ExecutionError, match=f"{call} failed") as caught:
            exe.run(**inputs_of(exe))
        emulated.emulator.fail("")
        assert caught.value.node in nodes
