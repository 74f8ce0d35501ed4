"""few-rows: a product of few rows becomes one kernel, which reads the other matrix once.

Ops lower such a product to commands of the BLAS, and say which one command does `instead` what all
of them do: the product, beta · c, the bias and the cast. Libraries are made for many rows. With few
of them a product takes as long as reading the matrix, for which the kernel is made.

A product whose matrix is small stays with the library: it takes a launch either way. So does one of
halves with more than four rows on a GPU, whose units for matrices the library uses (on an H200 it
took 0.5 to 0.75 of the kernel's time for 8 rows, and as long for 4). Where both were measured, the
faster one is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from math import prod

from graphexec.graph.rewriting import Note, ProgramRewrite, Target
from graphexec.ir.access import distinct_bytes
from graphexec.ir.program import Command, Gemm, Program
from graphexec.machine.costs import signature
from graphexec.planning.fuse_epilogue import replaced
from graphexec.planning.layout import Layout

LEAST_BYTES = 1 << 16
"""Of the matrix; reading fewer is not what takes the time."""

MOST_OF_HALVES = 4


def apply(program: Program, target: Target) -> tuple[Program, tuple[Note, ...]]:
    """`program` with kernels for products of few rows."""
    instead: dict[int, tuple[int, Command]] = {}
    notes: list[Note] = []
    for node, commands in groupby(enumerate(program.commands), lambda each: each[1].node):
        numbered = list(commands)
        parts = [command for _, command in numbered]
        found = next((command.instead for command in parts if command.instead), None)
        if found is None or not _is_large(parts):
            continue
        slower = _why_slower(found, parts, target)
        notes.append(_note(node, parts, slower))
        if not slower:
            first = parts[0]  # an `after` holds for every command of a node
            found = replace(found, after=first.after, after_nodes=first.after_nodes)
            instead[numbered[0][0]] = numbered[-1][0], found
    if instead:
        program = replaced(program, instead, Layout(program.storages, program.groups))
    return program, tuple(notes)


def _is_large(commands: Sequence[Command]) -> bool:
    products = [command.work for command in commands if isinstance(command.work, Gemm)]
    return any(distinct_bytes(product.b) >= LEAST_BYTES for product in products)


def _why_slower(kernel: Command, commands: Sequence[Command], target: Target) -> str:
    """Why the commands are known to be faster than the kernel; "" if they are not."""
    costs = target.costs
    if not all(signature(each) in costs.profile for each in (kernel, *commands)):
        rows = max(_rows(each.work) for each in commands if isinstance(each.work, Gemm))
        halves = any(view.dtype.itemsize == 2 for view in kernel.reads)
        are_many = target.device == "hip" and halves and rows > MOST_OF_HALVES
        return f"it has {rows} rows of halves" if are_many else ""
    one, several = costs.microseconds(kernel), sum(map(costs.microseconds, commands))
    return f"measured, its kernel takes {one:.1f} µs, the BLAS {several:.1f}" * (one > several)


def _rows(product: Gemm) -> int:
    """Rows of the result that share a matrix."""
    matrices = distinct_bytes(product.b) // (product.b.dtype.itemsize * prod(product.b.shape[-2:]))
    return prod(product.out.shape[:-1]) // matrices


def _note(node: str, commands: Sequence[Command], slower: str) -> Note:
    if slower:
        return Note((node,), f"'{node}' is computed by the BLAS: {slower}", applied=False)
    more = f" that does the work of {len(commands)} commands" if len(commands) > 1 else ""
    return Note((node,), f"'{node}' has few rows: a kernel{more} reads the matrix once")


REWRITE = ProgramRewrite(
    "few-rows", "products of few rows by kernels that read the other matrix once", apply
)
