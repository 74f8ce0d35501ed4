"""gemm: y = alpha · op(a) · op(b) + beta · c + bias."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from graphexec.base.tensor import Array
from graphexec.ir.approximate import Approximates
from graphexec.ir.program import ALIGNMENT
from graphexec.machine.blas_layout import RESULTS, is_product, is_well_aligned
from graphexec.ops.copy import strided_copy
from graphexec.ops.gemm.few_rows import FewRows, why_no_kernel
from graphexec.ops.gemm.few_rows_launch import End
from graphexec.ops.kit import (
    FLOATS,
    Arrays,
    Attribute,
    Attrs,
    Call,
    Command,
    DType,
    Gemm,
    In,
    Kernel,
    Memcpy,
    Op,
    Operand,
    OpError,
    Out,
    TensorType,
    Types,
    View,
    Views,
)  # fmt: skip
from graphexec.ops.kit.pointwise import Expression
from graphexec.ops.kit.rounding import addend_error, product_error, stored


class GemmOp(Op):
    """See `doc`."""

    name = "gemm"
    doc = (
        "y = alpha · (op(a) · op(b)) + beta · c + bias, where op is the transpose of the last two "
        "axes if asked for. Leading axes are batches and broadcast by NumPy's rules, so "
        "grouped-query heads share K and V. Sums are kept in f32 (f64 for f64), and alpha "
        "multiplies them there. With alpha = 0, a and b are never read; with beta = 0, c is not."
    )
    operands = (
        Operand("a", shape="(…, M, K)", turned="trans_a"),
        Operand("b", shape="(…, K, N)", dtype="a", turned="trans_b"),
        Operand("c", "the dtype of a or of the result", optional=True, shape="broadcast to out"),
        Operand("bias", "added to every row; as c", optional=True, shape="(N,)"),
    )
    result = "(…, M, N)"
    attributes = (
        Attribute("trans_a", "bool", False, "transpose the last two axes of a"),
        Attribute("trans_b", "bool", False, "transpose the last two axes of b"),
        Attribute("alpha", "number", 1.0, "factor of the product"),
        Attribute("beta", "number", None, "factor of c (default: 1 if c is given)"),
        Attribute(
            "out_dtype", "dtype", None, "element type of the result (default: that of a)", FLOATS
        ),
    )

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        """The type of the result."""
        found, a = super().infer(types, attrs), types["a"]
        result = replace(found, dtype=attrs["out_dtype"] or a.dtype)
        dtypes = dict.fromkeys((a.dtype, result.dtype))
        for name in ("c", "bias"):
            if name in types and types[name].dtype not in dtypes:
                raise OpError(
                    f"'{name}' is {types[name]}, but its dtype must be {' or '.join(dtypes)}", name
                )
        if attrs["beta"] is not None and "c" not in types:
            raise OpError("beta is given, but there is no c to multiply with", "beta")
        return result

    def flops(self, types: Types, attrs: Attrs, type: TensorType) -> int:
        """2·M·N·K operations a batch."""
        return 2 * prod(type.shape) * types["a"].shape[-2 if attrs["trans_a"] else -1]

    def ignores(self, attrs: Attrs) -> Collection[str]:
        """c, if it is multiplied by 0."""
        return ("c",) if attrs["beta"] == 0 else ()

    def reference(self, arrays: Arrays, attrs: Attrs, type: TensorType) -> Array:
        """np.matmul in float64."""
        a, b = arrays["a"], arrays["b"]
        a = a.swapaxes(-1, -2) if attrs["trans_a"] else a
        b = b.swapaxes(-1, -2) if attrs["trans_b"] else b
        y: Array = attrs["alpha"] * np.matmul(a, b) if attrs["alpha"] else np.zeros(type.shape)
        beta = _beta(arrays, attrs)
        if beta:
            y = y + beta * arrays["c"]
        return np.add(y, arrays["bias"]) if "bias" in arrays else y

    def error(self, operands: Approximates, attrs: Attrs, type: TensorType, exact: Array) -> Array:
        """That of a sum of K products and of what is added, rounded once more when stored."""
        error = np.zeros(type.shape)
        if attrs["alpha"]:
            a, b = operands["a"].turned(attrs["trans_a"]), operands["b"].turned(attrs["trans_b"])
            error = product_error(a, b, float(attrs["alpha"]))
        for name, factor in (("c", _beta(operands, attrs)), ("bias", 1.0)):
            if name in operands and factor:
                sums = operands["a"].dtype.accumulator
                error = error + addend_error(operands[name], factor, sums, type.dtype)
        return stored(error, exact, type.dtype)

    def accepts(self, operands: Views, attrs: Attrs, out: View) -> bool:
        """Matrices with a leading dimension, aligned like dense ones. Addends may have any strides,
        but then the result must be dense and begin as storages do, for the library's epilogues."""
        alone = operands.keys() == {"a", "b"}
        if not out.is_dense and not (_library_writes(operands["a"].dtype, out.dtype) and alone):
            return False
        if not alone and out.offset * out.dtype.itemsize % ALIGNMENT:
            return False
        a = _operand(operands["a"], attrs["trans_a"], out.shape)
        b = _operand(operands["b"], attrs["trans_b"], out.shape)
        given = (operands["a"], operands["b"], out)
        return is_product(a, b, out) and all(map(is_well_aligned, given))

    def with_dtype(self, types: Types, attrs: Attrs, dtype: DType) -> Attrs | None:
        """What the BLAS writes itself."""
        return {**attrs, "out_dtype": dtype} if _library_writes(types["a"].dtype, dtype) else None

    def overwrites(self, types: Types, attrs: Attrs, type: TensorType) -> str | None:
        """c, which the BLAS adds to where it lies."""
        adds = types.get("c") == type and "bias" not in types and _beta(types, attrs) != 0.0
        return "c" if adds and _library_writes(types["a"].dtype, type.dtype) else None

    def lower(self, call: Call) -> list[Command]:
        """Put beta · c + bias into the result and let the BLAS add the product; cast at the end.
        `fuse-epilogue` makes one product of these commands if the device supports it, and
        `few-rows` one kernel of a product of few rows."""
        kernel = _few_rows(call)
        return [replace(command, instead=kernel) if isinstance(command.work, Gemm) else command
                for command in self._plain(call)]  # fmt: skip

    def _plain(self, call: Call) -> list[Command]:
        a, b = call.operands["a"], call.operands["b"]
        wide = TensorType(call.out.shape, a.dtype.accumulator)
        writes = _library_writes(a.dtype, call.out.dtype)
        out = call.out if writes else call.scratch("wide", wide)
        left = _operand(a, call.attrs["trans_a"], out.shape)
        right = _operand(b, call.attrs["trans_b"], out.shape)
        alpha, beta = float(call.attrs["alpha"]), _beta(call.operands, call.attrs)
        if beta and "bias" in call.operands and out.dtype.itemsize == 2:
            # Two addends must not be rounded to half precision before the product joins them.
            sums = call.scratch("wide", wide)
            product = Gemm(left, right, sums, alpha)
            return [call.command("gemm", product), _sum(call, call.out, sums)]
        commands, beta = _start(call, out)
        commands.append(call.command("gemm", Gemm(left, right, out, alpha, beta)))
        if out is not call.out:
            commands.append(strided_copy(call, out, call.out))
        return commands


