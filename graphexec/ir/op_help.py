"""The methods of a graph that add a node, one an op, with a signature and the op's own text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from inspect import Parameter, Signature
from textwrap import fill
from typing import Any

from graphexec.ir.op import Attribute, Op

_WIDTH = 96
_COMMON = (("name", None), ("after", ()), ("shape", None))


def method(op: Op, node: Callable[..., str]) -> Callable[..., str]:
    """`node(op.name, …)` as a function that says in `help` what the op is."""

    def add(*operands: str | Sequence[str], **settings: Any) -> str:
        return node(op.name, *operands, **settings)

    add.__name__, add.__qualname__ = op.name, f"Graph.{op.name}"
    add.__doc__, add.__signature__ = _told(op)  # type: ignore[attr-defined]
    return add


@lru_cache(maxsize=256)
def _told(op: Op) -> tuple[str, Signature]:
    return _text(op), _signature(op)


def _text(op: Op) -> str:
    parts = [fill(" ".join(op.doc.split()), _WIDTH)]
    operands = [(o.name, f"{o.text}{' (optional)' if o.optional else ''}") for o in op.operands]
    if operands:
        parts.append(_entries("Operands, each the name of a tensor:", operands))
    if op.attributes:
        parts.append(_entries("Attributes:", [(a.name, _explained(a)) for a in op.attributes]))
    parts.append(fill(
        "`name` is the node's, made from the op's by default; `after` are nodes to wait for; "
        "`shape` is asserted. Returns the name. Raises GraphError.", _WIDTH,
    ))  # fmt: skip
    return "\n\n".join(parts)


def _entries(title: str, entries: Sequence[tuple[str, str]]) -> str:
    lines = [fill(f"    {name}: {text}", _WIDTH, subsequent_indent=" " * 8)
             for name, text in entries]  # fmt: skip
    return "\n".join([title, *lines])


def _explained(attribute: Attribute) -> str:
    kind = " | ".join(attribute.choices) or attribute.kind
    return f"{attribute.doc} ({kind}; default {attribute.default!r})"


def _signature(op: Op) -> Signature:
    either, by_name = Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY
    needed = [o for o in op.operands if not o.optional]
    known: dict[str, Parameter] = {o.name: Parameter(o.name, either) for o in needed}
    if op.expression is not None:
        known[op.expression] = Parameter(op.expression, either)
    # Python has those with a default last; operands after an optional one are given by name.
    for operand in op.operands:
        if operand.optional:
            known[operand.name] = Parameter(operand.name, by_name, default=None)
    for attribute in op.attributes:
        known.setdefault(
            attribute.name, Parameter(attribute.name, by_name, default=attribute.default)
        )
    for name, default in _COMMON:
        known.setdefault(name, Parameter(name, by_name, default=default))
    if op.expression is not None:  # tensors by their names in it
        known.setdefault("tensors", Parameter("tensors", Parameter.VAR_KEYWORD))
    return Signature(list(known.values()), return_annotation=str)
