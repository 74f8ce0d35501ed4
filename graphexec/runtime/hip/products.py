"""The matrix products of a session: by hipBLAS, or by hipBLASLt with a chosen algorithm.

Each stream with GEMMs has handles of its own and one workspace. Both libraries use it, as a stream
runs in order. Choices come from a profile (graphexec.planning.profile). A product goes to hipBLAS
if no algorithm was chosen for it, if it needs arrays of pointers, if an operand is less aligned
than hipBLASLt's heuristic assumes, or if hipBLASLt is missing or has no such algorithm.

A product with a bias goes to hipBLASLt, which adds it in its epilogue, by the first algorithm of
the list unless another was chosen. `biased` says for which types it has one; should it have none
for some products of a plan, these have to do without (NotCapable).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

from graphexec.base.errors import NotCapable
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.plan import Launch
from graphexec.ir.program import ALIGNMENT, Gemm, GemmBatch
from graphexec.machine.costs import gemm_signature
from graphexec.machine.epilogue import (
    batch_capability,
    c_capability,
    capability,
    pairs,
    product_capability,
)
from graphexec.runtime.device import Step
from graphexec.runtime.hip.bindings import Bindings, BlasGemm, BlasLt, HipError, LtGemm
from graphexec.runtime.hip.gemm import GemmCall, gemm_call
from graphexec.runtime.hip.memory import WORKSPACE, Memory
from graphexec.runtime.hip.resources import Resources

Pointer = Any
Handle = Any

_EDGE = 64  # extent of the matrices of a query
_SOMEWHERE = 1 << 20  # an address: the alignment of a bias affects the list of algorithms


class Products:
    """Prepares the products of a plan; `algorithms` are places in hipBLASLt's list by the
    signature of a GEMM."""

    def __init__(
        self, hip: Bindings, bound: BoundPlan, resources: Resources, memory: Memory,
        algorithms: Mapping[str, int],
    ) -> None:  # fmt: skip
        self._hip, self._resources, self._memory = hip, resources, memory
        self._bound, self._algorithms = bound, algorithms
        self._workspaces: dict[int, Pointer] = {}
        self._lt_handles: dict[int, Handle] = {}
        self._handles = {s.blas_handle: self._handle(s.id) for s in bound.plan.streams
                         if s.blas_handle is not None}  # fmt: skip

    def prepare(self, work: Gemm, instruction: Launch) -> Step:
        """The product as one call."""
        if work.bias is not None:
            return self._with_bias(work, instruction)
        call, choice = gemm_call(work), self._choice(work)
        if choice is not None:
            step = self._by_lt(call, choice, instruction)
            if step is not None:
                return step
        return self._by_blas([call], instruction)

    def prepare_batch(self, work: GemmBatch, instruction: Launch) -> Step:
        """All products of a batch as one call."""
        return self._by_blas([gemm_call(member) for member in work.members], instruction)

    def _choice(self, work: Gemm) -> int | None:
        """The place of the chosen algorithm in hipBLASLt's list."""
        return self._algorithms.get(gemm_signature(work)) if self._algorithms else None

    def _with_bias(self, work: Gemm, instruction: Launch) -> Step:
        """The product whose bias the epilogue adds."""
        step = self._fused(work, instruction)
        if step is None:
            message = "hipBLASLt has no algorithm that adds the bias of this product"
            missing = {product_capability(work), *self._not_fused()}
            raise NotCapable(message, frozenset(missing), instruction.node)
        return step

    def _fused(self, work: Gemm, instruction: Launch) -> Step | None:
        """The same, or None where hipBLASLt has no algorithm."""
        call = gemm_call(work)
        for place in dict.fromkeys((self._choice(work) or 0, 0)):
            step = self._by_lt(call, place, instruction)
            if step is not None:
                return step
        return None

    def _not_fused(self) -> Iterator[str]:
        """What products of the plan lack: told all at once, so that there is one new plan."""
        for number, work in self._bound.work.items():
            launch = self._bound.plan.instructions[number]
            if not isinstance(launch, Launch) or not isinstance(work, Gemm):
                continue
            if work.bias is not None and self._fused(work, launch) is None:
                yield product_capability(work)

    def _by_blas(self, calls: Sequence[GemmCall], instruction: Launch) -> Step:
        """One BLAS call for calls that differ only in their addresses."""
        assert instruction.blas_handle is not None
        handle, node = self._handles[instruction.blas_handle], instruction.node
        blas, first = self._hip.blas, calls[0]
        a, b, c = map(self._memory.of, first.views)
        if len(calls) == 1 and first.offsets is None:
            return blas.gemm(handle, first.gemm, a, b, c, node=node)
        tables = [self._addresses(calls, operand) for operand in range(3)]
        gemm = replace(first.gemm, batch=len(tables[0]))
        over_a, over_b, over_c = (self._step(calls, n, table) for n, table in enumerate(tables))
        if over_a is not None and over_b is not None and over_c is not None:
            gemm = replace(gemm, stride_a=over_a, stride_b=over_b, stride_c=over_c)
            return blas.gemm(handle, gemm, a, b, c, node=node)
        a, b, c = map(self._memory.table, tables)
        return blas.gemm_batched(handle, gemm, a, b, c, node=node)

    def _addresses(self, calls: Sequence[GemmCall], operand: int) -> list[int]:
        """The addresses of the matrices of an operand."""
        return [
            int(self._memory.of(call.views[operand])) + offset
            for call in calls
            for offset in call.matrices[operand]
        ]

    def _step(self, calls: Sequence[GemmCall], operand: int, table: Sequence[int]) -> int | None:
        """The stride of the matrices in elements, if it is constant within one buffer: a strided
        batch is faster than arrays of pointers."""
        views = [call.views[operand] for call in calls]
        steps = {after - before for before, after in pairwise(table)}
        if len(steps) > 1 or len({self._memory.places[view.storage][0] for view in views}) > 1:
            return None
        step, odd = divmod(steps.pop(), views[0].dtype.itemsize)
        return None if odd or step < 0 else step

    def _by_lt(self, call: GemmCall, choice: int, instruction: Launch) -> Step | None:
        """The product by hipBLASLt; None if hipBLASLt cannot compute it."""
        # hipBLASLt's heuristic assumes this alignment by default.
        lt = self._hip.lt
        a, b, c, d, bias = (
            None if view is None else self._memory.of(view)
            for view in (call.a, call.b, call.c, call.d, call.bias)
        )  # fmt: skip
        places = [place for place in (a, b, c, d, bias) if place is not None]
        if lt is None or call.offsets or any(int(place) % ALIGNMENT for place in places):
            return None
        stream = instruction.stream
        try:
            product = lt.gemm(
                self._lt_handle(stream), call.gemm, a, b, c, self._resources.streams[stream],
                self._workspaces[stream], WORKSPACE, epilogue=_epilogue(call), bias=bias,
                stride_bias=call.stride_bias, d=d, node=instruction.node, choice=choice,
            )  # fmt: skip
        except HipError:
            return None
        self._resources.own(product, LtGemm.close)
        step: Step = product.step
        return step

    def _handle(self, stream: int) -> Handle:
        blas, own = self._hip.blas, self._resources.own
        handle = own(blas.create(), blas.destroy)
        workspace = own(self._hip.malloc(WORKSPACE), self._hip.free)
        # In this order: binding the stream resets the workspace.
        blas.set_stream(handle, self._resources.streams[stream])
        blas.set_workspace(handle, workspace, WORKSPACE)
        self._workspaces[stream] = workspace
        return handle

    def _lt_handle(self, stream: int) -> Handle:
        lt = self._hip.lt
        if stream not in self._lt_handles:
            self._lt_handles[stream] = self._resources.own(lt.create(), lt.destroy)
        return self._lt_handles[stream]


