"""The tensors of an ONNX file as weights: initializers, and those of nodes `Constant`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graphexec.base.errors import GraphError
from graphexec.base.tensor import Array, TensorType
from graphexec.frontend.onnx.model import element_type, onnx, opened
from graphexec.frontend.weight_paths import FileError, WeightError


class OnnxWeights:
    """An open model: its tensors are read when they are asked for."""

    def __init__(self, path: Path) -> None:
        if onnx is None:
            raise FileError("reading .onnx needs another package",
                            help="pip install 'graphexec[onnx]'")  # fmt: skip
        try:
            self._model = opened(path)
        except GraphError as exc:
            raise FileError(exc.diagnostics[0].message) from exc
        self.keys: dict[str, Any] = dict(self._model.tensors())

    def describe(self, key: str | None) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and element type of a tensor. WeightError for a type that there is not."""
        tensor = self.keys[key or ""]
        return tuple(tensor.dims), element_type(tensor).numpy()

    def fetch(self, key: str | None, type: TensorType) -> Array:
        """The elements, which lie in the file."""
        array = np.asarray(self._model.array(self.keys[key or ""]), order="C")
        if array.shape != type.shape or array.dtype != type.dtype.numpy():
            raise WeightError(f"weights file '{self._model.path}' changed while it was in use")
        return array

    def close(self) -> None:
        """Nothing: the file is unmapped when no array of it is left."""
