"""The contract of an op: all that graphexec knows of it, stated in one place.

A new op is a folder with an `__init__.py` that defines a subclass of Op and binds an instance of it
to the name OP (docs/adding-an-op.md). Ops raise OpError. The stage that called the op adds the
place in the user's file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from graphexec.base.tensor import Array, DType, TensorType, View
from graphexec.ir.access import (
    Access,
    In,
    InOut,
    Make,
    Out,
    distinct_bytes,
    in_place,
    moved_bytes,
    reads_of,
    recipe_of,
    writes_of,
)  # fmt: skip
from graphexec.ir.op_error import OpError
from graphexec.ir.op_fault import BUILT_IN, guard, no_method
from graphexec.ir.operand import FLOATS, Operand, Shapes, operand_of
from graphexec.ir.program import Command, Cost, Gemm, Kernel, Memcpy, Recipe, TritonKernel, Work

if TYPE_CHECKING:
    from graphexec.ir.approximate import Approximates

Attrs = Mapping[str, Any]
Arrays = Mapping[str, Array]
Types = Mapping[str, TensorType]
Views = Mapping[str, View]
Kind = Literal[
    "bool", "int", "number", "dtype", "choice", "axis", "axes", "dims", "slices", "expression",
    "named",
]  # fmt: skip


@dataclass(frozen=True)
class Attribute:
    """A setting of an op, evaluated before the op sees it.

    kind      in YAML                                   the op gets
    bool      true, false                               bool
    int       number or expression over dims            int
    number    number or expression over dims            int or float, finite
    dtype     the name of an element type               DType, one of `choices` if given
    choice    one of `choices`                          str
    axis      an integer or a list of integers          tuple of int
    axes      list of integers                          tuple of int
    dims      list of extents or expressions            tuple of int, one may be -1
    slices    mapping axis: [start, stop, step]         dict of int to (start, stop, step)
    named       text such as B S (H D) -> B H S D        Axes
    expression  text over tensors, dims and consts      its syntax tree, with numbers for the rest

    The tensors of an expression are operands of the node, by the names that they have in it.
    """

    name: str
    kind: Kind
    default: Any
    doc: str
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            known = ", ".join(get_args(Kind))
            raise ValueError(f"attribute '{self.name}': kind {self.kind!r} is none of {known}")


def _nothing_special(work: Work) -> bool:
    """What is supported where no device is known: plain commands."""
    return not isinstance(work, TritonKernel)


@dataclass(frozen=True)
class Call:
    """An op applied: what `lower` sees. Absent optional operands are not in `operands`; `after` is
    for `command` to pass on. `supports(work)` says whether the device does a piece of work, and
    `programs` how many programs of a kernel fill it, 0 if that is unknown. `shared` are temporary
    tensors of earlier calls of the program, by what they hold. An op puts there what others may
    read, if it follows from integers and bools alone: a GEMM may write over what it adds."""

    node: str
    operands: Views
    attrs: Attrs
    out: View
    types: Types
    type: TensorType
    _scratch: Callable[[str, TensorType], View]
    after: tuple[int, ...] = ()
    supports: Callable[[Work], bool] = _nothing_special
    programs: int = 0
    _fault: Callable[[], tuple[View, int]] | None = None
    shared: dict[Hashable, View] = field(default_factory=dict)

    def scratch(self, name: str, type: TensorType) -> View:
        """A temporary tensor that lives only between the commands of this call."""
        return self._scratch(name, type)

    def fault(self) -> tuple[View, int]:
        """The fault word of the program, and the number by which this node is known in it."""
        assert self._fault is not None
        return self._fault()

    def command(
        self,
        label: str,
        work: Work,
        *accesses: Access,
        flops: int = 0,
        recipe: Recipe | None = None,
    ) -> Command:
        """A command of this call. Gemm and Memcpy hold the views that they read and write; for a
        kernel `accesses` state every view among its arguments."""
        if isinstance(work, Gemm):
            reads = work.reads
            nbytes = sum(map(distinct_bytes, (*reads, work.out)))
            cost = Cost(2 * work.out.elements * work.a.shape[-1], nbytes)
            return Command(self.node, label, work, reads, (work.out,), cost, self.after)
        if isinstance(work, Memcpy):
            accesses = (In(work.src), Out(work.dst))
        return Command(
            self.node, label, work, reads_of(accesses), writes_of(accesses),
            Cost(flops, moved_bytes(accesses)), self.after, in_place(accesses), recipe=recipe,
        )  # fmt: skip

    def kernel(self, label: str, make: Make, *accesses: Access, flops: int = 0) -> Command:
        """A command whose kernel is `make(*views)` of the views in `accesses`, in their order.

        Several such commands can become one batch, for which `make` is called with views that have
        a further leading axis. It is a function of a module or a frozen dataclass.
        """
        work = make(*(access.view for access in accesses))
        return self.command(label, work, *accesses, flops=flops, recipe=recipe_of(make, accesses))


class Op:
    """Base class of ops. Instances hold no state.

    Methods are given the operands by name: their `Types`, the `Views` where they lie, or the
    `Arrays` of their elements. `Attrs` are the attributes by name, all of them.

    `result` is the pattern of the result's shape over the names in those of the operands.
    `deterministic`: the same operands and attributes give the same result, so that equal nodes may
    be computed once.
    """

    name: ClassVar[str]
    doc: ClassVar[str]
    operands: ClassVar[tuple[Operand, ...]]
    attributes: ClassVar[tuple[Attribute, ...]] = ()
    result: ClassVar[str] = "(…)"
    deterministic: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        if not cls.__module__.startswith(BUILT_IN):
            guard(cls)

    @property
    def expression(self) -> str | None:
        """The attribute that is an expression over tensors; an op has at most one."""
        return next((a.name for a in self.attributes if a.kind == "expression"), None)

    def operands_of(self, names: Iterable[str]) -> tuple[Operand, ...]:
        """What the operands `names` of a node are declared as.

        x[0], x[1], … are the members of a list x; any further name is a tensor of an expression.
        """
        return tuple(operand_of(self.operands, name) or Operand(name) for name in names)

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        """The type of the result; OpError when the op does not apply.

        By default the operands are checked against what they are declared as, and the result has
        the shape of the pattern `result` and the dtype of the first operand, in device memory.
        """
        shapes = Shapes(self.operands_of(types), types, attrs, self.result)
        return TensorType(shapes.shape(self.result), next(iter(types.values())).dtype)

    def flops(self, types: Types, attrs: Attrs, type: TensorType) -> int:
        """Floating-point operations of the node; 0 for one that only moves bytes."""
        return 0

    def cost(self, types: Types, attrs: Attrs, type: TensorType) -> Cost:
        """The cost of the node: it reads its operands and writes its result once."""
        moved = sum(t.nbytes for t in types.values()) + type.nbytes
        return Cost(self.flops(types, attrs, type), moved)

    def ignores(self, attrs: Attrs) -> Collection[str]:
        """Operands that the commands do not read with these attributes, such as c if beta is 0."""
        return ()

    def indexes(self, types: Types, attrs: Attrs) -> Mapping[str, int]:
        """Integer operands that count along an axis, with its extent: from -extent to extent - 1.

        Those that a run is given in host memory are checked before it begins.
        """
        return {}

    @property
    def source(self) -> str:
        """The file that defines the op."""
        return getattr(sys.modules.get(type(self).__module__), "__file__", None) or "<unknown>"

    def reference(self, arrays: Arrays, attrs: Attrs, type: TensorType) -> Array:
        """The result by plain NumPy, the reference of `compare`: floats in float64, integers and
        bools in their own dtypes. Arrays of results without a fraction may be of either."""
        raise no_method(self, "reference", "`compare` measures against")

    def error(
        self, operands: Approximates, attrs: Attrs, type: TensorType, exact: Array
    ) -> Array | None:
        """How far each element of a right result may be from `exact`, the reference, for rounding
        and for the errors of the operands; of its shape. What `compare` judges elements by.

        None, the default: no bound is known. Then elements are judged by the largest one.
        """
        return None

    def view(self, operands: Views, attrs: Attrs, types: Types, type: TensorType) -> View | None:
        """The result as a window on an operand's bytes where none need to move, else None."""
        return None

    def window(self, operands: Views, attrs: Attrs, types: Types, type: TensorType) -> View | None:
        """The result as a window of any strides on an operand's bytes, if it is one, else None.

        Rewrites make it so where every reader `accepts` the window; `view` needs no rewrite.
        """
        return self.view(operands, attrs, types, type)

    def accepts(self, operands: Views, attrs: Attrs, out: View) -> bool:
        """Whether the commands can read such operands and write such a result, no slower than
        dense ones. By default all must be dense."""
        return out.is_dense and all(view.is_dense for view in operands.values())

    def parts(self, types: Types, attrs: Attrs, out: View) -> Mapping[str, View]:
        """Operands that are only copied, each with the window on `out` where it goes.

        Rewrites let such an operand be written there; the commands leave out one whose view is
        its window.
        """
        return {}

    def with_dtype(self, types: Types, attrs: Attrs, dtype: DType) -> Attrs | None:
        """The attributes with which the result has another dtype at no cost; None if there are
        none."""
        return None

    def overwrites(self, types: Types, attrs: Attrs, type: TensorType) -> str | None:
        """The operand, a dense tensor of the result's type, over whose bytes the commands may write
        the result, which saves moving them; None if there is none."""
        return None

    def lower(self, call: Call) -> list[Command]:
        """The commands that compute `call.out`, right when run one after another."""
        raise no_method(self, "lower", "makes its commands")


__all__ = ["FLOATS", "Access", "Attribute", "Attrs", "Call", "Command", "Cost", "Gemm", "In",
           "InOut", "Kernel", "Make", "Memcpy", "Op", "OpError", "Operand", "Out",
           "Recipe"]  # fmt: skip
