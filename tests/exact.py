"""Float64 arithmetic that tests compare results with, and how far these may be from it."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphexec as gx
from graphexec.machine.costs import GPU

Array = np.ndarray[Any, Any]

DTYPES = ("f16", "bf16", "f32", "f64")
PRECISION = {"f16": 11, "bf16": 8, "f32": 24, "f64": 53}  # bits of the significand
UNIT = {name: 2.0**-bits for name, bits in PRECISION.items()}  # largest relative rounding error
TINIEST = {"f16": -24, "bf16": -133, "f32": -149, "f64": -1074}  # exponent of the least subnormal
LARGEST = {"f16": 65504.0, "bf16": (2 - 2.0**-7) * 2.0**127, "f32": (2 - 2.0**-23) * 2.0**127,
           "f64": np.finfo(np.float64).max}  # fmt: skip


def to_dtype(values: Any, dtype: str) -> Array:
    """Values as an array that an executable takes for an input of `dtype`."""
    return np.asarray(values, np.float64).astype(gx.DType(dtype).numpy())


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, scale: float = 1.0) -> Array:
    """Normal numbers that `dtype` holds exactly."""
    return to_dtype(rng.standard_normal(shape) * scale, dtype)


def wide(array: Array) -> Array:
    """The same numbers in float64."""
    return np.asarray(array).astype(np.float64)


def rounded(values: Array, dtype: str) -> Array:
    """Float64 values rounded to the nearest of `dtype`, ties to even, as float64."""
    values = np.asarray(values, np.float64)
    finite = np.isfinite(values)
    _, exponent = np.frexp(np.where(finite, values, 0.0))
    quantum = np.maximum(exponent - PRECISION[dtype], TINIEST[dtype])
    with np.errstate(over="ignore", under="ignore"):
        near = np.ldexp(np.rint(np.ldexp(np.where(finite, values, 0.0), -quantum)), quantum)
    near = np.where(np.abs(near) > LARGEST[dtype], np.copysign(np.inf, near), near)
    return np.where(finite, near, values)


def assert_within(found: Array, expected: Array, dtype: str, error: Any = 0.0) -> None:
    """`found` is `expected` (float64) rounded to `dtype` after an absolute error of `error`."""
    assert found.dtype == gx.DType(dtype).numpy()
    assert found.shape == expected.shape
    allowed = error * (1 + UNIT[dtype]) + UNIT[dtype] * np.abs(expected) + 2.0 ** TINIEST[dtype]
    difference = np.abs(wide(found) - expected)
    allowed = np.broadcast_to(allowed, difference.shape)
    worst = np.unravel_index(np.argmax(difference - allowed), difference.shape)
    assert np.all(difference <= allowed), (
        f"at {worst}: {wide(found)[worst]} instead of {expected[worst]}, "
        f"off by {difference[worst]:.3g}, allowed {allowed[worst]:.3g}"
    )


def run(graph: gx.Graph, inputs: dict[str, Array], streams: int = 2) -> dict[str, Array]:
    """Outputs of one run on the CPU, its arena poisoned with NaN. By the costs of a GPU, which lead
    to more streams."""
    device = gx.CpuDevice(poison=True)
    with gx.compile(graph, device=device, streams=streams, costs=GPU) as exe:
        return exe.run(**inputs)
