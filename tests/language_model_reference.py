"""graphs/smollm2.yaml and graphs/llama.yaml with weights of any size, and the model a second time.

The reference is in float32 without a cache: each token is computed from all that came before it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
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

SMALL = {"L": 3, "E": 32, "G": 2, "R": 2, "D": 8, "F": 48, "V": 97}
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7, 9, 32], [38, 46, 26]]


def module(name: str, path: Path) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    found = importlib.util.module_from_spec(spec)
    loader.exec_module(found)
    return found


MAKE = module("make_decoder", FOLDER.parent / "scripts" / "make_decoder")
GENERATE = module("generate", FOLDER.parent / "docs" / "examples" / "generate.py")


@cache
def drawn() -> Weights:
    """The small model."""
    return MAKE.drawn(16, SMALL)


# The model, a second time ---------------------------------------------------------------------


def logits(tokens: list[int], w: Weights, heads: tuple[int, int], theta: float) -> Array:
    """Those after the last token; `heads` are those of the queries and of the keys."""
    x = w["token_embd.weight"][tokens]
    for i in range(sum(key.endswith("attn_q.weight") for key in w)):
        at = {name: w[f"blk.{i}.{name}.weight"] for name in (
            "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output",
            "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")}  # fmt: skip
        h = normed(x, at["attn_norm"])
        q, k, v = (
            np.stack(np.split(h @ at[f"attn_{name}"].T, count, axis=1))
            for name, count in (("q", heads[0]), ("k", heads[1]), ("v", heads[1]))
        )
        q, k = turned(q, theta), turned(k, theta)
        shared = heads[0] // heads[1]
        seen = [attended(q[j], k[j // shared], v[j // shared]) for j in range(heads[0])]
        x = x + np.hstack(seen) @ at["attn_output"].T
        m = normed(x, at["ffn_norm"])
        gate = m @ at["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (m @ at["ffn_up"].T)) @ at["ffn_down"].T
    return normed(x[-1:], w["output_norm.weight"])[0] @ w["token_embd.weight"].T


def normed(x: Array, weight: Array) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-5)) * weight


def turned(x: Array, theta: float) -> Array:
    """Each pair of neighbours as one complex number, turned by its position."""
    length, features = x.shape[1:]
    angles = np.outer(np.arange(length), theta ** (-np.arange(0, features, 2) / features))
    z = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    return np.stack([z.real, z.imag], -1).reshape(x.shape).astype(np.float32)


def attended(q: Array, k: Array, v: Array) -> Array:
    scores = q @ k.T / np.float32(q.shape[1] ** 0.5)
    scores[np.triu_indices(len(q), 1)] = -np.inf
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True) @ v


def greedy(
    prompt: list[int], count: int, w: Weights, heads: tuple[int, int], theta: float
) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(np.argmax(logits(tokens, w, heads, theta))))
    return tokens[len(prompt) :]


# The graph with weights of any size -----------------------------------------------------------


def small(
    folder: Path, *edits: tuple[str, str], name: str = "smollm2", dtype: str = "f32", **dims: int
) -> gx.Graph:
    """The small model, with the graph's text edited, beside weights that lie in `folder`."""
    MAKE.write(drawn(), folder, name, dtype)
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return gx.load(folder / f"{name}.yaml", dims={**SMALL, "C": 40, **dims})


@cache
def expected(prompt: int, theta: float = 100000) -> list[int]:
    """20 tokens after one of the prompts, by the small model."""
    return greedy(PROMPTS[prompt], 20, drawn(), (SMALL["G"] * SMALL["R"], SMALL["G"]), theta)


def ids(*tokens: int) -> Array:
    return np.array([tokens], np.int32)


def stepwise(exe: gx.Executable, prompt: list[int], count: int) -> list[int]:
    """One run a token, each given by the host."""
    exe.reset()
    found = [int(exe.run(ids=ids(*prompt))["token"][0, 0])]
    while len(found) < count:
        found.append(int(exe.run(ids=ids(found[-1]))["token"][0, 0]))
    return found


def replayed(exe: gx.Executable, prompt: list[int], count: int) -> list[int]:
    """A prompt, one run that takes its token, and no host after it."""
    exe.reset()
    exe.run(ids=ids(*prompt))
    exe.run(ids=ids(-1))
    exe.replay(count - 2)
    first = len(prompt) - 1
    found: list[int] = exe.state["tokens"][0, first : first + count].tolist()
    return found
