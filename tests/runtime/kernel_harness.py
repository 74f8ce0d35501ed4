"""Runs the commands of one op on a HIP device, with guards around every tensor.

On whatever `GRAPHEXEC_HIP_LIBRARY_PATH` names; on the emulator if it names nothing.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hip_emulator import build
from hip_emulator.emulator import Emulator

from graphexec.base.tensor import DType, TensorType, View
from graphexec.ir.op import Call, Op
from graphexec.ir.program import FAULT, Command, Kernel, Memcpy, Scalar
from graphexec.ops.append.kernels import FAULT as FAULT_WORD
from graphexec.runtime.hip.bindings import Bindings, load
from graphexec.runtime.hip.kernel_cache import KernelCache

Array = np.ndarray[Any, Any]

GUARD = 256  # bytes in front of and behind a tensor
POISON = 0xFF  # a NaN in every dtype
CTYPES: dict[str, Any] = {
    "i32": ctypes.c_int32,
    "i64": ctypes.c_int64,
    "f32": ctypes.c_float,
    "f64": ctypes.c_double,
}


class Harness:
    """A HIP device on which commands are run one after another."""

    def __init__(self, hip: Bindings, emulator: Emulator | None) -> None:
        self.hip = hip
        self.emulator = emulator

    @staticmethod
    def open() -> Harness:
        """Skips the test where there is neither a device nor a compiler for the emulator."""
        emulator = None
        if "GRAPHEXEC_HIP_LIBRARY_PATH" not in os.environ:
            try:
                emulator = Emulator.load()
            except build.BuildError as error:
                pytest.skip(str(error))
            os.environ["GRAPHEXEC_HIP_LIBRARY_PATH"] = str(build.build())
            try:
                return Harness(load(), emulator)
            finally:
                del os.environ["GRAPHEXEC_HIP_LIBRARY_PATH"]
        return Harness(load(), emulator)

    def use_wavefront(self, lanes: int) -> None:
        """Let the emulator have wavefronts of 32 or 64; a real device has what it has."""
        if self.emulator is not None:
            self.emulator.reset()
            self.emulator.set_wavefront(lanes)
            self.emulator.set_schedule("eager")
        elif self.hip.properties(0).warp_size != lanes:
            pytest.skip(f"this device's wavefronts do not have {lanes} lanes")

    def cache(self, folder: Path | None = None) -> KernelCache:
        return KernelCache(self.hip, self.hip.properties(0).architecture, folder=folder)

    def run(
        self, commands: Sequence[Command], tensors: Mapping[str, Array], sizes: Mapping[str, int]
    ) -> dict[str, Array]:
        """The bytes of every storage after the commands; `tensors` are what is in some before."""
        with ExitStack() as owned:
            memory = _Memory(self.hip, owned)
            for name, nbytes in sizes.items():
                clear = np.zeros(nbytes, np.uint8) if name == FAULT else None
                memory.take(name, nbytes, tensors.get(name, clear))
            stream = self.hip.create_stream()
            owned.callback(self.hip.destroy_stream, stream)
            cache = self.cache()
            for command in commands:
                match command.work:
                    case Kernel() as kernel:
                        arguments = [_argument(a, memory) for a in kernel.args]
                        self.hip.kernels.prepare_launch(
                            cache.function(kernel, owned), kernel.grid, kernel.block,
                            kernel.shared_bytes, stream, self.hip.kernels.pack(arguments),
                        )()  # fmt: skip
                        self.hip.synchronize_stream(stream)
                    case Memcpy() as copy:
                        low, high = copy.dst.byte_range()
                        places = [memory.address(v) for v in (copy.dst, copy.src)]
                        self.hip.copy(*map(self.hip.pointer, places), high - low, "d2d")
                    case other:
                        raise AssertionError(f"no BLAS here: {other}")
            return {name: memory.read(name) for name in sizes}


class _Memory:
    def __init__(self, hip: Bindings, owned: ExitStack) -> None:
        self._hip, self._owned = hip, owned
        self._places: dict[str, tuple[Any, int]] = {}

    def take(self, name: str, nbytes: int, content: Array | None) -> None:
        pointer = self._hip.malloc(nbytes + 2 * GUARD)
        self._owned.callback(self._hip.free, pointer)
        self._places[name] = pointer, nbytes
        whole = np.full(nbytes + 2 * GUARD, POISON, dtype=np.uint8)
        if content is not None:
            whole[GUARD : GUARD + nbytes] = np.ascontiguousarray(content).reshape(-1).view(np.uint8)
        self._hip.copy(pointer, self._hip.pointer(whole.ctypes.data), whole.size, "h2d")

    def read(self, name: str) -> Array:
        pointer, nbytes = self._places[name]
        whole = np.empty(nbytes + 2 * GUARD, dtype=np.uint8)
        self._hip.copy(self._hip.pointer(whole.ctypes.data), pointer, whole.size, "d2h")
        inside = slice(GUARD, GUARD + nbytes)
        assert (np.delete(whole, inside) == POISON).all(), f"bytes around '{name}' were written"
        return whole[inside]

    def address(self, view: View) -> int:
        return int(self._places[view.storage][0]) + GUARD + view.offset * view.dtype.itemsize


def _argument(argument: View | Scalar, memory: _Memory) -> Any:
    if isinstance(argument, View):
        return ctypes.c_void_p(memory.address(argument))
    return CTYPES[argument.type](argument.value)


class Applied:
    """An op applied to operands of given types: its commands, or the one that does the work of all
    of them `instead`, and what they should give."""

    def __init__(
        self, op: Op, types: Mapping[str, TensorType], instead: bool = False, **attrs: Any
    ) -> None:
        self.op, self.types = op, types
        self.attrs = {a.name: a.default for a in op.attributes} | attrs
        self.type = op.infer(types, self.attrs)
        self.sizes = {name: t.nbytes for name, t in types.items()} | {"out": self.type.nbytes}
        operands = {name: View.dense(name, t) for name, t in types.items()}
        out = View.dense("out", self.type)
        call = Call("node", operands, self.attrs, out, types, self.type, self._scratch)
        fault = partial(self._scratch, FAULT, FAULT_WORD)
        self.commands = op.lower(replace(call, _fault=lambda: (fault(), 1)))
        if instead:
            self.commands = [c.instead for c in self.commands if c.instead is not None]

    def _scratch(self, name: str, type: TensorType) -> View:
        self.sizes[name] = type.nbytes
        return View.dense(name, type)

    @property
    def kernels(self) -> list[Kernel]:
        return [c.work for c in self.commands if isinstance(c.work, Kernel)]

    def run(self, harness: Harness, **arrays: Array) -> Array:
        raw = harness.run(self.commands, arrays, self.sizes)["out"]
        return raw.view(self.type.dtype.numpy()).reshape(self.type.shape)

    def reference(self, **arrays: Array) -> Array:
        """In float64."""
        with np.errstate(all="ignore"):
            wide = {name: a.astype(np.float64) for name, a in arrays.items()}
            return np.asarray(self.op.reference(wide, self.attrs, self.type))


def random_array(type: TensorType, seed: int = 0, spread: float = 3.0) -> Array:
    values = np.random.default_rng(seed).normal(0.0, spread, type.shape)
    return values.astype(type.dtype.numpy())


def tensor(dtype: str, *shape: int) -> TensorType:
    return TensorType(shape, DType(dtype))
