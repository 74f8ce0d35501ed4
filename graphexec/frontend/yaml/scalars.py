"""Plain scalars of YAML 1.2 (core schema): `1e-3` is a number, `no` is a string, `~` is null."""

from __future__ import annotations

import re
from math import inf, nan
from typing import TypeAlias

MAX_NUMBER = 400  # characters; 309 digits are the longest finite float

ScalarValue: TypeAlias = "bool | int | float | str | None"

WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), nan),
}
_NUMBER = re.compile(
    r"(?P<int>[-+]?[0-9]+)|0o(?P<oct>[0-7]+)|0x(?P<hex>[0-9a-fA-F]+)"
    r"|[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
)
NUMBER_STARTS = frozenset("+-.0123456789")


def resolve(text: str) -> ScalarValue:
    """The value of a plain scalar; ValueError for a number of absurd length."""
    if text in WORDS:
        return WORDS[text]
    if text[0] not in NUMBER_STARTS:
        return text
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    if len(text) > MAX_NUMBER:
        raise ValueError("too long")
    if match["int"]:
        return int(text)
    if match["oct"] or match["hex"]:
        return int(text[2:], 8 if match["oct"] else 16)
    return float(text)
