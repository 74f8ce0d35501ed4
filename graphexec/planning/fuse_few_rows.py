"""fuse-few-rows: the kernel of a product of few rows goes on to compute the map that follows it.

    t = x @ T(w);  y = t * sigmoid(t) + h      y = x @ T(w), and the map of each element
    t = x @ T(w);  y = silu(t[:, :F]) * t[:, F:]      both halves by the same threads

The product is not stored, and not rounded. It must be read by the map alone, whose elements are in
the rows and columns of the product, or of windows of its columns. Maps are made one before
(fuse-maps); kernels of products are made by few-rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphexec.base.tensor import View
from graphexec.graph.rewriting import Note, ProgramRewrite, Target
from graphexec.ir.access import Access, In, Out, in_place, moved_bytes, recipe_of
from graphexec.ir.program import Command, Cost, Kernel, Program
from graphexec.planning.fuse_maps import Fusing
from graphexec.planning.loops import MAX_OPERANDS, Loop, loop_of


class _IntoProducts(Fusing):
    def run(self) -> None:
        """Each map with the last product that it reads."""
        for index, command in enumerate(self.commands):
            if command is None or loop_of(command) is None:
                continue
            products = [m for m in self.made_by_products(command) if m < index]
            if products:
                self.fuse(max(products), index)

    def made_by_products(self, command: Command) -> set[int]:
        """The commands whose kernel takes a body, of which a command reads the result."""
        found: set[int] = set()
        for view in command.reads:
            writers = self.writers.get(view.storage, set())
            found |= {w for w in writers if len(writers) == 1 and _takes_body(self.commands[w])}
        return found

    def fuse(self, first: int, second: int) -> int | None:
        """Make one command of a product and a map; where it is now, or None."""
        one, two = self.commands[first], self.commands[second]
        assert one is not None
        assert two is not None
        place = self.place(first, second, False)
        if not self.droppable(one.writes[0], second):
            found: Command | str = "others read the product as well"
        elif place is None:
            found = "what one of them needs or gives comes between"
        else:
            found = _fused(one, two)
        names = tuple(dict.fromkeys((*one.members, *two.members)))
        if isinstance(found, str):
            text = f"'{one.node}' and '{two.node}' stay apart: {found}"
            self.notes.append(Note(names, text, applied=False))
            return None
        assert place is not None
        text = f"'{one.node}' is computed within '{two.node}', and not stored"
        self.notes.append(Note(names, text))
        self.put(place, first + second - place, found)
        return place


def _takes_body(command: Command | None) -> bool:
    if command is None or command.recipe is None or command.nodes:
        return False
    return isinstance(command.work, Kernel) and command.work.epilogue is not None


def _fused(one: Command, two: Command) -> Command | str:
    """The command of a product and of the map of its elements, or why there is none."""
    loop, work, product = loop_of(two), one.work, one.writes[0]
    assert loop is not None
    assert isinstance(work, Kernel)
    assert work.epilogue is not None
    parts = _parts(loop, product)
    if isinstance(parts, str):
        return parts
    b = next(view for view in work.args[1:] if isinstance(view, View))
    make = work.epilogue.with_body(loop.body, parts, b)
    if isinstance(make, str):
        return make
    more = [v.broadcast_to(loop.shape) for v, p in zip(loop.reads, parts, strict=True) if p is None]
    if len(more) > MAX_OPERANDS:
        return "the one kernel would read too many tensors"
    reads = (*one.reads, *more)
    # What the body reads is read by the thread that writes the same element; so is c.
    over = tuple(view for view in reads[2:] if view.shape == loop.shape)
    accesses: tuple[Access, ...] = (
        *(In(view, strided=True) for view in reads), Out(two.writes[0], over=over)
    )  # fmt: skip
    return replace(
        two,
        label=f"{one.label} + {two.label}",
        work=make(*reads, two.writes[0]),
        reads=reads,
        cost=Cost(one.cost.flops + two.cost.flops, moved_bytes(accesses)),
        after=tuple(sorted({*one.after, *two.after})),
        after_nodes=tuple(dict.fromkeys((*one.after_nodes, *two.after_nodes))),
        inplace=in_place(accesses),
        recipe=recipe_of(make, accesses),
        instead=None,
    )


def _parts(loop: Loop, product: View) -> Sequence[int | None] | str:
    """For each operand of a map the first column of the product that it reads; None for others."""
    found: list[int | None] = []
    shape = loop.shape
    if shape[:-1] != product.shape[:-1] or len(loop.writes) > 1 or loop.writes[0].shape != shape:
        return "the map goes through the elements of the product in another shape"
    for view in loop.reads:
        if view.storage != product.storage:
            found.append(None)
            continue
        column = view.offset - product.offset
        inside = 0 <= column <= product.shape[-1] - shape[-1]
        window = replace(product, shape=shape, offset=view.offset)
        if not inside or view.dtype is not product.dtype or _normal(view) != _normal(window):
            return "the map reads the product in another order"
        found.append(column)
    return found


def _normal(view: View) -> View:
    strides = tuple(s if e > 1 else 0 for e, s in zip(view.shape, view.strides, strict=True))
    return replace(view, strides=strides)


def apply(program: Program, target: Target) -> tuple[Program, tuple[Note, ...]]:
    """`program` with maps within the products before them."""
    if not any(_takes_body(command) for command in program.commands):
        return program, ()
    fusing = _IntoProducts(program)
    fusing.run()
    return fusing.result(), tuple(fusing.notes)


REWRITE = ProgramRewrite(
    "fuse-few-rows", "maps within the kernels of products of few rows", apply, lengthens=True
)
