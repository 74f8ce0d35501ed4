#include "blas.h"

#include <algorithm>
#include <cstring>

#include "memory.h"

namespace emulator {
namespace {

struct Combination {
    hipDataType ab;
    hipDataType c;
    hipblasComputeType_t compute;
    Arithmetic arithmetic;
};

// The rows of the hipblasGemmEx table for real types. The FAST modes are for f32 operands.
constexpr Combination combinations[] = {
    {HIP_R_16F, HIP_R_16F, HIPBLAS_COMPUTE_16F, {HIP_R_16F, false}},
    {HIP_R_16F, HIP_R_16F, HIPBLAS_COMPUTE_16F_PEDANTIC, {HIP_R_16F, false}},
    {HIP_R_16F, HIP_R_16F, HIPBLAS_COMPUTE_32F, {HIP_R_32F, false}},
    {HIP_R_16F, HIP_R_16F, HIPBLAS_COMPUTE_32F_PEDANTIC, {HIP_R_32F, false}},
    {HIP_R_16F, HIP_R_32F, HIPBLAS_COMPUTE_32F, {HIP_R_32F, false}},
    {HIP_R_16F, HIP_R_32F, HIPBLAS_COMPUTE_32F_PEDANTIC, {HIP_R_32F, false}},
    {HIP_R_16BF, HIP_R_16BF, HIPBLAS_COMPUTE_32F, {HIP_R_32F, false}},
    {HIP_R_16BF, HIP_R_16BF, HIPBLAS_COMPUTE_32F_PEDANTIC, {HIP_R_32F, false}},
    {HIP_R_16BF, HIP_R_32F, HIPBLAS_COMPUTE_32F, {HIP_R_32F, false}},
    {HIP_R_16BF, HIP_R_32F, HIPBLAS_COMPUTE_32F_PEDANTIC, {HIP_R_32F, false}},
    {HIP_R_32F, HIP_R_32F, HIPBLAS_COMPUTE_32F, {HIP_R_32F, false}},
    {HIP_R_32F, HIP_R_32F, HIPBLAS_COMPUTE_32F_PEDANTIC, {HIP_R_32F, false}},
    {HIP_R_32F, HIP_R_32F, HIPBLAS_COMPUTE_32F_FAST_16F, {HIP_R_32F, false}},
    {HIP_R_32F, HIP_R_32F, HIPBLAS_COMPUTE_32F_FAST_16BF, {HIP_R_32F, false}},
    {HIP_R_32F, HIP_R_32F, HIPBLAS_COMPUTE_32F_FAST_TF32, {HIP_R_32F, false}},
    {HIP_R_64F, HIP_R_64F, HIPBLAS_COMPUTE_64F, {HIP_R_64F, true}},
    {HIP_R_64F, HIP_R_64F, HIPBLAS_COMPUTE_64F_PEDANTIC, {HIP_R_64F, true}},
};

constexpr std::size_t scribbled_bytes = 4096;

void scribble(const Workspace& workspace) {
    if (!workspace.address) return;
    const std::size_t bytes = std::min(workspace.bytes, scribbled_bytes);
    std::memset(workspace.address, poison_byte, bytes);
    std::memset(workspace.address + workspace.bytes - bytes, poison_byte, bytes);
}

void execute(const Gemm& gemm, const Workspace& workspace) {
    const bool workspace_valid =
        !workspace.address || memory().holds(workspace.address, workspace.bytes);
    if (!workspace_valid || !gemm.memory_valid()) {
        scheduler().fail(hipErrorIllegalAddress, gemm.label() + ": memory that is not there");
        return;
    }
    scribble(workspace);
    run_gemm(gemm);
}

std::vector<char*> addresses_at(const void* array, std::size_t batch) {
    std::vector<char*> result(batch);
    std::memcpy(result.data(), array, batch * sizeof(char*));
    return result;
}

void require_array(const void* array, std::size_t batch) {
    if (memory().holds(array, batch * sizeof(void*))) return;
    reject(hipErrorInvalidValue, "an array of matrices must lie in device memory, not in " +
                                     memory().describe(array));
}

}  // namespace

BlasTable& blas_handles() {
    static BlasTable instance(0);
    return instance;
}

Arithmetic arithmetic_for(hipDataType ab, hipDataType c, hipblasComputeType_t compute) {
    for (const Combination& row : combinations) {
        if (row.ab == ab && row.c == c && row.compute == compute) return row.arithmetic;
    }
    reject(hipErrorNotSupported, std::string("no product ") + type_name(ab) + " -> " +
                                     type_name(c) + " with compute type " +
                                     std::to_string(compute));
}

double read_scalar(const void* from, hipDataType type) {
    switch (type) {
        case HIP_R_16F: return load_half(*static_cast<const std::uint16_t*>(from));
        case HIP_R_16BF: return load_bfloat(*static_cast<const std::uint16_t*>(from));
        case HIP_R_32F: return *static_cast<const float*>(from);
        case HIP_R_64F: return *static_cast<const double*>(from);
    }
    return 0;
}

void queue_gemm(hipStream_t stream, Gemm gemm, Workspace workspace, Lock& lock) {
    const StreamPtr into = stream_of(stream);
    if (gemm.m == 0 || gemm.n == 0 || gemm.d.addresses.empty()) return;
    if (!gemm.memory_valid()) {
        reject(hipErrorInvalidValue, gemm.label() + ": an operand is outside of HIP's memory");
    }
    const std::string label = gemm.label();
    submit(*into,
           {hipGraphNodeTypeKernel, label,
            [gemm = std::move(gemm), workspace] { execute(gemm, workspace); }},
           lock);
}

void queue_gemm_by_arrays(hipStream_t stream, Gemm gemm, const void* const* a,
                          const void* const* b, void* const* c, std::size_t batch,
                          Workspace workspace, Lock& lock) {
    const StreamPtr into = stream_of(stream);
    if (gemm.m == 0 || gemm.n == 0 || batch == 0) return;
    for (const void* array : {static_cast<const void*>(a), static_cast<const void*>(b),
                              static_cast<const void*>(c)}) {
        require_array(array, batch);
    }
    submit(*into,
           {hipGraphNodeTypeKernel, "batched " + gemm.label(),
            [gemm = std::move(gemm), a, b, c, batch, workspace]() mutable {
                gemm.a.addresses = addresses_at(a, batch);
                gemm.b.addresses = addresses_at(b, batch);
                gemm.c.addresses = gemm.d.addresses = addresses_at(c, batch);
                execute(gemm, workspace);
            }},
           lock);
}

}  // namespace emulator
