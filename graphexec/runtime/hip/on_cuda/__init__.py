"""The HIP libraries on top of CUDA: found, built once with the system's C compiler, cached.

The C sources beside this file (start with `hip.c`) export the functions of `libamdhip64.so`,
`libhiprtc.so`, `libhipblas.so` and `libhipblaslt.so` that graphexec calls and forward them to
CUDA. `build()` compiles them against whatever CUDA is on the machine and returns their folder.
Where NVTX's headers are found there is a `libroctx64.so` too, which --markers uses.

Needs a C compiler and CUDA 12 or newer: a toolkit, NVIDIA's pip packages, or both together.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from graphexec.base.cache import Cache, CacheError, cache_folder, fingerprint
from graphexec.base.host_compiler import (
    HostCompilerError,
    compile_library,
    find_compiler,
    run_compiler,
)

SOURCES = Path(__file__).parent
OLDEST_CUDA = 12

# Per library: its source, and the CUDA libraries it forwards to.
LIBRARIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "libamdhip64.so": ("hip.c", ("libcudart",)),
    "libhiprtc.so": ("hiprtc.c", ("libnvrtc", "libcudart")),
    "libhipblas.so": ("hipblas.c", ("libcublas",)),
    "libhipblaslt.so": ("hipblaslt.c", ("libcublasLt",)),
}
MARKERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "libroctx64.so": ("roctx.c", ())
}  # where there is NVTX
NVTX = "nvtx3/nvToolsExt.h"

# Per header: NVIDIA's package on PyPI that contains it, without the suffix of the version.
HEADERS = {
    "cuda.h": "nvidia-cuda-runtime",
    "cuda_runtime_api.h": "nvidia-cuda-runtime",
    "crt/host_defines.h": "nvidia-cuda-crt",
    "cublas_v2.h": "nvidia-cublas",
    "cublasLt.h": "nvidia-cublas",
    "nvrtc.h": "nvidia-cuda-nvrtc",
    "nv/target": "nvidia-cuda-cccl",
}
CUDA_LIBRARIES = ("libcudart", "libcublas", "libcublasLt", "libnvrtc")
LOCAL = Path("/usr/local")
SYSTEM_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
)
FLAGS = ("-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")


class HipOnCudaError(Exception):
    """The libraries cannot be built; the message names the missing part or the failure."""


@dataclass(frozen=True)
class CudaToolkit:
    """The parts of CUDA to build against and run with; they may come from several places."""

    major: int  # of both headers and libraries
    include_dirs: tuple[Path, ...]
    libcudart: Path
    libcublas: Path
    libcublasLt: Path
    libnvrtc: Path
    libcuda: Path | None  # the driver; None without one, which does not prevent building
    nvtx: Path | None = None  # the folder with its headers


@dataclass(frozen=True)
class _Place:
    """One installation, or part of one, that may hold headers and libraries."""

    include_dirs: tuple[Path, ...]
    library_dirs: tuple[Path, ...]


def find_cuda() -> CudaToolkit:
    """The first CUDA, newest major version of the first place, whose pieces are all present.

    It searches `$CUDA_HOME`, `$CUDA_PATH`, `/usr/local/cuda*`, beside `nvcc` on the PATH, and
    NVIDIA's pip packages of this interpreter. A header missing in one place may come from another
    of the same major version.

    Raises HipOnCudaError naming the missing headers and libraries.
    """
    places = list(_places())
    majors = _majors(places)
    if not majors:
        searched = ", ".join(str(d) for place in places for d in place.include_dirs)
        raise HipOnCudaError(
            f"no CUDA {OLDEST_CUDA} or newer was found (cuda.h; searched: {searched or 'nothing'});"
            " install a CUDA toolkit or set CUDA_HOME"
        )
    complaints = []
    for major in majors:
        try:
            return _toolkit(major, places)
        except HipOnCudaError as error:
            complaints.append(str(error))
    raise HipOnCudaError("; ".join(complaints))


def build(cache: Path | None = None) -> Path:
    """Compile the libraries, unless they are in the cache, undamaged, and return their folder.

    cache -- where finished builds are kept; `$XDG_CACHE_HOME/graphexec/hip_on_cuda` or
    `~/.cache/graphexec/hip_on_cuda` if not given. One folder a build, named by a hash of all it
    depends on.

    Raises HipOnCudaError, also where others than the user may write to the folders.
    """
    toolkit = find_cuda()
    try:
        compiler = find_compiler()
        whole = Cache(cache_folder("hip_on_cuda") if cache is None else cache)
        libraries = Cache(whole.make() / _fingerprint(toolkit, compiler))
        for name in (*LIBRARIES, *(MARKERS if toolkit.nvtx else ())):
            libraries.keep(name, partial(_compile, compiler, toolkit, name))
    except (HostCompilerError, CacheError) as error:
        raise HipOnCudaError(str(error)) from error
    return libraries.folder


def _places() -> Iterator[_Place]:
    roots = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    roots += [LOCAL / "cuda", *sorted(LOCAL.glob("cuda-*"), key=_version_key, reverse=True)]
    nvcc = shutil.which("nvcc")
    if nvcc:
        roots.append(Path(nvcc).resolve().parent.parent)
    for root in dict.fromkeys(root.resolve() for root in roots):
        yield _Place(
            tuple(_existing(root / "include", *sorted(root.glob("targets/*/include")))),
            tuple(_existing(root / "lib64", root / "lib", *sorted(root.glob("targets/*/lib")))),
        )
    for entry in dict.fromkeys(sys.path):
        packages = sorted(Path(entry).glob("nvidia/*"), key=_version_key, reverse=True)
        yield _Place(
            tuple(_existing(*(package / "include" for package in packages))),
            tuple(_existing(*(package / "lib" for package in packages))),
        )


def _version_key(path: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", path.name))


def _existing(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        if folder.is_dir():
            yield folder
            yield from (d for d in (folder / "cccl",) if d.is_dir())  # nv/target since CUDA 13


def _majors(places: list[_Place]) -> list[int]:
    """The major versions that have a cuda.h, in the order of the places."""
    found = {_header_major(d): None for place in places for d in place.include_dirs}
    return [major for major in found if major is not None and major >= OLDEST_CUDA]


def _header_major(include_dir: Path) -> int | None:
    """The CUDA major version of a folder's headers; None if the headers do not state it."""
    for header, pattern, scale in (
        ("cuda.h", r"#define CUDA_VERSION (\d+)", 1000),
        ("cublas_api.h", r"#define CUBLAS_VER_MAJOR (\d+)", 1),
    ):
        try:
            text = (include_dir / header).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        match = re.search(pattern, text)
        if match:
            return int(match[1]) // scale
    return None


