// y = alpha * x w + beta * c + bias for few rows of x, where the elements of w (K, N) are
// neighbours along N: w is read once, at the memory's rate.
//
// LANES threads beside one another take VECTOR columns each, and the others of the block the rows
// of w in turn, DEEP at a time, all of which are loaded before x is touched. The sums of a column
// are added in a fixed order, by shuffles and then through shared memory.
//
// Defines: as few_rows.h, one part; THREADS a block; LANES, a power of two up to 8; DEEP
//          VECTOR elements of w loaded at once, X_VECTOR of x
#include "few_rows.h"

constexpr int kTile = LANES * VECTOR;  // columns of the result that a block computes
constexpr int kWarps = THREADS / 32;
constexpr int kStep = THREADS / LANES * DEEP;
constexpr int kSums = ROWS * VECTOR;

DEVICE void multiply(const T* x, i64 x_row, const T* w, i64 w_row, i64 start, i64 k,
                     A (&sum)[kSums]) {
    for (i64 base = start; base < k; base += kStep) {
        Vector<T, VECTOR> found[DEEP];
        UNROLL for (int j = 0; j < DEEP; ++j) {
            if (base + j < k) found[j] = load<VECTOR>(w + (base + j) * w_row);
        }
        UNROLL for (int row = 0; row < ROWS; ++row) {
            const T* from = x + row * x_row + base;
            Vector<T, DEEP> here;
            if (base + DEEP <= k) here = gather<DEEP, X_VECTOR>(from, 1);
            UNROLL for (int j = 0; j < DEEP; ++j) {
                if (base + j >= k) continue;
                const A factor = widen(base + DEEP <= k ? here.get(j) : from[j]);
                UNROLL for (int v = 0; v < VECTOR; ++v) {
                    A& total = sum[row * VECTOR + v];
                    total = fmaf(factor, widen(found[j].get(v)), total);
                }
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
few_rows_turned(const T* x, const T* w, Y* y, ADDEND_PARAMETERS MORE_PARAMETERS i64 n, i64 k,
                i64 entries, A alpha, A beta, Steps steps, Axes<kOperands, RANK> axes) {
    __shared__ A shared[kWarps][ROWS][kTile];
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / 32;
    const i64 start = i64(threadIdx.x / LANES) * DEEP;
    const i64 tiles = (n + kTile - 1) / kTile;
    for (i64 tile = blockIdx.x; tile < tiles * entries; tile += gridDim.x) {
        i64 entry[kOperands] = {}, number = tile;
        if (BATCHED) {
            locate(axes, tile / tiles, entry);
            number = tile % tiles;
        }
        const i64 begin = number * kTile, column = begin + lane * VECTOR;
        A sum[kSums] = {};
        if (column < n) {
            const T* from = w + entry[1] + steps.part[0] + column;
            multiply(x + entry[0], steps.x_row, from, steps.w_row, start, k, sum);
        }
        UNROLL for (int o = 0; o < kSums; ++o) {
            UNROLL for (int mask = LANES; mask < 32; mask *= 2) {
                sum[o] += shuffle_xor(sum[o], mask);
            }
            if (threadIdx.x % 32 < LANES) {
                shared[warp][o / VECTOR][lane * VECTOR + o % VECTOR] = sum[o];
            }
        }
        __syncthreads();
        for (int o = threadIdx.x; o < ROWS * kTile; o += THREADS) {
            const int row = o / kTile, at = o % kTile;
            A total[PARTS] = {};
            UNROLL for (int part = 0; part < kWarps; ++part) total[0] += shared[part][row][at];
            if (begin + at < n) {
                finish(y, ADDEND_ARGUMENTS MORE_ARGUMENTS entry, steps, row, begin + at, alpha,
                       beta, total);
            }
        }
        __syncthreads();  // the next tile writes what others still read
    }
}
