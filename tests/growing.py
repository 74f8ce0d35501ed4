"""Work whose time is to grow like its size: shapes of graphs and plans that invite squares.

Each of SHAPES makes the work of a size, which is then called. Used by tests/planning/test_growth.py
and benchmarks/planner.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import graphexec as gx
from graphexec.formats import plan_file
from graphexec.frontend.weights import WeightFiles
from graphexec.graph.infer import infer
from graphexec.ir.plan import HostWait, Instruction, Launch, Plan, Record, Stream, Wait
from graphexec.proof import find_hazards, lint

Work = Callable[[], object]

_X = "  x: {shape: [16, 16], dtype: f32}"


def _planned(nodes: list[str], outputs: list[str], inputs: list[str] | None = None) -> Work:
    """From YAML text to a proved plan and its table."""
    text = "\n".join(
        ["version: 1", "inputs:", *(inputs or [_X]), "nodes:", *nodes,
         f"outputs: [{', '.join(outputs)}]", ""]
    )  # fmt: skip
    return lambda: str(gx.make_plan(gx.loads(text)))


def _names(count: int, letter: str = "p") -> list[str]:
    return [f"{letter}{i}" for i in range(count)]


def _summed(parts: list[str]) -> list[str]:
    """A chain of GEMMs t0, t1, … that adds up what the parts give."""
    first = [f"  t0: {{op: gemm, a: {parts[0]}, b: x}}"]
    return first + [f"  t{i}: {{op: gemm, a: {part}, b: x, c: t{i - 1}}}"
                    for i, part in enumerate(parts) if i]  # fmt: skip


def shared_operands(size: int) -> Work:
    """Products of one tensor that differ in a factor."""
    parts = _names(size // 2)
    nodes = [f"  {p}: {{op: gemm, a: x, b: x, alpha: {i + 1}}}" for i, p in enumerate(parts)]
    return _planned(nodes + _summed(parts), [f"t{size // 2 - 1}"])


def slices(size: int) -> Work:
    """Windows on one input, each read by a GEMM."""
    parts = _names(size // 2)
    nodes = [f"  {p}: {{op: copy, x: y, slice: {{0: [{4 * i}, {4 * i + 4}]}}}}"
             for i, p in enumerate(parts)]  # fmt: skip
    wide = f"  y: {{shape: [{2 * size}, 16], dtype: f32}}"
    return _planned(nodes + _summed(parts), [f"t{size // 2 - 1}"], [_X, wide])


def outputs(size: int) -> Work:
    """A chain in which every result is an output."""
    nodes = [f"  p{i}: {{op: gemm, a: {f'p{i - 1}' if i else 'x'}, b: x}}" for i in range(size)]
    return _planned(nodes, _names(size))


def readers(size: int) -> Work:
    """One node that all others read, and add to."""
    parts = _names(size // 2, "q")
    nodes = ["  p: {op: gemm, a: x, b: x}"]
    nodes += [f"  {q}: {{op: gemm, a: p, b: x, c: p, alpha: {i + 2}}}"
              for i, q in enumerate(parts)]  # fmt: skip
    return _planned(nodes + _summed(parts), [f"t{size // 2 - 1}"])


def after_edges(size: int) -> Work:
    """One node that is to come after all others."""
    nodes = [f"  {p}: {{op: gemm, a: x, b: x}}" for p in _names(size)]
    return _planned([*nodes, f"  z: {{op: gemm, a: x, b: x, after: [{', '.join(_names(size))}]}}"],
                    ["z"])  # fmt: skip


def independent(size: int) -> Work:
    """GEMMs with inputs of their own."""
    nodes = [f"  p{i}: {{op: gemm, a: x{i}, b: x{i}}}" for i in range(size)]
    inputs = [f"  x{i}: {{shape: [16, 16], dtype: f32}}" for i in range(size)]
    return _planned(nodes, _names(size), inputs)


def in_place(size: int) -> Work:
    """A chain of which each node writes over what it reads."""
    nodes = [f"  p{i}: {{op: softmax, x: {f'p{i - 1}' if i else 'x'}}}" for i in range(size)]
    return _planned(nodes, [f"p{size - 1}"])


def maps_in_a_row(size: int) -> Work:
    """A chain of expressions, which are fused up to the size of a kernel."""
    nodes = [f"  p{i}: {f'p{i - 1}' if i else 'x'} * 1.5 + x" for i in range(size)]
    return _planned(nodes, [f"p{size - 1}"])


_LAYER = """\
blocks:
  layer:
    inputs: [x, w]
    nodes:
      h: {op: norm, kind: rms, x: x}
      a: silu(h @ T(w)) * h
      y: x + a @ w
    outputs: {x: y}
