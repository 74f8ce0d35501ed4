"""The one module that imports hip-python, and only when `load` is called.

Works with hip-python 7.2 (`hip.*`) and 10 (`rocm.bindings.*`). `load` picks the platform, makes
hip-python open that platform's libraries, and returns a `Bindings` object that hides the
differences of the versions. Other modules import everything from here.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from graphexec.base.errors import DeviceUnavailable
from graphexec.runtime.hip.blas import BlasGemm
from graphexec.runtime.hip.blaslt import BlasLt, LtGemm
from graphexec.runtime.hip.calls import Bindings, DeviceProperties, Modules, PointerInfo
from graphexec.runtime.hip.platform import LIBRARIES, RUNTIME, Platform, choose
from graphexec.runtime.hip.status import HipError, HipOutOfMemory
from graphexec.runtime.process import Process

__all__ = [
    "Bindings",
    "BlasGemm",
    "BlasLt",
    "DeviceProperties",
    "HipError",
    "HipOutOfMemory",
    "LtGemm",
    "Platform",
    "PointerInfo",
    "load",
]

# 7.2 keeps the name of each library in a variable of the module that opens it.
LIBRARY_MODULES = {
    "libamdhip64.so": "hip.chip",
    "libhiprtc.so": "hip.chiprtc",
    "libhipblas.so": "hip.chipblas",
    "librccl.so": "hip.crccl",
}


def load() -> Bindings:
    """The bindings to the HIP runtime of this machine, chosen once a process.

    Raises DeviceUnavailable if hip-python is not installed or no HIP runtime reports a device, and
    in a fork of a process that has called it: a HIP runtime does not survive a fork.
    """
    process, bindings = _loaded()
    if not process.here:
        raise DeviceUnavailable(
            "the GPU was in use in the process that this is a fork of: start processes by 'spawn' "
            "(multiprocessing.get_context('spawn'))"
        )
    return bindings


@functools.cache
def _loaded() -> tuple[Process, Bindings]:
    modules = _import_hip_python()
    source = choose(_default_runtime(modules.flavour))
    if source.folder is not None:
        _open_from(source.folder, modules.flavour)
    return Process(), Bindings(modules, source)


def _import_hip_python() -> Modules:
    for flavour, types in (
        ("rocm.bindings", "rocm.bindings.util.types"),
        ("hip", "hip._util.types"),
    ):
        try:
            hip = importlib.import_module(f"{flavour}.hip")
        except ImportError:
            continue
        return Modules(
            flavour=flavour,
            version=importlib.metadata.version("hip-python"),
            hip=hip,
            hiprtc=_required(f"{flavour}.hiprtc"),
            hipblas=_required(f"{flavour}.hipblas"),
            hipblaslt=_optional(f"{flavour}.hipblaslt"),
            rccl=_optional(f"{flavour}.rccl"),
            types=_required(types),
            helpers=_required(f"{flavour}._hip_helpers"),
        )
    raise DeviceUnavailable("hip-python is not installed: pip install 'hip-python[libraries]'")


def _required(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DeviceUnavailable(
            f"hip-python is not complete ({error}): pip install 'hip-python[libraries]'"
        ) from error


def _optional(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _default_runtime(flavour: str) -> str:
    """The libraries that hip-python opens by default."""
    if flavour == "hip":
        return RUNTIME
    return os.fsdecode(_paths().get_library_path("amdhip64"))


def _paths() -> Any:
    return importlib.import_module("rocm.bindings.util.paths")


def _open_from(folder: Path, flavour: str) -> None:
    """Make hip-python open its libraries in a folder. It does so at its first call, not before.

    Loading a library of the same soname beforehand is not enough: hip-python opens a path if it
    finds ROCm's wheels, and ROCm's sonames have a version.
    """
    if flavour == "hip":
        for library, module in LIBRARY_MODULES.items():
            opener: Any = _optional(module)  # RCCL's bindings are a package of their own
            if opener is not None:
                opener.DLL = os.fsencode(folder / library)
        return
    search = _paths().get_library_path

    def get_library_path(short_name: str, *rest: Any, **options: Any) -> bytes:
        library = f"lib{short_name}.so"
        if library in LIBRARIES:
            return os.fsencode(folder / library)
        found: bytes = search(short_name, *rest, **options)
        return found

    _paths().get_library_path = get_library_path
