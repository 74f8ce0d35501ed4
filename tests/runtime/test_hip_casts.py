"""Casts on the HIP device: the same bits as everywhere, for every pair of types."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_harness import Applied, Harness, tensor
from numbers_table import array, assert_numbers, cast, edges

from graphexec.base.tensor import DType
from graphexec.ops.copy import OP as COPY

pytestmark = [pytest.mark.hip, pytest.mark.slow]

PAIRS = [(source, target) for source in DType for target in DType if source is not target]


@pytest.fixture(scope="module")
def harness() -> Harness:
    device = Harness.open()
    device.use_wavefront(64)
    kernels = (_cast(*pair, way).kernels for pair in PAIRS for way in WAYS)
    device.cache().compile(kernel for several in kernels for kernel in several)
    return device


COUNT = 4 * max(len(edges(dtype)) for dtype in DType) + 3
WAYS: dict[str, dict[str, object]] = {
    "in vectors": {"reshape": (-1,)},
    "strided, the last element first": {"slice": {0: (None, None, -1)}},
}


def _cast(source: DType, target: DType, way: str) -> Applied:
    return Applied(COPY, {"x": tensor(source.value, COUNT)}, dtype=target, **WAYS[way])


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_cast_of_edges(harness: Harness, source: DType, target: DType, way: str) -> None:
    values = (edges(source) * COUNT)[:COUNT]
    found = _cast(source, target, way).run(harness, x=array(values, source))
    expected = [cast(value, target) for value in values]
    assert_numbers(found, expected[::-1] if "last" in way else expected, target)


@pytest.mark.parametrize("target", [dtype for dtype in DType if dtype is not DType.BOOL])
def test_any_byte_but_zero_is_true(harness: Harness, target: DType) -> None:
    x = np.resize(np.array([0, 1, 2, 255], np.uint8), COUNT).view(bool)
    found = _cast(DType.BOOL, target, "in vectors").run(harness, x=x)
    expected = np.resize([0.0, 1.0, 1.0, 1.0], COUNT)
    assert found.astype(np.float64).tolist() == expected.tolist()


@pytest.mark.parametrize("source", list(DType))
def test_transposed_bytes(harness: Harness, source: DType) -> None:
    """Tiles in shared memory, of elements of every size, walked backwards too."""
    x = np.random.default_rng(0).integers(0, 2, (70, 133)).astype(source.numpy())
    for target, step in ((source, 1), (DType.U8, 1), (DType.BF16, -1), (source, -1)):
        applied = Applied(
            COPY, {"x": tensor(source.value, 70, 133)}, dtype=target, permute=(1, 0),
            slice={1: (None, None, step)},
        )  # fmt: skip
        found = applied.run(harness, x=x)
        assert (found.astype(np.float64) == x.T[::step].astype(np.float64)).all()
