// out[..., t, ..., l] = x with a cast, where x's neighbours lie along t and out's along l.
//
// A block carries tiles of TILE_L by TILE_T elements through shared memory, so that it reads
// vectors along t and writes vectors along l. The other axes are batches.
//
// Defines: SRC_TYPE, DST_TYPE; THREADS a block; TILE_T and TILE_L, powers of two;
//          SRC_VECTOR and DST_VECTOR elements loaded and stored at once; RANK axes of batches;
//          INDEX u32 or i64, which holds the number of tiles
#include "device.h"

constexpr int kPad = sizeof(DST_TYPE) < 4 ? 4 / sizeof(DST_TYPE) : 1;  // one bank
constexpr int kLoads = TILE_T * TILE_L / (SRC_VECTOR * THREADS);
constexpr int kStores = TILE_T * TILE_L / (DST_VECTOR * THREADS);
static_assert(kLoads * SRC_VECTOR * THREADS == TILE_T * TILE_L, "threads share a tile evenly");
static_assert(kStores * DST_VECTOR * THREADS == TILE_T * TILE_L, "threads share a tile evenly");

typedef DST_TYPE Tile[TILE_L][TILE_T + kPad];

// The part of a tile that lies in the tensors, and the steps across them.
struct Window {
    i64 t_left, l_left, x_t, x_l, out_t;
};

DEVICE void read(const SRC_TYPE* x, const Window& window, Tile& tile) {
    constexpr int per_line = TILE_T / SRC_VECTOR;
    Vector<SRC_TYPE, SRC_VECTOR> held[kLoads];
    UNROLL for (int i = 0; i < kLoads; ++i) {
        const int n = i * THREADS + threadIdx.x, l = n / per_line, t = n % per_line * SRC_VECTOR;
        if (l < window.l_left && t < window.t_left) {
            held[i] = load<SRC_VECTOR>(x + l * window.x_l + (SRC_VECTOR == 1 ? t * window.x_t : t));
        }
    }
    UNROLL for (int i = 0; i < kLoads; ++i) {
        const int n = i * THREADS + threadIdx.x, l = n / per_line, t = n % per_line * SRC_VECTOR;
        if (l < window.l_left && t < window.t_left) {
            UNROLL for (int j = 0; j < SRC_VECTOR; ++j) {
                tile[l][t + j] = convert<DST_TYPE>(held[i].get(j));
            }
        }
    }
}

DEVICE void write(DST_TYPE* out, const Window& window, const Tile& tile) {
    constexpr int per_line = TILE_L / DST_VECTOR;
    UNROLL for (int i = 0; i < kStores; ++i) {
        const int n = i * THREADS + threadIdx.x, t = n / per_line, l = n % per_line * DST_VECTOR;
        if (l < window.l_left && t < window.t_left) {
            Vector<DST_TYPE, DST_VECTOR> result;
            UNROLL for (int j = 0; j < DST_VECTOR; ++j) result.set(j, tile[l + j][t]);
            store(out + t * window.out_t + l, result);
        }
    }
}

// Steps from one element to the next: in x along t and along l, in out along t.
extern "C" __global__ void __launch_bounds__(THREADS)
transposed_copy(const SRC_TYPE* x, DST_TYPE* out, i64 tiles, i64 t_extent, i64 l_extent, i64 x_t,
                i64 x_l, i64 out_t, Axes<2, RANK> axes) {
    __shared__ Tile tile;
    const INDEX across = static_cast<INDEX>((l_extent + TILE_L - 1) / TILE_L);
    const INDEX down = static_cast<INDEX>((t_extent + TILE_T - 1) / TILE_T);
    for (i64 n = blockIdx.x; n < tiles; n += gridDim.x) {
        const INDEX line = static_cast<INDEX>(n) / across, batch = line / down;
        const i64 l = i64(static_cast<INDEX>(n) - line * across) * TILE_L;
        const i64 t = i64(line - batch * down) * TILE_T;
        i64 offset[2] = {l * x_l + t * x_t, t * out_t + l};
        locate(axes, batch, offset);
        const Window window = {t_extent - t, l_extent - l, x_t, x_l, out_t};
        read(x + offset[0], window, tile);
        __syncthreads();
        write(out + offset[1], window, tile);
        __syncthreads();
    }
}
