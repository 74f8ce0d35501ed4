// softmax along an axis whose elements are neighbours: exp(z - max z) / sum exp(z - max z) with
// z = scale * x + mask, and zeros where every z is -inf.
//
// LANES threads share a row: part of a wavefront for short rows, a block for longer ones. Each
// keeps a maximum of its own and the sum relative to it, which merge in any order (Milakov and
// Gimelshein, "Online normalizer calculation for softmax", 2018). A row crosses memory once if
// ONE_PASS; a longer one is read a second time, from its end, where caches still hold it.
//
// Defines: X_TYPE; MASK_TYPE (when there is a mask); CAUSAL 0 or 1; ONE_PASS 0 or 1
//          THREADS a block; LANES of a row: a power of two up to 32, or THREADS
//          PER_THREAD vectors of VECTOR elements that a thread holds at a time
//          MASK_VECTOR elements loaded at once from the mask
//          RANK axes of rows; INDEX of elements of a row, int or i64; ROW_INDEX u32 or i64
#include "device.h"
#include "normalizer.h"

#ifdef MASK_TYPE
#define MASK_PARAMETER const MASK_TYPE *mask,
#define OPERANDS 2
#else
#define MASK_PARAMETER
#define MASK_VECTOR 1
#define OPERANDS 1
#endif

constexpr int kRows = THREADS / LANES;
constexpr int kWarps = LANES <= 32 ? 1 : THREADS / 32;
constexpr INDEX kChunk = INDEX(LANES) * PER_THREAD * VECTOR;

struct Row {
    const X_TYPE* x;
    i64 x_step;
#ifdef MASK_TYPE
    const MASK_TYPE* mask;
    i64 mask_step;
#endif
    INDEX visible;  // elements that take part; the others count as -inf and are not read
    int lane;
    bool exists;  // else the threads only take part in the shuffles

    // The element that vector `i` of this thread's part of a chunk starts at.
    DEVICE INDEX place(INDEX base, int i) const { return base + (i * LANES + lane) * VECTOR; }
};

// N elements from `k` on; pieces of one element may be `step` apart.
template <int piece, class T>
DEVICE Vector<T, VECTOR> elements(const T* row, INDEX k, i64 step) {
    return gather<VECTOR, piece>(row + (piece == 1 ? k * step : k), step);
}

// Every load of the chunk is under way before the first value is used.
DEVICE void read(const Row& row, INDEX base, A scale, A (&z)[PER_THREAD * VECTOR]) {
    Vector<X_TYPE, VECTOR> x[PER_THREAD];
    UNROLL for (int i = 0; i < PER_THREAD; ++i) {
        const INDEX k = row.place(base, i);
        if (k < row.visible) x[i] = elements<VECTOR>(row.x, k, row.x_step);
    }
#ifdef MASK_TYPE
    Vector<MASK_TYPE, VECTOR> mask[PER_THREAD];
    UNROLL for (int i = 0; i < PER_THREAD; ++i) {
        const INDEX k = row.place(base, i);
        if (k < row.visible) mask[i] = elements<MASK_VECTOR>(row.mask, k, row.mask_step);
    }
#endif
    UNROLL for (int i = 0; i < PER_THREAD; ++i) {
        const INDEX k = row.place(base, i);
        UNROLL for (int j = 0; j < VECTOR; ++j) {
            A value = minus_infinity();
            if (k + (CAUSAL ? j : 0) < row.visible) {
                value = scale * widen(x[i].get(j));
#ifdef MASK_TYPE
                value += A(widen(mask[i].get(j)));
#endif
            }
            z[i * VECTOR + j] = value;
        }
    }
}

