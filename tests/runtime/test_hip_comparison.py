"""compare on the GPU, or the emulator: right results are not blamed, as a whole or by element."""

from __future__ import annotations

from functools import partial

import pytest
from hip_lab import GRAPHS, Lab, example, inputs_of

import graphexec as gx
from graphexec.tools import selftest_graphs
from graphexec.tools.compare import compare_executable

OPS = {
    f"{op} {dtype}": partial(build, dtype)
    for op, build in selftest_graphs.GRAPHS.items()
    for dtype in ("f16", "f32")
}


@pytest.mark.parametrize("no_rewrite", [(), ("all",)])
@pytest.mark.parametrize("name", [*GRAPHS, *OPS])
def test_right_results_are_not_blamed(lab: Lab, name: str, no_rewrite: tuple[str, ...]) -> None:
    graph: gx.Graph = OPS[name]() if name in OPS else example(name)
    with lab.compile(graph, no_rewrite=no_rewrite) as exe:
        for seed in range(2):
            found = compare_executable(exe, inputs_of(exe, seed))
            assert found.ok, [row for row in (*found.nodes, *found.outputs) if not row.ok]
