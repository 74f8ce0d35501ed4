/* libhipblas on top of cuBLAS. See hip.c. */
#include <stdint.h>

#include "blas_enums.h"

static const char *const BLAS_STATUS_NAMES[] = {
    "HIPBLAS_STATUS_SUCCESS",        "HIPBLAS_STATUS_NOT_INITIALIZED",
    "HIPBLAS_STATUS_ALLOC_FAILED",   "HIPBLAS_STATUS_INVALID_VALUE",
    "HIPBLAS_STATUS_MAPPING_ERROR",  "HIPBLAS_STATUS_EXECUTION_FAILED",
    "HIPBLAS_STATUS_INTERNAL_ERROR", "HIPBLAS_STATUS_NOT_SUPPORTED",
    "HIPBLAS_STATUS_ARCH_MISMATCH",  "HIPBLAS_STATUS_HANDLE_IS_NULLPTR",
    "HIPBLAS_STATUS_INVALID_ENUM",   "HIPBLAS_STATUS_UNKNOWN",
};

static const Pair POINTER_MODES[] = {
    {0, CUBLAS_POINTER_MODE_HOST},
    {1, CUBLAS_POINTER_MODE_DEVICE},
};

static const Pair MATH_MODES[] = {
    {0, CUBLAS_DEFAULT_MATH},
    {2, CUBLAS_PEDANTIC_MATH},
    {3, CUBLAS_TF32_TENSOR_OP_MATH},
    {4, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION},
};

static const Pair GEMM_ALGORITHMS[] = {
    {160, CUBLAS_GEMM_DEFAULT},
};

EXPORT const char *hipblasStatusToString(hipblasStatus_t status)
{
    bool known = status >= 0 && (size_t)status < LENGTH(BLAS_STATUS_NAMES);
    return known ? BLAS_STATUS_NAMES[status] : "HIPBLAS_STATUS_UNKNOWN";
}

EXPORT hipblasStatus_t hipblasCreate(cublasHandle_t *handle)
{
    return blas_done(cublasCreate(handle));
}

EXPORT hipblasStatus_t hipblasDestroy(cublasHandle_t handle)
{
    return blas_done(cublasDestroy(handle));
}

EXPORT hipblasStatus_t hipblasGetVersion(cublasHandle_t handle, int *version)
{
    return blas_done(cublasGetVersion(handle, version));
}

/* cuBLAS forgets the workspace here: a caller sets it after the stream. */
EXPORT hipblasStatus_t hipblasSetStream(cublasHandle_t handle, cudaStream_t stream)
{
    return blas_done(cublasSetStream(handle, stream));
}

EXPORT hipblasStatus_t hipblasGetStream(cublasHandle_t handle, cudaStream_t *stream)
{
    return blas_done(cublasGetStream(handle, stream));
}

EXPORT hipblasStatus_t hipblasSetWorkspace(cublasHandle_t handle, void *workspace, size_t bytes)
{
    return blas_done(cublasSetWorkspace(handle, workspace, bytes));
}

EXPORT hipblasStatus_t hipblasSetPointerMode(cublasHandle_t handle, int mode)
{
    int cuda;
    if (!TO_CUDA(POINTER_MODES, mode, &cuda))
        return HIPBLAS_STATUS_NOT_SUPPORTED;
    return blas_done(cublasSetPointerMode(handle, (cublasPointerMode_t)cuda));
}

EXPORT hipblasStatus_t hipblasGetPointerMode(cublasHandle_t handle, int *mode)
{
    cublasPointerMode_t cuda;
    hipblasStatus_t status = blas_done(cublasGetPointerMode(handle, &cuda));
    if (status == HIPBLAS_STATUS_SUCCESS && !TO_HIP(POINTER_MODES, cuda, mode))
        return HIPBLAS_STATUS_NOT_SUPPORTED;
    return status;
}

EXPORT hipblasStatus_t hipblasSetMathMode(cublasHandle_t handle, int mode)
{
    int cuda;
    if (!TO_CUDA(MATH_MODES, mode, &cuda))
        return HIPBLAS_STATUS_NOT_SUPPORTED;
    return blas_done(cublasSetMathMode(handle, (cublasMath_t)cuda));
}

