"""How a command accesses each of its views, stated where the kernel is called.

`In`, `Out` and `InOut` determine the reads and writes of a command, the bytes that it moves, the
results that may be written in place, and how its kernel is made again over other views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

from graphexec.base.tensor import View
from graphexec.ir.op_fault import remade
from graphexec.ir.program import Command, Kernel, Recipe, TritonKernel


@dataclass(frozen=True, slots=True)
class In:
    """A view that the kernel reads.

    `strided`: the kernel takes any strides. Dense views of the members of a batch may lie apart, so
    that the view over all of them is not dense. Without `strided`, a dense view stays dense in a
    batch, or no batch is made.
    """

    view: View
    strided: bool = False


@dataclass(frozen=True, slots=True)
class Out:
    """A view that the kernel writes and does not read.

    Its bytes may be those of a view in `over`: the kernel reads each element of that view before it
    writes the same element. Views in `over` that are not dense, or of another size, are ignored.
    """

    view: View
    over: tuple[View, ...] = ()


@dataclass(frozen=True, slots=True)
class InOut:
    """A view that the kernel reads and writes: each element before the same one is written."""

    view: View


Access = In | Out | InOut

Make = Callable[..., Kernel | TritonKernel]
"""`make(*views)` is a kernel over views in the order in which their accesses were stated. Further
leading axes, the same in all of them, are a batch. Equal ones make equal kernels, so it is a
function of a module or a frozen dataclass."""


def reads_of(accesses: Sequence[Access]) -> tuple[View, ...]:
    """What is read, in order."""
    return tuple(a.view for a in accesses if not isinstance(a, Out))


def writes_of(accesses: Sequence[Access]) -> tuple[View, ...]:
    """What is written, in order."""
    return tuple(a.view for a in accesses if not isinstance(a, In))


def in_place(accesses: Sequence[Access]) -> tuple[tuple[int, int], ...]:
    """Pairs (index in reads, index in writes) of views that may be the same bytes."""
    reads, pairs, place = reads_of(accesses), list[tuple[int, int]](), 0
    for access in accesses:
        if isinstance(access, In):
            continue
        over = access.over if isinstance(access, Out) else (access.view,)
        pairs += [
            (read, place) for read, view in enumerate(reads)
            if over and view in over and _same_bytes(view, access.view)
        ]  # fmt: skip
        place += 1
    return tuple(pairs)


def moved_bytes(accesses: Sequence[Access]) -> int:
    """Bytes read plus bytes written; a broadcast element counts once."""
    return sum(distinct_bytes(a.view) * (2 if isinstance(a, InOut) else 1) for a in accesses)


def distinct_bytes(view: View) -> int:
    """Bytes of the elements, those of a broadcast axis counted once."""
    if 0 not in view.strides:
        return view.elements * view.dtype.itemsize
    extents = (e for e, step in zip(view.shape, view.strides, strict=True) if step)
    return prod(extents) * view.dtype.itemsize


def recipe_of(make: Make, accesses: Sequence[Access]) -> Recipe:
    """`make` as a Recipe, which takes the reads and the writes as two lists."""
    # What is written is dense in every batch (graphexec.planning.batch).
    order = tuple(
        (type(a).__name__, isinstance(a, In) and not a.strided and a.view.is_dense)
        for a in accesses
    )
    return (_WithVariants if hasattr(make, "variants") else _Arranged)(make, order)


@dataclass(frozen=True)
class _Arranged:
    """A recipe that puts reads and writes back into the order of the call."""

    make: Make
    order: tuple[tuple[str, bool], ...]  # the access, and whether its view must be dense

    def __call__(
        self, reads: Sequence[View], writes: Sequence[View]
    ) -> Kernel | TritonKernel | None:
        views = list(self._views(reads, writes))
        needed = zip(views, self.order, strict=True)
        if any(dense and not view.is_dense for view, (_, dense) in needed):
            return None
        return remade(self.make, views)  # type: ignore[no-any-return]

    def _views(self, reads: Sequence[View], writes: Sequence[View]) -> Iterator[View]:
        read, written = iter(reads), iter(writes)
        for access, _ in self.order:
            view = next(written if access == "Out" else read)
            if access == "InOut":
                next(written)
            yield view


class _WithVariants(_Arranged):
    """The same for a `make` that has other kernels for the same work."""

    def variants(
        self, reads: Sequence[View], writes: Sequence[View]
    ) -> Sequence[Kernel | TritonKernel]:
        """The other kernels (graphexec.machine.variants)."""
        found: Sequence[Kernel | TritonKernel] = self.make.variants(  # type: ignore[attr-defined]
            *self._views(reads, writes)
        )
        return found


def undeclared(command: Command) -> View | None:
    """A view among the arguments of the command's kernel that neither its reads nor its writes
    cover; None if there is none."""
    work = command.work
    if isinstance(work, Kernel):
        given = [argument for argument in work.args if isinstance(argument, View)]
    elif isinstance(work, TritonKernel):
        given = list(work.views)
    else:  # products and copies hold the views that they read and write
        return None
    declared = (*command.reads, *command.writes)
    return next((v for v in given if v not in declared and not _covered(v, declared)), None)


def _covered(view: View, declared: Sequence[View]) -> bool:
    low, high = view.byte_range()
    ranges = [v.byte_range() for v in declared if v.storage == view.storage]
    return any(first <= low and high <= last for first, last in ranges)


def _same_bytes(one: View, other: View) -> bool:
    size = one.elements * one.dtype.itemsize
    return one.is_dense and other.is_dense and size == other.elements * other.dtype.itemsize
