"""Einsum: of one tensor, sums and a permutation; of two, a product of matrices."""

from __future__ import annotations

from collections.abc import Callable

from graphexec.frontend.onnx.builder import Builder
from graphexec.frontend.onnx.extents import Extent, count
from graphexec.frontend.onnx.handlers.reductions import reduced
from graphexec.frontend.onnx.values import Node, Unsupported, Value


def _einsum(b: Builder, n: Node) -> Value:
    """The letters of the equation name axes; an ellipsis names those that are left."""
    terms, result = _equation(n)
    values = list(n.present)
    if len(terms) != len(values) or len(values) > 2:
        raise Unsupported("an equation of more than two tensors")
    parts = [_diagonal(b, v, t, i) for i, (v, t) in enumerate(zip(values, terms, strict=True))]
    if len(parts) == 1:
        value, term = _summed(b, *parts[0], set(result), 0)
        return b.transpose(value, [term.index(c) for c in result])
    return _product(b, parts, result)


def _equation(n: Node) -> tuple[list[str], str]:
    text = n.attr("equation").replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    dots = [v.rank - len(t.replace("...", "")) for t, v in zip(terms, n.present, strict=False)]
    most = max(dots, default=0)
    own = "0123456789"[:most]
    terms = [t.replace("...", own[most - d :]) for t, d in zip(terms, dots, strict=False)]
    if arrow:
        return terms, right.replace("...", own)
    joined = "".join(terms)
    return terms, own + "".join(sorted(c for c in set(joined) - set(own) if joined.count(c) == 1))


def _diagonal(b: Builder, value: Value, term: str, number: int) -> tuple[Value, str]:
    """A tensor whose letters differ: a letter that occurs twice takes the diagonal."""
    for letter in term:
        while term.count(letter) > 1:
            first, second = term.index(letter), term.rindex(letter)
            text = f"where(index({first}) == index({second}), {{0}}, 0)"
            kept = b.map(text, value, part=f"diagonal_{number}_{letter}")
            value = reduced(b, kept, "sum", [second], False, f"along_{number}_{letter}")
            term = term[:second] + term[second + 1 :]
    return value, term


def _summed(b: Builder, value: Value, term: str, kept: set[str], number: int) -> tuple[Value, str]:
    """Axes that nothing else names are summed over."""
    axes = [a for a, letter in enumerate(term) if letter not in kept]
    if not axes:
        return value, term
    value = reduced(b, value, "sum", axes, False, f"summed_{number}")
    return value, "".join(c for c in term if c in kept)


def _product(b: Builder, parts: list[tuple[Value, str]], result: str) -> Value:
    (x, left), (y, right) = (
        _summed(b, value, term, {*result, *parts[1 - i][1]}, i)
        for i, (value, term) in enumerate(parts)
    )
    batch = [c for c in left if c in right and c in result]
    inner = [c for c in left if c in right and c not in result]
    rows = [c for c in left if c not in right]
    columns = [c for c in right if c not in left]
    extents: dict[str, Extent] = {**dict(zip(right, y.shape, strict=True)),
                                  **dict(zip(left, x.shape, strict=True))}  # fmt: skip

    def size(letters: list[str]) -> list[Extent]:
        return [extents[c] for c in letters]

    shapes = [[*size(batch), count(size(rows)), count(size(inner))],
              [*size(batch), count(size(inner)), count(size(columns))]]  # fmt: skip
    a = b.transpose(x, [left.index(c) for c in (*batch, *rows, *inner)], "a_turned")
    c = b.transpose(y, [right.index(c) for c in (*batch, *inner, *columns)], "b_turned")
    sides = {"a": b.reshape(a, shapes[0], "a"), "b": b.reshape(c, shapes[1], "b")}
    made = b.op("gemm", sides, [*shapes[0][:-1], shapes[1][-1]], x.dtype, "product")
    order = [*batch, *rows, *columns]
    wide = b.reshape(made, size(order), "unjoined")
    return b.transpose(wide, [order.index(c) for c in result])


HANDLERS: dict[str, Callable[[Builder, Node], Value]] = {"Einsum": _einsum}