def _toolkit(major: int, places: list[_Place]) -> CudaToolkit:
    folders = [
        folder
        for place in places
        for folder in place.include_dirs
        if _header_major(folder) in (major, None)
    ]
    include_dirs, missing = [], []
    for header, package in HEADERS.items():
        holder = next((d for d in folders if (d / header).is_file()), None)
        if holder is None:
            suffix = "-cu12" if major == 12 else ""  # CUDA 13's packages have none
            missing.append(f"the header {header} (pip install {package}{suffix})")
        elif holder not in include_dirs:
            include_dirs.append(holder)
    libraries = {}
    for name in CUDA_LIBRARIES:
        path = _library(f"{name}.so.{major}", places)
        if path is None:
            missing.append(f"{name}.so.{major}")
        else:
            libraries[name] = path
    if missing:
        raise HipOnCudaError(f"CUDA {major} lacks " + ", ".join(missing))
    nvtx = next((d for d in folders if (d / NVTX).is_file()), None)
    return CudaToolkit(major, tuple(include_dirs), libcuda=_driver(), nvtx=nvtx, **libraries)


def _library(name: str, places: list[_Place]) -> Path | None:
    folders = [d for place in places for d in place.library_dirs]
    folders += [Path(d) for d in SYSTEM_FOLDERS]
    return next((d / name for d in folders if (d / name).is_file()), None)


def _driver() -> Path | None:
    candidates = (Path(d) / "libcuda.so.1" for d in SYSTEM_FOLDERS)
    return next((path for path in candidates if path.is_file()), None)


def _fingerprint(toolkit: CudaToolkit, compiler: tuple[str, ...]) -> str:
    """What a build depends on: the sources, the commands in this module, compiler and CUDA."""
    sources = (*sorted(SOURCES.glob("*.[ch]")), Path(__file__))
    texts = [part for source in sources for part in (source.name, source.read_bytes())]
    return fingerprint(*texts, run_compiler([*compiler, "--version"]), repr(toolkit))[:16]


def _compile(compiler: tuple[str, ...], toolkit: CudaToolkit, library: str) -> bytes:
    source, names = {**LIBRARIES, **MARKERS}[library]
    linked = [getattr(toolkit, name) for name in names]
    if "libnvrtc" in names:  # NVRTC opens its builtins by bare name, found only if already loaded
        builtins = f"libnvrtc-builtins.so.{toolkit.major}.*"
        linked += sorted(toolkit.libnvrtc.parent.glob(builtins))[:1]
    run_paths = dict.fromkeys(path.parent for path in (*linked, toolkit.libcuda) if path)
    folders = dict.fromkeys((*toolkit.include_dirs, toolkit.nvtx))
    includes = [f"-I{folder}" for folder in folders if folder]
    quoted = ", ".join(f'"{include}"' for include in includes)
    return compile_library(
        [
            *compiler,
            *FLAGS,
            *includes,
            f"-DCUDA_INCLUDE_OPTIONS={quoted}",
            str(SOURCES / source),
            f"-Wl,-soname,{library}",
            *("-Wl,--no-as-needed", *map(str, linked), "-Wl,--as-needed"),
            *("-ldl", "-lpthread"),
            *(f"-Wl,-rpath,{path}" for path in run_paths),
        ]
    )
