"""What names may look like, which are taken, and what the compiler calls the transfers it adds."""

from __future__ import annotations

import re

from graphexec.ir.program import Direction, Role

SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
"""What a name of a dim or const may look like, but for Python's keywords."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*\Z")
"""What a name of a graph, tensor, op or output may look like."""

RESERVED = frozenset({"add", "error", "input", "node", "output", "to_yaml", "weight", "with_dims"})
"""Names no op may have: graphs have methods of these names."""


def transfer_name(tensor: str, direction: Direction) -> str:
    """The node of the copy that brings `tensor` from or to the host: "x.h2d", "y.d2h"."""
    return f"{tensor}.{direction}"


def transferred(node: str) -> str:
    """The tensor that a transfer of the compiler moves. Ask only of a launch that is one: a node
    of the user may be called like this, too (graphexec.views.transfers)."""
    return node.rpartition(".")[0]


def port_buffer(name: str, role: Role) -> str:
    """The buffer of an input or output: "in.x", "out.y"."""
    return _PREFIX[role] + name


def port_name(buffer: str, role: Role) -> str:
    """The input or output that a buffer of this role is of; other programs' buffers may be called
    like the input itself."""
    return buffer.removeprefix(_PREFIX.get(role, ""))


_PREFIX: dict[Role, str] = {"input": "in.", "output": "out."}
