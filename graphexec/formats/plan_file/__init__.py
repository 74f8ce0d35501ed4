"""Plans as JSON text: the documented format, docs/plan-format.md.

Guarantees: `loads(dumps(plan), path) == plan` for every plan whose names are printable and whose
launches have a kind, or a command that is not called like one. For any text, `loads` returns a
plan or raises GraphError with up to 20 mistakes, each with its path in the document.
Structure is checked here: types, ranges of numbers, names used twice. `graphexec.proof` checks
that events, buffers and streams exist, and that the plan is safe. Unknown keys are ignored, so
that other programs can add their own.
"""

from __future__ import annotations

from graphexec.formats.plan_file.read import loads
from graphexec.formats.plan_file.write import dumps

__all__ = ["dumps", "loads"]
