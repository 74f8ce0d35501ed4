"""Operators that ONNX defines by other operators: their definitions, written out."""

from __future__ import annotations

from typing import Any

from graphexec.frontend.onnx.extents import Poly
from graphexec.frontend.onnx.model import DTYPES, onnx
from graphexec.frontend.onnx.values import Node, Value


def expansion(node: Node, proto: Any) -> Any:
    """The definition of a node's operator as a function; None if it has none."""
    schema: Any
    try:
        schema = onnx.defs.get_schema(node.op, node.opset)
    except onnx.defs.SchemaError:
        return None
    body = onnx.FunctionProto()
    if schema.has_function:
        body.CopyFrom(schema.function_body)
        return _with_defaults(body, schema)
    if not schema.has_context_dependent_function:
        return None
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= node.opset]
    if not versions:
        return None
    types = [_type(v) for v in node.inputs]
    text = schema.get_context_dependent_function_with_opset_version(
        max(versions), proto.SerializeToString(), types
    )
    body.ParseFromString(text)
    return _with_defaults(body, schema)


def _with_defaults(body: Any, schema: Any) -> Any:
    """The definition with the defaults of attributes that the schema alone states."""
    stated = {a.name for a in body.attribute_proto}
    for name, attribute in schema.attributes.items():
        if name not in stated and attribute.default_value.name:
            body.attribute_proto.append(attribute.default_value)
    return body


_SINCE = {"Clip": 11, "Pad": 11, "Slice": 10,
          "TopK": 10, "Resize": 11, "Upsample": 99, "Scan": 9}  # fmt: skip
_BROADCASTS = 7
"""The opset from which operators broadcast as NumPy does."""


def since_when(op: str, opset: int) -> int:
    """The first opset in which an operator is what is read here."""
    if op in _SINCE:
        return _SINCE[op]
    if opset >= _BROADCASTS:
        return opset
    try:
        found = [onnx.defs.get_schema(op, version).since_version for version in (opset, 7)]
    except onnx.defs.SchemaError:
        return opset  # said as an operator that there is not
    return opset if found[0] == found[1] else _BROADCASTS


def _type(value: Value | None) -> bytes:
    if value is None:
        return onnx.TypeProto().SerializeToString()  # type: ignore[no-any-return]
    number = next(n for n, dtype in DTYPES.items() if dtype == value.dtype)
    shape = [str(e) if isinstance(e, Poly) else e for e in value.shape]
    made = onnx.helper.make_tensor_type_proto(number, shape)
    return made.SerializeToString()  # type: ignore[no-any-return]
