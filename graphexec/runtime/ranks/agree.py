"""Before they run, ranks compare what they run. What differs is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import InputError
from graphexec.runtime.ranks.group import Group


def agree(group: Group, facts: Mapping[str, str]) -> None:
    """Raise InputError on all ranks unless `facts`, texts by what people call them, are the same on
    all of them. All ranks call this."""
    mistakes = differences(group.gather(dict(facts)))
    if mistakes:
        help = "every rank needs the same file, options, and versions"
        raise InputError([Diagnostic(message, help=help) for message in mistakes])


def differences(facts: Sequence[Mapping[str, str]]) -> list[str]:
    """What ranks have other than rank 0, in words, by their facts in the order of ranks."""
    found = []
    for name in dict.fromkeys(name for each in facts for name in each):
        usual = facts[0].get(name)
        others = [rank for rank, each in enumerate(facts) if each.get(name) != usual]
        if others:
            rank = others[0]
            more = f", and so have {len(others) - 1} more" if len(others) > 1 else ""
            found.append(
                f"rank {rank} has another {name} than rank 0: {_text(facts[rank].get(name))}, "
                f"not {_text(usual)}{more}"
            )
    return found


def _text(value: str | None) -> str:
    return "none" if value is None else value
