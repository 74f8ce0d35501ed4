"""The header of a GGUF file: what it says of the model, and where its tensors are.

The format is that of ggml's docs/gguf.md: little-endian; counts, then pairs of a key and a typed
value, then the tensors' names, extents (the one of neighbours first), element types and places.
Nothing is read outside of the file, and long arrays (those of a tokenizer) are stepped over.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SHORT = 4096
"""Arrays of more values are left out."""

_MOST = 20_000_000  # values that are stepped over one by one
_NESTED = 4  # arrays of arrays
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}

Value = int | float | bool | str | list["Value"]


class DamagedHeader(Exception):
    """The file is none of this format; the message says why."""


@dataclass(frozen=True)
class Stored:
    """A tensor: its shape, the number of its element type, and the byte that it begins at."""

    shape: tuple[int, ...]
    type: int
    at: int


@dataclass(frozen=True)
class Header:
    """`values` has no arrays longer than SHORT."""

    values: Mapping[str, Value]
    tensors: Mapping[str, Stored]


def read_header(data: memoryview) -> Header:
    """The header of a file's bytes. Raises DamagedHeader."""
    return _Reader(data).header()


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self._data, self._at, self._left = data, 0, _MOST

    def header(self) -> Header:
        if bytes(self._data[:4]) != MAGIC:
            raise DamagedHeader("it does not begin with GGUF")
        self._at = 4
        version = self._number("I")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
            why = "it is big-endian" if swapped else f"its version is {version}"
            raise DamagedHeader(f"{why}; known are little-endian files of versions 2 and 3")
        tensors, pairs = self._count(24), self._count(12)
        values: dict[str, Value] = {}
        for _ in range(pairs):
            key = self._string()
            if key in values:
                raise DamagedHeader(f"the key '{key}' is in it twice")
            value = self._value(self._number("I"))
            if value is not None:
                values[key] = value
        infos = [self._info() for _ in range(tensors)]
        align = values.get("general.alignment", 32)
        if not isinstance(align, int) or align < 1 or align & (align - 1):
            raise DamagedHeader(f"its alignment is {align!r:.40}, not a power of two")
        begin = -(-self._at // align) * align
        found: dict[str, Stored] = {}
        for name, shape, kind, offset in infos:
            if name in found:
                raise DamagedHeader(f"the tensor '{name}' is in it twice")
            found[name] = Stored(shape, kind, begin + offset)
        return Header(values, found)

    def _info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        axes = self._number("I")
        if axes > 8:
            raise DamagedHeader(f"the tensor '{name}' has {axes} axes")
        shape = tuple(self._number("Q") for _ in range(axes))[::-1]
        if prod(shape) > 1 << 56:
            raise DamagedHeader(f"the tensor '{name}' has the shape {list(shape)}")
        return name, shape, self._number("I"), self._number("Q")

    def _value(self, kind: int, depth: int = 0) -> Value | None:
        """The next value; None for a long array."""
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(depth)
        if kind not in _NUMBERS:
            raise DamagedHeader(f"a value has the unknown type {kind}")
        return self._bool() if kind == _BOOL else self._number(_NUMBERS[kind])

    def _array(self, depth: int) -> list[Value] | None:
        if depth == _NESTED:
            raise DamagedHeader("its arrays are nested too deeply")
        kind = self._number("I")
        if kind in _NUMBERS:
            size = struct.calcsize(f"<{_NUMBERS[kind]}")
            count = self._count(size)
            if count > SHORT:
                self._at += count * size
                return None
        else:
            count = self._count(8)
        self._left -= count
        if self._left < 0:
            raise DamagedHeader("its arrays are too long")
        kept: list[Value] = []
        for _ in range(count):
            if kind == _STRING and count > SHORT:
                self._skip(self._number("Q"))
                continue
            value = self._value(kind, depth + 1)
            if value is not None:
                kept.append(value)
        return kept if len(kept) == count else None

    def _count(self, least: int) -> int:
        """How many things of at least so many bytes follow."""
        count: int = self._number("Q")
        if count * least > len(self._data) - self._at:
            raise DamagedHeader(f"it ends within its header, which counts {count} things at byte "
                                f"{self._at - 8}")  # fmt: skip
        return count

    def _string(self) -> str:
        size = self._number("Q")
        begin = self._at
        self._skip(size)
        try:
            return str(self._data[begin : self._at], "utf-8")
        except UnicodeDecodeError:
            raise DamagedHeader(f"the text at byte {begin} is not UTF-8") from None

    def _bool(self) -> bool:
        return bool(self._number("B"))

    def _number(self, code: str) -> int:
        begin, size = self._at, struct.calcsize(f"<{code}")
        self._skip(size)
        (value,) = struct.unpack_from(f"<{code}", self._data, begin)
        return value  # type: ignore[no-any-return]  # or a float

    def _skip(self, size: int) -> None:
        if size > len(self._data) - self._at:
            raise DamagedHeader(f"it ends within its header, at byte {len(self._data)}")
        self._at += size
