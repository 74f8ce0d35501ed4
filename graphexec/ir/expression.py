"""Expressions over tensors: what their names mean, and where `@` may stand.

A name is a tensor, else a dim or const, else one of `inf nan pi`; a name that is a tensor and a dim
or const is an error. The second argument of cast is a dtype. `@` stands at most once, and its
operands are tensors or T(tensor), the tensor with its last two axes exchanged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Container, Iterator, Mapping
from dataclasses import replace

from graphexec.base.diagnostics import did_you_mean
from graphexec.base.grammar import (
    Binary,
    Call,
    Expression,
    ExpressionError,
    Name,
    Number,
    children,
    parse,
    rebuilt,
    walk,
)

CONSTANTS = {"inf": math.inf, "nan": math.nan, "pi": math.pi}
"""What these names stand for where nothing else is called so."""

MAP = "map"
"""The op of a node that is nothing but an expression."""

WITH = "with"
"""The key that gives tensors names of their own in an expression."""

_WITH_HYPHENS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)+")


def tensors_of(
    text: str, given: Mapping[str, str], tensors: Collection[str], numbers: Container[str]
) -> dict[str, str]:
    """The tensors that an expression reads, by the names that they have in it.

    `given` are names of its own for some tensors, which come before the names of the graph;
    `numbers` are the dims and consts. Raises ExpressionError.
    """
    tree = parse(text)
    _check_hyphens(text, tensors)
    found: dict[str, str] = {}
    for name in names_in(tree):
        tensor = given.get(name.name, name.name)
        is_tensor = name.name in given or name.name in tensors
        if is_tensor and name.name in numbers:
            raise _both(name)
        if is_tensor:
            found[name.name] = tensor
        elif name.name not in numbers and name.name not in CONSTANTS:
            raise _unknown(name, [*given, *tensors])
    _check_calls(tree, found)
    return found


def with_numbers(
    tree: Expression, tensors: Container[str], numbers: Mapping[str, int | float]
) -> Expression:
    """The tree with numbers in place of dims, consts and constants. Raises ExpressionError."""
    match tree:
        case Name(name) if name not in tensors:
            if name in numbers:
                return Number(numbers[name], tree.start, tree.length)
            if name in CONSTANTS:
                return Number(CONSTANTS[name], tree.start, tree.length)
            raise _unknown(tree, list(numbers))
        case Name() if tree.name in numbers:
            raise _both(tree)
        case Call("cast", (value, dtype)):
            return replace(tree, arguments=(with_numbers(value, tensors, numbers), dtype))
    return rebuilt(tree, lambda inner: with_numbers(inner, tensors, numbers))


def names_in(tree: Expression) -> Iterator[Name]:
    """The names of tensors, dims and consts, in the order of the text, as often as they occur."""
    if isinstance(tree, Name):
        yield tree
    for child in _values(tree):
        yield from names_in(child)


def product_in(tree: Expression) -> Binary | None:
    """The `@` of an expression, if it has one."""
    products = (n for n in walk(tree) if isinstance(n, Binary) and n.operator == "@")
    return next(products, None)


def _values(tree: Expression) -> tuple[Expression, ...]:
    """What is below a node without the dtype of a cast."""
    if isinstance(tree, Call) and tree.function == "cast":
        return tree.arguments[:1]
    return children(tree)


# Rules ------------------------------------------------------------------------------------


def _check_calls(tree: Expression, tensors: Container[str]) -> None:
    """The rules of `@`, T, cast, min and max."""
    products = [n for n in walk(tree) if isinstance(n, Binary) and n.operator == "@"]
    if len(products) > 1:
        raise _at(products[0], "more than one '@' in a node", "make a node of each product")
    factors = [side for product in products for side in (product.left, product.right)]
    for side in factors:
        _check_factor(side, tensors)
    for node in walk(tree):
        if isinstance(node, Call):
            _check_call(node, may_turn=any(node is side for side in factors))


def _check_factor(side: Expression, tensors: Container[str]) -> None:
    inner = side.arguments[0] if isinstance(side, Call) and side.function == "T" else side
    if not isinstance(inner, Name) or inner.name not in tensors:
        raise _at(side, "an operand of '@' is the name of a tensor or T(name)",
              "give what stands here a node of its own")  # fmt: skip


def _check_call(call: Call, may_turn: bool) -> None:
    if call.function == "T" and not may_turn:
        raise _at(call, "T() stands only beside '@'", "elsewhere {op: copy, permute: …} turns axes")
    if call.function == "cast" and not isinstance(call.arguments[1], Name):
        raise _at(call.arguments[1], "the second argument of cast() is a dtype", "cast(x, f32)")
    if call.function in ("min", "max") and len(call.arguments) == 1:
        raise _at(call, f"{call.function}() takes at least 2 arguments, found 1",
                  f"along axes it is {{op: reduce, kind: {call.function}, x: …}}")  # fmt: skip


def _check_hyphens(text: str, tensors: Container[str]) -> None:
    """`a-b` is a subtraction. Where a tensor is called so, that is no longer clear."""
    for chunk in _WITH_HYPHENS.finditer(text):
        parts = chunk[0].split("-")
        for count in range(len(parts), 1, -1):
            name = "-".join(parts[:count])
            if name in tensors:
                raise ExpressionError(
                    f"'{name}' is a subtraction here, and there is a tensor '{name}'",
                    f"blanks make it one: {' - '.join(parts[:count])}; the tensor needs "
                    f"another name: {{op: map, expr: …, with: {{x: {name}}}}}",
                    chunk.start(), len(name),
                )  # fmt: skip


def _both(name: Name) -> ExpressionError:
    return _at(
        name, f"'{name.name}' is a tensor and a dim or const",
        f"give the tensor another name: {{op: map, expr: …, with: {{x: {name.name}}}}}",
    )  # fmt: skip


def _unknown(name: Name, known: list[str]) -> ExpressionError:
    close = did_you_mean(name.name, known[:1000])
    return _at(name, f"'{name.name[:60]}' is no tensor, dim or const", close)


def _at(node: Expression, message: str, help: str = "") -> ExpressionError:
    return ExpressionError(message, help, node.start, node.length)
