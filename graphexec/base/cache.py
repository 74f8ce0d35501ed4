"""The cache on disk: a folder for each kind of entry under the user's cache directory.

An entry is a file, named by a hash of all that it depends on, and written atomically. Its payload
is followed by a seal, which loaders of libraries ignore: the size and a checksum of the name and
the payload. Entries are code, so files and folders that another user owns or others may write to
are not read. Such an entry is made again, like a damaged one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from graphexec.base.atomic_file import write_private
from graphexec.base.reading import open_file, read_stream

_MAGIC = b"graphexec entry 1\n"
_SEAL = struct.Struct(f"<Q32s{len(_MAGIC)}s")  # bytes of the payload, checksum, magic
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class CacheError(Exception):
    """A folder cannot be used for a cache, for the reason in the message."""


class UntrustedFolder(CacheError):
    """The folder belongs to another user, or others may write to it."""


class CacheWarning(UserWarning):
    """An entry, or its folder, is not used."""


def cache_folder(kind: str) -> Path | None:
    """`$XDG_CACHE_HOME/graphexec/<kind>`, or that under `~/.cache`; None for a user without a home.

    https://specifications.freedesktop.org/basedir-spec: a relative path is ignored.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        try:
            base = str(Path.home() / ".cache")
        except RuntimeError:
            return None
    return Path(base) / "graphexec" / kind


def fingerprint(*parts: str | bytes) -> str:
    """The name of an entry: a hash of the parts and their lengths, in 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode(errors="surrogateescape")
        digest.update(struct.pack("<Q", len(data)) + data)
    return digest.hexdigest()


def read_private(path: Path) -> bytes:
    """The bytes of a file, if the user owns it and alone may write to it. Raises OSError."""
    with open_file(path) as stream:
        if reason := _distrust(os.fstat(stream.fileno())):
            raise PermissionError(errno.EPERM, reason)
        return read_stream(stream)


class Cache:
    """The entries in one folder; the first write makes the folder."""

    def __init__(self, folder: Path | None) -> None:
        if folder is None:
            raise CacheError("the user has no home to keep a cache in: set XDG_CACHE_HOME")
        self.folder = folder

    def check(self) -> None:
        """Raise CacheError if the folder exists and may not be used."""
        try:
            reason = _distrust(self.folder.stat())
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from error
        if reason:
            advice = f"{reason} (chmod go-w {self.folder})" if "write" in reason else reason
            raise UntrustedFolder(f"the cache folder {self.folder} is not used: {advice}")

    def make(self) -> Path:
        """The folder, made if needed. Raises CacheError."""
        try:
            self.folder.mkdir(0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error
        self.check()
        return self.folder

    def read(self, name: str) -> bytes | None:
        """The payload of an entry; None unless it exists, is undamaged, and only the user may
        write to it.

        Raises CacheError if the folder may not be used.
        """
        self.check()
        try:
            data = read_private(self.folder / name)
        except OSError:
            return None
        payload = data[: -_SEAL.size]
        return payload if data[-_SEAL.size :] == _seal(name, payload) else None

    def write(self, name: str, payload: bytes) -> Path:
        """Write an entry; returns its path. Raises CacheError."""
        path = self.make() / name
        try:
            write_private(path, payload + _seal(name, payload))
        except OSError as error:
            raise self._unusable(error) from error
        return path

    def keep(self, name: str, make: Callable[[], bytes], anew: bool = False) -> Path:
        """The path of an undamaged entry. `make` gives the payload if there is none or if `anew`.

        Raises CacheError.
        """
        if anew or self.read(name) is None:
            return self.write(name, make())
        return self.folder / name

    def _unusable(self, error: OSError) -> CacheError:
        return CacheError(f"the cache folder {self.folder} cannot be used: {error}")


def _distrust(found: os.stat_result) -> str:
    """Why a file or folder may not be used; empty if it may."""
    if found.st_uid != os.geteuid():
        return "it belongs to another user"
    return "others may write to it" if found.st_mode & _OTHERS_WRITE else ""


def _seal(name: str, payload: bytes) -> bytes:
    checksum = hashlib.sha256(name.encode() + b"\0" + payload).digest()
    return _SEAL.pack(len(payload), checksum, _MAGIC)
