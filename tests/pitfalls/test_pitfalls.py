"""docs/pitfalls.md, executed: hand-written programs are wrong, YAML is right, plans are refuted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hip_lab import MODES, ROOT, Lab

import graphexec as gx
from graphexec.cli.app import app
from graphexec.runtime.hip.device import Mode

Array = np.ndarray[Any, Any]
PAGE = (ROOT / "docs" / "pitfalls.md").read_text(encoding="utf-8")
SEEDS = range(24)


@dataclass(frozen=True)
class Pitfall:
    title: str
    program: str
    yaml: str
    plan: str
    report: str


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def read() -> tuple[list[str], dict[str, Pitfall]]:
    """The Python that all share, and the pitfalls by title."""
    _, shared, *rest = PAGE.split("\n## ")
    found = {}
    for section in rest:
        title = section.splitlines()[0]
        program, plan = blocks(section, "python")
        (yaml,), (report,) = blocks(section, "yaml"), blocks(section, "text")
        found[title] = Pitfall(title, program, yaml, plan, report)
    return blocks(shared, "python"), found


SHARED, PITFALLS = read()
TITLES = list(PITFALLS)


@pytest.fixture(scope="module")
def opened() -> tuple[Lab, dict[str, Any]]:
    if "GRAPHEXEC_HIP_LIBRARY_PATH" in os.environ:
        pytest.skip("needs the emulator: unset GRAPHEXEC_HIP_LIBRARY_PATH")
    pytest.importorskip("rocm.bindings", reason="needs hip-python 10, as the page does")
    lab = Lab.open()
    lab.reset()
    names: dict[str, Any] = {}
    for text in SHARED:
        exec(compile(text, "docs/pitfalls.md", "exec"), names)
    return lab, names


@pytest.fixture
def lab(opened: tuple[Lab, dict[str, Any]]) -> Iterator[Lab]:
    opened[0].reset()
    yield opened[0]
    opened[0].reset()


@pytest.fixture
def names(opened: tuple[Lab, dict[str, Any]]) -> dict[str, Any]:
    return dict(opened[1])


def given() -> tuple[Array, Array]:
    x, w = np.random.default_rng(0).standard_normal((2, 32, 32)).astype(np.float32)
    return x, w


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def expected(title: str) -> dict[str, Array]:
    x, w = (a.astype(np.float64) for a in given())
    p = softmax(x)
    if title.startswith("One handle"):
        return {"y": p @ w, "z": softmax(w) @ x}
    if title.startswith("Bytes"):
        return {"y": p @ w, "z": softmax(p @ x)}
    return {"y": p @ w}


def is_right(title: str, found: dict[str, Array]) -> bool:
    wanted = expected(title)
    assert found.keys() == wanted.keys()
    return all(np.allclose(found[n], wanted[n], rtol=1e-4, atol=1e-5) for n in wanted)


def program(pitfall: Pitfall, names: dict[str, Any], *cures: tuple[str, str]) -> Callable[..., Any]:
    text = pitfall.program
    for old, new in cures:
        assert old in text
        text = text.replace(old, new)
    exec(compile(text, "docs/pitfalls.md", "exec"), names)
    made: Callable[..., Any] = names["wrong"]
    return made


def row_of(title: str) -> str:
    """The line of the page's table about a pitfall."""
    lines = (line for line in PAGE.splitlines() if line.startswith("| ["))
    return next(line for line in lines if title.lower() in line.lower())


def wrong_seeds(lab: Lab, title: str, run: Callable[..., Any]) -> list[int]:
    wrong = []
    for seed in SEEDS:
        lab.reset()
        lab.seed(seed)
        if not is_right(title, run(*given())):
            wrong.append(seed)
    return wrong


@pytest.mark.parametrize("title", TITLES)
def test_the_program_is_wrong(lab: Lab, names: dict[str, Any], title: str) -> None:
    wrong = wrong_seeds(lab, title, program(PITFALLS[title], names))
    assert 0 in wrong
    if "every seed" in row_of(title):
        assert wrong == list(SEEDS)
    else:
        assert len(wrong) > len(SEEDS) / 2


CURES = {
    "hipBLAS on": [("ok(hipblas.hipblasCreate())", "handle_on(g.s1)")],
    "The host": [("    return", "    ok(hip.hipStreamSynchronize(g.s1))\n    return")],
    "One handle": [("gemm(handle, g.q", "gemm(handle_on(g.s2), g.q")],
    "No event": [("# here belongs: ", "")],
    "Bytes": [("# here belongs an event from s1: y may not have read p yet",
               "order(g.s1, g.s2)")],
}  # fmt: skip


@pytest.mark.parametrize("title", TITLES)
def test_with_the_line_it_lacks_it_is_right(lab: Lab, names: dict[str, Any], title: str) -> None:
    (cures,) = (cures for start, cures in CURES.items() if title.startswith(start))
    assert wrong_seeds(lab, title, program(PITFALLS[title], names, *cures)) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("title", TITLES)
def test_the_yaml_never_is(lab: Lab, title: str, mode: Mode) -> None:
    x, w = given()
    with lab.compile(gx.loads(PITFALLS[title].yaml), mode, 2) as exe:
        for seed in range(100):
            lab.seed(seed)
            assert is_right(title, exe.run(x=x, w=w)), f"seed {seed}"


@pytest.mark.parametrize("title", TITLES)
def test_check_names_the_bug(names: dict[str, Any], title: str, tmp_path: Path) -> None:
    exec(compile(PITFALLS[title].plan, "docs/pitfalls.md", "exec"), names)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(names["bug"]))
    done = CliRunner().invoke(app, ["check", str(path)])
    assert done.exit_code == 1
    printed = " ".join(done.output.split())
    for line in PITFALLS[title].report.strip().splitlines():
        assert " ".join(line.split()) in printed, done.output
    kinds = set(re.findall(r"\b([A-Z]{3,}) hazard", done.output))
    assert kinds == set(re.findall(r"\b([A-Z]{3,}) hazard", PITFALLS[title].report))
    assert kinds == set(re.findall(r"`([A-Z]+)`", row_of(title)))
