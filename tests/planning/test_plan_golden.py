"""The plans of the example graphs, as text. Look at a difference before accepting it.

Those on several streams are made with the costs of a GPU: on the CPU, one stream is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from graph_files import FILES

import graphexec as gx
from graphexec.machine.costs import GPU


@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_plan(file: Path, streams: int, golden: Callable[[str, str], None]) -> None:
    plan = gx.make_plan(gx.load(file), streams=streams, costs=GPU if streams > 1 else None)
    golden(f"plans/{file.stem}.{streams}.txt", str(plan))
    assert gx.Plan.from_json(plan.to_json()) == plan
