"""The tensors of a GGUF file as weights: quantised ones are floats of 32 bits here.

The package `gguf` knows how blocks of quantised elements are stored, and is needed for these only.
A tensor is mapped when it is asked for, and its part of the file leaves memory with its array.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from graphexec.base.reading import open_file
from graphexec.base.tensor import Array, DType, TensorType
from graphexec.frontend.pretrained.gguf_header import (
    DamagedHeader,
    Header,
    Stored,
    read_header,
)
from graphexec.frontend.weight_paths import FileError, WeightError

DTYPES = {0: DType.F32, 1: DType.F16, 24: DType.I8, 26: DType.I32, 27: DType.I64, 28: DType.F64,
          30: DType.BF16}  # fmt: skip
"""Ours by ggml's number of an element type, for those that are stored as they are."""


_PIECE = 1 << 22
"""Elements that are numbers at a time, where a tensor is not wanted whole."""


class GgufWeights:
    """An open GGUF file."""

    def __init__(self, path: Path) -> None:
        """Raises FileError."""
        self._path = path
        try:
            with ExitStack() as stack:
                self._file = stack.enter_context(open_file(path))
                data = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
                stack.enter_context(data)
                self._size = len(data)
                with memoryview(data) as view:
                    self.header: Header = read_header(view)
                data.close()
                stack.pop_all()
                self._close = weakref.finalize(self, self._file.close)
        except (OSError, ValueError) as exc:  # an empty file cannot be mapped
            raise FileError(f"cannot read '{path}': {getattr(exc, 'strerror', exc)}") from exc
        except DamagedHeader as exc:
            raise FileError(f"'{path}' is no GGUF file that can be read: {exc}") from exc
        self.keys = self.header.tensors

    def describe(self, key: str | None) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and element type of a tensor. WeightError where the file is too short for it."""
        stored = self.keys[key or ""]
        if stored.at + self._bytes(stored) > self._size:
            raise WeightError(f"'{self._path.name}' ends before its tensor '{key}' does")
        return stored.shape, DTYPES.get(stored.type, DType.F32).numpy()

    def fetch(self, key: str | None, type: TensorType) -> Array:
        """The elements, which lie in the file, or as floats those of quantised ones."""
        self._check(key, type)
        stored = self.keys[key or ""]
        return self._elements(stored, 0, prod(stored.shape[:-1])).reshape(stored.shape)

    def pieces(self, key: str | None, type: TensorType) -> Iterator[Array]:
        """What `fetch` gives, some rows (…, columns) at a time."""
        self._check(key, type)
        stored = self.keys[key or ""]
        count, columns = prod(stored.shape[:-1]), prod(stored.shape[-1:])
        step = max(1, _PIECE // columns)
        for begin in range(0, count, step):
            yield self._elements(stored, begin, min(begin + step, count))

    def close(self) -> None:
        """Close the file; arrays of it stay mapped."""
        self._close()

    def _check(self, key: str | None, type: TensorType) -> None:
        shape, dtype = self.describe(key)
        if shape != type.shape or dtype != type.dtype.numpy():
            raise self._changed()

    def _changed(self) -> WeightError:
        return WeightError(f"weights file '{self._path}' changed while it was in use")

    def _elements(self, stored: Stored, begin: int, end: int) -> Array:
        """Those of rows from `begin` to `end`."""
        size = self._bytes(stored) // prod(stored.shape[:-1])
        raw = self._mapped(stored.at + begin * size, (end - begin) * size).reshape(-1, size)
        if stored.type in DTYPES:
            return raw.view(DTYPES[stored.type].numpy())
        return _dequantized(raw, stored.type)

    def _mapped(self, at: int, size: int) -> Array:
        before = at % mmap.ALLOCATIONGRANULARITY
        try:
            data = mmap.mmap(self._file.fileno(), before + size, access=mmap.ACCESS_READ,
                             offset=at - before)  # fmt: skip
        except (OSError, ValueError) as exc:  # it is shorter than it was
            raise self._changed() from exc
        return np.frombuffer(data, np.uint8, size, before)

    def _bytes(self, stored: Stored) -> int:
        if stored.type in DTYPES:
            return prod(stored.shape) * DTYPES[stored.type].itemsize
        block, size = _quantised(stored.type)
        row = stored.shape[-1] if stored.shape else 1
        if row % block:
            raise WeightError(f"the stored array has rows of {row} elements in blocks of {block}")
        return prod(stored.shape) // block * size


def _quantised(type: int) -> tuple[int, int]:
    """How many elements a block has, and how many bytes. Raises WeightError."""
    quants = _quants()
    try:
        return quants.constants.GGML_QUANT_SIZES[quants.GGMLQuantizationType(type)]  # type: ignore[no-any-return]
    except (ValueError, KeyError):
        raise WeightError(f"the stored array has elements of the unknown type {type}") from None


def _dequantized(rows: Array, type: int) -> Array:
    quants = _quants()
    kind = quants.GGMLQuantizationType(type)
    try:
        with np.errstate(all="ignore"):  # a damaged scale is any number
            found = quants.dequantize(rows, kind)
    except NotImplementedError:
        raise WeightError(
            f"the package gguf cannot dequantise elements of type {kind.name}"
        ) from None
    return np.ascontiguousarray(found, np.float32)


def _quants() -> Any:
    try:
        import gguf
    except ImportError:
        raise FileError("reading quantised weights of .gguf needs another package",
                        help="pip install 'graphexec[gguf]'") from None  # fmt: skip
    return gguf
