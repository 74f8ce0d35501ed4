"""A folder of Hugging Face → Decoder or Bert: `config.json`, and weights in .safetensors."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import GraphError
from graphexec.base.reading import read_file
from graphexec.frontend.pretrained.bert import Bert, Pooling
from graphexec.frontend.pretrained.decoder import (
    HUGGING_FACE,
    PROJECTIONS,
    Decoder,
    Keys,
    Scaling,
)
from graphexec.frontend.pretrained.said import Said
from graphexec.frontend.weight_paths import WeightError
from graphexec.frontend.weights import WeightFiles

CONFIG = "config.json"
_WEIGHTS = ("model.safetensors.index.json", "model.safetensors")
_LARGEST = 1 << 20  # bytes of a JSON file
_ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu",
    "silu": "silu", "swish": "silu",
}  # fmt: skip
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_OFF = ("attn_logit_softcapping", "final_logit_softcapping", "no_rope_layers", "qk_layernorm",
        "query_pre_attn_scalar", "use_qk_norm")  # fmt: skip
_ONES = ("attention_multiplier", "embedding_multiplier", "logit_scale", "logits_scaling",
         "residual_multiplier")  # fmt: skip
"""What would change numbers, unless it is off or 1."""
_FREQUENCIES = "rotary_emb.inv_freq"
_NUMBERS = (".position_ids", ".token_type_ids")
"""Arrays of older files that say nothing new."""
_DECODERS = ("llama", "mistral", "qwen2")
_FAMILIES = (*_DECODERS, "bert")


def read_folder(folder: Path) -> Decoder | Bert:
    """The model in a folder. Raises GraphError with all that is not supported."""
    said = Said(f"'{folder / CONFIG}'", _object(folder / CONFIG))
    family = said.get("model_type")
    if family not in _FAMILIES:
        message = f"{said.where}: model_type is {family!r:.60}"
        raise GraphError([Diagnostic(message, help=f"known: {', '.join(_FAMILIES)}")])
    file = next((name for name in _WEIGHTS if (folder / name).is_file()), "")
    if not file:
        message = f"there are no weights in '{folder}'"
        raise GraphError([Diagnostic(message, help=f"expected {' or '.join(_WEIGHTS)}")])
    keys = _keys(folder, file)
    name = folder.resolve().name
    name = name if name.isprintable() and name else "model"
    if family == "bert":
        return _bert(said, folder, name, file, keys)
    return _decoder(said, str(family), name, file, keys)


def _decoder(said: Said, family: str, name: str, file: str, stored: Collection[str]) -> Decoder:
    said.only("hidden_act", "silu", "silu", "swish")
    _refuse_others(said)
    width, heads = said.count("hidden_size"), said.count("num_attention_heads")
    groups = said.count("num_key_value_heads", heads)
    if heads % groups:
        said.refuse(f"{heads} heads do not share {groups} of keys and values evenly")
    if width % heads and said.get("head_dim") is None:
        said.refuse(f"{heads} heads do not divide {width} features")
    features = said.count("head_dim", max(width // heads, 1))
    layers, wide = said.layers("num_hidden_layers"), said.count("intermediate_size")
    words, context = said.count("vocab_size"), said.count("max_position_embeddings")
    eps = said.number("rms_norm_eps", 1e-6)
    theta, scaling = _rope(said, context)
    part = said.get("partial_rotary_factor")
    if part not in (None, 1, 1.0):
        said.refuse(f"partial_rotary_factor is {part!r:.60}", "known: 1.0")
    window = _window(said, family, layers)
    tied = said.flag("tie_word_embeddings", HUGGING_FACE.head not in stored)
    required = set("qkv") if family == "qwen2" else set()
    if said.flag("attention_bias", False):
        required |= set("qkvo")
    if said.flag("mlp_bias", False):
        required |= {"gate", "up", "down"}
    said.check()
    prefix = "model." if f"model.{HUGGING_FACE.words}" in stored else ""
    keys = Keys(
        prefix + HUGGING_FACE.words, prefix + HUGGING_FACE.end, HUGGING_FACE.head,
        prefix + HUGGING_FACE.layer,
        *(getattr(HUGGING_FACE, part) for part in
          ("q", "k", "v", "o", "gate", "up", "down", "before", "after")),
    )  # fmt: skip
    first_layer = keys.layer.replace("{i}", "0")
    model = Decoder(
        name=name, file=file, source=f"A {family} model", keys=keys,
        dims={"L": layers, "E": width, "G": groups, "R": heads // groups, "D": features,
              "F": wide, "V": words},
        context=context, eps=eps, theta=theta, tied=tied,
        scaling=scaling, window=window if window is not None and window < context else None,
        biases=frozenset(p for p in PROJECTIONS if p in required
                         or f"{first_layer}{getattr(keys, p)}.bias" in stored),
    )  # fmt: skip
    # Those saved beside tied words are the words, and frequencies follow from the config.
    others = (k for k in stored if not k.endswith(_FREQUENCIES) and not (tied and k == keys.head))
    said.refuse_unread(others, model.arrays())
    said.check()
    return model


def _window(said: Said, family: str, layers: int) -> int | None:
    """How many keys a query sees, of the window that all layers have."""
    if said.get("sliding_window") is None:
        return None
    if family != "qwen2":
        return said.count("sliding_window")
    kinds = said.get("layer_types")
    first = said.get("max_window_layers")
    if not said.flag("use_sliding_window", False) or kinds == ["full_attention"] * layers:
        return None
    if kinds is None and isinstance(first, int) and first >= layers:
        return None
    if kinds is None and first != 0:
        said.refuse(f"only layers from {first!r:.20} on have a window (max_window_layers)")
    elif kinds is not None and kinds != ["sliding_attention"] * layers:
        said.refuse("only some layers have a window (layer_types)")
    return said.count("sliding_window")


def _refuse_others(said: Said) -> None:
    """Note what relatives of the family do, and this does not."""
    for name in _EXPERTS:
        if said.get(name):
            said.refuse(f"a mixture of experts ({name})")
    for name in _ONES:
        said.only(name, 1, 1)
    for name in _OFF:
        if said.get(name):
            said.refuse(f"{name} is {said.get(name)!r:.60}")
    _refuse_quantized(said)


def _refuse_quantized(said: Said) -> None:
    if said.get("quantization_config") is not None:
        said.refuse("the weights are quantised (quantization_config)")


def _rope(said: Said, context: int) -> tuple[float, Scaling | None]:
    """The base of the frequencies, and how they are lowered: in either form of the config."""
    part = said.part("rope_parameters") or said.part("rope_scaling")
    theta = said.number("rope_theta", 10000.0)
    if part is None:
        return theta, None
    theta = part.number("rope_theta", theta)
    name = "rope_type" if part.get("rope_type") is not None else "type"
    kind = part.only(name, "default", "default", "linear", "llama3")
    if kind == "linear":
        return theta, Scaling(part.number("factor"))
    if kind != "llama3":
        return theta, None
    low, high = part.number("low_freq_factor"), part.number("high_freq_factor")
    if not low < high:
        part.refuse(f"low_freq_factor is {low}, and high_freq_factor is not more")
    before = part.count("original_max_position_embeddings", context)
    return theta, Scaling(part.number("factor"), low, high, before)


def _bert(said: Said, folder: Path, name: str, file: str, stored: Collection[str]) -> Bert:
    act = said.only("hidden_act", "gelu", *_ACTIVATIONS)
    _refuse_quantized(said)
    said.only("position_embedding_type", "absolute", "absolute")
    if said.get("is_decoder"):
        said.refuse("is_decoder is true")
    width, heads = said.count("hidden_size"), said.count("num_attention_heads")
    if width % heads:
        said.refuse(f"{heads} heads do not divide {width} features")
    dims = {
        "E": width, "H": heads, "D": max(width // heads, 1),
        "F": said.count("intermediate_size"), "V": said.count("vocab_size"),
        "P": said.count("max_position_embeddings"), "L": said.layers("num_hidden_layers"),
    }  # fmt: skip
    eps = said.number("layer_norm_eps", 1e-12)
    pooling, unit = _pooling(said, folder)
    said.check()
    prefix = "bert." if "bert.embeddings.word_embeddings.weight" in stored else ""
    model = Bert(
        name=name, file=file, source="A bert model", dims=dims, eps=eps,
        activation=_ACTIVATIONS[act], prefix=prefix, pooling=pooling, unit=unit,
        pooler=not pooling and f"{prefix}pooler.dense.weight" in stored,
    )  # fmt: skip
    trunk = (f"{prefix}embeddings.", f"{prefix}encoder.")  # heads for other tasks lie elsewhere
    others = (key for key in stored if key.startswith(trunk) and not key.endswith(_NUMBERS))
    said.refuse_unread(others, model.arrays())
    said.check()
    return model


def _pooling(said: Said, folder: Path) -> tuple[Pooling, bool]:
    """How sentence-transformers makes an embedding of the states: by its `modules.json`."""
    if not (folder / "modules.json").is_file():
        return "", False
    pooling: Pooling = ""
    unit = False
    for module in _json(folder / "modules.json", list):
        kind = str(module.get("type", "")).rpartition(".")[2] if isinstance(module, dict) else ""
        if kind == "Pooling":
            path = str(module.get("path", ""))
            if _is_inside(folder, path):
                pooling = _pooled(said, folder / path / CONFIG)
            else:
                said.refuse(f"'modules.json' has a module in {path!r:.60}, outside of the folder")
        elif kind == "Normalize":
            unit = True
        elif kind != "Transformer":
            said.refuse(f"'modules.json' has a module {kind!r:.60}")
    return pooling, unit and bool(pooling)


def _pooled(said: Said, path: Path) -> Pooling:
    modes = {
        name.removeprefix("pooling_mode_"): value for name, value in _object(path).items()
        if name.startswith("pooling_mode_") and value
    }  # fmt: skip
    known: dict[str, Pooling] = {"mean_tokens": "mean", "cls_token": "cls"}
    if len(modes) == 1 and (found := known.get(next(iter(modes)))):
        return found
    said.refuse(
        f"'{path}' pools by {', '.join(modes) or 'nothing'}", "known: mean_tokens, cls_token"
    )
    return ""


def _is_inside(folder: Path, path: str) -> bool:
    """Whether a folder lies in another, also by where links lead."""
    try:
        return (folder / path).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a null character, a circle of links
        return False


def _keys(folder: Path, file: str) -> Collection[str]:
    """The names of the arrays in the file of weights, or in the shards of an index."""
    with WeightFiles() as files:
        try:
            return files.names(folder, file)
        except WeightError as exc:
            raise GraphError([Diagnostic(str(exc), help=exc.help)]) from exc


def _object(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = _json(path, dict)
    return found


def _json(path: Path, kind: type) -> Any:
    try:
        found = json.loads(read_file(path, _LARGEST))
    except OSError as exc:
        raise GraphError([Diagnostic(f"cannot read '{path}': {exc.strerror or exc}")]) from exc
    except (ValueError, RecursionError) as exc:
        raise GraphError([Diagnostic(f"'{path}' is damaged: {str(exc)[:200]}")]) from exc
    if not isinstance(found, kind):
        what = "an object" if kind is dict else "a list"
        raise GraphError([Diagnostic(f"'{path}' is no JSON file of {what}")])
    return found
