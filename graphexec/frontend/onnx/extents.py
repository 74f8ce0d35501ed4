"""Extents that are not known yet: polynomials over the named dims of a model.

An extent is an int, or a Poly that no int equals: `4 * B * S + 1`. Sums, differences and products
are exact. A quotient is exact where the divisor divides every term (`B * S * 384 // (S * 12)`);
another one is an atom of its own. Every dim is at least 1, which decides `B == -1` and `B * S > 0`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Monomial: TypeAlias = tuple[str, ...]

_QUOTIENT = "(("
"""What the name of a quotient begins with; one that may be negative begins with one more."""
_ANY = "((("


class Undecided(Exception):
    """What is asked of extents depends on the values of dims."""


@dataclass(frozen=True)
class Poly:
    """A sum of products of names; `terms` are sorted, and no coefficient is 0."""

    terms: tuple[tuple[Monomial, int], ...]

    @staticmethod
    def named(name: str) -> Poly:
        """The dim, or the expression in parentheses, called `name`."""
        return Poly((((name,), 1),))

    def __add__(self, other: Extent) -> Extent:
        found = dict(self.terms)
        for names, factor in _terms(other):
            found[names] = found.get(names, 0) + factor
        return _poly(found)

    def __mul__(self, other: Extent) -> Extent:
        found: dict[Monomial, int] = {}
        for one, f in self.terms:
            for two, g in _terms(other):
                names = tuple(sorted(one + two))
                found[names] = found.get(names, 0) + f * g
        return _poly(found)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Extent:
        return self * -1

    def __sub__(self, other: Extent) -> Extent:
        return self + other * -1

    def __rsub__(self, other: int) -> Extent:
        return self * -1 + other

    def __floordiv__(self, other: Extent) -> Extent:
        return _quotient(self, other)

    def __rfloordiv__(self, other: int) -> Extent:
        return _quotient(other, self)

    def __mod__(self, other: Extent) -> Extent:
        return self - (self // other) * other

    def __rmod__(self, other: int) -> Extent:
        return other - (other // self) * self

    def __lt__(self, other: Extent) -> bool:
        return not _not_below(self, other)

    def __gt__(self, other: Extent) -> bool:
        return not _not_below(other, self)

    def __le__(self, other: Extent) -> bool:
        return _not_below(other, self)

    def __ge__(self, other: Extent) -> bool:
        return _not_below(self, other)

    def __bool__(self) -> bool:
        return sign(self) != 0

    def __str__(self) -> str:
        return " + ".join(map(_product, self.terms)).replace("+ -", "- ")


Extent: TypeAlias = int | Poly


def _product(term: tuple[Monomial, int]) -> str:
    names, factor = term
    if not names:
        return str(factor)
    text = " * ".join(names)
    return text if factor == 1 else f"-{text}" if factor == -1 else f"{factor} * {text}"


def _terms(value: Extent) -> Iterable[tuple[Monomial, int]]:
    return value.terms if isinstance(value, Poly) else (((), int(value)),)


def _poly(found: Mapping[Monomial, int]) -> Extent:
    terms = sorted(((n, f) for n, f in found.items() if f), key=lambda t: (-len(t[0]), t[0]))
    if all(not names for names, _ in terms):
        return sum(factor for _, factor in terms)
    return Poly(tuple(terms))


def _quotient(value: Extent, by: Extent) -> Extent:
    if by == 0:
        raise Undecided("a division by 0")
    if isinstance(value, int) and isinstance(by, int):
        return value // by
    divided = _divided(value, by)
    if divided is not None:
        return divided
    merged = _merged(value, by)
    if merged is not None:
        return _quotient(*merged)
    least, divisor = _least(value), _least(by)
    positive = least is not None and least >= 0 and divisor is not None and divisor > 0
    text = f"(({value}) // ({by}))"
    found = Poly.named(text if positive else f"({text})")
    _QUOTIENTS[found.terms[0][0][0]] = value, by
    return found


_QUOTIENTS: dict[str, tuple[Extent, Extent]] = {}
"""Dividend and divisor by the names of quotients."""


def _merged(value: Extent, by: Extent) -> tuple[Extent, int] | None:
    """One division for two: (a // b + c) // d is (a + b * c) // (b * d) for numbers b, d > 0."""
    constant = sum(factor for names, factor in _terms(value) if not names)
    rest = [(names, factor) for names, factor in _terms(value) if names]
    if len(rest) != 1 or len(rest[0][0]) != 1 or rest[0][1] != 1 or not isinstance(by, int):
        return None
    inner, divisor = _QUOTIENTS.get(rest[0][0][0], (0, 0))
    if not isinstance(divisor, int) or divisor < 1 or by < 1:
        return None
    return inner + divisor * constant, divisor * by


def _divided(value: Extent, by: Extent) -> Extent | None:
    """The exact quotient by a product of dims; None where there is none."""
    if value == by:
        return 1
    divisor = tuple(_terms(by))
    if len(divisor) != 1:
        return None
    ((names, factor),) = divisor
    found: dict[Monomial, int] = {}
    for own, coefficient in _terms(value):
        left = list(own)
        for name in names:
            if name not in left:
                return None
            left.remove(name)
        if coefficient % factor:
            return None
        found[tuple(left)] = coefficient // factor
    return _poly(found)


def sign(value: Extent) -> int:
    """-1, 0 or 1. Raises Undecided where it depends on dims."""
    if isinstance(value, int):
        return (value > 0) - (value < 0)
    if (least := _least(value)) is not None and least > 0:
        return 1
    if (least := _least(-value)) is not None and least > 0:
        return -1
    raise Undecided(f"whether {value} is positive")


def _not_below(one: Extent, other: Extent) -> bool:
    """Whether one >= other. Raises Undecided where it depends on dims."""
    least, most = _least(one - other), _least(other - one)
    if least is not None and least >= 0:
        return True
    if most is not None and most > 0:
        return False
    raise Undecided(f"whether {one} is at least {other}")


def _least(value: Extent) -> int | None:
    """What a value is at least: dims are 1 or more, quotients 0 or more; None if not known."""
    least = 0
    for names, factor in _terms(value):
        if names and (factor < 0 or any(name.startswith(_ANY) for name in names)):
            return None
        least += factor * (not any(name.startswith(_QUOTIENT) for name in names))
    return least


def count(shape: Iterable[Extent]) -> Extent:
    """The number of elements."""
    found: Extent = 1
    for extent in shape:
        found = extent * found
    return found


def stated(extent: Extent) -> int | str:
    """An extent as a Graph states it."""
    return extent if isinstance(extent, int) else str(extent)


def broadcast(*shapes: Sequence[Extent]) -> tuple[Extent, ...]:
    """The shape that shapes broadcast to. Two extents that may be equal are taken to be equal:
    `infer` checks them when dims have values. ValueError where they cannot be."""
    rank = max(map(len, shapes), default=0)
    found: list[Extent] = [1] * rank
    for shape in shapes:
        for axis, extent in enumerate(shape, rank - len(shape)):
            found[axis] = met(found[axis], extent)
    return tuple(found)


def met(one: Extent, other: Extent) -> Extent:
    """The extent of two that broadcast; the more definite where both are possible."""
    if one == other or other == 1:
        return one
    if one == 1 or (isinstance(other, int) and not isinstance(one, int)):
        return other
    if isinstance(one, int) and isinstance(other, int):
        raise ValueError(f"extents {one} and {other} do not broadcast")
    return one


def known(shape: Iterable[Extent]) -> tuple[int, ...] | None:
    """The shape if all of it is known."""
    found = tuple(shape)
    return found if all(isinstance(e, int) for e in found) else None  # type: ignore[return-value]
