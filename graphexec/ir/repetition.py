"""The numbers of repetitions in the keys and files of a block's weights.

`{i}` is the number of the innermost repetition, `{2 * i + 1}` integer arithmetic with it, and
`{layer.i}` the number of the enclosing block `layer`. All other braces stand for themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from graphexec.base.expressions import ExpressionError, evaluate, names_in

NUMBER = "i"
NO_REPETITION = "{i} is the number of a repetition of a block, and this is in none"

_BRACES = re.compile(r"\{(?! )([^{}]*)(?<! )\}")

Numbers = Mapping[str, "int | None"]
"""The number by what stands for it: "i", "layer.i". None has no value here."""


def numbered(text: str, numbers: Numbers) -> str:
    """The text with numbers in place of what stands for them.

    Raises ExpressionError, placed in the text, where one has no value.
    """
    if "{" not in text:
        return text
    parts, end = [], 0
    for found in _BRACES.finditer(text):
        value = _value(found, numbers)
        if value is not None:
            parts += [text[end : found.start()], str(value)]
            end = found.end()
    return "".join([*parts, text[end:]])


def is_numbered(text: str) -> bool:
    """Whether a text has the number of a repetition in it, whatever blocks there are."""
    try:
        return numbered(text, {NUMBER: 1}) != text
    except ExpressionError:
        return True


def _value(found: re.Match[str], numbers: Numbers) -> int | None:
    """The number that braces stand for; None if they stand for themselves."""
    inner, values = found[1], {}
    for place, name in enumerate(sorted(numbers, key=len, reverse=True)):
        symbol = f"_{place}"
        inner, times = re.subn(rf"(?<![\w.]){re.escape(name)}(?![\w.])", symbol, inner)
        if times:
            values[symbol] = numbers[name]
    try:
        if not values or names_in(inner) != set(values):
            return None
    except ExpressionError:
        return None
    start, length = found.start(), found.end() - found.start()
    if None in values.values():
        raise ExpressionError(f"'{found[0]}' has no value here", NO_REPETITION, start, length)
    try:
        known = {name: value for name, value in values.items() if value is not None}
        return int(evaluate(inner, known, "int"))
    except ExpressionError as exc:
        raise ExpressionError(f"'{found[0]}': {exc.message}", exc.help, start, length) from exc
