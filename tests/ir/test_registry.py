"""Ops of the user's own: a folder is enough, and what is wrong with it is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphexec as gx
from graphexec.ir.names import RESERVED
from graphexec.ir.registry import load_ops

SCALE = '''"""scale: y = factor * x + offset."""

from pathlib import Path

from graphexec.ir.program import Kernel, Scalar
from graphexec.ir.op import Attribute, In, Op, OpError, Operand, Out
from graphexec.base.tensor import TensorType

from .work import on_cpu


class Scale(Op):
    name = "scale"
    doc = "y = factor * x, element by element."
    operands = (Operand("x", "any tensor"),)
    attributes = (
        Attribute("factor", "number", 2.0, "what x is multiplied with"),
        Attribute("mode", "choice", "plain", "how", ("plain", "twice")),
    )

    def infer(self, types, attrs):
        if len(types["x"].shape) > 2:
            raise OpError(f"x is {types['x']}, at most two axes are supported", "x",
                          notes=("a note",), help="reshape it")
        return TensorType(types["x"].shape, types["x"].dtype)

    def reference(self, arrays, attrs, type):
        return arrays["x"] * attrs["factor"] * (2 if attrs["mode"] == "twice" else 1)

    def lower(self, call):
        x, out = call.operands["x"], call.out
        times = 2 if call.attrs["mode"] == "twice" else 1
        if times == 1:
            return [self.once(call, x, out)]
        middle = call.scratch("middle", call.type)
        return [self.once(call, x, middle), self.once(call, middle, out, 2.0)]

    def once(self, call, x, out, factor=None):
        factor = call.attrs["factor"] if factor is None else factor
        kernel = Kernel(Path(__file__).with_name("scale.hip"), "scale",
                        (x, out, Scalar("f64", factor), Scalar("i64", x.elements)),
                        (1, 1, 1), (256, 1, 1), lambda arrays, parallel: on_cpu(arrays, factor))
        return call.command("scale", kernel, In(x), Out(out))


OP = Scale()
'''
WORK = "def on_cpu(arrays, factor):\n    arrays[1][...] = arrays[0] * factor\n"


def write_op(folder: Path, init: str = SCALE, work: str = WORK) -> Path:
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(init)
    (folder / "work.py").write_text(work)
    return folder


def mistake(*folders: Path) -> str:
    with pytest.raises(gx.GraphError) as caught:
        load_ops(folders)
    assert len(caught.value.diagnostics) == 1
    return str(caught.value)


def test_built_in_ops() -> None:
    assert {"attention", "copy", "gemm", "softmax"} <= set(gx.known_ops())
    assert "kit" not in gx.known_ops()
    assert load_ops([]) == gx.known_ops()
    for name, op in gx.known_ops().items():
        assert op.name == name
        assert op.doc
        assert all(part.text for part in op.operands)
        assert all(attribute.doc for attribute in op.attributes)


YAML = """
version: 1
inputs: {x: {shape: [2, 3], dtype: f32}}
consts: {three: 3}
nodes:
  y: {op: scale, x: x, factor: three}
  z: {op: scale, x: y, mode: twice}
  w: {op: gemm, a: y, b: z, trans_b: true}
