"""Programs of well-known shapes, made without a graph: nodes with costs, sizes and inputs.

Costs are those of f16 networks on a data-centre GPU: a GEMM of 1 GFLOP fills one for about 5 µs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from random import Random

from graphexec.base.tensor import DType, View
from graphexec.ir.program import DIRECTIONS, Command, Cost, Kernel, Memcpy, Program, Storage


class Net:
    """A program in the making; every method returns the name of the tensor it makes."""

    def __init__(self, name: str = "net") -> None:
        self.name = name
        self.storages: dict[str, Storage] = {}
        self.views: dict[str, View] = {}
        self.commands: list[Command] = []
        self.inputs: dict[str, View] = {}
        self.outputs: dict[str, View] = {}
        self.used: set[str] = set()

    def view(self, name: str, nbytes: int, role: str = "arena") -> View:
        space = "device" if role == "arena" else "host"
        self.storages[name] = Storage(name, nbytes, role, space)  # type: ignore[arg-type]
        elements = max(1, nbytes // 2)
        return View(name, (elements,), DType.F16, (1,))

    def input(self, nbytes: int = 1 << 20) -> str:
        name = f"x{len(self.inputs)}"
        self.inputs[name] = host = self.view(f"in.{name}", nbytes, "input")
        self.views[name] = self.view(name, nbytes)
        self.transfer(f"{name}.h2d", host, self.views[name])
        return name

    def transfer(self, node: str, source: View, target: View) -> None:
        moved = self.storages[source.storage].nbytes
        spaces = (self.storages[source.storage].space, self.storages[target.storage].space)
        work = Memcpy(source, target, DIRECTIONS[spaces])
        self.commands.append(
            Command(node, "memcpy", work, (source,), (target,), Cost(0, 2 * moved))
        )  # fmt: skip

    def node(
        self, *reads: str, mflop: float = 100.0, nbytes: int = 1 << 18, name: str = "",
        inplace: bool = False, after: Iterable[int] = (),
    ) -> str:  # fmt: skip
        name = name or f"n{len(self.commands)}"
        self.used.update(reads)
        views = tuple(self.views[r] for r in reads)
        self.views[name] = out = self.view(name, nbytes)
        moved = nbytes + sum(self.storages[v.storage].nbytes for v in views)
        work = Kernel(Path("none.hip"), "none", (*views, out), (1, 1, 1), (1, 1, 1), _nothing)
        self.commands.append(
            Command(name, "kernel", work, views, (out,), Cost(int(mflop * 1e6), moved),
                    tuple(after), ((0, 0),) if inplace else ())
        )  # fmt: skip
        return name

    def program(self, transfer_out: bool = True) -> Program:
        """All unread tensors are outputs."""
        for name in [n for n in self.views if n not in self.used and transfer_out]:
            view = self.views[name]
            host = self.view(f"out.{name}", self.storages[view.storage].nbytes, "output")
            self.outputs[name] = host
            self.transfer(f"{name}.d2h", view, host)
        return Program(self.name, {}, self.storages, self.views, tuple(self.commands),
                       self.inputs, self.outputs, {})  # fmt: skip


def _nothing(arrays: object, parallel: object) -> None:
    """The commands are never run."""


# Networks ---------------------------------------------------------------------------------


def inception(blocks: int = 4) -> Program:
    net = Net("inception")
    x = net.node(net.input(), mflop=200)
    for _ in range(blocks):
        a = net.node(x, mflop=120)
        b = net.node(net.node(x, mflop=90), mflop=300)
        c = net.node(net.node(net.node(x, mflop=60), mflop=180), mflop=180)
        d = net.node(net.node(x, mflop=4), mflop=100)
        x = net.node(a, b, c, d, mflop=1)
    return net.program()


def nasnet_cell(cells: int = 3) -> Program:
    net = Net("nasnet")
    before, now = net.input(), net.node(net.input(), mflop=200)
    for _ in range(cells):
        blocks = []
        for one, two in ((before, now), (before, now), (before, before), (now, before), (now, now)):
            left, right = net.node(one, mflop=150), net.node(two, mflop=80)
            blocks.append(net.node(left, right, mflop=2))
        before, now = now, net.node(*blocks, mflop=60)
    return net.program()


def heads(count: int, mflop: float = 150.0) -> Program:
    net = Net(f"{count} heads")
    x = net.input(1 << 18)
    outs = []
    for _ in range(count):
        q, k, v = (net.node(x, mflop=mflop / 2) for _ in range(3))
        probs = net.node(net.node(q, k, mflop=mflop), mflop=2, inplace=True)
        outs.append(net.node(probs, v, mflop=mflop))
    net.node(*outs, mflop=400)
    return net.program()


def experts(count: int = 8) -> Program:
    net = Net(f"{count} experts")
    x = net.input(1 << 18)
    gate = net.node(net.node(x, mflop=10), mflop=1, inplace=True)
    outs = []
    for _ in range(count):
        hidden = net.node(net.node(x, gate, mflop=2), mflop=500, nbytes=1 << 20)
        outs.append(net.node(hidden, mflop=500))
    net.node(gate, *outs, mflop=4)
    return net.program()


# Task-benchmark patterns --------------------------------------------------------------------


def sweep(width: int = 8, height: int = 8) -> Program:
    net = Net("sweep")
    x, grid = net.input(1 << 16), dict[tuple[int, int], str]()
    for i in range(height):
        for j in range(width):
            near = [grid[p] for p in ((i - 1, j), (i, j - 1)) if p in grid] or [x]
            grid[i, j] = net.node(*near, mflop=120, nbytes=1 << 16)
    return net.program()


def tree(leaves: int = 32) -> Program:
    net = Net("tree")
    x = net.input(1 << 16)
    level = [net.node(x, mflop=150, nbytes=1 << 16) for _ in range(leaves)]
    while len(level) > 1:
        level = [net.node(*pair, mflop=150, nbytes=1 << 16)
                 for pair in zip(level[::2], level[1::2], strict=True)]  # fmt: skip
    return net.program()


def diamonds(count: int = 6, width: int = 3) -> Program:
    net = Net("diamonds")
    x = net.node(net.input(), mflop=100)
    for _ in range(count):
        x = net.node(*(net.node(x, mflop=200) for _ in range(width)), mflop=100)
    return net.program()


def stencil(width: int = 8, steps: int = 6) -> Program:
    net = Net("stencil")
    row = [net.node(net.input(1 << 14), mflop=100) for _ in range(width)]
    for _ in range(steps):
        row = [net.node(*row[max(0, i - 1) : i + 2], mflop=150) for i in range(width)]
    return net.program()


def fft(width: int = 16) -> Program:
    net = Net("fft")
    x = net.input(1 << 16)
    row, half = [net.node(x, mflop=80) for _ in range(width)], 1
    while half < width:
        row = [net.node(row[i], row[i ^ half], mflop=80) for i in range(width)]
        half *= 2
    return net.program()


def layered(layers: int = 12, width: int = 8, seed: int = 0, degree: int = 3) -> Program:
    random, net = Random(seed), Net("layered")
    row = [net.input(1 << 14)]
    for _ in range(layers):
        needs: list[list[str]] = [[] for _ in range(width)]
        for name in row:
            for target in random.sample(range(width), min(degree, width)):
                needs[target].append(name)
        row = [
            net.node(*(reads or [random.choice(row)]), mflop=random.choice((50, 150, 300, 800)),
                     nbytes=random.choice((1 << 16, 1 << 18, 1 << 20)))
            for reads in needs
        ]  # fmt: skip
    return net.program()


def random_dag(nodes: int, seed: int, transfers: bool = True) -> Program:
    """Nodes that read one to three of those before them, of sizes and costs of all kinds."""
    random, net = Random(seed), Net(f"random {nodes} {seed}")
    names = [net.input(random.choice((1 << 14, 1 << 16, 1 << 18)))]
    for _ in range(nodes):
        near = names[-random.choice((4, 12, len(names))) :]
        reads = random.sample(near, min(len(near), random.randint(1, 3)))
        names.append(
            net.node(*reads, mflop=random.choice((1, 20, 100, 300, 1000)),
                     nbytes=256 * random.choice((1, 3, 16, 50, 256, 1024, random.randint(1, 4096))))
        )  # fmt: skip
    return net.program(transfers)


def resident(program: Program) -> Program:
    """The same without transfers: inputs and outputs stay on the device."""
    work = tuple(c for c in program.commands if not isinstance(c.work, Memcpy))
    return replace(program, commands=work)


MAKESPAN_SHAPES: dict[str, Callable[[], Program]] = {
    "inception": inception,
    "nasnet cell": nasnet_cell,
    "8 heads": lambda: heads(8),
    "32 heads": lambda: heads(32),
    "8 experts": experts,
    "sweep": sweep,
    "tree": tree,
    "diamonds": diamonds,
    "stencil": stencil,
    "fft": fft,
    **{f"layered {seed}": lambda seed=seed: layered(seed=seed) for seed in range(6)},  # type: ignore[misc]
}
