"""hipBLAS: handles, and matrix products that are prepared once and run often.

Matrices are column-major here, as in BLAS. A row-major C = A·B is the column-major
Cᵀ = Bᵀ·Aᵀ: pass B as `a` and A as `b`. Strides count elements, sizes of memory bytes.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from graphexec.runtime.hip.status import Checker, Step

Pointer = Any  # hip-python's Pointer to device memory
Handle = Any
Stream = Any

DATA_TYPES = {"f16": "HIP_R_16F", "bf16": "HIP_R_16BF", "f32": "HIP_R_32F", "f64": "HIP_R_64F"}


@dataclass(frozen=True)
class BlasGemm:
    """C = alpha * op(A) * op(B) + beta * C, column-major; op(A) is m by k, op(B) k by n.

    `dtype` is f16, bf16, f32 or f64, of A and B, and of C unless `out_dtype` says otherwise; sums
    are f32, and f64 for f64. With `batch` above 1, the strides lead from one matrix to the next;
    stride 0 uses one for all. hipBLASLt can write another matrix D of C's type, if `ldd` is not 0.
    """

    dtype: str
    m: int
    n: int
    k: int
    lda: int
    ldb: int
    ldc: int
    trans_a: bool = False
    trans_b: bool = False
    alpha: float = 1.0
    beta: float = 0.0
    batch: int = 1
    stride_a: int = 0
    stride_b: int = 0
    stride_c: int = 0
    out_dtype: str | None = None
    ldd: int = 0
    stride_d: int = 0

    def scalar(self, value: float) -> ctypes.c_float | ctypes.c_double:
        """alpha or beta in the type of the sums."""
        return ctypes.c_double(value) if self.dtype == "f64" else ctypes.c_float(value)


class Blas:
    """hipBLAS. A handle belongs to one stream; its workspace is set after the stream."""

    def __init__(self, hip: Any, hipblas: Any, types: Any, checker: Checker) -> None:
        self._hipblas = hipblas
        self._types = types
        self._call = checker.call
        self._step = checker.step
        self._enums = BlasEnums(hip, hipblas)

    def create(self) -> Handle:
        """A new handle, on the null stream until `set_stream`."""
        return self._call(self._hipblas.hipblasCreate)

    def destroy(self, handle: Handle) -> None:
        """Free a handle."""
        self._call(self._hipblas.hipblasDestroy, handle)

    def set_stream(self, handle: Handle, stream: Stream) -> None:
        """Bind a handle to a stream. cuBLAS forgets the workspace here."""
        self._call(self._hipblas.hipblasSetStream, handle, stream)

    def set_workspace(self, handle: Handle, workspace: Pointer, nbytes: int) -> None:
        """Set a handle's workspace: 256-byte aligned memory that lives as long as the handle."""
        self._call(self._hipblas.hipblasSetWorkspace, handle, workspace, nbytes)

    def gemm(
        self,
        handle: Handle,
        gemm: BlasGemm,
        a: Pointer,
        b: Pointer,
        c: Pointer,
        node: str | None = None,
    ) -> Step:
        """A prepared product of one matrix, or of `gemm.batch` matrices at fixed strides."""
        g = gemm
        op_a, op_b, dtype, out, compute, algorithm = self._enums.of(g)
        alpha, beta = self._scalars(g)
        if g.batch == 1:
            return self._step(
                self._hipblas.hipblasGemmEx,
                *(handle, op_a, op_b, g.m, g.n, g.k, alpha),
                *(a, dtype, g.lda, b, dtype, g.ldb, beta, c, out, g.ldc),
                *(compute, algorithm),
                node=node,
            )
        return self._step(
            self._hipblas.hipblasGemmStridedBatchedEx,
            *(handle, op_a, op_b, g.m, g.n, g.k, alpha),
            *(a, dtype, g.lda, g.stride_a, b, dtype, g.ldb, g.stride_b, beta),
            *(c, out, g.ldc, g.stride_c, g.batch, compute, algorithm),
            node=node,
        )

    def gemm_batched(
        self,
        handle: Handle,
        gemm: BlasGemm,
        a: Pointer,
        b: Pointer,
        c: Pointer,
        node: str | None = None,
    ) -> Step:
        """A prepared product of `gemm.batch` matrices each; a, b and c are arrays of pointers in
        device memory."""
        g = gemm
        op_a, op_b, dtype, out, compute, algorithm = self._enums.of(g)
        alpha, beta = self._scalars(g)
        pointers = self._types.ListOfPointer
        return self._step(
            self._hipblas.hipblasGemmBatchedEx,
            *(handle, op_a, op_b, g.m, g.n, g.k, alpha),
            *(pointers(a), dtype, g.lda, pointers(b), dtype, g.ldb, beta),
            *(pointers(c), out, g.ldc, g.batch, compute, algorithm),
            node=node,
        )

    def _scalars(self, gemm: BlasGemm) -> tuple[Pointer, Pointer]:
        """alpha and beta as pointers that keep the numbers alive."""
        pointer = self._types.Pointer
        return pointer(gemm.scalar(gemm.alpha)), pointer(gemm.scalar(gemm.beta))


class BlasEnums:
    """The enumeration members of a product, looked up once."""

    def __init__(self, hip: Any, hipblas: Any) -> None:
        self.operations = {
            False: hipblas.hipblasOperation_t.HIPBLAS_OP_N,
            True: hipblas.hipblasOperation_t.HIPBLAS_OP_T,
        }
        self.dtypes = {name: hip.hipDataType[member] for name, member in DATA_TYPES.items()}
        f32 = hipblas.hipblasComputeType_t.HIPBLAS_COMPUTE_32F
        f64 = hipblas.hipblasComputeType_t.HIPBLAS_COMPUTE_64F
        self.computes = {name: f64 if name == "f64" else f32 for name in DATA_TYPES}
        self.algorithm = hipblas.hipblasGemmAlgo_t.HIPBLAS_GEMM_DEFAULT

    def of(self, gemm: BlasGemm) -> tuple[Any, Any, Any, Any, Any, Any]:
        """op(A), op(B), the type of A and B, of C, of the sums, and the algorithm."""
        return (
            self.operations[gemm.trans_a],
            self.operations[gemm.trans_b],
            self.dtypes[gemm.dtype],
            self.dtypes[gemm.out_dtype or gemm.dtype],
            self.computes[gemm.dtype],
            self.algorithm,
        )