outputs: [y, z, w]
"""


def test_an_op_in_a_folder_works_like_a_built_in_one(tmp_path: Path) -> None:
    ops = load_ops([write_op(tmp_path / "scale")])
    graph = gx.loads(YAML, ops=ops)
    assert "scale" not in gx.known_ops()
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    with gx.compile(graph, device=gx.CpuDevice(delays=1, poison=True), streams=3) as exe:
        found = exe.run(x=x)
    assert np.array_equal(found["y"], 3 * x)
    assert np.array_equal(found["z"], 12 * x)
    assert np.array_equal(found["w"], 36 * x @ x.T)
    assert gx.compare(graph, {"x": x}, device="cpu").ok
    built = gx.Graph("g", ops=ops)
    built.input("x", (2, 3))
    assert built.scale("x", factor=2) == "scale"
    assert gx.loads(graph.to_yaml(), ops=ops) == graph


def test_mistakes_with_ones_own_op_are_located(tmp_path: Path) -> None:
    ops = load_ops([write_op(tmp_path / "scale")])
    text = ("version: 1\ninputs: {x: {shape: [2, 3, 4], dtype: f32}}\n"
            "nodes:\n  y: {op: scale, x: x}\noutputs: [y]\n")  # fmt: skip
    with pytest.raises(gx.GraphError) as caught:
        gx.make_plan(gx.loads(text, "own.yaml", ops=ops))
    shown = str(caught.value)
    assert "scale 'y': x is f32[2, 3, 4], at most two axes are supported" in shown
    assert "--> own.yaml:4:" in shown
    assert "a note" in shown
    assert "help: reshape it" in shown
    with pytest.raises(gx.GraphError, match="unknown op 'scal'") as caught:
        gx.loads(text.replace("op: scale", "op: scal"), ops=ops)
    assert "did you mean 'scale'?" in str(caught.value)
    with pytest.raises(gx.GraphError, match="factr"):
        gx.loads(text.replace("x: x}", "x: x, factr: 2}"), ops=ops)


def test_a_folder_of_ops(tmp_path: Path) -> None:
    write_op(tmp_path / "mine" / "scale")
    write_op(tmp_path / "mine" / "other", SCALE.replace('name = "scale"', 'name = "other"'))
    (tmp_path / "mine" / "notes").mkdir()
    assert {"scale", "other"} <= set(load_ops([tmp_path / "mine"]))


def test_folders_of_the_same_name_are_different_ops(tmp_path: Path) -> None:
    """Each keeps its own helper module."""
    one = write_op(tmp_path / "one" / "op", work=WORK)
    two = write_op(
        tmp_path / "two" / "op", SCALE.replace('name = "scale"', 'name = "minus"'),
        WORK.replace("arrays[0] * factor", "-arrays[0] * factor"),
    )  # fmt: skip
    graph = gx.Graph("g", ops=load_ops([one, two]))
    graph.input("x", (2,))
    graph.output(plus=graph.scale("x"), minus=graph.minus("x"))
    with gx.compile(graph, device="cpu") as exe:
        found = exe.run(x=np.ones(2, np.float32))
    assert found["plus"].tolist() == [2, 2]
    assert found["minus"].tolist() == [-2, -2]


def test_no_op(tmp_path: Path) -> None:
    assert f"no op in folder '{tmp_path}'" in mistake(tmp_path)
    assert "docs/adding-an-op.md" in mistake(tmp_path)
    assert "no op in folder" in mistake(tmp_path / "missing")
    (tmp_path / "file.py").write_text(SCALE)
    assert "no op in folder" in mistake(tmp_path / "file.py")


@pytest.mark.parametrize(("init", "message"), [
    ("", "binds no OP"),
    ("OP = 3\n", "binds no OP"),
    ("from graphexec.ir.op import Op\nOP = Op\n", "binds no OP"),
    ("1 / 0\n", "failed: ZeroDivisionError: division by zero"),
    ("def (:\n", "failed: SyntaxError"),
    ("import no_such_module\n", "failed: ModuleNotFoundError: No module named 'no_such_module'"),
    ("import sys\nsys.exit(3)\n", "failed: SystemExit: 3"),
    ("from graphexec.ir.op import Op\nOP = Op()\n", "name"),
    ("from graphexec.ir.op import Op\nclass A(Op):\n    name = 'a'\nOP = A()\n", "operands"),
    (SCALE.replace('name = "scale"', 'name = "gemm"'), "two ops are called 'gemm'"),
    (SCALE.replace('name = "scale"', 'name = "not a name"'), "'not a name' is not a name"),
])  # fmt: skip
def test_mistakes(tmp_path: Path, init: str, message: str) -> None:
    folder = write_op(tmp_path / "bad", init)
    shown = mistake(folder)
    assert message in shown
    assert "bad" in shown or "gemm" in shown


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_method_of_graphs_is_no_name_for_an_op(tmp_path: Path, name: str) -> None:
    folder = write_op(tmp_path / "op", SCALE.replace('name = "scale"', f'name = "{name}"'))
    assert f"cannot be called '{name}': graphs have a method of that name" in mistake(folder)


def test_reserved_names_are_the_methods_of_graphs() -> None:
    assert {name for name in vars(gx.Graph) if not name.startswith("_")} == RESERVED


def test_the_same_op_twice(tmp_path: Path) -> None:
    folder = write_op(tmp_path / "scale")
    assert "two ops are called 'scale'" in mistake(folder, folder)


def test_a_failure_leaves_the_known_ops_as_they_were(tmp_path: Path) -> None:
    before = dict(gx.known_ops())
    mistake(write_op(tmp_path / "bad", "1 / 0\n"))
    load_ops([write_op(tmp_path / "good")])
    assert gx.known_ops() == before
