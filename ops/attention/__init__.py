"""attention: softmax(scale · q · kᵀ + mask) · v in one command, without the scores in memory."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from graphexec.base.tensor import Array, DType, TensorType, View
from graphexec.ir.approximate import Approximate, Approximates, finite, unit_roundoff
from graphexec.ir.op import Arrays, Attribute, Attrs, Call, Op, Operand, Types, Views
from graphexec.ir.operand import FLOATS, Shapes
from graphexec.ir.program import Command, TritonKernel
from graphexec.machine.blas_layout import goes_back, is_well_aligned, matrix_layout
from graphexec.ops.attention import lengths
from graphexec.ops.attention.in_parts import as_parts, parts_of
from graphexec.ops.attention.limits import limited
from graphexec.ops.attention.on_gpu import Flash
from graphexec.ops.attention.problem import LARGEST_HEAD, Problem, addend
from graphexec.ops.attention.unfused import unfused
from graphexec.ops.kit.rounding import logits_error, product_error, softmax_error, stored
from graphexec.ops.softmax import softmax_reference

_PLACES = (DType.I32, DType.I64)


class Attention(Op):
    """See `doc`."""

    name = "attention"
    doc = (
        "softmax(scale · q · kᵀ + mask) · v. Leading axes are batches and broadcast by NumPy's "
        "rules, so grouped-query heads share k and v. The scores never lie in memory where the "
        "device computes this in one command: the CPU, and GPUs for f16 and bf16 with Triton. "
        "A query that sees no key gives zeros. Sums are kept in f32 (f64 for f64). Key j is seen "
        "iff j < length, and if causal, j ≤ p, and with a window, j > p - window, where p = "
        "start + i for query i of M. Without them, length is N and start is length - M. `length`, "
        "`at` and `start` have the shape [], or one element for each entry of axis 0."
    )
    operands = (
        Operand("q", "queries", shape="(…, M, D)", turned="trans_q"),
        Operand("k", "keys", shape="(…, N, D)", dtype="q", turned="trans_k"),
        Operand("v", "values", shape="(…, N, Dv)", dtype="q", turned="trans_v"),
        Operand(
            "mask",
            "added to scale · q · kᵀ; bools: whether the key is seen",
            optional=True,
            shape="broadcast to (…, M, N)",
            dtype=(*FLOATS, DType.BOOL),
        ),
        Operand("length", "how many keys there are (default: N)", optional=True, dtype=_PLACES),
        Operand("at", "instead of length: it is at + M", optional=True, dtype=_PLACES),
        Operand(
            "start",
            "the place of the first query among the keys (default: length - M)",
            optional=True,
            dtype=_PLACES,
        ),
    )
    result = "(…, M, Dv)"
    attributes = (
        Attribute("scale", "number", None, "factor of q · kᵀ (default: D ** -0.5)"),
        Attribute("causal", "bool", False,
                  "query i of M sees keys j ≤ i + N - M only: the last query sees every key"),
        Attribute("window", "int", None, "how many keys a query sees at most, up to its own place"),
        Attribute("softcap", "number", None,
                  "c: scores s, after scale and before the mask, become c · tanh(s / c)"),
        Attribute("trans_q", "bool", False, "q is (…, D, M)"),
        Attribute("trans_k", "bool", False, "k is (…, D, N)"),
        Attribute("trans_v", "bool", False, "v is (…, Dv, N)"),
        Attribute(
            "out_dtype", "dtype", None, "element type of the result (default: that of q)", FLOATS
        ),
    )  # fmt: skip

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        """The type of the result."""
        for operand in self.operands:
            if operand.name in lengths.NAMES and operand.name in types:  # of no common shape
                given = {operand.name: types[operand.name]}
                Shapes([operand], given, attrs, "(…)")
        result = super().infer({n: t for n, t in types.items() if n not in lengths.NAMES}, attrs)
        lengths.check(types, attrs, result)
        return replace(result, dtype=attrs["out_dtype"] or result.dtype)

    def flops(self, types: Types, attrs: Attrs, type: TensorType) -> int:
        """2·M·N·(D + Dv) operations a batch, halved by causal."""
        head = types["q"].shape[-2 if attrs["trans_q"] else -1]
        keys = types["k"].shape[-1 if attrs["trans_k"] else -2]
        flops = 2 * prod(type.shape[:-1]) * keys * (head + type.shape[-1])
        return flops // 2 if attrs["causal"] else flops

    def reference(self, arrays: Arrays, attrs: Attrs, type: TensorType) -> Array:
        """The definition, in float64, with all scores in memory."""
        q, k, v = (
            arrays[name].swapaxes(-1, -2) if attrs[f"trans_{name}"] else arrays[name]
            for name in "qkv"
        )
        z = _logits(np.matmul(q, k.swapaxes(-1, -2)), scale_of(q.shape, attrs), arrays, attrs)
        result: Array = np.matmul(softmax_reference(z, -1), v)
        return result

    def error(self, operands: Approximates, attrs: Attrs, type: TensorType, exact: Array) -> Array:
        """That of a product, a softmax and a product, the probabilities being rounded to the dtype
        of the values, and the result when it is stored."""
        q, k, v = (operands[name].turned(attrs[f"trans_{name}"]) for name in "qkv")
        mask, sums = operands.get("mask"), q.dtype.accumulator
        if mask is not None and mask.dtype is DType.BOOL:
            mask = Approximate(addend(mask.values != 0), DType.F32)
        scores, scale = (
            np.matmul(q.values, k.values.swapaxes(-1, -2)),
            scale_of(q.values.shape, attrs),
        )
        z = _logits(scores, scale, {name: x.values for name, x in operands.items()}, attrs)
        probabilities = softmax_reference(z, -1)
        score = Approximate(scores, sums, product_error(q, k.turned()))
        off = logits_error(score, scale, mask if mask is not None and mask.dtype.is_float else None)
        if attrs["softcap"] is not None:  # its slope is at most 1
            off = off + 16 * unit_roundoff(sums) * abs(attrs["softcap"])
        error = softmax_error(z, off, finite(probabilities), sums, -1)
        error = stored(error, probabilities, v.dtype)
        weights = Approximate(probabilities, v.dtype, error)
        return stored(product_error(weights, v), exact, type.dtype)

    def accepts(self, operands: Views, attrs: Attrs, out: View) -> bool:
        """Any mask; q, k and v with unit stride along one of their last two axes, a result with
        unit stride along its last; all aligned like dense ones."""
        matrices = [operands[name] for name in "qkv"]
        return (
            all(matrix_layout(view) is not None and not goes_back(view) for view in matrices)
            and out.strides[-1] == 1
            and all(map(is_well_aligned, (*matrices, out)))
        )

    def with_dtype(self, types: Types, attrs: Attrs, dtype: DType) -> Attrs | None:
        """Any: the result is rounded once, when it is stored."""
        return {**attrs, "out_dtype": dtype}

    def fused(self, types: Types, attrs: Attrs, type: TensorType) -> TritonKernel:
        """The kernel of the whole attention for dense operands and a dense result."""
        operands = {name: View.dense(name, t) for name, t in types.items()}
        return _kernel(problem_of(operands, attrs, View.dense("out", type)).grouped())

    def lower(self, call: Call) -> list[Command]:
        """One kernel if the device has it (two for few queries and many keys), else two GEMMs with
        a softmax between them."""
        given = problem_of(call.operands, call.attrs, call.out)
        before: list[Command] = []
        if lengths.needs_mask(call.operands, call.attrs):
            problem = limited(call, given)
            if problem and (commands := self._kernels(call, problem)):
                return commands
            sizes = lengths.Sizes(given.q.shape[-2], given.k.shape[-2], len(given.out.shape))
            seen, before = lengths.mask_of(call, sizes)
            wide = seen.broadcast_to((*given.out.shape[:-1], sizes.keys))
            given = replace(given, mask=wide, causal=False)
        return before + self._lowered(call, given)

    def _lowered(self, call: Call, given: Problem) -> list[Command]:
        """The commands once the mask is there."""
        if call.attrs["softcap"] is not None:
            return unfused(call, given, float(call.attrs["softcap"]))
        return self._kernels(call, given.grouped()) or unfused(call, given)

    def _kernels(self, call: Call, problem: Problem) -> list[Command]:
        """The commands without scores in memory; none where the device does not do them."""
        if max(problem.q.shape[-1], problem.v.shape[-1]) > LARGEST_HEAD:
            return []
        flops = self.flops(call.types, call.attrs, call.type)
        count = parts_of(problem, call.programs)
        both = as_parts(call, problem.label, problem, count, flops) if count > 1 else []
        if both:
            return both
        if not call.supports(_kernel(problem)):
            return []
        recipe = Flash(problem.scale, problem.causal, problem.limits)
        return [call.kernel(problem.label, recipe, *problem.accesses(problem.out), flops=flops)]


def _kernel(problem: Problem) -> TritonKernel:
    return Flash(problem.scale, problem.causal, problem.limits)(*problem.views())


def problem_of(operands: Views, attrs: Attrs, out: View) -> Problem:
    """The views of a call with the batch axes of the result."""
    batch = out.shape[:-2]
    q, k, v = (operands[n].turned() if attrs[f"trans_{n}"] else operands[n] for n in "qkv")
    q, k, v = (x.broadcast_to((*batch, *x.shape[-2:])) for x in (q, k, v))
    mask = operands.get("mask")
    if mask is not None:
        mask = mask.broadcast_to((*batch, q.shape[-2], k.shape[-2]))
    return Problem(q, k, v, mask, out, scale_of(q.shape, attrs), bool(attrs["causal"]))


def _logits(scores: Array, scale: float, arrays: Arrays, attrs: Attrs) -> Array:
    """What the softmax is of, in float64."""
    sizes = lengths.Sizes(scores.shape[-2], scores.shape[-1], scores.ndim)
    z = scale * scores
    if attrs["softcap"] is not None:
        z = attrs["softcap"] * np.tanh(z / attrs["softcap"])
    mask = arrays.get("mask")
    if mask is not None and mask.dtype.kind != "b":
        z = z + mask
    return np.where(lengths.seen_by_numpy(arrays, attrs, sizes), z, -np.inf)


def scale_of(q_shape: tuple[int, ...], attrs: Attrs) -> float:
    """The factor of q · kᵀ."""
    return float(q_shape[-1] ** -0.5 if attrs["scale"] is None else attrs["scale"])


OP = Attention()
__all__ = ["LARGEST_HEAD", "OP", "Attention"]
