"""The tensors of a GGUF file as weights: quantised ones are floats of 32 bits here.

The package `gguf` knows how blocks of quantised elements are stored, and is needed for these only.
The file is mapped: a tensor is read when it is asked for.
"""

from __future__ import annotations

import mmap
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


class GgufWeights:
    """An open GGUF file."""

    def __init__(self, path: Path) -> None:
        """Raises FileError."""
        self._path = path
        try:
            with open_file(path) as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as exc:  # an empty file cannot be mapped
            raise FileError(f"cannot read '{path}': {getattr(exc, 'strerror', exc)}") from exc
        try:
            with memoryview(self._data) as view:
                self.header: Header = read_header(view)
        except DamagedHeader as exc:
            self._data.close()
            raise FileError(f"'{path}' is no GGUF file that can be read: {exc}") from exc
        self.keys = self.header.tensors

    def describe(self, key: str | None) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and element type of a tensor. WeightError where the file is too short for it."""
        stored = self.keys[key or ""]
        if stored.at + self._bytes(stored) > len(self._data):
            raise WeightError(f"'{self._path.name}' ends before its tensor '{key}' does")
        return stored.shape, DTYPES.get(stored.type, DType.F32).numpy()

    def fetch(self, key: str | None, type: TensorType) -> Array:
        """The elements, which lie in the file, or as floats those of quantised ones."""
        shape, dtype = self.describe(key)
        if shape != type.shape or dtype != type.dtype.numpy():
            raise WeightError(f"weights file '{self._path}' changed while it was in use")
        stored = self.keys[key or ""]
        raw = np.frombuffer(self._data, np.uint8, self._bytes(stored), stored.at)
        if stored.type in DTYPES:
            return raw.view(dtype).reshape(shape)
        return _dequantized(raw, stored)

    def close(self) -> None:
        """Nothing: the file is unmapped when no array of it is left."""

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


def _dequantized(raw: Array, stored: Stored) -> Array:
    quants = _quants()
    kind = quants.GGMLQuantizationType(stored.type)
    block, size = _quantised(stored.type)
    rows = raw.reshape(*stored.shape[:-1], stored.shape[-1] // block * size)
    try:
        with np.errstate(all="ignore"):  # a damaged scale is any number
            found = quants.dequantize(rows, kind)
    except NotImplementedError:
        raise WeightError(
            f"the package gguf cannot dequantise elements of type {kind.name}"
        ) from None
    return np.ascontiguousarray(found, np.float32).reshape(stored.shape)


def _quants() -> Any:
    try:
        import gguf
    except ImportError:
        raise FileError("reading quantised weights of .gguf needs another package",
                        help="pip install 'graphexec[gguf]'") from None  # fmt: skip
    return gguf
