"""Kernels for products of at most 8 rows, which take as long as reading the other matrix once.

few_rows.hip is for b whose elements are neighbours along K, as in `x @ T(w)`, few_rows_turned.hip
for one whose elements are neighbours along N. Both add beta · c and the bias to sums in f32, so a
product is one command whatever is added to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from graphexec.base.tensor import DType, View
from graphexec.ir.program import Gemm, Kernel
from graphexec.machine.blas_layout import fold_rows, goes_back
from graphexec.ops.gemm.few_rows_on_cpu import FewRowsOnCpu
from graphexec.ops.kit.launch import Argument, accumulated, integers, launch
from graphexec.ops.kit.strides import axes, collapse, pieces, power_of_two

ROWS = Path(__file__).with_name("few_rows.hip")
TURNED = Path(__file__).with_name("few_rows_turned.hip")

MOST_ROWS = 8
DTYPES = (DType.F16, DType.BF16, DType.F32)

THREADS = 256
MOST_SPLIT = 8  # groups of 32 threads that share a row of b
IN_FLIGHT = 8  # vectors of b that a thread loads before it needs the first
FILLS = 1024  # groups of 32 threads that keep the memory busy
BLOCKS = 128  # blocks that do so


@dataclass(frozen=True)
class FewRows:
    """The kernel over a (…, M, K), b (…, K, N), what is added and the result, all with the batch
    axes of the result. The first addend is multiplied by beta; each broadcasts by its strides."""

    alpha: float
    beta: float

    def __call__(self, a: View, b: View, *others: View) -> Kernel:
        """The kernel that is chosen without measurements."""
        problem = Problem.of(self, a, b, *others)
        return _kernel(problem, next(_blocks(problem)))

    def variants(self, a: View, b: View, *others: View) -> Sequence[Kernel]:
        """The same with other blocks."""
        problem = Problem.of(self, a, b, *others)
        chosen, *more = dict.fromkeys(_blocks(problem))
        return [_kernel(problem, block) for block in more if block != chosen]


@dataclass(frozen=True)
class Problem:
    """A product with as few batch axes as can be."""

    a: View
    b: View
    out: View
    addends: tuple[View, ...]
    alpha: float
    beta: float

    @staticmethod
    def of(made: FewRows, a: View, b: View, *others: View) -> Problem:
        """Batch axes that b lacks are rows, while these are few."""
        *addends, out = others
        work = Gemm(a, b, out, made.alpha, made.beta)
        plain = Problem(a, b, out, tuple(addends), made.alpha, made.beta)
        folded = fold_rows(work)
        axes_left = len(folded.out.shape)
        if folded.out.shape[-2] > MOST_ROWS or axes_left == len(out.shape):
            return plain
        rows = [_folded(view, axes_left) for view in addends]
        if None in rows:
            return plain
        kept = tuple(row for row in rows if row is not None)
        return replace(plain, a=folded.a, b=folded.b, out=folded.out, addends=kept)

    @property
    def rows(self) -> int:
        """M."""
        return self.out.shape[-2]

    @property
    def turned(self) -> bool:
        """Whether the elements of b are neighbours along N."""
        return not _along_k(self.b)

    @property
    def entries(self) -> int:
        """Products of the batch."""
        return prod(self.out.shape[:-2])

    @property
    def vector(self) -> int:
        """Elements of b that are loaded at once."""
        extent, step = (-1, -2) if self.turned else (-2, -1)
        return pieces(self.b, (*self.b.strides[:-2], self.b.strides[step], self.b.shape[extent]))

    def x_vector(self, most: int) -> int:
        """Elements of a row of a that are loaded at once, of `most` that are needed."""
        steps = (*self.a.strides[:-1], self.a.shape[-1], most)
        return min(most, pieces(self.a, steps))


def _folded(view: View, rank: int) -> View | None:
    """The view of the result's shape with its last batch axes merged into the rows."""
    while len(view.shape) > rank:
        batch, rows, columns = view.shape[-3:]
        outer, inner = view.strides[-3:-1]
        if batch != 1 and rows != 1 and outer != rows * inner:
            return None
        step = inner if batch == 1 else outer if rows == 1 else inner
        view = replace(
            view, shape=(*view.shape[:-3], batch * rows, columns),
            strides=(*view.strides[:-3], step, view.strides[-1]),
        )  # fmt: skip
    return view


def _along_k(b: View) -> bool:
    return b.strides[-2] == 1 or (b.shape[-2] == 1 and b.strides[-1] != 1)


