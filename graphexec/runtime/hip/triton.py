"""Triton kernels compiled for a GPU, without Triton's own runtime: code to load and launch.

Only this module imports Triton, and only when a kernel is compiled. Triton drops parameters that
are constants, and appends two pointers to scratch memory. Parameters are specialised as by
Triton's launcher: an integer 1 becomes a constant, and a multiple of 16 is declared as such, which
wide loads need.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from graphexec.base.atomic_file import scratch_folder
from graphexec.base.errors import ExecutionError
from graphexec.base.tensor import DType, View
from graphexec.ir.program import Argument, Gpu, Scalar, TritonKernel, TritonLaunch

SUPPORTED = "3.6"
"""The supported version of Triton: others may add other parameters to compiled kernels."""

_POINTERS = {
    DType.F16: "*fp16", DType.BF16: "*bf16", DType.F32: "*fp32", DType.F64: "*fp64",
    DType.BOOL: "*u8", DType.I32: "*i32", DType.I64: "*i64",
}  # fmt: skip
_SCALARS = {"i32": "i32", "i64": "i64", "f32": "fp32", "f64": "fp64"}
_MULTIPLE = 16
_DIVISIBLE = ["tt.divisibility", _MULTIPLE]
_NEAR = ["tt.pointer_range", 32]  # all accesses by a pointer are within 2 GiB: AMD only
_compiling = threading.Lock()  # Triton's cache folder is a setting of the process
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class TritonBinary:
    """A compiled kernel. `scratch_bytes` of global memory are needed for every block."""

    code: bytes
    name: str
    threads: int
    shared_bytes: int
    scratch_bytes: int

    def to_bytes(self) -> bytes:
        """The kernel as bytes, for the cache."""
        head = {k: v for k, v in asdict(self).items() if k != "code"}
        text = json.dumps(head).encode()
        return _LENGTH.pack(len(text)) + text + self.code

    @staticmethod
    def from_bytes(data: bytes) -> TritonBinary:
        """The inverse of `to_bytes`."""
        (length,) = _LENGTH.unpack_from(data)
        start = _LENGTH.size + length
        return TritonBinary(data[start:], **json.loads(data[_LENGTH.size : start]))


def why_not() -> str:
    """The reason why Triton kernels cannot be compiled here; empty if they can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install 'graphexec[fused]')"
    found = version()
    if not found.startswith(f"{SUPPORTED}."):
        return f"Triton {found} is installed, but {SUPPORTED} is needed"
    return ""


def version() -> str:
    """Triton's version."""
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def passed(args: tuple[Argument, ...]) -> Iterator[View | Scalar]:
    """The arguments that a compiled kernel takes: without integers that are 1."""
    for argument in args:
        for each in argument if isinstance(argument, tuple) else (argument,):
            if not _is_one(each):
                yield each


def identity(kernel: TritonKernel, gpu: Gpu) -> str:
    """All that the code compiled for `kernel` on `gpu` depends on. Raises ExecutionError."""
    reason = why_not()
    if reason:
        raise ExecutionError(reason)
    launch = kernel.on(gpu)
    kinds = [
        tuple(map(_described, a)) if isinstance(a, tuple) else _described(a) for a in launch.args
    ]
    parts = (kernel.entry, kinds, sorted(launch.constants.items()), sorted(launch.options.items()),
             gpu.architecture, gpu.warp_size, version())  # fmt: skip
    return f"{parts}\n{launch.source.read_text(encoding='utf-8')}"


def compile_kernel(kernel: TritonKernel, gpu: Gpu) -> TritonBinary:
    """Compile `kernel` for `gpu`. No GPU is needed. Raises ExecutionError."""
    launch = kernel.on(gpu)
    source = launch.source
    try:
        with _compiling:
            return _compiled(kernel.entry, launch, gpu)
    except Exception as exc:  # Triton raises any exception of its passes, LLVM or ptxas
        what = f"the Triton kernel '{kernel.entry}' of {source} for {gpu.architecture}"
        message = f"{what} does not compile: {type(exc).__name__}: {exc}"
        raise ExecutionError(message) from exc


