"""Arithmetic over dims and consts: "S // 2", "D ** -0.5", "max(M, 8) * 2".

    + - * / // % **   unary + and -   ( )   min(...)   max(...)   sqrt(x)

Integers are exact. `//` rounds down. `/` of integers must divide exactly where an integer is
wanted; elsewhere it gives an integer if it divides and a float if not. sqrt of a square is an
integer. Every intermediate value must be a finite real number within int64; powers are checked
before they are computed.
"""

from __future__ import annotations

import ast
import keyword
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

from graphexec.base.cycles import topological_order
from graphexec.base.diagnostics import did_you_mean
from graphexec.base.tensor import INT64_MAX

Number = int | float
Want = Literal["int", "number"]

MAX_LENGTH = 200  # characters
MAX_DEPTH = 50
GRAMMAR = "numbers, dims and consts with + - * / // % ** ( ) min max sqrt"
FUNCTIONS = ("max", "min", "sqrt")
RESERVED = (*keyword.kwlist, "__debug__", *FUNCTIONS)
"""Words that are no names of dims or consts: Python's keywords and the functions."""

_TOKEN = re.compile(
    r"[ \t]*(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![A-Za-z0-9_.])"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\*\*|//|[-+*/%(),])"
)


class ExpressionError(Exception):
    """An expression has no value. `start` and `length`: the place, without leading blanks."""

    def __init__(
        self, message: str, help: str = "", start: int | None = None, length: int = 1
    ) -> None:
        super().__init__(message)
        self.message, self.help, self.start, self.length = message, help, start, length


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
    return _wanted(_Evaluator(names, want).value(parse(value.strip(" \t"))), want)


def names_in(text: str) -> set[str]:
    """The names an expression refers to; ExpressionError if the text is no expression."""
    return {m["name"] for m in _tokens(text) if m["name"] and m["name"] not in FUNCTIONS}


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


# Parsing ---------------------------------------------------------------------------------


def _tokens(text: str) -> Iterator[re.Match[str]]:
    # Only these tokens reach Python's parser: it warns about some others.
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"an expression of {len(text):,} characters; at most {MAX_LENGTH} are allowed"
        )
    at = 0
    while text[at:].strip(" \t"):
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip(" \t"))
            raise _not_arithmetic(text, at)
        yield match
        at = match.end()


@lru_cache(maxsize=4096)
def parse(text: str) -> ast.expr:
    """The syntax tree; ExpressionError if the text is no arithmetic."""
    for _ in _tokens(text):
        pass
    if not text:
        raise ExpressionError("an empty expression", GRAMMAR)
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise _not_arithmetic(text) from exc


def _not_arithmetic(text: str, start: int | None = None) -> ExpressionError:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return ExpressionError(
        f"'{shown}' is not an arithmetic expression", f"an expression is made of {GRAMMAR}", start
    )


# Evaluating ------------------------------------------------------------------------------


class _Evaluator:
    def __init__(self, names: Mapping[str, Number], want: Want) -> None:
        self.names, self.want, self.depth = names, want, 0

    def value(self, node: ast.expr) -> Number:
        rule = _RULES.get(type(node))
        if rule is None:
            raise _at(node, "this is not arithmetic", f"an expression is made of {GRAMMAR}")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _at(node, f"nested deeper than {MAX_DEPTH} levels")
        try:
            return _checked(rule(self, node))
        except ZeroDivisionError:
            raise _at(node, "division by zero") from None
        except OverflowError:
            raise _at(node, "the value is too large") from None
        except ExpressionError as exc:
            raise exc if exc.start is not None else _at(node, exc.message, exc.help) from None
        finally:
            self.depth -= 1

    def constant(self, node: ast.Constant) -> Number:
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            raise ExpressionError("this is not a number")
        return node.value

    def name(self, node: ast.Name) -> Number:
        if node.id in self.names:
            return self.names[node.id]
        if node.id.lower() in ("nan", "inf", "infinity"):
            raise ExpressionError(f"'{node.id}' is not a finite number")
        raise ExpressionError(f"unknown name '{node.id}'", _known(node.id, self.names))

    def unary(self, node: ast.UnaryOp) -> Number:
        operand = self.value(node.operand)
        if isinstance(node.op, ast.USub):
            return -operand
        if isinstance(node.op, ast.UAdd):
            return operand
        raise ExpressionError("this is not arithmetic", f"an expression is made of {GRAMMAR}")

    def binary(self, node: ast.BinOp) -> Number:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.Div):
            return self.divide(left, right)
        return _BINARY[type(node.op)](left, right)

    def divide(self, left: Number, right: Number) -> Number:
        if isinstance(left, float) or isinstance(right, float):
            return left / right
        if left % right == 0:
            return left // right
        if self.want == "int":
            raise ExpressionError(f"{left} / {right} does not divide exactly", "'//' rounds down")
        return left / right

    def call(self, node: ast.Call) -> Number:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS or node.keywords:
            known = did_you_mean(name, FUNCTIONS) or f"functions: {', '.join(FUNCTIONS)}"
            raise ExpressionError(f"unknown function '{name}'" if name else "not a function", known)
        values = [self.value(argument) for argument in node.args]
        if not values or (name == "sqrt" and len(values) != 1):
            raise ExpressionError(f"{name}() takes {'one' if name == 'sqrt' else 'some'} number")
        return _sqrt(values[0]) if name == "sqrt" else (min if name == "min" else max)(values)


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and exponent >= 0:
        # |base| ≥ 2 ** (bits - 1), so the power has at least that many bits times the exponent.
        if abs(base) > 1 and (base.bit_length() - 1) * exponent >= 64:
            raise ExpressionError(f"{base} ** {exponent} is past int64")
        return int(base**exponent)
    if base == 0 and exponent < 0:
        raise ZeroDivisionError
    if base < 0 and exponent != int(exponent):
        raise ExpressionError("a fractional power of a negative number")
    return float(float(base) ** exponent)


def _sqrt(value: Number) -> Number:
    if value < 0:
        raise ExpressionError("the square root of a negative number")
    if isinstance(value, int) and math.isqrt(value) ** 2 == value:
        return math.isqrt(value)
    return math.sqrt(value)


_RULES: dict[type[ast.expr], Callable[[_Evaluator, Any], Number]] = {
    ast.Constant: _Evaluator.constant,
    ast.Name: _Evaluator.name,
    ast.UnaryOp: _Evaluator.unary,
    ast.BinOp: _Evaluator.binary,
    ast.Call: _Evaluator.call,
}
_BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
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


def _at(node: ast.expr, message: str, help: str = "") -> ExpressionError:
    end = node.end_col_offset or node.col_offset + 1
    return ExpressionError(message, help, node.col_offset, end - node.col_offset)
