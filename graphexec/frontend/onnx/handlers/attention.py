"""Attention as one operator, in the cases that the op of that name covers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphexec.frontend.onnx.builder import Builder
from graphexec.frontend.onnx.values import Node, Value

HANDLERS: dict[str, Callable[[Builder, Node], Value | Sequence[Value]]] = {}
