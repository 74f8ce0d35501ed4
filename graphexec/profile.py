"""Measured times of commands, in a file.

    {"profile_version": 1,
     "device": "gfx942",
     "commands": {"gemm: f16[8,128,64] f16[8,64,128]/8192,1,64 -> f16[8,128,128]": 7.25}}

A key is a command's signature (graphexec.costs.signature; `plan --costs` takes them, and the plan
of a graph shows them with `explain`), a value the microseconds it takes running alone, without what
launching it costs. Commands that are not in the file are estimated by the model. Other keys are
ignored. docs/planner.md describes the format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from graphexec.costs import CostModel
from graphexec.diagnostics import Diagnostic, Source
from graphexec.errors import GraphError
from graphexec.plan_file.json_text import parse, repeated_keys, show
from graphexec.plan_file.values import Mistakes, Optional, Place, Wrong, fields, mapping_of, text

VERSION = 1


@dataclass(frozen=True)
class Profile:
    """Microseconds by signature, measured on `device`."""

    device: str
    commands: Mapping[str, float]

    def applied_to(self, model: CostModel, name: str = "profile") -> CostModel:
        """The model with these times where it has them."""
        return replace(model, name=name, profile=dict(self.commands))

    def to_json(self) -> str:
        """The profile as a file holds it."""
        document = {"profile_version": VERSION, "device": self.device,
                    "commands": dict(sorted(self.commands.items()))}  # fmt: skip
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def loads(content: str, path: str = "<profile>") -> Profile:
    """The profile in a JSON text; GraphError with the place of each mistake when it is none."""
    source = Source(path, content)
    document = parse(source)
    mistakes = Mistakes(source)
    found: dict[str, Any] = {}
    if isinstance(document, dict):
        for where in repeated_keys(document):
            mistakes.add(where, Wrong("this key is written twice"))
    try:
        found = _PROFILE(document, Place(mistakes))
    except Wrong as wrong:
        mistakes.add((), wrong)
    mistakes.raise_if_any()
    return Profile(found["device"], found["commands"])


def load(path: str | Path) -> Profile:
    """The profile in a file; GraphError when it cannot be read or is none."""
    try:
        content = Path(path).read_text(encoding="utf-8-sig")
    except OSError as exc:
        message = f"cannot read the profile '{path}': {exc.strerror or exc}"
        raise GraphError([Diagnostic(message)]) from exc
    except ValueError as exc:
        raise GraphError([Diagnostic(f"'{path}' is not UTF-8 text: {exc}")]) from exc
    return loads(content, str(path))


def _microseconds(value: Any, place: Place) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise Wrong(f"expected a number of microseconds, found {show(value)}")
    if value < 0:
        raise Wrong(f"a time cannot be negative, found {show(value)}")
    return float(value)


def _version(value: Any, place: Place) -> int:
    if type(value) is not int or value != VERSION:
        raise Wrong(f"this program reads version {VERSION} of the format, found {show(value)}")
    return VERSION


_PROFILE = fields(
    {
        "profile_version": _version,
        "device": Optional(text, ""),
        "commands": mapping_of(_microseconds),
    }
)


__all__ = ["Profile", "load", "loads"]
