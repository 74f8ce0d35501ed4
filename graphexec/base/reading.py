"""Reading files of users: regular files only, of bounded size.

To open a pipe is to wait for its writer, and a device may have no end: neither is read.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import GraphError

MAX_BYTES = 512 << 20
"""Of a file that is read whole, unless its reader says otherwise."""

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # which waits for no writer
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def open_file(path: str | Path) -> BinaryIO:
    """A regular file, opened for reading.

    Raises OSError, also for what is no regular file and for what cannot be a path.
    """
    try:
        handle = os.open(path, _FLAGS)
    except ValueError as exc:  # a null character
        raise OSError(errno.EINVAL, str(exc)) from exc
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            kind = _KINDS.get(stat.S_IFMT(mode), "a device")
            raise OSError(errno.EINVAL, f"it is {kind}, not a file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_file(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file that has at most `limit`. Raises OSError."""
    with open_file(path) as stream:
        return read_stream(stream, limit)


def read_stream(stream: BinaryIO, limit: int = MAX_BYTES) -> bytes:
    """The bytes of an open file that has at most `limit`. Raises OSError."""
    data = stream.read(limit + 1) or b""
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit >> 20} MiB")
    return data


def read_text(path: str | Path, what: str = "") -> str:
    """The text of a regular file in UTF-8, without a byte order mark; messages call it `what`.

    Raises GraphError where there is none, or more than MAX_BYTES.
    """
    try:
        return read_file(path).decode("utf-8-sig")
    except OSError as exc:
        message = f"cannot read {what}'{path}': {exc.strerror or exc}"
        raise GraphError([Diagnostic(message)]) from exc
    except ValueError as exc:
        raise GraphError([Diagnostic(f"'{path}' is not UTF-8 text: {exc}")]) from exc
