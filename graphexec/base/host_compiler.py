"""The system's C compiler: found, and shared libraries that it made for this very CPU, cached.

A library is kept in `cache_folder("host")`, named by a hash of all that its code depends on:
source, flags, the compiler and the CPU. It appears whole or not at all, and ends with its checksum:
to load a damaged one would end the process. One that others may have written is not loaded.
"""

from __future__ import annotations

import _ctypes
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from graphexec.base.cache_folder import cache_folder

# Compilers for ARM and POWER take the name of a CPU, others that of an architecture.
NATIVE = "-mcpu=native" if platform.machine()[:3] in ("aar", "arm", "ppc") else "-march=native"
"""The flag for all instructions of this CPU."""

CPUINFO = Path("/proc/cpuinfo")
_TOLD = ("vendor", "model", "flags", "features", "cpu implementer", "cpu part", "isa")

TIMEOUT = 60.0  # seconds that a compiler may take

# Behind a library, where loaders do not look: checksum and size of what is before, and the magic.
_MAGIC = b"graphexec library\n"
_TRAILER = struct.Struct(f"<32sQ{len(_MAGIC)}s")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

T = TypeVar("T")


class HostCompilerError(Exception):
    """There is no C compiler, or it or what it made cannot be used; the message says why."""


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
    """What the command prints; HostCompilerError with what it complains about if it fails.

    What it writes is for its user alone. After TIMEOUT it is ended with all that it has started.
    """
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            encoding="utf-8", errors="replace", umask=0o077, process_group=0,
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

    Raises HostCompilerError, also where others than the user may have written the library.
    """
    compiler, folder = find_compiler(), cache_folder("host")
    if folder is None:
        raise HostCompilerError("there is no folder to build in: set XDG_CACHE_HOME")
    flags = (*flags, "-shared", "-fPIC")
    try:
        parts = (source.read_text("utf-8"), *compiler, *flags,
                 run_compiler([*compiler, "--version"]), _cpu())  # fmt: skip
        key = hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]
        library = folder / f"{source.stem}-{key}.so"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_owner(folder)
        if anew or not library.exists() or not is_sound(library):
            with tempfile.TemporaryDirectory(dir=folder, prefix=".building-") as scratch:
                partial = Path(scratch) / library.name
                run_compiler([*compiler, *flags, str(source), "-o", str(partial), "-lm"])
                seal(partial)
                os.replace(partial, library)
    except OSError as error:
        raise HostCompilerError(f"the cache folder {folder} cannot be used: {error}") from error
    return library


def seal(library: Path) -> None:
    """Write the checksum behind a library, and all of it to the disk. Raises OSError."""
    code = library.read_bytes()
    with library.open("ab") as stream:
        stream.write(_TRAILER.pack(hashlib.sha256(code).digest(), len(code), _MAGIC))
        stream.flush()
        os.fsync(stream.fileno())


def is_sound(library: Path) -> bool:
    """Whether a library is as it was when it was sealed. OSError if it cannot be read.

    Raises HostCompilerError where others may have written it.
    """
    check_owner(library)
    data = library.read_bytes()
    code, trailer = data[: -_TRAILER.size], data[-_TRAILER.size :]
    return trailer == _TRAILER.pack(hashlib.sha256(code).digest(), len(code), _MAGIC)


def check_owner(path: Path) -> None:
    """Raise HostCompilerError unless the user owns the file or folder and alone may write to it."""
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise HostCompilerError(f"{path} is not loaded from: it belongs to another user")
    if found.st_mode & _OTHERS_WRITE:
        raise HostCompilerError(
            f"{path} is not loaded from: others may write to it (chmod -R go-w {path})"
        )


def _use(library: Path, use: Callable[[ctypes.CDLL], T]) -> T:
    code = ctypes.CDLL(str(library))  # whose functions give the interpreter's lock away
    try:
        return use(code)
    except AttributeError:
        _ctypes.dlclose(code._handle)  # else the next one of this name would be this one
        raise


def _cpu() -> str:
    """What tells this CPU from others, which may lack instructions of it: model and features."""
    try:
        lines = CPUINFO.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    described = {platform.machine(), platform.processor()}
    described |= {line for line in lines if line.lower().startswith(_TOLD)}
    return "\n".join(sorted(described))


__all__ = [
    "NATIVE",
    "HostCompilerError",
    "check_owner",
    "find_compiler",
    "is_sound",
    "load_library",
    "run_compiler",
    "seal",
    "shared_library",
]
