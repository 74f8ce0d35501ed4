// hipBLAS: handles and the GemmEx family in all its names.
#include <algorithm>

#include "blas.h"
#include "capture.h"
#include "memory.h"

namespace emulator {
namespace {

template <class Body, class... Args>
hipblasStatus_t blas_call(const char* name, Body body, const Args&... args) {
    return api_call<hipblasStatus_t>(name, body, args...);
}

// Null when the handle is none; every function answers HIPBLAS_STATUS_NOT_INITIALIZED then.
std::shared_ptr<BlasHandle> handle_of(void* handle) { return blas_handles().find(handle); }

bool is_operation(hipblasOperation_t operation) {
    return operation == HIPBLAS_OP_N || operation == HIPBLAS_OP_T || operation == HIPBLAS_OP_C;
}

// The arguments that all forms of GemmEx have, as 64-bit numbers.
struct GemmCall {
    const char* name;
    void* handle;
    hipblasOperation_t op_a, op_b;
    std::int64_t m, n, k;
    const void* alpha;
    hipDataType type_a;
    std::int64_t ld_a;
    hipDataType type_b;
    std::int64_t ld_b;
    const void* beta;
    hipDataType type_c;
    std::int64_t ld_c;
    std::int64_t batch;
    hipblasComputeType_t compute;
};

// Everything but the addresses, checked in the order of the real library.
hipblasStatus_t prepare(const GemmCall& call, const BlasHandle& handle, Gemm& gemm) {
    if (!is_operation(call.op_a) || !is_operation(call.op_b)) return HIPBLAS_STATUS_INVALID_ENUM;
    gemm.m = call.m;
    gemm.n = call.n;
    gemm.k = call.k;
    gemm.transpose_a = call.op_a != HIPBLAS_OP_N;
    gemm.transpose_b = call.op_b != HIPBLAS_OP_N;
    gemm.a = {{}, call.type_a, call.m, call.k, call.ld_a};
    gemm.b = {{}, call.type_b, call.k, call.n, call.ld_b};
    gemm.c = {{}, call.type_c, call.m, call.n, call.ld_c};
    if (gemm.transpose_a) std::swap(gemm.a.rows, gemm.a.cols);
    if (gemm.transpose_b) std::swap(gemm.b.rows, gemm.b.cols);
    gemm.d = gemm.c;
    if (call.m < 0 || call.n < 0 || call.k < 0 || call.batch < 0) {
        return HIPBLAS_STATUS_INVALID_VALUE;
    }
    for (const Operand* operand : {&gemm.a, &gemm.b, &gemm.c}) {
        if (operand->ld < std::max<std::int64_t>(1, operand->rows)) {
            explain("a leading dimension is smaller than its matrix");
            return HIPBLAS_STATUS_INVALID_VALUE;
        }
    }
    if (!call.alpha || !call.beta) return HIPBLAS_STATUS_INVALID_VALUE;
    if (call.type_a != call.type_b) return HIPBLAS_STATUS_NOT_SUPPORTED;
    const Arithmetic arithmetic = arithmetic_for(call.type_a, call.type_c, call.compute);
    gemm.in_double = arithmetic.in_double;
    if (handle.pointer_mode != HIPBLAS_POINTER_MODE_HOST) {
        explain("alpha and beta in device memory");
        return HIPBLAS_STATUS_NOT_SUPPORTED;
    }
    gemm.alpha = read_scalar(call.alpha, arithmetic.scalar);
    gemm.beta = read_scalar(call.beta, arithmetic.scalar);
    return HIPBLAS_STATUS_SUCCESS;
}

std::vector<char*> strided(const void* base, std::int64_t stride, std::int64_t batch,
                           hipDataType type) {
    std::vector<char*> result;
    for (std::int64_t i = 0; i < batch; ++i) {
        const auto bytes = i * stride * static_cast<std::int64_t>(type_bytes(type));
        result.push_back(static_cast<char*>(const_cast<void*>(base)) + bytes);
    }
    return result;
}

struct Strides {
    std::int64_t a = 0;
    std::int64_t b = 0;
    std::int64_t c = 0;
};

hipblasStatus_t gemm_strided(const GemmCall& call, const void* a, const void* b, void* c,
                             Strides strides) {
    return blas_call(
        call.name,
        [&](Lock& lock) {
            const std::shared_ptr<BlasHandle> handle = handle_of(call.handle);
            if (!handle) return HIPBLAS_STATUS_NOT_INITIALIZED;
            Gemm gemm;
            const hipblasStatus_t status = prepare(call, *handle, gemm);
            if (status != HIPBLAS_STATUS_SUCCESS) return status;
            gemm.a.addresses = strided(a, strides.a, call.batch, call.type_a);
            gemm.b.addresses = strided(b, strides.b, call.batch, call.type_b);
            gemm.d.addresses = strided(c, strides.c, call.batch, call.type_c);
            gemm.c.addresses = gemm.d.addresses;
            const Workspace workspace{handle->workspace, handle->workspace_bytes};
            queue_gemm(handle->stream, std::move(gemm), workspace, lock);
            return HIPBLAS_STATUS_SUCCESS;
        },
        call.handle, call.op_a, call.op_b, call.m, call.n, call.k, a, call.type_a, call.ld_a,
        strides.a, b, call.type_b, call.ld_b, strides.b, c, call.type_c, call.ld_c, strides.c,
        call.batch, call.compute);
}

hipblasStatus_t gemm_by_arrays(const GemmCall& call, const void* const* a, const void* const* b,
                               void* const* c) {
    return blas_call(
        call.name,
        [&](Lock& lock) {
            const std::shared_ptr<BlasHandle> handle = handle_of(call.handle);
            if (!handle) return HIPBLAS_STATUS_NOT_INITIALIZED;
            Gemm gemm;
            const hipblasStatus_t status = prepare(call, *handle, gemm);
            if (status != HIPBLAS_STATUS_SUCCESS) return status;
            const Workspace workspace{handle->workspace, handle->workspace_bytes};
            queue_gemm_by_arrays(handle->stream, std::move(gemm), a, b, c,
                                 static_cast<std::size_t>(call.batch), workspace, lock);
            return HIPBLAS_STATUS_SUCCESS;
        },
        call.handle, call.op_a, call.op_b, call.m, call.n, call.k, call.type_a, call.ld_a,
        call.type_b, call.ld_b, call.type_c, call.ld_c, call.batch, call.compute);
}

}  // namespace
}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT hipblasStatus_t hipblasCreate(void** handle) {
    return blas_call(
        "hipblasCreate",
        [&] {
            if (!handle) return HIPBLAS_STATUS_HANDLE_IS_NULLPTR;
            forbid_while_capturing("hipblasCreate");  // it allocates
            *handle = blas_handles().add(std::make_shared<BlasHandle>());
            return HIPBLAS_STATUS_SUCCESS;
        },
        out(handle));
}

