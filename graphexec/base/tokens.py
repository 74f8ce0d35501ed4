"""Expressions as tokens: numbers, names, operators."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class ExpressionError(Exception):
    """An expression is wrong. `start` and `length`: the place in its text, if it has one."""

    def __init__(
        self, message: str, help: str = "", start: int | None = None, length: int = 1
    ) -> None:
        super().__init__(message)
        self.message, self.help, self.start, self.length = message, help, start, length


class Token(NamedTuple):
    """`kind` is number, name, end, or for an operator its text."""

    kind: str
    text: str
    start: int


_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?(?![A-Za-z0-9_.]))"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\*\*|//|[<>=!]=|[-+*/%@<>(),]"
)
_BLANKS = re.compile(r"[ \t\n]*")
_NOT_A_NUMBER = re.compile(r"[0-9.][A-Za-z0-9_.]*")
WORDS = ("and", "or", "not")
"""Operators that are words: no names."""

_INSTEAD = {
    "&": "write 'and'", "|": "write 'or'", "!": "write 'not'", "~": "write 'not'",
    "=": "equality is '=='", "^": "a power is '**'",
    "?": "write where(condition, a, b)", ":": "write where(condition, a, b)",
    "[": "an expression has no indexing; op copy has 'slice'",
    ".": "a name with '.' needs another one, as in 'with: {x: trunk.h}'",
    "−": "write '-'", "–": "write '-'", "×": "write '*'", "·": "write '*'", "÷": "write '/'",
    "≤": "write '<='", "≥": "write '>='", "≠": "write '!='",
}  # fmt: skip
"""What to write in place of characters that no token begins with."""


def tokens(text: str) -> Iterator[Token]:
    """The tokens of an expression, the last of kind `end`. Raises ExpressionError."""
    at = _BLANKS.match(text, 0).end()  # type: ignore[union-attr]  # it matches anywhere
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _no_token(text, at)
        kind = match.lastgroup or match[0]
        yield Token(match[0] if match[0] in WORDS else kind, match[0], at)
        at = _BLANKS.match(text, match.end()).end()  # type: ignore[union-attr]
    yield Token("end", "", len(text.rstrip(" \t\n")))


def _no_token(text: str, at: int) -> ExpressionError:
    number = _NOT_A_NUMBER.match(text, at)
    if number is not None and number[0] != "." and not text[at - 1 : at].isalnum():
        help = "a product needs '*'" if re.match(r"[0-9.]+[A-Za-z_]\w*\Z", number[0]) else ""
        return ExpressionError(f"'{number[0][:60]}' is not a number", help, at, len(number[0]))
    return ExpressionError(
        f"'{text[at]}' has no meaning in expressions", _INSTEAD.get(text[at], ""), at
    )


def number(token: Token) -> int | float:
    """The value of a number. Raises ExpressionError."""
    text = token.text
    if not text.isdecimal():
        return float(text)
    if text[0] == "0" and text.strip("0"):  # octal to C, an error to Python
        raise ExpressionError(
            f"'{text[:60]}' begins with 0", "leave the zeros out", token.start, len(text)
        )
    if len(text) > 400:  # Python refuses thousands of digits, and no type holds hundreds
        raise ExpressionError("the value is too large", "", token.start, len(text))
    return int(text)
