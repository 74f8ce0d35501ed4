// What hipBLAS and hipBLASLt share: handles, types that go together, and queueing a product.
#pragma once

#include "gemm.h"
#include "handles.h"
#include "stream.h"

namespace emulator {

struct BlasHandle {
    hipStream_t stream = nullptr;  // the NULL stream until hipblasSetStream
    hipblasPointerMode_t pointer_mode = HIPBLAS_POINTER_MODE_HOST;
    hipblasAtomicsMode_t atomics = HIPBLAS_ATOMICS_ALLOWED;
    hipblasMath_t math = HIPBLAS_DEFAULT_MATH;
    char* workspace = nullptr;
    std::size_t workspace_bytes = 0;
};
using BlasTable = Table<Kind::blas, void*, BlasHandle>;
BlasTable& blas_handles();

// How alpha, beta and the sums are represented.
struct Arithmetic {
    hipDataType scalar;
    bool in_double;
};

// Fails with HIPBLAS_STATUS_NOT_SUPPORTED for types that the real libraries do not multiply.
Arithmetic arithmetic_for(hipDataType ab, hipDataType c, hipblasComputeType_t compute);

double read_scalar(const void* from, hipDataType type);

// The workspace is written too, as far as its ends: whatever overlaps it is lost.
struct Workspace {
    char* address = nullptr;
    std::size_t bytes = 0;
};

// Checks the operands' memory and queues the product, or captures it.
void queue_gemm(hipStream_t stream, Gemm gemm, Workspace workspace, Lock& lock);
// The same when the addresses of each matrix lie in device memory and are read when it runs.
void queue_gemm_by_arrays(hipStream_t stream, Gemm gemm, const void* const* a,
                          const void* const* b, void* const* c, std::size_t batch,
                          Workspace workspace, Lock& lock);

}  // namespace emulator
