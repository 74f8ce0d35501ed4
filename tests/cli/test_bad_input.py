"""Mistakes in the ops of models, as a user makes them: by the program and from Python.

What each message says besides is tested with its op; here each is one error with a place in the
file, without a traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphexec as gx

MODEL = """\
version: 1
name: model
dims: {{M: 3, N: 4, taken: 5}}
inputs:
  x: {{shape: [M, N], dtype: f32}}
  half: {{shape: [M, N], dtype: f16}}
  i: {{shape: [M], dtype: i32}}
  column: {{shape: [M, 1], dtype: f32}}
  taken: {{shape: [M, N], dtype: f32}}
nodes:
  y: {node}
outputs: {{y: y}}
"""

MISTAKES = {  # a node: its error, and the text under which the place is marked
    "x + sigmod(x)": ("unknown function 'sigmod'", "sigmod"),
    "exp(x, x)": ("exp() takes 1 argument, found 2", "exp(x, x)"),
    "x * taken": ("'taken' is a tensor and a dim or const", "taken"),
    "x + nothing": ("'nothing' is no tensor, dim or const", "nothing"),
    "erf(i)": ("map 'y': erf() takes floats, found i32", "erf(i)"),
    "x + i": ("map 'y': 'x' of shape [3, 4] and 'i' of shape [3] do not broadcast", "x"),
    "x // (M - 3)": ("map 'y': division by zero", "x // (M - 3)"),
    "(" * 200 + "x" + ")" * 200: ("nested deeper than 100 levels", "("),
    "(" * 10_000 + "x" + ")" * 10_000: ("a text of 20,001 characters; at most 10,000", "("),
    "x" + " + x" * 262_144: ("a text of 1,048,577 characters; at most 10,000", "x"),
    "x + index(2)": ("map 'y': there is no axis 2: the result has 2", "index(2)"),
    "{op: concat, x: [x, half]}": ("concat 'y': the parts have one dtype, but", "half"),
    "{op: norm, kind: rms, x: column}": ("norm 'y': axis -1 of x has extent 1", "column"),
    "{op: copy, x: x, axes: N M -> M N}": (
        "copy 'y': axis 0 of [3, 4] has 3 elements",
        "N M -> M N",
    ),
    "{op: copy, x: x, axes: M N -> N}": ("'M' stands only on the left", "M"),
    "{op: map, expr: where(x > 0, x, 0)}": ("this '(' is not closed", "("),
    "- x": ("not valid YAML: block sequence entries are not allowed in this context", "- x"),
    "> 0": ("not valid YAML: did not find expected comment or line break", "> 0"),
    "*x": ("no anchor '&x' stands above this place", "*x"),
}


def short(node: str) -> str:
    return node[:40]


@pytest.mark.parametrize("node", MISTAKES, ids=short)
def test_a_mistake_has_a_message_and_a_place(
    invoke: Callable[..., Any], tmp_path: Path, node: str
) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(MODEL.format(node=node))
    message, pointed = MISTAKES[node]
    for command in (("check",), ("run", "--device", "cpu")):
        done = invoke(*command, path)
        assert done.exit_code == 2
        assert done.stderr.count("error: ") == 1
        assert f"error: {message}" in done.stderr
        assert f"  --> {path}:11:" in done.stderr
    with pytest.raises(gx.GraphError) as caught:
        gx.make_plan(gx.load(path))
    (found,) = caught.value.diagnostics
    assert message in found.message
    assert found.mark is not None
    line = found.source.line(found.mark.line)
    assert line[found.mark.column - 1 :].startswith(pointed)


GATHER = """\
version: 1
name: gather
inputs:
  x: {shape: [3, 4], dtype: f32}
  i: {shape: [3], dtype: i32}
nodes:
  computed: i + 0
  z: {op: gather, x: x, index: INDEX}
outputs: {z: z}
"""


@pytest.mark.parametrize(
    ("index", "code", "said"),
    [
        ("i", 2, ["gather 'z': input 'i' has the index 3 at [1], but there are 3 elements"]),
        ("computed", 1, ["output 'z' has 4 NaN among 12 values",
                         "the first node with any is 'z' (gather, line 8)"]),
    ],
)  # fmt: skip
def test_an_index_out_of_range_is_refused_or_a_row_of_nan(
    invoke: Callable[..., Any], tmp_path: Path, index: str, code: int, said: list[str]
) -> None:
    """An array of the host is checked before it is uploaded, what is computed is not."""
    path = tmp_path / "gather.yaml"
    path.write_text(GATHER.replace("INDEX", index))
    np.save(tmp_path / "i.npy", np.array([0, 3, -3], np.int32))
    given = ("--device", "cpu", "-i", f"i={tmp_path}/i.npy", "--check-finite")
    done = invoke("run", path, *given)
    assert done.exit_code == code
    assert all(text in done.stderr for text in said), done.stderr
