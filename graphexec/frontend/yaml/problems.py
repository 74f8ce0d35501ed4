"""The problems of a file, and the phrases of their messages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from graphexec.base.diagnostics import Diagnostic, Mark, Source, did_you_mean
from graphexec.frontend.yaml.tree import ListNode, Node, ScalarNode

MAX_SHOWN = 20  # problems in one run


class _Problem(NamedTuple):
    mark: Mark | None
    message: str
    severity: Literal["error", "warning"]
    label: str
    notes: tuple[str, ...]
    help: str
    wrong: str
    known: Collection[str]


class Problems:
    """Problems, noted in any order and returned in the order of the file."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.context: tuple[str, ...] = ()  # notes of all problems that are noted now
        self._found: list[_Problem | Diagnostic] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(
        self, place: Node | Mark | None, message: str, *, label: str = "",
        notes: Sequence[str] = (), help: str = "", wrong: str = "", known: Collection[str] = (),
        severity: Literal["error", "warning"] = "error",
    ) -> None:  # fmt: skip
        """Note a problem. If it is shown, a name in `known` close to `wrong` is suggested."""
        mark = place if place is None or isinstance(place, Mark) else place.mark
        self._found.append(
            _Problem(mark, message, severity, label, (*notes, *self.context), help, wrong, known)
        )

    def extend(self, diagnostics: Sequence[Diagnostic]) -> None:
        """Add finished diagnostics."""
        self._found.extend(diagnostics)

    def diagnostics(self) -> list[Diagnostic]:
        """In the order of the file, each once, at most MAX_SHOWN and a line that counts the rest.

        Aliases and merges show one place several times.
        """
        each: dict[object, _Problem | Diagnostic] = {}
        for problem in self._found:
            each.setdefault((problem.mark, problem.message), problem)
        ordered = sorted(each.values(), key=lambda p: _position(p.mark))
        shown = [self._finish(p) for p in ordered[:MAX_SHOWN]]
        rest = len(ordered) - len(shown)
        if rest:
            kind = shown[0].severity + ("s" if rest > 1 else "")
            shown.append(Diagnostic(f"and {rest:,} more {kind}", severity=shown[0].severity))
        return shown

    def _finish(self, p: _Problem | Diagnostic) -> Diagnostic:
        if isinstance(p, Diagnostic):
            return p
        help = (suggestion(p.wrong, p.known) if p.wrong else "") or p.help
        return Diagnostic(p.message, p.severity, self.source, p.mark, p.label, p.notes, help)


def _position(mark: Mark | None) -> tuple[int, int]:
    return (0, 0) if mark is None else (mark.line, mark.column)


def suggestion(wrong: str, known: Collection[str]) -> str:
    """`did_you_mean` in bounded time: of many known names only the likely ones are compared."""
    same = [k for k in known if k.lower() == wrong.lower()]
    if same:
        return f"did you mean '{same[0]}'?"
    if len(known) > 1000:
        alike = (k for k in known if k[:1] == wrong[:1] and abs(len(k) - len(wrong)) <= 2)
        known = [k for k, _ in zip(alike, range(1000), strict=False)]
    return did_you_mean(wrong, known)


def short(value: object) -> str:
    """The value for a message, cut to a readable length."""
    if isinstance(value, int) and abs(value) > 10**999:  # str() refuses such
        return "a huge number"
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def found(node: Node) -> str:
    """The value found, in words."""
    if not isinstance(node, ScalarNode):
        return "a list" if isinstance(node, ListNode) else "a mapping"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return str(node.value).lower()
    if isinstance(node.value, str):
        return f"the text '{short(node.value)}'"
    return f"the number {short(node.value)}"
