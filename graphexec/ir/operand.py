"""The operands of an op, and the language in which their shapes are stated.

"(…, M, K)" is a pattern: names stand for extents, one name for one extent wherever it occurs among
the operands of a node; a number stands for itself; … (or ...), in front, for any leading axes,
which all operands broadcast by NumPy's rules. "broadcast to P" is a shape that broadcasts to P:
a pattern, the name of an operand, or `out` for the result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import zip_longest
from typing import Any, Literal

from graphexec.base.tensor import DType, TensorType
from graphexec.ir.op_error import OpError

FLOATS = (DType.F16, DType.BF16, DType.F32, DType.F64)
INTEGERS = (DType.I8, DType.U8, DType.I32, DType.I64)
ANY = (*FLOATS, *INTEGERS, DType.BOOL)
Extent = str | int

_MEMBER = re.compile(r"(.+)\[(\d+)\]\Z")


@dataclass(frozen=True)
class Operand:
    """A tensor an op reads.

    shape    -- a pattern, see the module
    dtype    -- those it may have, or the name of another operand, whose dtype it shares
    space    -- the memory it lies in
    turned   -- a bool attribute: if true, the last two axes are stored in the other order
    optional -- may be left out of a node
    many     -- a list of one or more tensors, which a node has as operands x[0], x[1], …
    """

    name: str
    doc: str = ""
    optional: bool = False
    shape: str = "(…)"
    dtype: tuple[DType, ...] | str = FLOATS
    space: Literal["device", "host", "any"] = "device"
    turned: str = ""
    many: bool = False

    def __post_init__(self) -> None:
        if self.target.startswith("(") or not self.is_broadcast:
            parse(self.target)

    @cached_property
    def is_broadcast(self) -> bool:
        """Whether it broadcasts to its `target`, rather than having its shape."""
        return self.shape.startswith("broadcast to ")

    @cached_property
    def target(self) -> str:
        """The pattern or name in `shape`."""
        return self.shape.removeprefix("broadcast to ").strip()

    def member(self, index: int) -> Operand:
        """The operand that an element of the list is."""
        return replace(self, name=f"{self.name}[{index}]", many=False)

    @property
    def text(self) -> str:
        """What it is, for people."""
        shape = "" if self.shape == "(…)" else self.shape.replace("to out", "to the result")
        if self.turned:
            axes = parse(self.shape).extents
            shape += f", or {Pattern(True, (*axes[:-2], axes[-1], axes[-2]))} with {self.turned}"
        dtype = ""
        if isinstance(self.dtype, str):
            dtype = f"the dtype of {self.dtype}"
        elif self.dtype != FLOATS:
            dtype = "of any dtype" if self.dtype == ANY else " or ".join(self.dtype)
        space = "in host memory" if self.space == "host" else ""
        number = "a list of tensors" if self.many else ""
        parts = (number, shape, dtype, space, self.doc)
        return "; ".join(part for part in parts if part) or "any tensor"


def operand_of(operands: Sequence[Operand], name: str) -> Operand | None:
    """The operand that a node calls `name`: a declared one, or a member of a list."""
    found = _MEMBER.match(name)
    for operand in operands:
        if operand.many and found and found[1] == operand.name:
            return operand.member(int(found[2]))
        if not operand.many and operand.name == name:
            return operand
    return None


def listed(operands: Mapping[str, str]) -> dict[str, str | list[str]]:
    """The tensors of a node as its author gives them: members of one list in a list."""
    given: dict[str, str | list[str]] = {}
    for name, tensor in operands.items():
        found = _MEMBER.match(name)
        if found is None:
            given[name] = tensor
        else:
            members = given.setdefault(found[1], [])
            assert isinstance(members, list)
            members.append(tensor)
    return given


@dataclass(frozen=True)
class Pattern:
    """Any leading axes or none, then named or fixed extents."""

    leading: bool
    extents: tuple[Extent, ...]

    def __str__(self) -> str:
        if not self.leading and len(self.extents) == 1:
            return f"({self.extents[0]},)"
        return f"({', '.join([*(['…'] if self.leading else []), *map(str, self.extents)])})"


@cache
def parse(text: str) -> Pattern:
    """The pattern; ValueError when it is not one."""
    if not (text.startswith("(") and text.endswith(")")):
        raise ValueError(f"shape '{text}': expected a pattern such as (…, M, K)")
    parts = [part.strip() for part in text[1:-1].split(",")]
    if parts[-1] == "":
        parts.pop()
    leading = bool(parts) and parts[0] in ("…", "...")
    extents: list[Extent] = []
    for part in parts[leading:]:
        if not (part.isidentifier() or part.isdecimal()):
            raise ValueError(f"shape '{text}': '{part}' is neither a name nor an extent")
        extents.append(int(part) if part.isdecimal() else part)
    return Pattern(leading, tuple(extents))


class Shapes:
    """The shapes of a node's operands, checked against their patterns. OpError if they do not fit.

    `extents` are the values of names, `leading` the leading axes that … stands for in the result.
    """

    def __init__(
        self, operands: Sequence[Operand], types: Mapping[str, TensorType],
        attrs: Mapping[str, Any], result: str,
    ) -> None:  # fmt: skip
        self.types, self.attrs, self.result = types, attrs, result
        self.given = [operand for operand in operands if operand.name in types]
        self.extents: dict[Extent, int] = {}
        self.leading: tuple[int, ...] = ()
        self._first: dict[Extent, Operand] = {}  # by whose shape a name got its value
        for operand in self.given:
            self._place_and_dtype(operand, types[operand.name])
        for operand in self.given:
            if not operand.is_broadcast:
                self._bind(operand, parse(operand.target))
        for operand in self.given:
            if operand.is_broadcast:
                self._broadcast(operand, operand.target)

    def shape(self, pattern: str) -> tuple[int, ...]:
        """The shape that a pattern stands for in this node."""
        found = parse(pattern)
        own = (e if isinstance(e, int) else self.extents[e] for e in found.extents)
        return (*(self.leading if found.leading else ()), *own)

    def _place_and_dtype(self, operand: Operand, type: TensorType) -> None:
        name = operand.name
        if operand.space not in ("any", type.space):
            raise OpError(
                f"operand '{name}' is in {type.space} memory", name,
                help=f"copy it with `to: {operand.space}`",
            )  # fmt: skip
        if not isinstance(operand.dtype, str):
            if type.dtype not in operand.dtype:
                wanted = ", ".join(operand.dtype)
                usual = DType.F32 if DType.F32 in operand.dtype else operand.dtype[0]
                raise OpError(
                    f"operand '{name}' is {type}, but its dtype must be {wanted}", name,
                    help=f"cast it: {{op: copy, x: …, dtype: {usual}}}",
                )  # fmt: skip
            return
        other = self.types.get(operand.dtype, type)
        if other.dtype is not type.dtype:
            raise OpError(
                f"'{operand.dtype}' and '{name}' share a dtype: {operand.dtype} is {other}, "
                f"{name} is {type}", name,
                help=f"cast one of them: {{op: copy, x: …, dtype: {other.dtype}}}",
            )  # fmt: skip

    def _bind(self, operand: Operand, pattern: Pattern) -> None:
        shape, name = self.types[operand.name].shape, operand.name
        count = len(pattern.extents)
        if len(shape) < count or (len(shape) > count and not pattern.leading):
            least = "at least " if pattern.leading else ""
            raise OpError(
                f"operand '{name}' needs {least}{_axes(count)}, {pattern}; found {list(shape)}",
                name,
            )
        for extent, found in self._named(operand, self._is_turned(operand)):
            wanted = extent if isinstance(extent, int) else self.extents.setdefault(extent, found)
            self._first.setdefault(extent, operand)
            if wanted != found:
                raise self._differs(extent, wanted, operand, found)
        if pattern.leading:
            self._lead(name, shape[: len(shape) - count])

    def _lead(self, name: str, axes: tuple[int, ...]) -> None:
        before = self.leading
        if axes == before or not axes:
            return
        if not broadcasts(axes, before, both=True):
            raise OpError(
                f"the leading axes {list(axes)} of {name} do not broadcast with {list(before)}",
                name, notes=self._notes(),
                help="equal extents, or 1 where the other is shared (a copy can reshape)",
            )  # fmt: skip
        pairs = zip_longest(reversed(before), reversed(axes), fillvalue=1)
        self.leading = tuple(reversed([max(pair) for pair in pairs]))

    def _broadcast(self, operand: Operand, target: str) -> None:
        shape, name = self.types[operand.name].shape, operand.name
        if target in self.types:
            what, whole = f"{target} of shape", self.types[target].shape
        elif target == "out":
            what, whole = "the result", self.shape(self.result)
        else:
            what, whole = target, self.shape(target)
        if not broadcasts(shape, whole):
            raise OpError(
                f"{name} of shape {list(shape)} does not broadcast to {what} {list(whole)}", name
            )

    def _differs(self, extent: Extent, wanted: int, operand: Operand, found: int) -> OpError:
        name, first = operand.name, self._first[extent]
        if isinstance(extent, int):
            return OpError(f"an extent of {name} must be {wanted}, found {found}", name,
                           notes=self._notes(operand))  # fmt: skip
        return OpError(
            f"the extents {extent} differ: {wanted} in {first.name}, {found} in {name}", name,
            notes=self._notes(first, operand), help=self._turn(first, operand),
        )  # fmt: skip

    def _notes(self, *operands: Operand) -> tuple[str, ...]:
        return tuple(
            f"{o.name} is {self.types[o.name]}, {o.shape}"
            + (f" turned by {o.turned}" if self._is_turned(o) else "")
            for o in operands or self.given
        )

    def _turn(self, first: Operand, second: Operand) -> str:
        """Which attribute would make the extents of the two agree, if one does."""
        for operand, other in ((second, first), (first, second)):
            if not operand.turned:
                continue
            value = not self.attrs[operand.turned]
            fixed = dict(self._named(other, self._is_turned(other)))
            if all(fixed.get(e, axis) == axis for e, axis in self._named(operand, value)):
                return f"{operand.turned}: {str(value).lower()} would fit"
        return ""

    def _is_turned(self, operand: Operand) -> bool:
        return bool(operand.turned and self.attrs[operand.turned])

    def _named(self, operand: Operand, turned: bool) -> list[tuple[Extent, int]]:
        """The extents of an operand's pattern, each with its last axes."""
        extents = parse(operand.target).extents
        shape = self.types[operand.name].shape
        axes = list(shape[len(shape) - len(extents) :])
        if turned:
            axes[-2:] = axes[:-3:-1]
        return list(zip(extents, axes, strict=True))


def broadcasts(shape: Sequence[int], target: Sequence[int], both: bool = False) -> bool:
    """Whether `shape` broadcasts to `target`, or if `both`, the two with one another."""
    if len(shape) > len(target) and not both:
        return False
    pairs = zip(reversed(shape), reversed(target), strict=False)
    return all(e in (1, t) or (both and t == 1) for e, t in pairs)


def _axes(count: int) -> str:
    return f"{count} ax{'i' if count == 1 else 'e'}s"
