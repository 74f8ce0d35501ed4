"""AMD's own compiler takes every kernel for a data-centre and a desktop GPU."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from kernel_cases import kernels

from graphexec.ir.program import Kernel
from graphexec.runtime.hip.kernel_cache import OPTIONS
from graphexec.runtime.hip.kernel_source import self_contained

ARCHITECTURES = ("gfx90a", "gfx1030")  # wavefronts of 64 and of 32
# Several kernels a compilation: parsing HIP's headers takes longer than compiling a kernel.
BATCH = 14
_ALL = list(kernels().items())
BATCHES = {i: _ALL[i : i + BATCH] for i in range(0, len(_ALL), BATCH)}


@pytest.fixture(scope="module")
def compilations(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Future[str]]:
    """What the compiler says of each batch; all are started at once."""
    hipcc = shutil.which("hipcc")
    if hipcc is None:
        pytest.skip("needs AMD's compiler: apt-get install hipcc libamdhip64-dev")
    folder = tmp_path_factory.mktemp("hipcc")
    pool = ThreadPoolExecutor(os.cpu_count())
    return {number: pool.submit(compile_batch, hipcc, number, folder) for number in BATCHES}


def compile_batch(hipcc: str, number: int, folder: Path) -> str:
    source, code = folder / f"{number}.hip", folder / f"{number}.code"
    # hiprtc includes this by itself.
    parts = ["#include <hip/hip_runtime.h>\n"]
    parts += [apart(name, kernel) for name, kernel in BATCHES[number]]
    source.write_text("".join(parts))
    targets = [f"--offload-arch={architecture}" for architecture in ARCHITECTURES]
    quiet = ["-Wall", "-Wno-unused-command-line-argument", "-Wno-unused-function"]
    command = [hipcc, "--genco", *targets, *OPTIONS, *quiet, str(source), "-o", str(code)]
    # Where there is an nvcc as well, hipcc would ask that one. Other tests in this process may
    # have set ROCM_PATH to the emulator.
    environment = os.environ | {"HIP_PLATFORM": "amd"}
    environment.pop("ROCM_PATH", None)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert code.stat().st_size > 0
    return done.stdout + done.stderr


def apart(name: str, kernel: Kernel) -> str:
    """The kernel's source such that another one's may stand in the same file."""
    label = re.sub(r"\W", "_", name)
    text = self_contained(kernel).replace('#line 1 "', f'#line 1 "{label}/')
    macros = set(re.findall(r"^ *#define (\w+)", text, re.MULTILINE))
    undone = "".join(f"#undef {macro}\n" for macro in sorted(macros))
    entry = f"#define {kernel.entry} {kernel.entry}_{label}\n"
    return f"{entry}namespace {label} {{\n{text}}}\n{undone}#undef {kernel.entry}\n"


@pytest.mark.parametrize("number", BATCHES)
def test_hipcc_compiles(compilations: dict[int, Future[str]], number: int) -> None:
    assert compilations[number].result() == ""
