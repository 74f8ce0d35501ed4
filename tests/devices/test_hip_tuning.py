"""Tuning on a GPU: the algorithms of hipBLASLt, and plans that use them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hip_lab import MODES, Lab, assert_right, bits, calls, inputs_of, session_of

import graphexec as gx
from graphexec.costs import CONSTANTS, GEMM, Measured, model_of
from graphexec.devices.hip import HipDevice, Mode
from graphexec.errors import ExecutionError
from graphexec.pipeline import plan_graph
from graphexec.profile import Profile
from graphexec.tuning import commands
from graphexec.tuning.commands import CommandTimes, Work, distinct
from graphexec.tuning.tune import Tuned, tune

ALGORITHMS = 3  # of the emulator


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHEXEC_PROFILES", str(tmp_path / "profiles"))
    return tmp_path / "profiles"


@pytest.fixture(autouse=True)
def _eager(lab: Lab) -> None:
    """Nothing here depends on the order of what is issued, only how long it takes does."""
    if lab.emulator is not None:
        lab.emulator.set_schedule("eager")


def branches(dtype: str = "f16") -> gx.Graph:
    g = gx.Graph("branches")
    x = g.input("x", (8, 8), dtype)
    left, right = g.gemm(x, x, name="left"), g.gemm(x, x, trans_a=True, name="right")
    g.output(out=g.softmax(g.gemm(left, right, alpha=0.125, name="join")))
    return g


def tuned(seconds: float = 600) -> Tuned:
    return tune(branches(), HipDevice(), seconds=seconds)


def gemms(tuned: Tuned) -> dict[str, Measured]:
    return {key: m for key, m in tuned.profile.commands.items() if key.startswith(GEMM)}


def test_everything_is_measured_and_nothing_left(lab: Lab) -> None:
    HipDevice().describe()
    with lab.nothing_left():
        found = tuned()
    assert found.complete
    assert found.profile.constants.keys() == set(CONSTANTS)
    assert len(gemms(found)) == 2
    for measured in gemms(found).values():
        assert measured.us == measured.tried[str(measured.choice)]
        assert measured.share is not None
        if lab.emulator is not None:
            assert set(measured.tried) == {str(n) for n in range(ALGORITHMS + 1)}
    assert found.profile.versions.keys() >= {"runtime", "hipblaslt", "hip-python"}


@pytest.mark.parametrize("mode", MODES)
def test_what_was_chosen_is_used(emulated: Lab, mode: Mode) -> None:
    found = tuned()
    commands = {k: replace(m, choice=2) if k in gemms(found) else m
                for k, m in found.profile.commands.items()}  # fmt: skip
    assert found.path is not None
    found.path.write_text(replace(found.profile, commands=commands).to_json())
    with emulated.nothing_left(), gx.compile(branches(), device=HipDevice(mode=mode)) as exe:
        assert exe.plan.stats is not None
        assert exe.plan.stats.costs == f"profile {found.path.name}"
        inputs = inputs_of(exe)
        outputs = exe.run(**inputs)
        assert_right(exe, inputs, outputs)
        emulated.emulator.trace()
        for step in session_of(exe)._steps:
            step()
        session_of(exe)._resources.drain()
        products = [c.name for c in calls(emulated.emulator) if "blas" in c.name]
        assert products == ["hipblasLtMatmul"] * 3
        for _ in range(20):
            assert bits(exe.run(**inputs)) == bits(outputs)
    with gx.compile(branches(), device=HipDevice(mode=mode), use_profile=False) as exe:
        assert session_of(exe)._device.algorithms == {}


def test_resized_and_resident_executables_have_choices_of_their_own(emulated: Lab) -> None:
    graph = branches()
    compiled = plan_graph(graph, device="hip", resident=True)
    works = distinct([compiled.program], model_of("hip"))
    profile = Profile("x", {w.key: Measured(1.0, choice=1) for w in works})
    device = HipDevice(mode="stream")
    with gx.compile(graph, device=device, costs=profile, resident=True) as exe:
        assert session_of(exe)._device.algorithms == profile.algorithms != {}
        inputs = inputs_of(exe)
        assert_right(exe, inputs, exe.run(**inputs))


def test_results_that_differ_are_not_chosen(emulated: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An algorithm is out if its bits change from run to run, or are far from the default's."""
    real = CommandTimes._result

    def tampered(self: CommandTimes, work: Work, device: HipDevice) -> object:
        found = real(self, work, device)
        place = device.algorithms.get(work.key)
        return None if place == 0 else found + 1.0 if place == 1 else found

    monkeypatch.setattr(CommandTimes, "_result", tampered)
    for measured in gemms(tuned()).values():
        assert set(measured.tried) == {"0", "3"}


@pytest.mark.parametrize(("tried", "choice"), [
    ({"0": 10.0, "1": 9.9}, 0),
    ({"0": 10.0, "1": 9.0, "2": 8.0, "3": 8.0}, 2),
    ({"0": 10.0}, 0),
])  # fmt: skip
def test_another_algorithm_must_be_clearly_faster(tried: dict[str, float], choice: int) -> None:
    found = commands._chosen(Measured(10.0), tried)
    assert (found.choice, found.us) == (choice, tried[str(choice)])


def test_too_little_memory_is_told_and_the_rest_measured(emulated: Lab) -> None:
    """One workspace of a BLAS fits, eight side by side do not; nor do the plans on streams."""
    HipDevice().describe()
    emulated.emulator.set_memory(80 << 20)
    with emulated.nothing_left():
        found = tuned()
    assert len(gemms(found)) == 2
    assert all(m.share is None for m in gemms(found).values())
    assert found.path is not None


def test_a_device_that_fails_leaves_nothing(emulated: Lab, folder: Path) -> None:
    HipDevice().describe()
    emulated.emulator.fail("hipMalloc:1=2")
    with emulated.nothing_left(), pytest.raises(ExecutionError):
        tuned()
    assert not folder.exists()


@pytest.mark.parametrize("call", ["hipGraphLaunch:250=1", "hipEventElapsedTime:250=1"])
def test_a_call_that_fails_stops_one_measurement(emulated: Lab, call: str) -> None:
    """Of a command or a plan; what is measured before and after is kept."""
    HipDevice().describe()
    emulated.emulator.fail(call)
    with emulated.nothing_left():
        found = tuned()
    assert found.path is not None
    assert len(found.profile.commands) >= 4
