"""Questions of planning to a device: whether it supports a piece of work, and facts about it.

Planning asks about the work itself: this product with this bias, this Triton kernel over these
views. A device at hand asks its libraries or compiles the kernel. `named` answers for a device of
which only the name is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from graphexec.ir.program import Gemm, TritonKernel, Work
from graphexec.machine.blas_layout import why_no_epilogue


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a device supports a piece of work; `why` is the reason of a "no", for people.

    "unknown": it shows only when the plan is loaded, for example whether a HIP kernel compiles.
    """

    answer: Literal["yes", "no", "unknown"]
    why: str = ""

    @property
    def refused(self) -> bool:
        """Whether the device is known not to do the work."""
        return self.answer == "no"


YES = Support("yes")
UNKNOWN = Support("unknown")


def no(why: str) -> Support:
    """The work is not done, because of `why`."""
    return Support("no", why)


Asking = Callable[[Work], Support]


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a device that planning needs.

    programs        how many programs of a kernel fill it (its multiprocessors); 0: unknown
    any_batch       a GEMM whose batch axes no single stride walks is as fast as a strided batch
    """

    programs: int = 0
    any_batch: bool = False


OF_THE_CPU = Facts(any_batch=True)


class Hardware(Protocol):
    """What planning asks of a device. Every device that runs plans is one."""

    def support(self, work: Work) -> Support:
        """Whether it does this work; the same answer whenever it is asked."""
        ...

    def facts(self) -> Facts:
        """What planning must know of it."""
        ...


class Cpu:
    """The CPU device, which is the same on every machine."""

    def support(self, work: Work) -> Support:
        """Yes, except for a bias beside matrices that a BLAS does not take as they lie, and for a
        gelu, which a compiled kernel computes faster than NumPy."""
        why = why_no_epilogue(work) if isinstance(work, Gemm) else ""
        if isinstance(work, Gemm) and work.activation not in ("", "relu"):
            why = f"a kernel of its own computes {work.activation} faster"
        return no(why) if why else YES

    def facts(self) -> Facts:
        """Batches may lie anyhow."""
        return OF_THE_CPU


class Unknown:
    """A device that executes plain commands; nothing else is known of it."""

    def support(self, work: Work) -> Support:
        """Yes, except for work that only some devices support."""
        if isinstance(work, TritonKernel):
            return no(
                "for f16 and bf16 it is on AMD and NVIDIA GPUs with Triton (graphexec[fused])"
            )
        if isinstance(work, Gemm) and (work.bias is not None or work.activation):
            return no("no device is at hand that could be asked whether its products add one")
        return YES

    def facts(self) -> Facts:
        """Nothing."""
        return Facts()


def named(device: str) -> Hardware:
    """The assumptions about a device of which only the name is known."""
    return Cpu() if device == "cpu" else Unknown()
