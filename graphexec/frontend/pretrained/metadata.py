"""The metadata of a GGUF file → Decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from graphexec.base.diagnostics import Diagnostic
from graphexec.base.errors import GraphError
from graphexec.frontend.pretrained.decoder import GGUF, PROJECTIONS, Decoder, Scaling
from graphexec.frontend.pretrained.gguf_header import Header, Stored
from graphexec.frontend.pretrained.said import Said

_PAIRS = {"llama": "interleaved", "qwen2": "halves"}
"""How rotary features pair, by architecture. Mistral's models are llama here."""

_UNDERSTOOD = frozenset((
    "attention.causal", "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.layer_norm_rms_epsilon", "attention.sliding_window", "attention.value_length",
    "block_count", "context_length", "embedding_length", "expert_count", "expert_used_count",
    "feed_forward_length", "rope.dimension_count", "rope.freq_base", "rope.scale_linear",
    "rope.scaling.factor", "rope.scaling.finetuned", "rope.scaling.original_context_length",
    "rope.scaling.type", "tensor_data_layout", "vocab_size",
))  # fmt: skip
"""What may be said of an architecture; anything else may change what is computed."""


def read_decoder(path: Path, header: Header) -> Decoder:
    """The decoder in a file. Raises GraphError with all that is not supported."""
    architecture = header.values.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in _PAIRS:
        message = f"'{path}' is a model of the architecture {architecture!r:.60}"
        raise GraphError([Diagnostic(message, help=f"known: {', '.join(_PAIRS)}")])
    prefix = f"{architecture}."
    said = Said(f"'{path}'", header.values, prefix)
    heads = said.count("attention.head_count")
    groups = said.count("attention.head_count_kv", heads)
    width = said.count("embedding_length")
    if heads % groups:
        said.refuse(f"{heads} heads do not share {groups} of keys and values evenly")
    if width % heads and said.get("attention.key_length") is None:
        said.refuse(f"{heads} heads do not divide {width} features")
    features = said.count("attention.key_length", max(width // heads, 1))
    if said.count("attention.value_length", features) != features:
        said.refuse("keys and values of different sizes")
    if said.get("expert_count"):
        said.refuse("a mixture of experts")
    said.only("attention.causal", True, True)
    said.only("tensor_data_layout", "", "", "Meta AI original pth")
    for key in header.values:
        if key.startswith(prefix) and key.removeprefix(prefix) not in _UNDERSTOOD:
            said.refuse(f"{key} is not supported")
    rotate = said.count("rope.dimension_count", features)
    window = (
        said.count("attention.sliding_window") if said.get("attention.sliding_window") else None
    )
    layers, wide = said.layers("block_count"), said.count("feed_forward_length")
    scaling = _scaling(said)
    words = header.tensors.get(GGUF.words)
    if words is None or len(words.shape) != 2:
        said.refuse(f"there is no matrix '{GGUF.words}'")
    context = said.count("context_length")
    eps = _short(said.number("attention.layer_norm_rms_epsilon"))
    theta = _short(said.number("rope.freq_base", 10000.0))
    said.check()
    assert words is not None
    name = header.values.get("general.basename") or header.values.get("general.name") or path.stem
    model = Decoder(
        name=name if isinstance(name, str) and name.isprintable() and name else "model",
        file=path.name, source=f"A {architecture} model", keys=GGUF,
        dims={"L": layers, "E": width, "G": groups, "R": heads // groups, "D": features,
              "F": wide, "V": words.shape[0]},
        context=context, eps=eps, theta=theta,
        tied=GGUF.head not in header.tensors, pairs=_PAIRS[architecture],
        rotate=None if rotate == features else rotate, scaling=scaling,
        factors="rope_freqs.weight" if "rope_freqs.weight" in header.tensors else "",
        window=window if window is not None and window < context else None,
        biases=_biases(architecture, header.tensors),
    )  # fmt: skip
    said.refuse_unread(header.tensors, model.arrays())
    said.check()
    return model


def _scaling(said: Said) -> Scaling | None:
    """A factor alone is linear; files of the first versions call it scale_linear."""
    factor = "rope.scaling.factor"
    if said.get(factor) is None and said.get("rope.scale_linear") is not None:
        factor = "rope.scale_linear"
    given = said.get(factor) is not None
    kind = said.only("rope.scaling.type", "linear" if given else "none", "none", "linear")
    return Scaling(said.number(factor)) if kind == "linear" else None


def _biases(architecture: str, tensors: Mapping[str, Stored]) -> frozenset[str]:
    """The projections that have one: those of the architecture, and of the first layer."""
    first = GGUF.layer.replace("{i}", "0")
    found = {p for p in PROJECTIONS if f"{first}{getattr(GGUF, p)}.bias" in tensors}
    return frozenset(found | (set("qkv") if architecture == "qwen2" else set()))


def _short(value: float) -> float:
    """The shortest decimal that is the same number of 32 bits."""
    return float(str(np.float32(value)))
