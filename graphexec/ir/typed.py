"""A graph in which every tensor has a type. `infer` makes it, and rewrites change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graphexec.base.tensor import DType, TensorType, View
from graphexec.ir.op import Op


@dataclass(frozen=True)
class TypedNode:
    """A node with evaluated attributes (every attribute of the op is present) and its type.

    Rewrites set four fields. With `window`, the result is the op's window on its operand, and no
    command is made. `layout` is a window of the shape that the op computes: where in the tensor's
    dense bytes it writes the result (the storage of the window means nothing). `over` is an operand
    that is dead afterwards: the result is written over its bytes. `into` is a window on the dense
    bytes of another node's tensor (its storage): there the result lies.
    """

    name: str
    op: Op
    operands: Mapping[str, str]
    attrs: Mapping[str, Any]
    type: TensorType
    after: tuple[str, ...] = ()
    line: int | None = None
    window: bool = False
    layout: View | None = None
    over: str | None = None
    into: View | None = None


@dataclass(frozen=True)
class Part:
    """Of which whole shape a weight is a part, and where in it that begins."""

    shape: tuple[int, ...]
    begin: tuple[int, ...]


@dataclass(frozen=True)
class TypedWeight:
    """A weight: its type, and where its elements are.

    They are converted from `stored`, if that is given, as they are read. A rewrite may set `into`,
    a dense window on the bytes of a node's tensor: the weight is loaded to there.
    """

    type: TensorType
    path: Path
    key: str | None
    into: View | None = None
    stored: DType | None = None
    part: Part | None = None

    @property
    def whole(self) -> TypedWeight:
        """All of it, where this is a rank's part."""
        if self.part is None:
            return self
        return replace(self, type=replace(self.type, shape=self.part.shape), part=None)


@dataclass(frozen=True)
class TypedState:
    """A state: its type, the tensor that is its next value, and what it begins with: a number, or
    an array in a file. With `part` it is a rank's part of a larger one."""

    type: TensorType
    next: str
    init: int | float | TypedWeight = 0
    part: Part | None = None


@dataclass(frozen=True)
class TypedGraph:
    """A graph with concrete types; `nodes` are in a topological order.

    `same` maps other names to tensors with the same elements: those of tensors that a rewrite
    removed, and of the results of blocks.
    """

    name: str
    dims: Mapping[str, int]
    inputs: Mapping[str, TensorType]
    weights: Mapping[str, TypedWeight]
    nodes: tuple[TypedNode, ...]
    outputs: Mapping[str, str]
    same: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[str, TypedState] = field(default_factory=dict)

    @property
    def kept(self) -> set[str]:
        """Tensors that are wanted when a run ends: outputs, and the next values of states."""
        return {*self.outputs.values(), *(state.next for state in self.states.values())}

    def types(self) -> dict[str, TensorType]:
        """The type of every tensor, by name."""
        types = dict(self.inputs)
        types |= {name: weight.type for name, weight in self.weights.items()}
        types |= {name: state.type for name, state in self.states.items()}
        types |= {node.name: node.type for node in self.nodes}
        return types
