"""Measuring on the CPU: what is measured, in which order, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graph_files import FILES

import graphexec as gx
from graphexec.base.errors import DeviceUnavailable, ExecutionError
from graphexec.base.tensor import DType
from graphexec.ir.plan import Launch, Wait
from graphexec.ir.program import Gemm
from graphexec.machine.costs import CONSTANTS, Measured, model_of, signature
from graphexec.planning.pipeline import plan_graph, plan_program
from graphexec.planning.profile import load, schedule_key
from graphexec.runtime.device import Device
from graphexec.tools.tuning import tune as tuning
from graphexec.tools.tuning.commands import CommandTimes, Work, distinct
from graphexec.tools.tuning.constants import measure_constants
from graphexec.tools.tuning.measuring import Loaded
from graphexec.tools.tuning.probes import Probe, diamonds, launches, repeated

CPU = gx.CpuDevice()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHEXEC_PROFILES", str(tmp_path / "profiles"))
    return tmp_path / "profiles"


def branches(dtype: str = "f32") -> gx.Graph:
    g = gx.Graph("branches", dims={"N": 16})
    x = g.input("x", ("N", "N"), dtype)
    left, right = g.gemm(x, x, name="left"), g.gemm(x, x, trans_a=True, name="right")
    joined = g.gemm(left, right, c=x, beta=0.5, name="join")
    g.output(out=g.softmax(joined, name="soft"))
    return g


def works(graph: gx.Graph) -> list[Work]:
    programs = [plan_graph(graph, resident=r).program for r in (False, True)]
    return distinct(programs, model_of("cpu"))


# Probes ---------------------------------------------------------------------------------------


def proved(probe: Probe) -> list[Launch]:
    count = len(probe.program.commands)
    plan = plan_program(probe.program, range(count), probe.stream, "cpu").plan
    return [i for i in plan.instructions if isinstance(i, Launch)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_command_can_be_repeated_alone_and_beside_itself(path: Path) -> None:
    for work in works(gx.load(path)):
        for streams in (1, 3):
            probe = repeated(work.command, work.program, 4, streams)
            added = isinstance(work.command.work, Gemm) and work.command.work.beta != 0
            assert len(probe.before) == added
            turn = 4 + added
            found = proved(probe)
            assert [i.stream for i in found] == [s for s in range(streams) for _ in range(turn)]
            for number, command in enumerate(probe.program.commands):
                if number % turn >= added:
                    assert signature(command) == work.key
            written = {(i.writes[-1].buffer, i.writes[-1].low) for i in found}
            assert len(written) == streams


def test_a_repeated_command_computes_what_the_command_computes() -> None:
    (work,) = (
        w for w in works(branches())
        if w.command.node == "join" and isinstance(w.command.work, Gemm)
    )  # fmt: skip
    probe = repeated(work.command, work.program, 1)
    view = probe.program.commands[-1].writes[-1]
    with Loaded(probe, CPU) as loaded:
        first, second = (loaded.result(view).view(np.float32).reshape(16, 16) for _ in range(2))
    assert view.dtype is DType.F32
    assert (first == second).all()
    assert np.isfinite(first).all()
    assert first.any()


def test_forks_and_joins_wait_twice_each() -> None:
    probe = diamonds(5)
    plan = plan_program(probe.program, range(15), probe.stream, "cpu").plan
    waits = [i for i in plan.instructions if isinstance(i, Wait) and i.role == "dependency"]
    assert len(waits) == 5 + 4
    assert len(proved(launches(7))) == 7


def test_constants_are_those_of_a_cost_model() -> None:
    found = measure_constants(CPU)
    assert set(found) == set(CONSTANTS)
    assert all(0 <= time < 1e6 for time in found.values())


# Commands -------------------------------------------------------------------------------------


def test_each_signature_once_and_the_dearest_first() -> None:
    found = works(branches())
    assert len({w.key for w in found}) == len(found) == 7  # 3 GEMMs, c, softmax, in, out
    assert [w.microseconds for w in found] == sorted((w.microseconds for w in found), reverse=True)


def test_a_command_that_cannot_be_run_has_no_time() -> None:
    class Full(gx.CpuDevice):
        def open(self, plan, weights, sibling=None, states=None):
            raise ExecutionError("no room")

    times = CommandTimes(Full(), model_of("cpu"))
    work = works(branches())[0]
    assert times.alone(work) is None
    assert times.beside_others(work, Measured(5.0)) == Measured(5.0)


def test_shares_are_between_one_stream_and_all() -> None:
    times = CommandTimes(CPU, replace(model_of("cpu"), start=0.0, launch=0.0, wait=0.0))
    for work in works(branches()):
        found = times.beside_others(work, Measured(50.0))
        if work.key.startswith(("memcpy h2d", "memcpy d2h")):
            assert found.share is None
        else:
            assert 1 / 8 <= found.share <= 1
        assert times.beside_others(work, Measured(1e6)).share is None


# All of it ------------------------------------------------------------------------------------


def test_everything_is_measured_kept_and_used() -> None:
    seen = []
    tuned = tuning.tune(
        branches(), CPU, seconds=600, report=lambda what, done, total: seen.append((done, total))
    )
    assert tuned.complete
    assert tuned.failed == ()
    assert tuned.profile.commands.keys() == {w.key for w in works(branches())}
    assert tuned.profile.constants.keys() == set(CONSTANTS)
    assert set(tuned.profile.schedules) == {schedule_key(4, r) for r in (False, True)}
    for measured in tuned.profile.schedules.values():
        assert "one stream" in measured.tried
        assert measured.tried[measured.best] <= min(measured.tried.values()) / 0.99
        assert 2 <= len(measured.tried) <= tuning.PLANS + 1
    assert [done for done, _ in seen] == list(range(seen[0][1]))
    assert load(tuned.path) == tuned.profile
    for resident in (False, True):
        with gx.compile(branches(), device=CPU, resident=resident) as exe:
            assert exe.plan.stats.costs == f"profile {tuned.path.name}"
            best = tuned.profile.schedules[schedule_key(4, resident)].best
            assert exe.plan.stats.schedule == best


@pytest.mark.parametrize(("tried", "best"), [
    ({"one stream": 10.0, "heft": 9.95}, "one stream"),
    ({"one stream": 10.0, "heft": 9.8, "greedy": 9.8}, "greedy"),
    ({"heft": 9.0, "greedy": 8.0}, "greedy"),
])  # fmt: skip
def test_several_streams_must_be_clearly_faster(tried: dict[str, float], best: str) -> None:
    assert tuning._fastest(tried) == best


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f64"])
def test_dtypes(dtype: str) -> None:
    assert tuning.tune(branches(dtype), CPU, seconds=600).complete


def test_no_time_measures_nothing_and_keeps_nothing(folder: Path) -> None:
    tuned = tuning.tune(branches(), CPU, seconds=0)
    assert tuned.path is None
    assert not tuned.profile.commands
    assert not tuned.complete
    assert not folder.exists()


@pytest.mark.parametrize("after", [2, 4, 8, 14])
def test_when_the_time_is_over_what_is_known_is_kept(
    monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """A clock that advances only when something is measured."""
    now = iter(range(1000))
    monkeypatch.setattr(tuning.Budget, "left", lambda self, part=1.0: next(now) < after)
    tuned = tuning.tune(branches(), CPU)
    assert not tuned.complete
    assert len(tuned.profile.commands) == min(after - 1, 7)
    assert load(tuned.path) == tuned.profile
    with gx.compile(branches(), device=CPU) as exe:
        assert exe.plan.stats.costs == f"profile {tuned.path.name}"


def test_a_place_that_cannot_be_written_is_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRAPHEXEC_PROFILES", str(tmp_path / "file" / "profiles"))
    measured: list[str] = []
    with pytest.raises(gx.DataError, match="cannot make the folder"):
        tuning.tune(branches(), CPU, report=lambda what, done, total: measured.append(what))
    assert measured == []


def test_an_interruption_leaves_nothing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    calls: Iterator[int] = iter(range(100))

    def interrupted(self: CommandTimes, work: Work) -> Measured:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return Measured(1.0)

    monkeypatch.setattr(CommandTimes, "alone", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tuning.tune(branches(), CPU)
    assert not folder.exists()


def test_what_cannot_be_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = CommandTimes.alone
    monkeypatch.setattr(CommandTimes, "alone", lambda self, work: None
                        if work.key.startswith("softmax") else real(self, work))  # fmt: skip
    tuned = tuning.tune(branches(), CPU, seconds=600)
    assert [what.split()[0] for what in tuned.failed] == ["softmax"]
    assert len(tuned.profile.commands) == 6
    assert not tuned.complete


def test_a_device_that_does_not_measure_is_refused(folder: Path) -> None:
    class Mute:
        name = "cpu"

        def __getattr__(self, name: str) -> object:
            return getattr(CPU, name)

        def open(self, bound, weights, sibling=None, states=None) -> object:
            session = CPU.open(bound, weights)

            class Untimed:
                put, close = session.put, session.close

                def time_run(self) -> float:
                    raise DeviceUnavailable("this device does not measure what it runs")

            return Untimed()

    device: Device = Mute()
    with pytest.raises(DeviceUnavailable, match="does not measure"):
        tuning.tune(branches(), device)
    assert not folder.exists()


# Batches --------------------------------------------------------------------------------------


def alike(size: int) -> gx.Graph:
    """Branches of GEMM and softmax that become batches."""
    g = gx.Graph("alike")
    for i in range(4):
        x, w = g.input(f"x{i}", (size, size), "f32"), g.input(f"w{i}", (size, size), "f32")
        g.output(**{f"y{i}": g.softmax(g.gemm(x, w, name=f"xw{i}"), name=f"p{i}")})
    return g


@pytest.mark.parametrize(("size", "kinds"), [(8, {"Gemm", "Kernel"}), (7, {"Gemm"})])
def test_batches_are_repeated_as_they_are(size: int, kinds: set[str]) -> None:
    """Also with unwritten gaps between their members."""
    program = plan_graph(alike(size), device="hip").program
    batches = [w for w in distinct([program], model_of("hip")) if w.command.nodes]
    assert {type(w.command.work).__name__ for w in batches} == kinds
    for work in batches:
        probe = repeated(work.command, work.program, 3, 2)
        proved(probe)
        assert {signature(c) for c in probe.program.commands} == {work.key}
        assert len({v.storage for c in probe.program.commands for v in c.writes}) == 2


def test_batches_and_their_members_are_measured() -> None:
    found = tuning.tune(alike(7), CPU, seconds=600)
    assert found.complete
    assert "gemm: f32[7,7] f32[7,7] -> f32[7,7]" in found.profile.commands
    for resident in (False, True):  # also what is a batch by the measured times alone
        program = plan_graph(alike(7), costs=found.profile, resident=resident).program
        assert {signature(c) for c in program.commands} <= found.profile.commands.keys()
    with gx.compile(alike(7), device=CPU) as exe:
        inputs = {name: np.eye(7, dtype=np.float32) for name in exe.inputs}
        assert len({a.tobytes() for a in exe.run(**inputs).values()}) == 1
