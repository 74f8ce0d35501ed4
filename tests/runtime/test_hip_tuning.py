"""Tuning on a GPU: the algorithms of hipBLASLt, and plans that use them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hip_lab import MODES, Lab, assert_right, bits, calls, inputs_of, session_of

import graphexec as gx
from graphexec.base.errors import ExecutionError
from graphexec.ir.program import Command, Kernel
from graphexec.machine.costs import CONSTANTS, GEMM, Measured, model_of, signature
from graphexec.machine.variants import variants, with_variant
from graphexec.planning.pipeline import plan_graph
from graphexec.planning.profile import Profile
from graphexec.runtime.device import Device
from graphexec.runtime.hip.device import HipDevice, Mode
from graphexec.tools.tuning import commands
from graphexec.tools.tuning.commands import CommandTimes, Work, distinct
from graphexec.tools.tuning.constants import measure_constants
from graphexec.tools.tuning.tune import Tuned, tune

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
        assert session_of(exe)._options.algorithms == {}


@pytest.mark.parametrize("residual", [False, True])
def test_products_that_add_a_bias_have_algorithms_of_their_own(
    emulated: Lab, residual: bool
) -> None:
    """Fewer, on the emulator; and the one that was chosen adds the bias, and c."""
    g = gx.Graph("layer")
    x, w, bias = g.input("x", (8, 16)), g.input("w", (16, 24)), g.input("bias", (24,))
    c = g.input("c", (8, 24)) if residual else None
    g.output(out=g.gemm(x, w, c=c, bias=bias))
    with emulated.nothing_left():
        found = tune(g, HipDevice(), seconds=600)
    assert found.complete
    ((key, measured),) = gemms(found).items()
    added = "f32[8,24] f32[24]" if residual else "f32[24]"
    assert key == f"gemm: f32[8,16] f32[16,24] {added} -> f32[8,24]"
    assert set(measured.tried) == {"0", "1", "2"}  # the default and the whole list
    for choice in range(3):
        commands = {**found.profile.commands, key: replace(measured, choice=choice)}
        costs = replace(found.profile, commands=commands)
        with gx.compile(g, device=HipDevice(mode="stream"), costs=costs) as exe:
            inputs = inputs_of(exe)
            emulated.emulator.trace()
            assert_right(exe, inputs, exe.run(**inputs))
            assert [c.name for c in calls(emulated.emulator) if "blas" in c.name] == [
                "hipblasLtMatmul"
            ]


def test_resized_and_resident_executables_have_choices_of_their_own(emulated: Lab) -> None:
    graph = branches()
    compiled = plan_graph(graph, device="hip", resident=True)
    works = distinct([compiled.program], model_of("hip"))
    profile = Profile("x", {w.key: Measured(1.0, choice=1) for w in works})
    device = HipDevice(mode="stream")
    with gx.compile(graph, device=device, costs=profile, resident=True) as exe:
        assert session_of(exe)._options.algorithms == profile.algorithms != {}
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


@pytest.mark.parametrize("call", ["hipGraphLaunch", "hipEventElapsedTime"])
def test_a_call_that_fails_stops_one_measurement(
    emulated: Lab, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the first commands fails; the others are measured and kept."""

    def then_fail(device: Device) -> dict[str, float]:
        found = measure_constants(device)
        emulated.emulator.fail(f"{call}:20=1")
        return found

    monkeypatch.setattr("graphexec.tools.tuning.tune.measure_constants", then_fail)
    HipDevice().describe()
    with emulated.nothing_left():
        found = tuned()
    assert len(found.failed) == 1
    assert not found.complete
    assert len(found.profile.commands) == found.commands - 1
    assert found.path is not None


# Kernels --------------------------------------------------------------------------------------

ROWS = {"short": 40, "one pass": 600, "long": 20_000, "odd": 1001}


def rows(length: int, masked: bool) -> gx.Graph:
    g = gx.Graph("rows")
    x = g.input("x", (3, length), "f16")
    more = {"mask": g.input("mask", (length,), "f16")} if masked else {}
    g.output(out=g.softmax(x, scale=0.5, **more))
    return g


def cast(shape: tuple[int, ...]) -> gx.Graph:
    g = gx.Graph("cast")
    x = g.input("x", shape, "f16")
    g.output(out=g.copy(x, slice={0: [1, shape[0]]}, dtype="f32"))
    return g


KERNELS = {f"softmax, {name}{', masked' if masked else ''}": rows(length, masked)
           for name, length in ROWS.items() for masked in (False, True)}  # fmt: skip
KERNELS |= {"copy": cast((5, 6, 16)), "copy of odd rows": cast((4, 33))}


def kernel_of(graph: gx.Graph) -> Command:
    (found,) = (c for c in plan_graph(graph, device="hip").program.commands
                if isinstance(c.work, Kernel))  # fmt: skip
    return found


@pytest.mark.parametrize("name", KERNELS)
def test_every_variant_computes_the_same(lab: Lab, name: str) -> None:
    graph = KERNELS[name]
    command = kernel_of(graph)
    made = variants(command)
    assert len({(k.block, k.defines) for k in made}) == len(made) >= 2
    assert command.work not in made
    for choice, kernel in enumerate(made, 1):
        profile = Profile("x", {signature(command): Measured(1.0, choice=choice)})
        with gx.compile(graph, device=HipDevice(), costs=profile) as exe:
            works = exe.bound.work.values()
            assert kernel.block in [w.block for w in works if isinstance(w, Kernel)]
            inputs = inputs_of(exe)
            outputs = exe.run(**inputs)
            assert_right(exe, inputs, outputs)
            assert bits(exe.run(**inputs)) == bits(outputs)


def test_variants_are_measured(emulated: Lab) -> None:
    graph = KERNELS["copy"]
    found = tune(graph, HipDevice(), seconds=600).profile.commands[signature(kernel_of(graph))]
    assert len(found.tried) == 1 + len(variants(kernel_of(graph)))


def test_a_variant_that_is_not_there_is_the_default() -> None:
    command = kernel_of(KERNELS["copy"])
    assert with_variant(command, 0) == with_variant(command, 99) == command
