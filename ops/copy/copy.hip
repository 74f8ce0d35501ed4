// out[i] = x[i] with a cast, x being strided in any way and out dense.
//
// Each thread makes VECTOR neighbouring elements of out at a time. It loads them in pieces of
// SRC_VECTOR elements; pieces of one element may lie anywhere. Indices count vectors.
//
// Defines: SRC_TYPE, DST_TYPE; THREADS a block; VECTOR; SRC_VECTOR; PER_THREAD vectors that a
//          thread has under way; RANK axes; INDEX u32 or i64, which holds the number of vectors
#include "device.h"

DEVICE Vector<DST_TYPE, VECTOR> converted(const Vector<SRC_TYPE, VECTOR>& x) {
    Vector<DST_TYPE, VECTOR> result;
    UNROLL for (int j = 0; j < VECTOR; ++j) {
        result.set(j, convert<DST_TYPE>(x.get(j)));
    }
    return result;
}

// The last vector of a tensor with one axis may be cut short.
DEVICE void copy_some(const SRC_TYPE* x, DST_TYPE* out, i64 count, i64 step) {
    for (i64 j = 0; j < count; ++j) out[j] = convert<DST_TYPE>(x[j * step]);
}

// step: from one element of a vector to the next in x.
extern "C" __global__ void __launch_bounds__(THREADS)
strided_copy(const SRC_TYPE* x, DST_TYPE* out, i64 count, i64 step, Axes<1, RANK> axes) {
    constexpr i64 chunk = i64(THREADS) * PER_THREAD;
    const i64 vectors = count / VECTOR;
    for (i64 first = blockIdx.x * chunk; first < vectors; first += gridDim.x * chunk) {
        Vector<SRC_TYPE, VECTOR> held[PER_THREAD];
        UNROLL for (int i = 0; i < PER_THREAD; ++i) {
            const i64 n = first + i * THREADS + threadIdx.x;
            if (n >= vectors) continue;
            i64 offset[1] = {};
            locate(axes, static_cast<INDEX>(n), offset);
            held[i] = gather<VECTOR, SRC_VECTOR>(x + offset[0], step);
        }
        UNROLL for (int i = 0; i < PER_THREAD; ++i) {
            const i64 n = first + i * THREADS + threadIdx.x;
            if (n < vectors) store(out + n * VECTOR, converted(held[i]));
        }
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        const i64 done = vectors * VECTOR;
        copy_some(x + done * step, out + done, count - done, step);
    }
}
