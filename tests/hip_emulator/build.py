"""Builds the HIP emulator and prints the folder that holds its libraries.

The folder lies in ``$XDG_CACHE_HOME`` (or ``~/.cache``) under a hash of the sources and the
compiler's version, so an unchanged emulator is built once. Its layout is an installed ROCm's::

    <hash>/lib/libamdhip64.so      everything
    <hash>/lib/libhiprtc.so        empty libraries that need libamdhip64.so, so that all names
    <hash>/lib/libhipblas.so       share one state
    <hash>/lib/libhipblaslt.so
    <hash>/include/                what kernels may include

A process selects it with ``load()`` before it first calls hip-python, or is started with
``LD_LIBRARY_PATH=<hash>/lib`` or ``ROCM_PATH=<hash>``.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from graphexec.base.cache import Cache, CacheError, cache_folder

SOURCES = Path(__file__).resolve().parent
RUNTIME = "amdhip64"
FACADES = ("hiprtc", "hipblas", "hipblaslt", "rccl")
COMPILE_FLAGS = ("-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
COMMON_HEADER = "capture.h"
# The multiplication loops are what the tests spend their time in.
EXTRA_FLAGS = {"gemm.cpp": ("-O3",)}
# Names that kernels may include; the prelude has given them their contents already.
EMPTY_HEADERS = (
    "hip_runtime.h",
    "hip_fp16.h",
    "hip_bf16.h",
    "hip_bfloat16.h",
    "hip_vector_types.h",
)


class BuildError(Exception):
    """The emulator cannot be built; the message names what is missing or failed."""


def find_compiler() -> str:
    """The path of ``$CXX`` or of g++; BuildError without one."""
    wanted = os.environ.get("CXX", "g++")
    found = shutil.which(wanted)
    if found is None:
        raise BuildError(f"the HIP emulator needs a C++ compiler: {wanted} not found, install g++")
    return found


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    sys.stderr.write(done.stderr)
    return done.stdout


def _fingerprint(compiler: str) -> str:
    digest = hashlib.sha256(f"{compiler}\n{_run(compiler, '--version')}".encode())
    for path in sorted(SOURCES.rglob("*")):
        if path.suffix in {".cpp", ".h", ".py"}:
            digest.update(f"{path.relative_to(SOURCES)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _precompile(compiler: str, objects: Path) -> Path:
    """The header that most sources start from: parsing it again and again is half of the build."""
    header = objects / "precompiled.h"
    header.write_text(f'#include "{SOURCES / COMMON_HEADER}"\n')
    _run(compiler, *COMPILE_FLAGS, "-x", "c++-header", str(header), "-o", f"{header}.gch")
    return header


def _compile(compiler: str, source: Path, objects: Path, header: Path) -> str:
    target = objects / f"{source.stem}.o"
    flags = (*COMPILE_FLAGS, *EXTRA_FLAGS.get(source.name, ()), f'-DEMULATOR_CXX="{compiler}"')
    _run(compiler, *flags, "-include", str(header), "-c", str(source), "-o", str(target))
    return str(target)


def _link(compiler: str, folder: Path, name: str, *inputs: str) -> None:
    library = f"lib{name}.so"
    _run(
        compiler,
        "-shared",
        f"-Wl,-soname,{library}",
        "-Wl,-rpath,$ORIGIN",
        "-o",
        str(folder / library),
        *inputs,
    )


def _build_into(compiler: str, root: Path) -> None:
    objects, libraries, include = root / "objects", root / "lib", root / "include"
    for folder in (objects, libraries, include / "hip"):
        folder.mkdir(parents=True)
    header = _precompile(compiler, objects)
    sources = sorted(SOURCES.glob("*.cpp"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = list(pool.map(lambda path: _compile(compiler, path, objects, header), sources))
    _link(compiler, libraries, RUNTIME, *compiled, "-pthread", "-ldl")
    for name in FACADES:
        _link(compiler, libraries, name, "-Wl,--no-as-needed", f"-L{libraries}", f"-l{RUNTIME}")
    shutil.copy(SOURCES / "device" / "prelude.h", include)
    shutil.copy(SOURCES / "kernel_abi.h", include)
    for name in EMPTY_HEADERS:
        (include / "hip" / name).touch()
    shutil.rmtree(objects)


def build() -> Path:
    """The folder of the libraries, built if there is none for these sources yet."""
    compiler = find_compiler()
    try:
        finished = Cache(cache_folder("hip_emulator")).make() / _fingerprint(compiler)
    except CacheError as error:
        raise BuildError(str(error)) from error
    if not finished.exists():
        with finished.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # tests in several processes need it at once
            if not finished.exists():
                _build_finished(compiler, finished)
    return finished / "lib"


def _build_finished(compiler: str, finished: Path) -> None:
    working = Path(tempfile.mkdtemp(dir=finished.parent, prefix="building-"))
    try:
        _build_into(compiler, working)
        working.rename(finished)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def load() -> ctypes.CDLL:
    """Makes the emulator this process's HIP; the library with the ``emulator…`` functions.

    Must come before the first call through hip-python. Where a real ROCm lies in ``/opt/rocm``
    hip-python asks for it by its path; ``ROCM_PATH`` then points it here.
    """
    folder = build()
    os.environ["ROCM_PATH"] = str(folder.parent)
    runtime = ctypes.CDLL(str(folder / f"lib{RUNTIME}.so"), mode=ctypes.RTLD_GLOBAL)
    for name in FACADES:
        ctypes.CDLL(str(folder / f"lib{name}.so"), mode=ctypes.RTLD_GLOBAL)
    return runtime


def main() -> int:
    """Builds and prints the folder as the last line."""
    try:
        print(build())
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
