"""map: an expression, element by element."""

from __future__ import annotations

import numpy as np

from graphexec.base.grammar import Expression, Name
from graphexec.base.tensor import Array, DType
from graphexec.ir.approximate import Approximates
from graphexec.ir.body import Body
from graphexec.ops.kit import (
    Arrays,
    Attribute,
    Attrs,
    Call,
    Command,
    Op,
    OpError,
    TensorType,
    Types,
    View,
    Views,
)
from graphexec.ops.kit.generate import generated
from graphexec.ops.kit.generate.by_numpy import evaluate
from graphexec.ops.kit.generate.running_error import running_error
from graphexec.ops.map.compile import compiled


class Map(Op):
    """See `doc`."""

    name = "map"
    doc = (
        "An expression of tensors, element by element. They broadcast by NumPy's rules, with a "
        "stated `shape` too. A node that is a text is a map of it. f16 and bf16 are computed in "
        "f32 and rounded once."
    )
    operands = ()
    attributes = (
        Attribute("expr", "expression", None, "the expression, such as silu(gate) * up"),
        Attribute("dtype", "dtype", None, "element type of the result (default: by the types)"),
    )

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        """The shape to which the operands broadcast, and the dtype of the expression."""
        shape = _shape(types, attrs)
        for name, type in types.items():
            if type.space != "device":
                raise OpError(f"operand '{name}' is in host memory", name,
                              help="copy it with `to: device`")  # fmt: skip
        return TensorType(shape, _body(types, attrs, len(shape)).dtypes[0])

    def flops(self, types: Types, attrs: Attrs, type: TensorType) -> int:
        """Those of the expression, an element."""
        return max(1, _body(types, attrs, len(type.shape)).flops) * type.elements

    def reference(self, arrays: Arrays, attrs: Attrs, type: TensorType) -> Array:
        """The expression in float64; integers as they are."""
        types = {name: TensorType(a.shape, DType.of(a.dtype)) for name, a in arrays.items()}
        body = _body(types, attrs, len(type.shape))
        found = evaluate(body, list(arrays.values()), type.shape, exact=True)[0]
        return np.broadcast_to(found, type.shape)

    def error(
        self, operands: Approximates, attrs: Attrs, type: TensorType, exact: Array
    ) -> Array | None:
        """By a running error analysis of the expression."""
        types = {name: TensorType(x.values.shape, x.dtype) for name, x in operands.items()}
        body = _body(types, attrs, len(type.shape))
        return running_error(body, list(operands.values()), type.shape)[0]

    def view(self, operands: Views, attrs: Attrs, types: Types, type: TensorType) -> View | None:
        """A bare name is another name for the tensor."""
        tree = attrs["expr"]
        if not isinstance(tree, Name) or types[tree.name] != type:
            return None
        return operands[tree.name]

    def accepts(self, operands: Views, attrs: Attrs, out: View) -> bool:
        """Operands and results with neighbours along their last axis."""
        views = (*operands.values(), out)
        return all(v.strides[-1:] in ((), (0,), (1,)) or v.shape[-1] == 1 for v in views)

    def lower(self, call: Call) -> list[Command]:
        """One kernel."""
        body = _body(call.types, call.attrs, len(call.out.shape))
        return [generated(call, "map", body, list(call.operands.values()), [call.out])]


def _body(types: Types, attrs: Attrs, rank: int) -> Body:
    tree: Expression = attrs["expr"]
    dtypes = tuple(type.dtype for type in types.values())
    return compiled(tree, tuple(types), dtypes, rank, attrs["dtype"])


def _shape(types: Types, attrs: Attrs) -> tuple[int, ...]:
    stated = attrs.get("shape")
    if not types and stated is None:
        raise OpError("without tensors, the node needs its shape", "expr", help="shape: [M, N]")
    shapes = [type.shape for type in types.values()]
    try:
        shape = np.broadcast_shapes(*shapes, *([] if stated is None else [stated]))
    except ValueError:
        raise _do_not_broadcast(types, stated) from None
    return tuple(int(extent) for extent in shape)


def _do_not_broadcast(types: Types, stated: tuple[int, ...] | None) -> OpError:
    shapes = {f"'{name}'": type.shape for name, type in types.items()}
    if stated is not None:
        shapes["the stated shape"] = stated
    names = list(shapes)
    for first in names:
        for second in names[names.index(first) + 1 :]:
            try:
                np.broadcast_shapes(shapes[first], shapes[second])
            except ValueError:
                return OpError(
                    f"{first} of shape {list(shapes[first])} and {second} of shape "
                    f"{list(shapes[second])} do not broadcast", first.strip("'"),
                    help="extents from the last on must be equal or 1",
                )  # fmt: skip
    return OpError(f"the shapes {', '.join(map(str, shapes.values()))} do not broadcast together")


OP = Map()
