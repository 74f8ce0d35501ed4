"""What flows between the nodes of a model while it is read: values and nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphexec.base.tensor import Array, DType
from graphexec.frontend.onnx.extents import Extent


class Unsupported(Exception):
    """A node that graphexec cannot express; the message says what of it."""


class NeedsConstant(Unsupported):
    """An operand whose value decides shapes is computed; `inputs` of the model determine it."""

    def __init__(self, name: str, inputs: frozenset[str]) -> None:
        super().__init__(f"'{name}' must be known before the graph runs")
        self.inputs = inputs


@dataclass(eq=False)
class Value:
    """A tensor of the model.

    `tensor` is its name in the graph, if it is in it. `data` are its elements where they are
    known: an array of its dtype, or one of objects for extents that depend on dims.
    """

    name: str
    dtype: DType
    shape: tuple[Extent, ...]
    tensor: str | None = None
    key: str | None = None  # of a weight in the model's file
    origin: Node | None = None
    inputs: frozenset[str] = frozenset()  # of the model, that it depends on
    _data: Array | Callable[[], Array] | None = None

    @property
    def data(self) -> Array | None:
        """The elements, if they are known."""
        if callable(self._data):
            self._data = self._data()
        return self._data

    @property
    def known(self) -> bool:
        """Whether the elements are known."""
        return self._data is not None

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def ints(self) -> list[Extent]:
        """The elements as extents. NeedsConstant if they are not known."""
        data = self.data
        if data is None:
            raise NeedsConstant(self.name, self.inputs)
        return [e if not isinstance(e, np.generic) else int(e) for e in data.ravel()]

    def number(self) -> Any:
        """The one element. NeedsConstant if it is not known."""
        data = self.data
        if data is None:
            raise NeedsConstant(self.name, self.inputs)
        if data.size != 1:
            raise Unsupported(f"'{self.name}' must have one element, and has {data.size}")
        return data.ravel()[0] if data.dtype == object else data.ravel()[0].item()


@dataclass(eq=False)
class Node:
    """A node of the model with the values that it reads."""

    op: str
    name: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 0

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute; texts as str, lists as lists."""
        value = self.attrs.get(name, default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def given(self, index: int) -> Value | None:
        """An operand that may be left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def value(self, index: int) -> Value:
        """An operand that there must be."""
        found = self.given(index)
        if found is None:
            raise Unsupported(f"operand {index} is missing")
        return found

    @property
    def present(self) -> tuple[Value, ...]:
        """The operands that are given."""
        return tuple(v for v in self.inputs if v is not None)


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front. Unsupported if there is none."""
    if not -rank <= axis < max(rank, 1):
        raise Unsupported(f"there is no axis {axis} of {rank}")
    return axis % rank if rank else 0


def constant(name: str, data: Array, dtype: DType) -> Value:
    """A value that is known."""
    shape = tuple(int(e) for e in data.shape)
    return Value(name, dtype, shape, _data=data)


def empty(name: str, shape: Sequence[Extent], dtype: DType) -> Value:
    """A value without elements. Extents that are not known are taken to be 1."""
    known = tuple(e if isinstance(e, int) else 1 for e in shape)
    return Value(name, dtype, tuple(shape), _data=np.empty(known, dtype.numpy()))
