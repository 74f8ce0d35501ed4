// y = max(x, 0), one element a thread. Defines: T, the element type.
#include "device.h"

extern "C" __global__ void relu(const T* x, T* y, i64 count) {
    const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count) y[i] = widen(x[i]) > 0 ? x[i] : T{};
}
