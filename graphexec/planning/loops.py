"""Commands that are generated from a Body, as loops over their elements, and two such loops as one.

Both must go through the same elements in one order: over the same shape, or one that strides can
turn into it. Of a row, both must see all of it; or the second goes through what the first has of
each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from graphexec.base.tensor import View
from graphexec.ir.body import Body, Writer
from graphexec.ir.op_error import OpError
from graphexec.ir.program import Command, Generates, Kernel

MAX_OPERANDS = 12
MAX_RESULTS = 4
MAX_STEPS = 400
Moved = Callable[[View], View | None]


@dataclass(frozen=True)
class Loop:
    """A command that is generated: its body, and what the operands and results are."""

    generated: Generates
    reads: tuple[View, ...]
    writes: tuple[View, ...]
    nodes: tuple[str, ...]  # of each result; empty if several are of one node

    @property
    def body(self) -> Body:
        """The body of the kernel."""
        return self.generated.body

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the kernel goes through."""
        return max((v.shape for v in (*self.writes, *self.reads)), key=_elements)


def loop_of(command: Command) -> Loop | None:
    """The command as a loop; None if its kernel is not generated or it is a batch."""
    work = command.work
    if not isinstance(work, Kernel) or work.generated is None or command.recipe is None:
        return None
    nodes = command.nodes or ((command.node,) if len(command.writes) == 1 else ())
    return Loop(work.generated, command.reads, command.writes, nodes)


def fused(first: Loop, second: Loop, keep: Sequence[int]) -> Loop | str:
    """One loop for both, which also stores the results of `first` numbered `keep`; or the reason
    why there is none."""
    if len(keep) and not (first.nodes and second.nodes):
        return "one of them has several results"
    stored = {view.storage: number for number, view in enumerate(first.writes)}
    each = _of_each_row(first, second, stored)
    if each is not None:
        kept = [first.writes[number] for number in keep]
        return _joined(first, each, stored, list(first.reads), kept, keep, first.shape)
    moved = _aligned(first, second, stored)
    if isinstance(moved, str):
        return moved
    reads = [moved(view) for view in first.reads]
    writes = [moved(first.writes[number]) for number in keep]
    if None in reads or None in writes:
        return "they go through their elements in different orders"
    found = [v for v in reads if v], [v for v in writes if v]
    return _joined(first, second, stored, *found, keep, second.shape)


def _joined(
    first: Loop, second: Loop, stored: dict[str, int], reads: list[View], kept: list[View],
    keep: Sequence[int], shape: tuple[int, ...],
) -> Loop | str:  # fmt: skip
    numbers: dict[View, int] = {}

    def load(view: View) -> int:
        return numbers.setdefault(view, len(numbers))

    loads = [load(view) for view in reads]
    try:
        if len(numbers) == len(reads):  # operands keep their numbers
            writer = Writer(first.body)
            results = writer.results
        else:
            writer = Writer()
            operands = zip(loads, reads, strict=True)
            results = writer.include(first.body, [writer.load(n, v.dtype) for n, v in operands])
        given = [
            results[stored[view.storage]] if view.storage in stored
            else writer.load(load(view), view.dtype)
            for view in second.reads
        ]  # fmt: skip
        found = writer.include(second.body, given)
    except OpError as exc:
        return str(exc)
    body = writer.body(*(results[number] for number in keep), *found)
    writes = (*kept, *second.writes)
    if len(numbers) > MAX_OPERANDS or len(writes) > MAX_RESULTS or len(body.steps) > MAX_STEPS:
        return "the one kernel would be too large"
    nodes = (*(first.nodes[number] for number in keep), *second.nodes)
    loop = Loop(first.generated.with_body(body), tuple(numbers), writes, nodes)
    if loop.shape != shape:  # coordinates alone were reduced
        return "nothing that the one kernel reads or stores would tell how long its rows are"
    return loop


# Orders of elements ---------------------------------------------------------------------------


def _aligned(first: Loop, second: Loop, stored: dict[str, int]) -> Moved | str:
    """How the views of `first` become views over the shape of `second`, such that each element is
    needed where it is computed; or why they do not."""
    wanted = [(stored[v.storage], v) for v in second.reads if v.storage in stored]
    for moved in _ways(first, second, wanted[0]):
        if all(_is_same(moved(first.writes[n]), view, second.shape) for n, view in wanted):
            return moved
    names = " and ".join(f"'{name}'" for name in (first.nodes or ("the first",))[:1])
    return f"the elements of {names} are needed in another order or shape"


def _of_each_row(first: Loop, second: Loop, stored: dict[str, int]) -> Loop | None:
    """`second` over the rows of `first`, if it goes through what `first` gives of each; None if it
    does not."""
    rows = (*first.shape[:-1], 1)
    if not first.body.reduces or second.body.reduces or second.body.indexes:
        return None
    if first.shape[-1] == 1 or _elements(rows) != _elements(second.shape):
        return None
    reads = [view.reshaped(rows) for view in second.reads]
    writes = [view.reshaped(rows) for view in second.writes]
    if None in reads or None in writes:
        return None
    given = [view for view in reads if view and view.storage in stored]
    if any(not _is_same(first.writes[stored[v.storage]], v, rows) for v in given):
        return None
    return replace(second, reads=tuple(v for v in reads if v), writes=tuple(v for v in writes if v))


def _ways(first: Loop, second: Loop, wanted: tuple[int, View]) -> Iterator[Moved]:
    shape = second.shape
    if first.shape == shape:
        yield lambda view: view
    if _elements(first.shape) != _elements(shape):
        return
    rows = first.body.reduces
    plain = not first.body.indexes or (
        _trimmed(first.shape) == _trimmed(shape) and -min(first.body.indexes) <= len(shape)
    )
    if plain and not (rows and first.shape[-1:] != shape[-1:]):
        reduced = (*shape[:-1], 1)
        yield lambda view: view.reshaped(shape if _elements(view.shape) > 1 and
                                         view.shape == first.shape else reduced)  # fmt: skip
    number, view = wanted
    axes = _permutation(first.writes[number], view)
    if axes is not None and not rows and not first.body.indexes:
        yield lambda view: view.transpose(axes)


def _is_same(found: View | None, wanted: View, shape: tuple[int, ...]) -> bool:
    """Whether two views have the same element at each place of a shape."""
    if found is None or len(found.shape) != len(shape):
        return False
    spread, other = found.broadcast_to(shape), wanted.broadcast_to(shape)
    return _normal(spread) == _normal(other)


def _normal(view: View) -> View:
    strides = tuple(s if e > 1 else 0 for e, s in zip(view.shape, view.strides, strict=True))
    return replace(view, strides=strides)


def _permutation(source: View, target: View) -> tuple[int, ...] | None:
    """The axes by which `source`, transposed, is `target`."""
    if len(source.shape) != len(target.shape):
        return None
    left = list(range(len(source.shape)))
    axes = []
    for extent, stride in zip(target.shape, target.strides, strict=True):
        found = next(
            (a for a in left if source.shape[a] == extent and
             (extent == 1 or source.strides[a] == stride)), None,
        )  # fmt: skip
        if found is None:
            return None
        left.remove(found)
        axes.append(found)
    return tuple(axes)


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    first = next((n for n, extent in enumerate(shape) if extent > 1), len(shape))
    return shape[first:]
