"""The ops by which ranks meet. Users cannot write them: `partition` puts them into graphs."""

from __future__ import annotations

from math import prod

from graphexec.base.tensor import TensorType, View
from graphexec.ir.operand import ANY
from graphexec.ir.program import Collective, Command, Cost, Reduction
from graphexec.ir.ranks import Communicator
from graphexec.ops.copy import strided_copy
from graphexec.ops.kit import Attrs, Call, Op, Operand, Types


class AllReduce(Op):
    """The elements of all ranks of a communicator reduced, on each of them."""

    name = "all_reduce"
    doc = "The elements of all ranks reduced."
    operands = (Operand("x", "this rank's", dtype=ANY),)
    attributes = ()

    def __init__(self, communicator: Communicator, reduction: Reduction) -> None:
        self.communicator, self.reduction = communicator, reduction

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        """That of x."""
        return types["x"]

    def overwrites(self, types: Types, attrs: Attrs, type: TensorType) -> str | None:
        """x."""
        return "x"

    def lower(self, call: Call) -> list[Command]:
        """One collective."""
        x = call.operands["x"]
        meeting = Collective(
            "all_reduce", self.communicator.id, x, call.out, reduction=self.reduction
        )
        return [_command(call, meeting, x, call.out)]


class AllGather(Op):
    """The parts of all ranks of a communicator side by side along an axis, on each of them."""

    name = "all_gather"
    doc = "The parts of all ranks side by side along an axis."
    operands = (Operand("x", "this rank's part", dtype=ANY),)
    attributes = ()

    def __init__(self, communicator: Communicator, parts: int, axis: int) -> None:
        self.communicator, self.count, self.axis = communicator, parts, axis

    def infer(self, types: Types, attrs: Attrs) -> TensorType:
        """That of x with all parts along the axis."""
        x = types["x"]
        low, high = x.shape[: self.axis], x.shape[self.axis + 1 :]
        return TensorType((*low, self.count * x.shape[self.axis], *high), x.dtype)

    def lower(self, call: Call) -> list[Command]:
        """One collective, which puts the parts one behind the other, and a copy that puts them side
        by side where they do not lie so."""
        x = call.operands["x"]
        parts = (self.count, *x.shape)
        if prod(x.shape[: self.axis]) == 1:
            meeting = self._meeting(x, call.out.reshape(parts))
            return [_command(call, meeting, x, call.out)]
        scratch = call.scratch("parts", TensorType(parts, x.dtype))
        order = (*range(1, self.axis + 1), 0, *range(self.axis + 1, len(parts)))
        split = call.out.reshape(tuple(parts[n] for n in order))
        meeting = self._meeting(x, scratch)
        return [_command(call, meeting, x, scratch),
                strided_copy(call, scratch.transpose(order), split)]  # fmt: skip

    def _meeting(self, x: View, out: View) -> Collective:
        return Collective("all_gather", self.communicator.id, x, out)


def _command(call: Call, meeting: Collective, x: View, out: View) -> Command:
    moved = Cost(0, (x.elements + out.elements) * x.dtype.itemsize)
    return Command(call.node, meeting.kind, meeting, (x,), (out,), moved, call.after)
