"""The system's C compiler: found, and shared libraries that it made for this very CPU, cached.

A library is kept in `cache_folder("host")`, named by a hash of all that its code depends on:
source, flags, the compiler and the CPU. It appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from graphexec.cache_folder import cache_folder

# Compilers for ARM and POWER take the name of a CPU, others that of an architecture.
NATIVE = "-mcpu=native" if platform.machine()[:3] in ("aar", "arm", "ppc") else "-march=native"
"""The flag for all instructions of this CPU."""

CPUINFO = Path("/proc/cpuinfo")
_TOLD = ("vendor", "model", "flags", "features", "cpu implementer", "cpu part", "isa")


class HostCompilerError(Exception):
    """There is no C compiler, or it failed; the message says which."""


def find_compiler() -> tuple[str, ...]:
    """The C compiler's command: `$CC` if set, else cc or gcc. HostCompilerError without one."""
    wanted = shlex.split(os.environ.get("CC", ""))
    if wanted:
        if shutil.which(wanted[0]) is None:
            raise HostCompilerError(f"the C compiler named by $CC, {wanted[0]}, was not found")
        return tuple(wanted)
    for name in ("cc", "gcc"):
        if shutil.which(name):
            return (name,)
    raise HostCompilerError("no C compiler was found (cc or gcc; $CC names another)")


def run_compiler(command: Sequence[str]) -> str:
    """What the command prints; HostCompilerError with what it complains about if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise HostCompilerError(f"{command[0]} could not be run: {error}") from error
    if done.returncode != 0:
        raise HostCompilerError(f"{shlex.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout


def shared_library(source: Path, flags: Sequence[str]) -> Path:
    """The library made of a C source for this CPU; compiled if it is not in the cache.

    Raises HostCompilerError.
    """
    compiler, folder = find_compiler(), cache_folder("host")
    if folder is None:
        raise HostCompilerError("there is no folder to build in: set XDG_CACHE_HOME")
    flags = (*flags, "-shared", "-fPIC")
    try:
        parts = (source.read_text("utf-8"), *compiler, *flags,
                 run_compiler([*compiler, "--version"]), _cpu())  # fmt: skip
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
        library = folder / f"{source.stem}-{key}.so"
        if not library.is_file():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".building-") as scratch:
                partial = Path(scratch) / library.name
                run_compiler([*compiler, *flags, str(source), "-o", str(partial), "-lm"])
                os.replace(partial, library)
    except OSError as error:
        raise HostCompilerError(f"the cache folder {folder} cannot be used: {error}") from error
    return library


def _cpu() -> str:
    """What tells this CPU from others, which may lack instructions of it: model and features."""
    try:
        lines = CPUINFO.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    described = {platform.machine(), platform.processor()}
    described |= {line for line in lines if line.lower().startswith(_TOLD)}
    return "\n".join(sorted(described))


__all__ = ["NATIVE", "HostCompilerError", "find_compiler", "run_compiler", "shared_library"]
