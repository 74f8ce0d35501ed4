"""Read untrusted .npy and .npz files into a tensor of a known type.

The header has a bounded length and is checked before the body is read, so reading takes no more
memory than the tensor. It is a Python literal of a fixed form, which is matched and not evaluated:
a literal of any form takes a parser's memory and raises what a parser raises. Pickled objects are
refused.
"""

from __future__ import annotations

import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from graphexec.base.diagnostics import Diagnostic, did_you_mean
from graphexec.base.reading import open_file
from graphexec.base.tensor import INT64_MAX, Array, DType, TensorType

_MAX_HEADER = 65536
_MAX_MEMBERS = 10_000
_MAGIC = b"\x93NUMPY"
_VERSIONS = {1: (2, "latin-1"), 2: (4, "latin-1"), 3: (4, "utf-8")}  # bytes of the length, coding
_HEADER = re.compile(
    r"\{(?:\s*(?:"
    r"""['"]descr['"]\s*:\s*['"](?P<descr>[^'"\\]*)['"]"""
    r"""|['"]fortran_order['"]\s*:\s*(?P<fortran>True|False)"""
    r"""|['"]shape['"]\s*:\s*\((?P<shape>[\s\dL,]*)\)"""
    r")\s*(?:,|(?=\})))*\s*\}\s*",
    re.ASCII,
)
_RECORDS = re.compile(r"""['"]descr['"]\s*:\s*\[""", re.ASCII)
_EXTENT = re.compile(r"\s*\d{1,19}L?\s*", re.ASCII)  # L: as Python 2 wrote them
_DESCR = re.compile(r"[<>=|]?[?A-Za-z]\d{0,5}(?:\[\w{1,9}\])?", re.ASCII)
# What the modules of archives raise for damaged ones, beside OSError and ValueError.
_UNSOUND = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, LookupError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


class NpyError(Exception):
    """An array cannot be read from a file; the reason, and a help."""

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message)
        self.help = help

    def diagnostic(self, prefix: str = "") -> Diagnostic:
        """The error for the user."""
        return Diagnostic(f"{prefix}{self}", help=self.help)


class NpyFile:
    """An .npy file: the one array in it, under the key None."""

    keys: Collection[str] = ()

    def __init__(self, path: Path) -> None:
        self.path = path

    def describe(self, key: str | None) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and stored dtype of an array, from its header; NpyError also if it is truncated."""
        with _reading(self.path), self._opened(key) as (stream, size, where):
            shape, _, stored, start = _header(stream, where)
            _refuse_foreign(stored, where)
            _check_size(size, start + prod(shape) * stored.itemsize, where)
            return shape, stored

    def fetch(self, key: str | None, type: TensorType) -> Array:
        """An array as a tensor of `type`.

        C-contiguous, native byte order, exactly the shape and dtype of `type`; else NpyError.
        """
        with _reading(self.path), self._opened(key) as (stream, size, where):
            return _read(stream, size, where, type)

    def close(self) -> None:
        """Let go of the file."""

    @contextmanager
    def _opened(self, key: str | None) -> Iterator[tuple[BinaryIO, int, str]]:
        """The bytes of an array, how many there are, and what to call it in messages."""
        with open_file(self.path) as stream:
            yield stream, os.fstat(stream.fileno()).st_size, f"'{self.path}'"


class NpzFile(NpyFile):
    """An .npz file that stays open, as reading its directory takes as long as it has arrays.

    `keys` are the names of the arrays, in their order. NpyError where it is no such file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with ExitStack() as stack:
            with _reading(path):
                stream = stack.enter_context(open_file(path))
                self._archive = stack.enter_context(zipfile.ZipFile(stream))
            names = self._archive.namelist()
            if len(names) > _MAX_MEMBERS:
                few = f"at most {_MAX_MEMBERS} are read"
                raise NpyError(f"'{path}' has {len(names)} entries; {few}")
            for name in names:
                if not name.endswith(".npy"):
                    raise NpyError(f"'{path}' holds '{name}', which is no array")
            self.keys = dict.fromkeys(name.removesuffix(".npy") for name in names)
            self._open = stack.pop_all()

    def close(self) -> None:
        """Let go of the file."""
        self._open.close()

    @contextmanager
    def _opened(self, key: str | None) -> Iterator[tuple[BinaryIO, int, str]]:
        info = self._archive.getinfo(f"{key}.npy")
        with self._archive.open(info) as member:
            yield member, info.file_size, f"'{key}' in '{self.path}'"  # type: ignore[misc]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the exceptions of reading a file into NpyError."""
    try:
        yield
    except FileNotFoundError:
        raise NpyError(f"there is no file '{path}'", help=_similar(path)) from None
    except _UNSOUND as exc:
        raise NpyError(f"'{path}' is not a sound .npz file: {exc}") from exc
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise NpyError(f"cannot read '{path}': {reason}") from exc


def _similar(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir()]
    except OSError:
        return ""
    return did_you_mean(path.name, names)


def _read(stream: BinaryIO, size: int, where: str, type: TensorType) -> Array:
    shape, fortran, stored, start = _header(stream, where)
    _check_dtype(stored, where, type.dtype)
    if shape != type.shape:
        raise NpyError(f"{where} has shape {list(shape)}, expected {list(type.shape)}",
                       help=_shape_help(shape, type.shape))  # fmt: skip
    _check_size(size, start + type.elements * stored.itemsize, where)
    raw = np.empty(type.elements * stored.itemsize, np.uint8)
    _fill(stream, raw.data, where)
    array = raw.view(stored).reshape(shape, order="F" if fortran else "C")
    return _as_type(np.ascontiguousarray(array), where, type.dtype).reshape(type.shape)


