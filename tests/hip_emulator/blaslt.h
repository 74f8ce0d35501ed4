// The objects of hipBLASLt.
#pragma once

#include "blas.h"

using hipblasLtMatmulDesc_t = struct hipblasLtMatmulDescOpaque_t*;
using hipblasLtMatrixLayout_t = struct hipblasLtMatrixLayoutOpaque_t*;
using hipblasLtMatmulPreference_t = struct hipblasLtMatmulPreferenceOpaque_t*;

enum : int {
    HIPBLASLT_MATMUL_DESC_TRANSA = 0,
    HIPBLASLT_MATMUL_DESC_TRANSB = 1,
    HIPBLASLT_MATMUL_DESC_EPILOGUE = 2,
    HIPBLASLT_MATMUL_DESC_BIAS_POINTER = 3,
    HIPBLASLT_MATMUL_DESC_BIAS_DATA_TYPE = 4,
    HIPBLASLT_MATMUL_DESC_POINTER_MODE = 13,
    HIPBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE = 23,
};

enum : int {
    HIPBLASLT_MATRIX_LAYOUT_BATCH_COUNT = 0,
    HIPBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET = 1,
    HIPBLASLT_MATRIX_LAYOUT_TYPE = 2,
    HIPBLASLT_MATRIX_LAYOUT_ORDER = 3,
    HIPBLASLT_MATRIX_LAYOUT_ROWS = 4,
    HIPBLASLT_MATRIX_LAYOUT_COLS = 5,
    HIPBLASLT_MATRIX_LAYOUT_LD = 6,
};

enum : int { HIPBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1 };
enum : std::int32_t { HIPBLASLT_ORDER_COL = 0 };

namespace emulator {

constexpr std::int32_t bias_type_unset = -1;  // then it is D's

struct MatmulDesc {
    hipblasComputeType_t compute = HIPBLAS_COMPUTE_32F;
    hipDataType scale_type = HIP_R_32F;
    std::int32_t op_a = HIPBLAS_OP_N;
    std::int32_t op_b = HIPBLAS_OP_N;
    std::uint32_t epilogue = 1;
    const void* bias = nullptr;
    std::int32_t bias_type = bias_type_unset;
    std::int64_t bias_stride = 0;  // in elements, from one product of a batch to the next
    std::int32_t pointer_mode = HIPBLAS_POINTER_MODE_HOST;
};

struct Layout {
    hipDataType type = HIP_R_32F;
    std::uint64_t rows = 0;
    std::uint64_t cols = 0;
    std::int64_t ld = 0;
    std::int32_t order = HIPBLASLT_ORDER_COL;
    std::int32_t batch = 1;
    std::int64_t stride = 0;  // in elements
};

struct Preference {
    std::uint64_t workspace_bytes = 0;
};

struct LtHandle {};

// hipblasLtMatmulHeuristicResult_t
struct HeuristicResult {
    unsigned char algorithm[16];
    std::size_t max_workspace_bytes;
    std::size_t workspace_bytes;
    hipblasStatus_t state;
    float waves;
    int reserved[4];
};

using LtHandleTable = Table<Kind::blaslt, void*, LtHandle>;
using MatmulDescTable = Table<Kind::matmul_desc, hipblasLtMatmulDesc_t, MatmulDesc>;
using LayoutTable = Table<Kind::layout, hipblasLtMatrixLayout_t, Layout>;
using PreferenceTable = Table<Kind::preference, hipblasLtMatmulPreference_t, Preference>;
LtHandleTable& lt_handles();
MatmulDescTable& matmul_descs();
LayoutTable& layouts();
PreferenceTable& preferences();

}  // namespace emulator
