"""The expression language of dims, consts and maps: text to a syntax tree.

Python's operators and precedence, from loose to tight:

    or   and   not   == != < <= > >=   + -   * / // % @   unary + -   **

Comparisons are not chained, and a word is a function only before "(". The parser is a Pratt parser:
each operator has a binding power, and an operand ends before an operator that binds less tightly
(Vaughan Pratt, Top Down Operator Precedence, 1973). What names, functions and `@` mean is for the
users of the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeAlias

from graphexec.base.diagnostics import did_you_mean
from graphexec.base.tokens import WORDS as WORDS
from graphexec.base.tokens import ExpressionError as ExpressionError
from graphexec.base.tokens import Token, number, tokens

MAX_LENGTH = 10_000  # characters
MAX_DEPTH = 100  # operators and calls within one another; also parentheses within one another

FUNCTIONS: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(
        (
            "abs", "sign", "floor", "ceil", "round", "exp", "log", "log1p", "sqrt", "rsqrt", "sin",
            "cos", "tanh", "sigmoid", "erf", "gelu", "gelu_tanh", "silu", "relu", "softplus",
            "isnan", "isinf", "index", "T",
        ),
        (1, 1),
    ),
    "cast": (2, 2),
    "clip": (3, 3),
    "where": (3, 3),
    "min": (1, None),
    "max": (1, None),
}  # fmt: skip
"""How many arguments each function takes at least and at most; None: any number."""


# The tree ---------------------------------------------------------------------------------
# `start` and `length` are the place in the text. They take no part in comparisons.


@dataclass(frozen=True, slots=True, eq=False)
class Number:
    """A number. 1 and 1.0 differ, as do 0.0 and -0.0: they can have different types and results."""

    value: int | float
    start: int = 0
    length: int = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and repr(self.value) == repr(other.value)

    def __hash__(self) -> int:
        return hash(repr(self.value))


@dataclass(frozen=True, slots=True)
class Name:
    """A tensor, dim, const or constant by its name; within cast(x, f32), a dtype."""

    name: str
    start: int = field(default=0, compare=False)
    length: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Unary:
    """`operator` is one of - + not."""

    operator: str
    operand: Expression
    start: int = field(default=0, compare=False)
    length: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Binary:
    """`operator` is one of + - * / // % ** @ < <= > >= == != and or."""

    operator: str
    left: Expression
    right: Expression
    start: int = field(default=0, compare=False)
    length: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """A function of FUNCTIONS, with as many arguments as it takes."""

    function: str
    arguments: tuple[Expression, ...]
    start: int = field(default=0, compare=False)
    length: int = field(default=0, compare=False)


Expression: TypeAlias = "Number | Name | Unary | Binary | Call"


def children(node: Expression) -> tuple[Expression, ...]:
    """The operands of an operator, the arguments of a call."""
    match node:
        case Unary():
            return (node.operand,)
        case Binary():
            return (node.left, node.right)
        case Call():
            return node.arguments
    return ()


def rebuilt(node: Expression, change: Callable[[Expression], Expression]) -> Expression:
    """The node with what `change` gives in place of each of its children."""
    match node:
        case Unary():
            return replace(node, operand=change(node.operand))
        case Binary():
            return replace(node, left=change(node.left), right=change(node.right))
        case Call():
            return replace(node, arguments=tuple(map(change, node.arguments)))
    return node


def walk(node: Expression) -> Iterator[Expression]:
    """The node and all below it, in the order of the text."""
    yield node
    for child in children(node):
        yield from walk(child)


# Parsing ----------------------------------------------------------------------------------

_NOT, _COMPARISON, _SUM, _PRODUCT, _SIGN, _POWER = 3, 4, 5, 6, 7, 8
_BINDING = {
    "or": 1, "and": 2, **dict.fromkeys(("<", "<=", ">", ">=", "==", "!="), _COMPARISON),
    "+": _SUM, "-": _SUM, **dict.fromkeys(("*", "/", "//", "%", "@"), _PRODUCT), "**": _POWER,
}  # fmt: skip


