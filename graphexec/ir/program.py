"""Commands that a device can enqueue on a stream, and the program of commands that a graph becomes.

There are six kinds of work. Gemm is a product by a BLAS, GemmBatch several of them in one call.
Kernel is an entry point of a HIP source, TritonKernel one of a Triton source; each has the NumPy
function that computes the same. Memcpy moves dense bytes. Collective is a meeting of ranks.
Devices execute these and know no op.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from graphexec.base.tensor import Array, DType, Space, View
from graphexec.ir.body import Body
from graphexec.ir.ranks import Ranks

Parallel = Callable[[int, Callable[[int, int], None]], None]
"""`parallel(n, body)` calls `body(low, high)` over ranges that together cover 0 to n."""

Compute = Callable[[list[Array], Parallel], None]
"""`compute(arrays, parallel)` does a kernel's work on NumPy views of its `View`s, in order."""


@runtime_checkable
class Preparable(Protocol):
    """A Compute that prepares itself before the first run."""

    def prepare(self) -> Compute:
        """The function that is called in its place. A session on the CPU calls this when it is
        loaded."""


class Generates(Protocol):
    """What makes the kernel of a body, over views in the order of its operands and its results."""

    @property
    def body(self) -> Body:
        """The body."""
        ...

    def __call__(self, *views: View) -> Kernel:
        """The kernel over these views."""
        ...

    def with_body(self, body: Body) -> Generates:
        """The same for another body."""
        ...


class TakesBody(Protocol):
    """What makes the kernel of a product, which can go on to compute a body of its elements."""

    def with_body(
        self, body: Body, parts: Sequence[int | None], b: View
    ) -> Callable[..., Kernel] | str:
        """What makes the kernel of both, over the operands of the product, those tensors that the
        body reads beside it, and the result; or the reason why there is none.

        Operand n of the body is the product `parts[n]` columns further, or None for a tensor.
        """
        ...


ALIGNMENT = 256
"""Bytes every storage's place is a multiple of."""


def aligned(nbytes: int) -> int:
    """`nbytes` rounded up to a whole number of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a command: floating-point operations, and bytes read plus written."""

    flops: int = 0
    bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class Gemm:
    """out = alpha · a @ b + beta · c + bias over equal leading batch axes.

    a is (..., M, K), b (..., K, N), c and out (..., M, N), bias (..., N); transposition and
    broadcasting are in the strides. a and b share a dtype; out has that dtype or f32, c and bias
    have that of out. Without a c, beta multiplies the previous content of out. With beta = 0,
    neither c nor out is read. Some devices add a bias, and a c beside it, as they write the result.
    Ops lower to products without them; the rewrite fuse-epilogue asks the device and adds them.
    Some apply an `activation` to this sum, before it is rounded (the rewrite fuse-activations).
    """

    a: View
    b: View
    out: View
    alpha: float = 1.0
    beta: float = 0.0
    c: View | None = None
    bias: View | None = None
    activation: Literal["", "relu", "gelu_tanh"] = ""

    @property
    def reads(self) -> tuple[View, ...]:
        """The views that are read: a, b, the one that beta multiplies, the bias."""
        added = (self.out if self.c is None else self.c,) if self.beta else ()
        return (self.a, self.b, *added, *(() if self.bias is None else (self.bias,)))


@dataclass(frozen=True, slots=True)
class GemmBatch:
    """Several Gemms in one BLAS call, which gets arrays of pointers: the matrices may lie anywhere.

    They differ only in where their operands begin, and none reads a result of another. They have no
    bias and no c.
    """

    members: tuple[Gemm, ...]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A kernel argument passed by value."""

    type: Literal["i32", "i64", "f32", "f64"]
    value: int | float


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch of `entry` in the HIP source `source`.

    With a `text`, that is the source, and `source` the file that made it, beside which its includes
    lie. `options` are for the compiler, besides those of all kernels.
    `args` are passed in order, a View as the address of its first element. `defines` are
    preprocessor definitions the source is compiled with. `compute` does the same work on the CPU;
    it may be Preparable. `factors` are given if the result is the sum of the views that the command
    reads, each times its factor. Then a product may be able to add them itself
    (graphexec.planning.fuse_epilogue). `generated` makes the kernel, if it is generated from a
    body; it may be fused with others then (graphexec.planning.fuse_maps). An `epilogue` may compute
    the body of the command that follows.
    """

    source: Path
    entry: str
    args: tuple[View | Scalar, ...]
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    compute: Compute = field(compare=False)
    shared_bytes: int = 0
    defines: tuple[tuple[str, str], ...] = ()
    factors: tuple[float, ...] = ()
    text: str = ""
    options: tuple[str, ...] = ()
    generated: Generates | None = field(default=None, compare=False)
    epilogue: TakesBody | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Gpu:
    """The properties of a GPU that the configuration of a kernel depends on. `architecture` is, for
    example, gfx942 or sm_90."""

    architecture: str
    warp_size: int
    multiprocessors: int


