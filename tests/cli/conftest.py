"""The command line, in this process for the many small tests, as a program for the few others."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import graphexec as gx
from graphexec.cli.app import app
from graphexec.machine.costs import GPU

PROGRAM = Path(sys.executable).with_name("graphexec")

TINY = """\
version: 1
name: tiny
dims: {N: 4}
inputs:
  x: {shape: [N, N], dtype: f32}
  w: {shape: [N, N], dtype: f32}
nodes:
  xw: {op: gemm, a: x, b: w}
  p: {op: softmax, x: xw}
outputs: {out: p}
"""

# An op that takes its time where an environment variable says so, after telling that it began.
SLOW_OP = """\
import os, pathlib, time
import numpy as np
from graphexec.ops.kit import In, Kernel, Op, Operand, Out

def dawdle(phase):
    if os.environ.get("DAWDLE") != phase:
        return
    pathlib.Path(os.environ["BEGUN"]).touch()
    until = time.monotonic() + float(os.environ["SECONDS"])
    a = np.ones((1500, 1500))
    while time.monotonic() < until:
        a @ a

def compute(arrays, parallel):
    dawdle("run")
    arrays[1][...] = arrays[0]

class Slow(Op):
    name = "slow"
    doc = "Takes its time."
    operands = (Operand("x", "anything"),)

    def infer(self, types, attrs):
        dawdle("plan")
        return types["x"]

    def lower(self, call):
        x = call.operands["x"]
        work = Kernel(pathlib.Path(__file__), "slow", (x, call.out), (1, 1, 1), (1, 1, 1), compute)
        return [call.command("slow", work, In(x), Out(call.out))]

OP = Slow()
"""


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """`invoke("run", "x.yaml")` runs a command in this process."""
    return lambda *args: CliRunner().invoke(app, [str(a) for a in args])


@pytest.fixture
def program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`program("run", "x.yaml")` runs the installed program."""

    def program(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=60, check=False,
            **options,  # type: ignore[call-overload]
        )  # fmt: skip

    return program


@pytest.fixture
def graph(tmp_path: Path) -> Callable[..., Path]:
    """`graph(("x", "y"), …)` writes the tiny graph with replacements; its path."""

    def graph(*replacements: tuple[str, str], name: str = "tiny.yaml") -> Path:
        text = TINY
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return graph


@pytest.fixture
def slow_ops(tmp_path: Path) -> Path:
    """A folder for --ops with an op `slow`."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "__init__.py").write_text(SLOW_OP)
    return folder


@pytest.fixture
def racy(tmp_path) -> Path:
    """A plan file with a dependency wait taken out."""
    import json

    diamond = gx.load(Path(__file__).parents[2] / "graphs" / "diamond.yaml")
    plan = json.loads(gx.make_plan(diamond, costs=GPU).to_json())
    waits = [i for i in plan["instructions"] if i.get("role") == "dependency"]
    plan["instructions"].remove(waits[-1])  # of a stream that has begun
    plan["graph"] = "tiny"
    (tmp_path / "racy.json").write_text(json.dumps(plan))
    return tmp_path / "racy.json"
