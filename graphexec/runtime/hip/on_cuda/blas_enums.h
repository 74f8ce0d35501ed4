/* The enumerations that hipBLAS and hipBLASLt have in common. */
#ifndef BLAS_ENUMS_H
#define BLAS_ENUMS_H

#include <cublas_v2.h>

#include "translate.h"

typedef int hipblasStatus_t;

enum {
    HIPBLAS_STATUS_SUCCESS = 0,
    HIPBLAS_STATUS_ALLOC_FAILED = 2,
    HIPBLAS_STATUS_INVALID_VALUE = 3,
    HIPBLAS_STATUS_NOT_SUPPORTED = 7,
    HIPBLAS_STATUS_UNKNOWN = 11,
};

static const Pair BLAS_STATUSES[] = {
    {0, CUBLAS_STATUS_SUCCESS},
    {1, CUBLAS_STATUS_NOT_INITIALIZED},
    {2, CUBLAS_STATUS_ALLOC_FAILED},
    {3, CUBLAS_STATUS_INVALID_VALUE},
    {4, CUBLAS_STATUS_MAPPING_ERROR},
    {5, CUBLAS_STATUS_EXECUTION_FAILED},
    {6, CUBLAS_STATUS_INTERNAL_ERROR},
    {7, CUBLAS_STATUS_NOT_SUPPORTED},
    {8, CUBLAS_STATUS_ARCH_MISMATCH},
};

static const Pair BLAS_OPERATIONS[] = {
    {111, CUBLAS_OP_N},
    {112, CUBLAS_OP_T},
    {113, CUBLAS_OP_C},
};

static const Pair DATA_TYPES[] = {
    {0, CUDA_R_32F},  {1, CUDA_R_64F},      {2, CUDA_R_16F},      {3, CUDA_R_8I},
    {10, CUDA_R_32I}, {14, CUDA_R_16BF},    {28, CUDA_R_8F_E4M3}, {29, CUDA_R_8F_E5M2},
};

/* HIPBLAS_COMPUTE_32F is plain f32, without TF32: the handle keeps the default math mode. */
static const Pair COMPUTE_TYPES[] = {
    {0, CUBLAS_COMPUTE_16F},
    {1, CUBLAS_COMPUTE_16F_PEDANTIC},
    {2, CUBLAS_COMPUTE_32F},
    {3, CUBLAS_COMPUTE_32F_PEDANTIC},
    {4, CUBLAS_COMPUTE_32F_FAST_16F},
    {5, CUBLAS_COMPUTE_32F_FAST_16BF},
    {6, CUBLAS_COMPUTE_32F_FAST_TF32},
    {7, CUBLAS_COMPUTE_64F},
    {8, CUBLAS_COMPUTE_64F_PEDANTIC},
    {9, CUBLAS_COMPUTE_32I},
    {10, CUBLAS_COMPUTE_32I_PEDANTIC},
};

static inline hipblasStatus_t blas_done(cublasStatus_t cuda)
{
    int hip;
    return TO_HIP(BLAS_STATUSES, cuda, &hip) ? hip : HIPBLAS_STATUS_UNKNOWN;
}

#endif
