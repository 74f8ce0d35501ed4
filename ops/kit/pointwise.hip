// out = EXPRESSION of the elements of the operands, each strided in any way (broadcasting included),
// out dense.
//
// Each thread makes VECTOR neighbouring elements of out at a time. It loads those of an operand in
// pieces, 1 of which may lie anywhere. Indices count vectors. The last vector of a result with one
// axis may be cut short. Halves are widened to f32, computed, and rounded once.
//
// Defines: EXPRESSION; OPERANDS(EACH): EACH(number, name, type, piece) for every operand; COUNT of
//          them; OUT_TYPE; THREADS a block; VECTOR; RANK axes; INDEX u32 or i64, which holds the
//          number of vectors
#include "device.h"

typedef Accumulator<OUT_TYPE>::type A;

struct Steps { i64 step[COUNT]; };  // from one element of a vector to the next

// An operand's own name is its element, in the scope of EXPRESSION only; other names there end in _.
#define PARAMETER(number, name, type, piece) const type* from_##name,
#define LOADED(number, name, type, piece)                                                      \
    const Vector<type, VECTOR> loaded_##name =                                                 \
        gather<VECTOR, piece>(from_##name + offset[number], steps_.step[number]);
#define TAKEN(number, name, type, piece) const A name = A(widen(loaded_##name.get(j_)));
#define READ(number, name, type, piece)                                                        \
    const A name = A(widen(from_##name[i_ * steps_.step[number]]));

extern "C" __global__ void __launch_bounds__(THREADS)
pointwise(OPERANDS(PARAMETER) OUT_TYPE* out_, i64 count, Steps steps_, Axes<COUNT, RANK> axes) {
    const i64 vectors = count / VECTOR;
    const i64 stride = i64(gridDim.x) * THREADS;
    for (i64 n = i64(blockIdx.x) * THREADS + threadIdx.x; n < vectors; n += stride) {
        i64 offset[COUNT] = {};
        locate(axes, static_cast<INDEX>(n), offset);
        OPERANDS(LOADED)
        Vector<OUT_TYPE, VECTOR> made_;
        UNROLL for (int j_ = 0; j_ < VECTOR; ++j_) {
            OPERANDS(TAKEN)
            made_.set(j_, narrow<OUT_TYPE>(A(EXPRESSION)));
        }
        store(out_ + n * VECTOR, made_);
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        for (i64 i_ = vectors * VECTOR; i_ < count; ++i_) {
            OPERANDS(READ)
            out_[i_] = narrow<OUT_TYPE>(A(EXPRESSION));
        }
    }
}
