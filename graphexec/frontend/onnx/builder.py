"""The graph under construction, and what handlers of nodes make it with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphexec.base.tensor import Array, DType
from graphexec.frontend.onnx.extents import Extent, Poly, broadcast, stated
from graphexec.frontend.onnx.naming import Names, is_word
from graphexec.frontend.onnx.values import Node, Unsupported, Value, constant
from graphexec.ir.graph import Graph
from graphexec.ir.names import SYMBOL

Inline: TypeAlias = Callable[[Any, Sequence[Value | None], str], list[Value]]

_MOST_WRITTEN = 64  # elements of a constant that is written as an expression
_NARROW = (DType.I8, DType.U8)
_ALIASES = "abcdefghijklmnopqrstuvwxyz"


class Builder:
    """Adds nodes to `graph` and keeps their types; `node` is the one of the model that is read.

    What a handler makes is named after the output of its node, with a `part` after it where it is
    not the output itself.
    """

    def __init__(self, graph: Graph, names: Names) -> None:
        self.graph, self.names = graph, names
        self.node: Node | None = None
        self.uses: Counter[str] = Counter()  # how often the model reads a tensor
        self.inline: Inline = _nothing  # what a graph within the node makes of values
        self._constants: dict[tuple[Any, ...], Value] = {}

    # Making -------------------------------------------------------------------------------

    def op(
        self, op: str, operands: Mapping[str, Value | Sequence[Value] | None],
        shape: Sequence[Extent], dtype: DType, part: str = "", output: int = 0, **attrs: Any,
    ) -> Value:  # fmt: skip
        """A node of the graph."""
        given: dict[str, Any] = {}
        for key, value in operands.items():
            if isinstance(value, Value):
                given[key] = self.tensor(value)
            elif value is not None:
                given[key] = [self.tensor(v) for v in value]
        read = [v for o in operands.values() if o is not None
                for v in ([o] if isinstance(o, Value) else o)]  # fmt: skip
        name = self._name(part, output)
        self.graph.node(op, name=name, **given, **attrs)
        return self._made(name, shape, dtype, read)

    def map(
        self, text: str, *values: Value, shape: Sequence[Extent] | None = None,
        gives: DType | None = None, to: DType | None = None, part: str = "", output: int = 0,
    ) -> Value:  # fmt: skip
        """A map: `text` has `{0}`, `{1}` … for the values. `gives` is the type of the expression
        where it is not that of the first value; `to` casts the result. A stated `shape` takes
        part in broadcasting."""
        terms, renamed = self._terms(values)
        found = broadcast(*(v.shape for v in values), *(() if shape is None else (shape,)))
        settings: dict[str, Any] = dict(renamed)
        result = to or gives or values[0].dtype
        if to is not None or result in _NARROW:  # a number beside it may widen it
            settings["dtype"] = result.value
        if shape is not None or not renamed:
            settings["shape"] = [stated(e) for e in found]
        name = self._name(part, output)
        try:
            self.graph.node("map", name=name, expr=text.format(*terms), **settings)
        except RecursionError as exc:
            raise Unsupported("its expression is nested too deeply") from exc
        return self._made(name, found, result, values)

    def copy(
        self, x: Value, shape: Sequence[Extent], part: str = "", output: int = 0, **attrs: Any
    ) -> Value:
        """A copy with slices, a permutation or another shape."""
        return self.op("copy", {"x": x}, shape, x.dtype, part, output, **attrs)

    def reshape(self, x: Value, shape: Sequence[Extent], part: str = "", output: int = 0) -> Value:
        """x in another shape; x itself if that is its shape."""
        if tuple(shape) == x.shape:
            return x
        return self.copy(x, shape, part, output, reshape=[stated(e) for e in shape])

    def transpose(self, x: Value, axes: Sequence[int], part: str = "", output: int = 0) -> Value:
        """x with its axes in another order."""
        if list(axes) == list(range(x.rank)):
            return x
        return self.copy(x, [x.shape[a] for a in axes], part, output, permute=list(axes))

    def slice(
        self, x: Value, axis: int, start: Extent | None, stop: Extent | None, extent: Extent,
        step: int = 1, part: str = "", output: int = 0,
    ) -> Value:  # fmt: skip
        """A part of x along an axis, of so many rows."""
        ends = [None if e is None else stated(e) for e in (start, stop)]
        shape = (*x.shape[:axis], extent, *x.shape[axis + 1 :])
        return self.copy(x, shape, part, output, slice={axis: [*ends, step]})

    def cast(self, x: Value, dtype: DType, part: str = "") -> Value:
        """x in another type."""
        return x if x.dtype == dtype else self.map("{0}", x, to=dtype, part=part)

    def expand(self, x: Value, shape: Sequence[Extent], part: str = "") -> Value:
        """x broadcast to a shape."""
        found = broadcast(x.shape, shape)
        if found == x.shape:
            return x
        return self.map("{0} + 0" if x.dtype != DType.BOOL else "{0} or 0 != 0", x,
                        shape=found, part=part)  # fmt: skip

    def written(self, data: Array, dtype: DType, part: str = "") -> Value:
        """A small constant as an expression."""
        elements = list(data.ravel())
        if len(elements) > _MOST_WRITTEN:
            raise Unsupported(f"a computed constant of {len(elements)} elements")
        if not elements:
            raise Unsupported("a tensor without elements")
        texts = [literal(e) for e in elements]
        flat = texts[-1]
        if len(set(texts)) > 1:
            for n in reversed(range(len(texts) - 1)):
                flat = f"where(index(0) == {n}, {texts[n]}, {flat})"
        shape = data.shape if len(set(texts)) == 1 else (len(texts),)
        name = self._name(part, 0)
        self.graph.node("map", name=name, expr=flat, shape=list(shape), dtype=dtype.value)
        return self.reshape(self._made(name, shape, dtype, ()), data.shape, f"{part or 'as'}.shape")

    def whole(self, number: int, name: str) -> Value:
        """A whole number that is known."""
        return constant(name, np.array(number, np.int64), DType.I64)

    # Using --------------------------------------------------------------------------------

    def tensor(self, value: Value) -> str:
        """The name of a value in the graph; constants become weights, or maps of numbers."""
        if value.tensor is None:
            value.tensor = self._weight(value) if value.key is not None else self._number(value)
        return value.tensor

    def _weight(self, value: Value) -> str:
        name = self.names.new(value.name)
        self.graph.weight(
            name, key=value.key, shape=[stated(e) for e in value.shape], dtype=value.dtype.value
        )
        return name

    def _number(self, value: Value) -> str:
        data = value.data
        assert data is not None
        key = (value.dtype, data.shape, *map(str, data.ravel()[:_MOST_WRITTEN]))
        if data.size > _MOST_WRITTEN or key not in self._constants:
            self._constants[key] = self.written(data, value.dtype, f"const_{len(self._constants)}")
        return self.tensor(self._constants[key])

    def _terms(self, values: Sequence[Value]) -> tuple[list[str], dict[str, str]]:
        """What stands in an expression for each value, and tensors by their names there."""
        rank = max((v.rank for v in values if not _is_scalar(v)), default=-1)
        inline = [_is_scalar(v) and v.rank <= rank for v in values]
        texts, renamed = [""] * len(values), {}
        for n, value in enumerate(values):
            if inline[n]:
                texts[n] = literal(value.number())
                continue
            tensor = self.tensor(value)
            plain = SYMBOL.match(tensor) and not is_word(tensor) and tensor not in self.graph.dims
            texts[n] = tensor if plain else self._alias(n)
            renamed[texts[n]] = tensor
        return texts, renamed

    def _alias(self, n: int) -> str:
        name = _ALIASES[n % len(_ALIASES)]
        while name in self.graph or name in self.graph.dims:
            name += "_"
        return name

    def _name(self, part: str, output: int) -> str:
        assert self.node is not None
        base = self.node.outputs[output] if output < len(self.node.outputs) else ""
        base = base or self.node.name or self.node.op
        return self.names.new(f"{base.removesuffix('_output_0')}.{part}" if part else base)

    def _made(
        self, name: str, shape: Sequence[Extent], dtype: DType, read: Sequence[Value]
    ) -> Value:
        inputs = frozenset[str]().union(*(v.inputs for v in read))
        return Value(name, dtype, tuple(shape), tensor=name, origin=self.node, inputs=inputs)


def _nothing(graph: Any, given: Sequence[Value | None], part: str) -> list[Value]:
    raise Unsupported("a graph within a node")


def _is_scalar(value: Value) -> bool:
    return value.known and all(e == 1 for e in value.shape) and value.dtype != DType.BOOL


def literal(element: Any) -> str:
    """A number or an extent in an expression."""
    if isinstance(element, Poly):
        return f"({element})"
    if isinstance(element, (bool, np.bool_)):
        return str(int(element))
    if isinstance(element, (int, np.integer)):
        return str(int(element)) if element >= 0 else f"({int(element)})"
    number = float(element)
    text = repr(number)
    return f"({text})" if text.startswith("-") else text
