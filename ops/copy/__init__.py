"""copy: move a tensor, and on the way slice, permute, reshape, cast or place it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from graphexec.base.casts import cast, cast_into
from graphexec.base.tensor import Array
from graphexec.ir.approximate import Approximates
from graphexec.ir.operand import ANY
from graphexec.ops.copy.variants import choose, others
from graphexec.ops.kit import (
    Arrays,
    Attribute,
    Attrs,
    Call,
    Command,
    In,
    Kernel,
    Memcpy,
    Op,
    Operand,
    OpError,
    Out,
    Parallel,
    TensorType,
    Types,
    View,
    Views,
)  # fmt: skip
from graphexec.ops.kit.rounding import cast_error, loses_digits, stored

_CPU_BLOCK = 1 << 16  # elements of a block: small enough to share the work among threads


class Copy(Op):
    """See `doc`."""

    name = "copy"
    doc = (
        "Move x. In this order, each only if given: take `slice`, `permute` the axes, `reshape`, "
        "or instead of these two, say by `axes` where every axis goes; cast to `dtype`, place in "
        "`to`. A reshape of elements that already lie side by side moves no bytes: the result is "
        "another name for them."
    )
    operands = (Operand("x", dtype=ANY, space="any"),)
    attributes = (
        Attribute("dtype", "dtype", None, "element type of the result (default: that of x)"),
        Attribute(
            "slice", "slices", None,
            "axis: [start, stop, step] as in Python; null for an end; a negative step goes back",
        ),
        Attribute("permute", "axes", None, "axis i of the result is axis permute[i] of x"),
        Attribute("reshape", "dims", None, "new shape; one extent may be -1"),
        Attribute(
            "axes", "named", None,
            "axes by name, such as B S (H D) -> B H S D: dims, consts or 1, … for what is left; "
            "instead of permute and reshape",
        ),
        Attribute(
            "to", "choice", None, "memory to place the result in (default: where x is)",
            ("host", "device"),
        ),
    )  # fmt: skip

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        """The type of the result."""
        x = types["x"]
        window = _window(View.dense("x", x), attrs)
        shape = _reshaped(window.shape, attrs)
        if attrs["axes"]:
            shape = attrs["axes"].joined(window.shape)
        return TensorType(shape, attrs["dtype"] or x.dtype, attrs["to"] or x.space)

    def reference(self, arrays: Arrays, attrs: Attrs, type: TensorType) -> Array:
        """Plain NumPy. Floats stay in float64 when they are cast to other floats."""
        found = _moved(arrays["x"], attrs, type)
        return cast(found, np.dtype(np.float64) if type.dtype.is_float else type.dtype.numpy())

    def error(self, operands: Approximates, attrs: Attrs, type: TensorType, exact: Array) -> Array:
        """None but for a cast to a dtype that has fewer digits, or of what is off already."""
        x = operands["x"]
        error = np.zeros(type.shape) if x.error is None else _moved(x.error, attrs, type)
        if not type.dtype.is_float:
            return cast_error(_moved(x.values, attrs, type), error, x.dtype, type.dtype)
        return stored(error, exact, type.dtype) if loses_digits(x.dtype, type.dtype) else error

    def view(self, operands: Views, attrs: Attrs, types: Types, type: TensorType) -> View | None:
        """A reshape of dense elements, without cast or change of memory, moves nothing."""
        if not attrs["reshape"] and not attrs["axes"]:
            return None
        found = self.window(operands, attrs, types, type)
        return found if found is not None and found.is_dense else None

    def window(self, operands: Views, attrs: Attrs, types: Types, type: TensorType) -> View | None:
        """A window, if nothing is cast or moved to another memory and strides can express the
        reshape."""
        if type.dtype is not types["x"].dtype or type.space != types["x"].space:
            return None
        return _window(operands["x"], attrs).reshaped(type.shape)

    def accepts(self, operands: Views, attrs: Attrs, out: View) -> bool:
        """Any source in device memory; a dense result."""
        return out.is_dense

    def lower(self, call: Call) -> list[Command]:
        """One transfer or one kernel; kernels work in device memory, so two around the host."""
        source = _window(call.operands["x"], call.attrs)
        target = call.out.reshape(source.shape)
        if source.is_dense and source.dtype is target.dtype:
            return [call.command("memcpy", Memcpy(source, target))]
        commands = []
        if call.types["x"].space == "host":
            whole = call.operands["x"]
            staged = call.scratch("staged", TensorType(whole.shape, whole.dtype))
            commands.append(call.command("memcpy", Memcpy(whole, staged)))
            source = _window(staged, call.attrs)
        if call.type.space == "device":
            return [*commands, strided_copy(call, source, target)]
        packed = call.scratch("packed", TensorType(target.shape, target.dtype))
        commands.append(strided_copy(call, source, packed))
        return [*commands, call.command("memcpy", Memcpy(packed, target))]


def strided_copy(call: Call, source: View, target: View) -> Command:
    """A kernel that writes every element of `target` (dense) from `source`, casting.

    Both have one shape, in device memory; `source` may be permuted, sliced or broadcast.
    """
    # Dense to dense is a cast: a thread reads the elements that it writes, before it writes them.
    return call.kernel("copy", _Copying(), In(source, strided=True), Out(target, over=(source,)))


@dataclass(frozen=True)
class _Copying:
    """The kernel of a strided copy."""

    def __call__(self, source: View, target: View) -> Kernel:
        return replace(choose(source, target, _copy_on_cpu), factors=(1.0,))

    def variants(self, source: View, target: View) -> Sequence[Kernel]:
        """The same with other blocks."""
        return others(source, target, _copy_on_cpu)


def _copy_on_cpu(arrays: list[Array], parallel: Parallel) -> None:
    source, target = arrays
    if target.size <= _CPU_BLOCK or target.ndim == 0 or target.shape[0] == 1:
        cast_into(target, source)
        return

    def body(low: int, high: int) -> None:
        cast_into(target[low:high], source[low:high])

    parallel(target.shape[0], body)


def _moved(x: Array, attrs: Attrs, type: TensorType) -> Array:
    """The elements of x where the result has them."""
    for axis, (start, stop, step) in (attrs["slice"] or {}).items():
        x = x[(slice(None),) * (axis % x.ndim) + (slice(start, stop, step),)]
    if attrs["axes"]:
        moved = attrs["axes"].moved(x.shape)
        x = x.reshape(moved.split).transpose(moved.order)
    if attrs["permute"]:
        x = x.transpose(attrs["permute"])
    return x.reshape(type.shape)


def _window(x: View, attrs: Attrs) -> View:
    """x after `slice` and `permute`; OpError when they do not fit its rank."""
    rank, shape, strides, offset = len(x.shape), list(x.shape), list(x.strides), x.offset
    sliced: set[int] = set()
    for axis, (start, stop, step) in (attrs["slice"] or {}).items():
        if not -rank <= axis < rank:
            raise OpError(f"there is no axis {axis} to slice in {list(x.shape)}", "slice")
        if axis % rank in sliced:
            raise OpError(f"axis {axis % rank} is sliced twice", "slice")
        sliced.add(axis % rank)
        if step == 0:
            raise OpError("the step of a slice must not be 0", "slice",
                          help="1 takes every element, -1 the same in reverse")  # fmt: skip
        axis %= rank
        first, last, by = slice(start, stop, step).indices(x.shape[axis])
        count = len(range(first, last, by))
        if count == 0:
            raise OpError(
                f"the slice of axis {axis} is empty: [{start}, {stop}, {step}] of {x.shape[axis]}",
                "slice",
            )
        offset += first * strides[axis]
        shape[axis] = count
        if count > 1:  # else the stride is never used, and a positive one suits more readers
            strides[axis] *= by
    view = replace(x, shape=tuple(shape), strides=tuple(strides), offset=offset)
    if attrs["axes"]:
        return _by_name(view, attrs)
    axes = attrs["permute"]
    if axes is None:
        return view
    normal = tuple(a % rank if -rank <= a < rank else rank for a in axes)
    if sorted(normal) != list(range(rank)):
        raise OpError(
            f"permute needs each of the axes 0 to {rank - 1} once, found {list(axes)}", "permute"
        )
    return view.transpose(normal)


def _by_name(view: View, attrs: Attrs) -> View:
    """The view with the axes on the right of `axes`, not yet joined."""
    for key in ("permute", "reshape"):
        if attrs[key] is not None:
            raise OpError(f"`axes` and `{key}` exclude one another", key,
                          help="`axes` says where every axis goes")  # fmt: skip
    moved = attrs["axes"].moved(view.shape)
    split = view.reshaped(moved.split)
    assert split is not None, "strides can always express that an axis is split"
    return split.transpose(moved.order)


def _reshaped(shape: tuple[int, ...], attrs: Attrs) -> tuple[int, ...]:
    wanted = attrs["reshape"]
    if wanted is None:
        return shape
    known = prod(e for e in wanted if e != -1)
    if list(wanted).count(-1) > 1 or any(e < 1 and e != -1 for e in wanted):
        raise OpError("extents must be at least 1, and only one may be -1", "reshape")
    total = prod(shape)
    filled = tuple(total // known if e == -1 else e for e in wanted)
    if prod(filled) != total:
        raise OpError(
            f"cannot reshape {list(shape)} ({total} elements) to {list(wanted)}", "reshape"
        )
    return filled


OP = Copy()
