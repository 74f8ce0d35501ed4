"""What a model's file says of it, by name and of the kind that is wanted."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import GraphError

_LARGEST = 1 << 31
_SHOWN = 8


class Said:
    """Values by name; `problems` has what is missing, of another kind, or not supported."""

    def __init__(self, where: str, values: Mapping[str, Any], prefix: str = "") -> None:
        """`where` is the file for messages, `prefix` what stands before every name in it."""
        self.where, self.problems = where, list[Diagnostic]()
        self._values, self._prefix = values, prefix

    def count(self, name: str, default: int | None = None, most: int = 0) -> int:
        """An integer from 1 to `most`, if that is given; 1 where it is wrong."""
        value = self._value(name, default)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and 0 < value <= (most or _LARGEST):
            return int(value)
        self._wrong(name, value, f"a number from 1 to {most:,}" if most else "a number from 1")
        return 1

    def layers(self, name: str) -> int:
        """How many layers there are."""
        return self.count(name, most=1000)

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number; 1 where it is wrong."""
        value = self._value(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and 0 < value < 1e30 and math.isfinite(value):
            return float(value)
        self._wrong(name, value, "a positive number")
        return 1.0

    def word(self, name: str, default: str) -> str:
        """A text."""
        value = self._value(name, default)
        if isinstance(value, str):
            return value
        self._wrong(name, value, "a text")
        return default

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._value(name, default)
        if isinstance(value, bool):
            return value
        self._wrong(name, value, "true or false")
        return default

    def get(self, name: str) -> Any:
        """A value of any kind; None where there is none."""
        return self._values.get(self._prefix + name)

    def part(self, name: str) -> Said | None:
        """What is said in a mapping of that name; None where there is none."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self._wrong(name, value, "a mapping")
            return None
        part = Said(f"{self.where}, {name}", value)
        part.problems = self.problems
        return part

    def only(self, name: str, default: Any, *known: Any) -> Any:
        """A value that must be one of those known."""
        value = self._value(name, default)
        if value not in known:
            self.refuse(f"{self._prefix}{name} is {value!r:.60}",
                        f"known: {', '.join(map(repr, known))}")  # fmt: skip
        return value

    def refuse(self, message: str, help: str = "") -> None:
        """Note something that is not supported."""
        self.problems.append(Diagnostic(f"{self.where}: {message}", help=help))

    def refuse_unread(self, stored: Iterable[str], read: Collection[str]) -> None:
        """Note arrays of the model that nothing would read: it is not what it is taken for."""
        unread = sorted(set(stored).difference(read))
        if unread:
            shown = ", ".join(f"'{name:.100}'" for name in unread[:_SHOWN])
            more = f" and {len(unread) - _SHOWN:,} more" if len(unread) > _SHOWN else ""
            self.refuse(f"the weights hold arrays that such a model does not have: {shown}{more}")

    def check(self) -> None:
        """Raises GraphError with all problems, if there are any."""
        if self.problems:
            raise GraphError(self.problems)

    def _value(self, name: str, default: Any) -> Any:
        value = self.get(name)
        return default if value is None else value

    def _wrong(self, name: str, value: Any, wanted: str) -> None:
        full = self._prefix + name
        told = f"{full} is missing" if value is None else f"{full} is {value!r:.60}"
        self.refuse(f"{told}; expected {wanted}")
