"""What launches wrote, shown as arrays of the nodes' types."""

from __future__ import annotations

import numpy as np

from graphexec.base.tensor import Array, View
from graphexec.ir.names import transferred
from graphexec.ir.typed import TypedGraph
from graphexec.runtime.device import Tap


def typed(tap: Tap, graph: TypedGraph) -> Tap:
    """`tap` as it gets arrays of the nodes' types, where a session gives bytes."""
    types = graph.types()
    strided = {node.name for node in graph.nodes if node.layout is not None}
    parts = {node.name: node.into for node in graph.nodes if node.into is not None}

    def with_type(node: str, written: Array) -> None:
        name = node if node in types else transferred(node)
        type, place = types.get(name), parts.get(name)
        if place is not None and not place.is_dense and name not in strided:
            written = _within(written, place)
        if type is not None and written.nbytes == type.nbytes:
            written = written.view(type.dtype.numpy())
            if name not in strided:
                written = written.reshape(type.shape)
        tap(node, written)

    return with_type


def _within(written: Array, place: View) -> Array:
    """The elements of a window, out of the bytes that it reaches over; these if they are others."""
    low, high = place.byte_range()
    if written.nbytes != high - low:
        return written
    elements = written.view(place.dtype.numpy())
    steps = [step * elements.itemsize for step in place.strides]
    found = np.lib.stride_tricks.as_strided(elements, place.shape, steps, writeable=False)
    return np.ascontiguousarray(found)
