"""The launch of a product of few rows: the problem, its blocks, and the source of its body."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from graphexec.base.tensor import View
from graphexec.ir.body import Body
from graphexec.ir.program import Compute, Gemm, Kernel
from graphexec.machine.blas_layout import fold_rows
from graphexec.ops.kit.generate.hip import OPTION, statements
from graphexec.ops.kit.launch import Argument, accumulated, element_type, integers, launch
from graphexec.ops.kit.strides import axes, collapse, pieces, power_of_two

PLAIN = Path(__file__).with_name("few_rows.hip")
TURNED = Path(__file__).with_name("few_rows_turned.hip")

MOST_ROWS = 8
MOST_SUMS = 32  # of a thread

THREADS = 256
MOST_SPLIT = 8  # groups of 32 threads that share a row of b
IN_FLIGHT = 8  # vectors of b that a thread loads before it needs the first
MANY = 8192  # rows of b that keep the memory busy
BLOCKS = 128  # blocks that do so


@dataclass(frozen=True)
class End:
    """What becomes of the sums: `alpha` times them, plus the first addend times `beta`, plus the
    second. Then the body, if there is one: its operand n is the column of the product `parts[n]`
    columns further, or, where that is None, another tensor. Without one, `parts` is (0,)."""

    alpha: float
    beta: float
    addends: int = 0
    body: Body | None = None
    parts: tuple[int | None, ...] = (0,)

    @property
    def windows(self) -> tuple[int, ...]:
        """The different columns of the product, in order."""
        return tuple(dict.fromkeys(part for part in self.parts if part is not None))


@dataclass(frozen=True)
class Problem:
    """A product with as few batch axes as can be. `others` are the addends and the tensors that
    the body reads; the result may have fewer columns than the product."""

    end: End
    a: View
    b: View
    out: View
    others: tuple[View, ...]

    @staticmethod
    def of(end: End, a: View, b: View, *others: View) -> Problem:
        """Batch axes that b lacks are rows, while these are few. The result is the last view."""
        *more, out = others
        plain = Problem(end, a, b, out, tuple(more))
        folded = fold_rows(Gemm(a, b, out))
        left = len(folded.out.shape)
        if folded.out.shape[-2] > MOST_ROWS or left == len(out.shape):
            return plain
        rows = [_folded(view, left) for view in more]
        if None in rows:
            return plain
        kept = tuple(row for row in rows if row is not None)
        return Problem(end, folded.a, folded.b, folded.out, kept)

    @property
    def views(self) -> tuple[View, ...]:
        """The views among the kernel's arguments, in order."""
        return (self.a, self.b, self.out, *self.others)

    @property
    def rows(self) -> int:
        """M."""
        return self.out.shape[-2]

    @property
    def turned(self) -> bool:
        """Whether the elements of b are neighbours along N."""
        return not along_k(self.b)

    @property
    def entries(self) -> int:
        """Products of the batch."""
        return prod(self.out.shape[:-2])

    @property
    def vector(self) -> int:
        """Elements of b that are loaded at once."""
        batch, (row, column) = self.b.strides[:-2], self.b.strides[-2:]
        if self.turned:
            return pieces(self.b, (*batch, row, self.out.shape[-1], *self.end.windows))
        return pieces(self.b, (*batch, column, self.b.shape[-2]))

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


def along_k(b: View) -> bool:
    """Whether the elements of b are neighbours along K."""
    return b.strides[-2] == 1 or (b.shape[-2] == 1 and b.strides[-1] != 1)


# Blocks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """`split` groups of 32 threads share `columns` rows of b; or for a turned b, `split` threads
    beside one another share its rows. A block has `threads`."""

    columns: int
    split: int
    threads: int = THREADS


def blocks(p: Problem) -> Iterator[Block]:
    """Blocks that can do it, the one to choose first."""
    if p.turned:
        wanted = p.out.shape[-1] // p.vector // max(1, BLOCKS // p.entries)
        lanes = min(8, max(2, power_of_two(wanted + 1) // 2))
        deep = p.b.shape[-2] > 4096
        yield Block(p.vector, lanes, 2 * THREADS if deep else THREADS)
        yield from (Block(p.vector, n, t) for n in (2, 4, 8) for t in (THREADS, 2 * THREADS))
        return
    parts = len(p.end.windows)
    most = MOST_SUMS // (p.rows * parts)
    columns = min(most, max(1, _columns(p) // parts))
    yield _measured(p, columns)
    for fewer in (columns, columns // 2, 2 * columns):
        if 1 <= fewer <= most:
            yield from (Block(fewer, split) for split in (1, 2, 4, 8))


def _columns(p: Problem) -> int:
    """Rows of b that threads share: several where a row of a can be used again, or where there are
    so many that the memory is busy without a thread's share of one in flight."""
    return 1 if p.rows == 1 and p.out.shape[-1] * p.entries < MANY else 2 if p.rows == 2 else 4


