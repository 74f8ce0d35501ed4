"""Plans written by hand, so that a view's picture changes only when the view does."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from math import prod

import pytest

from graphexec.base.tensor import DType
from graphexec.ir.plan import (
    Buffer,
    HostWait,
    Instruction,
    Launch,
    PlacedTensor,
    Plan,
    Range,
    Record,
    Stats,
    Stream,
    Wait,
)
from graphexec.ir.program import Cost

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-quic", "--window-size=1500,1000",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(driver)
    with webdriver.Chrome(options=options, service=service) as browser:
        yield browser


class Sketch:
    """A plan in the making: tensors get bytes one after another, instructions in call order."""

    def __init__(self, name: str, streams: int, device: str = "cpu") -> None:
        self.name, self.device = name, device
        self.streams = tuple(Stream(i, i) for i in range(streams))
        self.tensors: dict[str, PlacedTensor] = {}
        self.buffers: dict[str, Buffer] = {}
        self.instructions: list[Instruction] = []
        self.top = self.events = 0

    def tensor(self, name: str, shape: tuple[int, ...], dtype: DType = DType.F16) -> str:
        size = prod(shape) * dtype.itemsize
        self.tensors[name] = PlacedTensor(name, "arena", self.top, size, shape, dtype)
        self.top += size
        return name

    def host(self, name: str, role: str, size: int) -> Range:
        buffer = f"{'in' if role == 'input' else 'out'}.{name}"
        self.buffers[buffer] = Buffer(buffer, size, "host", role)  # type: ignore[arg-type]
        return Range(buffer, 0, size)

    def range(self, name: str) -> Range:
        t = self.tensors[name]
        return Range(t.buffer, t.offset, t.offset + t.bytes)

    def input(self, stream: int, name: str) -> None:
        given = self.host(name, "input", self.tensors[name].bytes)
        self.add(Launch(stream, f"{name}.h2d", "h2d", (given,), (self.range(name),),
                        kind="memcpy", cost=self.moved(given, given)))  # fmt: skip

    def output(self, stream: int, name: str, tensor: str) -> None:
        taken = self.host(name, "output", self.tensors[tensor].bytes)
        self.add(Launch(stream, f"{name}.d2h", "d2h", (self.range(tensor),), (taken,),
                        kind="memcpy", cost=self.moved(taken, taken)))  # fmt: skip

    def launch(self, stream: int, name: str, command: str, *reads: str) -> None:
        ranges = tuple(self.range(r) for r in reads)
        cost = self.moved(*ranges, self.range(name))
        if command != "gemm":
            kind, flops = "kernel", 0
        else:
            kind, (out, k) = "gemm", (self.tensors[name].shape, self.tensors[reads[0]].shape[-1])
            flops = 2 * prod(out) * k
        self.add(Launch(stream, name, command, ranges, (self.range(name),),
                        kind=kind, cost=Cost(flops, cost.bytes)))  # type: ignore[arg-type]  # fmt: skip

    def moved(self, *ranges: Range) -> Cost:
        return Cost(0, sum(r.high - r.low for r in ranges))

    def sync(self, source: int, target: int, role: str = "dependency") -> None:
        event = self.record(source)
        self.add(Wait(target, event, role))  # type: ignore[arg-type]

    def record(self, stream: int) -> int:
        self.events += 1
        self.add(Record(stream, self.events - 1))
        return self.events - 1

    def add(self, instruction: Instruction) -> None:
        self.instructions.append(instruction)

    def plan(self, dims: dict[str, int] | None = None) -> Plan:
        self.add(HostWait(self.record(0)))
        waits = [i for i in self.instructions if isinstance(i, Wait)]
        needed = sum(w.role == "dependency" for w in waits)
        stats = Stats(len(self.streams), needed, self.events, self.top, needed + 1,
                      self.top * 3 // 4, self.top * 2)  # fmt: skip
        buffers = (Buffer("arena", self.top, "device", "arena"), *self.buffers.values())
        return Plan(self.name, self.device, dims or {}, self.streams, buffers,
                    tuple(self.tensors.values()), tuple(self.instructions), stats)  # fmt: skip


@pytest.fixture
def sketch() -> type[Sketch]:
    return Sketch


@pytest.fixture
def attention() -> Plan:
    """q, k and v come in on three streams; scores and probs share none."""
    s = Sketch("attention", 3)
    for name in "qkv":
        s.tensor(name, (2, 8, 128, 64))
    s.tensor("scores", (2, 8, 128, 128))
    s.tensor("probs", (2, 8, 128, 128))
    s.tensor("ctx", (2, 8, 128, 64))
    s.input(0, "q")
    s.sync(0, 1, "fork")
    s.input(1, "k")
    s.sync(0, 2, "fork")
    s.input(2, "v")
    s.sync(1, 0)
    s.launch(0, "scores", "gemm", "q", "k")
    s.launch(0, "probs", "softmax", "scores")
    s.sync(2, 0)
    s.launch(0, "ctx", "gemm", "probs", "v")
    s.output(0, "out", "ctx")
    return s.plan({"B": 2, "H": 8, "S": 128, "D": 64})


@pytest.fixture
def chains() -> Callable[..., Plan]:
    """`chains(n, k, length)`: n independent chains on k streams, joined by one sum."""
    return _chains


def _chains(number: int, streams: int, length: int = 2) -> Plan:
    s = Sketch("parallel", streams)
    s.tensor("x", (256, 256), DType.F32)
    for c in range(number):
        for step in range(length):
            s.tensor(f"b{c}.{step}", (256, 256), DType.F32)
    s.tensor("sum", (256, 256), DType.F32)
    s.input(0, "x")
    for stream in range(1, streams):
        s.sync(0, stream)
    for step in range(length):
        for c in range(number):
            before = f"b{c}.{step - 1}" if step else "x"
            s.launch(c % streams, f"b{c}.{step}", ("gemm", "softmax")[step % 2], before)
    for stream in range(1, streams):
        s.sync(stream, 0)
    s.launch(0, "sum", "gemm", *(f"b{c}.{length - 1}" for c in range(number)))
    s.output(0, "y", "sum")
    return s.plan({"N": 256})


@pytest.fixture
def awkward() -> Plan:
    """Names with a meaning in DOT, HTML or a terminal, and plain ones."""
    s = Sketch('gr"aph', 2)
    names = ['a"b', "<x>", "node", "подграф", "back\\N", "a&amp;b", "new\nline\x1b[31m", "层"]
    for name in names:
        s.tensor(name, (4, 4))
    s.input(0, names[0])
    s.sync(0, 1)
    for before, name in itertools.pairwise(names):
        s.launch(names.index(name) % 2, name, "copy", before)
        s.sync(names.index(name) % 2, 1 - names.index(name) % 2)
    s.output(0, "%", names[-1])
    return s.plan()
