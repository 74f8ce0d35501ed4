"""Index arrays from the host are checked before they are uploaded.

Which inputs hold indices follows from the graph: an operand for which `Op.indexes` states an
extent, if it is an input, also through copies that only reshape or cast it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graphexec.base.casts import cast
from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import DataError
from graphexec.base.tensor import Array, DType
from graphexec.ir.typed import TypedGraph, TypedNode


@dataclass(frozen=True)
class IndexInput:
    """An input whose elements, after the casts, are indices of `node` along `extent` elements."""

    name: str
    node: str
    op: str
    extent: int
    casts: tuple[DType, ...] = ()

    def mistake(self, given: Array) -> Diagnostic | None:
        """The first index that is outside; None if all are inside."""
        values = given
        for dtype in self.casts:
            values = cast(values, dtype.numpy())
        if -self.extent <= int(values.min()) and int(values.max()) < self.extent:
            return None
        outside = (values < -self.extent) | (values >= self.extent)
        at = int(np.argmax(outside))  # reshaping keeps the order
        place = [int(i) for i in np.unravel_index(at, given.shape)]
        return Diagnostic(
            f"{self.op} '{self.node}': input '{self.name}' has the index {values.flat[at]} at "
            f"{place}, but there are {self.extent} elements along the axis",
            help=f"an index is from {-self.extent} to {self.extent - 1}",
        )


def index_inputs(graph: TypedGraph) -> tuple[IndexInput, ...]:
    """The inputs of a graph that hold indices, once for each node that uses them."""
    nodes = {node.name: node for node in graph.nodes}
    types = graph.types()
    found = []
    for node in graph.nodes:
        given = {key: types[name] for key, name in node.operands.items()}
        for key, extent in node.op.indexes(given, node.attrs).items():
            source, casts = _source(node.operands[key], nodes)
            if source in graph.inputs:
                found.append(IndexInput(source, node.name, node.op.name, extent, casts))
    return tuple(found)


def check_indexes(expected: tuple[IndexInput, ...], inputs: Mapping[str, object]) -> None:
    """DataError with the first index outside for every node; arrays of a device are not read."""
    mistakes = [
        mistake for each in expected
        if isinstance(given := inputs[each.name], np.ndarray) and (mistake := each.mistake(given))
    ]  # fmt: skip
    if mistakes:
        raise DataError(mistakes)


def _source(name: str, nodes: Mapping[str, TypedNode]) -> tuple[str, tuple[DType, ...]]:
    """The tensor of which `name` is a reshape or a cast, and the casts in their order."""
    casts: list[DType] = []
    node = nodes.get(name)
    while node is not None and node.op.name == "copy" and _keeps_elements(node):
        casts.insert(0, node.type.dtype)
        name = node.operands["x"]
        node = nodes.get(name)
    return name, tuple(casts)


def _keeps_elements(copy: TypedNode) -> bool:
    return not any(copy.attrs.get(key) for key in ("slice", "permute", "axes"))
