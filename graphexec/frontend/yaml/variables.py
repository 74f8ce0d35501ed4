"""The sections `dims` and `consts`: what expressions may refer to."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Mapping

from graphexec.base.expressions import RESERVED, resolve_consts
from graphexec.base.tensor import INT64_MAX
from graphexec.frontend.yaml.document import Document
from graphexec.frontend.yaml.problems import short
from graphexec.frontend.yaml.tree import Node, ScalarNode
from graphexec.ir.graph import Graph

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
"""Names of dims and consts. Those in RESERVED are refused."""


def read_dims(doc: Document, graph: Graph, overrides: Mapping[str, int]) -> None:
    """Fill `graph.dims` from the file, then from `overrides`."""
    for name, _, node in _variables(doc, "dims"):
        value = node.value if isinstance(node, ScalarNode) else None
        extent = _extent(value)
        if extent is not None:
            graph.dims[name] = extent
            continue
        doc.fields.faulty.add(name)
        if isinstance(value, int) and value > INT64_MAX:
            doc.problems.add(node, f"dim '{name}' is past int64")
        else:
            help = "expressions belong in consts" if isinstance(value, str) else ""
            doc.fields.expected(node, f"a positive integer for dim '{name}'", help)
    known = [*graph.dims, *doc.fields.faulty]
    for name, given in overrides.items():
        extent = _extent(given)
        if name not in known:
            doc.problems.add(
                None, f"the graph has no dim '{short(name)}' to set", wrong=name, known=known,
                help=f"its dims: {', '.join(known)}" if known else "it declares no dims",
            )  # fmt: skip
        elif extent is None:
            doc.problems.add(
                None, f"dim '{name}' must be a positive integer within int64, not {short(given)}"
            )
        else:
            graph.dims[name] = extent


def read_consts(doc: Document, graph: Graph) -> None:
    """Fill `graph.consts`, and give `doc.fields` the values of all dims and consts."""
    places: dict[str, ScalarNode] = {}
    faulty = doc.fields.faulty
    for name, key, node in _variables(doc, "consts"):
        value = node.value if isinstance(node, ScalarNode) else None
        taken = name in graph.dims or name in faulty
        if taken:
            doc.problems.add(key, f"the name '{name}' is used twice", label="it is a dim, too")
        if value is None or isinstance(value, bool) or not isinstance(node, ScalarNode):
            doc.fields.expected(node, f"a number or an expression for const '{name}'")
            faulty.add(name)
        elif not taken:
            places[name], graph.consts[name] = node, value
    usable = {k: v for k, v in graph.consts.items() if not doc.fields.is_faulty(v)}
    values, errors = resolve_consts(usable, graph.dims)
    for name, error in errors.items():
        doc.fields.note_expression(places[name], error)
    faulty |= graph.consts.keys() - values.keys()
    doc.fields.names = {**graph.dims, **values}


def _variables(doc: Document, section: str) -> Iterator[tuple[str, ScalarNode, Node]]:
    """Declarations whose names expressions can use."""
    for key, value in doc.entries(section):
        name = str(key.value)
        if not VARIABLE.match(name):
            help = "letters, digits and '_', beginning with a letter or '_'"
            message = f"'{short(name)}' is not a name expressions can use"
            doc.problems.add(key, message, help=help)
        elif name in RESERVED:
            doc.problems.add(key, f"'{name}' has a meaning of its own in expressions")
        else:
            yield name, key, value


def _extent(given: object) -> int | None:
    if isinstance(given, bool):
        return None
    try:
        extent = operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        return None
    return extent if 0 < extent <= INT64_MAX else None
