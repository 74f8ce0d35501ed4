"""What each operator of ONNX is in a graph: one table, from modules by kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from graphexec.frontend.onnx.builder import Builder
from graphexec.frontend.onnx.handlers import (
    attention,
    bits,
    control,
    einsum,
    indexing,
    pointwise,
    products,
    quantized,
    reductions,
    resize,
    shapes,
    windows,
)
from graphexec.frontend.onnx.values import Node, Value

Handler: TypeAlias = Callable[[Builder, Node], Value | Sequence[Value] | None]

HANDLERS: dict[str, Handler] = {
    **pointwise.HANDLERS,
    **shapes.HANDLERS,
    **reductions.HANDLERS,
    **products.HANDLERS,
    **indexing.HANDLERS,
    **attention.HANDLERS,
    **windows.HANDLERS,
    **quantized.HANDLERS,
    **resize.HANDLERS,
    **bits.HANDLERS,
    **control.HANDLERS,
    **einsum.HANDLERS,
}
"""By the operator's name. Each makes the values of the node's outputs, in their order; or None
where it leaves a node to the definition of its operator by others."""