EMULATOR_EXPORT hipblasStatus_t hipblasDestroy(void* handle) {
    return blas_call(
        "hipblasDestroy",
        [&] {
            if (!handle_of(handle)) return HIPBLAS_STATUS_NOT_INITIALIZED;
            blas_handles().remove(handle);
            return HIPBLAS_STATUS_SUCCESS;
        },
        handle);
}

EMULATOR_EXPORT hipblasStatus_t hipblasGetVersion(void* handle, int* version) {
    return blas_call(
        "hipblasGetVersion",
        [&] {
            if (!handle_of(handle)) return HIPBLAS_STATUS_NOT_INITIALIZED;
            if (!version) return HIPBLAS_STATUS_INVALID_VALUE;
            *version = 30200;  // 3.2.0
            return HIPBLAS_STATUS_SUCCESS;
        },
        handle, out(version));
}

EMULATOR_EXPORT hipblasStatus_t hipblasSetStream(void* handle, hipStream_t stream) {
    return blas_call(
        "hipblasSetStream",
        [&] {
            const std::shared_ptr<BlasHandle> found = handle_of(handle);
            if (!found) return HIPBLAS_STATUS_NOT_INITIALIZED;
            stream_of(stream);
            found->stream = stream;
            return HIPBLAS_STATUS_SUCCESS;
        },
        handle, stream);
}

