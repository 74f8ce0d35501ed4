"""hiprtc, modules and kernel launches.

Sources, names and options are wrapped before the call: hip-python 7.2 frees its own wrappers before
the library reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphexec.runtime.hip.status import Checker, HipError, Step

# hip-python's classes, which are opaque here.
Module = Any
Function = Any
PackedArguments = Any
Stream = Any


class Kernels:
    """Compiling HIP sources, loading modules, and preparing launches."""

    def __init__(self, hip: Any, hiprtc: Any, types: Any, helpers: Any, checker: Checker) -> None:
        self._hip = hip
        self._hiprtc = hiprtc
        self._types = types
        self._helpers = helpers
        self._call = checker.call
        self._step = checker.step

    def version(self) -> tuple[int, int]:
        """hiprtc's major and minor version; part of what compiled code depends on."""
        major, minor = self._call(self._hiprtc.hiprtcVersion)
        return major, minor

    def compile(self, source: str, name: str, options: Sequence[str] = ()) -> bytes:
        """Machine code of a HIP source, by hiprtc; `name` stands in its messages.

        options -- as for hipcc, `--offload-arch=...` among them. Raises HipError whose `meaning`
        ends with the compiler's log.
        """
        rtc, types = self._hiprtc, self._types
        source_text, title = types.CStr(source.encode()), types.CStr(name.encode())
        program = self._call(rtc.hiprtcCreateProgram, source_text, title, 0, None, None)
        try:
            arguments = types.ListOfBytes([option.encode() for option in options])
            try:
                self._call(rtc.hiprtcCompileProgram, program, len(options), arguments)
            except HipError as error:
                log = self._compile_log(program)
                meaning = f"{error.meaning}\n{log}" if log else error.meaning
                raise HipError(error.call, error.code, error.name, meaning) from None
            code = bytearray(self._call(rtc.hiprtcGetCodeSize, program))
            self._call(rtc.hiprtcGetCode, program, code)
            return bytes(code)
        finally:
            self._call(rtc.hiprtcDestroyProgram, program.createRef())

    def load_module(self, code: bytes) -> Module:
        """Load machine code into this thread's device."""
        return self._call(self._hip.hipModuleLoadData, code)

    def unload_module(self, module: Module) -> None:
        """Free a module and its functions."""
        self._call(self._hip.hipModuleUnload, module)

    def function(self, module: Module, name: str) -> Function:
        """A kernel of a module, by its C name."""
        return self._call(self._hip.hipModuleGetFunction, module, self._types.CStr(name.encode()))

    def pack(self, arguments: Sequence[Any]) -> PackedArguments:
        """Kernel arguments packed once: ctypes values by value, pointers as addresses."""
        return self._helpers.HipModuleLaunchKernel_extra(tuple(arguments))

    def prepare_launch(
        self,
        function: Function,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared_bytes: int,
        stream: Stream,
        arguments: PackedArguments,
        node: str | None = None,
    ) -> Step:
        """Launch a kernel: `grid` counts blocks, `block` threads."""
        return self._step(
            self._hip.hipModuleLaunchKernel,
            *(function, *grid, *block, shared_bytes, stream, None, arguments),
            node=node,
        )

    def allow_shared_memory(self, function: Function, nbytes: int) -> None:
        """Allow launches of a kernel with this much dynamic shared memory."""
        attribute = self._hip.hipFuncAttribute.hipFuncAttributeMaxDynamicSharedMemorySize
        self._call(self._hip.hipFuncSetAttribute, function, attribute, nbytes)

    def _compile_log(self, program: Any) -> str:
        log = bytearray(self._call(self._hiprtc.hiprtcGetProgramLogSize, program))
        self._call(self._hiprtc.hiprtcGetProgramLog, program, self._types.CStr(log))
        return log.rstrip(b"\0").decode(errors="replace").strip()
