// y = alpha * x w^T + beta * c + bias for few rows of x, where the elements of w (N, K) are
// neighbours along K: w is read once, at the memory's rate.
//
// A thread loads its whole share of a chunk of w, LOADS vectors of COLUMNS rows of w for each part,
// before it touches x: that many bytes in flight hide the latency. 32 * SPLIT threads share a row
// of w; their sums are added in a fixed order. GROUPS of them are a block.
//
// Defines: as few_rows.h; COLUMNS, SPLIT, GROUPS, LOADS; ROWS * PARTS * COLUMNS is at most 32
//          VECTOR elements of w loaded at once, X_VECTOR of x; WHOLE 1 if K is whole chunks
#include "few_rows.h"

constexpr int kLanes = 32 * SPLIT, kThreads = kLanes * GROUPS;
constexpr int kStep = kLanes * VECTOR;   // elements from one vector of a thread to its next
constexpr int kTile = GROUPS * COLUMNS;  // columns of the result that a block computes
constexpr int kFrom = PARTS * COLUMNS;   // rows of w of a thread
constexpr int kSums = ROWS * kFrom;

DEVICE void multiply(const T* x, i64 x_row, const T* const (&w)[kFrom], i64 k, int lane,
                     A (&sum)[kSums]) {
    for (i64 base = i64(lane) * VECTOR; base < k; base += i64(kStep) * LOADS) {
        Vector<T, VECTOR> found[kFrom][LOADS];
        UNROLL for (int c = 0; c < kFrom; ++c) {
            UNROLL for (int i = 0; i < LOADS; ++i) {
                const i64 at = base + i * kStep;
                if (WHOLE || at < k) found[c][i] = load<VECTOR>(w[c] + at);
            }
        }
        UNROLL for (int i = 0; i < LOADS; ++i) {
            if (!WHOLE && base + i * kStep >= k) continue;
            UNROLL for (int row = 0; row < ROWS; ++row) {
                const Vector<T, VECTOR> here =
                    gather<VECTOR, X_VECTOR>(x + row * x_row + base + i * kStep, 1);
                UNROLL for (int c = 0; c < kFrom; ++c) {
                    A& total = sum[row * kFrom + c];
                    UNROLL for (int j = 0; j < VECTOR; ++j) {
                        total = fmaf(widen(found[c][i].get(j)), widen(here.get(j)), total);
                    }
                }
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(kThreads)
few_rows(const T* x, const T* w, Y* y, ADDEND_PARAMETERS MORE_PARAMETERS i64 n, i64 k, i64 entries,
         A alpha, A beta, Steps steps, Axes<kOperands, RANK> axes) {
    __shared__ A shared[2][GROUPS][SPLIT][kSums];  // the next tile must not wait for this one
    const int lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
    const i64 tiles = (n + kTile - 1) / kTile;
    int turn = 0;
    for (i64 tile = blockIdx.x; tile < tiles * entries; tile += gridDim.x) {
        i64 entry[kOperands] = {}, number = tile;
        if (BATCHED) {
            locate(axes, tile / tiles, entry);
            number = tile % tiles;
        }
        const i64 begin = number * kTile;
        const T* from[kFrom];
        UNROLL for (int c = 0; c < kFrom; ++c) {
            const i64 wanted = begin + group * COLUMNS + c % COLUMNS;
            const i64 column = steps.part[c / COLUMNS] + (wanted < n ? wanted : n - 1);
            from[c] = w + entry[1] + column * steps.w_row;
        }
        A sum[kSums] = {};
        multiply(x + entry[0], steps.x_row, from, k, lane, sum);
        UNROLL for (int o = 0; o < kSums; ++o) {
            UNROLL for (int mask = 16; mask; mask /= 2) sum[o] += shuffle_xor(sum[o], mask);
            if (lane % 32 == o) shared[turn][group][lane / 32][o] = sum[o];
        }
        __syncthreads();
        if (threadIdx.x < ROWS * kTile) {  // neighbours write neighbouring columns
            const int row = threadIdx.x / kTile, column = threadIdx.x % kTile;
            A total[PARTS] = {};
            UNROLL for (int part = 0; part < PARTS; ++part) {
                const int o = row * kFrom + part * COLUMNS + column % COLUMNS;
                UNROLL for (int share = 0; share < SPLIT; ++share) {
                    total[part] += shared[turn][column / COLUMNS][share][o];
                }
            }
            if (begin + column < n) {
                finish(y, ADDEND_ARGUMENTS MORE_ARGUMENTS entry, steps, row, begin + column, alpha,
                       beta, total);
            }
        }
        turn ^= 1;
    }
}
