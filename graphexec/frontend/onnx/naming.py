"""Names of a model as names of a graph.

What a name of a graph cannot have becomes `.` (slashes and the like) or `_`; where two become one,
the later one gets a number. Exporters end names with "_output_0", which says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from keyword import iskeyword
from os.path import commonpath

from graphexec.base.grammar import WORDS
from graphexec.ir.names import SYMBOL

_SEPARATORS = re.compile(r"[/:]+")
_OTHERS = re.compile(r"[^A-Za-z0-9_.\-]+")
_MOST = 200  # characters


_TAKEN = {"inf", "nan", "pi", "op", "name", "expr", "shape", "dtype", "after", "with"}
"""Numbers of expressions, and what stands beside an expression in a node."""


class Names:
    """Gives out names, each once. `prefix` is left out at their beginning."""

    def __init__(self, prefix: str = "") -> None:
        self._taken: set[str] = set()
        self._prefix = prefix

    def new(self, wanted: str) -> str:
        """A name of a tensor, as near to `wanted` as can be."""
        text = wanted.removeprefix(self._prefix).removesuffix("_output_0")
        text = _OTHERS.sub("_", _SEPARATORS.sub(".", text).strip("."))[:_MOST]
        if not text or not (text[0].isascii() and (text[0].isalpha() or text[0] == "_")):
            text = f"t{text}" if text else "t"
        return self._once(text)

    def symbol(self, wanted: str) -> str:
        """A name of a dim."""
        text = re.sub(r"[^A-Za-z0-9_]+", "_", wanted)[:_MOST].strip("_") or "dim"
        text = text if SYMBOL.match(text) and not is_word(text) else f"d_{text}"
        return self._once(text)

    def _once(self, text: str) -> str:
        number, found = 2, text
        while found in self._taken:
            found, number = f"{text}_{number}", number + 1
        self._taken.add(found)
        return found


def common_folder(names: Iterable[str]) -> str:
    """The path that all names which are paths begin with, as "/model/"; "" if there is none."""
    paths = [name.rpartition("/")[0] for name in names if name.startswith("/")]
    common = commonpath(paths) if paths else "/"
    return "" if common == "/" else f"{common}/"


def is_word(name: str) -> bool:
    """Whether a name means something else in an expression."""
    return name in WORDS or iskeyword(name) or name in _TAKEN
