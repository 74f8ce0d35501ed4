"""Random graphs and random plans, for Hypothesis and for scripts that count from a seed.

Everything is drawn through `Choices`. Hypothesis' own choices shrink towards few nodes, small
numbers and no extras; `Seeded` ones are fast and repeatable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from random import Random
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st

from graphexec.base.tensor import DType, TensorType
from graphexec.ir.graph import Graph
from graphexec.ir.plan import (
    Buffer,
    HostWait,
    Instruction,
    Launch,
    Plan,
    Range,
    Record,
    Stream,
    Wait,
)
from graphexec.ir.program import WorkKind

T = TypeVar("T")
Draw = Callable[[st.SearchStrategy[Any]], Any]


class Choices(Protocol):
    """A source of random choices."""

    def integer(self, low: int, high: int) -> int:
        """Any of `low` to `high`."""

    def pick(self, options: Sequence[T]) -> T:
        """Any of the options, the first being the simplest."""

    def chance(self, percent: int) -> bool:
        """True with this probability; False is simpler."""


class Seeded:
    """Choices that follow from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def pick(self, options: Sequence[T]) -> T:
        return self._random.choice(options)

    def chance(self, percent: int) -> bool:
        return self._random.randrange(100) < percent


class Drawn:
    """Choices that Hypothesis makes and shrinks."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return int(self._draw(st.integers(low, high)))

    def pick(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def chance(self, percent: int) -> bool:
        return self.integer(0, 99) >= 100 - percent


@st.composite
def graphs(draw: Draw, max_nodes: int = 12, bait: bool = False) -> Graph:
    """Graphs of 1 to `max_nodes` nodes; every leaf, or some of them, and others are outputs.

    With `bait` there is more of what rewrites look for.
    """
    return random_graph(Drawn(draw), max_nodes, bait)


@st.composite
def repeated_graphs(draw: Draw, max_nodes: int = 6) -> Graph:
    """A graph of 1 to `max_nodes` nodes two to six times over, so that much of it is alike."""
    return repeated_graph(Drawn(draw), max_nodes)


@st.composite
def plans(draw: Draw, max_launches: int = 7) -> Plan:
    """Plans of 1 to `max_launches` launches, about half of them safe."""
    return random_plan(Drawn(draw), max_launches)


def stream_counts() -> st.SearchStrategy[int]:
    """How many streams to plan for."""
    return st.integers(1, 6)


# Graphs ----------------------------------------------------------------------------------

EXTENTS = (1, 2, 3, 4, 5, 7)
DTYPES = (DType.F32, DType.F16, DType.BF16, DType.F64)


def random_graph(
    choices: Choices, max_nodes: int = 12, bait: bool = False, extents: Sequence[int] = EXTENTS
) -> Graph:
    """A graph with outputs that the compiler accepts."""
    return _GraphDrawing(choices, bait, extents).graph(choices.integer(1, max_nodes))


def repeated_graph(choices: Choices, max_nodes: int = 6) -> Graph:
    """Copies of one graph, which share some of its inputs. Now and then a copy has another factor
    somewhere, or reads a tensor of the copy before, and the nodes stand in any order."""
    extents = choices.pick(((8, 16, 32), EXTENTS))  # many tensors of whole 256 bytes, or few
    pattern = random_graph(choices, max_nodes, extents=extents)
    copies = choices.integer(2, 6)
    shared = {name for name in pattern.inputs if choices.chance(40)}
    built = Graph("repeated")
    for name, input in pattern.inputs.items():
        for copy in range(1 if name in shared else copies):
            built.input(name if name in shared else f"{name}_{copy}", input.shape, input.dtype)
    waiting = [list(pattern.nodes.values()) for _ in range(copies)]
    while any(waiting):
        copy = choices.pick([n for n in range(copies) if waiting[n]])
        node = waiting[copy].pop(0)
        names = {
            key: name if name in shared else f"{name}_{copy}" for key, name in node.operands.items()
        }
        for key, name in node.operands.items():
            if copy and f"{name}_{copy - 1}" in built.nodes and choices.chance(4):
                names[key] = f"{name}_{copy - 1}"
        attrs = dict(node.attrs)
        if node.op == "gemm" and choices.chance(4):
            attrs["alpha"] = 0.25
        after = [f"{name}_{copy}" for name in node.after]
        built.node(node.op, name=f"{node.name}_{copy}", after=after, **names, **attrs)
    for output, tensor in pattern.outputs.items():
        for copy in range(1 if tensor in shared else copies):
            name = tensor if tensor in shared else f"{tensor}_{copy}"
            built.output(**{f"{output}_{copy}": name})
    return built


class _GraphDrawing:
    """Grows one graph; `types` says what each tensor is."""

    def __init__(
        self, choices: Choices, bait: bool = False, extents: Sequence[int] = EXTENTS
    ) -> None:
        self.choices, self.extents = choices, extents
        self.built = Graph("random")
        self.types: dict[str, TensorType] = {}
        self.kinds = [self.copy, self.softmax, self.gemm, self.gemm]
        if bait:
            self.kinds += [self.repeat, self.product, self.product, self.product, self.attention]

    def graph(self, nodes: int) -> Graph:
        for _ in range(nodes):
            self.choices.pick(self.kinds)()
        self.outputs()
        return self.built

    def outputs(self) -> None:
        nodes = list(self.built.nodes)
        read = {name for node in self.built.nodes.values() for name in node.operands.values()}
        leaves = [name for name in nodes if name not in read]
        chosen = [name for name in leaves if not self.choices.chance(10)] or leaves[:1]
        if self.choices.chance(30):
            chosen.append(self.choices.pick([*nodes, *self.built.inputs]))
        for number, name in enumerate(chosen):
            self.built.output(**{f"out{number}": name})

    # Tensors

    def input(self, shape: Sequence[int], dtype: DType) -> str:
        name = f"x{len(self.built.inputs)}"
        self.types[name] = TensorType(tuple(shape), dtype)
        return self.built.input(name, shape, dtype.value)

    def tensor(self, fits: Callable[[TensorType], bool], shape: Sequence[int] = ()) -> str:
        """A tensor that fits, if there is one; else, or now and then, a new input."""
        found = [name for name, type in self.types.items() if fits(type)]
        if found and not self.choices.chance(20):
            return found[-1 - self.choices.integer(0, len(found) - 1)]
        wanted = tuple(shape) or self.shape(2)
        dtypes = [d for d in DTYPES if fits(TensorType(wanted, d))]
        return self.input(wanted, self.choices.pick(dtypes))

    def shape(self, min_rank: int) -> tuple[int, ...]:
        rank = self.choices.integer(min_rank, 4)
        return tuple(self.choices.pick(self.extents) for _ in range(rank))

    def add(self, op: str, operands: dict[str, str], attrs: dict[str, Any]) -> None:
        """Add a node, and ask its op what it makes."""
        earlier, after = list(self.built.nodes), []
        if earlier and self.choices.chance(15):
            after.append(self.choices.pick(earlier))
        name = self.built.node(op, after=after, **operands, **attrs)
        definition = self.built.ops[op]
        given = {a.name: attrs.get(a.name, a.default) for a in definition.attributes}
        for key in ("dtype", "out_dtype"):
            given |= {key: DType(given[key])} if given.get(key) else {}
        types = {key: self.types[tensor] for key, tensor in operands.items()}
        self.types[name] = definition.infer(types, given)

    # Ops

    def gemm(self) -> None:
        choices = self.choices
        a = self.tensor(lambda t: len(t.shape) >= 2 and t.space == "device")
        left = self.types[a]
        trans_a, trans_b = choices.chance(30), choices.chance(40)
        m, k = left.shape[:-3:-1] if trans_a else left.shape[-2:]
        n = choices.pick(self.extents)
        b = self.tensor(
            lambda t: (
                t.dtype is left.dtype
                and t.space == "device"
                and len(t.shape) >= 2
                and t.shape[-1 if trans_b else -2] == k
                and _broadcast(t.shape[:-2], left.shape[:-2]) is not None
            ),
            (*self.batch(left.shape[:-2]), *((n, k) if trans_b else (k, n))),
        )
        right = self.types[b]
        batch = _broadcast(left.shape[:-2], right.shape[:-2])
        assert batch is not None
        shape = (*batch, m, right.shape[-2 if trans_b else -1])
        attrs = self.without_defaults(
            trans_a=(trans_a, False),
            trans_b=(trans_b, False),
            alpha=(choices.pick((1.0, 1 / k, -0.5 / k, 0.0)), 1.0),
            out_dtype=(choices.pick(DTYPES).value if choices.chance(25) else None, None),
        )
        addends = self.addends(shape, (left.dtype, DType(attrs.get("out_dtype", left.dtype))))
        if "c" in addends and choices.chance(60):
            attrs["beta"] = choices.pick((1.0, 0.5, -2.0, 0.0))
        self.add("gemm", {"a": a, "b": b, **addends}, attrs)

    def repeat(self) -> None:
        """A repeated node."""
        nodes = list(self.built.nodes.values())
        if not nodes:
            return self.copy()
        node = nodes[-1 - self.choices.integer(0, len(nodes) - 1)]
        return self.add(node.op, dict(node.operands), dict(node.attrs))

    def product(self) -> None:
        """What stands around a GEMM: turned operands, an addend that was computed, a result that
        is cast or turned."""
        choices = self.choices
        dtype = choices.pick(DTYPES)
        batch = tuple(choices.pick(EXTENTS[1:]) for _ in range(choices.integer(0, 2)))
        m, k, n = (choices.pick((2, 3, 4, 8, 16)) for _ in range(3))
        operands = {
            "a": self.turned((*batch, m, k), dtype),
            "b": self.turned((*batch, k, n), dtype),
        }
        if choices.chance(40):
            addend = TensorType((*batch, m, n), dtype)
            operands["c"] = self.tensor(lambda t: t == addend, addend.shape)
            if choices.chance(60):
                self.add("softmax", {"x": operands["c"]}, {})
                operands["c"] = list(self.built.nodes)[-1]
        self.add("gemm", operands, {"alpha": 1 / k})
        last = list(self.built.nodes)[-1]
        if choices.chance(40):
            self.add("copy", {"x": last}, {"dtype": choices.pick(DTYPES).value})
        elif choices.chance(60):
            axes = self.axes(len(batch) + 2)
            self.add("copy", {"x": last}, {"permute": axes})

    def attention(self) -> None:
        """gemm, softmax, gemm, with heads that are turned before."""
        choices = self.choices
        dtype = choices.pick(DTYPES)
        batch = tuple(choices.pick(EXTENTS[1:]) for _ in range(choices.integer(0, 2)))
        m, n, d = (choices.pick((2, 3, 4, 8, 16)) for _ in range(3))
        q, k, v = (self.turned((*batch, rows, d), dtype) for rows in (m, n, n))
        self.add("gemm", {"a": q, "b": k}, {"trans_b": True, "alpha": 1 / d})
        scores = list(self.built.nodes)[-1]
        self.add("softmax", {"x": scores}, {"causal": True} if choices.chance(30) else {})
        probs = list(self.built.nodes)[-1]
        self.add("gemm", {"a": probs, "b": v}, {})

    def turned(self, shape: tuple[int, ...], dtype: DType) -> str:
        """A tensor of this type: as it is, or permuted or sliced from another."""
        choices = self.choices
        if choices.chance(30):
            return self.tensor(lambda t: t == TensorType(shape, dtype), shape)
        axes = self.axes(len(shape))
        whole = [shape[axes.index(axis)] for axis in range(len(shape))]
        attrs: dict[str, Any] = {"permute": axes}
        if choices.chance(40):
            axis = choices.integer(0, len(shape) - 1)
            start = 8 * choices.integer(0, 1)
            attrs["slice"] = {axis: [start, start + whole[axis], 1]}
            whole[axis] += 8
        x = self.tensor(lambda t: t == TensorType(tuple(whole), dtype), whole)
        self.add("copy", {"x": x}, attrs)
        return list(self.built.nodes)[-1]

    def axes(self, rank: int) -> list[int]:
        left = list(range(rank))
        return [left.pop(self.choices.integer(0, len(left) - 1)) for _ in range(rank)]

    def batch(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Leading axes that broadcast with `shape`."""
        kept = shape[self.choices.integer(0, len(shape)) :] if shape else ()
        return tuple(1 if self.choices.chance(20) else e for e in kept)

    def addends(self, shape: tuple[int, ...], dtypes: tuple[DType, ...]) -> dict[str, str]:
        found = {}
        if self.choices.chance(30):
            small = tuple(1 if self.choices.chance(20) else e for e in shape)
            found["c"] = self.tensor(
                lambda t: t.space == "device" and t.dtype in dtypes and _fits(t.shape, shape),
                small[self.choices.integer(0, len(shape) - 1) :],
            )
        if self.choices.chance(30):
            found["bias"] = self.tensor(
                lambda t: t.space == "device" and t.dtype in dtypes and t.shape == shape[-1:],
                shape[-1:],
            )
        return found

    def softmax(self) -> None:
        choices = self.choices
        x = self.tensor(lambda t: len(t.shape) >= 1 and t.space == "device")
        shape = self.types[x].shape
        axis = choices.integer(-len(shape), len(shape) - 1) if choices.chance(40) else -1
        last = axis in (-1, len(shape) - 1) and len(shape) >= 2
        attrs = self.without_defaults(
            axis=(axis, -1),
            scale=(choices.pick((1.0, 0.5, -1.5, 0.0)), 1.0),
            causal=(last and choices.chance(40), False),
        )
        operands = {"x": x}
        if choices.chance(30):
            small = tuple(1 if choices.chance(30) else e for e in shape)
            operands["mask"] = self.tensor(
                lambda t: t.space == "device" and _fits(t.shape, shape),
                small[choices.integer(0, len(shape) - 1) :],
            )
        self.add("softmax", operands, attrs)

    def copy(self) -> None:
        choices = self.choices
        x = self.tensor(lambda t: True)
        shape = list(self.types[x].shape)
        attrs: dict[str, Any] = {}
        if choices.chance(30):
            attrs["slice"] = {}
            for axis in range(len(shape)):
                if choices.chance(50):
                    attrs["slice"][axis], shape[axis] = self.slice(shape[axis])
        if choices.chance(30):
            attrs["permute"] = self.axes(len(shape))
            shape = [shape[axis] for axis in attrs["permute"]]
        if choices.chance(30):
            attrs["reshape"] = self.reshaped(shape)
        if choices.chance(30):
            attrs["dtype"] = choices.pick(DTYPES).value
        if choices.chance(20):
            attrs["to"] = choices.pick(("device", "host"))
        self.add("copy", {"x": x}, attrs)

    def slice(self, extent: int) -> tuple[list[int | None], int]:
        """[start, stop, step] of an axis that leave something, and how much."""
        choices = self.choices
        first = choices.integer(0, extent - 1)
        past = choices.integer(first + 1, extent)
        step = choices.integer(1, 3)
        if choices.chance(30):  # backwards, from the last one
            left = None if first == 0 else first - 1
            return [past - 1, left, -step], len(range(first, past, step))
        start: int | None = first - extent if choices.chance(20) else first
        stop = None if past == extent else past - extent if choices.chance(20) else past
        return [start, stop, step], len(range(first, past, step))

    def reshaped(self, shape: Sequence[int]) -> list[int]:
        total = prod(shape)
        first = self.choices.pick([d for d in range(1, total + 1) if total % d == 0][:12])
        last = -1 if self.choices.chance(50) else total // first
        return self.choices.pick(([-1], [first, last], [1, first, last], [first, 1, last, 1]))

    def without_defaults(self, **settings: tuple[Any, Any]) -> dict[str, Any]:
        """Default values are usually left out."""
        return {
            key: value
            for key, (value, default) in settings.items()
            if value != default or (default is not None and self.choices.chance(10))
        }


