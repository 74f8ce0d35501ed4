"""Attention in float64, entry by entry, and inputs that are hard to get right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from exact import DTYPES, UNIT, Array, draw, run, to_dtype, wide
from hardware import PLAIN

import graphexec as gx
from graphexec.ir.program import Work
from graphexec.machine.support import Support

FROBENIUS = {"f16": 2e-3, "bf16": 8e-3, "f32": 2e-6, "f64": 1e-13}
"""Largest relative error of a result, by its type."""

Shape = tuple[int, ...]


def exact(arrays: Mapping[str, Array], attrs: Mapping[str, Any]) -> tuple[Array, float]:
    """The definition, one query at a time, and the largest finite logit in size."""
    q, k, v = (
        wide(arrays[n]).swapaxes(-1, -2) if attrs.get(f"trans_{n}") else wide(arrays[n])
        for n in "qkv"
    )
    batch = np.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v)))
    queries, keys = q.shape[-2], k.shape[-2]
    scale = attrs.get("scale", q.shape[-1] ** -0.5)
    q, k, v = (np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (q, k, v))
    mask = wide(arrays["mask"]) if "mask" in arrays else np.zeros(())
    mask = np.broadcast_to(mask, (*batch, queries, keys))
    result, largest = np.zeros((*batch, queries, v.shape[-1])), 0.0
    for entry in np.ndindex(batch):
        for query in range(queries):
            seen = keys + query - queries + 1 if attrs.get("causal") else keys
            z = scale * k[entry] @ q[entry][query] + mask[entry][query]
            z = z[: max(seen, 0)]
            if len(z) == 0 or z.max() == -np.inf:
                continue  # it sees nothing
            largest = max(largest, float(np.abs(z[np.isfinite(z)]).max()))
            weights = np.exp(z - z.max())
            result[entry][query] = weights @ v[entry][: len(z)] / weights.sum()
    return result, largest


def assert_close(
    found: Array, expected: tuple[Array, float], dtype: str, terms: Array | None = None
) -> None:
    """The relative Frobenius error is small, and what must be zero is.

    An error of a logit is an equal relative error of its weight, so large ones add to what is
    allowed: their rounding in the type that sums are kept in. With `terms`, Σ weight · |v|, the
    error is relative to these: the terms of a tiny result may cancel, their roundings do not.
    """
    exact, largest = expected
    assert found.dtype == gx.DType(dtype).numpy()
    assert found.shape == exact.shape
    assert np.isfinite(wide(found)).all()
    assert np.all(wide(found)[np.all(exact == 0, axis=-1)] == 0)
    error = np.linalg.norm(wide(found) - exact)
    allowed = FROBENIUS[dtype] + 4 * largest * UNIT["f64" if dtype == "f64" else "f32"]
    size = np.linalg.norm(exact if terms is None else terms)
    assert error <= allowed * size, error / size


def arrays(
    dtype: str, q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...] | None = None,
    mask: tuple[int, ...] | None = None, large: float = 1.0, mask_dtype: str = "f32", seed: int = 0,
) -> dict[str, Array]:  # fmt: skip
    """Operands drawn from a normal distribution; `large` is the size of q, and so of the logits.

    A mask hides about a third of the keys, and all keys from the first query.
    """
    rng = np.random.default_rng(seed)
    found = {"q": draw(rng, q, dtype, large), "k": draw(rng, k, dtype),
             "v": draw(rng, v or k, dtype)}  # fmt: skip
    if mask is not None:
        values = rng.standard_normal(mask)
        values[rng.random(mask) < 0.3] = -np.inf
        if len(mask) > 1:
            values[..., 0, :] = -np.inf
        found["mask"] = to_dtype(values, mask_dtype)
    return found


class Plain(gx.CpuDevice):
    """A device that has no attention of its own: two GEMMs with a softmax between them."""

    def support(self, work: Work) -> Support:
        return PLAIN.support(work)


def graph_of(types: dict[str, tuple[Shape, str]], **attrs: Any) -> gx.Graph:
    graph = gx.Graph("g")
    for name, (shape, dtype) in types.items():
        graph.input(name, shape, dtype)
    graph.attention(**{name: name for name in types}, **attrs, name="y")
    graph.output("y")
    return graph


def dtype_of(array: Array) -> str:
    return next(d for d in DTYPES if gx.DType(d).numpy() == array.dtype)


def check(
    given: dict[str, Array], *, ways: str = "both", by_terms: bool = False, **attrs: Any
) -> Array:
    """Check the numbers as one command, and as three."""
    types = {name: (array.shape, dtype_of(array)) for name, array in given.items()}
    graph, expected = graph_of(types, **attrs), exact(given, attrs)
    dtype = attrs.get("out_dtype", dtype_of(given["q"]))
    terms = exact({**given, "v": np.abs(given["v"])}, attrs)[0] if by_terms else None
    found = run(graph, given)["y"]
    assert_close(found, expected, dtype, terms)
    if ways == "both":
        with gx.compile(graph, device=Plain(poison=True)) as exe:
            assert_close(exe.run(**given)["y"], expected, dtype, terms)
    return found
