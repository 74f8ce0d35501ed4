"""Atomic writing of files: a temporary file in the same folder is renamed to its place.

Of several files all are replaced or none. Temporary files have unpredictable names and are created
exclusively, so that a planted file or link is never written to.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import DataError

Writer = Callable[[BinaryIO], object]

_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_unfinished: dict[Path, Callable[[Path], object]] = {}  # files to remove, and how
_renaming = threading.Lock()


def write_files(
    files: Mapping[Path, Writer], folder: Path | None = None, mode: int = 0o666
) -> None:
    """Write all of `files` and then put each in its place; on any failure nothing has changed.

    Existing files are replaced, unless they are write-protected. A symbolic link stays a link:
    what it points to is replaced. Devices and pipes are written to. `folder` is made if it is not
    there. `mode` is that of the files, less the umask. Raises DataError when one cannot be written.
    """
    with _folder(folder):
        targets = {path: _target(path) for path in files}
        regular = [target for target in targets.values() if target is not None]
        try:
            for target in regular:
                with _errors_of(target.path):
                    target.write(files[target.path], mode)
            for path in files:
                if targets[path] is None:
                    with _errors_of(path), path.open("wb") as stream:
                        files[path](stream)
            with _renaming:
                _replace(regular)
        finally:
            for target in regular:
                _discard(target.new, target.old)


def text_writer(text: str) -> Writer:
    """A function that writes a text, in UTF-8."""
    return lambda stream: stream.write(text.encode(errors="replace"))


def write_private(path: Path, data: bytes) -> None:
    """Write one file that only its user may read; a link at `path` is replaced itself.

    Raises OSError.
    """
    target = _Target(path, path)
    try:
        target.write(lambda stream: stream.write(data), 0o600)
        os.replace(target.new, path)
    finally:
        _discard(target.new)


def check_file(path: Path) -> None:
    """Raise DataError unless a file could be written at `path` now; writes nothing."""
    if (target := _target(path)) is not None:
        with _errors_of(path):
            check_folder(target.place.parent)


def check_folder(folder: Path) -> None:
    """Raise OSError unless a file can be made in `folder` now; leaves no file."""
    probe = _Target(folder, folder / "file")
    try:
        probe.write(lambda stream: None)
    finally:
        _discard(probe.new)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that only its user may access; it is removed afterwards with its content."""
    folder = Path(tempfile.gettempdir(), f"graphexec-{token_hex(8)}")
    _unfinished[folder] = shutil.rmtree
    try:
        folder.mkdir(0o700)
        yield folder
    finally:
        _discard(folder)


def discard_unfinished() -> None:
    """Remove what is being written: for a process about to be ended, from any of its threads."""
    # Renaming is short, and to end in its middle would leave some files old and others new.
    _renaming.acquire(timeout=2)
    _discard(*reversed(list(_unfinished)))  # what is in a folder goes before it


class _Target:
    """A file to be put at `place`; messages call it `path`."""

    def __init__(self, path: Path, place: Path) -> None:
        self.path, self.place, self.is_new = path, place, not os.path.lexists(place)
        self.new, self.old = (place.with_name(f".{token_hex(8)}.part") for _ in range(2))

    def write(self, write: Writer, mode: int = 0o666) -> None:
        """Write the new file beside the place."""
        _unfinished[self.new] = os.unlink
        with os.fdopen(os.open(self.new, _NEW, mode), "wb") as stream:
            write(stream)

    def keep(self) -> None:
        """Give the file that is at the place a second name."""
        _unfinished[self.old] = os.unlink
        try:
            os.link(self.place, self.old)
        except OSError:  # the file system may have no links
            os.rename(self.place, self.old)

    def restore(self) -> None:
        """Undo a replacement, or one that has not happened."""
        if self.is_new:
            self.place.unlink(missing_ok=True)
        elif os.path.lexists(self.old):
            os.replace(self.old, self.place)


def _replace(targets: Sequence[_Target]) -> None:
    """Put each file in its place, or leave every place as it was."""
    try:
        for target in targets:
            if len(targets) > 1 and not target.is_new:
                with _errors_of(target.path):
                    target.keep()
        for target in targets:
            with _errors_of(target.path):
                os.replace(target.new, target.place)
    except BaseException:
        for target in targets:
            target.restore()
        raise


@contextmanager
def _folder(folder: Path | None) -> Iterator[None]:
    """A folder that is there, and is removed after a failure if it was not before."""
    if folder is None or os.path.isdir(folder):
        yield
        return
    _unfinished[folder] = os.rmdir
    try:
        with _errors_of(folder):
            folder.mkdir()
        yield
    except BaseException:
        _discard(folder)
        raise
    _unfinished.pop(folder)


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turn what writing a file may raise into a DataError that names it."""
    try:
        yield
    except OSError as exc:
        there = not isinstance(exc, FileNotFoundError) or os.path.exists(path.parent)
        help = "" if there else f"the folder '{path.parent}' does not exist"
        message = f"cannot write '{path}': {exc.strerror or exc}"
        raise DataError([Diagnostic(message, help=help)]) from exc


def _target(path: Path) -> _Target | None:
    """Where a file for `path` is put, its links followed; None for a device or a pipe.

    Raises DataError where none can be put.
    """
    with _errors_of(path):
        try:
            place = Path(os.path.realpath(path))
        except ValueError as exc:  # a null character
            raise OSError(errno.EINVAL, str(exc)) from exc
        if place.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
        if path.is_file():
            _check_protection(place)
        elif path.exists():
            return None
        return _Target(path, place)


def _check_protection(path: Path) -> None:
    """Raise PermissionError for a file that its owner has protected: to replace a file, one only
    needs to be allowed to write into its folder, and root is allowed everything."""
    if not (os.access(path, os.W_OK) and path.stat().st_mode & _WRITABLE):
        raise PermissionError(errno.EACCES, "it is write-protected")


def _discard(*paths: Path) -> None:
    for path in paths:
        if (remove := _unfinished.pop(path, None)) is not None:
            with suppress(OSError):
                remove(path)
