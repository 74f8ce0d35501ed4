"""Inputs of other sizes: their dims are solved, and the plan for these is kept for the next time.

The value of a dim follows from an input whose declared shape has the dim itself as an extent.
Extents that are expressions ("S // 2") are checked once all dims are known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import DataError
from graphexec.frontend.expand import fixed_dims
from graphexec.ir.graph import Graph, Input

LIMIT = 8
"""How many executables of other sizes an executable keeps."""

Shape = tuple[int, ...]
Dims = Mapping[str, int]


class Closable(Protocol):
    """What is kept: an executable, say."""

    def close(self) -> None:
        """Give up what it holds."""


Kept = TypeVar("Kept", bound=Closable)


class PlanCache(Generic[Kept]):
    """Executables of one graph at other sizes. The least recently used is closed first."""

    def __init__(self, graph: Graph, limit: int = LIMIT) -> None:
        self._graph, self._limit = graph, limit
        self._kept: OrderedDict[tuple[tuple[str, int], ...], Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, shapes: Mapping[str, Shape], make: Callable[[Graph], Kept]) -> Kept | None:
        """The executable for inputs of these shapes, by `make` if it is new; None if the dims are
        those of the graph.

        Raises DataError if inputs disagree, and what compiling raises.
        """
        dims = solve_dims(self._graph, shapes)
        _check_fixed(self._graph, dims)
        if all(self._graph.dims[name] == extent for name, extent in dims.items()):
            return None
        key = tuple(sorted(dims.items()))
        if key not in self._kept:
            made = make(self._graph.with_dims(**dims))
            while len(self._kept) >= self._limit:
                self._kept.popitem(last=False)[1].close()
            self._kept[key] = made
        self._kept.move_to_end(key)
        return self._kept[key]

    def close(self) -> None:
        """Close all."""
        while self._kept:
            self._kept.popitem()[1].close()


def solve_dims(graph: Graph, shapes: Mapping[str, Shape]) -> dict[str, int]:
    """The dims that inputs of these shapes have. Raises DataError, all mistakes at once."""
    dims: dict[str, int] = {}
    told: dict[str, str] = {}  # who said so
    mistakes: list[Diagnostic] = []
    for name, shape in shapes.items():
        declared = graph.inputs[name]
        if len(shape) != len(declared.shape):
            mistakes.append(_mistake(graph, declared, shape, "the numbers of axes differ"))
            continue
        for axis, (extent, dim) in enumerate(zip(shape, declared.shape, strict=True)):
            if isinstance(dim, int):
                if extent != dim:
                    why = f"axis {axis} is {dim} whatever the dims are"
                    mistakes.append(_mistake(graph, declared, shape, why))
            elif dim in graph.dims and dims.setdefault(dim, extent) == extent:
                told.setdefault(dim, f"axis {axis} of input '{name}'")
            elif dim in graph.dims:
                why = f"'{dim}' is {extent} by axis {axis}, but {dims[dim]} by {told[dim]}"
                mistakes.append(_mistake(graph, declared, shape, why))
                break
    if mistakes:
        raise DataError(mistakes)
    return dims


def _check_fixed(graph: Graph, dims: Dims) -> None:
    """The number of repetitions of a block is that of the compiled graph."""
    mistakes = [
        Diagnostic(
            f"the repeat of '{node}' has the dim '{name}', which is {graph.dims[name]} since the "
            f"graph was compiled; the inputs say {dims[name]}",
            help=f"graph.with_dims({name}={dims[name]}) is a graph to compile",
        )
        for name, node in fixed_dims(graph).items()
        if dims.get(name, graph.dims[name]) != graph.dims[name]
    ]  # fmt: skip
    if mistakes:
        raise DataError(mistakes)


def does_not_fit(graph: Graph, dims: Dims, shapes: Mapping[str, tuple[Shape, Shape]]) -> DataError:
    """The error for inputs whose shapes, (found, expected), fit no dims."""
    known = ", ".join(f"{name}={extent}" for name, extent in dims.items())
    where = f" with {known}" if known else ""
    return DataError([
        _mistake(graph, graph.inputs[name], found, f"expected {list(expected)}{where}")
        for name, (found, expected) in shapes.items()
    ])  # fmt: skip


def _mistake(graph: Graph, input: Input, shape: Shape, why: str) -> Diagnostic:
    declared = ", ".join(map(str, input.shape))
    return graph.error(f"an array of shape {list(shape)} is given for input '{input.name}', "
                       f"declared as [{declared}]: {why}", input, "shape")  # fmt: skip