def _header(
    stream: BinaryIO, where: str
) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:  # fmt: skip
    """Shape, Fortran order, dtype, and the offset of the body."""
    fixed = stream.read(8)
    if fixed[:6] != _MAGIC:
        found = "empty" if not fixed else "not an .npy file"
        raise NpyError(f"{where} is {found}")
    if len(fixed) == 8 and fixed[6] not in _VERSIONS:
        raise NpyError(f"{where} is of version {fixed[6]}.{fixed[7]} of .npy, which is not known")
    width, coding = _VERSIONS.get(fixed[6] if len(fixed) == 8 else 0, (4, "ascii"))
    length = int.from_bytes(counted := stream.read(width), "little")
    if length > _MAX_HEADER:
        raise NpyError(f"{where} has a header of {length} bytes; a plain array needs far fewer")
    text = stream.read(length)
    if len(counted) < width or len(text) < length:
        raise NpyError(f"{where} has a damaged header")
    shape, fortran, dtype = _literal(text.decode(coding, "replace"), where)
    if prod(shape) * dtype.itemsize > INT64_MAX:
        raise NpyError(f"{where} says that it has more bytes than memory can have")
    return shape, fortran, dtype, 8 + width + length


def _literal(text: str, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """What the dict of a header says; NpyError if it is no such dict."""
    if _RECORDS.search(text):
        raise NpyError(f"{where} holds records, not numbers")
    found = _HEADER.fullmatch(text.strip())
    if found is None or None in found.groups():
        raise NpyError(f"{where} has a damaged header")
    descr, extents = found["descr"], found["shape"].split(",")
    if not extents[-1].strip():
        extents.pop()
    if len(extents) > 64 or not all(map(_EXTENT.fullmatch, extents)):
        raise NpyError(f"{where} has a damaged header")
    shape = tuple(int(extent.strip().rstrip("L")) for extent in extents)
    return shape, found["fortran"] == "True", _dtype(descr, where)


def _dtype(descr: str, where: str) -> np.dtype[Any]:
    try:
        if not _DESCR.fullmatch(descr):
            raise TypeError
        # Not the old names of types, of which NumPy warns.
        return np.dtype(descr.replace("a", "S", 1))
    except (TypeError, ValueError) as exc:
        raise NpyError(f"{where} has elements of a type that is not known: '{descr}'") from exc


def _check_dtype(stored: np.dtype[Any], where: str, wanted: DType) -> None:
    """NpyError unless elements of dtype `stored` can be read as `wanted`."""
    _refuse_foreign(stored, where)
    accepted = [wanted.numpy()]
    if wanted is DType.BF16:
        accepted += [np.dtype("V2"), np.dtype(np.uint16), np.dtype(np.float32)]
    if stored not in accepted:
        name = wanted.numpy().name
        cast = f"x.astype({'bool' if wanted is DType.BOOL else f'np.{name}'})"
        cast = _BF16_CAST if wanted is DType.BF16 else cast
        raise NpyError(
            f"{where} has dtype {stored.name}, expected {name}", help=f"save it as {cast}"
        )


def _refuse_foreign(stored: np.dtype[Any], where: str) -> None:
    if stored.hasobject:
        raise NpyError(f"{where} holds pickled Python objects, which are never loaded",
                       help="save it as an array of numbers")  # fmt: skip
    if stored.byteorder == ">":
        raise NpyError(f"{where} is big-endian ({stored.str})",
                       help="save it with x.astype(x.dtype.newbyteorder('<'))")  # fmt: skip


def _check_size(size: int, needed: int, where: str) -> None:
    if size < needed:
        raise NpyError(f"{where} is truncated: it has {size} of {needed} bytes")


_BF16_CAST = "x.astype(ml_dtypes.bfloat16), or as its bits in uint16"


def _as_type(array: Array, where: str, wanted: DType) -> Array:
    dtype = wanted.numpy()
    if wanted is DType.BOOL:
        return np.asarray(array.view(np.uint8) != 0)  # whatever the bytes of the file are
    if array.dtype == dtype:
        return array
    if array.dtype.itemsize == 2:  # the bits of bf16
        return array.view(dtype)
    with np.errstate(all="ignore"):
        narrow = array.astype(dtype)
    if not np.array_equal(narrow.astype(np.float32), array, equal_nan=True):
        raise NpyError(f"{where} is float32 with values that bf16 does not hold exactly",
                       help=f"round it: save it as {_BF16_CAST}")  # fmt: skip
    return narrow


def _shape_help(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if sorted(found) == sorted(wanted):
        return "the extents are the same in another order; is it transposed?"
    if [e for e in found if e != 1] == [e for e in wanted if e != 1]:
        return f"x.reshape({list(wanted)}) would fit"
    return "dims of the graph are set with -D NAME=N" if len(found) == len(wanted) else ""


def _fill(stream: BinaryIO, target: memoryview, where: str) -> None:
    done = 0
    while done < len(target):
        part = stream.read(min(len(target) - done, 1 << 24))
        if not part:
            raise NpyError(f"{where} is truncated: its body ends after {done} bytes")
        target[done : done + len(part)] = part
        done += len(part)
