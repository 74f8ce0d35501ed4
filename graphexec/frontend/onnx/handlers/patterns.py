"""What exporters write as several nodes, made whole: looked for from the last node backwards.

What becomes part of a whole stays in the graph as long as something else reads it.
"""

from __future__ import annotations

from math import isclose, sqrt

from graphexec.frontend.onnx.values import Node, Value

Pair = tuple[Value, float]
_NEAR = 2e-4  # of numbers, which may be in half precision


def by(value: Value | None, *ops: str) -> Node | None:
    """The node of the model that made a value, if its operator is one of `ops`."""
    node = None if value is None else value.origin
    return node if node is not None and node.op in ops else None


def number_of(value: Value | None) -> float | None:
    """The number that a value is, if it is known to be one."""
    if value is None or not value.known or any(e != 1 for e in value.shape):
        return None
    found = value.number()
    return float(found) if isinstance(found, (int, float)) else None


def with_number(node: Node | None) -> Pair | None:
    """The tensor and the number of an operator with two operands, in any order."""
    if node is None or len(node.inputs) != 2:
        return None
    for own, other in ((0, 1), (1, 0)):
        number = number_of(node.given(other))
        value = node.given(own)
        if number is not None and value is not None and (own == 0 or node.op in ("Mul", "Add")):
            return value, number
    return None


def scaled(value: Value) -> Pair:
    """A tensor and its factor."""
    found = with_number(by(value, "Mul", "Div"))
    if found is None or value.origin is None or found[1] == 0:
        return value, 1.0
    return found[0], found[1] if value.origin.op == "Mul" else 1 / found[1]


def factors(node: Node, whole: Value | None = None) -> tuple[list[Value], float]:
    """The tensors of a product of products, and the number beside them; `whole` is a tensor of
    which no parts are looked for."""
    values: list[Value] = []
    number = 1.0
    waiting: list[Value | None] = list(node.inputs)
    while waiting and len(values) < 8:
        value = waiting.pop()
        found = number_of(value)
        if found is not None:
            number *= found
        elif value is not whole and (inner := by(value, "Mul")) is not None:
            waiting += inner.inputs
        elif value is not None:
            values.append(value)
    return values, number


def gelu(node: Node) -> Value | None:
    """x of x · (1 + erf(x / √2)) / 2, in any order of the factors."""
    for other in factors(node)[0]:
        sum_ = with_number(by(other, "Add"))
        erf = None if sum_ is None or sum_[1] != 1 else by(sum_[0], "Erf")
        if erf is None:
            continue
        x, factor = scaled(erf.value(0))
        values, number = factors(node, x)
        if (
            isclose(factor, sqrt(0.5), rel_tol=_NEAR) and isclose(number, 0.5, rel_tol=_NEAR)
            and len(values) == 2 and {*map(id, values)} == {id(x), id(other)}
        ):  # fmt: skip
            return x
    return None


def mean_of(value: Value | None) -> Value | None:
    """x of a mean along the last axis, whose axis stays."""
    node = by(value, "ReduceMean")
    if node is None or not node.attr("keepdims", 1):
        return None
    x = node.value(0)
    axes = node.given(1)
    chosen = node.attr("axes") if axes is None else (axes.ints() if axes.known else None)
    return x if chosen is not None and list(chosen) in ([-1], [x.rank - 1]) else None


def layer_norm(node: Node) -> Pair | None:
    """x and eps of (x - mean) / √(variance + eps), where `node` is the division."""
    centered, root = node.given(0), by(node.given(1), "Sqrt")
    difference = by(centered, "Sub")
    if difference is None or root is None:
        return None
    x = difference.value(0)
    under = with_number(by(root.value(0), "Add"))
    square = None if under is None else mean_of(under[0])
    if under is None or mean_of(difference.given(1)) is not x:
        return None
    if x.shape[-1] == 1:  # of which a norm would leave nothing
        return None
    return (x, under[1]) if _is_square(square, difference) else None


def _is_square(value: Value | None, difference: Node) -> bool:
    """Whether a value is the square of x - mean; exporters compute the difference twice."""
    node = by(value, "Pow", "Mul")
    if node is None:
        return False
    base, other = node.given(0), node.given(1)
    if (node.op == "Pow" and number_of(other) != 2) or (node.op == "Mul" and other is not base):
        return False
    inner = by(base, "Sub")
    return inner is not None and (
        inner.given(0) is difference.given(0) and mean_of(inner.given(1)) is difference.given(0)
    )
