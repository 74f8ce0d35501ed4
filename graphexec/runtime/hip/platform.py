"""Which HIP runtime to use: the user's, the system's ROCm, or the one on top of CUDA.

hip-python accepts any `libamdhip64.so`. This module finds one that reports a device, without
hip-python, and gives the reasons if there is none.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from graphexec.base.errors import DeviceUnavailable
from graphexec.runtime.hip.on_cuda import HipOnCudaError, build

LIBRARY_PATH_VARIABLE = "GRAPHEXEC_HIP_LIBRARY_PATH"
RUNTIME = "libamdhip64.so"
LIBRARIES = (RUNTIME, "libhiprtc.so", "libhipblas.so", "libhipblaslt.so", "librccl.so")


@dataclass(frozen=True)
class Source:
    """A HIP runtime that reports at least one device.

    `folder` holds the libraries hip-python must open; None leaves that to hip-python's own search,
    which finds the same `runtime`.
    """

    folder: Path | None
    runtime: ctypes.CDLL
    devices: int

    @property
    def is_emulator(self) -> bool:
        """Whether the runtime is the emulator of graphexec's tests."""
        return hasattr(self.runtime, "emulatorSetSeed")

    @property
    def path(self) -> str:
        """The path of the loaded runtime."""
        return _path_of(self.runtime)


@dataclass(frozen=True)
class Platform:
    """The implementation of the HIP functions, in words.

    `name` is "HIP on AMD", "HIP over CUDA", "HIP emulator" or "HIP (custom library)"; `flavour` is
    the package the bindings were imported from.
    """

    name: str
    runtime_path: str
    runtime_version: str
    devices: int
    hip_python_version: str
    flavour: str


def platform_name(source: Source, architecture: str) -> str:
    """The platform's name, by the runtime's symbols and the name of its first device."""
    if source.is_emulator:
        return "HIP emulator"
    if architecture.startswith("gfx"):
        return "HIP on AMD"
    if architecture.startswith("sm_"):
        return "HIP over CUDA"
    return "HIP (custom library)"


def version_text(version: int) -> str:
    """The version as text. HIP: 10000000 * major + 100000 * minor + patch; CUDA: 1000 * major +
    10 * minor."""
    if version >= 10_000_000:
        return f"{version // 10_000_000}.{version // 100_000 % 100}.{version % 100_000}"
    return f"{version // 1000}.{version % 1000 // 10}"


class Unusable(Exception):
    """A candidate is not usable, for the reason in the message. Does not leave `choose`."""


def choose(default_runtime: str) -> Source:
    """The HIP runtime to use, its libraries loaded into the process.

    default_runtime -- the library that hip-python opens by default, a path or a bare name.

    In this order: the folder `$GRAPHEXEC_HIP_LIBRARY_PATH` (nothing else if it is set), ROCm where
    hip-python finds it, ROCm in `$ROCM_PATH` or /opt/rocm, CUDA if there is an NVIDIA driver.

    Raises DeviceUnavailable with a sentence for each that was tried.
    """
    wanted = os.environ.get(LIBRARY_PATH_VARIABLE)
    if wanted:
        try:
            return _from_folder(Path(wanted))
        except Unusable as error:
            raise DeviceUnavailable(f"{LIBRARY_PATH_VARIABLE}={wanted}: {error}") from error
    reasons = []
    try:
        return _opened(None, default_runtime)
    except Unusable as error:
        reasons.append(str(error))
    for folder in _rocm_folders():
        try:
            return _from_folder(folder)
        except Unusable as error:
            reasons.append(str(error))
    try:
        return on_cuda()
    except Unusable as error:
        reasons.append(str(error))
    raise DeviceUnavailable("no usable GPU: " + "; ".join(reasons))


def _rocm_folders() -> Iterator[Path]:
    roots = (os.environ.get("ROCM_PATH"), "/opt/rocm")
    for folder in dict.fromkeys(Path(root) / "lib" for root in roots if root):
        if os.path.isfile(folder / RUNTIME):
            yield folder


def on_cuda() -> Source:
    """HIP over CUDA, built if need be. Raises Unusable."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise Unusable("there is no NVIDIA driver (libcuda.so.1)") from None
    try:
        return _from_folder(build())
    except HipOnCudaError as error:
        raise Unusable(f"HIP over CUDA cannot be built: {error}") from error


def _from_folder(folder: Path) -> Source:
    """The runtime in a folder; also loads the other libraries there."""
    runtime = folder.absolute() / RUNTIME
    if not os.path.isfile(runtime):
        raise Unusable(f"{folder} holds no {RUNTIME}")
    source = _opened(runtime.parent, str(runtime), ctypes.RTLD_GLOBAL)
    for name in LIBRARIES[1:]:
        if os.path.isfile(runtime.parent / name):
            _load(str(runtime.parent / name), ctypes.RTLD_GLOBAL)
    return source


def _opened(folder: Path | None, name: str, mode: int = ctypes.DEFAULT_MODE) -> Source:
    runtime = _load(name, mode)
    count = ctypes.c_int(0)
    try:
        code = runtime.hipGetDeviceCount(ctypes.byref(count))
    except AttributeError:
        raise Unusable(f"{_path_of(runtime, name)} is no HIP runtime") from None
    if code != 0 or count.value < 1:
        raise Unusable(f"{_path_of(runtime, name)} reports no device{_error_name(runtime, code)}")
    return Source(folder, runtime, count.value)


def _load(name: str, mode: int) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name, mode=mode)
    except OSError as error:
        raise Unusable(f"{name} cannot be loaded ({error})") from error


def _error_name(runtime: ctypes.CDLL, code: int) -> str:
    if code == 0:
        return ""
    runtime.hipGetErrorName.restype = ctypes.c_char_p
    name = runtime.hipGetErrorName(code) or b"unknown error"
    return f" ({name.decode()}, {code})"


class _DlInfo(ctypes.Structure):
    _fields_ = (
        ("file_name", ctypes.c_char_p),
        ("base_address", ctypes.c_void_p),
        ("symbol_name", ctypes.c_char_p),
        ("symbol_address", ctypes.c_void_p),
    )


def _path_of(library: ctypes.CDLL, fallback: str = "unknown") -> str:
    """The file of a loaded HIP runtime, according to the dynamic loader."""
    info = _DlInfo()
    try:
        address = ctypes.cast(library.hipGetDeviceCount, ctypes.c_void_p)
        found = ctypes.CDLL(None).dladdr(address, ctypes.byref(info))
    except AttributeError:
        return fallback
    return os.fsdecode(info.file_name) if found and info.file_name else fallback
