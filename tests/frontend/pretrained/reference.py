"""Models of Hugging Face in NumPy's float64, from the papers, and folders with random ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

Array = np.ndarray[Any, Any]
Config = dict[str, Any]

LLAMA: Config = {
    "model_type": "llama", "hidden_act": "silu", "hidden_size": 24, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_hidden_layers": 3, "intermediate_size": 40, "vocab_size": 50,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1000.0,
    "tie_word_embeddings": False,
}  # fmt: skip
BERT: Config = {
    "model_type": "bert", "hidden_act": "gelu", "hidden_size": 24, "num_attention_heads": 3,
    "num_hidden_layers": 2, "intermediate_size": 40, "vocab_size": 50, "type_vocab_size": 2,
    "max_position_embeddings": 32, "layer_norm_eps": 1e-12,
}  # fmt: skip


def decoder_weights(
    config: Config, seed: int = 0, biased: tuple[str, ...] = ()
) -> dict[str, Array]:
    e, f, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads = config["num_attention_heads"]
    groups = config.get("num_key_value_heads", heads)
    d = config.get("head_dim", e // heads)
    shapes = {"model.embed_tokens.weight": (v, e), "model.norm.weight": (e,)}
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (v, e)
    matrices = {
        "self_attn.q_proj": (heads * d, e), "self_attn.k_proj": (groups * d, e),
        "self_attn.v_proj": (groups * d, e), "self_attn.o_proj": (e, heads * d),
        "mlp.gate_proj": (f, e), "mlp.up_proj": (f, e), "mlp.down_proj": (e, f),
    }  # fmt: skip
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for name, shape in matrices.items():
            shapes[f"{at}{name}.weight"] = shape
            if name.rpartition(".")[2] in biased:
                shapes[f"{at}{name}.bias"] = shape[:1]
        shapes[f"{at}input_layernorm.weight"] = shapes[f"{at}post_attention_layernorm.weight"] = (
            e,
        )
    return drawn(shapes, seed)


def bert_weights(config: Config, prefix: str = "", pooler: bool = True) -> dict[str, Array]:
    e, f = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], e),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], e),
        "embeddings.token_type_embeddings.weight": (2, e),
        "embeddings.LayerNorm.weight": (e,), "embeddings.LayerNorm.bias": (e,),
    }  # fmt: skip
    linear = {
        "attention.self.query": (e, e), "attention.self.key": (e, e),
        "attention.self.value": (e, e), "attention.output.dense": (e, e),
        "intermediate.dense": (f, e), "output.dense": (e, f),
    }  # fmt: skip
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}."
        for name, shape in linear.items():
            shapes |= {f"{at}{name}.weight": shape, f"{at}{name}.bias": shape[:1]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{at}{name}.weight": (e,), f"{at}{name}.bias": (e,)}
    if pooler:
        shapes |= {"pooler.dense.weight": (e, e), "pooler.dense.bias": (e,)}
    return {prefix + key: array for key, array in drawn(shapes, 1).items()}


def drawn(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    found = {}
    for key, shape in shapes.items():
        noise = rng.standard_normal(shape)
        scale = 1.0 if "embed" in key else shape[-1] ** -0.5
        found[key] = (1 + 0.1 * noise if "norm" in key.lower() else scale * noise).astype("f4")
    return found


def write_folder(
    folder: Path, config: Config, weights: Mapping[str, Array], shards: int = 1
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(dict(weights), folder / "model.safetensors")
        return folder
    where = {}
    for n in range(shards):
        name = f"model-{n + 1:05}-of-{shards:05}.safetensors"
        part = {key: weights[key] for key in list(weights)[n::shards]}
        save_file(part, folder / name)
        where |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def frequencies(config: Config) -> Array:
    """Su et al. 2021; lowered as Llama 3.1's `rope_scaling` says."""
    d = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    found = config["rope_theta"] ** (-np.arange(0, d, 2) / d)
    scaling = config.get("rope_scaling")
    if not scaling:
        return found
    factor = scaling["factor"]
    if scaling.get("rope_type", scaling.get("type")) == "linear":
        return found / factor
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    before = scaling["original_max_position_embeddings"]
    lowered = []
    for f in found:
        length = 2 * np.pi / f
        if length < before / high:
            lowered.append(f)
        elif length > before / low:
            lowered.append(f / factor)
        else:
            smooth = (before / length - low) / (high - low)
            lowered.append((1 - smooth) * f / factor + smooth * f)
    return np.array(lowered)


