"""Each HIP call of each method fails once: it is named with its code, nothing is left, what is
kept from run to run is as before or said to be lost, and the next attempt is right.

`python tests/runtime/test_hip_every_call.py` fails every call, not only some of many.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hip_lab import MODES, Lab, bits, calls, inputs_of, small

import graphexec as gx
from graphexec.runtime.executable import Executable
from graphexec.runtime.hip.device import CaptureWarning, HipDevice, Mode
from graphexec.tools.tuning.tune import tune

ASKED_ONLY = {"hipGetDeviceCount", "hipRuntimeGetVersion", "hipGetErrorString", "hipGetErrorName",
              "hipGetLastError"}  # fmt: skip
LETTING_GO = {
    "hipFree", "hipHostFree", "hipStreamDestroy", "hipEventDestroy", "hipModuleUnload",
    "hipblasDestroy", "hipGraphDestroy", "hipGraphExecDestroy", "hiprtcDestroyProgram",
    "hipblasLtDestroy", "hipblasLtMatmulDescDestroy", "hipblasLtMatrixLayoutDestroy",
    "hipblasLtMatmulPreferenceDestroy", "hipHostUnregister",
}  # fmt: skip
MOST = 3
"""Calls of one name that fail."""


def remembering() -> gx.Graph:
    """A cache that rows are appended to, and a count."""
    g = gx.Graph("remembering", dims={"C": 40})
    x = g.input("x", (1, 4), "f32")
    n = g.state("n", (), "i32")
    kept = g.state("kept", ("C", 4), "f32")
    total = g.state("total", (4,), "f32")
    more = g.append(kept, x, at=n, axis=0, name="more")
    sums = g.reduce(more, kind="sum", axis=0, name="sums")
    g.set_next(kept, more)
    g.set_next(n, g.map("n + 1", n=n, name="count"))
    g.set_next(total, g.map("total + sums", total=total, sums=sums, name="added"))
    g.output(sums=sums)
    return g


Use = Callable[[Executable, dict[str, Any]], list[dict[str, bytes]]]


def run(exe: Executable, inputs: dict[str, Any]) -> list[dict[str, bytes]]:
    return [bits(exe.run(**inputs))]


def submit(exe: Executable, inputs: dict[str, Any]) -> list[dict[str, bytes]]:
    waiting = [exe.submit(**inputs) for _ in range(2)]
    return [bits(one.result()) for one in waiting]


def map_(exe: Executable, inputs: dict[str, Any]) -> list[dict[str, bytes]]:
    return [bits(one) for one in exe.map([inputs] * 3, in_flight=2)]


def replay(exe: Executable, inputs: dict[str, Any]) -> list[dict[str, bytes]]:
    found = bits(exe.run(**inputs))
    exe.replay(2)
    return [found]


USES: dict[str, Use] = {"run": run, "submit": submit, "map": map_, "replay": replay}


def code_of(name: str) -> int:
    return 8 if name.startswith(("hipblas", "hiprtc")) else 719


def made(lab: Lab, work: Callable[[], object]) -> dict[str, int]:
    """How many calls of each name the work makes."""
    lab.emulator.trace()
    work()
    found: dict[str, int] = {}
    for call in calls(lab.emulator):
        found[call.name] = found.get(call.name, 0) + 1
    for name in ("hipStreamQuery", "hipEventQuery"):
        if name in found:
            found[name] = 1  # how often it is asked is up to chance
    return {name: count for name, count in found.items() if name not in ASKED_ONLY | LETTING_GO}


def faults(counts: dict[str, int], most: int) -> Iterator[tuple[str, int]]:
    for name, count in sorted(counts.items()):
        some = range(1, count + 1)
        if count > most:
            some = sorted({1, (count + 1) // 2, count})
        for number in some:
            yield name, number


def check_told(name: str, number: int, error: gx.ExecutionError) -> None:
    assert f"{name} failed: " in str(error), (name, number)
    assert f"({code_of(name)})" in str(error), (name, number)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("use", USES)
def test_every_call_of_a_method(emulated: Lab, mode: Mode, use: str) -> None:
    sweep(emulated, mode, use, MOST)


def sweep(lab: Lab, mode: Mode, use: str, most: int) -> int:
    with lab.compile(small(), mode, 2) as exe:
        inputs = inputs_of(exe)
        right = USES[use](exe, inputs)
        counts = made(lab, lambda: USES[use](exe, inputs))
    count = 0
    before = lab.emulator.live()
    for name, number in faults(counts, most):
        count += 1
        with ExitStack() as stack:
            exe = stack.enter_context(lab.compile(small(), mode, 2))
            lab.emulator.fail(f"{name}:{number}={code_of(name)}")
            try:
                found = USES[use](exe, inputs)
            except gx.ExecutionError as exc:
                check_told(name, number, exc)
            else:
                assert found == right, (use, name, number)
            lab.emulator.fail("")
            assert USES[use](exe, inputs) == right, (use, name, number)
        gc.collect()
        assert lab.emulator.live() == before, (use, name, number)
    return count


@pytest.mark.parametrize("mode", MODES)
def test_every_call_of_a_step_that_is_remembered(emulated: Lab, mode: Mode) -> None:
    sweep_states(emulated, mode, MOST)


def sweep_states(lab: Lab, mode: Mode, most: int) -> int:
    rows = [np.full((1, 4), value, np.float32) for value in (1, 2, 3)]

    def steps(exe: Executable) -> None:
        exe.run(x=rows[1])
        exe.replay(2)

    def kept(exe: Executable) -> dict[str, bytes]:
        return {name: exe.state[name].tobytes() for name in ("n", "kept", "total")}

    with lab.compile(remembering(), mode, 2) as exe:
        exe.run(x=rows[0])
        before_steps = kept(exe)
        counts = made(lab, lambda: steps(exe))
        after = kept(exe)
    count = 0
    live = lab.emulator.live()
    for name, number in faults(counts, most):
        count += 1
        with lab.compile(remembering(), mode, 2) as exe:
            exe.run(x=rows[0])
            lab.emulator.fail(f"{name}:{number}={code_of(name)}")
            try:
                steps(exe)
            except gx.ExecutionError as exc:
                check_told(name, number, exc)
                lab.emulator.fail("")
                with pytest.raises(gx.ExecutionError, match="the states are lost since a run"):
                    kept(exe)
                with pytest.raises(gx.ExecutionError, match="are lost"):
                    exe.run(x=rows[0])
            else:
                lab.emulator.fail("")
                assert kept(exe) == after, (name, number)
            exe.reset()
            exe.run(x=rows[0])
            assert kept(exe) == before_steps, (name, number)
            steps(exe)
            assert kept(exe) == after, (name, number)
        gc.collect()
        assert lab.emulator.live() == live, (name, number)
    return count


def test_every_call_of_tuning(
    emulated: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHEXEC_PROFILES", str(tmp_path / "profiles"))
    emulated.emulator.set_schedule("eager")
    sweep_tuning(emulated, 1)


def sweep_tuning(lab: Lab, most: int) -> int:
    def tuned() -> None:
        tune(small(), HipDevice(), seconds=0.02)

    tuned()
    counts = made(lab, tuned)
    live = lab.emulator.live()
    count = 0
    for name in sorted(counts):
        for number in (1, 2)[:most]:
            count += 1
            lab.emulator.fail(f"{name}:{number}={code_of(name)}")
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", CaptureWarning)
                    tuned()
            except gx.ExecutionError as exc:
                check_told(name, number, exc)
            lab.emulator.fail("")
            gc.collect()
            assert lab.emulator.live() == live, (name, number)
    return count


if __name__ == "__main__":
    laboratory = Lab.open()
    total = sum(sweep(laboratory, mode, use, 10**6) for mode in MODES for use in USES)
    total += sum(sweep_states(laboratory, mode, 10**6) for mode in MODES)
    print(f"{total:,} faults: each is named, and nothing is left")