def why_no_kernel(a: View, b: View, out: View) -> str:
    """Why there is no kernel for a product, "" if there is one."""
    shared = prod(e for e, step in zip(out.shape[:-2], b.strides[:-2], strict=True) if not step)
    if shared * out.shape[-2] > MOST_ROWS:  # of one matrix
        return f"it has more than {MOST_ROWS} rows"
    if a.dtype not in DTYPES or out.dtype is DType.F64:
        return f"there are kernels for {', '.join(map(str, DTYPES))}"
    if any(map(goes_back, (a, b, out))):
        return "an operand is read backwards"
    if 1 not in b.strides[-2:]:
        return "the elements of b are no neighbours"
    if out.shape[-1] != 1 and out.strides[-1] != 1:
        return "the elements of the result are no neighbours"
    if a.shape[-1] != 1 and a.strides[-1] != 1:
        return "the elements of the rows of a are no neighbours"
    return ""


# Blocks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """`split` groups of 32 threads share `columns` rows of b; or for a turned b, `split` threads
    beside one another share its rows. A block has `threads`."""

    columns: int
    split: int
    threads: int = THREADS


def _blocks(p: Problem) -> Iterator[Block]:
    """Blocks that can do it, the one to choose first."""
    if p.turned:
        wanted = p.out.shape[-1] // p.vector // max(1, BLOCKS // p.entries)
        lanes = min(8, max(2, power_of_two(wanted + 1) // 2))
        deep = p.b.shape[-2] > 4096
        yield Block(p.vector, lanes, 2 * THREADS if deep else THREADS)
        yield from (Block(p.vector, n, t) for n in (2, 4, 8) for t in (THREADS, 2 * THREADS))
        return
    columns = 1 if p.rows == 1 else 2 if p.rows <= 4 else 4
    yield Block(columns, _split(p, columns))
    for fewer in (columns, columns // 2, 2 * columns):
        if 1 <= fewer <= 32 // p.rows:
            yield from (Block(fewer, split) for split in (1, 2, 4, 8))


def _split(p: Problem, columns: int) -> int:
    """As many threads as hold a row of b in what they load at once; more where there are few
    rows."""
    vectors = -(-p.b.shape[-2] // p.vector)
    split = power_of_two(-(-vectors // (32 * (IN_FLIGHT // columns))))
    groups = -(-p.out.shape[-1] // columns) * p.entries
    while groups * split < FILLS and vectors > 32 * split:
        split *= 2
    return min(MOST_SPLIT, split)


def _kernel(p: Problem, block: Block) -> Kernel:
    given = (p.a, p.b, p.out, *p.addends)
    shape, strides = collapse(p.out.shape[:-2], *(v.strides[:-2] for v in given))
    n, k = p.out.shape[-1], p.a.shape[-1]
    addends = [v.strides[-2:] for v in p.addends] + [(0, 0)] * (2 - len(p.addends))
    steps = (
        p.a.strides[-2], p.b.strides[-2 if p.turned else -1], p.out.strides[-2], *addends[0],
        *addends[1],
    )  # fmt: skip
    args: tuple[Argument, ...] = (
        *given, *integers(n, k, p.entries), accumulated(p.alpha, p.a.dtype),
        accumulated(p.beta, p.a.dtype), *integers(*steps), *axes(shape, *strides),
    )  # fmt: skip
    defines: dict[str, str | int] = {
        "T": p.a.dtype.value, "Y": p.out.dtype.value, "ROWS": p.rows, "RANK": len(shape),
        "ADDENDS": len(p.addends), "VECTOR": p.vector,
    }  # fmt: skip
    for name, view in zip(("FIRST", "SECOND"), p.addends, strict=False):
        defines[name] = view.dtype.value
    source, entry, more, tile = _turned(p, block) if p.turned else _plain(p, block)
    blocks = -(-n // tile) * p.entries
    compute = FewRowsOnCpu(p.alpha, p.beta)
    return launch(source, entry, args, blocks, block.threads, defines | more, compute)


_Source = tuple[Path, str, dict[str, str | int], int]


def _plain(p: Problem, block: Block) -> _Source:
    vectors = -(-p.b.shape[-2] // p.vector)
    groups = block.threads // (32 * block.split)
    loads = min(max(1, IN_FLIGHT // block.columns), -(-vectors // (32 * block.split)))
    more: dict[str, str | int] = {
        "COLUMNS": block.columns, "SPLIT": block.split, "GROUPS": groups, "LOADS": loads,
        "X_VECTOR": p.x_vector(p.vector),
    }  # fmt: skip
    return ROWS, "few_rows", more, groups * block.columns


def _turned(p: Problem, block: Block) -> _Source:
    deep = 16 // p.a.dtype.itemsize
    more: dict[str, str | int] = {
        "THREADS": block.threads, "LANES": block.split, "DEEP": deep, "X_VECTOR": p.x_vector(deep),
    }  # fmt: skip
    return TURNED, "few_rows_turned", more, block.split * p.vector
