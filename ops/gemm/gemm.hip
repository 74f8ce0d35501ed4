// out = beta * c + bias: what a GEMM's product is then added to; or with PRODUCT that is added here.
// out and the product are dense; c and bias are strided in any way, broadcasting included.
//
// Each thread makes VECTOR neighbouring elements of out at a time. It loads those of c and bias
// in pieces of C_VECTOR and BIAS_VECTOR elements; pieces of one element may lie anywhere.
//
// Defines: C_TYPE, BIAS_TYPE, DST_TYPE; THREADS a block; VECTOR, C_VECTOR, BIAS_VECTOR;
//          RANK axes; INDEX u32 or i64, which holds the number of vectors; PRODUCT 0 or 1
#include "device.h"

typedef Accumulator<DST_TYPE>::type A;
enum { A_VECTOR = VECTOR * sizeof(A) > 16 ? 16 / sizeof(A) : VECTOR };  // pieces of the product

extern "C" __global__ void __launch_bounds__(THREADS)
affine(const C_TYPE* c, DST_TYPE* out, const BIAS_TYPE* bias,
#if PRODUCT
       const A* product,
#endif
       A beta, i64 vectors, i64 c_step, i64 bias_step, Axes<2, RANK> axes) {
    const i64 stride = i64(gridDim.x) * THREADS;
    for (i64 n = i64(blockIdx.x) * THREADS + threadIdx.x; n < vectors; n += stride) {
        i64 offset[2] = {};
        locate(axes, static_cast<INDEX>(n), offset);
        const Vector<C_TYPE, VECTOR> x = gather<VECTOR, C_VECTOR>(c + offset[0], c_step);
        const Vector<BIAS_TYPE, VECTOR> y = gather<VECTOR, BIAS_VECTOR>(bias + offset[1], bias_step);
#if PRODUCT
        const Vector<A, VECTOR> z = gather<VECTOR, A_VECTOR>(product + n * VECTOR, 1);
#endif
        Vector<DST_TYPE, VECTOR> result;
        UNROLL for (int j = 0; j < VECTOR; ++j) {
            A value = beta * A(widen(x.get(j))) + A(widen(y.get(j)));
#if PRODUCT
            value += z.get(j);
#endif
            result.set(j, narrow<DST_TYPE>(value));
        }
        store(out + n * VECTOR, result);
    }
}
