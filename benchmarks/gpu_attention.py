"""Attention on tensors that stay on the device: alone, with projections, in decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from gpu_ways import Row, captured, compared, eager, jitted, ours, random
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import graphexec as gx


def attention_graph(shape: tuple[int, ...], causal: bool) -> gx.Graph:
    g = gx.Graph("attention")
    q, k, v = (g.input(name, shape, "f16") for name in "qkv")
    scores = g.gemm(q, k, trans_b=True, alpha=shape[-1] ** -0.5, name="scores")
    g.output(out=g.gemm(g.softmax(scores, causal=causal, name="probs"), v, name="ctx"))
    return g


def attention_exact(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool
) -> torch.Tensor:
    exact = []
    for one in zip(*(t.flatten(0, 1) for t in (q, k, v)), strict=True):
        q64, k64, v64 = (t.double() for t in one)
        s = q64 @ k64.mT * q.shape[-1] ** -0.5
        if causal:
            s += torch.full_like(s, float("-inf")).triu(1)
        exact.append(torch.softmax(s, -1) @ v64)
    return torch.stack(exact).unflatten(0, q.shape[:2])


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """Attention by its formula: eager, and for torch.compile."""
    scores = torch.matmul(q, k.mT) * q.shape[-1] ** -0.5
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    return torch.matmul(torch.softmax(scores, -1), v)


def three_kernels(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """PyTorch's fastest three kernels: the scale is the first product's alpha."""
    q3, k3, v3 = (t.flatten(0, 1) for t in (q, k, v))
    nothing = torch.empty((), dtype=q.dtype, device=q.device)
    scores = torch.baddbmm(nothing, q3, k3.mT, beta=0, alpha=q.shape[-1] ** -0.5)
    return torch.bmm(torch.softmax(scores, -1), v3).unflatten(0, q.shape[:2])


def by_backend(
    backend: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: bool
) -> Callable[[], torch.Tensor]:
    """scaled_dot_product_attention by one of its backends."""

    def run() -> torch.Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v, **options)

    return run


def jax_attention(causal: bool) -> Callable[..., object]:
    import jax
    import jax.numpy as jnp

    def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        scores = jnp.einsum("bhmd,bhnd->bhmn", q, k) * jnp.float16(q.shape[-1] ** -0.5)
        if causal:
            scores = jnp.where(jnp.tri(*scores.shape[-2:], dtype=bool), scores, -jnp.inf)
        return jnp.einsum("bhmn,bhnd->bhmd", jax.nn.softmax(scores), v)

    return attention


SMALL = ((1, 8, 128, 64), (1, 8, 512, 64))
LARGE = ((1, 32, 1024, 128), (1, 32, 2048, 128), (4, 32, 4096, 128))


def attention_rows() -> Iterator[Row]:
    for shape, causal in [(s, False) for s in SMALL + LARGE] + [(s, True) for s in LARGE[1:]]:
        inputs = {name: random(*shape) for name in "qkv"}
        q, k, v = inputs.values()
        graph = attention_graph(shape, causal)
        compiled = torch.compile(plain)
        ways = {
            "graphexec": ours(graph, inputs),
            "graphexec, not fused": ours(graph, inputs, no_rewrite=["fuse-attention"]),
            "PyTorch eager": eager(lambda i=inputs, c=causal: plain(**i, causal=c)),
            "torch.compile": eager(lambda f=compiled, i=inputs, c=causal: f(**i, causal=c)),
            "SDPA FlashAttention-2, captured": captured(
                by_backend(SDPBackend.FLASH_ATTENTION, q, k, v, is_causal=causal)
            ),
            "SDPA cuDNN, captured": captured(
                by_backend(SDPBackend.CUDNN_ATTENTION, q, k, v, is_causal=causal)
            ),
            "JAX": jitted(jax_attention(causal), q, k, v),
        }
        if not causal:
            ways["PyTorch three kernels, captured"] = captured(lambda i=inputs: three_kernels(**i))
        batch, heads, length, width = shape
        flops = 4 * batch * heads * length**2 * width / (2 if causal else 1)
        target = "≥ 1.1× the best" if shape in SMALL else "≥ 1.3× FlashAttention-2, ≥ 0.9× cuDNN"
        yield compared(
            f"attention f16 {shape}{' causal' if causal else ''}", ways,
            attention_exact(q, k, v, causal), target, flops, 4 * q.nbytes,
        )  # fmt: skip


DECODING = (
    # batch, heads of k and v, heads of q for each, queries, keys, head size
    (1, 32, 1, 1, 4096, 128), (1, 8, 4, 1, 8192, 128), (1, 8, 4, 1, 8193, 128),
    (8, 8, 4, 1, 4096, 128),
    (32, 8, 4, 1, 2048, 128), (1, 8, 1, 1, 1024, 64), (1, 8, 1, 64, 8192, 64),
)  # fmt: skip


def decoding_rows() -> Iterator[Row]:
    """Few queries over many earlier keys and values. Reading these once is most of the work."""
    for shape in DECODING:
        batch, heads, group, queries, keys, width = shape
        g = gx.Graph("decoding")
        shapes = {"q": (batch, heads, group, queries, width)}
        shapes |= dict.fromkeys("kv", (batch, heads, 1, keys, width))
        inputs = {name: random(*extents) for name, extents in shapes.items()}
        q, k, v = (g.input(name, extents, "f16") for name, extents in shapes.items())
        y = g.attention(q, k, v, name="y")
        g.output(out=g.copy(y, reshape=[batch, heads * group, queries, width]))
        q, k, v = (inputs[name].flatten(1, 2) for name in "qkv")

        def by(
            backend: SDPBackend, q: torch.Tensor = q, k: torch.Tensor = k, v: torch.Tensor = v,
            grouped: bool = group > 1,
        ) -> Callable[[], torch.Tensor]:  # fmt: skip
            return by_backend(backend, q, k, v, enable_gqa=grouped)

        ways = {
            "graphexec": ours(g, inputs),
            "SDPA FlashAttention-2, captured": captured(by(SDPBackend.FLASH_ATTENTION)),
            "SDPA cuDNN, captured": captured(by(SDPBackend.CUDNN_ATTENTION)),
        }
        wide = (t.double() for t in (q, k, v))
        exact = scaled_dot_product_attention(*wide, enable_gqa=group > 1)
        flops = 4 * batch * heads * group * queries * keys * width
        yield compared(f"attention f16 {shape}", ways, exact, "≥ 0.9× the best", flops,
                       k.nbytes + v.nbytes + 2 * q.nbytes)  # fmt: skip


def projections_graph(shape: tuple[int, ...], heads: int) -> gx.Graph:
    """As graphs/multi_head_attention.yaml, in f16 and with the weights as inputs."""
    batch, length, width = shape
    g = gx.Graph("projections")
    x = g.input("x", shape, "f16")
    split = []
    for name in "qkv":
        y = g.gemm(x, g.input(f"w{name}", (width, width), "f16"), name=name)
        y = g.copy(y, reshape=[batch, length, heads, width // heads], name=f"{name}_split")
        split.append(g.copy(y, permute=[0, 2, 1, 3], name=f"{name}_heads"))
    scores = g.gemm(split[0], split[1], trans_b=True, alpha=(width / heads) ** -0.5)
    context = g.gemm(g.softmax(scores), split[2], name="ctx")
    merged = g.copy(context, permute=[0, 2, 1, 3], reshape=list(shape), name="merged")
    g.output(out=g.gemm(merged, g.input("wo", (width, width), "f16"), name="y"))
    return g


def projected(
    x: torch.Tensor, wq: torch.Tensor, wk: torch.Tensor, wv: torch.Tensor, wo: torch.Tensor,
    heads: int,
) -> torch.Tensor:  # fmt: skip
    q, k, v = (torch.matmul(x, w).unflatten(-1, (heads, -1)).transpose(1, 2) for w in (wq, wk, wv))
    if x.dtype == torch.float64:
        return torch.matmul(plain(q, k, v, False).transpose(1, 2).flatten(2), wo)
    return torch.matmul(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2), wo)


def projection_rows() -> Iterator[Row]:
    for shape, heads in (((2, 512, 512), 8), ((4, 1024, 1024), 16)):
        width = shape[-1]
        inputs = {"x": random(*shape)}
        inputs |= {f"w{name}": random(width, width) * width**-0.5 for name in "qkvo"}
        exact = projected(**{n: t.double() for n, t in inputs.items()}, heads=heads)
        compiled = torch.compile(projected)
        with_sdpa = lambda i=inputs, h=heads: projected(**i, heads=h)  # noqa: E731
        ways = {
            "graphexec": ours(projections_graph(shape, heads), inputs, tuned=True),
            "PyTorch eager": eager(with_sdpa),
            "PyTorch with SDPA, captured": captured(with_sdpa),
            "torch.compile, captured": captured(
                lambda f=compiled, i=inputs, h=heads: f(**i, heads=h)
            ),
        }
        tokens = shape[0] * shape[1]
        flops = 8 * tokens * width**2 + 4 * tokens * shape[1] * width
        nbytes = 2 * (2 * tokens * width + 4 * width**2)
        yield compared(f"attention with projections f16 {shape}, {heads} heads", ways, exact,
                       "≥ 1.2× the best", flops, nbytes)  # fmt: skip
