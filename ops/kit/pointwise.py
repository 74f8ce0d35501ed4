"""Ops that compute each element of the result from one element of each operand."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from graphexec.base.tensor import Array, TensorType, View
from graphexec.ir.op import Arrays, Attrs, Call, In, Op, Operand, Out, Types, Views
from graphexec.ir.program import Command, Kernel, Parallel
from graphexec.ops.kit.launch import Argument, integers, launch
from graphexec.ops.kit.strides import axes, collapse, index_type, pieces

Function = Callable[..., Any]

SOURCE = Path(__file__).with_name("pointwise.hip")
THREADS = 256
_SERIAL = 1 << 16  # elements; fewer are done before another thread has woken up


def pointwise(name: str, *, c: str, numpy: Function, doc: str = "") -> Op:
    """An op whose result is an expression of its operands, element by element.

    c     -- the expression in C++, as HIP computes it on a GPU; operands are called as below, and
             are float, or double for f64
    numpy -- the same for NumPy arrays, on the CPU and in float64 for `compare`; the names of its
             parameters are those of the operands
    doc   -- for `graphexec ops`; by default the expression

    Operands share a dtype and broadcast by NumPy's rules. Halves are computed in f32 and rounded
    once. Raises ValueError when a parameter cannot be an operand.
    """
    parameters = inspect.signature(numpy).parameters.values()
    names = tuple(parameter.name for parameter in parameters)
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not names or any(p.kind not in plain or p.default is not p.empty for p in parameters):
        raise ValueError(f"op '{name}': numpy needs parameters without defaults, one an operand")
    return _Pointwise(name, doc or f"{c}, element by element.", names, c, numpy)


class _Pointwise(Op):
    """See `pointwise`."""

    def __init__(
        self, name: str, doc: str, names: tuple[str, ...], c: str, function: Function
    ) -> None:
        first, *others = names
        self.name, self.doc = name, doc  # type: ignore[misc]
        self.operands = (  # type: ignore[misc]
            Operand(first), *(Operand(other, dtype=first) for other in others)
        )  # fmt: skip
        self._names, self._make = names, Expression(names, " ".join(c.split()), function)

    @property
    def source(self) -> str:
        """The file in which the NumPy function stands."""
        code = getattr(self._make.function, "__code__", None)
        return code.co_filename if code is not None else super().source

    def flops(self, types: Types, attrs: Attrs, type: TensorType) -> int:
        """About one an operand and element."""
        return len(self._names) * type.elements

    def reference(self, arrays: Arrays, attrs: Attrs, type: TensorType) -> Array:
        """The NumPy function, in float64."""
        return np.asarray(self._make.function(*(arrays[name] for name in self._names)))

    def accepts(self, operands: Views, attrs: Attrs, out: View) -> bool:
        """A dense result; operands with neighbours along their last axis."""
        near = (v.strides[-1:] in ((), (1,)) or v.shape[-1] == 1 for v in operands.values())
        return out.is_dense and all(near)

    def lower(self, call: Call) -> list[Command]:
        """One kernel."""
        views = [call.operands[name].broadcast_to(call.out.shape) for name in self._names]
        out = Out(call.out, over=tuple(views))  # a thread reads the elements that it then writes
        flops = self.flops(call.types, call.attrs, call.type)
        reads = [In(view, strided=True) for view in views]
        return [call.kernel(self.name, self._make, *reads, out, flops=flops)]


@dataclass(frozen=True)
class Expression:
    """The kernel of a pointwise op over operands of one shape, that of the dense result."""

    names: tuple[str, ...]
    c: str
    function: Function

    def __call__(self, *views: View) -> Kernel:
        """The kernel over the operands and the result, in this order."""
        *operands, out = views
        shape, strides = collapse(out.shape, *(v.strides for v in operands))
        # The last vector of a result with one axis may be cut short.
        vector = pieces(out, shape[-1:] if len(shape) > 1 else ())
        steps = [s[-1] for s in strides]
        whole, walked = collapse(
            (*shape[:-1], max(1, shape[-1] // vector)),
            *((*s[:-1], s[-1] * vector) for s in strides),
        )
        each = (
            f"EACH({n}, {name}, {view.dtype}, {_piece(view, s, vector)})"
            for n, (name, view, s) in enumerate(zip(self.names, operands, strides, strict=True))
        )
        defines: dict[str, str | int] = {
            "EXPRESSION": f"({self.c})",
            "OPERANDS(EACH)": " ".join(each),
            "COUNT": len(operands),
            "OUT_TYPE": out.dtype.value,
            "THREADS": THREADS,
            "VECTOR": vector,
            "RANK": len(whole),
            "INDEX": index_type(prod(whole)),
        }
        numbers = (*integers(out.elements, *steps), *axes(whole, *walked))
        args: tuple[Argument, ...] = (*operands, out, *numbers)
        blocks = -(-prod(whole) // THREADS)
        compute = partial(on_cpu, function=self.function)
        return launch(SOURCE, "pointwise", args, blocks, THREADS, defines, compute)


def _piece(view: View, strides: tuple[int, ...], vector: int) -> int:
    return min(vector, pieces(view, strides[:-1])) if strides[-1] == 1 else 1


def on_cpu(arrays: list[Array], parallel: Parallel, *, function: Function) -> None:
    """`function` of all arrays but the last, which is written; halves are widened first."""
    *operands, out = arrays
    wide = np.dtype(np.float64 if out.dtype == np.float64 else np.float32)
    axis = next((n for n, extent in enumerate(out.shape) if extent > 1), 0)

    def body(low: int, high: int) -> None:
        part = (slice(None),) * axis + (slice(low, high),) if out.ndim else ()
        out[part] = function(*(x[part].astype(wide, copy=False) for x in operands))

    if out.size < _SERIAL:
        body(0, out.shape[axis] if out.ndim else 1)
    else:
        parallel(out.shape[axis], body)
