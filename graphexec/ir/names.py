"""Names: their syntax, the reserved ones, and those of the transfers that the compiler adds."""

from __future__ import annotations

import re

from graphexec.ir.program import Direction, Role

SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
"""The syntax of names of dims and consts. Python's keywords are not allowed either."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*\Z")
"""The syntax of names of graphs, tensors, ops and outputs."""

RESERVED = frozenset({"add", "block", "error", "input", "node", "output", "set_next", "state",
                      "to_yaml", "use", "weight", "with_dims"})  # fmt: skip
"""Names no op may have: graphs have methods of these names."""

NODE_KEYS = ("op", "block", "repeat", "after", "shape", "with")
"""Keys of a node that are no operands: no input of a block has such a name."""


def transfer_name(tensor: str, direction: Direction) -> str:
    """The node of the copy that brings `tensor` from or to the host: "x.h2d", "y.d2h"."""
    return f"{tensor}.{direction}"


def transferred(node: str) -> str:
    """The tensor that a transfer of the compiler moves. Only for launches that are such transfers:
    a user's node may have such a name too (graphexec.views.transfers)."""
    return node.rpartition(".")[0]


def port_buffer(name: str, role: Role) -> str:
    """The buffer of an input, output or state: "in.x", "out.y", "state.k"."""
    return _PREFIX[role] + name


def port_name(buffer: str, role: Role) -> str:
    """The input or output in a buffer of this role. In plans of other programs the buffer may have
    the name of the input itself."""
    return buffer.removeprefix(_PREFIX.get(role, ""))


_PREFIX: dict[Role, str] = {"input": "in.", "output": "out.", "state": "state."}
