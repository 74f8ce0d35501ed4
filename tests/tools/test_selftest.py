"""selftest: what it checks, what it says when something is wrong, and its command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner
from graph_files import STEMS
from hip_emulator import build
from hip_lab import Lab

import graphexec as gx
from graphexec.cli.app import app
from graphexec.ir.program import Work
from graphexec.machine.support import Facts, Support
from graphexec.runtime.hip.device import CaptureWarning, HipDevice
from graphexec.tools import selftest as module
from graphexec.tools.examples import EXAMPLES
from graphexec.tools.selftest import Check, Wrong, checks, selftest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("graphexec")


@pytest.mark.parametrize("build", EXAMPLES)
def test_examples_in_code_are_the_files(build: Any) -> None:
    built, written = build(), gx.load(ROOT / "graphs" / f"{build.__name__}.yaml")
    if written.weights:  # files, which an installed graphexec does not have: inputs in code
        assert built.inputs.keys() == written.inputs.keys() | written.weights.keys()
        built.inputs, written.inputs, written.weights = {}, {}, {}
    assert built == written


def test_every_file_is_an_example() -> None:
    assert set(STEMS) == {build.__name__ for build in EXAMPLES}


def test_only_what_was_computed_is_counted() -> None:
    """The output and 'ctx': of scores and probabilities an attention leaves nothing to compare."""
    assert checks()["graph attention"](gx.CpuDevice()).startswith("2 comparisons, worst ")


@pytest.mark.hip
def test_everything_is_right_on_the_hip_device() -> None:
    lab = Lab.open()
    lab.reset()
    with lab.nothing_left():
        done = CliRunner().invoke(app, ["selftest", "--device", "hip"])
    assert done.exit_code == 0, done.output
    assert f"all {len(checks())} checks are ok" in done.stdout


@pytest.mark.hip
@pytest.mark.parametrize(
    "name", ["gemm f32", "softmax f16", "weights from a file", "two streams, no race",
             "requests in flight", "other sizes"],
)  # fmt: skip
def test_on_the_hip_device_without_graphs(name: str) -> None:
    """What order could spoil, and an op of each kind: kernels are those of the other mode."""
    lab = Lab.open()
    lab.reset()
    with lab.nothing_left():
        assert checks()[name](HipDevice(mode="stream"))


def test_every_built_in_op_and_dtype_is_checked() -> None:
    for op in gx.known_ops():
        for dtype in ("f16", "bf16", "f32", "f64"):
            assert f"{op} {dtype}" in checks()


@pytest.mark.hip
def test_a_device_without_graphs_fails_where_they_are_needed() -> None:
    lab = Lab.open()
    if lab.emulator is None:
        pytest.skip("needs the emulator: unset GRAPHEXEC_HIP_LIBRARY_PATH")
    lab.reset()
    lab.emulator.fail("hipGraphInstantiateWithFlags:*=801")
    with (
        pytest.warns(CaptureWarning),
        pytest.raises(Wrong, match="no graph: hipGraphInstantiateWithFlags failed: hipErrorNotSup"),
    ):
        checks()["capture and replay"](HipDevice())
    lab.reset()


class Faulty:
    """A CPU whose sessions give wrong outputs, every time or now and then."""

    name = "cpu"
    group = None

    def __init__(self, every: int) -> None:
        self.every, self.count = every, 0

    def describe(self) -> str:
        return "a faulty device"

    def support(self, work: Work) -> Support:
        return gx.CpuDevice().support(work)

    def facts(self) -> Facts:
        return gx.CpuDevice().facts()

    def open(self, plan: Any, weights: Any, sibling: Any = None, states: Any = None) -> Any:
        session = gx.CpuDevice().open(plan, weights, sibling)
        get = session.get

        def wrong(buffer: str) -> Any:
            self.count += 1
            raw = get(buffer)
            if self.count % self.every == 0:
                raw[raw.size // 2 :] ^= 0x15
            return raw

        session.get = wrong  # type: ignore[method-assign]
        return session


def test_wrong_numbers_fail() -> None:
    with pytest.raises(Wrong, match=r"^out of tolerance: 'plain' "):
        checks()["gemm f32"](Faulty(every=1))
    for name, check in checks().items():
        if name.startswith("graph "):
            with pytest.raises(Wrong):
                check(Faulty(every=1))


@pytest.mark.parametrize("name", ["requests in flight", "two streams, no race"])
def test_numbers_that_change_fail(name: str) -> None:
    with pytest.raises(Wrong):
        checks()[name](Faulty(every=17))


def test_a_check_that_fails_or_raises_fails_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(device: Any) -> str:
        raise Wrong("off by 1")

    def broken(device: Any) -> str:
        raise gx.ExecutionError("no", "last")

    tests = {"wrong": wrong, "broken": broken, "right": lambda device: "fine"}
    monkeypatch.setattr(module, "checks", lambda: tests)
    wrong_one, broken_one, right_one = selftest(gx.CpuDevice())
    assert (wrong_one.ok, wrong_one.detail) == (False, "off by 1")
    assert not broken_one.ok
    assert (right_one.name, right_one.ok, right_one.detail) == ("right", True, "fine")


# The command ----------------------------------------------------------------------------------


def few(device: Any) -> Any:
    yield Check("gemm f32", True, "fine", 0.1)
    yield Check("copy f32", False, "out of tolerance: 'same' 1 of 1e-05", 0.1)


def test_everything_is_right_on_the_cpu() -> None:
    done = CliRunner().invoke(app, ["selftest", "--device", "cpu", "--json"])
    found = json.loads(done.stdout)
    assert [(c["name"], c["detail"]) for c in found["checks"] if not c["ok"]] == []
    assert [check["name"] for check in found["checks"]] == list(checks())
    assert (done.exit_code, found["ok"]) == (0, True)
    assert found["device"] == "cpu"
    assert found["hip"] is None


def test_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "selftest", lambda device: [next(few(device))] * 3)
    done = CliRunner().invoke(app, ["selftest", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    first, *_ = done.stdout.splitlines()
    assert first == f"graphexec {gx.__version__} selftest on cpu"
    assert "all 3 checks are ok" in done.stdout


def test_failures_are_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "selftest", few)
    done = CliRunner().invoke(app, ["selftest", "--device", "cpu"])
    assert done.exit_code == 1
    assert "FAILED  copy f32" in done.stdout
    assert "1 of 2 checks failed: copy f32" in done.stdout


def emulated() -> dict[str, str]:
    """The environment in which the emulator is the HIP runtime."""
    try:
        return {**os.environ, "GRAPHEXEC_HIP_LIBRARY_PATH": str(build.build())}
    except build.BuildError as error:
        pytest.skip(str(error))


def program(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False,
        env={**emulated(), **environment},
    )  # fmt: skip


@pytest.mark.hip
def test_info_describes_the_hip_device() -> None:
    found = json.loads(program("info", "--json").stdout)["hip"]
    assert found["usable"] is True
    assert found["platform"] == "HIP emulator"
    assert found["bindings"] in ("hip", "rocm.bindings")
    assert found["runtime"] == f"{emulated()['GRAPHEXEC_HIP_LIBRARY_PATH']}/libamdhip64.so"
    assert found["devices"][0]["architecture"] == "emulator"
    assert found["graphs"] == {"usable": True, "reason": None}
    text = program("info").stdout
    for line in ("\nHIP\n", "platform   HIP emulator", "runtime    7.", "graphs     usable"):
        assert line in text


@pytest.mark.hip
def test_info_says_why_graphs_cannot_be_used() -> None:
    done = program("info", GRAPHEXEC_EMULATOR_FAIL="hipStreamBeginCapture:*=801")
    assert (
        "graphs     not usable: hipStreamBeginCapture failed: hipErrorNotSupported" in done.stdout
    )


@pytest.mark.hip
def test_modes_on_the_command_line(tmp_path: Path) -> None:
    graph = ROOT / "graphs" / "diamond.yaml"
    for mode in ("graph", "stream"):
        done = program("run", graph, "--device", "hip", "--mode", mode)
        assert done.returncode == 0, done.stderr
        assert f"diamond ran on hip in {mode} mode (graphexec HIP emulator" in done.stdout
        done = program("run", graph, "--device", "hip", "--mode", mode, "--json")
        assert json.loads(done.stdout)["mode"] == mode
        done = program("compare", graph, "--device", "hip", "--mode", mode)
        assert "all within tolerance" in done.stdout
    done = program("run", graph, "--device", "cpu", "--mode", "stream")
    assert "note: --mode is for GPUs; the cpu device has no modes" in done.stderr


@pytest.mark.hip
def test_a_capture_that_fails_is_a_warning() -> None:
    done = program("run", ROOT / "graphs" / "diamond.yaml", "--device", "hip",
                   GRAPHEXEC_EMULATOR_FAIL="hipStreamBeginCapture:*=900")  # fmt: skip
    assert done.returncode == 0
    assert "warning: diamond runs in stream mode: it cannot be captured: hipStream" in done.stderr
    assert "ran on hip in stream mode" in done.stdout


def test_a_time_that_is_none() -> None:
    graph = ROOT / "graphs" / "diamond.yaml"
    for value in ("0", "-1", "soon"):
        assert CliRunner().invoke(app, ["run", str(graph), "--timeout", value]).exit_code == 2


def test_no_device_is_exit_code_3(tmp_path: Path) -> None:
    environment = {**os.environ, "GRAPHEXEC_HIP_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([PROGRAM, "selftest", "--device", "hip"], capture_output=True, text=True,
                          env=environment, check=False)  # fmt: skip
    assert done.returncode == 3
    assert done.stdout == ""
    assert f"{tmp_path} holds no libamdhip64.so" in done.stderr


class Losing(gx.CpuDevice):
    """A device that is lost, as a GPU after an illegal address, when the third plan is loaded."""

    left: ClassVar = [2]

    def open(self, *args: Any, **more: Any) -> Any:
        if not self.left[0]:
            raise gx.ExecutionError("hipErrorIllegalAddress (700)")
        self.left[0] -= 1
        return super().open(*args, **more)


def test_a_lost_device_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Losing, "left", [2])
    found = list(selftest(Losing()))
    assert [check.ok for check in found] == [True, True, False, False]
    assert found[-1].name == "the device"
    assert f"'{found[-2].name}': hipErrorIllegalAddress" in found[-1].detail
    assert f"{len(checks()) - 3} checks were not made" in found[-1].detail


def test_a_check_that_fails_alone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(device: Any) -> str:
        raise gx.ExecutionError("one kernel does not compile")

    some = dict(list(checks().items())[:1])
    monkeypatch.setattr(module, "checks", lambda: {"bad": failing} | some)
    found = list(selftest(gx.CpuDevice()))
    assert [check.ok for check in found] == [False, True]
