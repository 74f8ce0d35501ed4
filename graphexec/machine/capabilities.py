"""What a device is capable of, as a set of names, and what it turned out not to be.

Most names are listed (graphexec.graph.rewriting): a device is capable of those in its set. Of
others there is no end, one for every shape, such as "gemm-bias of f16[6,64] f16[64,64] f16[64] ->
f16[6,64]". A device is taken to be capable of these, unless the set says "no NAME".
"""

from __future__ import annotations

from collections.abc import Collection, Set

_SHOWN = 3  # names in a line


def reduced(capabilities: Collection[str], missing: Set[str]) -> frozenset[str]:
    """A device's capabilities when it turned out not to have those in `missing`."""
    named = frozenset(capabilities)
    return (named - missing) | {_no(name) for name in missing - named}


def lacks(capabilities: Collection[str], name: str) -> bool:
    """Whether a device turned out not to be capable of something that is not listed."""
    return _no(name) in capabilities


def listed(capabilities: Collection[str]) -> str:
    """Capabilities in a line for people, not too many."""
    names = sorted(capabilities)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _no(name: str) -> str:
    return f"no {name}"


__all__ = ["lacks", "listed", "reduced"]