def _compiled(entry: str, launch: TritonLaunch, gpu: Gpu) -> TritonBinary:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.experimental.gluon._runtime import GluonASTSource

    function = getattr(load_source(launch.source), entry)
    on_amd = gpu.architecture.startswith("gfx")
    signature, constants, attributes = _signature(
        launch.args, launch.constants, function.arg_names, on_amd
    )
    language = GluonASTSource if function.is_gluon() else ASTSource
    source = language(function, signature, constants, attributes)
    target = (
        GPUTarget("hip", gpu.architecture.split(":")[0], gpu.warp_size)
        if on_amd
        else GPUTarget("cuda", int(gpu.architecture.removeprefix("sm_")), gpu.warp_size)
    )
    # graphexec has its own cache of kernels, so Triton's files are temporary.
    with scratch_folder() as folder, triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(folder)
        made = triton.compile(source, target=target, options=dict(launch.options))
    meta = made.metadata
    if getattr(meta, "num_ctas", 1) != 1:
        raise ValueError("clusters of blocks are not supported")
    return TritonBinary(
        bytes(made.kernel), meta.name, meta.num_warps * gpu.warp_size, meta.shared,
        getattr(meta, "global_scratch_size", 0) or 0,
    )  # fmt: skip


@cache
def load_source(path: Path) -> ModuleType:
    """The module in a Triton source, under a name of its own."""
    name = f"graphexec_triton_{path.stem}_{abs(hash(path)):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Triton looks the globals of a function up there
    spec.loader.exec_module(module)
    return module


def _signature(
    args: tuple[Argument, ...], constants: Mapping[str, Any], names: list[str], on_amd: bool
) -> tuple[dict[str, Any], dict[tuple[int, ...], Any], dict[tuple[int, ...], list[list[Any]]]]:
    """Triton's types, constants and attributes of the parameters `names`."""
    rest = iter(args)
    signature: dict[str, Any] = {}
    fixed: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}

    def kind(place: tuple[int, ...], argument: View | Scalar) -> str:
        if _is_one(argument):
            fixed[place] = 1
            return "constexpr"
        known = _attributes(argument, on_amd)
        if known:
            attributes[place] = known
        return _type(argument)

    for index, name in enumerate(names):
        if name in constants:
            signature[name], fixed[(index,)] = "constexpr", constants[name]
            continue
        argument = next(rest)
        if isinstance(argument, tuple):
            signature[name] = tuple(kind((index, i), each) for i, each in enumerate(argument))
        else:
            signature[name] = kind((index,), argument)
    left = len(list(rest))
    if left:
        raise ValueError(f"{left} arguments too many")
    return signature, fixed, attributes


def _type(argument: View | Scalar) -> str:
    return _POINTERS[argument.dtype] if isinstance(argument, View) else _SCALARS[argument.type]


def _attributes(argument: View | Scalar, on_amd: bool) -> list[list[Any]]:
    if isinstance(argument, Scalar):
        whole = argument.type in ("i32", "i64")
        return [_DIVISIBLE] if whole and argument.value % _MULTIPLE == 0 else []
    # Storages start at multiples of 16 bytes.
    aligned = argument.offset * argument.dtype.itemsize % _MULTIPLE == 0
    near = on_amd and argument.byte_range()[1] < 2**31
    return ([_DIVISIBLE] if aligned else []) + ([_NEAR] if near else [])


def _is_one(argument: View | Scalar) -> bool:
    return isinstance(argument, Scalar) and argument.type in ("i32", "i64") and argument.value == 1


def _described(argument: View | Scalar) -> tuple[Any, ...]:
    return (_type(argument), _is_one(argument), _attributes(argument, True))
