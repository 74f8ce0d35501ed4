"""The HIP kernel of a body without reductions: one thread a vector of neighbouring elements.

Axes are in the order in which the first result lies in memory, and merged where all operands allow
it. Operands that are walked alike share an offset, a *place*. A coordinate is the offset of a place
as well: its strides are 1 along its axis and 0 along the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from graphexec.base.tensor import View
from graphexec.ir.body import Body
from graphexec.ir.program import Compute, Kernel
from graphexec.ops.kit.generate.hip import OPTION, coordinate, statements
from graphexec.ops.kit.launch import Argument, element_type, integers, launch
from graphexec.ops.kit.strides import VECTOR_BYTES, axes, collapse, index_type, pieces

THREADS = 256
UNDER_WAY = 16  # bytes that a thread has under way, at least,
MANY_VECTORS = 1 << 19  # ... if there is enough for every thread of a large GPU
MOST_VECTORS = 4  # of a thread

Strides = tuple[int, ...]


@dataclass
class Places:
    """The different sets of strides, numbered in the order in which they were met."""

    found: list[Strides] = field(default_factory=list)

    def of(self, strides: Strides) -> int:
        """The number of a set."""
        if strides not in self.found:
            self.found.append(strides)
        return self.found.index(strides)


def elementwise(
    body: Body, reads: Sequence[View], writes: Sequence[View], compute: Compute
) -> Kernel:
    """The kernel over operands and results of one shape."""
    return _Elementwise(body, tuple(reads), tuple(writes)).kernel(compute)


class _Elementwise:
    """The choices for one set of views, and the text that follows from them."""

    def __init__(self, body: Body, reads: tuple[View, ...], writes: tuple[View, ...]) -> None:
        self.body, self.reads, self.writes = body, reads, writes
        self.views = (*reads, *writes)
        order = memory_order(writes[0])
        turned = [view.transpose(order) for view in self.views]
        rank = len(order)
        coordinates = [tuple(int(axis == rank + index) for axis in order) for index in body.indexes]
        self.shape, strides = collapse(
            turned[0].shape, *(view.strides for view in turned), *coordinates
        )
        self.strides = strides[: len(self.views)]
        places = Places()
        self.place = [places.of(s) for s in strides]
        self.places = places.found
        self.vector = self._vector()
        # A vector is one step along the last axis.
        self.extents, self.walked = collapse(
            (*self.shape[:-1], max(1, self.shape[-1] // self.vector)),
            *((*s[:-1], s[-1] * self.vector) for s in self.places),
        )
        self.vectors = prod(self.extents)
        self.per_thread = self._per_thread()

    def _vector(self) -> int:
        """Elements of a vector: none of its accesses has more than 16 bytes, and where results
        have neighbours, they are written at once."""
        near = [n for n, s in enumerate(self.strides) if s[-1] == 1]
        written = [n for n in near if n >= len(self.reads)]
        if not written:
            return 1
        width = VECTOR_BYTES // max(self.views[n].dtype.itemsize for n in near)
        for n in written:
            width = min(width, pieces(self.views[n], self.strides[n][:-1]))
        # With several axes, no vector reaches over the end of the last.
        while width > 1 and (
            self.shape[-1] % width if len(self.shape) > 1 else self.shape[-1] < width
        ):
            width //= 2
        return width

    def _per_thread(self) -> int:
        moving = [n for n, s in enumerate(self.strides) if s[-1]]
        loaded = sum(self.views[n].dtype.itemsize for n in moving if n < len(self.reads))
        stored = sum(view.dtype.itemsize for view in self.writes)
        nbytes = self.vector * (loaded or stored)
        if self.vectors < MANY_VECTORS:
            return 1
        return max(1, min(MOST_VECTORS, UNDER_WAY // nbytes))

    def piece(self, number: int) -> int:
        """Elements of view `number` that one instruction moves; 0 if all are the same."""
        strides = self.strides[number]
        if strides[-1] == 0:
            return 0
        if strides[-1] != 1:
            return 1
        return min(self.vector, pieces(self.views[number], strides[:-1]))

    def kernel(self, compute: Compute) -> Kernel:
        """The launch."""
        numbers = integers(prod(self.shape), *(s[-1] for s in self.places))
        args: tuple[Argument, ...] = (
            *self.views, *numbers, *axes(self.extents, *self.walked)
        )  # fmt: skip
        blocks = -(-self.vectors // (THREADS * self.per_thread))
        return launch(
            Path(__file__), "elementwise", args, blocks, THREADS, {}, compute,
            text="\n".join(self.text()) + "\n", options=(OPTION,),
        )  # fmt: skip

    # The text ---------------------------------------------------------------------------

    def text(self) -> Iterator[str]:
        """The lines of the source."""
        yield '#include "steps.h"'
        yield ""
        yield f"struct Steps {{ i64 step[{len(self.places)}]; }};  // from element to element"
        yield ""
        yield from self._element()
        yield ""
        yield from self._signature()
        yield from self._loop()
        if len(self.shape) == 1 and self.shape[0] % self.vector:
            yield from self._tail()
        yield "}"

    def _element(self) -> Iterator[str]:
        """The function of one element."""
        body = self.body
        yield "// One element of every result."
        parameters = [f"{element_type(d)} x{n}" for n, d in enumerate(body.operands)]
        parameters += [f"i32 {coordinate(axis)}" for axis in body.indexes]
        parameters += [f"{element_type(d)}& y{n}" for n, d in enumerate(body.dtypes)]
        yield f"DEVICE void element({', '.join(parameters)}) {{"
        for line in statements(body, range(len(body.steps))):
            yield f"    {line}"
        for n, (number, dtype) in enumerate(zip(body.results, body.dtypes, strict=True)):
            yield f"    y{n} = narrow<{element_type(dtype)}>(t{number});"
        yield "}"

    def _signature(self) -> Iterator[str]:
        parameters = [f"const {element_type(v.dtype)}* x{n}" for n, v in enumerate(self.reads)]
        parameters += [f"{element_type(v.dtype)}* y{n}" for n, v in enumerate(self.writes)]
        yield f'extern "C" __global__ void __launch_bounds__({THREADS})'
        yield f"elementwise({', '.join(parameters)}, i64 count, Steps steps,"
        yield f"            Axes<{len(self.places)}, {len(self.extents)}> axes) {{"

    def _loop(self) -> Iterator[str]:
        vector, each = self.vector, self.per_thread
        yield f"    const i64 vectors = count / {vector};"
        yield f"    constexpr i64 chunk = {THREADS * each};"
        yield "    const i64 stride = gridDim.x * chunk;"
        yield "    for (i64 first = blockIdx.x * chunk; first < vectors; first += stride) {"
        yield f"        i64 at[{each}][{len(self.places)}] = {{}};"
        for n, view in enumerate(self.reads):
            yield f"        {self._held(n, view)} a{n}[{each}];"
        yield f"        UNROLL for (int v = 0; v < {each}; ++v) {{"
        yield f"            const i64 n = first + v * {THREADS} + threadIdx.x;"
        yield "            if (n >= vectors) continue;"
        yield f"            locate(axes, static_cast<{index_type(self.vectors)}>(n), at[v]);"
        for n in range(len(self.reads)):
            yield f"            a{n}[v] = {self._loaded(n)};"
        yield "        }"
        yield f"        UNROLL for (int v = 0; v < {each}; ++v) {{"
        yield f"            if (first + v * {THREADS} + threadIdx.x >= vectors) continue;"
        yield from (f"            {line}" for line in self._computed())
        yield "        }"
        yield "    }"

    def _computed(self) -> Iterator[str]:
        """One vector of every result."""
        for n, view in enumerate(self.writes):
            yield f"Vector<{element_type(view.dtype)}, {self.vector}> b{n};"
        yield f"UNROLL for (int j = 0; j < {self.vector}; ++j) {{"
        for n, view in enumerate(self.writes):
            yield f"    {element_type(view.dtype)} e{n};"
        given = [f"a{n}[v].get(j)" if self.piece(n) else f"a{n}[v]" for n in range(len(self.reads))]
        given += self._coordinates("at[v][{p}] + ", "j")
        given += [f"e{n}" for n in range(len(self.writes))]
        yield f"    element({', '.join(given)});"
        for n in range(len(self.writes)):
            yield f"    b{n}.set(j, e{n});"
        yield "}"
        for n in range(len(self.writes)):
            place = self.place[len(self.reads) + n]
            piece = self.piece(len(self.reads) + n) or 1  # one element only has stride 0
            form = f"scatter<{self.vector}, {piece}>"
            yield f"{form}(y{n} + at[v][{place}], {self._step(place)}, b{n});"

    def _tail(self) -> Iterator[str]:
        """The elements behind the last whole vector."""
        yield f"    const i64 k = count / {self.vector} * {self.vector} + threadIdx.x;"
        yield "    if (blockIdx.x == 0 && k < count) {"
        names = [f"x{n}" for n in range(len(self.reads))]
        names += [f"y{n}" for n in range(len(self.writes))]
        given = [
            f"{name}[{self._times('k', place)}]"
            for name, place in zip(names, self.place, strict=False)
        ]
        given[len(self.reads) : len(self.reads)] = self._coordinates("", "k")
        yield f"        element({', '.join(given)});"
        yield "    }"

    def _coordinates(self, base: str, index: str) -> list[str]:
        places = self.place[len(self.views) :]
        return [f"i32({base.format(p=p)}{self._times(index, p)})" for p in places]

    def _held(self, number: int, view: View) -> str:
        kind = element_type(view.dtype)
        return f"Vector<{kind}, {self.vector}>" if self.piece(number) else kind

    def _loaded(self, number: int) -> str:
        place, piece = self.place[number], self.piece(number)
        if not piece:
            return f"x{number}[at[v][{place}]]"
        form = f"gather<{self.vector}, {piece}>"
        return f"{form}(x{number} + at[v][{place}], {self._step(place)})"

    def _step(self, place: int) -> str:
        step = self.places[place][-1]
        return str(step) if step in (0, 1) else f"steps.step[{place}]"

    def _times(self, index: str, place: int) -> str:
        """So many elements along the last axis, in a place."""
        step = self._step(place)
        return {"0": "0", "1": index}.get(step, f"{index} * {step}")


def memory_order(view: View) -> tuple[int, ...]:
    """Its axes, those first along which its elements lie farther apart."""
    steps = [
        0 if extent == 1 else abs(step)
        for extent, step in zip(view.shape, view.strides, strict=True)
    ]  # fmt: skip
    moving = sorted((a for a, step in enumerate(steps) if step), key=lambda a: -steps[a])
    return (*(axis for axis, step in enumerate(steps) if not step), *moving)
