"""RCCL: communicators, and collectives that are prepared once and run often, in graphs too.

NCCL exports the same names. Counts are elements, of any of the types that ranks exchange.
"""

from __future__ import annotations

import ctypes
from typing import Any

from graphexec.ir.program import Collective
from graphexec.runtime.hip.status import Checker, Step

ID_BYTES = 128

DATA_TYPES = {
    "i8": "ncclInt8", "u8": "ncclUint8", "bool": "ncclUint8", "i32": "ncclInt32",
    "i64": "ncclInt64", "f16": "ncclFloat16", "bf16": "ncclBfloat16", "f32": "ncclFloat32",
    "f64": "ncclFloat64",
}  # fmt: skip
REDUCTIONS = {"sum": "ncclSum", "prod": "ncclProd", "min": "ncclMin", "max": "ncclMax"}


class Rccl:
    """RCCL by hip-python: `rocm.bindings.rccl` of version 10, `hip.rccl` of 7.2."""

    def __init__(self, rccl: Any, checker: Checker) -> None:
        self._rccl, self._call, self._step = rccl, checker.call, checker.step
        self._types = {name: rccl.ncclDataType_t[member] for name, member in DATA_TYPES.items()}
        self._reductions = {name: rccl.ncclRedOp_t[member] for name, member in REDUCTIONS.items()}

    def unique_id(self) -> bytes:
        """What the ranks of a new communicator know it by; one of them asks."""
        try:
            found = self._call(self._rccl.ncclGetUniqueId)
        except TypeError:  # 7.2 takes the place for it
            found = self._rccl.ncclUniqueId()
            self._call(self._rccl.ncclGetUniqueId, found)
        return ctypes.string_at(int(found), ID_BYTES)

    def join(self, id: bytes, rank: int, ranks: int) -> Any:
        """This rank's handle of a communicator. Returns when all ranks have called it."""
        place = self._rccl.ncclUniqueId()
        ctypes.memmove(int(place), id, ID_BYTES)
        return self._call(self._rccl.ncclCommInitRank, ranks, place, rank)

    def destroy(self, communicator: Any) -> None:
        """Free a communicator that nothing uses any more."""
        self._call(self._rccl.ncclCommDestroy, communicator)

    def abort(self, communicator: Any) -> None:
        """Free a communicator, and end what waits for ranks that will not come."""
        self._call(self._rccl.ncclCommAbort, communicator)

    def prepare(
        self, work: Collective, src: Any, dst: Any, peer: int, communicator: Any, stream: Any,
        node: str,
    ) -> Step:  # fmt: skip
        """This rank's part in a collective, on a stream. `peer` is a place in the communicator."""
        count, dtype, rccl = work.count, self._types[work.dtype], self._rccl
        ending = (communicator, stream)
        match work.kind:
            case "all_reduce" | "reduce_scatter":
                name = "ncclAllReduce" if work.kind == "all_reduce" else "ncclReduceScatter"
                op = self._reductions[work.reduction]
                return self._step(getattr(rccl, name), src, dst, count, dtype, op, *ending,
                                  node=node)  # fmt: skip
            case "all_gather":
                return self._step(rccl.ncclAllGather, src, dst, count, dtype, *ending, node=node)
            case "send":
                return self._step(rccl.ncclSend, src, count, dtype, peer, *ending, node=node)
            case "recv":
                return self._step(rccl.ncclRecv, dst, count, dtype, peer, *ending, node=node)
            case "all_to_all":
                raise AssertionError("an all_to_all is sends and recvs")

    def begin_group(self) -> Step:
        """What begins sends and recvs that are one meeting."""
        return self._step(self._rccl.ncclGroupStart)

    def end_group(self, node: str) -> Step:
        """What ends them, and starts the meeting."""
        return self._step(self._rccl.ncclGroupEnd, node=node)
