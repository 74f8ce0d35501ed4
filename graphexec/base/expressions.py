"""Arithmetic over dims and consts: "S // 2", "D ** -0.5", "max(M, 8) * 2".

    + - * / // % **   unary + and -   ( )   min(...)   max(...)   sqrt(x)

Integers are exact. `//` rounds down. `/` of integers must divide exactly where an integer is
wanted; elsewhere it gives an integer if it divides and a float if not. sqrt of a square is an
integer. Every intermediate value must be a finite real number within int64; powers are checked
before they are computed.
"""

from __future__ import annotations

import keyword
import math
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal

from graphexec.base import grammar
from graphexec.base.cycles import topological_order
from graphexec.base.diagnostics import did_you_mean
from graphexec.base.grammar import Binary, Call, Expression, Name, Unary, walk
from graphexec.base.grammar import ExpressionError as ExpressionError
from graphexec.base.tensor import INT64_MAX

Number = int | float
Want = Literal["int", "number"]

MAX_LENGTH = 200  # characters
MAX_DEPTH = 50
GRAMMAR = "numbers, dims and consts with + - * / // % ** ( ) min max sqrt"
FUNCTIONS = ("max", "min", "sqrt")
RESERVED = (*keyword.kwlist, "__debug__", *FUNCTIONS)
"""Words that are no names of dims or consts: Python's keywords and the functions."""


def evaluate(value: Number | str, names: Mapping[str, Number], want: Want = "number") -> Number:
    """The value of a number or an expression over `names`; an int if `want` is "int".

    Raises ExpressionError.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ExpressionError(f"expected a number, found {str(value).lower()}")
    if not isinstance(value, str):
        if want == "int" and not isinstance(value, int):
            raise ExpressionError(f"expected an integer, found {value}")
        return _checked(value)
    if value in names:  # most extents are a bare name
        return _wanted(_checked(names[value]), want)
    return _wanted(_Evaluator(names, want).value(parse(value)), want)


def names_in(text: str) -> set[str]:
    """The names an expression refers to; ExpressionError if the text is no expression."""
    return {node.name for node in walk(parse(text)) if isinstance(node, Name)}


def evaluate_consts(
    consts: Mapping[str, Number | str], dims: Mapping[str, int]
) -> dict[str, Number]:
    """The consts' values. They may refer to dims and to each other, in any order.

    Raises ExpressionError for the first that has no value.
    """
    values, errors = resolve_consts(consts, dims)
    for name, error in errors.items():
        raise ExpressionError(f"const '{name}': {error.message}", error.help)
    return values


def resolve_consts(
    consts: Mapping[str, Number | str], dims: Mapping[str, int]
) -> tuple[dict[str, Number], dict[str, ExpressionError]]:
    """The consts that have a value, and the errors of the others.

    A const that only refers to a faulty one is in neither.
    """
    needs: dict[str, list[str]] = {}
    errors: dict[str, ExpressionError] = {}
    for name, value in consts.items():
        try:
            used = names_in(value) if isinstance(value, str) else set()
            needs[name] = sorted(used - dims.keys())
        except ExpressionError as exc:
            errors[name] = exc
    order, cycles = topological_order(needs)
    for cycle in cycles:
        text = " → ".join([*cycle[:20], *(["…"] if len(cycle) > 20 else []), cycle[0]])
        message = f"a const defined by itself: {text}" if len(cycle) == 1 else f"cycle: {text}"
        errors[cycle[0]] = ExpressionError(message)
    values: dict[str, Number] = {}
    known: dict[str, Number] = dict(dims)
    for name in order:
        if any(other in consts and other not in values for other in needs[name]):
            continue
        try:
            values[name] = known[name] = evaluate(consts[name], known)
        except ExpressionError as exc:
            errors[name] = exc
    return values, errors


@lru_cache(maxsize=4096)
def parse(text: str) -> Expression:
    """The syntax tree of arithmetic over dims and consts. Raises ExpressionError."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"an expression of {len(text):,} characters; at most {MAX_LENGTH} are allowed"
        )
    if "\n" in text:
        message = "a line break has no meaning in dims and consts"
        raise ExpressionError(message, "", text.index("\n"))
    try:
        tree = grammar.parse(text)
    except ExpressionError as exc:
        help = exc.help or f"an expression is made of {GRAMMAR}"
        raise ExpressionError(exc.message, help, exc.start, exc.length) from None
    for node in walk(tree):
        if isinstance(node, Call) and node.function not in FUNCTIONS:
            raise _not_here(node, f"{node.function}()")
        if isinstance(node, (Unary, Binary)) and node.operator not in _OPERATORS:
            raise _not_here(node, f"'{node.operator}'")
    return tree


