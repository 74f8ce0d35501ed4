"""Tuning finds the constants of a device that behaves like the simulator."""

from __future__ import annotations

import pytest
from modelled import FORK, LAUNCH, START, WAIT, ModelledDevice, run_of, small_gemms

import graphexec as gx
from graphexec.planning.pipeline import alternative_plans
from graphexec.planning.profile import Profile, schedule_key
from graphexec.tools.tuning.constants import measure_constants
from graphexec.tools.tuning.tune import tune

DEVICE = ModelledDevice(truth=small_gemms)


def branches(count: int = 5) -> gx.Graph:
    g = gx.Graph("branches")
    for h in range(count):
        q, k, v = (g.input(f"{name}{h}", (8, 8), "f32") for name in "qkv")
        probs = g.softmax(g.gemm(q, k, trans_b=True, name=f"s{h}"), name=f"p{h}")
        g.output(**{f"out{h}": g.gemm(v, probs, name=f"o{h}")})
    return g


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHEXEC_PROFILES", str(tmp_path_factory.mktemp("profiles")))
        return tune(branches(), DEVICE, seconds=600).profile


def test_the_constants_are_found() -> None:
    found = measure_constants(DEVICE)
    true = {"start": START, "launch": LAUNCH, "wait": WAIT, "fork": FORK}
    assert found == pytest.approx(true, abs=2e-3)


def test_times_and_shares_are_found(tuned: Profile) -> None:
    gemms = [m for key, m in tuned.commands.items() if key.startswith("gemm: f32[8,8] ")]
    rows = [m for key, m in tuned.commands.items() if key.startswith("softmax")]
    assert gemms
    assert rows
    for measured in gemms:
        assert measured.us == pytest.approx(3.0, abs=0.02)
        assert measured.share == pytest.approx(0.4, rel=0.05)
    for measured in rows:
        assert measured.us == pytest.approx(1.5, abs=0.02)
        assert measured.share == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("off", [(), ("batch",)])
@pytest.mark.parametrize("streams", [1, 2, 4])
def test_predictions_come_true(tuned: Profile, streams: int, off: tuple[str, ...]) -> None:
    plans = alternative_plans(
        branches(), 4, streams=streams, device="cpu", resident=True, costs=tuned, no_rewrite=off
    )
    for compiled in plans:
        assert compiled.plan.stats is not None
        predicted = (compiled.plan.stats.predicted_ns or 0) / 1e3
        assert predicted == pytest.approx(run_of(compiled.bound, small_gemms), rel=0.05)


def test_the_fastest_plan_is_taken(tuned: Profile) -> None:
    for resident in (False, True):
        found = tuned.schedules[schedule_key(4, resident)]
        fastest = min(found.tried.values())
        assert found.tried[found.best] <= fastest / 0.99
