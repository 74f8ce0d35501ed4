// out[o][i] = x[o][index[i]]: rows of words of bytes, whatever the type.
//
// Neighbouring threads move neighbouring words. An index below 0 counts from the end; one outside
// reads nothing and gives the bits NOTHING. Numbers of threads count words.
//
// Defines: WORD bytes, a power of two up to 16; PLACE, the type of an index; NOTHING, eight bytes;
//          BATCH 0 or 1; THREADS a block; PER_THREAD words that a thread has under way; INDEX u32
//          or i64, which holds the number of words
#include "device.h"

typedef unsigned long long u64;

template <int bytes> struct Word;
template <> struct Word<1> {
    typedef unsigned char type;
    static DEVICE type filled(u64 bits) { return static_cast<type>(bits); }
};
template <> struct Word<2> {
    typedef unsigned short type;
    static DEVICE type filled(u64 bits) { return static_cast<type>(bits); }
};
template <> struct Word<4> {
    typedef u32 type;
    static DEVICE type filled(u64 bits) { return static_cast<type>(bits); }
};
template <> struct Word<8> {
    typedef uint2 type;
    static DEVICE type filled(u64 bits) { return make_uint2(u32(bits), u32(bits >> 32)); }
};
template <> struct Word<16> {
    typedef uint4 type;
    static DEVICE type filled(u64 bits) {
        return make_uint4(u32(bits), u32(bits >> 32), u32(bits), u32(bits >> 32));
    }
};
typedef Word<WORD>::type word;

struct Extent {
    i64 extent, multiplier, shift;
    DEVICE INDEX divide(INDEX n) const {
        if (extent == 1) return n;
        if (sizeof(INDEX) == 4) {
            return static_cast<INDEX>(divided(static_cast<u32>(n), multiplier, shift));
        }
        return n / static_cast<INDEX>(extent);
    }
};

// x is (outer, extent, width) words. From one member of a batch to the next, it is x_step words in
// x, and index_step elements in index.
extern "C" __global__ void __launch_bounds__(THREADS)
gather_rows(const word* x, const PLACE* index, word* out, i64 words, i64 extent, i64 outer,
            i64 x_step, i64 index_step, Extent width, Extent count) {
    constexpr i64 chunk = i64(THREADS) * PER_THREAD;
    for (i64 first = blockIdx.x * chunk; first < words; first += gridDim.x * chunk) {
        word held[PER_THREAD];
        UNROLL for (int i = 0; i < PER_THREAD; ++i) {
            const i64 n = first + i * THREADS + threadIdx.x;
            if (n >= words) continue;
            const INDEX row = width.divide(static_cast<INDEX>(n));
            const INDEX block = count.divide(row);
            const i64 column = n - i64(row) * width.extent;
            const i64 member = BATCH ? i64(block) / outer : 0;
            const i64 entry = i64(row) - i64(block) * count.extent;
            i64 place = index[member * index_step + entry];
            if (place < 0) place += extent;
            if (place < 0 || place >= extent) {
                held[i] = Word<WORD>::filled(NOTHING);
            } else {
                const i64 from = (i64(block) - member * outer) * extent + place;
                held[i] = load_native(x + member * x_step + from * width.extent + column);
            }
        }
        UNROLL for (int i = 0; i < PER_THREAD; ++i) {
            const i64 n = first + i * THREADS + threadIdx.x;
            if (n < words) store_native(out + n, held[i]);
        }
    }
}
