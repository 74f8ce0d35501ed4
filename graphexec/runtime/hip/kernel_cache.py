"""Compiled kernels, kept in the process and on disk.

On disk an entry is named by a hash of all that its code depends on: source text, options,
architecture, the runtime, hiprtc and graphexec. A folder that cannot be used is no error; one that
is not the user's alone is warned of.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from graphexec.base.cache import (
    Cache,
    CacheError,
    CacheWarning,
    UntrustedFolder,
    cache_folder,
    fingerprint,
)
from graphexec.base.errors import ExecutionError
from graphexec.base.interrupts import own
from graphexec.base.progress import tracked
from graphexec.base.version import __version__
from graphexec.ir.program import Gpu, Kernel, NoKernel, TritonKernel, TritonLaunch
from graphexec.machine.support import YES, Support, no
from graphexec.runtime.device import FallbackWarning
from graphexec.runtime.hip import triton as hip_triton
from graphexec.runtime.hip.bindings import Bindings, HipError
from graphexec.runtime.hip.kernel_source import self_contained
from graphexec.runtime.hip.triton import TritonBinary

OPTIONS = ("-std=c++17", "-O3")
UNASKED_SHARED = 48 << 10
"""Bytes of dynamic shared memory that a kernel may use on NVIDIA GPUs without an attribute."""

Code = Kernel | TritonKernel

_in_process: dict[str, bytes] = {}
_answers: dict[tuple[int, str], Support] = {}  # about Triton kernels, by device and key
_lock = threading.Lock()


class KernelCache:
    """The kernels of one session on devices of one architecture.

    Entries are kept in `folder`, by default `cache_folder("kernels")`.
    """

    def __init__(
        self, hip: Bindings, architecture: str, device: int = 0, folder: Path | None = None
    ) -> None:
        self._properties = properties = hip.properties(device)
        gpu = Gpu(architecture, properties.warp_size, properties.multiprocessors)
        self._hip, self._gpu = hip, gpu
        self._options = (f"--offload-arch={architecture}", *OPTIONS)
        self._cache = _usable(cache_folder("kernels") if folder is None else folder)
        self._environment = (
            *self._options,
            *(hip.platform.name, hip.platform.runtime_version),
            *map(str, hip.kernels.version()),
            str(gpu.warp_size),
            __version__,
        )
        self._modules: dict[str, Any] = {}

    def function(self, kernel: Kernel, owned: ExitStack) -> Any:
        """The compiled entry point, loaded into this thread's device until `owned` is closed.

        Raises ExecutionError with the compiler's log if the source does not compile.
        """
        key, text = self._identify(kernel)
        module = self._module(key, self._code(kernel, key, text), owned)
        return self._hip.kernels.function(module, kernel.entry)

    def triton(self, kernel: TritonKernel, owned: ExitStack) -> tuple[Any, TritonBinary]:
        """Like `function`, with the launch parameters of the compiled kernel."""
        key, text = self._identify(kernel)
        binary = TritonBinary.from_bytes(self._code(kernel, key, text))
        module = self._module(key, binary.code, owned)
        function = self._hip.kernels.function(module, binary.name)
        if binary.shared_bytes > UNASKED_SHARED:
            self._give_shared(function, binary)
        return function, binary

    def _give_shared(self, function: Any, binary: TritonBinary) -> None:
        """Allow a kernel the shared memory it needs; ExecutionError if the device has less."""
        needed = binary.shared_bytes
        refusal = ExecutionError(
            f"the kernel '{binary.name}' needs {needed} bytes of shared memory, more than "
            f"{self._gpu.architecture} has"
        )
        if self._gpu.architecture.startswith("gfx"):
            # On AMD a block may use all shared memory, and functions of modules take no attributes.
            if needed > self._properties.shared_memory_per_block:
                raise refusal
            return
        try:
            self._hip.kernels.allow_shared_memory(function, needed)
        except HipError as exc:
            raise refusal from exc

    def key(self, kernel: Code) -> str:
        """Equal for kernels that share their code."""
        return self._identify(kernel)[0]

    def launch(self, kernel: TritonKernel) -> TritonLaunch:
        """The launch of a Triton kernel on this GPU."""
        return kernel.on(self._gpu)

    def _module(self, key: str, code: bytes, owned: ExitStack) -> Any:
        if key not in self._modules:
            kernels = self._hip.kernels
            self._modules[key] = own(
                owned, lambda: kernels.load_module(code), kernels.unload_module
            )
        return self._modules[key]

    def compile(self, kernels: Iterable[Code]) -> None:
        """Load the code of all `kernels`; missing code is compiled in parallel."""
        jobs = {}
        for kernel in kernels:
            key, text = self._identify(kernel)
            jobs[key] = kernel, key, text
        if jobs:
            with ThreadPoolExecutor(min(len(jobs), os.cpu_count() or 1)) as pool:
                done = pool.map(lambda job: self._code(*job), jobs.values())
                list(tracked("compiling kernels", done, len(jobs)))

    def code(self, kernel: Code) -> bytes:
        """The machine code of a kernel."""
        return self._code(kernel, *self._identify(kernel))

    def path(self, kernel: Code) -> Path | None:
        """Where the entry of a kernel is kept; None where nothing can be kept."""
        return self._cache.folder / self._identify(kernel)[0] if self._cache else None

    def _identify(self, kernel: Code) -> tuple[str, str]:
        try:
            text = (
                self_contained(kernel)
                if isinstance(kernel, Kernel)
                else hip_triton.identity(kernel, self._gpu)
            )
        except (OSError, ValueError) as exc:
            raise ExecutionError(f"the kernel '{kernel.entry}' cannot be read: {exc}") from exc
        options = kernel.options if isinstance(kernel, Kernel) else ()
        return f"{fingerprint(*self._environment, *options, text)}.kernel", text

    def _code(self, kernel: Code, key: str, text: str) -> bytes:
        with _lock:
            code = _in_process.get(key)
        if code is None:
            code = self._cache.read(key) if self._cache else None
            if code is None:
                code = self._compiled(kernel, text)
                if self._cache:
                    with suppress(CacheError):
                        self._cache.write(key, code)
            with _lock:
                _in_process[key] = code
        return code

    def _compiled(self, kernel: Code, text: str) -> bytes:
        if isinstance(kernel, TritonKernel):
            return hip_triton.compile_kernel(kernel, self._gpu).to_bytes()
        try:
            options = (*self._options, *kernel.options)
            return self._hip.kernels.compile(text, kernel.source.name, options)
        except HipError as exc:
            defines = " ".join(f"{name}={value}" for name, value in kernel.defines)
            what = f"the kernel '{kernel.entry}' of {kernel.source} ({defines})"
            raise ExecutionError(f"{what} does not compile: {exc}") from exc


def support(hip: Bindings, device: int, kernel: TritonKernel) -> Support:
    """Whether a Triton kernel can be launched on a device: it is compiled and loaded for that, and
    its code kept. Known for the rest of the process; one that fails is warned of once."""
    try:
        cache = KernelCache(hip, hip.properties(device).architecture, device)
        key = device, cache.key(kernel)
    except NoKernel as exc:
        return no(str(exc))
    if key not in _answers:
        _answers[key] = YES
        try:
            hip.set_device(device)
            with ExitStack() as owned:
                cache.triton(kernel, owned)
        except ExecutionError as exc:
            _answers[key] = no(str(exc))
            warnings.warn(f"planned without a kernel: {exc}", FallbackWarning, stacklevel=2)
    return _answers[key]


def _usable(folder: Path | None) -> Cache | None:
    """The cache in a folder; None where there can be none."""
    try:
        cache = Cache(folder)
        cache.check()
        return cache
    except UntrustedFolder as error:
        message = f"kernels are compiled anew in every process: {error}"
        warnings.warn(message, CacheWarning, stacklevel=3)
    except CacheError:
        pass
    return None
