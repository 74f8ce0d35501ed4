"""Inputs from other libraries in the memory of the host: by NumPy's protocols, or by DLPack."""

from __future__ import annotations

import ctypes
import gc
import weakref
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphexec as gx
from graphexec.runtime.device_array import NotTaken, _DLTensor, host_array

Array = np.ndarray[Any, Any]
DTYPES = {
    "f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "f64": np.float64,
    "i8": np.int8, "u8": np.uint8, "i32": np.int32, "i64": np.int64, "bool": np.bool_,
}  # fmt: skip
CODES = {"i": 0, "u": 1, "f": 2, "V": 4, "b": 6}


class Tensor:
    """A tensor with DLPack alone; what NumPy's DLPack does not know is given away as its bits."""

    def __init__(self, values: Array, device: int = 1) -> None:
        self.values, self.device = values, device
        self.bits = values.view(f"u{values.itemsize}")

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self) -> object:
        capsule = self.bits.__dlpack__()
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        tensor = _DLTensor.from_address(get(capsule, b"dltensor"))
        tensor.code = CODES[self.values.dtype.kind]
        return capsule


class OfTorch(Tensor):
    """As torch.bfloat16: it has `__array__`, which fails."""

    def __array__(self, *args: Any, **more: Any) -> Array:
        raise TypeError("Got unsupported ScalarType BFloat16")


class ByArray:
    """As an array of JAX: `__array__` alone."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return self.values


class ByInterface:
    """As Python's imaging library: `__array_interface__` alone."""

    def __init__(self, values: Array) -> None:
        self.values, self.__array_interface__ = values, values.__array_interface__


def _graph(dtype: str) -> gx.Graph:
    graph = gx.Graph()
    graph.input("x", (5, 7), dtype)
    graph.output(y=graph.copy("x", permute=[1, 0]))
    return graph


def _values(dtype: str) -> Array:
    return np.linspace(-3, 11, 35).reshape(5, 7).astype(DTYPES[dtype])


KINDS = (Tensor, OfTorch, ByArray, ByInterface, memoryview, "strided")
NO_BF16 = (ByInterface, memoryview)


@pytest.mark.parametrize(("dtype", "kind"), [
    (d, k) for d in DTYPES for k in KINDS if d != "bf16" or k not in NO_BF16
])  # fmt: skip
def test_tensors_of_other_libraries_are_inputs(dtype: str, kind: Any) -> None:
    values = _values(dtype)
    given = OfTorch(np.asfortranarray(values)) if kind == "strided" else kind(values)
    with gx.compile(_graph(dtype), device="cpu") as exe:
        for found in (exe.run(x=given), exe.submit(x=given).result(), *exe.map([{"x": given}])):
            assert found["y"].dtype == DTYPES[dtype]
            assert np.array_equal(found["y"], values.T)
    assert gx.compare(_graph(dtype), {"x": given}, device="cpu").ok


def test_a_tensor_is_read_in_place_and_kept() -> None:
    values = _values("bf16")
    tensor = Tensor(values)
    kept = weakref.ref(tensor.bits.base if tensor.bits.base is not None else tensor.bits)
    found = host_array(tensor)
    assert np.shares_memory(found, values)
    assert not found.flags.writeable
    copy = values.copy()
    del tensor, values
    gc.collect()
    assert kept() is not None
    assert np.array_equal(found, copy)
    del found
    gc.collect()
    assert kept() is None


class Refusing:
    """As a tensor that requires a gradient."""

    def __array__(self, *args: Any) -> Array:
        raise RuntimeError("call detach() first")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self) -> object:
        raise BufferError("it requires a gradient")


@pytest.mark.parametrize(("given", "said"), [
    (Refusing(), "its owner does not give it away: it requires a gradient"),
    (Tensor(np.ones((5, 7)), device=8), "it lies on another device (DLPack device 8, 0)"),
    ([[1.0], [2.0, 3.0]], "inhomogeneous"),
    (None, "a NoneType is no array of numbers"),
    ({"a": 1}, "a dict is no array of numbers"),
])  # fmt: skip
def test_what_cannot_be_taken_is_an_error_of_its_input(given: Any, said: str) -> None:
    with gx.compile(_graph("f64"), device="cpu") as exe, pytest.raises(gx.DataError) as caught:
        exe.run(x=given)
    assert "input 'x' (f64[5, 7]) cannot be taken" in str(caught.value)
    assert said in str(caught.value)


def test_dlpack_of_other_elements_is_refused() -> None:
    for kind, said in (("u2", "code 1, 16 bits"), ("i2", "code 0, 16 bits")):
        with pytest.raises(NotTaken, match=said):
            host_array(Tensor(np.ones((2, 3), kind)))


@pytest.mark.parametrize(("wanted", "found", "help"), [
    ("bf16", "u2", "if it holds the bits of bf16: x.view(ml_dtypes.bfloat16)"),
    ("bf16", "V2", "if it holds the bits of bf16: x.view(ml_dtypes.bfloat16)"),
    ("bf16", "f4", "convert it: x.astype(ml_dtypes.bfloat16)"),
    ("bf16", "f2", "convert it: x.astype(ml_dtypes.bfloat16)"),
    ("f16", "u2", "if it holds the bits of f16: x.view('float16')"),
    ("f32", "i4", "convert it: x.astype('float32')"),
    ("f64", "u4", "convert it: x.astype('float64')"),
])  # fmt: skip
def test_the_help_for_another_dtype_gives_the_right_values(
    wanted: str, found: str, help: str
) -> None:
    with gx.compile(_graph(wanted), device="cpu") as exe:
        x = np.zeros((5, 7), found)
        with pytest.raises(gx.DataError) as caught:
            exe.run(x=x)
        assert help in str(caught.value)
        mended = eval(help.rpartition(": ")[2], {"x": x, "ml_dtypes": ml_dtypes})
        assert exe.run(x=mended)["y"].shape == (7, 5)