EMULATOR_EXPORT hipblasStatus_t hipblasGetStream(void* handle, hipStream_t* stream) {
    return blas_call(
        "hipblasGetStream",
        [&] {
            const std::shared_ptr<BlasHandle> found = handle_of(handle);
            if (!found) return HIPBLAS_STATUS_NOT_INITIALIZED;
            if (!stream) return HIPBLAS_STATUS_INVALID_VALUE;
            *stream = found->stream;
            return HIPBLAS_STATUS_SUCCESS;
        },
        handle, out(stream));
}

EMULATOR_EXPORT hipblasStatus_t hipblasSetWorkspace(void* handle, void* workspace,
                                                    std::size_t bytes) {
    return blas_call(
        "hipblasSetWorkspace",
        [&] {
            const std::shared_ptr<BlasHandle> found = handle_of(handle);
            if (!found) return HIPBLAS_STATUS_NOT_INITIALIZED;
            if (workspace && !memory().holds(workspace, bytes)) {
                explain("the workspace is not device memory");
                return HIPBLAS_STATUS_INVALID_VALUE;
            }
            found->workspace = static_cast<char*>(workspace);
            found->workspace_bytes = workspace ? bytes : 0;
            return HIPBLAS_STATUS_SUCCESS;
        },
        handle, workspace, bytes);
}

// A property of the handle that is only stored.
#define EMULATOR_PROPERTY(Name, Type, member)                                             \
    EMULATOR_EXPORT hipblasStatus_t hipblasSet##Name(void* handle, Type value) {          \
        return blas_call(                                                                 \
            "hipblasSet" #Name,                                                           \
            [&] {                                                                         \
                const std::shared_ptr<BlasHandle> found = handle_of(handle);              \
                if (!found) return HIPBLAS_STATUS_NOT_INITIALIZED;                        \
                found->member = value;                                                    \
                return HIPBLAS_STATUS_SUCCESS;                                            \
            },                                                                            \
            handle, value);                                                               \
    }                                                                                     \
    EMULATOR_EXPORT hipblasStatus_t hipblasGet##Name(void* handle, Type* value) {         \
        return blas_call(                                                                 \
            "hipblasGet" #Name,                                                           \
            [&] {                                                                         \
                const std::shared_ptr<BlasHandle> found = handle_of(handle);              \
                if (!found) return HIPBLAS_STATUS_NOT_INITIALIZED;                        \
                if (!value) return HIPBLAS_STATUS_INVALID_VALUE;                          \
                *value = found->member;                                                   \
                return HIPBLAS_STATUS_SUCCESS;                                            \
            },                                                                            \
            handle, out(value));                                                          \
    }
EMULATOR_PROPERTY(PointerMode, hipblasPointerMode_t, pointer_mode)
EMULATOR_PROPERTY(AtomicsMode, hipblasAtomicsMode_t, atomics)
EMULATOR_PROPERTY(MathMode, hipblasMath_t, math)
#undef EMULATOR_PROPERTY

// Each function exists with int and 64-bit sizes, with and without flags (which choose among
// implementations and change no result here).
#define EMULATOR_FLAGS , hipblasGemmFlags_t
#define EMULATOR_NO_FLAGS

#define EMULATOR_GEMM(name, Int, FLAGS)                                                         \
    EMULATOR_EXPORT hipblasStatus_t name(                                                       \
        void* handle, hipblasOperation_t op_a, hipblasOperation_t op_b, Int m, Int n, Int k,    \
        const void* alpha, const void* a, hipDataType type_a, Int ld_a, const void* b,          \
        hipDataType type_b, Int ld_b, const void* beta, void* c, hipDataType type_c, Int ld_c,  \
        hipblasComputeType_t compute, hipblasGemmAlgo_t FLAGS) {                                \
        return gemm_strided({#name, handle, op_a, op_b, m, n, k, alpha, type_a, ld_a, type_b,   \
                             ld_b, beta, type_c, ld_c, 1, compute},                             \
                            a, b, c, {});                                                       \
    }
