"""Maps within products of few rows on a HIP device, in wavefronts of 32 and of 64."""

from __future__ import annotations

from math import erf
from typing import Any

import numpy as np
import pytest
from few_rows_bodies import FUSED, F, Fused
from kernel_harness import Harness, random_array

from graphexec.graph.infer import infer

Array = np.ndarray[Any, Any]
TOLERANCE = {"f16": 2**-9, "bf16": 2**-6, "f32": 2**-18}


@pytest.fixture(scope="module")
def harness() -> Harness:
    return Harness.open()


@pytest.mark.parametrize("lanes", [32, 64])
@pytest.mark.parametrize("case", FUSED, ids=str)
def test_a_map_within_a_product(harness: Harness, case: Fused, lanes: int) -> None:
    harness.use_wavefront(lanes)
    typed = infer(case.graph())
    arrays = {n: random_array(t, i, 0.3) for i, (n, t) in enumerate(typed.inputs.items())}
    program = case.program("hip")
    place = {program.inputs[name].storage: array for name, array in arrays.items()}
    sizes = {name: storage.nbytes for name, storage in program.storages.items()}
    out = program.outputs["out"]
    raw = harness.run(program.commands, place, sizes)[out.storage]
    found = raw.view(out.dtype.numpy()).reshape(out.shape)
    expected = exact(case, {name: array.astype(np.float64) for name, array in arrays.items()})
    if expected.dtype == bool:
        np.testing.assert_array_equal(found, expected)
        return
    limit = TOLERANCE[case.dtype if case.out is None else case.out]
    np.testing.assert_allclose(found.astype(np.float64), expected, limit, limit)


def exact(case: Fused, arrays: dict[str, Array]) -> Array:
    """In float64, with the functions that the expressions use."""
    x, w = arrays["x"], arrays["w"]
    p = 0.5 * (x @ (w if case.turned else w.T))
    p = p + arrays.get("c", 0.0) + arrays.get("bias", 0.0)
    names = {"p": p, "g": p[:, :F], "u": p[:, F:], **arrays}
    functions = {
        "silu": lambda z: z / (1 + np.exp(-z)), "where": np.where,
        "gelu": lambda z: 0.5 * z * (1 + np.vectorize(erf)(z / 2**0.5)),
    }  # fmt: skip
    return np.asarray(eval(case.expression, functions, names))
