"""The contract of an op: stated once, in one place, and all graphexec knows of it.

A new op is a folder with an `__init__.py` that defines a subclass of Op and binds an instance
of it to the name OP (docs/adding-an-op.md). Ops raise OpError; where the mistake stands in the
user's file is added by the stage that called them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from graphexec.base.tensor import DType, TensorType, View
from graphexec.ir.program import Command, Cost, Gemm, Kernel, Memcpy, Recipe, TritonKernel, Work

if TYPE_CHECKING:
    import numpy as np

Attrs = Mapping[str, Any]
Kind = Literal["bool", "int", "number", "dtype", "choice", "axes", "dims", "slices"]


class OpError(Exception):
    """An op cannot be applied: why, which operand or attribute is to blame, and what helps."""

    def __init__(
        self, message: str, key: str = "", notes: Sequence[str] = (), help: str = ""
    ) -> None:
        super().__init__(message)
        self.key, self.notes, self.help = key, tuple(notes), help


@dataclass(frozen=True)
class Operand:
    """A tensor an op reads."""

    name: str
    doc: str
    optional: bool = False


@dataclass(frozen=True)
class Attribute:
    """A setting of an op, evaluated before the op sees it.

    kind      in YAML                                   the op gets
    bool      true, false                               bool
    int       number or expression over dims            int
    number    number or expression over dims            int or float, finite
    dtype     f16, bf16, f32, f64                       DType
    choice    one of `choices`                          str
    axes      list of integers                          tuple of int
    dims      list of extents or expressions            tuple of int, one may be -1
    slices    mapping axis: [start, stop, step]         dict of int to (start, stop, step)
    """

    name: str
    kind: Kind
    default: Any
    doc: str
    choices: tuple[str, ...] = ()


def _nothing_special(work: Work) -> bool:
    """What is supported where no device is known: plain commands."""
    return not isinstance(work, TritonKernel)


@dataclass(frozen=True)
class Call:
    """An op applied: what `lower` sees. Absent optional operands are not in `operands`; `after` is
    for `command` to pass on. `supports(work)` says whether the device does a piece of work, and
    `programs` how many programs of a kernel fill it, 0 if that is unknown."""

    node: str
    operands: Mapping[str, View]
    attrs: Attrs
    out: View
    types: Mapping[str, TensorType]
    type: TensorType
    _scratch: Callable[[str, TensorType], View]
    after: tuple[int, ...] = ()
    supports: Callable[[Work], bool] = _nothing_special
    programs: int = 0

    def scratch(self, name: str, type: TensorType) -> View:
        """A temporary tensor that lives only between the commands of this call."""
        return self._scratch(name, type)

    def command(
        self,
        label: str,
        work: Work,
        reads: Sequence[View] | None = None,
        writes: Sequence[View] | None = None,
        cost: Cost | None = None,
        inplace: Sequence[tuple[int, int]] = (),
        recipe: Recipe | None = None,
    ) -> Command:
        """A command of this call. `reads` and `writes` follow from Gemm and Memcpy work.

        `inplace` pairs reads with writes that may be the same bytes (see Command); pairs that are
        not dense views of one size are left out.
        """
        if isinstance(work, Gemm):
            reads, writes = work.reads, [work.out]
        elif isinstance(work, Memcpy):
            reads, writes = [work.src], [work.dst]
        assert reads is not None, "a kernel's reads must be given"
        assert writes is not None, "a kernel's writes must be given"
        if cost is None:
            cost = Cost(0, sum(v.elements * v.dtype.itemsize for v in (*reads, *writes)))
        pairs = tuple((r, w) for r, w in inplace if _same_bytes(reads[r], writes[w]))
        return Command(
            self.node, label, work, tuple(reads), tuple(writes), cost, self.after, pairs,
            recipe=recipe,
        )  # fmt: skip

    def kernel(
        self,
        label: str,
        recipe: Recipe,
        reads: Sequence[View],
        writes: Sequence[View],
        cost: Cost | None = None,
        inplace: Sequence[tuple[int, int]] = (),
    ) -> Command:
        """A command whose kernel is `recipe(reads, writes)`: several such can become one batch."""
        return self.command(label, recipe(reads, writes), reads, writes, cost, inplace, recipe)


def _same_bytes(one: View, other: View) -> bool:
    size = one.elements * one.dtype.itemsize
    return one.is_dense and other.is_dense and size == other.elements * other.dtype.itemsize


class Op:
    """Base class of ops. Instances hold no state.

    `deterministic`: the same operands and attributes give the same result, so that equal nodes may
    be computed once.
    """

    name: ClassVar[str]
    doc: ClassVar[str]
    operands: ClassVar[tuple[Operand, ...]]
    attributes: ClassVar[tuple[Attribute, ...]] = ()
    deterministic: ClassVar[bool] = True

    def infer(self, types: Mapping[str, TensorType], attrs: Attrs) -> TensorType:
        """The type of the result; OpError when the op does not apply."""
        raise NotImplementedError

    def cost(self, types: Mapping[str, TensorType], attrs: Attrs, type: TensorType) -> Cost:
        """What the node takes; by default it reads its operands and writes its result once."""
        return Cost(0, sum(t.nbytes for t in types.values()) + type.nbytes)

    def reference(
        self, arrays: Mapping[str, np.ndarray[Any, Any]], attrs: Attrs, type: TensorType
    ) -> np.ndarray[Any, Any]:
        """The result by the plainest NumPy, in float64; what `compare` measures against."""
        raise NotImplementedError

    def view(
        self, operands: Mapping[str, View], attrs: Attrs, types: Mapping[str, TensorType],
        type: TensorType,
    ) -> View | None:  # fmt: skip
        """The result as a window on an operand's bytes where none need to move, else None."""
        return None

    def window(
        self, operands: Mapping[str, View], attrs: Attrs, types: Mapping[str, TensorType],
        type: TensorType,
    ) -> View | None:  # fmt: skip
        """The result as a window of any strides on an operand's bytes, if it is one, else None.

        Rewrites make it so where every reader `accepts` the window; `view` needs no rewrite.
        """
        return self.view(operands, attrs, types, type)

    def accepts(self, operands: Mapping[str, View], attrs: Attrs, out: View) -> bool:
        """Whether the commands can read such operands and write such a result, no slower than
        dense ones. By default all must be dense."""
        return out.is_dense and all(view.is_dense for view in operands.values())

    def with_dtype(
        self, types: Mapping[str, TensorType], attrs: Attrs, dtype: DType
    ) -> Attrs | None:
        """The attributes with which the result has another dtype at no cost; None if there are
        none."""
        return None

    def overwrites(
        self, types: Mapping[str, TensorType], attrs: Attrs, type: TensorType
    ) -> str | None:
        """The operand, a dense tensor of the result's type, over whose bytes the commands may write
        the result, which saves moving them; None if there is none."""
        return None

    def lower(self, call: Call) -> list[Command]:
        """The commands that compute `call.out`, right when run one after another."""
        raise NotImplementedError


__all__ = ["Attribute", "Call", "Command", "Cost", "Gemm", "Kernel", "Memcpy", "Op", "OpError",
           "Operand", "Recipe"]  # fmt: skip