EMULATOR_GEMM(hipblasGemmEx, int, EMULATOR_NO_FLAGS)
EMULATOR_GEMM(hipblasGemmEx_64, std::int64_t, EMULATOR_NO_FLAGS)
EMULATOR_GEMM(hipblasGemmExWithFlags, int, EMULATOR_FLAGS)
EMULATOR_GEMM(hipblasGemmExWithFlags_64, std::int64_t, EMULATOR_FLAGS)
#undef EMULATOR_GEMM

#define EMULATOR_GEMM_STRIDED(name, Int, FLAGS)                                                  \
    EMULATOR_EXPORT hipblasStatus_t name(                                                        \
        void* handle, hipblasOperation_t op_a, hipblasOperation_t op_b, Int m, Int n, Int k,     \
        const void* alpha, const void* a, hipDataType type_a, Int ld_a, std::int64_t stride_a,   \
        const void* b, hipDataType type_b, Int ld_b, std::int64_t stride_b, const void* beta,    \
        void* c, hipDataType type_c, Int ld_c, std::int64_t stride_c, Int batch,                 \
        hipblasComputeType_t compute, hipblasGemmAlgo_t FLAGS) {                                 \
        return gemm_strided({#name, handle, op_a, op_b, m, n, k, alpha, type_a, ld_a, type_b,    \
                             ld_b, beta, type_c, ld_c, batch, compute},                          \
                            a, b, c, {stride_a, stride_b, stride_c});                            \
    }
EMULATOR_GEMM_STRIDED(hipblasGemmStridedBatchedEx, int, EMULATOR_NO_FLAGS)
EMULATOR_GEMM_STRIDED(hipblasGemmStridedBatchedEx_64, std::int64_t, EMULATOR_NO_FLAGS)
EMULATOR_GEMM_STRIDED(hipblasGemmStridedBatchedExWithFlags, int, EMULATOR_FLAGS)
EMULATOR_GEMM_STRIDED(hipblasGemmStridedBatchedExWithFlags_64, std::int64_t, EMULATOR_FLAGS)
#undef EMULATOR_GEMM_STRIDED

#define EMULATOR_GEMM_BATCHED(name, Int, FLAGS)                                                  \
    EMULATOR_EXPORT hipblasStatus_t name(                                                        \
        void* handle, hipblasOperation_t op_a, hipblasOperation_t op_b, Int m, Int n, Int k,     \
        const void* alpha, const void* const* a, hipDataType type_a, Int ld_a,                   \
        const void* const* b, hipDataType type_b, Int ld_b, const void* beta, void* const* c,    \
        hipDataType type_c, Int ld_c, Int batch, hipblasComputeType_t compute,                   \
        hipblasGemmAlgo_t FLAGS) {                                                               \
        return gemm_by_arrays({#name, handle, op_a, op_b, m, n, k, alpha, type_a, ld_a, type_b,  \
                               ld_b, beta, type_c, ld_c, batch, compute},                        \
                              a, b, c);                                                          \
    }
EMULATOR_GEMM_BATCHED(hipblasGemmBatchedEx, int, EMULATOR_NO_FLAGS)
EMULATOR_GEMM_BATCHED(hipblasGemmBatchedEx_64, std::int64_t, EMULATOR_NO_FLAGS)
EMULATOR_GEMM_BATCHED(hipblasGemmBatchedExWithFlags, int, EMULATOR_FLAGS)
EMULATOR_GEMM_BATCHED(hipblasGemmBatchedExWithFlags_64, std::int64_t, EMULATOR_FLAGS)
#undef EMULATOR_GEMM_BATCHED
