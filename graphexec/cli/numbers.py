"""Statistics of output arrays, and the search for the node that made the first NaN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from graphexec.base.tensor import Array
from graphexec.cli.report import failure, listed, note

if TYPE_CHECKING:
    from graphexec.runtime.executable import Executable


def statistics(array: Array) -> dict[str, float]:
    """min, max, mean and std in float64, and the number of `nonfinite` values."""
    import numpy as np

    wide = array.astype(np.float64)
    with np.errstate(all="ignore"):
        figures = {"min": wide.min(), "max": wide.max(), "mean": wide.mean(), "std": wide.std()}
    found = {name: float(value) for name, value in figures.items()}
    return found | {"nonfinite": int(wide.size - np.isfinite(wide).sum())}


def find_nonfinite(
    exe: Executable, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> int:
    """Report the outputs with NaN or infinities and the first such node; returns the exit code."""
    found = {name: text for name, array in outputs.items() if (text := _nonfinite(array))}
    for name, text in found.items():
        failure(f"output '{name}' has {text} among {outputs[name].size} values")
    if not found:
        return 0
    given = [f"input '{name}'" for name, array in inputs.items() if _nonfinite(array)]
    note(f"they are in {listed(given)} already" if given else _first_node(exe, inputs))
    return 1


def _nonfinite(array: Array) -> str:
    """The numbers of NaN and infinities in words; "" for none."""
    import numpy as np

    if array.dtype.kind in "biu":
        return ""
    wide = array.astype(np.float32) if array.dtype.itemsize < 4 else array
    nans, infinities = int(np.isnan(wide).sum()), int(np.isinf(wide).sum())
    parts = [f"{nans} NaN"] if nans else []
    parts += [f"{infinities} infinite"] if infinities else []
    return " and ".join(parts)


def _first_node(exe: Executable, inputs: Mapping[str, Array]) -> str:
    """Run once more and inspect the result of every node."""
    types = exe.graph.types()
    seen: dict[str, str] = {}

    def tap(node: str, written: Array) -> None:
        type = types.get(node)
        if type is not None and written.nbytes == type.nbytes:  # the last launch of a node counts
            seen[node] = _nonfinite(written.view(type.dtype.numpy()))

    with exe.state.unchanged():
        exe.run_tapped(inputs, tap)
    for node in exe.graph.nodes:
        if seen.get(node.name):
            what = f"{node.op.name}, line {node.line}" if node.line else node.op.name
            return f"the first node with any is '{node.name}' ({what}): {seen[node.name]}"
    return "in a second run no node has any: the result is not deterministic"
