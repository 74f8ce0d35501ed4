// y = x / sqrt(mean(x * x) + eps) * weight: 32 threads a row, 8 rows a block. Defines: T.
#include "device.h"

typedef Accumulator<T>::type A;

extern "C" __global__ void rms(const T* x, const T* weight, T* y, i64 rows, i64 length, A eps) {
    const i64 lane = threadIdx.x % 32, step = i64(gridDim.x) * 8;
    for (i64 row = i64(blockIdx.x) * 8 + threadIdx.x / 32; row < rows; row += step) {
        const T* from = x + row * length;
        A sum = 0;
        for (i64 i = lane; i < length; i += 32) sum += widen(from[i]) * widen(from[i]);
        for (int mask = 16; mask; mask /= 2) sum += shuffle_xor(sum, mask);
        const A scale = 1 / sqrt(sum / A(length) + eps);
        for (i64 i = lane; i < length; i += 32) {
            y[row * length + i] = narrow<T>(widen(from[i]) * scale * widen(weight[i]));
        }
    }
}
