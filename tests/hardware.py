"""Devices as planning sees them, of which no one need be at hand."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from graphexec.ir.program import Gemm, TritonKernel, Work
from graphexec.machine.blas_layout import RESULTS, why_no_epilogue
from graphexec.machine.support import YES, Facts, Support, no

TYPES = frozenset((d.value, out.value) for d, outs in RESULTS.items() for out in outs)
"""Types of the matrices and of the result of every product that a BLAS does."""
HALVES = frozenset({"f16", "bf16"})


def of(*types: str) -> frozenset[tuple[str, str]]:
    """ "f16" is a product of f16, "f16:f32" one with a result in f32."""
    pairs = (each.partition(":") for each in types)
    return frozenset((dtype, out or dtype) for dtype, _, out in pairs)


@dataclass(frozen=True)
class Chip:
    """A device that adds biases to products of some types and has attention for some.

    `biases`, `with_c` and `batches`: which products take a bias, one with beta · c, one of their
    own in a batch. `without` are products that it does not do all the same.
    """

    biases: Collection[tuple[str, str]] = TYPES
    with_c: Collection[tuple[str, str]] = TYPES
    batches: Collection[tuple[str, str]] = TYPES
    attention: Collection[str] = ()
    programs: int = 0
    any_batch: bool = True
    without: tuple[Gemm, ...] = field(default=())

    def facts(self) -> Facts:
        """Those that it was given."""
        return Facts(self.programs, self.any_batch)

    def support(self, work: Work) -> Support:
        """As the fields say."""
        if isinstance(work, TritonKernel):
            if work.entry == "attention" and work.views[0].dtype.value not in self.attention:
                return no(f"there is none for {work.views[0].dtype}")
            return YES
        if not isinstance(work, Gemm) or work.bias is None:
            return YES
        why = why_no_epilogue(work) or self._why_not(work)
        return no(why) if why else YES

    def _why_not(self, work: Gemm) -> str:
        types = work.a.dtype.value, work.out.dtype.value
        if types not in self.biases:
            return "the device adds no bias"
        if work.c is not None and types not in self.with_c:
            return "the device adds no c with the bias"
        if has_own_biases(work) and types not in self.batches:
            return "the device adds no bias of its own to each product of a batch"
        return "there is no algorithm" if work in self.without else ""


def has_own_biases(work: Gemm) -> bool:
    """Whether products of a batch have a bias each."""
    bias = work.bias
    assert bias is not None
    return any(step for step, e in zip(bias.strides[:-1], bias.shape[:-1], strict=True) if e > 1)


PLAIN = Chip(biases=())
"""A device that adds no bias."""


def without(chip: Chip, *works: Gemm) -> Chip:
    """The same device, which does not do these products."""
    return replace(chip, without=(*chip.without, *works))
