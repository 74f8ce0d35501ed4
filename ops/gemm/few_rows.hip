// y = alpha * x w^T + beta * c + bias for few rows of x, where the elements of w (N, K) are
// neighbours along K: w is read once, at the memory's rate.
//
// A thread loads its whole share of a chunk of w, LOADS vectors of COLUMNS rows of w, before it
// touches x: that many bytes in flight hide the latency. 32 * SPLIT threads share a row of w; their
// sums are added in a fixed order. GROUPS of them are a block.
//
// Defines: as few_rows.h; COLUMNS, SPLIT, GROUPS, LOADS; ROWS * COLUMNS is at most 32
//          VECTOR elements of w loaded at once, X_VECTOR of x
#include "few_rows.h"

constexpr int kLanes = 32 * SPLIT, kThreads = kLanes * GROUPS;
constexpr int kStep = kLanes * VECTOR;     // elements from one vector of a thread to its next
constexpr int kTile = GROUPS * COLUMNS;    // columns of the result that a block computes
constexpr int kSums = ROWS * COLUMNS;

DEVICE void multiply(const T* x, i64 x_row, const T* const (&w)[COLUMNS], i64 k, int lane,
                     A (&sum)[kSums]) {
    for (i64 base = i64(lane) * VECTOR; base < k; base += i64(kStep) * LOADS) {
        Vector<T, VECTOR> found[COLUMNS][LOADS];
        UNROLL for (int c = 0; c < COLUMNS; ++c) {
            UNROLL for (int i = 0; i < LOADS; ++i) {
                if (base + i * kStep < k) found[c][i] = load<VECTOR>(w[c] + base + i * kStep);
            }
        }
        UNROLL for (int i = 0; i < LOADS; ++i) {
            if (base + i * kStep >= k) continue;
            UNROLL for (int row = 0; row < ROWS; ++row) {
                const Vector<T, VECTOR> here =
                    gather<VECTOR, X_VECTOR>(x + row * x_row + base + i * kStep, 1);
                UNROLL for (int c = 0; c < COLUMNS; ++c) {
                    UNROLL for (int j = 0; j < VECTOR; ++j) {
                        sum[row * COLUMNS + c] += A(widen(found[c][i].get(j))) * widen(here.get(j));
                    }
                }
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(kThreads)
few_rows(const T* x, const T* w, Y* y, ADDEND_PARAMETERS i64 n, i64 k, i64 entries, A alpha, A beta,
         Steps steps, Axes<kOperands, RANK> axes) {
    __shared__ A shared[2][GROUPS][SPLIT][kSums];  // the next tile must not wait for this one
    const int lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
    const i64 tiles = (n + kTile - 1) / kTile;
    int turn = 0;
    for (i64 tile = blockIdx.x; tile < tiles * entries; tile += gridDim.x) {
        i64 entry[kOperands] = {};
        locate(axes, tile / tiles, entry);
        const i64 begin = tile % tiles * kTile;
        const T* from[COLUMNS];
        UNROLL for (int c = 0; c < COLUMNS; ++c) {
            const i64 wanted = begin + group * COLUMNS + c;
            from[c] = w + entry[1] + (wanted < n ? wanted : n - 1) * steps.w_row;
        }
        A sum[kSums] = {};
        multiply(x + entry[0], steps.x_row, from, k, lane, sum);
        UNROLL for (int o = 0; o < kSums; ++o) {
            UNROLL for (int mask = 16; mask; mask /= 2) sum[o] += shuffle_xor(sum[o], mask);
            if (lane % 32 == o) shared[turn][group][lane / 32][o] = sum[o];
        }
        __syncthreads();
        if (threadIdx.x < kSums * GROUPS) {  // neighbours write neighbouring columns
            const int row = threadIdx.x / kTile, column = threadIdx.x % kTile;
            const int o = row * COLUMNS + column % COLUMNS;
            A total = 0;
            UNROLL for (int part = 0; part < SPLIT; ++part) {
                total += shared[turn][column / COLUMNS][part][o];
            }
            if (begin + column < n) {
                finish(y, ADDEND_ARGUMENTS entry, steps, row, begin + column, alpha, beta, total);
            }
        }
        turn ^= 1;
    }
}
