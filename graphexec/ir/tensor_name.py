"""What a graph's methods return: the name of a tensor, which takes Python's operators.

    h = x + g.gelu(u)          y = x @ w.T          z = (a - b) ** 2 / n

Each operator is a map node of the graph, `@` one of a product. They are named map, map_1, … and
fused when the graph is compiled. A comparison of names by == stays one of texts: element by element
it is g.map("a == b", a=…, b=…).
"""

from __future__ import annotations

from collections.abc import Mapping
from keyword import iskeyword
from typing import Any, Protocol, TypeAlias

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import GraphError
from graphexec.ir.names import SYMBOL
from graphexec.ir.op import Op


class Graph(Protocol):
    """A graph, as far as its tensors need it."""

    name: str
    dims: dict[str, int]
    consts: dict[str, int | float | str]
    ops: Mapping[str, Op]

    def node(self, op: str, *operands: Any, **settings: Any) -> Tensor:
        """Add a node."""
        ...


Term: TypeAlias = "str | int | float | Transposed"


class Tensor(str):
    """The name of a tensor of a graph. It is a text, and takes + - * / // % ** @ < <= > >= and
    unary - with other tensors and numbers; `T` is the tensor with its last two axes exchanged, in a
    product."""

    __slots__ = ("graph",)
    graph: Graph

    @staticmethod
    def of(name: str, graph: Graph) -> Tensor:
        """The tensor called `name`."""
        tensor = Tensor(name)
        tensor.graph = graph
        return tensor

    @property
    def T(self) -> Transposed:
        """The tensor with its last two axes exchanged: a side of `@`."""
        return Transposed(self)

    def __add__(self, other: Term) -> Tensor:
        return _node(self.graph, "{} + {}", self, other)

    def __radd__(self, other: Term) -> Tensor:
        return _node(self.graph, "{} + {}", other, self)

    def __sub__(self, other: Term) -> Tensor:
        return _node(self.graph, "{} - {}", self, other)

    def __rsub__(self, other: Term) -> Tensor:
        return _node(self.graph, "{} - {}", other, self)

    def __mul__(self, other: Term) -> Tensor:  # type: ignore[override]
        return _node(self.graph, "{} * {}", self, other)

    def __rmul__(self, other: Term) -> Tensor:  # type: ignore[override]
        return _node(self.graph, "{} * {}", other, self)

    def __truediv__(self, other: Term) -> Tensor:
        return _node(self.graph, "{} / {}", self, other)

    def __rtruediv__(self, other: Term) -> Tensor:
        return _node(self.graph, "{} / {}", other, self)

    def __floordiv__(self, other: Term) -> Tensor:
        return _node(self.graph, "{} // {}", self, other)

    def __rfloordiv__(self, other: Term) -> Tensor:
        return _node(self.graph, "{} // {}", other, self)

    def __mod__(self, other: Term) -> Tensor:
        return _node(self.graph, "{} % {}", self, other)

    def __rmod__(self, other: Term) -> Tensor:
        return _node(self.graph, "{} % {}", other, self)

    def __pow__(self, other: Term) -> Tensor:
        return _node(self.graph, "{} ** {}", self, other)

    def __rpow__(self, other: Term) -> Tensor:
        return _node(self.graph, "{} ** {}", other, self)

    def __matmul__(self, other: Term) -> Tensor:
        return _node(self.graph, "{} @ {}", self, other)

    def __neg__(self) -> Tensor:
        return _node(self.graph, "-{}", self)

    def __abs__(self) -> Tensor:
        return _node(self.graph, "abs({})", self)

    def __lt__(self, other: Term) -> Tensor:  # type: ignore[override]
        return _node(self.graph, "{} < {}", self, other)

    def __le__(self, other: Term) -> Tensor:  # type: ignore[override]
        return _node(self.graph, "{} <= {}", self, other)

    def __gt__(self, other: Term) -> Tensor:  # type: ignore[override]
        return _node(self.graph, "{} > {}", self, other)

    def __ge__(self, other: Term) -> Tensor:  # type: ignore[override]
        return _node(self.graph, "{} >= {}", self, other)


class Transposed:
    """A tensor whose last two axes are exchanged in a product."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @property
    def T(self) -> Tensor:
        """The tensor as it lies."""
        return self.tensor

    def __matmul__(self, other: Term) -> Tensor:
        return _node(self.tensor.graph, "{} @ {}", self, other)

    def __rmatmul__(self, other: Term) -> Tensor:
        return _node(self.tensor.graph, "{} @ {}", other, self)


def call(
    graph: Graph, function: str, terms: tuple[Term, ...], settings: Mapping[str, Any]
) -> Tensor:
    """A map node of one function of the expression language: g.gelu(x), g.where(c, a, b)."""
    holes = ", ".join(["{}"] * len(terms))
    return _node(graph, f"{function}({holes})", *terms, **settings)


def _node(graph: Graph, form: str, *terms: Term, **settings: Any) -> Tensor:
    operands: dict[str, str] = {}
    texts = [_text(graph, term, operands, len(terms)) for term in terms]
    return graph.node("map", form.format(*texts), **operands, **settings)


def _text(graph: Graph, term: Term, operands: dict[str, str], count: int) -> str:
    """A term as it stands in the expression; tensors are added to `operands`."""
    if isinstance(term, Transposed):
        return f"T({_text(graph, term.tensor, operands, count)})"
    if isinstance(term, str):
        if isinstance(term, Tensor) and term.graph is not graph:
            raise _mistake(f"'{term}' is a tensor of another graph, '{term.graph.name}'")
        name = next((n for n, tensor in operands.items() if tensor == term), None)
        name = name or _name(graph, str(term), operands)
        operands[name] = str(term)
        return name
    value = term.item() if hasattr(term, "item") else term
    if not isinstance(value, int | float):
        raise _mistake(f"expected a tensor or a number, not {term!r}")
    text = repr(value)
    if isinstance(value, bool):
        text = str(int(value))
    return f"({text})" if text.startswith("-") else text


def _name(graph: Graph, tensor: str, operands: Mapping[str, str]) -> str:
    """The name of a tensor within the expression: its own, if it can be one there."""
    taken = {*operands, *graph.dims, *graph.consts, *_settings(graph)}
    if SYMBOL.match(tensor) and not iskeyword(tensor) and tensor not in taken:
        return tensor
    return next(name for n in range(1000) if (name := f"x{n}") not in taken)


def _settings(graph: Graph) -> set[str]:
    """What g.map takes by name besides tensors."""
    definition = graph.ops.get("map")
    attributes = () if definition is None else definition.attributes
    return {"name", "after", "shape", *(a.name for a in attributes)}


def _mistake(message: str) -> GraphError:
    return GraphError([Diagnostic(message)])
