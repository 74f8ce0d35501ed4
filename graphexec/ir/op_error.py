"""The error of an op, for everything that decides whether one applies."""

from __future__ import annotations

from collections.abc import Sequence


class OpError(Exception):
    """An op cannot be applied: why, which operand or attribute is to blame, and what helps."""

    def __init__(
        self, message: str, key: str = "", notes: Sequence[str] = (), help: str = ""
    ) -> None:
        super().__init__(message)
        self.key, self.notes, self.help = key, tuple(notes), help
        self.place: tuple[int, int] | None = None  # start and length within an expression
