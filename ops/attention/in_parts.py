"""Attention of few queries over many keys, as in decoding: parts of the keys in parallel.

With fewer blocks of queries than multiprocessors, programs that walk all keys leave most of the GPU
idle. So the keys are cut into parts. Their results and sums of weights are in scratch memory, and a
second kernel combines them (Dao, Haziza, Massa and Sizov 2023, "Flash-Decoding for long-context
inference"). The kernels are in flash.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import ceil, prod

import numpy as np

from graphexec.base.tensor import Array, DType, TensorType, View
from graphexec.ir.access import In, Out
from graphexec.ir.op import Call
from graphexec.ir.program import (
    Argument,
    Command,
    Gpu,
    Parallel,
    Scalar,
    TritonKernel,
    TritonLaunch,
)
from graphexec.ops.attention import portable
from graphexec.ops.attention.limits import logits
from graphexec.ops.attention.problem import Limits, Problem
from graphexec.ops.kit.strides import collapse, power_of_two

_ROWS = 64  # queries of a program, at most
_KEYS = 128  # of a part, at least, about
_MOST, _MOST_OF_ONE = 64, 16  # parts, and those of a single head
# With less, the second kernel costs the gain: keys, and parts and keys of many queries.
_FEWEST_KEYS, _FEWEST_OF_MANY, _KEYS_OF_MANY = 512, 3, 1024
_MANY = 16  # queries: more than that fill the rows of a matrix instruction
_BEHIND = 16  # elements behind a row of a part: largest logit, sum, and what keeps rows aligned


def parts_of(problem: Problem, programs: int) -> int:
    """The number of parts of the keys, one for each of the `programs` that fill the device. A
    single head is assumed to be one of several that will be one batch."""
    keys, tiles = problem.k.shape[-2], problem.tiles(_ROWS)
    heads = prod(problem.q.shape[:-2])
    most = _MOST if heads > 1 else _MOST_OF_ONE if tiles == 1 else 1
    count = min(programs // tiles, ceil(keys / _KEYS), most)
    fewest, least = 2, _FEWEST_KEYS
    if problem.q.shape[-2] > _MANY:
        fewest, least = _FEWEST_OF_MANY, _KEYS_OF_MANY
    narrow = problem.q.dtype is not DType.F64  # parts are of f32
    return count if narrow and keys >= least and count >= fewest else 1


def as_parts(call: Call, label: str, problem: Problem, count: int, flops: int) -> list[Command]:
    """The two commands that compute `problem`; none where the device does not do one of them."""
    out = problem.out
    shape = (*out.shape[:-2], count, out.shape[-2], out.shape[-1] + _BEHIND)
    type = TensorType(shape, DType.F32)
    recipe = Parts(problem.scale, problem.causal, count, problem.limits)
    anywhere = View.dense("parts", type)
    both = recipe(*(a.view for a in problem.accesses(anywhere))), combined(anywhere, out)
    if not all(map(call.supports, both)):
        return []
    parts = call.scratch("parts", type)
    return [
        call.kernel(f"{label} in {count} parts", recipe, *problem.accesses(parts), flops=flops),
        call.kernel("parts combined", combined, In(parts, strided=True), Out(out)),
    ]


@dataclass(frozen=True)
class Parts:
    """The kernel of the first command, over q, k, v, the parts (…, count, M, Dv + 16), which it
    writes, perhaps a mask, and lengths."""

    scale: float
    causal: bool
    count: int
    limits: Limits | None = None

    def __call__(self, *views: View) -> TritonKernel:
        """The default kernel for the GPU."""
        return self._kernel(views, None)

    def variants(self, *views: View) -> tuple[TritonKernel, ...]:
        """The alternatives, with other blocks."""
        return tuple(self._kernel(views, choice) for choice in range(portable.ALTERNATIVES))

    def _kernel(self, views: tuple[View, ...], choice: int | None) -> TritonKernel:
        return TritonKernel("attention", views, partial(_launch, self, choice), self.compute)

    def compute(self, arrays: list[Array], parallel: Parallel) -> None:
        """The same by NumPy, by the formula."""
        q, k, v, parts, *rest = arrays
        z = logits([q, k, *rest], self.scale, self.causal, self.limits)
        width = v.shape[-1]
        cut = zip(
            np.array_split(z, self.count, axis=-1),
            np.array_split(v.astype(np.float32), self.count, axis=-2),
            strict=True,
        )
        for part, (scores, values) in enumerate(cut):
            top = scores.max(axis=-1, keepdims=True)
            weights = np.exp(scores - np.where(top == -np.inf, 0.0, top))
            total = weights.sum(axis=-1, keepdims=True)
            total[total == 0.0] = 1.0
            parts[..., part, :, :width] = np.matmul(weights / total, values)
            parts[..., part, :, width] = top[..., 0]
            parts[..., part, :, width + 1] = total[..., 0]


def _launch(
    recipe: Parts, choice: int | None, views: tuple[View, ...], gpu: Gpu
) -> TritonLaunch:  # fmt: skip
    q, k, v, parts, *rest = views
    first = _first(parts, q.shape[-2], v.shape[-1])
    problem = Problem.of((q, k, v, first, *rest), recipe.scale, recipe.causal, recipe.limits)
    step = parts.strides[-3]
    return portable.launch(problem, gpu, choice, recipe.count, step)


def combined(parts: View, out: View) -> TritonKernel:
    """The kernel of the second command: from parts to (…, M, Dv)."""
    return TritonKernel("combine", (parts, out), _combine, _combine_on_cpu)


def _combine(views: tuple[View, ...], gpu: Gpu) -> TritonLaunch:
    parts, out = views
    rows, value = out.shape[-2:]
    first = _first(parts, rows, value)
    extents, (of_parts, of_out) = collapse(out.shape[:-2], first.strides[:-2], out.strides[:-2])
    args: list[Argument] = [parts, out, Scalar("i32", rows)]
    args.append(tuple(Scalar("i32", extent) for extent in extents))
    args += [portable.wide(of_parts), *portable.wide((parts.strides[-3], parts.strides[-2]))]
    args += [portable.wide(of_out), *portable.wide(out.strides[-2:])]
    constants = {
        "VALUE": value, "BLOCK_VALUE": power_of_two(value), "PARTS": parts.shape[-3],
        "BLOCK_PARTS": power_of_two(parts.shape[-3]), "RANK": len(extents),
    }  # fmt: skip
    grid = (prod(out.shape[:-1]), 1, 1)
    return TritonLaunch(portable.SOURCE, tuple(args), constants, {"num_warps": 4}, grid)


def _combine_on_cpu(arrays: list[Array], parallel: Parallel) -> None:
    parts, out = arrays
    width = out.shape[-1]
    tops, totals = parts[..., width : width + 1], parts[..., width + 1 : width + 2]
    top = tops.max(axis=-3, keepdims=True)
    weights = totals * np.exp(tops - np.where(top == -np.inf, 0.0, top))
    total = weights.sum(axis=-3, keepdims=True)
    weights /= np.where(total == 0.0, 1.0, total)
    out[...] = (parts[..., :width] * weights).sum(axis=-3).astype(out.dtype)


def _first(parts: View, rows: int, value: int) -> View:
    """The results of the first part, (…, M, Dv)."""
    *batch, _, step, _ = parts.strides
    return replace(
        parts, shape=(*parts.shape[:-3], rows, value), strides=(*batch, step, parts.strides[-1])
    )
