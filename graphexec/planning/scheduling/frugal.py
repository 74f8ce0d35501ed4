"""One stream, in an order that keeps few bytes alive: for plans that must fit a memory limit.

Of the ready commands, the one after which the fewest bytes live comes first (list
scheduling by register pressure: Goodman and Hsu, "Code scheduling and register allocation in large
basic blocks", ICS 1988). O(V · ready commands).
"""

from __future__ import annotations

from collections.abc import Sequence

from graphexec.ir.program import Command, Program
from graphexec.machine.simulate import Tasks
from graphexec.planning.scheduling.assignment import Assignment

MOST = 20_000
"""Commands up to which this is affordable."""


def candidate(program: Program, tasks: Tasks) -> Assignment:
    """All commands on one stream."""
    left = _users(program)
    missing = [len(needs) for needs in tasks.predecessors]
    ready = {command for command, count in enumerate(missing) if not count}
    live: set[str] = set()
    order: list[int] = []
    while ready:
        command = min(ready, key=lambda c: (_growth(program, program.commands[c], left, live), c))
        ready.remove(command)
        order.append(command)
        for storage in _touched(program.commands[command]):
            live.add(storage)
            left[storage] -= 1
        for successor in tasks.successors[command]:
            missing[successor] -= 1
            if not missing[successor]:
                ready.add(successor)
    return Assignment(order, [0] * len(order))


def _touched(command: Command) -> Sequence[str]:
    return tuple(dict.fromkeys(v.storage for v in (*command.reads, *command.writes)))


def _users(program: Program) -> dict[str, int]:
    """How many commands touch each storage."""
    users = dict.fromkeys(program.storages, 0)
    for command in program.commands:
        for storage in _touched(command):
            users[storage] += 1
    return users


def _growth(program: Program, command: Command, left: dict[str, int], live: set[str]) -> int:
    """By how many bytes this command increases the live bytes."""
    grown = 0
    for name in _touched(command):
        storage = program.storages[name]
        if storage.role == "arena":
            grown += storage.nbytes * ((name not in live) - (left[name] == 1))
    return grown