def count_algorithms(hip: Bindings, work: Gemm, most: int) -> int:
    """The number of algorithms hipBLASLt lists for a product with its epilogue, at most `most`; 0
    if hipBLASLt is missing or cannot compute it."""
    call, lt = gemm_call(work), hip.lt
    if lt is None or call.offsets:
        return 0
    handle = lt.create()
    try:
        return min(most, _listed(lt, handle, call.gemm, _epilogue(call), call.stride_bias))
    finally:
        lt.destroy(handle)


@cache
def biased(hip: Bindings, device: int) -> frozenset[str]:
    """Which capabilities to add a bias hipBLASLt has on a device: for these types of matrices and
    result it lists an algorithm. Asked once a process."""
    lt = hip.lt
    if lt is None:
        return frozenset()
    try:
        hip.set_device(device)
        handle = lt.create()
    except HipError:  # also where the library is missing
        return frozenset()
    try:
        return frozenset(_biased(lt, handle))
    finally:
        lt.destroy(handle)


def _biased(lt: BlasLt, handle: Handle) -> Iterator[str]:
    edge, step = _EDGE, _EDGE * _EDGE
    for dtype, out in pairs():
        gemm = BlasGemm(dtype.value, edge, edge, edge, edge, edge, edge, out_dtype=out.value)
        if not _listed(lt, handle, gemm, "BIAS"):
            continue
        yield capability(dtype, out)
        if out is dtype.accumulator:  # cuBLASLt rounds to the result's type before the bias
            yield c_capability(dtype, out)
        batch = replace(gemm, batch=2, stride_a=step, stride_b=step, stride_c=step)
        if _listed(lt, handle, batch, "BIAS", edge):
            yield batch_capability(dtype, out)


def _listed(lt: BlasLt, handle: Handle, gemm: BlasGemm, epilogue: str, stride_bias: int = 0) -> int:
    """The number of algorithms hipBLASLt lists; 0 if it does not support the product."""
    try:
        bias = None if epilogue == "DEFAULT" else _SOMEWHERE
        product = LtGemm(lt, gemm, epilogue, bias, stride_bias)
        try:
            return len(product.algorithms(handle, WORKSPACE))
        finally:
            product.close()
    except HipError:
        return 0


def _epilogue(call: GemmCall) -> str:
    return "DEFAULT" if call.bias is None else "BIAS"


__all__ = ["Products", "biased", "count_algorithms"]