@lru_cache(maxsize=1024)
def parse(text: str) -> Expression:
    """The syntax tree of an expression. Raises ExpressionError."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"an expression of {len(text):,} characters; at most {MAX_LENGTH:,} are allowed"
        )
    return _Parser(text).whole()


class _Parser:
    """One pass over the tokens. Its recursion is bounded by MAX_DEPTH, not by the text."""

    def __init__(self, text: str) -> None:
        self.tokens = tokens(text)
        self.token = next(self.tokens)
        self.end = 0  # of the token before
        self.pending = 0  # operators and calls whose operands are being read
        self.open = 0  # parentheses

    def whole(self) -> Expression:
        if self.token.kind == "end":
            raise ExpressionError("an empty expression")
        tree, _ = self.expression(0)
        if self.token.kind != "end":
            raise self.unexpected("an operator")
        return tree

    def expression(self, least: int) -> tuple[Expression, int]:
        """The longest expression whose operators bind at least so tightly, and its depth."""
        start = self.token.start
        left, depth = self.operand(least)
        compared = False
        while (binding := _BINDING.get(self.token.kind, -1)) >= least:
            operator = self.token
            if binding == _COMPARISON and compared:
                raise self.fault("comparisons are not chained", "write 'a < b and b < c'")
            compared = binding == _COMPARISON
            self.advance()
            right, below = self.within(operator, _SIGN if operator.kind == "**" else binding + 1)
            depth = self.deeper(operator, depth, below)
            left = Binary(operator.text, left, right, start, self.end - start)
        return left, depth

    def operand(self, least: int) -> tuple[Expression, int]:
        """A number, a name, a call, a sign or `not` with its operand, or parentheses."""
        token = self.token
        self.advance()
        if token.kind == "number":
            return Number(number(token), token.start, len(token.text)), 1
        if token.kind == "name":
            if self.token.kind == "(":
                return self.call(token)
            return Name(token.text, token.start, len(token.text)), 1
        if token.kind in ("-", "+", "not"):
            return self.unary(token, least)
        if token.kind == "(":
            return self.parentheses(token)
        self.token = token
        raise self.unexpected("a number or a name")

    def unary(self, token: Token, least: int) -> tuple[Expression, int]:
        if token.kind == "not" and least > _NOT:
            self.token = token
            raise self.fault("'not' binds less tightly than what is before it",
                             "put it in parentheses: (not a)")  # fmt: skip
        inner, depth = self.within(token, _NOT if token.kind == "not" else _SIGN)
        tree = Unary(token.text, inner, token.start, self.end - token.start)
        return tree, self.deeper(token, depth)

    def parentheses(self, token: Token) -> tuple[Expression, int]:
        self.opened(token)
        inner = self.expression(0)
        if self.token.kind == ",":
            raise self.unexpected("')'")
        self.close(token)
        return inner

    def call(self, name: Token) -> tuple[Expression, int]:
        if name.text not in FUNCTIONS:
            raise _unknown_function(name)
        bracket = self.token
        self.advance()
        self.opened(bracket)
        arguments, depths = [], [0]
        while self.token.kind != ")":
            argument, depth = self.within(name, 0)
            arguments.append(argument)
            depths.append(depth)
            if self.token.kind != ",":
                break
            self.advance()
        self.close(bracket)
        tree = Call(name.text, tuple(arguments), name.start, self.end - name.start)
        _check_count(tree)
        return tree, self.deeper(name, *depths)

    # Bounds and places

    def within(self, token: Token, least: int) -> tuple[Expression, int]:
        """An operand of the operator or call at `token`."""
        self.pending += 1
        self.deeper(token, self.pending - 1)
        found = self.expression(least)
        self.pending -= 1
        return found

    def deeper(self, token: Token, *depths: int) -> int:
        """The depth of a tree over others of these depths."""
        depth = 1 + max(depths)
        if depth > MAX_DEPTH:
            raise _too_deep(token)
        return depth

    def opened(self, token: Token) -> None:
        self.open += 1
        if self.open > MAX_DEPTH:
            raise _too_deep(token)

    def close(self, bracket: Token) -> None:
        if self.token.kind == "end":
            raise ExpressionError("this '(' is not closed", "", bracket.start)
        if self.token.kind != ")":
            raise self.unexpected("')'")
        self.open -= 1
        self.advance()

    def advance(self) -> None:
        self.end = self.token.start + len(self.token.text)
        self.token = next(self.tokens, self.token)

    def unexpected(self, wanted: str) -> ExpressionError:
        token = self.token
        if token.kind == "end":
            return ExpressionError(f"the expression ends where {wanted} is expected", "",
                                   max(0, token.start - 1))  # fmt: skip
        help = "write where(condition, a, b)" if token.text == "if" else ""
        return self.fault(f"expected {wanted}, found '{token.text[:60]}'", help)

    def fault(self, message: str, help: str = "") -> ExpressionError:
        return ExpressionError(message, help, self.token.start, len(self.token.text))


def _too_deep(token: Token) -> ExpressionError:
    return ExpressionError(
        f"nested deeper than {MAX_DEPTH} levels", "split it into several nodes", token.start
    )


def _unknown_function(name: Token) -> ExpressionError:
    known = did_you_mean(name.text, FUNCTIONS) or f"functions: {', '.join(FUNCTIONS)}"
    shown = name.text[:60]
    return ExpressionError(f"unknown function '{shown}'", known, name.start, len(name.text))


def _check_count(call: Call) -> None:
    least, most = FUNCTIONS[call.function]
    found = len(call.arguments)
    if least <= found and (most is None or found <= most):
        return
    wanted = f"{least}" if most is not None else f"at least {least}"
    plural = "" if least == 1 else "s"
    raise ExpressionError(
        f"{call.function}() takes {wanted} argument{plural}, found {found}", "",
        call.start, call.length,
    )  # fmt: skip
