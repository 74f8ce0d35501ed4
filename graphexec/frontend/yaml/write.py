"""A graph as YAML that `load` reads back as an equal graph.

Sections are blocks with one line a declaration. Strings are quoted where YAML 1.2 needs it, and
where a reader of YAML 1.1 would misread them (`on`, `1:30`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import GraphError
from graphexec.frontend.yaml.scalars import resolve
from graphexec.ir.expression import MAP
from graphexec.ir.graph import Block, Graph, InFile, Input, Node, State, Weight
from graphexec.ir.operand import listed
from graphexec.ir.origin import BLOCK

_PLAIN = re.compile(r"[A-Za-z_(/](?:[A-Za-z0-9_./+*()%\-]| (?! ))*(?<! )\Z")
_PLAIN_ENTRY = re.compile(r"[A-Za-z_(](?:[A-Za-z0-9_./+*()%\-,<>=!@]| (?! ))*(?<! )\Z")
_WORDS_OF_YAML_1_1 = frozenset(("y", "n", "yes", "no", "on", "off"))
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def to_yaml(graph: Graph) -> str:
    """The text. Raises GraphError when a string of the graph cannot be written as UTF-8."""
    return "".join(f"{line}\n" for line in _lines(graph))


def _lines(graph: Graph) -> Iterator[str]:
    yield "version: 1"
    yield f"name: {flow(graph.name)}"
    named = {"dims": graph.dims, "consts": graph.consts, "mesh": graph.mesh, "cut": graph.cut}
    for section, values in named.items():
        if values:
            yield f"{section}: {flow(values)}"
    yield from _section("inputs", ((i.name, _input(i)) for i in graph.inputs.values()))
    yield from _body(graph)
    if graph.blocks:
        yield "blocks:"
        for block in graph.blocks.values():
            yield f"  {flow(block.name)}:"
            yield from (f"    {line}" for line in _block(block))
    yield from _nodes(graph)
    yield f"outputs: {flow(graph.outputs)}"


def _block(block: Block) -> Iterator[str]:
    inputs = list(block.inputs)
    shapes = {name: block.shapes.get(name) for name in inputs}
    if inputs:
        yield f"inputs: {flow(shapes if block.shapes else inputs)}"
    yield from _body(block)
    yield from _nodes(block)
    yield f"outputs: {flow(block.outputs)}"


def _body(graph: Graph) -> Iterator[str]:
    """What a graph or block says of its weights."""
    if graph.weight_file is not None:
        yield f"file: {flow(graph.weight_file)}"
    if graph.weight_prefix:
        yield f"prefix: {flow(graph.weight_prefix)}"
    if graph.weight_dtype is not None:
        yield f"weight_dtype: {flow(graph.weight_dtype)}"
    yield from _section("weights", ((w.name, _weight(w)) for w in graph.weights.values()))
    yield from _section("state", ((s.name, _state(s)) for s in graph.states.values()))


def _nodes(graph: Graph) -> Iterator[str]:
    yield from _section("nodes", ((n.name, _node(n, graph)) for n in graph.nodes.values()))


def _section(name: str, entries: Iterable[tuple[str, dict[str, Any] | str]]) -> Iterator[str]:
    lines = [f"  {flow(key)}: {_entry(value)}" for key, value in entries]
    if lines:
        yield f"{name}:"
        yield from lines


def _entry(value: dict[str, Any] | str) -> str:
    """A value that stands outside of {…} and […]."""
    if isinstance(value, str) and _PLAIN_ENTRY.match(value) and _is_text(value):
        return value
    return flow(value)


def _input(item: Input) -> dict[str, Any]:
    return {"shape": item.shape, "dtype": item.dtype, **_cut(item)}


def _cut(item: Input | Weight | State) -> dict[str, Any]:
    return {"cut": item.cut} if item.cut else {}


def _weight(item: Weight) -> dict[str, Any] | str:
    fields = {"file": item.file, "key": item.key, "shape": item.shape, "dtype": item.dtype}
    given = {key: value for key, value in fields.items() if value is not None} | _cut(item)
    return item.key if item.key is not None and len(given) == 1 else given


def _state(item: State) -> dict[str, Any]:
    init: Any = item.init
    if isinstance(init, InFile):
        init = {k: v for k, v in (("file", init.file), ("key", init.key)) if v is not None}
    fields: dict[str, Any] = {"shape": item.shape, "dtype": item.dtype}
    begun = {"init": init} if init != 0 else {}
    return {**fields, **begun, "next": item.next, **_cut(item)}


def _node(item: Node, graph: Graph) -> dict[str, Any] | str:
    if item.op == BLOCK:
        use = {BLOCK: item.attrs[BLOCK], **item.operands, **item.attrs}
        return use | ({"after": item.after} if item.after else {})
    op = graph.ops[item.op]
    operands: dict[str, Any] = listed(item.operands)
    slot, renamed = op.expression, {}
    if slot is not None:
        declared = {name: operands.pop(name) for name in [o.name for o in op.operands]
                    if name in operands}  # fmt: skip
        renamed = {name: tensor for name, tensor in operands.items() if name != tensor}
        plain = not (declared or renamed or item.after) and item.shape is None
        if plain and op.name == MAP and set(item.attrs) == {slot}:
            return str(item.attrs[slot])
        operands = declared
    fields: dict[str, Any] = {"op": item.op, **operands, **item.attrs}
    if renamed:
        fields["with"] = renamed
    if item.after:
        fields["after"] = item.after
    if item.shape is not None:
        fields["shape"] = item.shape
    return fields


def flow(value: Any) -> str:
    """A value in one line."""
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(k)}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str):
        return _string(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _float(value) if isinstance(value, float) else str(int(value))


def _float(value: float) -> str:
    # 1e-05 is a string to readers of YAML 1.1, 1.0e-05 is a number to all.
    mantissa, e, exponent = repr(value).partition("e")
    return mantissa + (".0" if e and "." not in mantissa else "") + e + exponent


def _string(text: str) -> str:
    if _PLAIN.match(text) and _is_text(text):
        return text
    if _SURROGATE.search(text):
        raise GraphError([Diagnostic(f"{text!a} cannot be written in a YAML file")])
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def _is_text(text: str) -> bool:
    return isinstance(resolve(text), str) and text.lower() not in _WORDS_OF_YAML_1_1
