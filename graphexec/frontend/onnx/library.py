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
        return body
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
    return body


def differs(op: str, older: int, newer: int) -> bool:
    """Whether an operator of an opset is not the one of that name in a newer opset."""
    try:
        found = [onnx.defs.get_schema(op, opset).since_version for opset in (older, newer)]
    except onnx.defs.SchemaError:
        return False  # said as an operator that there is not
    return found[0] != found[1]


def _type(value: Value | None) -> bytes:
    if value is None:
        return onnx.TypeProto().SerializeToString()  # type: ignore[no-any-return]
    number = next(n for n, dtype in DTYPES.items() if dtype == value.dtype)
    shape = [str(e) if isinstance(e, Poly) else e for e in value.shape]
    made = onnx.helper.make_tensor_type_proto(number, shape)
    return made.SerializeToString()  # type: ignore[no-any-return]
