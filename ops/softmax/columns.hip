// softmax along an axis whose elements lie apart, with neighbouring columns beside them.
//
// A block takes COLUMNS * VECTOR neighbouring columns. Its threads stand COLUMNS wide, each on
// VECTOR columns at once, and THREADS / COLUMNS deep along the axis. Maxima and sums merge as in
// softmax.hip. The columns cross memory once if ONE_PASS, else they are read twice.
//
// Defines: as softmax.hip, but COLUMNS (a power of two up to 32) for LANES, no CAUSAL, and
//          PER_THREAD elements of each column that a thread holds at a time
#include "device.h"
#include "normalizer.h"

#ifdef MASK_TYPE
#define MASK_PARAMETER const MASK_TYPE *mask,
#else
#define MASK_PARAMETER
#endif

constexpr int kDepth = THREADS / COLUMNS;
constexpr int kWarps = THREADS / 32;
constexpr int kWidth = COLUMNS * VECTOR;
constexpr INDEX kChunk = INDEX(kDepth) * PER_THREAD;

// Steps along the axis and from a column to its neighbour.
struct Steps {
    i64 x, out, mask, x_column, mask_column;
};

struct Columns {
    const X_TYPE* x;
    X_TYPE* out;
#ifdef MASK_TYPE
    const MASK_TYPE* mask;
#endif
    Steps step;
    INDEX length;
    bool any;  // whether this thread's columns exist
    int depth;

    DEVICE INDEX place(INDEX base, int i) const { return base + i * kDepth + depth; }
};

// Per column, so that the elements of one column are neighbours: z[column][element].
typedef A Block[VECTOR][PER_THREAD];

DEVICE void read(const Columns& columns, INDEX base, A scale, Block& z) {
    Vector<X_TYPE, VECTOR> x[PER_THREAD];
#ifdef MASK_TYPE
    Vector<MASK_TYPE, VECTOR> mask[PER_THREAD];
#endif
    const Steps& step = columns.step;
    UNROLL for (int i = 0; i < PER_THREAD; ++i) {
        const INDEX k = columns.place(base, i);
        if (!columns.any || k >= columns.length) continue;
        x[i] = gather<VECTOR, VECTOR>(columns.x + k * step.x, step.x_column);
#ifdef MASK_TYPE
        mask[i] = gather<VECTOR, MASK_VECTOR>(columns.mask + k * step.mask, step.mask_column);
#endif
    }
    UNROLL for (int i = 0; i < PER_THREAD; ++i) {
        const bool exists = columns.any && columns.place(base, i) < columns.length;
        UNROLL for (int j = 0; j < VECTOR; ++j) {
            A value = minus_infinity();
            if (exists) {
                value = scale * widen(x[i].get(j));
#ifdef MASK_TYPE
                value += A(widen(mask[i].get(j)));
#endif
            }
            z[j][i] = value;
        }
    }
}

DEVICE void write(const Columns& columns, INDEX base, const Block& z, const A (&factor)[VECTOR]) {
    UNROLL for (int i = 0; i < PER_THREAD; ++i) {
        const INDEX k = columns.place(base, i);
        if (!columns.any || k >= columns.length) continue;
        Vector<X_TYPE, VECTOR> result;
        UNROLL for (int j = 0; j < VECTOR; ++j) {
            result.set(j, narrow<X_TYPE>(z[j][i] * factor[j]));
        }
        store(columns.out + k * columns.step.out, result);
    }
}

// Merges over the depth of the block: inside wavefronts, then one thread a column over them.
DEVICE void merge_depth(Normalizer (&mine)[VECTOR], Normalizer (*shared)[kWidth]) {
    const int first = threadIdx.x % COLUMNS * VECTOR;
    UNROLL for (int j = 0; j < VECTOR; ++j) {
        merge_shuffled<COLUMNS, 32>(mine[j]);
        if (threadIdx.x % 32 < COLUMNS) shared[threadIdx.x / 32][first + j] = mine[j];
    }
    __syncthreads();
    for (int column = threadIdx.x; column < kWidth; column += THREADS) {
        Normalizer total = shared[0][column];
        for (int warp = 1; warp < kWarps; ++warp) merge(total, shared[warp][column]);
        shared[0][column] = total;
    }
    __syncthreads();
    UNROLL for (int j = 0; j < VECTOR; ++j) mine[j] = shared[0][first + j];
    __syncthreads();
}

DEVICE void one_pass(const Columns& columns, A scale, Normalizer (*shared)[kWidth]) {
    Block z;
    Normalizer total[VECTOR];
    A factor[VECTOR];
    read(columns, 0, scale, z);
    UNROLL for (int j = 0; j < VECTOR; ++j) {
        total[j] = exponentiate(z[j]);
        factor[j] = total[j].max;
    }
    merge_depth(total, shared);
    UNROLL for (int j = 0; j < VECTOR; ++j) {
        factor[j] = exponential(factor[j] - shift_of(total[j].max)) * inverse(total[j].sum);
    }
    write(columns, 0, z, factor);
}

DEVICE void two_passes(const Columns& columns, A scale, Normalizer (*shared)[kWidth]) {
    Block z;
    Normalizer total[VECTOR];
    A factor[VECTOR];
    UNROLL for (int j = 0; j < VECTOR; ++j) total[j] = nothing();
    for (INDEX base = 0; base < columns.length; base += kChunk) {
        read(columns, base, scale, z);
        UNROLL for (int j = 0; j < VECTOR; ++j) merge(total[j], exponentiate(z[j]));
    }
    merge_depth(total, shared);
    UNROLL for (int j = 0; j < VECTOR; ++j) factor[j] = inverse(total[j].sum);
    for (INDEX base = (columns.length - 1) / kChunk * kChunk; base >= 0; base -= kChunk) {
        read(columns, base, scale, z);
        UNROLL for (int j = 0; j < VECTOR; ++j) {
            const A shift = shift_of(total[j].max);
            UNROLL for (int i = 0; i < PER_THREAD; ++i) z[j][i] = exponential(z[j][i] - shift);
        }
        write(columns, base, z, factor);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
softmax_columns(const X_TYPE* x, X_TYPE* out, MASK_PARAMETER i64 length, A scale, Steps step,
                i64 width, i64 tiles, i64 blocks, Axes<3, RANK> axes) {
    __shared__ Normalizer shared[kWarps][kWidth];
    for (i64 block = blockIdx.x; block < blocks; block += gridDim.x) {
        const ROW_INDEX slab = static_cast<ROW_INDEX>(block) / static_cast<ROW_INDEX>(tiles);
        const i64 tile = block - i64(slab) * tiles;
        const i64 column = (tile * COLUMNS + threadIdx.x % COLUMNS) * VECTOR;
        i64 offset[3] = {column * step.x_column, column, column * step.mask_column};
        locate(axes, slab, offset);
        Columns columns;
        columns.x = x + offset[0];
        columns.out = out + offset[1];
#ifdef MASK_TYPE
        columns.mask = mask + offset[2];
#endif
        columns.step = step;
        columns.length = static_cast<INDEX>(length);
        columns.any = column < width;
        columns.depth = threadIdx.x / COLUMNS;
#if ONE_PASS
        one_pass(columns, scale, shared);
#else
        two_passes(columns, scale, shared);
#endif
    }
}