Argument = View | Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class TritonLaunch:
    """A Triton kernel on one GPU: a function in the Python file `source`, with the options of its
    compilation, its arguments, and its number of blocks.

    `args` are its parameters in order, but for the `constants`, which are compile-time parameters
    by name. The compiler is told which of them are 1 or multiples of 16. `options` are the
    compiler's, such as num_warps. The compiled kernel states the threads of a block.
    """

    source: Path
    args: tuple[Argument, ...]
    constants: Mapping[str, int | bool | float | str | None]
    options: Mapping[str, int | bool | str]
    grid: tuple[int, int, int]


class NoKernel(Exception):
    """There is no kernel for these views on this GPU; the message says why."""


@dataclass(frozen=True, slots=True)
class TritonKernel:
    """One launch of a function called `entry` in a Triton source.

    The source and the launch depend on the GPU: `configure(views, gpu)` gives them, or raises
    NoKernel. `compute` is as in Kernel.
    """

    entry: str
    views: tuple[View, ...]
    configure: Callable[[tuple[View, ...], Gpu], TritonLaunch] = field(compare=False)
    compute: Compute = field(compare=False)

    def on(self, gpu: Gpu) -> TritonLaunch:
        """The launch on a GPU. Raises NoKernel."""
        return self.configure(self.views, gpu)


Direction = Literal["h2d", "d2h", "d2d", "h2h"]
"""The source and the target of a copy: h is the host's memory, d the device's."""

DIRECTIONS: Mapping[tuple[Space, Space], Direction] = {
    ("host", "device"): "h2d",
    ("device", "host"): "d2h",
    ("device", "device"): "d2d",
    ("host", "host"): "h2h",
}
"""The direction of a copy by the memory spaces of its source and its target."""


@dataclass(frozen=True, slots=True)
class Memcpy:
    """Copy the bytes of a dense view onto another of the same size.

    `direction` says in which memory the two lie. Ops leave it out. Lowering sets it, because it
    knows the storages.
    """

    src: View
    dst: View
    direction: Direction = "d2d"


CollectiveKind = Literal["all_reduce", "reduce_scatter", "all_gather", "all_to_all", "send", "recv"]
Reduction = Literal["", "sum", "prod", "min", "max"]


@dataclass(frozen=True, slots=True)
class Collective:
    """A meeting of the ranks of `communicator`: each rank's program has its part of it.

    Views are dense. all_reduce: dst is src of all ranks reduced, and may be src. reduce_scatter:
    dst is this rank's part of that, src being cut into as many equal leading parts as there are
    ranks. all_gather: dst is src of all ranks, in their order along a new leading axis. all_to_all:
    part n of src goes to rank n. send and recv: between this rank and `peer`, a rank of the world.
    Those of one `group` are one meeting. recv has no src, and send no dst.
    """

    kind: CollectiveKind
    communicator: str
    src: View | None
    dst: View | None
    reduction: Reduction = ""
    peer: int | None = None
    group: int | None = None

    @property
    def count(self) -> int:
        """The elements that a rank sends; of the result for reduce_scatter and recv."""
        return self._counted.elements

    @property
    def dtype(self) -> DType:
        """The type of what travels."""
        return self._counted.dtype

    @property
    def _counted(self) -> View:
        view = self.dst if self.kind in ("reduce_scatter", "recv") else self.src
        assert view is not None
        return view


Work = Gemm | GemmBatch | Kernel | TritonKernel | Memcpy | Collective

WorkKind = Literal["gemm", "gemm_batch", "kernel", "memcpy", "collective"]
"""The executor of a command: the BLAS (one product, or several in one call), a kernel, a copy, or
several ranks together."""


_KINDS: Mapping[type[Work], WorkKind] = {
    Gemm: "gemm",
    GemmBatch: "gemm_batch",
    Kernel: "kernel",
    TritonKernel: "kernel",
    Memcpy: "memcpy",
    Collective: "collective",
}


def work_kind(work: Work) -> WorkKind:
    """The kind of a piece of work; a Triton kernel is a kernel."""
    return _KINDS[type(work)]


Recipe = Callable[[Sequence[View], Sequence[View]], Kernel | TritonKernel | None]
"""`recipe(reads, writes)` is a kernel over these views, or None if there is none. Further leading
axes, the same in all of them, are a batch. Equal recipes do the same to views of equal shapes."""


@runtime_checkable
class Varied(Protocol):
    """A Recipe that knows other kernels that do the same: other blocks, other vectors, the same
    entry point."""

    def variants(
        self, reads: Sequence[View], writes: Sequence[View]
    ) -> Sequence[Kernel | TritonKernel]:
        """Kernels to try beside the one that the recipe returns."""


