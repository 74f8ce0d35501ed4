"""ONNX's own tests of single nodes, by the backend of `graphexec.onnx_backend` on the CPU.

`onnx_not_taken.txt` lists those that are not taken, by reason. A test in the list that passes is a
failure, too: the list says what is so.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

import graphexec as gx
from graphexec import onnx_backend

SHARDS = 16
LIST = Path(__file__).with_name("onnx_not_taken.txt")
OF_MODELS = frozenset(LIST.with_name("onnx_operators_of_models.txt").read_text().split())
"""Operators element by element, products, norms, reductions, of shapes, gathers, attention."""

OUR_TYPES = {
    getattr(TensorProto, name)
    for name in ("FLOAT16", "BFLOAT16", "FLOAT", "DOUBLE", "INT32", "INT64", "BOOL")
}


@cache
def not_taken() -> dict[str, str]:
    """The reason by the name of a test."""
    found, reason = {}, ""
    for line in LIST.read_text().splitlines():
        if line.startswith("["):
            reason = line.strip("[]")
        elif line and not line.startswith("#"):
            assert reason
            assert line not in found, line
            found[line] = reason
    return found


@cache
def cases() -> tuple[Any, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the functions that make the expected results
        return tuple(sorted(load_model_tests(kind="node"), key=lambda case: case.name))


def failure(case: Any) -> str | None:
    """Why a test fails; None if it passes."""
    try:
        rep = onnx_backend.prepare(case.model, "CPU")
        for inputs, outputs in case.data_sets:
            given, wanted = ([array(x) for x in side] for side in (inputs, outputs))
            Runner.assert_similar_outputs(wanted, list(rep.run(given)), case.rtol, case.atol)
    except (gx.GraphexecError, AssertionError, ValueError) as exc:
        return " ".join(str(exc).split())[:300]
    return None


def array(given: Any) -> np.ndarray:
    return numpy_helper.to_array(given) if isinstance(given, TensorProto) else np.asarray(given)


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_nodes(shard: int) -> None:
    wrong = []
    for case in cases()[shard::SHARDS]:
        reason = failure(case)
        listed = not_taken().get(case.name)
        if reason is not None and listed is None:
            wrong.append(f"{case.name}: {reason}")
        if reason is None and listed is not None:
            wrong.append(f"{case.name} passes: it is listed as not taken, {listed}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_the_list_names_tests_that_exist() -> None:
    names = {case.name for case in cases()}
    assert not_taken().keys() <= names
    assert len(names) - len(not_taken()) >= 1398


def is_of_models(case: Any) -> bool:
    """Whether its operators are of that kind, its tensors of our types, and none is empty."""
    graph = case.model.graph
    values = [*graph.input, *graph.output]
    if any(value.type.WhichOneof("value") != "tensor_type" for value in values):
        return False
    types = {value.type.tensor_type.elem_type for value in values}
    tensors = [array(x) for data in case.data_sets for x in (*data[0], *data[1])]
    return (
        {node.op_type for node in graph.node} <= OF_MODELS
        and not any(node.domain for node in graph.node)
        and types <= OUR_TYPES
        and all(tensor.size for tensor in tensors)
    )


@pytest.mark.slow
def test_what_models_are_made_of_is_taken() -> None:
    found = [case.name for case in cases() if is_of_models(case)]
    missing = sorted(name for name in found if name in not_taken())
    assert (len(found), len(missing)) == (1024, 8), missing


def test_a_node_runs_by_itself() -> None:
    from onnx.helper import make_node

    x = np.float32([[1, 2], [3, 4]])
    (y,) = onnx_backend.run_node(make_node("MatMul", ["x", "y"], ["z"]), [x, x])
    np.testing.assert_array_equal(y, x @ x)


def test_devices() -> None:
    assert onnx_backend.supports_device("CPU")
    assert not onnx_backend.supports_device("XPU")


def test_there_is_a_plan_for_each_value_of_what_decides_shapes() -> None:
    from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

    graph = make_graph(
        [make_node("Reshape", ["x", "shape"], ["y"])], "g",
        [make_tensor_value_info("x", TensorProto.FLOAT, [2, 6]),
         make_tensor_value_info("shape", TensorProto.INT64, [2])],
        [make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )  # fmt: skip
    rep = onnx_backend.prepare(make_model(graph, opset_imports=[make_opsetid("", 21)]))
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    for shape in ([3, 4], [12, 1], [3, 4]):
        (y,) = rep.run([x, np.array(shape)])
        np.testing.assert_array_equal(y, x.reshape(shape))
    assert len(rep._ready) == 2
    rep.close()
