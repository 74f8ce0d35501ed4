"""Files that are there whole or not at all: written beside their place, then renamed into it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import DataError

Writer = Callable[[BinaryIO], object]

_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_unfinished: set[Path] = set()


def write_files(files: Mapping[Path, Writer]) -> None:
    """Write all of `files` and then put each in its place; on any failure none is left behind.

    Existing files are replaced, unless they are write-protected. Raises DataError when one cannot
    be written.
    """
    # A symbolic link stays a link: what it points to is replaced. Devices and pipes are written to.
    places = {path.resolve(): write for path, write in files.items() if not _is_special(path)}
    partial = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in places}
    try:
        for path in places:
            _check_protection(path)
        for path, write in places.items():
            _unfinished.add(partial[path])
            with partial[path].open("wb") as stream:
                write(stream)
        for path in files:
            if _is_special(path):
                with path.open("wb") as stream:
                    files[path](stream)
        for path in places:
            os.replace(partial[path], path)
    except OSError as exc:
        raise _unwritable(path, exc) from exc
    finally:
        _discard(partial.values())


def write_text(path: Path, text: str) -> None:
    """Write one file of UTF-8 text, as `write_files` does."""
    write_files({path: lambda stream: stream.write(text.encode(errors="replace"))})


def check_file(path: Path) -> None:
    """Raise DataError unless a file could be put at `path` now; leaves nothing there."""
    if _is_special(path):
        return
    place = path.resolve()
    probe = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
        _check_protection(place)
        probe.touch()
        probe.unlink()
    except OSError as exc:
        raise _unwritable(path, exc) from exc


def discard_unfinished() -> None:
    """Remove all files that are being written: for a process about to be ended."""
    _discard(list(_unfinished))


def _check_protection(path: Path) -> None:
    """Raise PermissionError for a file that its owner has protected: to replace a file, one only
    needs to be allowed to write into its folder, and root is allowed everything."""
    if path.exists() and not (os.access(path, os.W_OK) and path.stat().st_mode & _WRITABLE):
        raise PermissionError(errno.EACCES, "it is write-protected")


def _is_special(path: Path) -> bool:
    """Whether something is there that is neither a file nor a folder: /dev/null, a pipe."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _discard(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
        _unfinished.discard(path)


def _unwritable(path: Path, exc: OSError) -> DataError:
    reason = exc.strerror or str(exc)
    help = ""
    if not path.parent.exists():
        help = f"the folder '{path.parent}' does not exist"
    return DataError([Diagnostic(f"cannot write '{path}': {reason}", help=help)])


__all__ = ["check_file", "discard_unfinished", "write_files", "write_text"]