def decoder_logits(config: Config, weights: Mapping[str, Array], ids: Array) -> Array:
    """(B, V), of the last token, without a cache."""
    w = {key: array.astype(np.float64) for key, array in weights.items()}
    e, heads = config["hidden_size"], config["num_attention_heads"]
    groups = config.get("num_key_value_heads", heads)
    d = config.get("head_dim", e // heads)
    b, s = ids.shape
    angle = np.arange(s)[:, None] * frequencies(config)
    cos, sin = np.cos(angle), np.sin(angle)
    place = np.arange(s)
    seen = place[None, :] <= place[:, None]
    if config.get("sliding_window"):
        seen &= place[None, :] > place[:, None] - config["sliding_window"]

    def rms(x: Array, weight: Array) -> Array:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * weight

    def linear(x: Array, name: str) -> Array:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def turned(x: Array) -> Array:
        u, v = x[..., : d // 2], x[..., d // 2 :]
        return np.concatenate([u * cos - v * sin, v * cos + u * sin], -1)

    x = w["model.embed_tokens.weight"][ids]
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        h = rms(x, w[f"{at}input_layernorm.weight"])
        q, k, v = (
            linear(h, f"{at}self_attn.{n}_proj").reshape(b, s, -1, d).swapaxes(1, 2) for n in "qkv"
        )
        q, k, v = turned(q), *(np.repeat(t, heads // groups, 1) for t in (turned(k), v))
        scores = np.where(seen, q @ k.swapaxes(-1, -2) * d**-0.5, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        a = (p / p.sum(-1, keepdims=True)) @ v
        x = x + linear(a.swapaxes(1, 2).reshape(b, s, -1), f"{at}self_attn.o_proj")
        m = rms(x, w[f"{at}post_attention_layernorm.weight"])
        gate, up = linear(m, f"{at}mlp.gate_proj"), linear(m, f"{at}mlp.up_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * up, f"{at}mlp.down_proj")
    last = rms(x[:, -1], w["model.norm.weight"])
    return last @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T


def bert_states(config: Config, weights: Mapping[str, Array], ids: Array, mask: Array,
                types: Array) -> Array:  # fmt: skip
    """(B, S, E), the last hidden states."""
    from math import erf

    w = {key: array.astype(np.float64) for key, array in weights.items()}
    heads = config["num_attention_heads"]
    b, s = ids.shape

    def norm(x: Array, name: str) -> Array:
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return y * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: Array, name: str) -> Array:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    table = "embeddings.{}_embeddings.weight".format
    x = w[table("word")][ids] + w[table("position")][:s] + w[table("token_type")][types]
    x = norm(x, "embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}."
        q, k, v = (
            linear(x, f"{at}attention.self.{n}").reshape(b, s, heads, -1).swapaxes(1, 2)
            for n in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
        scores = np.where(mask[:, None, None, :] != 0, scores, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        a = ((p / p.sum(-1, keepdims=True)) @ v).swapaxes(1, 2).reshape(b, s, -1)
        x = norm(x + linear(a, f"{at}attention.output.dense"), f"{at}attention.output.LayerNorm")
        u = linear(x, f"{at}intermediate.dense")
        u = u * (1 + np.vectorize(erf)(u / 2**0.5)) / 2
        x = norm(x + linear(u, f"{at}output.dense"), f"{at}output.LayerNorm")
    return x