@dataclass(frozen=True, slots=True)
class Command:
    """One enqueueable piece of work of a node.

    `node` is the name of the graph's node, or that of a transfer the compiler adds
    (graphexec.ir.names). `label` names the work for people and profiles. `after`
    lists commands (by index in the program) that must be finished first without sharing data,
    `after_nodes` the nodes they are for. `inplace` lists pairs (index in reads, index in writes) of
    views that may be the same bytes: the command reads each element before it writes the same one.
    Both are dense and of one size. `recipe` makes the work of a kernel over other views.

    A command that does the work of several nodes at once lists them in `nodes`, the first being
    `node`; writes[i] is the result of nodes[i]. In a batch, `reads` are those of the first node, of
    the second and so on, the work's own views reach over all of them, and there is no recipe.

    `instead` is one command that does the work of all commands of the node. A rewrite decides.
    """

    node: str
    label: str
    work: Work
    reads: tuple[View, ...]
    writes: tuple[View, ...]
    cost: Cost = Cost()
    after: tuple[int, ...] = ()
    inplace: tuple[tuple[int, int], ...] = ()
    after_nodes: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    recipe: Recipe | None = field(default=None, compare=False)
    instead: Command | None = field(default=None, compare=False)

    @property
    def members(self) -> tuple[str, ...]:
        """The nodes whose work this is."""
        return self.nodes or (self.node,)

    @property
    def batch(self) -> int:
        """How many nodes of one kind are a batch; 1 for other commands."""
        return 1 if self.recipe is not None else max(1, len(self.nodes))


Role = Literal["arena", "input", "output", "weights", "state"]

FAULT = "#fault"
"""The storage of the fault word. No tensor has such a name."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes that need a place: in an arena (to be allocated) or in a buffer of their own."""

    name: str
    nbytes: int
    role: Role
    space: Space


@dataclass(frozen=True, slots=True)
class Group:
    """Storages of one role, space and size that lie one after another, `stride` bytes apart.

    A view may reach from one of them into those that follow. The stride is a multiple of ALIGNMENT
    and not less than the size.
    """

    storages: tuple[str, ...]
    stride: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A state: its home, the tensor that is its next value, and the tensor that lies at home when a
    run ends, which is the former, a copy of it, or the state itself."""

    home: View
    next: str
    end: str


@dataclass(frozen=True)
class Program:
    """Commands in an order that is right when run one after another, and what they touch.

    `tensors` are the named tensors: what the graph calls them and where their elements lie.
    `inputs` and `outputs` are the host's sides of the transfers, `weights` lie on the device.
    `groups` bind the allocation; each storage is in one at most. `faults` are the nodes that may
    set the fault word, by their numbers from 1.
    """

    graph: str
    dims: Mapping[str, int]
    storages: Mapping[str, Storage]
    tensors: Mapping[str, View]
    commands: tuple[Command, ...]
    inputs: Mapping[str, View]
    outputs: Mapping[str, View]
    weights: Mapping[str, View]
    groups: tuple[Group, ...] = ()
    states: Mapping[str, Kept] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    ranks: Ranks | None = None

    @cached_property
    def predecessors(self) -> tuple[tuple[int, ...], ...]:
        """For each command, the earlier ones it must come after (RAW, WAR, WAW and `after`).

        Two accesses of one storage are ordered if one is a write and the ranges of bytes that they
        reach over meet. (Rows of a window that lie between those of another one count as meeting.)
        """
        history = _History(self)
        found = []
        for index, command in enumerate(self.commands):
            needs = set(command.after)
            for view in command.reads:
                needs.update(history.writers(view))
            for view in command.writes:
                needs.update(history.writers(view), history.readers(view))
            for view in command.reads:
                history.read(view, index)
            for view in command.writes:
                history.write(view, index)
            needs.discard(index)
            found.append(tuple(sorted(needs)))
        return tuple(found)


_Access = tuple[int, int, int]
"""First and past-last byte, and the command."""


class _History:
    """The accesses of each storage that later ones must follow. Those whose bytes a later write
    covers are left out: it follows them itself."""

    def __init__(self, program: Program) -> None:
        self._reads: dict[str, list[_Access]] = {}
        self._writes: dict[str, list[_Access]] = {}
        storages = program.storages
        self._in_parts = {
            view.storage for command in program.commands for view in command.writes
            if view.elements * view.dtype.itemsize < storages[view.storage].nbytes
        }  # fmt: skip

    def writers(self, view: View) -> list[int]:
        """The commands that wrote bytes of a view."""
        return self._meeting(self._writes, view)

    def readers(self, view: View) -> list[int]:
        """The commands that read bytes of a view since."""
        return self._meeting(self._reads, view)

    def read(self, view: View, command: int) -> None:
        """Note a read."""
        self._reads.setdefault(view.storage, []).append((*self._range(view), command))

    def write(self, view: View, command: int) -> None:
        """Note a write."""
        low, high = self._range(view)
        for kept in (self._reads, self._writes):
            left = [a for a in kept.get(view.storage, ()) if a[0] < low or a[1] > high]
            kept[view.storage] = left
        self._writes[view.storage].append((low, high, command))

    def _meeting(self, accesses: Mapping[str, list[_Access]], view: View) -> list[int]:
        known = accesses.get(view.storage)
        if not known:
            return []
        low, high = self._range(view)
        return [command for first, last, command in known if first < high and low < last]

    def _range(self, view: View) -> tuple[int, int]:
        # What is never written in parts is one thing: no need to ask which bytes.
        return view.byte_range() if view.storage in self._in_parts else (0, 1)
