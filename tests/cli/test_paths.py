"""Paths that cannot be looked up are errors of the user, in every option that takes one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

LONG = "n" * 300
NOBODY = 65534

# What comes before and after the path.
OPTIONS: dict[str, Callable[[Path, str], tuple[object, ...]]] = {
    "graph": lambda graph, path: ("check", path),
    "plan file": lambda graph, path: ("check", f"{path}.json"),
    "run -o folder": lambda graph, path: ("run", graph, "-o", path),
    "run -o npz": lambda graph, path: ("run", graph, "-o", f"{path}.npz"),
    "run -o npy": lambda graph, path: ("run", graph, "-o", f"{path}.npy"),
    "run --trace": lambda graph, path: ("run", graph, "--trace", path),
    "run -i npy": lambda graph, path: ("run", graph, "-i", f"x={path}.npy"),
    "run -i npz": lambda graph, path: ("run", graph, "-i", f"{path}.npz"),
    "run --costs": lambda graph, path: ("run", graph, "--costs", path),
    "run --ops": lambda graph, path: ("run", graph, "--ops", path),
    "run --weights-root": lambda graph, path: ("run", graph, "--weights-root", path),
    "plan -o": lambda graph, path: ("plan", graph, "-o", f"{path}.svg"),
    "plan --trace": lambda graph, path: ("plan", graph, "-o", "x.svg", "--trace", path),
    "bench --baseline": lambda graph, path: ("bench", graph, "-n", 1, "--baseline", path),
    "compare -i": lambda graph, path: ("compare", graph, "-i", f"x={path}.npy"),
    "explain --costs": lambda graph, path: ("explain", graph, "--costs", path),
    "init": lambda graph, path: ("init", path),
}  # fmt: skip

WEIGHTED = """\
version: 1
inputs: {{x: {{shape: [2, 2], dtype: f32}}}}
weights: {{w: {{file: "{}"}}}}
nodes: {{y: {{op: gemm, a: x, b: w}}}}
outputs: {{y: y}}
"""


def is_an_error_of_the_user(done) -> None:
    assert done.exit_code == 2, (done.stdout, done.stderr, done.exception)
    assert "internal error" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that may not be searched. Root may search all: it is somebody else meanwhile."""
    folder = tmp_path / "closed"
    folder.mkdir(0o000)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("path", [LONG, f"{LONG}/x", "loop/x", "file/x"])
def test_paths_that_cannot_be_looked_up(invoke, graph, tmp_path, monkeypatch, option, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    is_an_error_of_the_user(invoke(*OPTIONS[option](graph(), path)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "loop", "tiny.yaml"]


@pytest.mark.parametrize("option", OPTIONS)
def test_folders_that_may_not_be_searched(invoke, graph, closed, monkeypatch, option):
    made = graph()
    monkeypatch.chdir(closed.parent)
    assert invoke("check", made).exit_code == 0  # what is imported later may be unreadable
    arguments = OPTIONS[option](made, "closed/x")
    invoke(*arguments)
    for folder in (closed.parent, *closed.parent.parents[:2]):
        folder.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        done = invoke(*arguments)
    finally:
        if root:
            os.seteuid(0)
    is_an_error_of_the_user(done)


@pytest.mark.parametrize("file", [f"{LONG}.npy", f"{LONG}/w.npy", "loop/w.npy", "a/\\0.npy"])
def test_weights_that_cannot_be_looked_up(invoke, tmp_path, file):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "w.yaml").write_text(WEIGHTED.format(file))
    is_an_error_of_the_user(invoke("run", tmp_path / "w.yaml", "--device", "cpu"))


def test_a_place_of_profiles_that_cannot_be_looked_up(invoke, graph, monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHEXEC_PROFILES", str(tmp_path / LONG))
    done = invoke("tune", graph(), "--device", "cpu", "--budget", "1e-9")  # before it measures
    is_an_error_of_the_user(done)
    assert "cannot make the folder" in done.stderr
    assert invoke("run", graph(), "--device", "cpu").exit_code == 0


def test_an_output_whose_name_is_too_long_for_a_file(invoke, graph, tmp_path):
    made = graph(("outputs: {out: p}", f"outputs: {{{LONG}: p}}"))
    (tmp_path / "outputs").mkdir()
    is_an_error_of_the_user(invoke("run", made, "--device", "cpu", "-o", tmp_path / "outputs"))
    assert list((tmp_path / "outputs").iterdir()) == []
    done = invoke("run", made, "--device", "cpu", "-o", tmp_path / "all.npz")
    assert done.exit_code == 0
    with np.load(tmp_path / "all.npz") as saved:
        assert saved.files == [LONG]


def test_an_error_of_the_system_with_a_path_is_none_of_graphexec(invoke, graph, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/a/\x1bfile")

    monkeypatch.setattr("graphexec.frontend.load.load", refuse)
    done = invoke("run", graph())
    assert done.exit_code == 2
    assert done.stderr == "error: cannot use '/a/\\x1bfile': Permission denied\n"
