"""fuse-activations: a product adds its bias and applies relu or gelu_tanh as it writes the result.

    u: relu(x @ w + b)          a gemm, and a map of it      becomes      one product

The map is found by its body, so by what is left after maps have become one. It is nothing but the
activation of the sum of the product, which it alone reads, and a row. The device is asked about the
product itself. The erf form of gelu is not what libraries compute.

It is off unless asked for: how exact a library's gelu is, and what its relu makes of NaN, is not
stated, and a kernel of its own keeps both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from graphexec.base.tensor import DType, View
from graphexec.graph.rewriting import Note, ProgramRewrite, Target
from graphexec.ir.access import distinct_bytes
from graphexec.ir.body import Body, Writer
from graphexec.ir.program import Command, Cost, Gemm, Program
from graphexec.planning.fuse_maps import Fusing
from graphexec.planning.loops import Loop, loop_of

Activation = Literal["", "relu", "gelu_tanh"]
_ACTIVATIONS: tuple[Activation, ...] = ("relu", "gelu_tanh")


@dataclass(frozen=True)
class Site:
    """A product and, `second`, the map that applies an activation to its sum with a bias."""

    first: int
    second: int
    maker: Command
    map: Command
    loop: Loop
    product: View  # as the map reads it
    work: Gemm


def apply(program: Program, target: Target) -> tuple[Program, tuple[Note, ...]]:
    """`program` with the activations that its products apply."""
    fusing, notes = Fusing(program), list[Note]()
    for index in range(len(program.commands)):
        site = _site(fusing, index)
        if site is None:
            continue
        product, map, activation = site.maker.node, site.map.node, site.work.activation
        place = fusing.place(site.first, index, kept=False)
        why = _why_not(site) or target.support(site.work).why
        if place is None or not fusing.droppable(site.product, index):
            why = why or f"'{product}' is needed elsewhere"
        if why or place is None:
            text = f"'{map}' applies {activation} by a command of its own: {why}"
            notes.append(Note((map, product), text, applied=False))
        else:
            text = f"product '{product}' adds its bias and applies {activation} of '{map}'"
            notes.append(Note((map, product), text))
            fusing.put(place, site.first + index - place, _command(site))
    return fusing.result(), tuple(notes)


def _site(fusing: Fusing, index: int) -> Site | None:
    """The site of a map that is nothing but an activation of a product's sum with another."""
    map = fusing.commands[index]
    loop = None if map is None else loop_of(map)
    found = None if loop is None else _found(loop)
    if map is None or loop is None or found is None:
        return None
    activation, number = found
    product, bias = loop.reads[number], loop.reads[1 - number]
    makers = fusing.writers.get(product.storage, set())
    maker = fusing.commands[min(makers)] if len(makers) == 1 else None
    if maker is None or not isinstance(maker.work, Gemm):
        return None
    shape, strides = bias.shape, bias.strides
    row = replace(bias, shape=(*shape[:-2], shape[-1]), strides=(*strides[:-2], strides[-1]))
    work = replace(maker.work, out=loop.writes[0], bias=row, activation=activation)
    return Site(min(makers), index, maker, map, loop, product, work)


def _why_not(site: Site) -> str:
    """Why a product and the map of it cannot be one; "" if a device may do it."""
    old, out = site.maker.work, site.loop.writes[0]
    assert isinstance(old, Gemm)
    bias = site.loop.reads[1 - site.loop.reads.index(site.product)]
    if site.maker.nodes or old.beta or old.bias is not None or old.out != site.product:
        return f"'{site.maker.node}' is no plain product"
    if bias.strides[-2] and bias.shape[-2] > 1:
        return "what is added is no row"
    if len({out.dtype, bias.dtype, old.out.dtype}) > 1:
        return "they have several types"
    return "" if out.is_dense else "the result is not dense"


def _command(site: Site) -> Command:
    """The one command."""
    maker, map, work = site.maker, site.map, site.work
    reads, writes = work.reads, (work.out,)
    moved = sum(distinct_bytes(view) for view in {*reads, *writes})
    return replace(
        maker,
        node=map.node,
        work=work,
        reads=reads,
        writes=writes,
        cost=Cost(maker.cost.flops + map.cost.flops, moved),
        after=tuple(sorted({*maker.after, *map.after})),
        after_nodes=tuple(dict.fromkeys((*maker.after_nodes, *map.after_nodes))),
    )


def _found(loop: Loop) -> tuple[Activation, int] | None:
    """The activation of a sum of two operands, and which of them may be the product."""
    dtypes = set(loop.body.operands)
    if len(loop.reads) != 2 or len(loop.writes) != 1 or len(dtypes) > 1 or len(loop.shape) < 2:
        return None
    activation = _bodies(dtypes.pop()).get(loop.body)
    if activation is None:
        return None
    dense = [number for number, view in enumerate(loop.reads) if 0 not in view.strides]
    return activation, dense[0] if dense else 0


@cache
def _bodies(dtype: DType) -> dict[Body, Activation]:
    return dict(_each_body(dtype)) if dtype.is_float else {}


def _each_body(dtype: DType) -> Iterator[tuple[Body, Activation]]:
    for activation in _ACTIVATIONS:
        for turned in (False, True):
            writer = Writer()
            one, other = writer.load(0, dtype), writer.load(1, dtype)
            total = other + one if turned else one + other
            relu = activation == "relu"
            value = writer.maximum(total, 0) if relu else writer.gelu_tanh(total)
            yield writer.body(value), activation


REWRITE = ProgramRewrite(
    "fuse-activations",
    "products apply relu or gelu_tanh to their sum with a bias, as they write the result",
    apply,
    default=False,
)
