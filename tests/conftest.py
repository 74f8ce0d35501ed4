"""What all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# References are many small products, for which OpenBLAS's threads wait for one another a hundred
# times as long as they compute where other processes want the cores. Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

GOLDEN = Path(__file__).parent / "golden"

# The machine may be busy with something else: time is no property of an example.
# CI tries the same examples every time: what fails there is the change. Elsewhere they differ.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)  # fmt: skip
settings.load_profile("patient")

# A shell starts jobs in the background with Ctrl-C ignored, which programs would inherit: the tests
# that interrupt them could not.
signal.signal(signal.SIGINT, signal.default_int_handler)


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


# What `make test-fast` leaves out because it takes long, compiles, installs or opens a browser.
_SLOW = {
    "cli/test_process.py",
    "cli/test_ranks_cli.py",
    "cli/test_tune.py::test_a_terminal_sees_a_bar_and_a_pipe_does_not",
    "cli/test_tune.py::test_ctrl_c_leaves_nothing_half_written",
    "docs/test_docs.py",
    "frontend/test_schema.py::test_random_edits",
    "fuzz/test_fuzz.py",
    "graph/test_all_rewrites.py",
    "graph/test_fuse_attention.py::test_any_pattern",
    "ops/test_attention_compiled.py",
    "ops/test_attention_numbers.py",
    "ops/test_attention_on_cpu.py",
    "ops/test_attention_triton.py",
    "ops/test_gemm.py::test_any_call",
    "planning/test_allocation.py::test_both_allocators_keep_conflicting_items_apart",
    "planning/test_batch.py::test_any_graph_with_biases",
    "planning/test_batch.py::test_numbers_with_biases",
    "planning/test_fuse_epilogue.py::test_what_is_fused_is_supported",
    "planning/test_growth.py",
    "planning/test_limits.py::test_any_dag_costs_and_streams_give_a_proved_plan",
    "planning/test_limits.py::test_any_dag_costs_streams_and_limit_give_a_proved_plan_that_fits",
    "proof/test_verify_oracle.py",
    "runtime/ranks/test_ranks.py",
    "runtime/test_hip_ranks.py",
    "test_graphs.py::test_a_layer_of_a_decoder_of_any_size",
    "test_graphs.py::test_a_layer_of_a_mixer_of_any_size",
    "test_graphs.py::test_masks_of_any_size",
    "test_language_model.py::test_the_tokens_of_the_trained_model",
    "test_minilm.py::test_a_random_model_has_its_size_and_says_what_it_is",
    "test_minilm.py::test_the_reference_is_the_model",
    "test_minilm.py::test_twenty_sentences_by_the_trained_model",
    "test_packaging.py",
    "test_properties.py",
    "test_reproducible.py",
    "tools/test_benchmark.py",
    "tools/test_comparison_of_elements.py::test_right_results_are_not_blamed",
    "tools/test_comparison_of_elements.py::test_right_results_of_any_graph_are_not_blamed",
    "tools/test_selftest.py::test_everything_is_right_on_the_cpu",
    "tools/test_tuning.py",
    "views/test_page.py",
    "views/test_perfetto.py",
}


def pytest_configure() -> None:
    for entry in sorted(_SLOW):
        file, _, test = entry.partition("::")
        path = Path(__file__).parent / file
        if not path.is_file() or f"def {test}" not in path.read_text(encoding="utf-8"):
            raise pytest.UsageError(f"_SLOW in {__file__} names {entry}, which is not there")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The markers `slow`, and `hip` for files called test_hip… and for pitfalls/."""
    for item in items:
        file = item.path.relative_to(Path(__file__).parent).as_posix()
        if item.path.name.startswith("test_hip") or file.startswith("pitfalls/"):
            item.add_marker("hip")
        if file in _SLOW or f"{file}::{item.name.split('[')[0]}" in _SLOW:
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def _no_gpu_by_accident(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any
) -> None:
    """Without the marker no runtime is loaded: a process that has opened AMD's cannot run the
    emulator."""
    if request.node.get_closest_marker("hip") is None:
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
