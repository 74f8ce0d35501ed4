"""The BERT family as YAML (Devlin et al. 2019, arXiv:1810.04805), also as it embeds sentences
(Reimers and Gurevych 2019, arXiv:1908.10084)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from graphexec.frontend.yaml.write import flow

TOKENS = 128
"""Tokens of a text, unless the model knows fewer or -D S says so."""

Pooling = Literal["", "mean", "cls"]


@dataclass(frozen=True)
class Bert:
    """A model: `dims` E, H, D, F, V, P and L as in the YAML. `prefix` stands before every key.

    With `pooling`, the result is one embedding a text, of length 1 if `unit`; else it is every
    token's last hidden state, and if there is a `pooler` the output of that for the first.
    """

    name: str
    file: str
    source: str
    dims: Mapping[str, int]
    eps: float
    activation: str
    prefix: str = ""
    pooling: Pooling = ""
    unit: bool = False
    pooler: bool = False

    def text(self, dtype: str) -> str:
        """The YAML, with weights in `dtype`."""
        return "".join(f"{line}\n" for line in _lines(self, dtype))

    def arrays(self) -> set[str]:
        """The keys of all that it reads in the embeddings and the layers."""
        inner = [f"{key}.{part}" for _, key, *_ in _MATRICES for part in ("weight", "bias")]
        inner += [f"{key}.{part}" for key in _NORMS for part in ("weight", "bias")]
        layers = (f"{self.prefix}encoder.layer.{i}." for i in range(self.dims["L"]))
        words = (f"{self.prefix}embeddings.{key}" for key in _EMBEDDINGS)
        return {*words, *(layer + key for layer in layers for key in inner)}


def _lines(model: Bert, dtype: str) -> Iterator[str]:
    eps = flow(model.eps)
    dims = {"B": 1, "S": min(model.dims["P"], TOKENS), **model.dims}
    result = "embeddings of texts" if model.pooling else "hidden states"
    yield f"# {model.source}: token ids to {result}."
    yield "# H heads of D features; texts of S tokens, at most P."
    yield "version: 1"
    yield f"name: {flow(model.name)}"
    yield f"dims: {flow(dims)}"
    yield f"file: {flow(model.file)}"
    if model.prefix:
        yield f"prefix: {flow(model.prefix)}"
    yield f"weight_dtype: {dtype}"
    yield "inputs:"
    yield "  ids: {shape: [B, S], dtype: i32}"
    yield "  mask: {shape: [B, S], dtype: i32}           # 1: a token, 0: padding"
    if not model.pooling:
        yield "  types: {shape: [B, S], dtype: i32}          # 0: the first text, 1: the second"
    yield "weights:"
    yield "  words: {key: embeddings.word_embeddings.weight, shape: [V, E]}"
    yield "  positions: {key: embeddings.position_embeddings.weight, shape: [P, E]}"
    yield "  segments: embeddings.token_type_embeddings.weight"
    yield "  ge: {key: embeddings.LayerNorm.weight, shape: [E]}"
    yield "  de: {key: embeddings.LayerNorm.bias, shape: [E]}"
    if model.pooler:
        yield "  wp: {key: pooler.dense.weight, shape: [E, E]}"
        yield "  bp: {key: pooler.dense.bias, shape: [E]}"
    yield "blocks:"
    yield "  layer:"
    yield "    inputs: [x, hidden]"
    yield f"    prefix: {flow('encoder.layer.{i}.')}"
    yield "    weights:"
    for name, key, rows, columns in _MATRICES:
        yield f"      w{name}: {{key: {key}.weight, shape: [{rows}, {columns}]}}"
        yield f"      b{name}: {{key: {key}.bias, shape: [{rows}]}}"
    for number, key in enumerate(_NORMS, 1):
        yield f"      g{number}: {{key: {key}.weight, shape: [E]}}"
        yield f"      d{number}: {{key: {key}.bias, shape: [E]}}"
    yield "    nodes:"
    for name in ("q", "k", "v"):
        yield f"      {flow(name)}: x @ T(w{name}) + b{name}"
    for name in ("q", "k", "v"):
        yield f"      {name}h: {{op: copy, x: {name}, axes: B S (H D) -> B H S D}}"
    yield "      a: {op: attention, q: qh, k: kh, v: vh, mask: hidden, scale: D ** -0.5}"
    yield "      c: {op: copy, x: a, axes: B H S D -> B S (H D)}"
    yield "      r: x + c @ T(wo) + bo"
    yield f"      h: {{op: norm, kind: layer, x: r, weight: g1, bias: d1, eps: {eps}}}"
    yield f"      u: {model.activation}(h @ T(wi) + bi)"
    yield "      y: h + u @ T(wd) + bd"
    yield f"      next: {{op: norm, kind: layer, x: y, weight: g2, bias: d2, eps: {eps}}}"
    yield "    outputs: {x: next}"
    yield "nodes:"
    yield from (f"  {line}" for line in _nodes(model, eps))
    yield f"outputs: {_outputs(model)}"


def _nodes(model: Bert, eps: str) -> Iterator[str]:
    yield "word: {op: gather, x: words, index: ids}"
    yield "position: {op: copy, x: positions, slice: {0: [0, S]}}"
    if model.pooling:
        yield "segment: {op: copy, x: segments, slice: {0: [0, 1]}}"
    else:
        yield "segment: {op: gather, x: segments, index: types}"
    yield "e: word + position + segment"
    yield f"x0: {{op: norm, kind: layer, x: e, weight: ge, bias: de, eps: {eps}}}"
    yield "key_mask: {op: copy, x: mask, reshape: [B, 1, 1, S]}"
    yield 'hidden: "where(key_mask != 0, 0.0, -inf)"    # added to the scores'
    yield "trunk: {block: layer, x: x0, hidden: hidden, repeat: L}"
    yield from (_embedding(model) if model.pooling else _states(model))


def _states(model: Bert) -> Iterator[str]:
    if model.pooler:
        yield "first: {op: copy, x: trunk, slice: {1: [0, 1]}}"
        yield "row: {op: copy, x: first, reshape: [B, E]}"
        yield "pooled: tanh(row @ T(wp) + bp)"


def _embedding(model: Bert) -> Iterator[str]:
    pooled = "mean" if model.unit else "embedding"
    if model.pooling == "mean":
        yield "tokens: {op: copy, x: mask, reshape: [B, S, 1]}"
        yield "kept: trunk * tokens"
        yield "total: {op: reduce, kind: sum, x: kept, axis: 1}"
        yield "count: {op: reduce, kind: sum, x: mask, axis: 1, keep: true}"
        yield f"{pooled}: total / max(count, 1)"
    else:
        yield "first: {op: copy, x: trunk, slice: {1: [0, 1]}}"
        yield f"{pooled}: {{op: copy, x: first, reshape: [B, E]}}"
    if model.unit:
        yield f"square: {pooled} * {pooled}"
        yield "length: {op: reduce, kind: sum, x: square, axis: -1, keep: true}"
        yield f"embedding: {pooled} / max(sqrt(length), 1e-12)"


def _outputs(model: Bert) -> str:
    if model.pooling:
        return "{embedding: embedding}"
    pooled = ", pooler_output: pooled" if model.pooler else ""
    return f"{{last_hidden_state: trunk{pooled}}}"


_EMBEDDINGS = ("word_embeddings.weight", "position_embeddings.weight",
               "token_type_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias")  # fmt: skip
_NORMS = ("attention.output.LayerNorm", "output.LayerNorm")
_MATRICES = (
    ("q", "attention.self.query", "E", "E"), ("k", "attention.self.key", "E", "E"),
    ("v", "attention.self.value", "E", "E"), ("o", "attention.output.dense", "E", "E"),
    ("i", "intermediate.dense", "F", "E"), ("d", "output.dense", "E", "F"),
)  # fmt: skip
