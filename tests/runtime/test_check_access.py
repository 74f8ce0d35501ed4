"""check_access: commands that touch what they do not declare, each with a twin that declares it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hip_lab import GRAPHS, ROOT, Lab, inputs_of

import graphexec as gx
from graphexec.base.errors import AccessError
from graphexec.ops.kit import Call, Command, In, InOut, Op, Operand, Out, View, integers, launch

Array = np.ndarray[Any, Any]
COUNT = 256
DISTANCE = 4 * COUNT  # bytes from x to y
SHAPE = {"x": (COUNT,), "y": (COUNT,)}

# What the kernel does at each element, for HIP and by NumPy; x and y lie side by side in the arena,
# so that y is reached from x: a kernel that is not given y's address can still touch it.
HONEST = ("out[i] = x[i] + 1;", lambda x, out, y: np.add(x, 1, out=out))
READS_Y = ("out[i] = x[i] + x[step + i];", lambda x, out, y: np.add(x, y, out=out))
WRITES_Y = (
    "out[i] = x[i] + 1; ((f32*)x)[step + i] = 7;",
    lambda x, out, y: (np.add(x, 1, out=out), y.fill(7)),
)
ADDS_TO_OUT = ("out[i] += x[i];", lambda x, out, y: np.add(out, x, out=out))
WRITES_X = (
    "out[i] = x[i] + 1; ((f32*)x)[i] = 7;",
    lambda x, out, y: (np.add(x, 1, out=out), _writable(x).fill(7)),
)


def _writable(array: Array) -> Array:
    """The same bytes, as an op that goes round NumPy's flag has them."""
    import ctypes

    raw = (ctypes.c_char * array.nbytes).from_address(array.ctypes.data)
    return np.frombuffer(raw, array.dtype).reshape(array.shape)


@dataclass(frozen=True)
class Work:
    """The kernel, which is given x and out; `stray` is where the CPU half finds y."""

    source: Path
    body: Any
    step: int
    stray: Callable[[Array], Array]

    def __call__(self, x: View, out: View, *more: View) -> Any:
        def compute(arrays: list[Array], parallel: Any) -> None:
            self.body(arrays[0], arrays[1], self.stray(arrays[0]))

        args = (x, out, *integers(out.elements, self.step))
        return launch(self.source, "stray", args, 1, 256, {}, compute)


class Stray(Op):
    """Declares what a test says, and does what its body says."""

    name = "stray"
    doc = "For tests."
    operands = (Operand("x"), Operand("y"))

    def __init__(self, folder: Path, does: tuple[str, Any], state: Any) -> None:
        self.state, self.does, self.file = state, does, folder / "stray.hip"
        self.file.write_text(
            '#include "device.h"\n'
            'extern "C" __global__ void stray(const f32* x, f32* out, i64 count, i64 step) {\n'
            "    const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;\n"
            f"    if (i < count) {{ {does[0]} }}\n}}\n"
        )

    def lower(self, call: Call) -> list[Command]:
        x, y = call.operands["x"], call.operands["y"]

        def stray(array: Array) -> Array:
            import ctypes

            raw = (ctypes.c_char * DISTANCE).from_address(array.ctypes.data + DISTANCE)
            return np.frombuffer(raw, np.float32)

        kernel = Work(self.file, self.does[1], COUNT, stray)(x, call.out)
        return [call.command("stray", kernel, *self.state(x, y, call.out))]

    def ignores(self, attrs: Any) -> tuple[str, ...]:
        return ("y",)


def declared(x: View, y: View, out: View) -> list[Any]:
    return [In(x), Out(out)]


CHEATS: dict[str, tuple[tuple[str, Any], str]] = {
    "reads another tensor": (READS_Y, r"reads 'y'"),
    "writes another tensor": (WRITES_Y, r"writes 'y'"),
    "reads its result": (ADDS_TO_OUT, r"reads its own result"),
    "writes what it reads": (WRITES_X, r"writes 'x'"),
}
TWINS: dict[str, tuple[tuple[str, Any], Any]] = {
    "reads x": (HONEST, declared),
    "reads another tensor": (READS_Y, lambda x, y, out: [In(x), In(y), Out(out)]),
    "writes another tensor": (WRITES_Y, lambda x, y, out: [In(x), Out(y), Out(out)]),
    "reads its result": (ADDS_TO_OUT, lambda x, y, out: [In(x), InOut(out)]),
    "writes what it reads": (WRITES_X, lambda x, y, out: [InOut(x), Out(out)]),
}


