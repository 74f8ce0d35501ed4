"""Plans as JSON text: the documented format, docs/plan-format.md.

Guarantees: `loads(dumps(plan), path) == plan` for every plan whose names are printable; what only
a device needs to execute it (`Launch.work`) is not part of a plan file. `loads` returns a plan
or raises GraphError with up to 20 mistakes, each with its path in the document; it does not fail
otherwise, whatever the text.
Structure is checked here: types, ranges of numbers, names used twice. Whether the events,
buffers and streams referred to exist, and whether the plan is safe, is for `graphexec.proof`.
Keys that are not known are ignored, so that other programs can add their own.
"""

from __future__ import annotations

from graphexec.formats.plan_file.read import loads
from graphexec.formats.plan_file.write import dumps

__all__ = ["dumps", "loads"]
