"""Faults of a user's op: named by op, file, method and the lines that led there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import graphexec as gx
from graphexec.base.tensor import DType, TensorType, View
from graphexec.cli.app import app
from graphexec.ir.access import In, Out, recipe_of
from graphexec.ir.program import Kernel

SHIFT = """\
from pathlib import Path
from graphexec.ops.kit import In, Kernel, Op, Operand, Out, Attribute, TensorType

def deep(x):
    return {}[x]

class Shift(Op):
    name = "shift"
    doc = "y = x + 1."
    operands = (Operand("x", "any"),)

    def infer(self, types, attrs):
        return TensorType(types["x"].shape, types["x"].dtype)

    def reference(self, arrays, attrs, type):
        return arrays["x"] + 1

    def lower(self, call):
        x, y = call.operands["x"], call.out
        kernel = Kernel(Path(__file__), "shift", (x, y), (1, 1, 1), (1, 1, 1), run)
        return [call.command("shift", kernel, In(x), Out(y))]

    # more

def run(arrays, parallel):
    arrays[1][...] = arrays[0] + 1

OP = Shift()
"""
GRAPH = """\
version: 1
inputs: {x: {shape: [3, 5], dtype: f64}}
nodes:
  moved: {op: shift, x: x}
outputs: [moved]
"""


def _written(folder: Path, *changes: tuple[str, str]) -> tuple[Path, Path]:
    text = SHIFT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "shift").mkdir()
    (folder / "shift" / "__init__.py").write_text(text)
    (folder / "g.yaml").write_text(GRAPH)
    return folder / "g.yaml", folder / "shift"


def _method(body: str) -> tuple[str, str]:
    return "    # more\n", f"    def {body}\n"


ODD = "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})(); ("
FAULTS = {
    "infer raises": ("infer", ('return TensorType(types["x"].shape', 'deep(7); (types["x"].shape'),
                     "raised KeyError: 7"),
    "infer returns nothing": ("infer", ('return TensorType(types["x"].shape', '(types["x"].shape'),
                              "returned None; a TensorType"),
    "infer returns a shape": ("infer", (", types[\"x\"].dtype)", ", 'f64')"), "a TensorType"),
    "infer exits": ("infer", ("return TensorType(", "raise SystemExit(7); ("), "SystemExit: 7"),
    "infer recurses": ("infer", ("return TensorType(", "return self.infer(types, attrs); ("),
                       "RecursionError"),
    "lower raises": ("lower", ("return [call", "call.scratsh; [call"),
                     "raised AttributeError: 'Call' object has no attribute 'scratsh'"),
    "lower returns a command": ("lower", ("return [call.command(\"shift\", kernel, In(x), Out(y))]",
                                 "return call.command(\"shift\", kernel, In(x), Out(y))"),
                                "returned a Command"),
    "lower returns text": ("lower", ("return [call", "return ['a', 3]; [call"),
                           "returned a list of str and int for node 'moved'; a list of commands"),
    "cost raises": ("cost", _method("cost(self, *_): return 1 // 0"), "ZeroDivisionError"),
    "flops are words": ("flops", _method("flops(self, *_): return 'many'"), "returned 'many'"),
    "view": ("view", _method("view(self, *_): return 3"), "returned 3; a View or None"),
    "accepts": ("accepts", _method("accepts(self, *_): return None"), "True or False"),
    "overwrites": ("overwrites", _method("overwrites(self, *_): return 'z'"), "returned 'z'"),
    "an error without a text": (
        "infer", ("return TensorType(", ODD), "raised Odd"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_users_op_names_op_file_and_method(tmp_path: Path, name: str) -> None:
    method, change, said = FAULTS[name]
    graph, folder = _written(tmp_path, change)
    # What only rewrites ask is asked directly.
    if method in ("cost", "flops", "accepts", "overwrites"):
        op = gx.load_ops(folder)["shift"]
        type = gx.make_plan  # any value: the method fails before it looks
        with pytest.raises(gx.GraphError) as caught:
            getattr(op, method)({}, {}, type)
        shown = str(caught.value)
    else:
        done = CliRunner().invoke(app, ["check", str(graph), "--ops", str(folder)])
        assert done.exit_code == 2, done.output
        shown = done.stderr
    assert f"op 'shift': {method}()" in shown
    assert said in shown
    assert str(folder / "__init__.py") in shown
    assert "internal error" not in shown
    assert "report" not in shown


def test_the_users_lines_are_shown_and_the_node_is_located(tmp_path: Path) -> None:
    _, change, _ = FAULTS["infer raises"]
    graph, folder = _written(tmp_path, change)
    with pytest.raises(gx.GraphError) as caught:
        gx.make_plan(gx.load(graph, ops=gx.load_ops(folder)))
    (found,) = caught.value.diagnostics
    assert found.mark is not None
    assert found.mark.line == 4
    calls = [n for n in found.notes if f"{folder}/__init__.py:" in n]
    assert [n.split(", in ")[1].split(":")[0] for n in calls] == ["infer", "deep"]
    assert "return {}[x]" in calls[-1]


@pytest.mark.parametrize("method", ["lower", "reference"])
def test_a_missing_method_is_named(tmp_path: Path, method: str) -> None:
    graph, folder = _written(tmp_path, (f"def {method}(", f"def not_{method}("))
    loaded = gx.load(graph, ops=gx.load_ops(folder))
    with pytest.raises(gx.GraphError, match=f"op 'shift': has no method {method}") as caught:
        gx.compare(loaded, {"x": np.ones((3, 5))}, device="cpu")
    assert str(folder / "__init__.py") in str(caught.value)


def test_a_reference_of_another_shape_is_a_fault(tmp_path: Path) -> None:
    graph, folder = _written(tmp_path, ('return arrays["x"] + 1', 'return arrays["x"].sum(0)'))
    loaded = gx.load(graph, ops=gx.load_ops(folder))
    with pytest.raises(gx.GraphError, match=r"reference\(\) returned a ndarray float64\[5\]"):
        gx.compare(loaded, {"x": np.ones((3, 5))}, device="cpu")


def test_bounds_of_errors_of_another_shape_are_a_fault(tmp_path: Path) -> None:
    graph, folder = _written(tmp_path, _method("error(self, *_): return 0.125"))
    loaded = gx.load(graph, ops=gx.load_ops(folder))
    with pytest.raises(gx.GraphError, match=r"error\(\) returned 0\.125; an array of the result's"):
        gx.compare(loaded, {"x": np.ones((3, 5))}, device="cpu")


@pytest.mark.parametrize("change", [
    ('(Operand("x", "any"),)', '[Operand("x", "any")]'),
    ('(Operand("x", "any"),)', '("x",)'),
    ('doc = "y = x + 1."', "doc = None"),
    ('name = "shift"', "name = 4"),
    ("    # more\n", '    attributes = (Attribute("n", "integer", 1, "a count"),)\n'),
])  # fmt: skip
def test_a_wrong_declaration_is_named(tmp_path: Path, change: tuple[str, str]) -> None:
    _, folder = _written(tmp_path, change)
    with pytest.raises(gx.GraphError, match=r"shift/__init__\.py") as caught:
        gx.load_ops(folder)
    assert "help" in str(caught.value) or "kind 'integer' is none of" in str(caught.value)


def test_what_fails_while_an_op_is_imported_has_its_lines(tmp_path: Path) -> None:
    _, folder = _written(tmp_path, ("OP = Shift()", "OP = deep(11)"))
    with pytest.raises(gx.GraphError, match="failed: KeyError: 11") as caught:
        gx.load_ops(folder)
    notes = caught.value.diagnostics[0].notes
    assert [n.split(", in ")[1].split(":")[0] for n in notes] == ["<module>", "deep"]


def test_a_failing_compute_is_an_error_of_its_node_with_the_users_line(tmp_path: Path) -> None:
    graph, folder = _written(tmp_path, ("arrays[1][...] = arrays[0] + 1", "deep(13)"))
    done = CliRunner().invoke(
        app, ["run", str(graph), "--ops", str(folder), "--device", "cpu", "--seed", "4"]
    )
    assert done.exit_code == 1
    assert "error: node 'moved': KeyError: 13" in done.stderr
    assert f"{folder}/__init__.py:5, in deep" in done.stderr


def _of_two_axes(x: View, y: View) -> Kernel:
    m, n = x.shape
    return Kernel(Path(__file__), "k", (x, y), (m, n, 1), (1, 1, 1), lambda *_: None)


def test_a_kernel_that_cannot_be_made_for_a_batch_is_the_users_fault() -> None:
    x, y = (View.dense(name, TensorType((7, 3), DType.F64)) for name in "xy")
    recipe = recipe_of(_of_two_axes, (In(x), Out(y)))
    assert recipe([x], [y]) == _of_two_axes(x, y)
    x, y = (View.dense(name, TensorType((2, 7, 3), DType.F64)) for name in "xy")
    with pytest.raises(gx.GraphError, match=r"_of_two_axes\(\), which makes a kernel") as caught:
        recipe([x], [y])
    shown = str(caught.value)
    assert "raised ValueError" in shown
    assert "m, n = x.shape" in shown
    assert "--no-rewrite batch" in shown


def test_a_compute_that_fails_to_prepare_is_an_error_of_its_node(tmp_path: Path) -> None:
    body = ("class Run:\n    def prepare(self):\n        return deep(17)\n"
            "    def __call__(self, *_): pass\nrun = Run()\n\ndef unused(")  # fmt: skip
    graph, folder = _written(tmp_path, ("def run(", body))
    loaded = gx.load(graph, ops=gx.load_ops(folder))
    with pytest.raises(gx.ExecutionError, match=r"node 'moved': KeyError: 17\n.*in prepare"):
        gx.compile(loaded, device="cpu")


def test_a_built_in_op_is_not_excused() -> None:
    """A fault of graphexec's own ops stays one that is to be reported."""
    with pytest.raises(AttributeError):
        gx.known_ops()["gemm"].infer({"a": 3, "b": 4}, {})  # type: ignore[dict-item]
