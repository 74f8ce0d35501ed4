"""Cases that together use every variant of every kernel.

The tests run all of them on the emulator and compile all of them for AMD's GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from few_rows_bodies import few_rows_kernels
from generated_bodies import generated_kernels
from kernel_harness import Applied, tensor

from graphexec.base.tensor import DType, TensorType
from graphexec.ir.op import Op
from graphexec.ir.program import Kernel
from graphexec.ir.registry import load_ops
from graphexec.ops.append import OP as APPEND
from graphexec.ops.concat import OP as CONCAT
from graphexec.ops.copy import OP as COPY
from graphexec.ops.gather import OP as GATHER
from graphexec.ops.gemm import OP as GEMM
from graphexec.ops.norm import OP as NORM
from graphexec.ops.reduce import OP as REDUCE
from graphexec.ops.rope import OP as ROPE
from graphexec.ops.softmax import OP as SOFTMAX

DTYPES = ("f16", "bf16", "f32", "f64")


@dataclass(frozen=True)
class Case:
    """An op, the types of its operands, its attributes; perhaps the one command that does the work
    of all of its commands `instead`."""

    name: str
    op: Op
    types: dict[str, TensorType]
    attrs: dict[str, Any] = field(default_factory=dict)
    instead: bool = False

    def apply(self) -> Applied:
        return Applied(self.op, self.types, self.instead, **self.attrs)


def cases() -> list[Case]:
    return [
        *_softmax_cases(),
        *_copy_cases(),
        *_concat_cases(),
        *_gather_cases(),
        *_append_cases(),
        *_body_cases(),
        *_affine_cases(),
        *_few_rows_cases(),
        *_example_cases(),
    ]


def kernels() -> dict[str, Kernel]:
    """Every kernel of the cases that differs from the others in source or definitions, and
    generated ones."""
    distinct = {}
    for case in cases():
        for kernel in case.apply().kernels:
            distinct.setdefault((kernel.source, kernel.defines, kernel.text), (case.name, kernel))
    found = {f"{name}-{k.entry}": k for name, k in distinct.values()}
    return found | generated_kernels() | few_rows_kernels()


def _softmax(
    name: str, dtype: str, shape: tuple[int, ...], mask: TensorType | None = None, **attrs: Any
) -> Case:
    types = {"x": tensor(dtype, *shape)} | ({"mask": mask} if mask else {})
    return Case(f"softmax {name} {dtype}", SOFTMAX, types, attrs)


def _softmax_cases() -> Iterator[Case]:
    for dtype in DTYPES:
        yield _softmax("short rows", dtype, (37, 64))
        yield _softmax("odd rows", dtype, (5, 33), scale=0.125)
        yield _softmax("block rows", dtype, (2, 2056))
        yield _softmax("long rows", dtype, (2, 33003 if dtype != "f64" else 17003))
        yield _softmax("columns", dtype, (2, 50, 40), axis=1)
        yield _softmax("odd columns", dtype, (3, 7, 5), axis=0, scale=-2.0)
        yield _softmax("long columns", dtype, (4100, 24), axis=0)
    yield _softmax("full block rows", "f16", (2, 20000))
    yield _softmax("long even rows", "f16", (3, 33024))
    yield _softmax("causal", "f16", (2, 20, 24), causal=True)
    yield _softmax("causal without keys", "f32", (3, 30, 17), causal=True)
    yield _softmax("causal block rows", "bf16", (3, 2048), causal=True)
    yield _softmax("causal long rows", "f16", (3, 33024), causal=True)
    yield _softmax("one element", "f64", (1,))
    for dtype, mask in product(("f16", "f64"), DTYPES):
        yield _softmax(f"mask {mask}", dtype, (2, 3, 16), tensor(mask, 2, 1, 16))
    yield _softmax("mask per row", "f16", (2, 3, 40), tensor("f32", 3, 1))
    yield _softmax("mask and causal", "bf16", (2, 3, 12), tensor("f32", 1, 12), causal=True)
    yield _softmax("mask of block rows", "f16", (2, 3, 2056), tensor("bf16", 3, 2056))
    yield _softmax("mask of long rows", "f16", (2, 33003), tensor("f16", 33003))
    yield _softmax("mask across columns", "f16", (2, 6, 8, 16), tensor("f32", 6, 1, 16), axis=1)
    yield _softmax("mask along columns", "f32", (2, 6, 20), tensor("f64", 6, 1), axis=1)
    yield _softmax("mask of long columns", "bf16", (1100, 16), tensor("bf16", 1100, 16), axis=0)


def _copy(
    name: str, dtype: str, shape: tuple[int, ...], to: str | None = None, **attrs: Any
) -> Case:
    attrs["dtype"] = DType(to) if to else None
    return Case(f"copy {name} {dtype}", COPY, {"x": tensor(dtype, *shape)}, attrs)


def _copy_cases() -> Iterator[Case]:
    for dtype, to in product(DTYPES, DTYPES):
        if dtype != to:
            yield _copy(f"cast to {to}", dtype, (1003,), to)
        else:
            yield _copy("transpose", dtype, (3, 40, 70), permute=(0, 2, 1))
            yield _copy("rows", dtype, (3, 5, 4, 16), permute=(2, 1, 0, 3))
    for dtype, to in (("f16", "f32"), ("f32", "bf16"), ("f64", "f16"), ("bf16", "f64")):
        yield _copy(f"transpose to {to}", dtype, (40, 72), to, permute=(1, 0))
    for dtype, to in (
        ("i8", "f16"), ("f32", "i8"), ("f64", "i64"), ("bf16", "bool"), ("bool", "f32"),
        ("i64", "bf16"), ("i32", "u8"), ("u8", "i32"), ("f16", "i64"),
    ):  # fmt: skip
        yield _copy(f"cast to {to}", dtype, (1003,), to)
    yield _copy("transpose to i8", "f32", (140, 72), "i8", permute=(1, 0))
    yield _copy("transpose", "u8", (3, 40, 136), permute=(0, 2, 1))
    yield _copy("back", "f16", (9, 40), slice={0: (None, None, -1), 1: (None, None, -1)})
    yield _copy("rows back", "i64", (9, 40), slice={0: (None, None, -2)})
    yield _copy("transpose back", "i32", (60, 128), slice={1: (None, None, -1)}, permute=(1, 0))
    yield _copy("reversed axes", "f16", (20, 3, 5, 33), permute=(3, 2, 1, 0))
    yield _copy("channels last", "f16", (2, 3, 40, 30), permute=(0, 2, 3, 1))
    yield _copy("channels first", "f32", (2, 40, 30, 3), permute=(0, 3, 1, 2))
    yield _copy("small transpose", "f64", (50, 3, 5), permute=(0, 2, 1))
    yield _copy("window", "f16", (9, 40), slice={1: (8, 24, None)})
    yield _copy("misaligned window", "f16", (9, 40), slice={0: (1, None, None), 1: (1, 33, None)})
    yield _copy("steps", "bf16", (9, 64), slice={0: (0, None, 2), 1: (1, None, 3)})
    yield _copy("transposed steps", "f32", (60, 128), slice={1: (1, None, 2)}, permute=(1, 0))
    yield _copy("misaligned cast", "f16", (1000,), "f32", slice={0: (3, None, None)})
    yield _copy("many", "f32", (1 << 21,), "f16", slice={0: (1, None, None)})


def _concat_cases() -> Iterator[Case]:
    for dtype, extents in (
        ("f32", (4, 8)), ("f16", (4, 12, 8)), ("f32", (3, 2)), ("bf16", (3, 2)), ("i8", (5, 2)),
    ):  # fmt: skip
        types = {f"x[{n}]": tensor(dtype, 6, extent) for n, extent in enumerate(extents)}
        yield Case(f"concat of {extents} {dtype}", CONCAT, types, {"axis": 1})


def _gather_cases() -> Iterator[Case]:
    for dtype, row, integer in (
        ("f32", 8, "i32"), ("f16", 4, "i64"), ("f32", 1, "i32"), ("bf16", 3, "i32"),
        ("i8", 5, "i64"), ("f64", 2, "i32"),
    ):  # fmt: skip
        types = {"x": tensor(dtype, 6, row), "index": tensor(integer, 5)}
        yield Case(f"gather rows of {row} {dtype} by {integer}", GATHER, types)


def _append_cases() -> Iterator[Case]:
    for dtype, row, integer in (("f16", 8, "i32"), ("i8", 5, "i64"), ("f32", 3, "i32")):
        types = {"into": tensor(dtype, 2, 6, row), "x": tensor(dtype, 2, 2, row),
                 "at": tensor(integer, 2), "count": tensor("i64")}  # fmt: skip
        yield Case(f"append rows of {row} {dtype} at {integer}", APPEND, types, {"axis": 1})


def _body_cases() -> Iterator[Case]:
    """Ops that are bodies, beside those of generated_bodies."""
    for dtype in DTYPES:
        x, at = tensor(dtype, 2, 3, 4, 16), tensor("i64", 2)
        yield Case(f"rope {dtype}", ROPE, {"x": x, "at": at})
        weight = {"x": tensor(dtype, 5, 40), "weight": tensor(dtype, 40)}
        yield Case(f"norm {dtype}", NORM, weight)
        yield Case(f"norm of columns {dtype}", NORM, {"x": tensor(dtype, 40, 5)}, {"axis": 0})
    pairs = {"x": tensor("f16", 4, 16), "position": tensor("i32", 4)}
    yield Case("rope of neighbours", ROPE, pairs, {"pairs": "interleaved", "rotate": 8})
    yield Case("argmax", REDUCE, {"x": tensor("u8", 5, 40)}, {"kind": "argmax", "axis": (-1,)})


def _affine_cases() -> Iterator[Case]:
    def case(name: str, dtype: str, c: tuple[int, ...], n: int, **attrs: Any) -> Case:
        types = {
            "a": tensor(dtype, 2, 6, 4), "b": tensor(dtype, 4, n), "c": tensor(dtype, *c),
            "bias": tensor(dtype, n),
        }  # fmt: skip
        return Case(f"affine {name} {dtype}", GEMM, types, {"beta": -0.5} | attrs)

    for dtype in DTYPES:
        yield case("matrix", dtype, (2, 6, 16), 16)
    yield case("column", "f16", (6, 1), 5)
    yield case("row", "f32", (2, 1, 8), 8)
    yield case("to f32", "bf16", (6, 8), 8, out_dtype=DType.F32)


def _few_rows_cases() -> Iterator[Case]:
    def case(
        dtype: str, m: int, n: int, k: int, add: str = "", batch: tuple[int, ...] = (),
        shared: bool = True, **attrs: Any,
    ) -> Case:  # fmt: skip
        b = (k, n) if attrs.get("trans_b") is False else (n, k)
        types = {"a": tensor(dtype, *batch, m, k),
                 "b": tensor(dtype, *(() if shared else batch), *b)}  # fmt: skip
        out = attrs.get("out_dtype") or DType(dtype)
        shapes = {"c": (*batch, m, n), "bias": (n,)}
        types |= {name: TensorType(shapes[name], out) for name in add.split()}
        name = f"few rows {dtype} {batch} {m} {n} {k} {add} {' '.join(map(str, attrs.values()))}"
        given = {"alpha": 0.25, "trans_b": True} | ({"beta": -0.5} if "c" in add else {}) | attrs
        return Case(name.strip(), GEMM, types, given, instead=True)

    for dtype in ("f16", "bf16", "f32"):
        yield case(dtype, 1, 37, 512)
        yield case(dtype, 3, 21, 200, "c bias")
        yield case(dtype, 2, 100, 60, "bias", trans_b=False)
    yield case("f16", 8, 11, 513, "bias")
    yield case("f16", 8, 1200, 64)
    yield case("f16", 1, 1030, 200, "c", out_dtype=DType.F32)
    yield case("f16", 1, 300, 1030)
    yield case("f16", 1, 20, 1600, "bias")
    yield case("f16", 1, 8200, 24, "c")
    yield case("bf16", 1, 5, 4100, "c bias", out_dtype=DType.F32)
    yield case("f32", 5, 600, 250, "c")
    yield case("f16", 1, 12, 96, "bias", batch=(2, 3))
    yield case("f16", 2, 12, 96, batch=(2, 3), shared=False)
    yield case("f16", 1, 1096, 70, "c bias", trans_b=False)
    yield case("f32", 8, 1030, 33, trans_b=False, out_dtype=DType.F32)
    yield case("f16", 4, 33, 4200, "c", trans_b=False)
    yield case("bf16", 3, 4100, 24, batch=(2,), shared=False, trans_b=False)


def _example_cases() -> Iterator[Case]:
    """The ops of docs/adding-an-op.md."""
    ops = load_ops([Path(__file__).parents[2] / "docs" / "examples"])
    for dtype in DTYPES:
        yield Case(f"example relu {dtype}", ops["relu"], {"x": tensor(dtype, 3, 40)})
        rows = {"x": tensor(dtype, 5, 33), "weight": tensor(dtype, 33)}
        yield Case(f"example rms {dtype}", ops["rms"], rows, {"eps": 1e-6})
