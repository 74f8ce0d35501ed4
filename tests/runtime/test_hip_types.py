"""Integers, bools and slices that go back, in whole plans on the HIP device and the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hip_lab import MODES, Lab, Mode, bits

import graphexec as gx
from graphexec.tools.compare import compare_executable

Array = np.ndarray[Any, Any]

KINDS = ("i8", "u8", "i32", "i64", "bool", "f16")


def every_type(path: Any) -> gx.Graph:
    """Each type as input, weight, window, cast and output, and one of shape []."""
    g = gx.Graph("types", folder=path)
    np.savez(path / "w.npz", **{dtype: some(dtype, (4, 6), 9) for dtype in KINDS})
    for dtype in KINDS:
        x, w = g.input(f"x_{dtype}", (4, 6), dtype), g.weight(f"w_{dtype}", path / "w.npz", dtype)
        back = g.copy(x, slice={0: [None, None, -1], 1: [4, 0, -2]}, name=f"back_{dtype}")
        turned = g.copy(w, permute=[1, 0], name=f"turned_{dtype}")
        g.output(back, turned, x)
        for other in KINDS:
            g.output(g.copy(back, dtype=other, name=f"{dtype}_{other}"))
    g.output(g.copy(g.input("n", (), "i64"), dtype="i32", name="scalar"), "n")
    return g


def some(dtype: str, shape: tuple[int, ...], seed: int) -> Array:
    rng, kind = np.random.default_rng(seed), gx.DType(dtype).numpy()
    if dtype == "f16":
        return rng.standard_normal(shape).astype(kind) * 100
    least = -100 if np.can_cast("i1", kind) else 0
    return rng.integers(least, 2 if dtype == "bool" else 100, shape).astype(kind)


@pytest.mark.parametrize("mode", MODES)
def test_every_type_goes_everywhere(lab: Lab, mode: Mode, tmp_path: Any) -> None:
    with lab.compile(every_type(tmp_path), mode) as exe:
        inputs = {name: some(t.dtype.value, t.shape, 1) for name, t in exe.inputs.items()}
        found = exe.run(**inputs)
        assert compare_executable(exe, inputs).ok
    cpu = gx.CpuDevice(poison=True)
    with gx.compile(every_type(tmp_path), device=cpu) as exe:
        assert bits(exe.run(**inputs)) == bits(found)
    for dtype in KINDS:
        np.testing.assert_array_equal(found[f"x_{dtype}"], inputs[f"x_{dtype}"])
        np.testing.assert_array_equal(found[f"back_{dtype}"], inputs[f"x_{dtype}"][::-1, 4:0:-2])
        np.testing.assert_array_equal(found[f"turned_{dtype}"], some(dtype, (4, 6), 9).T)


@pytest.mark.parametrize("typed", ["i8", "u8", "i32", "i64", "bool"])
def test_arrays_on_the_device_are_taken(lab: Lab, typed: str) -> None:
    g = gx.Graph("g")
    g.output(y=g.copy(g.input("x", (3, 5), typed), slice={1: [None, None, -1]}, name="y"))
    x = some(typed, (3, 5), 2)
    with lab.compile(g, resident=True) as first, lab.compile(g) as second:
        first.run(x=x)
        array = first.device_array("y")
        assert array.__cuda_array_interface__["typestr"] == np.dtype(x.dtype).str
        found = second.run(x=array)["y"]
    np.testing.assert_array_equal(found, x)


def reversed_readers() -> gx.Graph:
    """Everything that may read a slice that goes back as a window."""
    g = gx.Graph("readers")
    x, w = g.input("x", (6, 16, 16)), g.input("w", (16, 16))
    mask, ids = g.input("mask", (16, 16)), g.input("ids", (4,), "i32")

    def back(tensor: str, *axes: int) -> str:
        return g.copy(tensor, slice={axis: [None, None, -1] for axis in axes})

    g.output(
        product=g.gemm(back(x, 0), back(w, 0)),
        sum=g.gemm(x, w, c=back(x, 0, 2), bias=g.copy(w, slice={0: [3, 2, -1]}, reshape=[16])),
        rows=g.softmax(back(x, 1)),
        columns=g.softmax(back(x, 0), axis=1),
        masked=g.softmax(x, mask=back(mask, 0)),
        seen=g.attention(back(x, 0), back(x, 0), x, mask=back(mask, 0)),
        mapped=g.map("silu(a) * b + c", a=back(x, 0), b=back(x, 1), c=back(x, 2)),
        normed=g.norm(back(x, 0, 1), weight=g.copy(w, slice={0: [0, 1, 1]}, reshape=[16])),
        reduced=g.reduce(back(x, 0, 2), kind="sum", axis=[0, 2]),
        largest=g.reduce(back(x, 1, 2), kind="argmax", axis=-1),
        gathered=g.gather(back(x, 1), back(ids, 0), axis=1),
        joined=g.concat([back(x, 0), x, back(x, 2)], axis=1),
        cast=g.copy(back(x, 0, 1, 2), dtype="f16", permute=[2, 0, 1]),
        twice=g.copy(back(x, 0), slice={0: [4, None, -3], 1: [2, 9]}, reshape=[2, -1]),
    )
    return g


@pytest.mark.parametrize("no_rewrite", [(), ("all",)])
@pytest.mark.parametrize("on", ["hip", "cpu"])
def test_slices_that_go_back_are_read_right(lab: Lab, on: str, no_rewrite: tuple[str, ...]) -> None:
    device: Any = "hip" if on == "hip" else gx.CpuDevice(poison=True)
    rng = np.random.default_rng(4)
    with gx.compile(reversed_readers(), device=device, no_rewrite=no_rewrite) as exe:
        inputs = {
            name: rng.standard_normal(t.shape).astype(t.dtype.numpy())
            for name, t in exe.inputs.items()
        } | {"ids": np.array([0, 15, -1, 7], np.int32)}
        found = compare_executable(exe, inputs)
        assert found.ok, [row for row in (*found.nodes, *found.outputs) if not row.ok]
        y = exe.run(**inputs)
    x = inputs["x"]
    np.testing.assert_array_equal(y["largest"], x[:, ::-1, ::-1].argmax(-1))
    np.testing.assert_array_equal(y["gathered"], x[:, ::-1][:, [7, -1, 15, 0]])
    np.testing.assert_array_equal(y["joined"], np.concatenate([x[::-1], x, x[..., ::-1]], 1))
    np.testing.assert_array_equal(y["twice"], x[::-1][4::-3, 2:9].reshape(2, -1))
