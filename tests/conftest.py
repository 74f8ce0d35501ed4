"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

GOLDEN = Path(__file__).parent / "golden"

# The machine may be busy with something else: time is no property of an example.
# CI tries the same examples every time: what fails there is the change. Elsewhere they differ.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)  # fmt: skip
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the files in golden/")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI, where everything is installed, a skipped test is an error."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("GRAPHEXEC_NO_SKIPS"):
        reporter.write_line(f"{len(skipped)} tests skipped, but GRAPHEXEC_NO_SKIPS is set")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


# Tests that load a HIP runtime into this process: the emulator, or what the variable names.
_ON_HIP = (
    "runtime/",
    "pitfalls/",
    "test_hip_emulator.py",
    "tools/test_selftest.py",
)


@pytest.fixture(autouse=True)
def _no_gpu_by_accident(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any
) -> None:
    """Other processes load no runtime: one that has opened AMD's cannot run the emulator."""
    where = request.path.relative_to(Path(__file__).parent).as_posix()
    if not where.startswith(_ON_HIP):
        empty = tmp_path_factory.getbasetemp() / "no-hip"
        empty.mkdir(exist_ok=True)
        monkeypatch.setenv("GRAPHEXEC_HIP_LIBRARY_PATH", str(empty))


@pytest.fixture(autouse=True)
def _no_profiles_by_accident(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any) -> None:
    """Profiles of this machine must not change the tests."""
    monkeypatch.setenv("GRAPHEXEC_PROFILES", str(tmp_path_factory.getbasetemp() / "no-profiles"))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)` compares text to tests/golden/name, or rewrites that file."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        text = text.rstrip("\n") + "\n"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"no {path}: run pytest --update-golden"
        assert text == path.read_text(encoding="utf-8")

    return check