def _not_here(node: Expression, what: str) -> ExpressionError:
    message = f"{what} has no meaning in dims and consts"
    help = f"an expression of them is made of {GRAMMAR}"
    return ExpressionError(message, help, node.start, node.length)


# Evaluating ------------------------------------------------------------------------------


class _Evaluator:
    def __init__(self, names: Mapping[str, Number], want: Want) -> None:
        self.names, self.want, self.depth = names, want, 0

    def value(self, node: Expression) -> Number:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _at(node, f"nested deeper than {MAX_DEPTH} levels")
        try:
            return _checked(self.computed(node))
        except ZeroDivisionError:
            raise _at(node, "division by zero") from None
        except OverflowError:
            raise _at(node, "the value is too large") from None
        except ExpressionError as exc:
            raise exc if exc.start is not None else _at(node, exc.message, exc.help) from None
        finally:
            self.depth -= 1

    def computed(self, node: Expression) -> Number:
        match node:
            case Name():
                return self.name(node.name)
            case Unary():
                operand = self.value(node.operand)
                return -operand if node.operator == "-" else operand
            case Binary():
                left, right = self.value(node.left), self.value(node.right)
                if node.operator == "/":
                    return self.divide(left, right)
                return _BINARY[node.operator](left, right)
            case Call():
                return _CALLS[node.function]([self.value(each) for each in node.arguments])
        return node.value

    def name(self, name: str) -> Number:
        if name in self.names:
            return self.names[name]
        if name.lower() in ("nan", "inf", "infinity"):
            raise ExpressionError(f"'{name}' is not a finite number")
        raise ExpressionError(f"unknown name '{name}'", _known(name, self.names))

    def divide(self, left: Number, right: Number) -> Number:
        if isinstance(left, float) or isinstance(right, float):
            return left / right
        if left % right == 0:
            return left // right
        if self.want == "int":
            raise ExpressionError(f"{left} / {right} does not divide exactly", "'//' rounds down")
        return left / right


def power(base: Number, exponent: Number) -> Number:
    """base ** exponent, a real number; integers within int64. Raises ExpressionError, and
    ZeroDivisionError and OverflowError as Python does."""
    if isinstance(base, int) and isinstance(exponent, int) and exponent >= 0:
        # |base| ≥ 2 ** (bits - 1), so the power has at least that many bits times the exponent.
        if abs(base) > 1 and (base.bit_length() - 1) * exponent >= 64:
            raise ExpressionError(f"{base} ** {exponent} is past int64")
        return int(base**exponent)
    if base == 0 and exponent < 0:
        raise ZeroDivisionError
    if base < 0 and not float(exponent).is_integer():
        raise ExpressionError("a fractional power of a negative number")
    return float(float(base) ** exponent)


def _sqrt(value: Number) -> Number:
    if value < 0:
        raise ExpressionError("the square root of a negative number")
    if isinstance(value, int) and math.isqrt(value) ** 2 == value:
        return math.isqrt(value)
    return math.sqrt(value)


_BINARY: dict[str, Callable[[Number, Number], Number]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": power,
}
_OPERATORS = frozenset((*_BINARY, "/"))
_CALLS: dict[str, Callable[[list[Number]], Number]] = {
    "max": max,
    "min": min,
    "sqrt": lambda values: _sqrt(values[0]),
}


def _checked(value: Number) -> Number:
    if isinstance(value, int):
        if not -INT64_MAX - 1 <= value <= INT64_MAX:
            raise ExpressionError("the value is past int64")
    elif not math.isfinite(value):
        raise ExpressionError(f"{value} is not a finite number")
    return value


def _wanted(value: Number, want: Want) -> Number:
    if want == "int" and not isinstance(value, int):
        raise ExpressionError(f"the value must be an integer, found {value}", "'//' rounds down")
    return value


def _known(name: str, names: Mapping[str, Number]) -> str:
    some = list(names)[:1000]
    listed = f"known names: {', '.join(some[:20])}" if some else "no dims or consts are declared"
    return did_you_mean(name, [*some, *FUNCTIONS]) or listed


def _at(node: Expression, message: str, help: str = "") -> ExpressionError:
    return ExpressionError(message, help, node.start, node.length)