def product_of(operands: Views, attrs: Attrs, out: View) -> Gemm:
    """The product with its bias as one command, for devices that add one; there is no c."""
    left = _operand(operands["a"], attrs["trans_a"], out.shape)
    right = _operand(operands["b"], attrs["trans_b"], out.shape)
    bias = operands["bias"].broadcast_to((*out.shape[:-2], out.shape[-1]))
    return Gemm(left, right, out, float(attrs["alpha"]), bias=bias)


def _few_rows(call: Call) -> Command | None:
    """One kernel for all of a product of few rows, if there is one."""
    a, b, out = call.operands["a"], call.operands["b"], call.out
    left = _operand(a, call.attrs["trans_a"], out.shape)
    right = _operand(b, call.attrs["trans_b"], out.shape)
    alpha, beta = float(call.attrs["alpha"]), _beta(call.operands, call.attrs)
    if not alpha or why_no_kernel(left, right, out):
        return None
    names = ("c",) * bool(beta) + ("bias",) * ("bias" in call.operands)
    addends = [call.operands[name].broadcast_to(out.shape) for name in names]
    reads = [In(view, strided=True) for view in (left, right, *addends)]
    make = FewRows(End(alpha, beta or 1.0, len(addends)))
    flops = 2 * out.elements * left.shape[-1]
    # The thread that adds an element of c writes the same one of the result.
    over = tuple(addends[:1]) if beta else ()
    return call.kernel("few rows", make, *reads, Out(out, over=over), flops=flops)


def _start(call: Call, out: View) -> tuple[list[Command], float]:
    """Commands that put the addends into `out`, and the beta of the BLAS."""
    c, bias = call.operands.get("c"), call.operands.get("bias")
    beta = _beta(call.operands, call.attrs)
    if not beta:
        c = None
    if c is not None and bias is not None:
        return [_sum(call, out)], 1.0
    addend = c if c is not None else bias
    if addend is None:
        return [], 0.0
    if addend == out:  # the addend's own bytes
        return [], beta
    source = addend.broadcast_to(out.shape)
    if source.is_dense and source.dtype is out.dtype:
        start = call.command("memcpy", Memcpy(source, out))
    else:
        start = strided_copy(call, source, out)
    return [start], beta if c is not None else 1.0


def _sum(call: Call, out: View, *product: View) -> Command:
    """out = beta · c + bias, plus a product of the type that sums are kept in."""
    c, bias = (call.operands[name].broadcast_to(out.shape) for name in ("c", "bias"))
    reads = [In(view, strided=True) for view in (c, bias, *product)]
    # Where c is as large as the result, a thread reads the elements that it writes.
    return call.kernel(
        "affine", _Sum(_beta(call.operands, call.attrs)), *reads, Out(out, over=(c,))
    )


@dataclass(frozen=True)
class _Sum:
    """The kernel of beta · c + bias [+ product]."""

    beta: float

    def __call__(self, *views: View) -> Kernel:
        names = ("c", "bias", "product")[: len(views) - 1]
        text = f"A({self.beta}) * {' + '.join(names)}"
        kernel = Expression(names, text, self._on_cpu)(*views)
        return replace(kernel, factors=(self.beta, *(1.0 for _ in names[1:])))

    def _on_cpu(self, c: Array, *others: Array) -> Array:
        return sum(others, self.beta * c)


def _beta(given: Mapping[str, object], attrs: Attrs) -> float:
    if "c" not in given:
        return 0.0
    return 1.0 if attrs["beta"] is None else float(attrs["beta"])


def _library_writes(operand: DType, out: DType) -> bool:
    """Whether a BLAS GEMM of `operand`s writes `out` itself."""
    return out in RESULTS[operand]


def _operand(view: View, transposed: bool, out_shape: tuple[int, ...]) -> View:
    """A GEMM operand with the transposition in its strides and the batch axes of the result."""
    rank = len(view.shape)
    if transposed:
        view = view.transpose((*range(rank - 2), rank - 1, rank - 2))
    return view.broadcast_to((*out_shape[:-2], *view.shape[-2:]))


OP = GemmOp()