EXPORT hipblasStatus_t hipblasGetMathMode(cublasHandle_t handle, int *mode)
{
    cublasMath_t cuda;
    hipblasStatus_t status = blas_done(cublasGetMathMode(handle, &cuda));
    if (status == HIPBLAS_STATUS_SUCCESS && !TO_HIP(MATH_MODES, cuda, mode))
        return HIPBLAS_STATUS_NOT_SUPPORTED;
    return status;
}

/* The enumerations that the three GEMM functions share, in place: HIP's in, CUDA's out. */
typedef struct {
    int trans_a, trans_b, a_type, b_type, c_type, compute, algorithm;
} GemmEnums;

static bool translate_gemm(GemmEnums *enums)
{
    return TO_CUDA(BLAS_OPERATIONS, enums->trans_a, &enums->trans_a) &&
           TO_CUDA(BLAS_OPERATIONS, enums->trans_b, &enums->trans_b) &&
           TO_CUDA(DATA_TYPES, enums->a_type, &enums->a_type) &&
           TO_CUDA(DATA_TYPES, enums->b_type, &enums->b_type) &&
           TO_CUDA(DATA_TYPES, enums->c_type, &enums->c_type) &&
           TO_CUDA(COMPUTE_TYPES, enums->compute, &enums->compute) &&
           TO_CUDA(GEMM_ALGORITHMS, enums->algorithm, &enums->algorithm);
}

EXPORT hipblasStatus_t hipblasGemmEx(cublasHandle_t handle, int trans_a, int trans_b, int m, int n,
                                     int k, const void *alpha, const void *a, int a_type, int lda,
                                     const void *b, int b_type, int ldb, const void *beta, void *c,
                                     int c_type, int ldc, int compute, int algorithm)
{
    GemmEnums e = {trans_a, trans_b, a_type, b_type, c_type, compute, algorithm};
    if (!translate_gemm(&e))
        return HIPBLAS_STATUS_NOT_SUPPORTED;
    return blas_done(cublasGemmEx(
        handle, (cublasOperation_t)e.trans_a, (cublasOperation_t)e.trans_b, m, n, k, alpha, a,
        (cudaDataType)e.a_type, lda, b, (cudaDataType)e.b_type, ldb, beta, c,
        (cudaDataType)e.c_type, ldc, (cublasComputeType_t)e.compute,
        (cublasGemmAlgo_t)e.algorithm));
}

EXPORT hipblasStatus_t hipblasGemmStridedBatchedEx(
    cublasHandle_t handle, int trans_a, int trans_b, int m, int n, int k, const void *alpha,
    const void *a, int a_type, int lda, int64_t stride_a, const void *b, int b_type, int ldb,
    int64_t stride_b, const void *beta, void *c, int c_type, int ldc, int64_t stride_c, int count,
    int compute, int algorithm)
{
    GemmEnums e = {trans_a, trans_b, a_type, b_type, c_type, compute, algorithm};
    if (!translate_gemm(&e))
        return HIPBLAS_STATUS_NOT_SUPPORTED;
    return blas_done(cublasGemmStridedBatchedEx(
        handle, (cublasOperation_t)e.trans_a, (cublasOperation_t)e.trans_b, m, n, k, alpha, a,
        (cudaDataType)e.a_type, lda, stride_a, b, (cudaDataType)e.b_type, ldb, stride_b, beta, c,
        (cudaDataType)e.c_type, ldc, stride_c, count, (cublasComputeType_t)e.compute,
        (cublasGemmAlgo_t)e.algorithm));
}

EXPORT hipblasStatus_t hipblasGemmBatchedEx(
    cublasHandle_t handle, int trans_a, int trans_b, int m, int n, int k, const void *alpha,
    const void *const a[], int a_type, int lda, const void *const b[], int b_type, int ldb,
    const void *beta, void *const c[], int c_type, int ldc, int count, int compute, int algorithm)
{
    GemmEnums e = {trans_a, trans_b, a_type, b_type, c_type, compute, algorithm};
    if (!translate_gemm(&e))
        return HIPBLAS_STATUS_NOT_SUPPORTED;
    return blas_done(cublasGemmBatchedEx(
        handle, (cublasOperation_t)e.trans_a, (cublasOperation_t)e.trans_b, m, n, k, alpha, a,
        (cudaDataType)e.a_type, lda, b, (cudaDataType)e.b_type, ldb, beta, c,
        (cudaDataType)e.c_type, ldc, count, (cublasComputeType_t)e.compute,
        (cublasGemmAlgo_t)e.algorithm));
}
