"""The JSON Schema (draft 2020-12) of graph files, for editors; made from the ops' definitions.

It checks one value at a time. Only `load` checks these: names that must exist or be new, cycles,
the values of expressions, shapes such as `[8.0]` (8.0 is an integer to JSON Schema), numbers past
int64 where floats are allowed, and axes that are sliced twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from graphexec.base.expressions import RESERVED
from graphexec.base.grammar import WORDS
from graphexec.base.tensor import INT64_MAX, DType
from graphexec.ir.expression import MAP, WITH
from graphexec.ir.names import NODE_KEYS
from graphexec.ir.op import Attribute, Op
from graphexec.ir.registry import known_ops

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NAME = {"pattern": r"^[A-Za-z_][A-Za-z0-9_.\-]*$"}
VARIABLE = {"pattern": r"^[A-Za-z_][A-Za-z0-9_]*$", "not": {"enum": list(RESERVED)}}
TENSOR_VARIABLE = {"pattern": VARIABLE["pattern"], "not": {"enum": list(WORDS)}}
AXIS = {"pattern": r"^(0|-?[1-9][0-9]{0,8})$"}
FILES = ".npy, .npz, .safetensors or .safetensors.index.json, relative to this file"
EXPRESSION = r"^[A-Za-z0-9_ \t.,+*/%()\-]+$"


_TENSOR_EXPRESSION = {"type": "string", "minLength": 1}


def schema(ops: Mapping[str, Op] | None = None) -> Schema:
    """The schema of graphs over `ops` (by default all built-in and installed ones)."""
    if ops is None:
        ops = known_ops()
    return {
        "$schema": DIALECT,
        "title": "graphexec graph",
        "description": "A graph of GEMM, softmax, copy and other nodes.",
        **_object(_SECTIONS, ["version", "outputs"]),
        "if": {"not": {"required": ["file"]}},
        "then": {
            "properties": {
                "weights": {"additionalProperties": _NAMES_A_FILE},
                "blocks": {
                    "additionalProperties": {
                        "if": {"not": {"required": ["file"]}},
                        "then": {
                            "properties": {"weights": {"additionalProperties": _NAMES_A_FILE}}
                        },
                    }
                },
            }
        },
        "$defs": {
            **_DEFINITIONS,
            "node": _node(ops),
            **{f"op.{name}": _op(op) for name, op in ops.items()},
        },
    }


def _object(properties: Schema, required: list[str], **more: Any) -> Schema:
    return {
        "type": "object", "properties": properties, "required": required,
        "additionalProperties": False, **more,
    }  # fmt: skip


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _map(names: Schema, values: Schema, doc: str) -> Schema:
    return {"description": doc, "type": ["object", "null"], "propertyNames": names,
            "additionalProperties": values}  # fmt: skip


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _text(doc: str, numbered: bool = False) -> Schema:
    text = {"description": doc, "type": "string", "minLength": 1}
    return text if numbered else text | {"not": {"pattern": re.escape("{i}")}}


def _state(numbered: bool) -> Schema:
    file = {
        "file": _text(f"{FILES}; by default that of the graph", numbered),
        "key": _text("name of the array in it, after the prefix of the graph", numbered),
    }
    begin = "the value before the first run: a number, or an array in a file"
    end = "the tensor that is its value when the next run begins, or an expression"
    fields = {
        "shape": _ref("shape"),
        "dtype": _ref("dtype"),
        "cut": _ref("cut"),
        "init": {"description": begin, "default": 0, "anyOf": [_ref("number"), _object(file, [])]},
        "next": {"description": end, **_NEXT},
    }
    return _object(fields, ["shape", "dtype", "next"])


_NEXT: Schema = {"anyOf": [_TENSOR_EXPRESSION, {"type": "number"}]}
_NAMES_A_FILE = {"type": "object", "required": ["file"]}
_INTEGER = {"type": "integer", "minimum": -INT64_MAX - 1, "maximum": INT64_MAX}
_EXTENT = {"type": "integer", "minimum": 1, "maximum": INT64_MAX}
_DTYPE = {"enum": [d.value for d in DType], "description": "element type"}

_INPUT = {**NAME, "not": {"enum": list(NODE_KEYS)}}
_AFTER = _list(_ref("tensor"), description="nodes that must be done before this one")
_NODES = _map(NAME, _ref("node"), "ops; a node's name is that of the tensor it makes")
_OUTPUTS: Schema = {
    "description": "tensors to give back: name: tensor, or a list of tensors",
    "anyOf": [
        {
            "type": "object", "minProperties": 1, "propertyNames": NAME,
            "additionalProperties": _ref("tensor"),
        },
        _list(_ref("tensor"), minItems=1, uniqueItems=True),
    ],
}  # fmt: skip


def _weight(numbered: bool) -> Schema:
    properties = {
        "file": _text(f"{FILES}; by default that of the graph", numbered),
        "key": _text("name of the array in it; the prefix is put before it", numbered),
        "shape": _ref("shape"),
        "dtype": _ref("dtype"),
        "cut": _ref("cut"),
    }
    return _object(properties, [])


def _weights(definition: str, numbered: bool) -> Schema:
    key = _text("a key in the file of the graph", numbered)
    return _map(
        NAME, {"anyOf": [key, _ref(definition)]},
        "tensors read from files once: their keys, or what else is known of them",
    )  # fmt: skip


_AXIS_OF_MESH = {"description": "an axis of the mesh", "type": "string", "minLength": 1}

_DEFINITIONS: Schema = {
    "expression": {
        "description": "arithmetic over dims and consts", "type": "string", "pattern": EXPRESSION,
    },
    "extent": {"anyOf": [_EXTENT, _ref("expression")]},
    "integer": {"anyOf": [_INTEGER, _ref("expression")]},
    "number": {"anyOf": [{"type": "number"}, _ref("expression")]},
    "shape": _list(_ref("extent"), description="extents, outermost first"),
    "dtype": _DTYPE,
    "tensor": {"description": "name of an input, weight, state or node", "type": "string"},
    "cut": _map(VARIABLE, _AXIS_OF_MESH, "dims, each with the axis of the mesh it is cut along"),
    "input": _object(
        {"shape": _ref("shape"), "dtype": _ref("dtype"), "cut": _ref("cut")}, ["shape", "dtype"]
    ),
    "state": _state(numbered=False),
    "state_of_block": _state(numbered=True),
    "weight": _weight(numbered=False),
    "weight_of_block": _weight(numbered=True),
    "block": _object(
        {
            "inputs": {"description": "what it is given: names, or shapes by name", "anyOf": [
                _list(_INPUT, uniqueItems=True),
                _map(_INPUT, {"anyOf": [_ref("shape"), {"type": "null"}]}, "shapes by name"),
            ]},
            "file": _text(f"the file of its weights that name none: {FILES}", numbered=True),
            "prefix": _text("a text before the keys of its weights", numbered=True),
            "weights": _weights("weight_of_block", numbered=True),
            "state": _map(NAME, _ref("state_of_block"), "tensors that are kept, one a repetition"),
            "nodes": _NODES,
            "outputs": _OUTPUTS,
        },
        ["outputs"],
    ),
    "use": _object(
        {
            "block": {"description": "name of a block", "type": "string", "minLength": 1},
            "repeat": {"description": "how often; an output named like an input is that input of "
                       "the next repetition", **_ref("extent")},
            "after": _AFTER,
        },
        ["block"], additionalProperties=_ref("tensor"),
    ),
}  # fmt: skip

_SECTIONS: Schema = {
    "version": {"description": "version of this format", "const": 1},
    "name": {"description": "name of the graph", "type": "string", "minLength": 1},
    "dims": _map(VARIABLE, _EXTENT, "extents by name; the command line may set others"),
    "consts": _map(VARIABLE, _ref("number"), "numbers by name"),
    "mesh": _map(
        VARIABLE, {"type": "integer", "minimum": 1, "maximum": 65536},
        "how ranks are laid out: how many lie along each axis, the last the fastest",
    ),
    "cut": {"description": "dims that are cut along an axis of the mesh, in every tensor whose "
            "shape names them", **_ref("cut")},
    "inputs": _map(NAME, _ref("input"), "tensors given at every run"),
    "file": _text(f"the file of weights that name none: {FILES}"),
    "prefix": _text("a text before the keys of all weights"),
    "weight_dtype": {
        "enum": [str(dtype) for dtype in DType if dtype.is_float],
        "description": "weights of floats are converted to it as they are read",
    },
    "weights": _weights("weight", numbered=False),
    "state": _map(NAME, _ref("state"), "tensors that are kept from run to run"),
    "blocks": _map(NAME, _ref("block"), "graphs that nodes use, by name"),
    "nodes": _NODES,
    "outputs": _OUTPUTS,
}  # fmt: skip


def _node(ops: Mapping[str, Op]) -> Schema:
    cases = [
        {"if": {"properties": {"op": {"const": name}}}, "then": _ref(f"op.{name}")} for name in ops
    ]
    docs = {"oneOf": [{"const": name, "description": op.doc} for name, op in ops.items()]}
    node = {"type": "object", "properties": {"op": docs}, "required": ["op"], "allOf": cases}
    kinds = [node, _ref("use")]
    if MAP in ops:
        kinds.insert(0, {"description": ops[MAP].doc, **_TENSOR_EXPRESSION})
    return {"anyOf": kinds}


def _op(op: Op) -> Schema:
    properties: Schema = {
        "op": {"const": op.name},
        "after": _AFTER,
        "shape": {"description": "the shape this node must have", **_ref("shape")},
    }
    for operand in op.operands:
        one = _ref("tensor")
        value = _list(one, minItems=1) if operand.many else one
        properties[operand.name] = {"description": operand.text, **value}
    for attribute in op.attributes:
        properties[attribute.name] = _attribute(attribute)
    required = ["op", *(o.name for o in op.operands if not o.optional)]
    if op.expression is not None:
        names = _map(TENSOR_VARIABLE, _ref("tensor"), "tensors under names of the expression's own")
        properties[WITH] = {**names, "type": "object"}
        required.append(op.expression)
    return _object(properties, required, description=op.doc)


def _attribute(attribute: Attribute) -> Schema:
    kind = _KINDS[attribute.kind](attribute)
    if attribute.default is None and attribute.kind != "expression":
        return {"description": attribute.doc, "anyOf": [kind, {"type": "null"}]}
    default = {} if attribute.kind == "expression" else {"default": attribute.default}
    return {"description": attribute.doc, **default, **kind}


_KINDS: dict[str, Callable[[Attribute], Schema]] = {
    "bool": lambda attribute: {"type": "boolean"},
    "int": lambda attribute: _ref("integer"),
    "number": lambda attribute: _ref("number"),
    "dtype": lambda attribute: (
        {"enum": list(attribute.choices)} if attribute.choices else _ref("dtype")
    ),
    "choice": lambda attribute: {"enum": list(attribute.choices)},
    "axes": lambda attribute: _list(_ref("integer")),
    "axis": lambda attribute: {"anyOf": [_ref("integer"), _list(_ref("integer"))]},
    "dims": lambda attribute: _list(
        {"anyOf": [{"const": -1}, _ref("extent")]},
        contains={"const": -1}, minContains=0, maxContains=1,
    ),
    "slices": lambda attribute: {
        "type": "object",
        "propertyNames": AXIS,
        "additionalProperties": _list(
            {"anyOf": [_ref("integer"), {"type": "null"}]}, minItems=1, maxItems=3
        ),
    },
    "expression": lambda attribute: {"anyOf": [_TENSOR_EXPRESSION, {"type": "number"}]},
    "named": lambda attribute: {"type": "string", "minLength": 1},
}  # fmt: skip
