"""AMD's own runtime on a machine without an AMD GPU: what users without a driver see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("graphexec")
GRAPH = ROOT / "graphs" / "attention.yaml"
PLACES = ("/usr/lib/x86_64-linux-gnu", "/opt/rocm/lib", "/usr/lib64")


@pytest.fixture
def amd_runtime(tmp_path: Path) -> Path:
    """A folder with AMD's libamdhip64.so, in which no GPU will be found."""
    if os.path.exists("/dev/kfd"):
        pytest.skip("has an AMD GPU")
    found = [path for place in PLACES for path in sorted(Path(place).glob("libamdhip64.so*"))]
    if not found:
        pytest.skip("needs AMD's HIP runtime: apt-get install libamdhip64-dev")
    (tmp_path / "libamdhip64.so").symlink_to(found[0].resolve())
    return tmp_path


def run(*arguments: object, runtime: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "GRAPHEXEC_HIP_LIBRARY_PATH": str(runtime)},
    )  # fmt: skip


@pytest.mark.parametrize("command", ["run", "compare"])
def test_hip_is_exit_code_3_and_says_why(amd_runtime: Path, command: str) -> None:
    done = run(command, GRAPH, "--device", "hip", runtime=amd_runtime)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: GRAPHEXEC_HIP_LIBRARY_PATH={amd_runtime}: ")
    assert "reports no device (hipErrorNoDevice, 100)" in done.stderr
    assert "Traceback" not in done.stderr


def test_auto_falls_back_to_the_cpu(amd_runtime: Path) -> None:
    done = run("run", GRAPH, runtime=amd_runtime)
    assert done.returncode == 0
    assert "warning: running on the CPU: " in done.stderr
    assert "hipErrorNoDevice" in done.stderr
    assert "attention ran on cpu" in done.stdout


def test_info_says_why(amd_runtime: Path) -> None:
    done = run("info", runtime=amd_runtime)
    assert done.returncode == 0
    assert "hip   not usable" in done.stdout
    assert "hipErrorNoDevice" in done.stdout


def test_selftest_is_exit_code_3(amd_runtime: Path) -> None:
    assert run("selftest", "--device", "hip", runtime=amd_runtime).returncode == 3


def test_without_being_told_where_it_is() -> None:
    """As a user has it: hip-python finds AMD's runtime, or none, by itself."""
    if os.path.exists("/dev/kfd") or os.path.exists("/dev/nvidiactl"):
        pytest.skip("has a GPU")
    told = ("GRAPHEXEC_", "ROCM_PATH", "LD_LIBRARY_PATH")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(told)}
    done = subprocess.run([PROGRAM, "run", GRAPH, "--device", "hip"], capture_output=True,
                          text=True, env=environment, check=False)  # fmt: skip
    assert done.returncode == 3
    assert done.stderr.startswith("error: no usable GPU: ")
