"""Kernels that are generated from a body (graphexec.ir.body)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from graphexec.base.tensor import View
from graphexec.ir.access import Access, In, Out
from graphexec.ir.body import Body
from graphexec.ir.op import Call
from graphexec.ir.program import Command, Kernel
from graphexec.ops.kit.generate.elementwise import elementwise
from graphexec.ops.kit.generate.on_cpu import compute_of
from graphexec.ops.kit.generate.rows import rows


@dataclass(frozen=True)
class Generated:
    """The kernel of a body, over its operands and then its results, all over one iteration shape.

    Results of reductions have extent 1 along the last axis, which is the one that is reduced.
    """

    body: Body

    def __call__(self, *views: View) -> Kernel:
        """The kernel over these views."""
        storages = list(dict.fromkeys(view.storage for view in views))
        number = {storage: str(n) for n, storage in enumerate(storages)}
        alike = tuple(replace(view, storage=number[view.storage]) for view in views)
        constants = tuple(repr(step.value) for step in self.body.steps)
        kernel = kernel_of(self.body, constants, alike)
        args = tuple(
            replace(arg, storage=storages[int(arg.storage)]) if isinstance(arg, View) else arg
            for arg in kernel.args
        )
        return replace(kernel, args=args, generated=self)

    def with_body(self, body: Body) -> Generated:
        """The same for another body."""
        return Generated(body)


@lru_cache(maxsize=256)
def kernel_of(body: Body, constants: tuple[str, ...], views: tuple[View, ...]) -> Kernel:
    """The kernel over views of numbered storages. Layers repeat, so equal ones are made once;
    `constants` tell apart bodies that are equal but for 0.0 and -0.0, 1 and 1.0."""
    shape = tuple(max(extents) for extents in zip(*(v.shape for v in views), strict=True))
    count = len(views) - len(body.results)
    reads = [view.broadcast_to(shape) for view in views[:count]]
    make = rows if body.reduces else elementwise
    return make(body, reads, views[count:], compute_of(body))


def generated(
    call: Call, label: str, body: Body, reads: Sequence[View], writes: Sequence[View],
    shape: tuple[int, ...] | None = None,
) -> Command:  # fmt: skip
    """The command of a body. Operands are broadcast to the iteration shape, by default that of the
    first result. A result may lie over any operand: elements are read before they are written."""
    shape = writes[0].shape if shape is None else shape
    views = tuple(view.broadcast_to(shape) for view in reads)
    accesses: list[Access] = [In(view, strided=True) for view in views]
    accesses += [Out(view, over=views) for view in writes]
    elements = 1
    for extent in shape:
        elements *= extent
    flops = max(1, body.flops) * elements
    return call.kernel(label, Generated(body), *accesses, flops=flops)
