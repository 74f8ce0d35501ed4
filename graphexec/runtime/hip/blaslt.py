"""hipBLASLt: matrix products with an epilogue. Needs hip-python 10.

Column-major, like `hip_blas`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from graphexec.runtime.hip.blas import BlasEnums, BlasGemm, Handle, Pointer, Stream
from graphexec.runtime.hip.status import Checker, HipError

LISTED = 16
"""The fixed length of requested lists of algorithms: a shorter list need not be the beginning of a
longer one."""


class NoAlgorithm(HipError):
    """No call failed, but hipBLASLt lists too few algorithms for a product."""


class BlasLt:
    """hipBLASLt: handles, which belong to no stream, and prepared products."""

    def __init__(
        self, hip: Any, hipblas: Any, hipblaslt: Any, types: Any, checker: Checker
    ) -> None:
        self.functions = hipblaslt
        self.pointer = types.Pointer
        self.enums = BlasEnums(hip, hipblas)
        self.checker = checker

    def create(self) -> Handle:
        """A new handle."""
        return self.checker.call(self.functions.hipblasLtCreate)

    def destroy(self, handle: Handle) -> None:
        """Free a handle."""
        self.checker.call(self.functions.hipblasLtDestroy, handle)

    def version(self) -> str:
        """The version of the library; its lists of algorithms depend on it."""
        handle = self.create()
        try:
            return str(self.checker.call(self.functions.hipblasLtGetVersion, handle))
        finally:
            self.destroy(handle)

    def gemm(
        self,
        handle: Handle,
        gemm: BlasGemm,
        a: Pointer,
        b: Pointer,
        c: Pointer,
        stream: Stream,
        workspace: Pointer,
        workspace_bytes: int,
        epilogue: str = "DEFAULT",
        bias: Pointer | None = None,
        stride_bias: int = 0,
        d: Pointer | None = None,
        node: str | None = None,
        choice: int = 0,
    ) -> LtGemm:
        """A prepared product, by the algorithm at place `choice` of the list that hipBLASLt's
        heuristic returns for this workspace size; 0 is its first choice.

        epilogue -- DEFAULT, RELU or GELU, or with a bias BIAS, RELU_BIAS or GELU_BIAS.
        bias -- a vector of m elements of C's type, added to every column.
        stride_bias -- elements to the bias of the next product of a batch; 0: all have the same.
        d -- what is written, where that is not C: laid out as `gemm` says, or in C's place.

        Raises HipError, and NoAlgorithm if hipBLASLt has no such algorithm.
        """
        operation = LtGemm(self, gemm, epilogue, bias, stride_bias)
        try:
            algorithms = operation.algorithms(handle, workspace_bytes)
            if len(algorithms) <= choice:
                call, found = "hipblasLtMatmulAlgoGetHeuristic", len(algorithms)
                message = f"algorithm {choice} was asked for, {found} are there"
                raise NoAlgorithm(call, 0, "too few", message)
            algorithm = algorithms[choice]
        except BaseException:
            operation.close()
            raise
        alpha, beta = (self.pointer(gemm.scalar(value)) for value in (gemm.alpha, gemm.beta))
        operation.step = self.checker.step(
            self.functions.hipblasLtMatmul,
            *(handle, operation.matmul, alpha, a, operation.a, b, operation.b),
            *(beta, c, operation.c, c if d is None else d, operation.d),
            *(algorithm, workspace, workspace_bytes, stream),
            node=node,
        )
        return operation


class LtGemm:
    """A product with its descriptors: run it with `step`, free it with `close`."""

    step: Callable[[], object]

    def __init__(
        self, lt: BlasLt, gemm: BlasGemm, epilogue: str, bias: Pointer | int | None,
        stride_bias: int = 0,
    ) -> None:  # fmt: skip
        self._lt = lt.functions
        self._call = lt.checker.call
        self._pointer = lt.pointer
        self._destroy: list[Callable[[], object]] = []
        g = gemm
        op_a, op_b, dtype, out, compute, _ = lt.enums.of(g)
        try:
            self.matmul = self._owned(
                self._lt.hipblasLtMatmulDescDestroy,
                self._call(
                    self._lt.hipblasLtMatmulDescCreate,
                    compute,
                    lt.enums.dtypes["f64" if g.dtype == "f64" else "f32"],
                ),
            )
            self._describe("TRANSA", ctypes.c_int32(op_a))
            self._describe("TRANSB", ctypes.c_int32(op_b))
            code = self._lt.hipblasLtEpilogue_t[f"HIPBLASLT_EPILOGUE_{epilogue}"]
            self._describe("EPILOGUE", ctypes.c_int32(code))
            if bias is not None:
                # Not c_void_p: hip-python takes its value as the address of the attribute.
                self._describe("BIAS_POINTER", ctypes.c_uint64(int(bias)))
                self._describe("BIAS_DATA_TYPE", ctypes.c_int32(out))
            if stride_bias:  # libraries before ROCm 7.14 refuse the attribute
                self._describe("BIAS_BATCH_STRIDE", ctypes.c_int64(stride_bias))
            a_shape = (g.k, g.m) if g.trans_a else (g.m, g.k)
            b_shape = (g.n, g.k) if g.trans_b else (g.k, g.n)
            self.a = self._layout(dtype, *a_shape, g.lda, g.batch, g.stride_a)
            self.b = self._layout(dtype, *b_shape, g.ldb, g.batch, g.stride_b)
            self.c = self.d = self._layout(out, g.m, g.n, g.ldc, g.batch, g.stride_c)
            if g.ldd:
                self.d = self._layout(out, g.m, g.n, g.ldd, g.batch, g.stride_d)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the descriptors. A second call does nothing."""
        while self._destroy:
            self._destroy.pop()()

    def algorithms(self, handle: Handle, workspace_bytes: int) -> list[Any]:
        """Up to LISTED algorithms for the descriptors and this much workspace, in the order of
        hipBLASLt's heuristic; valid as long as this object."""
        lt, most = self._lt, LISTED
        preference = self._owned(
            lt.hipblasLtMatmulPreferenceDestroy, self._call(lt.hipblasLtMatmulPreferenceCreate)
        )
        limit = lt.hipblasLtMatmulPreferenceAttributes_t.HIPBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES
        set_attribute = lt.hipblasLtMatmulPreferenceSetAttribute
        self._call(set_attribute, preference, limit, ctypes.c_uint64(workspace_bytes), 8)
        size = lt._hipblasLtMatmulHeuristicResult_t().c_sizeof()
        self.results = (ctypes.c_ubyte * (most * size))()
        first = ctypes.addressof(self.results)
        found = self._call(
            lt.hipblasLtMatmulAlgoGetHeuristic,
            *(handle, self.matmul, self.a, self.b, self.c, self.d, preference),
            *(most, self._pointer(first)),
        )
        # A result begins with its algorithm.
        return [self._pointer(first + i * size) for i in range(found)]

    def _describe(self, name: str, value: Any) -> None:
        known = self._lt.hipblasLtMatmulDescAttributes_t.__members__
        attribute = known.get(f"HIPBLASLT_MATMUL_DESC_{name}")
        set_attribute = self._lt.hipblasLtMatmulDescSetAttribute
        if attribute is None:
            message = f"this hip-python has no attribute {name}"
            raise HipError(set_attribute.__name__, -1, "no status", message)
        self._call(set_attribute, self.matmul, attribute, value, ctypes.sizeof(value))

    def _layout(
        self, dtype: Any, rows: int, columns: int, leading: int, batch: int, stride: int
    ) -> Any:
        lt = self._lt
        layout = self._owned(
            lt.hipblasLtMatrixLayoutDestroy,
            self._call(lt.hipblasLtMatrixLayoutCreate, dtype, rows, columns, leading),
        )
        if batch > 1:
            names = lt.hipblasLtMatrixLayoutAttribute_t
            for attribute, value in (
                (names.HIPBLASLT_MATRIX_LAYOUT_BATCH_COUNT, ctypes.c_int32(batch)),
                (names.HIPBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, ctypes.c_int64(stride)),
            ):
                set_attribute = lt.hipblasLtMatrixLayoutSetAttribute
                self._call(set_attribute, layout, attribute, value, ctypes.sizeof(value))
        return layout

    def _owned(self, destroy: Callable[..., Any], thing: Any) -> Any:
        self._destroy.append(lambda: self._call(destroy, thing))
        return thing
