"""Runs Triton kernels in Triton's interpreter on NumPy arrays, without PyTorch and without a GPU.

    TRITON_INTERPRET=1 python triton_interpreter.py < cases.pickle > results.pickle

A process of its own, because Triton reads the setting when it is imported. A case is some kernels,
the GPU whose configuration they take, and the bytes of its storages; the result is the bytes after.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

from graphexec.base.tensor import DType, View
from graphexec.ir.program import Argument, Gpu, TritonKernel
from graphexec.runtime.hip.triton import load_source

NAMES = {
    DType.F16: "float16", DType.BF16: "bfloat16", DType.F32: "float32", DType.F64: "float64",
    DType.BOOL: "uint8", DType.I32: "int32", DType.I64: "int64",
}  # fmt: skip


class Memory:
    """The interpreter's view of a tensor: the address of its first element, and its type."""

    def __init__(self, view: View, raw: np.ndarray[Any, Any]) -> None:
        self.address = raw.ctypes.data + view.offset * view.dtype.itemsize
        self.dtype = NAMES[view.dtype]

    def data_ptr(self) -> int:
        return self.address

    # The interpreter copies tensors to the host and back; these lie there.
    def untyped_storage(self) -> Memory:
        return self

    def cpu(self) -> Memory:
        return self

    def new_empty(self, size: int, device: str) -> Memory:
        return self

    def set_(self, *rest: object) -> None: ...
    def copy_(self, other: Memory) -> None: ...
    def storage_offset(self) -> int:
        return 0

    def size(self) -> tuple[int, ...]:
        return ()

    def stride(self) -> tuple[int, ...]:
        return ()


def multiply_bf16() -> None:
    """The interpreter keeps bf16 as uint16 and multiplies these: have it widen them before."""
    plain = interpreter.InterpreterBuilder.create_dot

    def create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        return plain(self, *map(widened, (a, b)), d, *rest)

    def widened(x: Any) -> Any:
        if x.dtype.scalar != tl.bfloat16:
            return x
        wide = (x.data.astype(np.uint32) << 16).view(np.float32)
        return interpreter.TensorHandle(wide, tl.float32)

    interpreter.InterpreterBuilder.create_dot = create_dot


def count_with_scalars() -> None:
    """The interpreter takes loop bounds from arrays of one element, which NumPy no longer does."""
    plain = interpreter._patch_lang_tensor

    def patch(tensor: Any, scope: Any) -> None:
        plain(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch


def interpret(kernel: TritonKernel, gpu: Gpu, storages: dict[str, np.ndarray[Any, Any]]) -> None:
    """Run every block of the kernel, one after another."""
    launch = kernel.on(gpu)
    function = getattr(load_source(launch.source), kernel.entry)

    def given(argument: Argument) -> Any:
        if isinstance(argument, tuple):
            return tuple(map(given, argument))
        if isinstance(argument, View):
            return Memory(argument, storages[argument.storage])
        return argument.value

    names = [name for name in function.arg_names if name not in launch.constants]
    args = dict(zip(names, map(given, launch.args), strict=True))
    function[launch.grid](**args, **launch.constants)


if __name__ == "__main__":
    multiply_bf16()
    count_with_scalars()
    np.seterr(all="ignore")
    results = []
    for kernels, gpu, storages in pickle.load(sys.stdin.buffer):
        for kernel in kernels:
            interpret(kernel, gpu, storages)
        results.append(storages)
    pickle.dump(results, sys.stdout.buffer)