"""


def layers(size: int) -> Work:
    """A block with products, repeated; some of its tensors are read by name."""
    repeat = size // 10 + 1
    names = ", ".join(f"t.{i}.h" for i in range(0, repeat, 4))
    text = (f"version: 1\ninputs:\n{_X}\n{_LAYER}nodes:\n"
            f"  t: {{block: layer, x: x, w: x, repeat: {repeat}}}\n"
            f"outputs: [t, {names}]\n")  # fmt: skip
    return lambda: str(gx.make_plan(gx.loads(text)))


def uses_in_a_row(size: int) -> Work:
    """Uses of a block, each reading the one before."""
    uses = "".join(f"  t{i}: {{block: layer, x: {f't{i - 1}' if i else 'x'}, w: x}}\n"
                   for i in range(size // 10 + 1))  # fmt: skip
    last = f"t{size // 10}"
    text = f"version: 1\ninputs:\n{_X}\n{_LAYER}nodes:\n{uses}outputs: [{last}]\n"
    return lambda: str(gx.make_plan(gx.loads(text)))


def unnamed_nodes(size: int) -> Work:
    """A graph built in code."""

    def build() -> gx.Graph:
        graph = gx.Graph()
        x = last = graph.input("x", (4, 4))
        for _ in range(size):
            last = graph.gemm(last, x)
        graph.output(last)
        return graph

    return build


def weights(size: int) -> Work:
    """Arrays of one .npz file."""

    def read() -> None:
        with TemporaryDirectory() as folder:
            array = np.ones((2, 2), np.float32)
            np.savez(Path(folder) / "w.npz", **dict.fromkeys(_names(size, "w"), array))
            graph = gx.Graph(folder=Path(folder))
            for name in _names(size, "w"):
                graph.weight(name, "w.npz", name)
            graph.output(graph.gemm("w0", "w1"))
            with WeightFiles() as files:
                for weight in infer(graph).weights.values():
                    files.read(weight)

    return read


def waits(size: int) -> Work:
    """A plan file in which one stream waits for every launch of another, all at once."""
    steps: list[Instruction] = [Record(0, 0), Wait(1, 0, "fork")]
    for event in range(1, size + 1):
        steps += [Launch(1, f"p{event}", "kernel", (), ()), Record(1, event)]
    steps += [Wait(0, event, "dependency") for event in range(1, size + 1)]
    steps += [Launch(0, "z", "kernel", (), ()), Record(0, size + 1), HostWait(size + 1)]
    plan = Plan("waits", "cpu", {}, (Stream(0, None), Stream(1, None)), (), (), tuple(steps), None)

    def check() -> None:
        read = plan_file.loads(plan_file.dumps(plan))
        assert not find_hazards(read)
        assert len(lint(read)) == size - 1

    return check


SHAPES: dict[str, Callable[[int], Work]] = {
    "shared operands": shared_operands,
    "slices": slices,
    "outputs": outputs,
    "readers": readers,
    "after edges": after_edges,
    "independent GEMMs": independent,
    "in place": in_place,
    "maps in a row": maps_in_a_row,
    "layers": layers,
    "uses in a row": uses_in_a_row,
    "unnamed nodes": unnamed_nodes,
    "weights": weights,
    "waits of a plan": waits,
}
