"""A graph whose every tensor has a type: what `infer` leaves and rewrites work on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphexec.op import Op
from graphexec.tensor import TensorType


@dataclass(frozen=True)
class TypedNode:
    """A node with evaluated attributes (every attribute of the op is present) and its type."""

    name: str
    op: Op
    operands: Mapping[str, str]
    attrs: Mapping[str, Any]
    type: TensorType
    after: tuple[str, ...] = ()
    line: int | None = None


@dataclass(frozen=True)
class TypedWeight:
    """A weight: its type, and where its elements are."""

    type: TensorType
    path: Path
    key: str | None


@dataclass(frozen=True)
class TypedGraph:
    """A graph with concrete types; `nodes` are in a topological order."""

    name: str
    dims: Mapping[str, int]
    inputs: Mapping[str, TensorType]
    weights: Mapping[str, TypedWeight]
    nodes: tuple[TypedNode, ...]
    outputs: Mapping[str, str]

    def types(self) -> dict[str, TensorType]:
        """The type of every tensor, by name."""
        types = dict(self.inputs)
        types |= {name: weight.type for name, weight in self.weights.items()}
        types |= {node.name: node.type for node in self.nodes}
        return types
