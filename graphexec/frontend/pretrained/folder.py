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
from graphexec.frontend.pretrained.decoder import HUGGING_FACE, Decoder, Keys, Scaling
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
    window = None
    if said.get("sliding_window") is not None and said.flag(
        "use_sliding_window", family != "qwen2"
    ):
        window = said.count("sliding_window")
        first = said.get("max_window_layers")
        if family == "qwen2" and first != 0:
            said.refuse(f"only layers from {first!r:.20} on have a window (max_window_layers)")
    tied = said.flag("tie_word_embeddings", False)
    said.check()
    prefix = "model." if f"model.{HUGGING_FACE.words}" in stored else ""
    keys = Keys(
        prefix + HUGGING_FACE.words, prefix + HUGGING_FACE.end, HUGGING_FACE.head,
        prefix + HUGGING_FACE.layer,
        *(getattr(HUGGING_FACE, part) for part in
          ("q", "k", "v", "o", "gate", "up", "down", "before", "after")),
    )  # fmt: skip
    first_layer = keys.layer.replace("{i}", "0")
    return Decoder(
        name=name, file=file, source=f"A {family} model", keys=keys,
        dims={"L": layers, "E": width, "G": groups, "R": heads // groups, "D": features,
              "F": wide, "V": words},
        context=context, eps=eps, theta=theta, tied=tied or HUGGING_FACE.head not in stored,
        scaling=scaling, window=window if window is not None and window < context else None,
        biases=frozenset(p for p in ("q", "k", "v", "o", "gate", "up", "down")
                         if f"{first_layer}{getattr(keys, p)}.bias" in stored),
    )  # fmt: skip


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
    return Bert(
        name=name, file=file, source="A bert model", dims=dims, eps=eps,
        activation=_ACTIVATIONS[act], prefix=prefix, pooling=pooling, unit=unit,
        pooler=not pooling and f"{prefix}pooler.dense.weight" in stored,
    )  # fmt: skip


def _pooling(said: Said, folder: Path) -> tuple[Pooling, bool]:
    """How sentence-transformers makes an embedding of the states: by its `modules.json`."""
    if not (folder / "modules.json").is_file():
        return "", False
    pooling: Pooling = ""
    unit = False
    for module in _json(folder / "modules.json", list):
        kind = str(module.get("type", "")).rpartition(".")[2] if isinstance(module, dict) else ""
        if kind == "Pooling":
            where = folder / _inside(str(module.get("path", ""))) / CONFIG
            pooling = _pooled(said, where)
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


def _inside(path: str) -> str:
    """A folder's name without anything that leads elsewhere."""
    return Path(path).name


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
