"""all-MiniLM-L6-v2 in plain PyTorch, whose state has the names of the published weights."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import gelu, normalize, scaled_dot_product_attention

E, H, F, V, P, LAYERS = 384, 12, 1536, 30522, 512, 6  # as in graphs/minilm.yaml
EPS = 1e-12
SEED = 0


def norm() -> nn.LayerNorm:
    return nn.LayerNorm(E, EPS)


def layer() -> nn.ModuleDict:
    """The parts of one layer; `Encoder.layer` computes it."""
    attention = {
        "self": nn.ModuleDict({n: nn.Linear(E, E) for n in ("query", "key", "value")}),
        "output": nn.ModuleDict({"dense": nn.Linear(E, E), "LayerNorm": norm()}),
    }
    return nn.ModuleDict({
        "attention": nn.ModuleDict(attention),
        "intermediate": nn.ModuleDict({"dense": nn.Linear(E, F)}),
        "output": nn.ModuleDict({"dense": nn.Linear(F, E), "LayerNorm": norm()}),
    })  # fmt: skip


class MiniLM(nn.Module):
    """Token ids and mask (B, S), int32, to embeddings (B, E)."""

    def __init__(self) -> None:
        super().__init__()
        tables = {"word": V, "position": P, "token_type": 2}
        self.embeddings = nn.ModuleDict(
            {f"{name}_embeddings": nn.Embedding(rows, E) for name, rows in tables.items()}
        )
        self.embeddings["LayerNorm"] = norm()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layer() for _ in range(LAYERS))})

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        tables = self.embeddings
        x = tables["word_embeddings"](ids)
        x = x + tables["position_embeddings"].weight[: ids.shape[1]]
        x = tables["LayerNorm"](x + tables["token_type_embeddings"].weight[0])
        seen = mask[:, None, None, :] != 0
        for parts in self.encoder["layer"]:
            x = self.layer(parts, x, seen)
        kept = mask[:, :, None].to(x.dtype)
        return normalize((x * kept).sum(1) / kept.sum(1).clamp(min=1), dim=-1)

    def layer(self, parts: nn.ModuleDict, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        inner, out = parts["attention"]["self"], parts["attention"]["output"]
        q, k, v = (
            inner[name](x).unflatten(-1, (H, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        context = scaled_dot_product_attention(q, k, v, attn_mask=seen)
        h = out["LayerNorm"](x + out["dense"](context.transpose(1, 2).flatten(2)))
        last = parts["output"]
        up = gelu(parts["intermediate"]["dense"](h))
        return last["LayerNorm"](h + last["dense"](up))


def random_weights(seed: int = SEED) -> dict[str, torch.Tensor]:
    """f32, of a scale that keeps the activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, like in MiniLM().state_dict().items():
        values = torch.randn(like.shape, generator=generator)
        if name.endswith("LayerNorm.weight"):
            made[name] = 1 + 0.1 * values
        elif like.dim() == 1:
            made[name] = 0.1 * values
        else:
            made[name] = values * like.shape[-1] ** -0.5
    return made


def weights_from(file: Path | None) -> dict[str, torch.Tensor]:
    """The weights of a .safetensors file, or random ones, in f32."""
    if file is None:
        return random_weights()
    found = load_file(file)
    return {name: found[name].float() for name in MiniLM().state_dict()}


def model(weights: Mapping[str, torch.Tensor], dtype: torch.dtype, device: str) -> MiniLM:
    """The module with these weights; in f64 it is what the others are compared with."""
    made = MiniLM()
    made.load_state_dict(dict(weights))
    return made.to(device=device, dtype=dtype).eval().requires_grad_(False)


def tokens(batch: int, length: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids, and masks of sentences of unequal length."""
    generator = torch.Generator().manual_seed(SEED)
    ids = torch.randint(1000, V, (batch, length), generator=generator, dtype=torch.int32)
    lengths = torch.randint(length // 2, length + 1, (batch, 1), generator=generator)
    mask = (torch.arange(length) < lengths).to(torch.int32)
    return ids.to(device), mask.to(device)


def onnx_bytes(module: MiniLM, ids: torch.Tensor, mask: torch.Tensor) -> bytes:
    """The module as PyTorch exports it, for inputs of this shape."""
    buffer = io.BytesIO()
    torch.onnx.export(
        module, (ids, mask), buffer, input_names=["ids", "mask"], output_names=["embedding"],
        opset_version=17, dynamo=False,
    )  # fmt: skip
    return buffer.getvalue()