def _fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return _broadcast(shape, target) == target


def _broadcast(one: tuple[int, ...], two: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape both broadcast to by NumPy's rules, or None."""
    rank = max(len(one), len(two))
    one, two = (1,) * (rank - len(one)) + one, (1,) * (rank - len(two)) + two
    if any(p != q and 1 not in (p, q) for p, q in zip(one, two, strict=True)):
        return None
    return tuple(map(max, one, two))


# Plans -----------------------------------------------------------------------------------

ARENA, INPUT, OUTPUT, WEIGHTS = (
    Buffer("arena", 8, "device", "arena"),
    Buffer("in.x", 4, "host", "input"),
    Buffer("out.y", 2, "host", "output"),
    Buffer("w", 4, "device", "weights"),
)


def random_plan(choices: Choices, max_launches: int = 7) -> Plan:
    """A plan made without a graph: it computes nothing meaningful, but may be safe.

    Launches of random ranges go to random streams, in between random records and waits.
    Usually streams are forked and joined, reads prefer what has been written, and races are
    then mended by waits, by random choice all of them or not; at the end a few plans are damaged.
    """
    return _PlanDrawing(choices).plan(choices.integer(0, max_launches - 1))


class _PlanDrawing:
    """Grows one plan."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.streams = choices.integer(1, 3)
        self.handles = choices.chance(70)
        self.steps: list[Instruction] = []
        self.events = 0
        self.written: list[Range] = []
        self.care = choices.pick((100, 100, 95, 70, 0))

    def plan(self, launches: int) -> Plan:
        self.fork()
        for number in range(launches):
            for _ in range(self.choices.integer(0, 2) if self.care < 100 else 0):
                self.random_wait()
            self.launch(number)
        self.write_output(launches)
        self.join()
        self.damage()
        streams = tuple(Stream(i, self.handle(i)) for i in range(self.streams))
        return Plan(
            graph="random",
            device="cpu",
            dims={},
            streams=streams,
            buffers=(ARENA, INPUT, OUTPUT, WEIGHTS),
            tensors=(),
            instructions=tuple(self.with_handle(step, streams) for step in self.steps),
        )

    # Order

    def fork(self) -> None:
        if self.streams > 1 and not self.choices.chance(5):
            event = self.record(0)
            self.steps += [Wait(s, event, "fork") for s in range(1, self.streams)]

    def join(self) -> None:
        for stream in range(1, self.streams):
            if not self.choices.chance(3):
                self.steps.append(Wait(0, self.record(stream), "join"))
        end = self.record(0 if not self.choices.chance(3) else self.stream())
        if not self.choices.chance(3):
            self.steps.append(HostWait(end))

    def record(self, stream: int) -> int:
        self.steps.append(Record(stream, self.events))
        self.events += 1
        return self.events - 1

    def stream(self) -> int:
        return self.choices.integer(0, self.streams - 1)

    def random_wait(self) -> None:
        event = self.record(self.stream())
        if self.choices.chance(30):
            event = self.choices.integer(0, event)
        self.steps.append(Wait(self.stream(), event))

    def mend(self, stream: int, touched: Sequence[Range]) -> None:
        """Wait for the streams that touched the same bytes (two reads included), with care."""
        for other in range(self.streams):
            meets = any(
                isinstance(step, Launch)
                and step.stream == other
                and any(_meet(one, two) for one in touched for two in step.reads + step.writes)
                for step in self.steps
            )
            if other != stream and meets and not self.choices.chance(100 - self.care):
                self.steps.append(Wait(stream, self.record(other)))

    # Launches

    def launch(self, number: int) -> None:
        command = self.choices.pick(("copy", "softmax", "gemm"))
        reads = tuple(self.read() for _ in range(self.choices.integer(0, 2)))
        writes = tuple(self.write() for _ in range(2 if self.choices.chance(10) else 1))
        clash = any(_meet(r, w) and r != w for r in reads for w in writes)
        if command == "gemm" and clash and not self.choices.chance(15):
            command = "copy"  # a gemm must not
        self.issue(number, command, reads, writes)

    def issue(
        self, number: int, command: str, reads: tuple[Range, ...], writes: tuple[Range, ...]
    ) -> None:
        stream = self.stream()
        self.mend(stream, (*reads, *writes))
        after: tuple[str, ...] = ()
        if number and self.choices.chance(8):
            after = (f"n{self.choices.integer(0, number - 1)}",)
        node = f"n{number}"
        kind: WorkKind = "gemm" if command == "gemm" else "kernel"
        self.steps.append(Launch(stream, node, command, reads, writes, after=after, kind=kind))
        self.written += writes

    def read(self) -> Range:
        if self.written and self.choices.chance(50):
            whole = self.choices.pick(self.written)
            return self.part(whole) if self.choices.chance(40) else whole
        source = self.choices.pick((INPUT, WEIGHTS))
        if self.care < 100 and self.choices.chance(10):
            source = ARENA
        return self.part(Range(source.id, 0, source.bytes))

    def write(self) -> Range:
        if self.written and self.choices.chance(25):
            return self.choices.pick(self.written)
        target = self.choices.pick((ARENA, ARENA, ARENA, OUTPUT))
        return self.part(Range(target.id, 0, target.bytes))

    def part(self, whole: Range) -> Range:
        low = self.choices.integer(whole.low, whole.high - 1)
        return Range(whole.buffer, low, self.choices.integer(low + 1, whole.high))

    def write_output(self, number: int) -> None:
        if not self.choices.chance(5):
            self.issue(number, "copy", (self.read(),), (Range(OUTPUT.id, 0, OUTPUT.bytes),))

    def handle(self, stream: int) -> int | None:
        """One of its own; none where no stream has one, and now and then."""
        if not self.handles or self.choices.chance(2):
            return None
        return self.choices.integer(0, 9) * 3 + stream

    def with_handle(self, step: Instruction, streams: tuple[Stream, ...]) -> Instruction:
        if not isinstance(step, Launch) or step.kind != "gemm" or self.choices.chance(1):
            return step
        handle = streams[step.stream].blas_handle
        return replace(step, blas_handle=handle)

    # Damage

    def damage(self) -> None:
        if not self.choices.chance(10):
            return
        place = self.choices.integer(0, len(self.steps) - 1)
        kind = self.choices.pick(("delete", "swap", "repeat", "host"))
        if kind == "delete":
            del self.steps[place]
        elif kind == "swap":
            other = self.choices.integer(0, len(self.steps) - 1)
            self.steps[place], self.steps[other] = self.steps[other], self.steps[place]
        elif kind == "repeat":
            self.steps.insert(self.choices.integer(0, len(self.steps)), self.steps[place])
        else:
            self.steps.insert(place, HostWait(self.choices.integer(0, self.events)))


def _meet(one: Range, two: Range) -> bool:
    return one.buffer == two.buffer and one.low < two.high and two.low < one.high
