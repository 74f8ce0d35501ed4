"""Profiles: measured times of a graph's commands on a device. docs/tuning.md has the file format.

    {"profile_version": 1,
     "device": "gfx942 AMD Instinct MI300X",
     "commands": {"gemm: f16[8,128,64] f16[8,64,128]/8192,1,64 -> f16[8,128,128]": 7.25}}

A key of `commands` is a command's signature (graphexec.machine.costs.signature). Its value is the
command's time alone, without its launch, in microseconds, or an object with more. Commands that
are not in the file are estimated by the model. Unknown keys are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from graphexec.base.diagnostics import Source
from graphexec.base.reading import read_text
from graphexec.formats.plan_file.json_text import parse, repeated_keys, show
from graphexec.formats.plan_file.values import (
    Mistakes,
    Optional,
    Place,
    Wrong,
    fields,
    integer,
    mapping_of,
    microseconds,
    refuse_other_kinds,
    text,
)
from graphexec.machine.costs import CONSTANTS, GEMM, CostModel, Measured
from graphexec.planning.scheduling import ONE_STREAM

VERSION = 1


@dataclass(frozen=True)
class MeasuredSchedule:
    """The name of the fastest schedule candidate, and the microseconds of all that were tried."""

    best: str
    tried: Mapping[str, float]


@dataclass(frozen=True)
class Profile:
    """Measurements on `device`: commands by signature, the constants of a cost model by name
    (graphexec.machine.costs.CONSTANTS), and schedules by their `schedule_key`.

    A profile made by `tune` is valid for the graph called `graph` with this `signature`, and for
    these versions; one written by hand may omit them.
    """

    device: str
    commands: Mapping[str, Measured]
    constants: Mapping[str, float] = field(default_factory=dict)
    schedules: Mapping[str, MeasuredSchedule] = field(default_factory=dict)
    graph: str = ""
    signature: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def applied_to(self, model: CostModel, name: str = "profile") -> CostModel:
        """The model with the profile's times and constants."""
        constants: dict[str, Any] = dict(self.constants)
        if constants:  # measured beside those, shares have what commands cost each other
            constants["beside"] = 0.0
        return replace(model, name=name, profile=dict(self.commands), **constants)

    def measured(
        self, streams: int | str, resident: bool, changed: str = ""
    ) -> MeasuredSchedule | None:
        """The schedules that were measured for so many streams; or for more, if one stream was the
        fastest there, because then it is the fastest here."""
        found = self.schedules.get(schedule_key(streams, resident, changed))
        if found is not None or streams == "auto":
            return found
        for key, wider in self.schedules.items():
            asked = key.split(" ", 1)[0]
            more = asked == "auto" or (asked.isdecimal() and int(asked) > int(streams))
            same = key == schedule_key(asked, resident, changed)
            if more and same and wider.best == ONE_STREAM:
                return wider
        return None

    @property
    def algorithms(self) -> dict[str, int]:
        """The algorithm of hipBLASLt's list that was chosen, for each GEMM that has one."""
        return {
            key: found.choice - 1
            for key, found in self.commands.items()
            if found.choice and key.startswith(GEMM)
        }

    def to_json(self) -> str:
        """The profile as JSON text."""
        document = {
            "profile_version": VERSION,
            "graph": self.graph,
            "signature": self.signature,
            "device": self.device,
            "versions": dict(sorted(self.versions.items())),
            "constants": dict(sorted(self.constants.items())),
            "commands": {key: _command(m) for key, m in sorted(self.commands.items())},
            "schedules": {key: asdict(s) for key, s in sorted(self.schedules.items())},
        }
        kept = {key: value for key, value in document.items() if value or key == "commands"}
        return json.dumps(kept, indent=1, ensure_ascii=False) + "\n"


def schedule_key(streams: object, resident: bool, changed: str = "") -> str:
    """The key of a schedule: the number of streams asked for, the memory of the inputs, and the
    rewrites that were not the default ones (graphexec.planning.rewrite.changed_rewrites)."""
    return ", ".join(filter(None, (f"{streams} streams", "resident" * resident, changed)))


def loads(content: str, path: str = "<profile>") -> Profile:
    """The profile in a JSON text; GraphError with the place of each mistake."""
    source = Source(path, content)
    document = parse(source)
    mistakes = Mistakes(source)
    found: dict[str, Any] = {}
    try:
        refuse_other_kinds(document, "profile_version", "a profile of measured times")
        if isinstance(document, dict):
            for where in repeated_keys(document):
                mistakes.add(where, Wrong("this key is written twice"))
        found = _PROFILE(document, Place(mistakes))
    except Wrong as wrong:
        mistakes.add((), wrong)
    mistakes.raise_if_any()
    found.pop("profile_version")
    return Profile(**found)


def load(path: str | Path) -> Profile:
    """The profile in a file; GraphError when it cannot be read or is none."""
    return loads(read_text(path, "the profile "), str(path))


def _command(measured: Measured) -> Any:
    """Only the time as a number if nothing else was measured."""
    more = {key: value for key, value in asdict(measured).items() if value and key != "us"}
    return {"us": measured.us, **more} if more else measured.us


# Reading --------------------------------------------------------------------------------------


def _share(value: Any, place: Place) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise Wrong(f"expected a share above 0 and up to 1, found {show(value)}")
    return float(value)


def _measured(value: Any, place: Place) -> Measured:
    if not isinstance(value, dict):
        return Measured(microseconds(value, place))
    return Measured(**_MEASURED(value, place))


def _schedule(value: Any, place: Place) -> MeasuredSchedule:
    return MeasuredSchedule(**_SCHEDULE(value, place))


def _constants(value: Any, place: Place) -> dict[str, float]:
    found = mapping_of(microseconds)(value, place)
    return {name: found[name] for name in CONSTANTS if name in found}


def _version(value: Any, place: Place) -> int:
    if type(value) is not int or value != VERSION:
        raise Wrong(f"this program reads version {VERSION} of the format, found {show(value)}")
    return VERSION


_MEASURED = fields(
    {
        "us": microseconds,
        "share": Optional(_share),
        "choice": Optional(integer, 0),
        "tried": Optional(mapping_of(microseconds), {}),
    }
)
_SCHEDULE = fields({"best": text, "tried": mapping_of(microseconds)})
_PROFILE = fields(
    {
        "profile_version": _version,
        "graph": Optional(text, ""),
        "signature": Optional(text, ""),
        "device": Optional(text, ""),
        "versions": Optional(mapping_of(text), {}),
        "constants": Optional(_constants, {}),
        "commands": mapping_of(_measured),
        "schedules": Optional(mapping_of(_schedule), {}),
    }
)
