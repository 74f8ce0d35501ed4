"""What the rules of ops know of a partition, and what they answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from graphexec.base.tensor import TensorType
from graphexec.ir.program import Reduction
from graphexec.ir.typed import TypedNode

Spec = tuple[str, ...]
"""For each axis of a tensor the axis of the mesh along which it is cut, "" for none."""


@dataclass(frozen=True)
class Split:
    """How a rank does its part of a node: on which operands, with which attributes, and along which
    axes the result is cut then.

    With a `reduction`, the results of the ranks along the axis `over` of the mesh are reduced, and
    then the tensors `added`, each times its factor, are added. Before, elements where the tensor
    `kept` is false are 0.
    """

    operands: Mapping[str, str]
    attrs: Mapping[str, Any]
    spec: Spec
    reduction: Reduction = ""
    over: str = ""
    added: tuple[tuple[str, float], ...] = ()
    kept: str = ""


class Parts(Protocol):
    """The tensors of a rank."""

    @property
    def whole(self) -> Mapping[str, TensorType]:
        """Their types on one rank alone."""
        ...

    @property
    def specs(self) -> Mapping[str, Spec]:
        """How they are cut."""
        ...

    def operands(self, node: TypedNode) -> dict[str, str]:
        """What a node reads."""
        ...

    def gathered(self, tensor: str, *axes: int) -> str:
        """The tensor with these axes whole; all of them if none is given."""
        ...

    def as_cut(self, tensor: str, spec: Spec) -> str:
        """The tensor cut so."""
        ...

    def aligned(self, tensor: str, spec: Spec) -> Spec:
        """How a tensor that broadcasts to a result must be cut if the result is cut so."""
        ...

    def computed(
        self, name: str, expr: str, operands: Mapping[str, str], spec: Spec, shape: tuple[int, ...]
    ) -> str:
        """A new tensor: an expression of others, of this whole shape."""
        ...

    def size(self, axis: str) -> int:
        """How many ranks lie along an axis of the mesh."""
        ...

    def index(self, axis: str) -> int:
        """The place of this rank along an axis of the mesh."""
        ...

    def local(self, shape: tuple[int, ...], spec: Spec) -> tuple[int, ...]:
        """The shape of a part."""
        ...