DEVICE void write(X_TYPE* out, const Row& row, INDEX base, INDEX length,
                  const A (&z)[PER_THREAD * VECTOR], A factor) {
    UNROLL for (int i = 0; i < PER_THREAD; ++i) {
        const INDEX k = row.place(base, i);
        if (k >= length) continue;
        Vector<X_TYPE, VECTOR> result;
        UNROLL for (int j = 0; j < VECTOR; ++j) {
            result.set(j, narrow<X_TYPE>(z[i * VECTOR + j] * factor));
        }
        store(out + k, result);
    }
}

// Merges over the lanes of a row. Blocks with one row exchange through `shared`.
DEVICE void merge_lanes(Normalizer& mine, Normalizer* shared) {
    merge_shuffled<1, (LANES < 32 ? LANES : 32)>(mine);
    if (LANES <= 32) return;
    const int lane = threadIdx.x % 32;
    if (lane == 0) shared[threadIdx.x / 32] = mine;
    __syncthreads();
    mine = lane < kWarps ? shared[lane] : nothing();
    merge_shuffled<1, 32>(mine);
}

DEVICE void one_pass(const Row& row, X_TYPE* out, INDEX length, A scale, Normalizer* shared) {
    A z[PER_THREAD * VECTOR];
    read(row, 0, scale, z);
    Normalizer total = exponentiate(z);
    const A own = total.max;
    merge_lanes(total, shared);
    const A factor = exponential(own - shift_of(total.max)) * inverse(total.sum);
    if (row.exists) write(out, row, 0, length, z, factor);
}

DEVICE void two_passes(const Row& row, X_TYPE* out, INDEX length, A scale, Normalizer* shared) {
    A z[PER_THREAD * VECTOR];
    Normalizer total = nothing();
    for (INDEX base = 0; base < row.visible; base += kChunk) {
        read(row, base, scale, z);
        merge(total, exponentiate(z));
    }
    merge_lanes(total, shared);
    const A shift = shift_of(total.max), factor = inverse(total.sum);
    for (INDEX base = (length - 1) / kChunk * kChunk; base >= 0; base -= kChunk) {
        read(row, base, scale, z);
        UNROLL for (int i = 0; i < PER_THREAD * VECTOR; ++i) z[i] = exponential(z[i] - shift);
        if (row.exists) write(out, row, base, length, z, factor);
    }
}

// Blocks enough for 1024 threads beside one another, so that one loads while another computes: at
// 512 threads that takes the compiler's registers below what it would use by itself.
extern "C" __global__ void __launch_bounds__(THREADS, 1024 / THREADS)
softmax_rows(const X_TYPE* x, X_TYPE* out, MASK_PARAMETER i64 rows, i64 length, i64 queries,
             A scale, i64 x_step, i64 mask_step, Axes<OPERANDS, RANK> axes) {
    __shared__ Normalizer shared[2][kWarps];  // the next row must not wait for this one's readers
    int turn = 0;
    for (i64 first = i64(blockIdx.x) * kRows; first < rows; first += i64(gridDim.x) * kRows) {
        const i64 wanted = first + threadIdx.x / LANES, n = wanted < rows ? wanted : first;
        i64 offset[OPERANDS] = {};
        locate(axes, static_cast<ROW_INDEX>(n), offset);
        Row row;
        row.x = x + offset[0];
        row.x_step = x_step;
#ifdef MASK_TYPE
        row.mask = mask + offset[1];
        row.mask_step = mask_step;
#endif
        row.lane = threadIdx.x % LANES;
        row.exists = wanted < rows;
        row.visible = static_cast<INDEX>(length);
#if CAUSAL
        const i64 query = static_cast<ROW_INDEX>(n) % static_cast<ROW_INDEX>(queries);
        const i64 seen = query + 1 + length - queries;
        row.visible = static_cast<INDEX>(seen < 0 ? 0 : seen);
#endif
        X_TYPE* target = out + n * length;
#if ONE_PASS
        one_pass(row, target, static_cast<INDEX>(length), scale, shared[turn]);
#else
        two_passes(row, target, static_cast<INDEX>(length), scale, shared[turn]);
#endif
        turn ^= 1;
    }
}