def graph_of(op: Op) -> gx.Graph:
    graph = gx.Graph("g", ops={**gx.known_ops(), op.name: op})
    for name, shape in SHAPE.items():
        graph.input(name, shape)
    graph.output(out=graph.node("stray", x="x", y="y", name="strayed"))
    graph.output(later=graph.softmax("y", after=["strayed"]))  # y is still there
    return graph


def run(op: Op, device: Any) -> Array:
    with gx.compile(graph_of(op), device=device, streams=1, verify=False) as exe:
        places = {t.name: t.offset for t in exe.plan.tensors}
        assert places["y"] - places["x"] == DISTANCE
        return exe.run(**{n: np.full(s, 2, np.float32) for n, s in SHAPE.items()})["out"]


@pytest.mark.parametrize("cheat", CHEATS)
def test_undeclared_accesses_on_the_cpu(tmp_path: Path, cheat: str) -> None:
    does, message = CHEATS[cheat]
    with pytest.raises(AccessError, match=message) as caught:
        run(Stray(tmp_path, does, declared), gx.CpuDevice(check_access=True))
    assert "node 'strayed': command 'stray'" in str(caught.value)
    assert str(tmp_path / "stray.hip") in str(caught.value)
    assert "test_check_access.py" in str(caught.value)
    assert caught.value.node == "strayed"


@pytest.mark.parametrize("twin", TWINS)
def test_declared_accesses_on_the_cpu(tmp_path: Path, twin: str) -> None:
    does, state = TWINS[twin]
    run(Stray(tmp_path, does, state), gx.CpuDevice(check_access=True))


@pytest.mark.parametrize("cheat", CHEATS)
def test_undeclared_accesses_on_the_emulator(emulated: Lab, tmp_path: Path, cheat: str) -> None:
    does, message = CHEATS[cheat]
    with pytest.raises(AccessError, match=message) as caught:
        run(Stray(tmp_path, does, declared), emulated_device())
    assert str(tmp_path / "stray.hip") in str(caught.value)


@pytest.mark.parametrize("twin", TWINS)
def test_declared_accesses_on_the_emulator(emulated: Lab, tmp_path: Path, twin: str) -> None:
    does, state = TWINS[twin]
    run(Stray(tmp_path, does, state), emulated_device())


def emulated_device() -> Any:
    from graphexec.runtime.hip.device import HipDevice

    return HipDevice(check_access=True)


@pytest.mark.parametrize("name", GRAPHS)
def test_built_in_ops_declare_what_they_touch(name: str) -> None:
    graph = gx.load(ROOT / "graphs" / f"{name}.yaml")
    small = {dim: 16 for dim in ("S", "N", "B") if dim in graph.dims}
    graph = graph.with_dims(**small)
    with gx.compile(graph, device=gx.CpuDevice()) as exe:
        inputs = inputs_of(exe)
        expected = exe.run(**inputs)
    with gx.compile(graph, device=replace(gx.CpuDevice(), check_access=True), streams=3) as exe:
        found = exe.run(**inputs)
    assert all(found[n].tobytes() == expected[n].tobytes() for n in expected)


def test_built_in_ops_on_the_emulator(emulated: Lab) -> None:
    graph = gx.load(ROOT / "graphs" / "diamond.yaml")
    with gx.compile(graph, device=emulated_device(), streams=2) as exe:
        inputs = inputs_of(exe)
        found = exe.run(**inputs)
        again = exe.run(**inputs)
    assert all(found[n].tobytes() == again[n].tobytes() for n in found)


def test_an_argument_that_is_only_read_cannot_be_written(tmp_path: Path) -> None:
    """Also without check_access."""
    does = ("", lambda x, out, y: x.fill(0))
    with pytest.raises(gx.ExecutionError, match="read-only") as caught:
        run(Stray(tmp_path, does, declared), gx.CpuDevice())
    assert caught.value.node == "strayed"
