"""graphs/minilm.yaml with weights of any size, and what it computes, a second time.

The reference is in float64, sentence by sentence and without padding. A small random model has the
same graph; the dims that make it small are given as `-D` would.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from graph_files import FOLDER

import graphexec as gx

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]

SENTENCES: dict[str, list[int]] = json.loads(
    Path(__file__).with_name("minilm_sentences.json").read_text(encoding="utf-8")
)
SMALL = {"E": 32, "H": 4, "D": 8, "F": 64, "V": 60, "P": 32, "L": 3}


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


@cache
def drawn() -> Weights:
    """The small model."""
    return MAKE.drawn(0, SMALL)


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
    for layer in range(sum(key.endswith("query.bias") for key in weights)):
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


def graph_with(
    folder: Path, weights: Weights, dtype: str, *edits: tuple[str, str], **dims: int
) -> gx.Graph:
    """The graph, with its text edited, beside weights that lie in `folder`."""
    MAKE.write(weights, folder, dtype)
    text = (FOLDER / "minilm.yaml").read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    (folder / "minilm.yaml").write_text(text, encoding="utf-8")
    return gx.load(folder / "minilm.yaml", dims=dims)


def small(folder: Path, dtype: str = "f32", *edits: tuple[str, str], **dims: int) -> gx.Graph:
    return graph_with(folder, drawn(), dtype, *edits, **{**SMALL, "B": 2, "S": 9, **dims})


def run_small(graph: gx.Graph, **options: Any) -> Array:
    """The cosines of two sentences, one of which is shorter than the other."""
    rng = np.random.default_rng(1)
    sentences = [rng.integers(0, SMALL["V"], length).tolist() for length in (9, 5)]
    inputs = padded(sentences, graph.dims["S"])
    with gx.compile(graph, **options) as exe:
        found = exe.run(**inputs)["embedding"]
        assert exe.run(**inputs)["embedding"].tobytes() == found.tobytes()
        assert found.dtype == exe.outputs["embedding"].dtype.numpy()
    return cosines(found, np.array([embedding(s, drawn(), SMALL["H"]) for s in sentences]))
