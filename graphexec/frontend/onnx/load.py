"""load_onnx: an ONNX file → Graph, whose weights stay in that file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from graphexec.frontend.onnx.convert import Converter
from graphexec.frontend.onnx.model import read_model
from graphexec.ir.graph import Graph
from graphexec.ir.op import Op


def load_onnx(
    path: str | Path, dims: Mapping[str, int] | None = None, ops: Mapping[str, Op] | None = None
) -> Graph:
    """The graph of the model at `path`. `dims` give values to its named dims, which are 1 else.

    Raises GraphError: for a damaged file, and with every node that is not supported.
    """
    model = read_model(path)
    stem = model.path.stem
    name = stem if stem.isprintable() else "model"
    return Converter(model, dims or {}, ops, name, {}).convert()
