"""What ranks decide together: whether they run the same, and whether all of them succeeded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import ExecutionError, GraphexecError, InputError
from graphexec.runtime.ranks.group import Group

Result = TypeVar("Result")


def agree(group: Group, facts: Mapping[str, str]) -> None:
    """Raise InputError on all ranks unless `facts`, texts by what people call them, are the same on
    all of them. All ranks call this."""
    mistakes = differences(group.gather(dict(facts)))
    if mistakes:
        help = "every rank needs the same file, options, and versions"
        raise InputError([Diagnostic(message, help=help) for message in mistakes])


def together(group: Group | None, work: Callable[[], Result]) -> Result:
    """What `work` returns, when it has succeeded on all ranks, which all call this. Else its own
    error, or one that names a rank on which it failed. The ranks can go on afterwards."""
    if group is None:
        return work()
    try:
        found = work()
    except GraphexecError as exc:
        group.gather(str(exc))
        raise
    failed = [(rank, text) for rank, text in enumerate(group.gather("")) if text]
    if failed:
        rank, text = failed[0]
        raise ExecutionError(f"rank {rank}: {text.removeprefix('error: ')}")
    return found


def differences(facts: Sequence[Mapping[str, str]]) -> list[str]:
    """What ranks have other than rank 0, in words, by their facts in the order of ranks."""
    found = []
    for name in dict.fromkeys(name for each in facts for name in each):
        usual = facts[0].get(name)
        others = [rank for rank, each in enumerate(facts) if each.get(name) != usual]
        if others:
            rank = others[0]
            more = f"; {len(others)} ranks differ from it" if len(others) > 1 else ""
            found.append(
                f"{name} is {facts[rank].get(name, 'missing')} on rank {rank} and "
                f"{usual or 'missing'} on rank 0{more}"
            )
    return found
