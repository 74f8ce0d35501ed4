"""Options: how a graph is planned and run. They are checked here and nowhere else.

Functions that plan take an `Options`, or its fields as keywords, or both; `options_of` combines
them. The options of the command line have the names of these fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, Literal, TypedDict

from graphexec.base.diagnostics import Diagnostic, unknown
from graphexec.base.errors import InputError
from graphexec.ir.names import SYMBOL
from graphexec.machine.costs import CostModel
from graphexec.planning.profile import Profile

MAX_STREAMS = 256
Streams = int | Literal["auto"]
Costs = CostModel | Profile | str | Path | None


@dataclass(frozen=True)
class Options:
    """How a graph is planned and run.

    * `streams` (4): at most so many streams are used, at most 256; "auto": as many as pay.
    * `rewrite` (none): names of rewrites to switch on that are off by default; "all": every one.
    * `no_rewrite` (none): names of rewrites to switch off; "all": every one.
    * `resident` (False): inputs and outputs stay in device memory (Executable.device_array), and
      the plan has no transfers.
    * `costs` (None): what commands cost, as a CostModel, a Profile, or the path of a profile. None:
      by the profile that `graphexec tune` kept, or else by the model of the device.
    * `use_profile` (True): whether a kept profile may be used.
    * `memory_limit` (None): the most that arena and weights together may take of device memory, in
      bytes or as text such as "512MiB". A limit costs concurrency. None: no limit.
    * `reproducible` (False): the same bits for every number of streams and every mode, load and
      profile of a machine, and for every number of cores of the CPU. It costs time.
    * `verify` (True): whether the plan is proved free of races.
    * `timeout` (None): seconds after which a run is given up with TimedOut. None: never.
    * `mesh` (None): how ranks are laid out, the extent of each axis by its name: {"tp": 2}, or as
      text "tp=2,dp=4". The last axis is the fastest. None: the mesh of the graph, if it has one.

    Numbers may be given as text, as on the command line. A string in place of several names is
    one name. Raises InputError with every value that is wrong.
    """

    streams: Streams = 4
    rewrite: tuple[str, ...] = ()
    no_rewrite: tuple[str, ...] = ()
    resident: bool = False
    costs: Costs = None
    use_profile: bool = True
    memory_limit: int | None = None
    reproducible: bool = False
    verify: bool = True
    timeout: float | None = None
    mesh: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        mistakes = []
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, check(value))
            except ValueError as exc:
                message = f"{name} must be {exc}, not {shortened(value)}"
                mistakes.append(Diagnostic(message))
        if mistakes:
            raise InputError(mistakes)


class OptionKeywords(TypedDict, total=False):
    """The fields of Options as keywords, with all types that are accepted."""

    streams: int | str
    rewrite: str | Collection[str]
    no_rewrite: str | Collection[str]
    resident: bool
    costs: Costs
    use_profile: bool
    memory_limit: int | str | None
    reproducible: bool
    verify: bool
    timeout: float | None
    mesh: Mapping[str, int] | str | None


def options_of(options: Options | None, keywords: OptionKeywords) -> Options:
    """`options`, or the defaults, with the fields in `keywords` replaced. Raises InputError."""
    if options is not None and not isinstance(options, Options):
        raise InputError([Diagnostic(f"options must be Options, not {shortened(options)}")])
    known = [field.name for field in fields(Options)]
    mistakes = [unknown("option", name, known) for name in keywords if name not in known]
    if mistakes:
        raise InputError(mistakes)
    changes: dict[str, Any] = {**keywords}
    return replace(options or Options(), **changes)


def parse_bytes(text: str) -> int:
    """A number of bytes, with a unit or without: "1048576", "512MiB", "1.5GB". Raises ValueError
    with what was expected."""
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*([A-Za-z]*)", text.strip())
    unit = _UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise ValueError("bytes such as 1048576, 512MiB or 1.5GB")
    return int(Fraction(found[1]) * unit)


_UNITS = {"": 1, "b": 1} | {
    prefix + ending: base**power
    for power, prefix in enumerate("kmgt", 1)
    for ending, base in (("", 1024), ("ib", 1024), ("b", 1000))
}


# Each check returns the value as Options keeps it, or raises ValueError with what was expected.


def _streams(value: object) -> Streams:
    if value == "auto":
        return "auto"
    number = _number(value)
    if number is None or number < 1:
        raise ValueError("an integer of at least 1, or 'auto'")
    return min(number, MAX_STREAMS)


def _number(value: object) -> int | None:
    """An integer, also as text; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        return int(value)
    integral = isinstance(value, Integral) and not isinstance(value, bool)
    return int(value) if integral else None  # type: ignore[call-overload]


def _memory_limit(value: object) -> int | None:
    if value is None:
        return None
    number = parse_bytes(value) if isinstance(value, str) else _number(value)
    if number is None or number < 0:
        raise ValueError("bytes such as 1048576, '512MiB' or '1.5GB'")
    return number


def _names(value: object) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise ValueError("the name of a rewrite, or several")
    return tuple(dict.fromkeys(names))


def _costs(value: object) -> Costs:
    if value is not None and not isinstance(value, CostModel | Profile | str | Path):
        raise ValueError("a CostModel, a Profile, or the path of a profile")
    return value


def _timeout(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError("a number of seconds")
    seconds = float(value)
    if not (isfinite(seconds) and seconds > 0):
        raise ValueError("a number of seconds above 0")
    return seconds


def _mesh(value: object) -> Mapping[str, int] | None:
    if value is None:
        return None
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",")]
        found: Mapping[object, object] = {name.strip(): extent.strip() for name, _, extent in pairs}
        if len(found) < len(pairs):
            raise ValueError("axes with different names")
    elif isinstance(value, Mapping):
        found = value
    else:
        raise ValueError(_MESH)
    mesh = {str(name): _number(extent) or 0 for name, extent in found.items()}
    if not mesh or not all(SYMBOL.match(n) and extent > 0 for n, extent in mesh.items()):
        raise ValueError(_MESH)
    return mesh


_MESH = "axes with their numbers of ranks, such as {'tp': 2} or 'tp=2'"


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


_CHECKS: dict[str, Callable[[object], object]] = {
    "streams": _streams, "rewrite": _names, "no_rewrite": _names, "resident": _flag,
    "costs": _costs, "use_profile": _flag, "memory_limit": _memory_limit,
    "reproducible": _flag, "verify": _flag, "timeout": _timeout, "mesh": _mesh,
}  # fmt: skip
