"""Where weight files may be: inside the graph's folder, or inside another one that is allowed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from graphexec.base.reading import open_file


class WeightError(Exception):
    """A weight cannot be read; `field` is the YAML key that is wrong."""

    def __init__(self, message: str, field: str = "file", help: str = "") -> None:
        super().__init__(message)
        self.field, self.help = field, help


class FileError(WeightError):
    """No weight can be read from the file; said once of a file that many weights share."""


class OutsideError(FileError):
    """A weight's file lies outside the folder that weights may be in; said once of a graph."""


def located(folder: Path, root: Path | None, file: str) -> Path:
    """The path of a weights file, whose folder is without links; `root` defaults to `folder`.

    Its name is as given also if it is a link: its ending says what it is, and in the cache of a
    hub, where the files of models are links, those that they lead to have no ending.
    FileError where it leads outside of `root`, or to no file that may be read.
    """
    given = folder / file
    try:
        path = given.resolve()
    except (OSError, ValueError, RuntimeError) as exc:
        raise FileError(f"weights file {file!r} cannot be looked up: {exc}") from exc
    allowed = (root or folder).resolve()
    if not path.is_relative_to(allowed):
        link = _link(folder, file)
        raise OutsideError(
            f"weights file '{file}' {link}lies outside '{allowed}'",
            help="keep weights beside the YAML file, or allow another folder with --weights-root",
        )
    _check_readable(path, file, folder)
    return given.parent.resolve() / given.name


def _link(folder: Path, file: str) -> str:
    """Which part of the path of a weight is a link, in words; "" if none is."""
    path = folder
    for part in Path(file).parts:
        path /= part
        with suppress(OSError):
            if path.is_symlink():
                what = "" if path == folder / file else f"is in '{path}', which "
                return f"{what}is a link to '{os.readlink(path)}' and "
    return ""


def _check_readable(path: Path, file: str, folder: Path) -> None:
    """Raise FileError unless `path` is a regular file that may be read."""
    try:
        open_file(path).close()
    except (FileNotFoundError, NotADirectoryError) as exc:
        text = f"there is no weights file '{file}' in '{folder.resolve()}'"
        raise FileError(text) from exc
    except OSError as exc:
        raise FileError(f"cannot read the weights file '{file}': {exc.strerror}") from exc