def _measured(p: Problem, columns: int) -> Block:
    """Near the best of all on an H200 (f16): for one row and (N, K) = (2048, 2048), (3072, 2048),
    (2048, 8192), (16384, 2048), (128256, 2048) and SmolLM2's shapes; for four, (3072, 2048)."""
    if p.out.shape[-1] * p.entries >= MANY:
        return Block(columns, 1, 128)
    vectors = -(-p.b.shape[-2] // p.vector)
    split = min(MOST_SPLIT, power_of_two(-(-vectors // 64)) if p.rows == 1 else 2)
    return Block(columns, split, max(128, 32 * split))


def _loads(p: Problem, columns: int) -> int:
    """Vectors of each row of b that a thread has under way."""
    return max(1, IN_FLIGHT // (columns * len(p.end.windows)))


def kernel(p: Problem, block: Block, compute: Compute) -> Kernel:
    """The launch of a problem with these blocks."""
    end, n, k = p.end, p.out.shape[-1], p.a.shape[-1]
    shape, strides = collapse(p.out.shape[:-2], *(v.strides[:-2] for v in p.views))
    args: tuple[Argument, ...] = (
        *p.views, *integers(n, k, p.entries), accumulated(end.alpha, p.a.dtype),
        accumulated(end.beta, p.a.dtype), *integers(*_steps(p)), *axes(shape, *strides),
    )  # fmt: skip
    defines: dict[str, str | int] = {
        "T": p.a.dtype.value, "Y": element_type(p.out.dtype), "ROWS": p.rows, "RANK": len(shape),
        "ADDENDS": end.addends, "PARTS": len(end.windows), "MORE": len(p.others) - end.addends,
        "VECTOR": p.vector, "BATCHED": int(p.entries > 1),
    }  # fmt: skip
    for name, view in zip(("FIRST", "SECOND"), p.others[: end.addends], strict=False):
        defines[name] = view.dtype.value
    source, entry, more, tile = _turned(p, block) if p.turned else _plain(p, block)
    count = -(-n // tile) * p.entries
    text = "" if end.body is None else _text(end, end.body, source)
    options = (OPTION,) if text else ()
    return launch(source, entry, args, count, block.threads, defines | more, compute, text, options)


def _steps(p: Problem) -> tuple[int, ...]:
    """The struct Steps of few_rows.h."""
    addends, more = p.others[: p.end.addends], p.others[p.end.addends :]
    added = [step for view in addends for step in view.strides[-2:]]
    return (
        p.a.strides[-2], p.b.strides[-2 if p.turned else -1], p.out.strides[-2],
        *added, *(0,) * (4 - len(added)), *p.end.windows,
        *(view.strides[-2] for view in more), *(view.strides[-1] for view in more),
    )  # fmt: skip


def _text(end: End, body: Body, source: Path) -> str:
    """The source with its body: element() before the rest."""
    windows, names = end.windows, list[str]()
    pointers: list[str] = []
    for part, dtype in zip(end.parts, body.operands, strict=True):
        if part is None:
            names.append(f"more.x{len(pointers)}[at[{len(pointers)}]]")
            pointers.append(f"const {element_type(dtype)}* x{len(pointers)};")
        else:
            names.append(f"sum[{windows.index(part)}]")
    given = "const More& more, " if pointers else ""
    (result,), (dtype,) = body.results, body.dtypes
    lines = (
        '#include "generate/steps.h"',
        "#define BODY",
        f"struct More {{ {' '.join(pointers)} }};" if pointers else "",
        "// One element of the result.",
        f"DEVICE void element(const float (&sum)[PARTS], {given}const i64* at, Y& y) {{",
        *(f"    {line}" for line in statements(body, range(len(body.steps)), names.__getitem__)),
        f"    y = narrow<{element_type(dtype)}>(t{result});",
        "}",
        f'#include "{source.name}"',
    )
    return "\n".join(lines) + "\n"


_Source = tuple[Path, str, dict[str, str | int], int]


def _plain(p: Problem, block: Block) -> _Source:
    vectors = -(-p.b.shape[-2] // p.vector)
    groups = block.threads // (32 * block.split)
    loads = min(_loads(p, block.columns), -(-vectors // (32 * block.split)))
    more: dict[str, str | int] = {
        "COLUMNS": block.columns, "SPLIT": block.split, "GROUPS": groups, "LOADS": loads,
        "X_VECTOR": p.x_vector(p.vector),
        "WHOLE": int(p.b.shape[-2] % (32 * block.split * p.vector * loads) == 0),
    }  # fmt: skip
    return PLAIN, "few_rows", more, groups * block.columns


def _turned(p: Problem, block: Block) -> _Source:
    deep = 16 // p.a.dtype.itemsize
    more: dict[str, str | int] = {
        "THREADS": block.threads, "LANES": block.split, "DEEP": deep, "X_VECTOR": p.x_vector(deep),
    }  # fmt: skip
    return TURNED, "few_rows_turned", more, block.split * p.vector
