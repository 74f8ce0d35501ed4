"""The matrix products of a session: by hipBLAS, or by hipBLASLt with a chosen algorithm.

Each stream with GEMMs has handles of its own and one workspace. Both libraries use it, as a stream
runs in order. Choices come from a profile (graphexec.planning.profile). A product goes to hipBLAS
if no algorithm was chosen for it, if it needs arrays of pointers, if an operand is less aligned
than hipBLASLt's heuristic assumes, or if hipBLASLt is missing or has no such algorithm.

A product with a bias goes to hipBLASLt, which adds it in its epilogue, by the first algorithm of
the list unless another was chosen. Whether there is one is asked while a plan is made (`support`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

from graphexec.base.errors import ExecutionError
from graphexec.base.interrupts import own, uninterrupted
from graphexec.ir.bound_plan import BoundPlan
from graphexec.ir.plan import Launch
from graphexec.ir.program import ALIGNMENT, Gemm, GemmBatch
from graphexec.machine.blas_layout import why_no_epilogue
from graphexec.machine.costs import gemm_signature
from graphexec.machine.support import YES, Support, no
from graphexec.runtime.device import Step
from graphexec.runtime.hip.bindings import Bindings, BlasGemm, BlasLt, HipError, LtGemm
from graphexec.runtime.hip.blaslt import NoAlgorithm
from graphexec.runtime.hip.gemm import GemmCall, gemm_call
from graphexec.runtime.hip.memory import WORKSPACE, Memory
from graphexec.runtime.hip.resources import Resources
from graphexec.runtime.hip.status import NO_STATUS

Pointer = Any
Handle = Any

NO_LIBRARY = "there is no hipBLASLt (hip-python 10 has it)"
_NOT_TAKEN = (NO_STATUS, 3, 7, 8)  # no library, a value, a combination or a GPU it does not take
_SOMEWHERE = 1 << 20  # an address: how aligned a bias is counts when algorithms are listed


class Products:
    """Prepares the products of a plan; `algorithms` are places in hipBLASLt's list by the
    signature of a GEMM. `anywhere`: the same calls wherever operands lie in the arena."""

    def __init__(
        self, hip: Bindings, bound: BoundPlan, resources: Resources, memory: Memory,
        algorithms: Mapping[str, int], anywhere: bool = False,
    ) -> None:  # fmt: skip
        self._hip, self._resources, self._memory = hip, resources, memory
        self._bound, self._algorithms, self._anywhere = bound, algorithms, anywhere
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
        """The product whose bias the epilogue adds; ExecutionError where that fails."""
        call, choice = gemm_call(work), self._choice(work)
        step = self._by_lt(call, choice, instruction) if choice else None
        if step is None:
            why = self._why_not_lt(call)
            if why:
                raise ExecutionError(f"hipBLASLt cannot add the bias: {why}", instruction.node)
            step = self._prepared(call, 0, instruction)
        return step

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
        # Whether operands of several products happen to lie at a stride depends on the schedule.
        pointers = len(calls) > 1 and self._anywhere
        if not pointers and over_a is not None and over_b is not None and over_c is not None:
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
        """The product by hipBLASLt; None where it has no such algorithm, does not take the product,
        or cannot be loaded. HipError where a call fails for another reason."""
        if self._why_not_lt(call):
            return None
        try:
            return self._prepared(call, choice, instruction)
        except HipError as exc:
            if isinstance(exc, NoAlgorithm) or exc.code in _NOT_TAKEN:
                return None
            raise

    def _why_not_lt(self, call: GemmCall) -> str:
        """Why hipBLASLt cannot be given a product; "" if it can."""
        if self._hip.lt is None:
            return NO_LIBRARY
        if call.offsets:
            return "it takes no arrays of pointers"
        # hipBLASLt's heuristic expects that much of addresses unless told otherwise.
        views = [v for v in (call.a, call.b, call.c, call.d, call.bias) if v is not None]
        if any(int(self._memory.of(view)) % ALIGNMENT for view in views):
            return f"an operand does not begin at a multiple of {ALIGNMENT} bytes"
        return ""

    def _prepared(self, call: GemmCall, choice: int, instruction: Launch) -> Step:
        lt, stream = self._hip.lt, instruction.stream
        a, b, c, d, bias = (
            None if view is None else self._memory.of(view)
            for view in (call.a, call.b, call.c, call.d, call.bias)
        )
        handle = self._lt_handle(stream)
        product = self._resources.own(lambda: lt.gemm(
            handle, call.gemm, a, b, c, self._resources.streams[stream],
            self._workspaces[stream], WORKSPACE, epilogue=_epilogue(call), bias=bias,
            stride_bias=call.stride_bias, d=d, node=instruction.node, choice=choice,
        ), LtGemm.close)  # fmt: skip
        step: Step = product.step
        return step

    def _handle(self, stream: int) -> Handle:
        blas, own = self._hip.blas, self._resources.own
        handle = own(blas.create, blas.destroy)
        workspace = own(lambda: self._hip.malloc(WORKSPACE), self._hip.free)
        # In this order: binding the stream resets the workspace.
        blas.set_stream(handle, self._resources.streams[stream])
        blas.set_workspace(handle, workspace, WORKSPACE)
        self._workspaces[stream] = workspace
        return handle

    def _lt_handle(self, stream: int) -> Handle:
        lt = self._hip.lt
        if stream not in self._lt_handles:
            self._lt_handles[stream] = self._resources.own(lt.create, lt.destroy)
        return self._lt_handles[stream]


def support(hip: Bindings, device: int, work: Gemm) -> Support:
    """Whether a product is done as it is: hipBLAS does every one without a bias, hipBLASLt those
    with one for which it lists an algorithm. It is asked once a process for each."""
    if work.bias is None:
        return no("it applies no activation without a bias") if work.activation else YES
    why = why_no_epilogue(work)
    if why:
        return no(why)
    if work.c is not None and work.out.dtype is not work.a.dtype.accumulator:
        # cuBLASLt rounds the product to the result's type before what is added.
        return no(f"the product would be rounded to {work.out.dtype} before both are added")
    call = gemm_call(work)
    if work.activation == "gelu_tanh" and work.out.dtype.itemsize > 2:
        return no("gelu_tanh is as exact as hipBLASLt computes it in half precision only")
    why = _why_no_algorithm(hip, device, call.gemm, call.stride_bias, _epilogue(call))
    return no(why) if why else YES


@cache
def _why_no_algorithm(
    hip: Bindings, device: int, gemm: BlasGemm, stride_bias: int, epilogue: str
) -> str:
    if hip.lt is None:
        return NO_LIBRARY
    try:
        hip.set_device(device)
        found = _listed(hip.lt, gemm, epilogue, stride_bias)
    except HipError as exc:  # also where the library cannot be loaded
        return f"hipBLASLt does not add this bias: {exc}"
    return "" if found else "hipBLASLt has no algorithm that adds the bias of this product"


def count_algorithms(hip: Bindings, work: Gemm, most: int) -> int:
    """The number of algorithms hipBLASLt lists for a product with its epilogue, at most `most`; 0
    if hipBLASLt is missing or cannot compute it."""
    call, lt = gemm_call(work), hip.lt
    if lt is None or call.offsets:
        return 0
    try:
        return min(most, _listed(lt, call.gemm, _epilogue(call), call.stride_bias))
    except HipError:
        return 0


def _listed(lt: BlasLt, gemm: BlasGemm, epilogue: str, stride_bias: int) -> int:
    """How many algorithms hipBLASLt lists for a product."""
    bias = None if epilogue == "DEFAULT" else _SOMEWHERE
    with ExitStack() as owned:
        handle = own(owned, lt.create, lt.destroy)
        product = own(owned, lambda: LtGemm(lt, gemm, epilogue, bias, stride_bias), LtGemm.close)
        return len(uninterrupted(lambda: product.algorithms(handle, WORKSPACE)))


def _epilogue(call: GemmCall) -> str:
    """hipBLASLt's name for what follows the product."""
    if call.bias is None:
        return "DEFAULT"
    return {"": "BIAS", "relu": "RELU_BIAS", "gelu_tanh": "GELU_BIAS"}[call.activation]
