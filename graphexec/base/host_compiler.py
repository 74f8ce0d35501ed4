"""The system's C compiler, and a cache of the shared libraries it makes for this CPU.

A library is an entry of the cache in `cache_folder("host")`, named by a hash of all that its code
depends on: source, flags, the compiler and the CPU. Loading a damaged one could end the process.
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from graphexec.base.atomic_file import scratch_folder
from graphexec.base.cache import Cache, CacheError, cache_folder, fingerprint

# Compilers for ARM and POWER take the name of a CPU, others the name of an architecture.
NATIVE = "-mcpu=native" if platform.machine()[:3] in ("aar", "arm", "ppc") else "-march=native"
"""The flag for all instructions of this CPU."""

CPUINFO = Path("/proc/cpuinfo")
_TOLD = ("vendor", "model", "flags", "features", "cpu implementer", "cpu part", "isa")

TIMEOUT = 60.0  # seconds that a compiler may take

T = TypeVar("T")


class HostCompilerError(Exception):
    """There is no C compiler, or it or its output cannot be used; the message has the reason."""


def find_compiler() -> tuple[str, ...]:
    """The C compiler's command: `$CC` if set, else cc or gcc. HostCompilerError without one."""
    told = os.environ.get("CC", "")
    try:
        wanted = shlex.split(told)
    except ValueError as error:
        raise HostCompilerError(f"$CC is no command: {told}: {error}") from error
    if wanted:
        if shutil.which(wanted[0]) is None:
            raise HostCompilerError(f"the C compiler named by $CC, {wanted[0]}, was not found")
        return tuple(wanted)
    for name in ("cc", "gcc"):
        if shutil.which(name):
            return (name,)
    raise HostCompilerError("no C compiler was found (cc or gcc; $CC names another)")


def run_compiler(command: Sequence[str]) -> str:
    """The output of the command; HostCompilerError with its messages if it fails.

    After TIMEOUT the command and its children are killed.
    """
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            encoding="utf-8", errors="replace", process_group=0,
        ) as process:  # fmt: skip
            try:
                printed, complaints = process.communicate(timeout=TIMEOUT)
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
    except OSError as error:
        raise HostCompilerError(f"{command[0]} could not be run: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise HostCompilerError(f"{shlex.join(command)} took more than {TIMEOUT:g} s") from error
    if process.returncode != 0:
        raise HostCompilerError(f"{shlex.join(command)} failed:\n{complaints.strip()}")
    return printed


def load_library(source: Path, flags: Sequence[str], use: Callable[[ctypes.CDLL], T]) -> T:
    """`use` of the library made of a C source for this CPU.

    One from the cache that cannot be loaded, or lacks a function that `use` looks up, is compiled
    anew once. Raises HostCompilerError.
    """
    try:
        return _use(shared_library(source, flags), use)
    except (OSError, AttributeError):
        pass
    try:
        return _use(shared_library(source, flags, anew=True), use)
    except (OSError, AttributeError) as error:
        raise HostCompilerError(f"what the C compiler made is of no use: {error}") from error


def shared_library(source: Path, flags: Sequence[str], anew: bool = False) -> Path:
    """The library made of a C source for this CPU; compiled if it is not in the cache, undamaged.

    Raises HostCompilerError, also where others than the user may write to the cache.
    """
    compiler, flags = find_compiler(), (*flags, "-shared", "-fPIC")
    try:
        version = _version(compiler, _identity(compiler[0]))
        key = fingerprint(*_read(source), *compiler, *flags, version, _cpu())
        return Cache(cache_folder("host")).keep(
            f"{source.stem}-{key[:16]}.so",
            lambda: compile_library([*compiler, *flags, str(source)], "-lm"),
            anew,
        )
    except (CacheError, OSError) as error:
        raise HostCompilerError(str(error)) from error


def compile_library(command: Sequence[str], *linked: str) -> bytes:
    """The output file of a compiler's command, linked with libraries. Raises HostCompilerError."""
    try:
        with scratch_folder() as folder:
            target = folder / "library.so"
            run_compiler([*command, "-o", str(target), *linked])
            return target.read_bytes()
    except OSError as error:
        raise HostCompilerError(f"what {command[0]} made cannot be read: {error}") from error


def _use(library: Path, use: Callable[[ctypes.CDLL], T]) -> T:
    code = ctypes.CDLL(str(library))  # its functions release the GIL
    try:
        return use(code)
    except AttributeError:
        _ctypes.dlclose(code._handle)  # else the next library of this name would be this one
        raise


def _read(source: Path) -> list[bytes]:
    """A C source, and the files that it includes from where it lies."""
    text = source.read_bytes()
    included = re.findall(rb'^#include "(.+)"', text, re.MULTILINE)
    return [text, *(part for name in included for part in _read(source.parent / name.decode()))]


@cache
def _version(compiler: tuple[str, ...], identity: tuple[str, int]) -> str:
    """What the compiler says that it is, asked once for each file."""
    return run_compiler([*compiler, "--version"])


def _identity(name: str) -> tuple[str, int]:
    """The file that is run, and when it was written."""
    path = os.path.realpath(shutil.which(name) or name)
    return path, os.stat(path).st_mtime_ns


def _cpu() -> str:
    """The model and features of this CPU: other CPUs may lack some of its instructions."""
    try:
        lines = CPUINFO.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    described = {platform.machine(), platform.processor()}
    described |= {line for line in lines if line.lower().startswith(_TOLD)}
    return "\n".join(sorted(described))
