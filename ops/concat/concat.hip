// The rows of several parts side by side in the rows of a result, whatever the type: words of bytes.
//
// A row of the result is the words of every part, one part after another. Neighbouring threads move
// neighbouring words. Indices count words.
//
// Defines: WORD bytes, a power of two up to 16; PARTS; THREADS a block; PER_THREAD words that a
//          thread has under way; INDEX u32 or i64, which holds the number of words
#include "device.h"

template <int bytes> struct Word;
template <> struct Word<1> { typedef unsigned char type; };
template <> struct Word<2> { typedef unsigned short type; };
template <> struct Word<4> { typedef u32 type; };
template <> struct Word<8> { typedef uint2 type; };
template <> struct Word<16> { typedef uint4 type; };
typedef Word<WORD>::type word;

// end: the words of a row up to the end of this part. Steps go from one row to the next.
struct Part {
    const word* x;
    word* out;
    i64 end, x_step, out_step;
};
struct Parts { Part part[PARTS]; };

extern "C" __global__ void __launch_bounds__(THREADS)
concat(i64 words, i64 width, i64 multiplier, i64 shift, Parts parts) {
    constexpr i64 chunk = i64(THREADS) * PER_THREAD;
    for (i64 first = blockIdx.x * chunk; first < words; first += gridDim.x * chunk) {
        word held[PER_THREAD];
        word* target[PER_THREAD];
        UNROLL for (int i = 0; i < PER_THREAD; ++i) {
            const i64 n = first + i * THREADS + threadIdx.x;
            if (n >= words) continue;
            i64 row;
            if (width == 1) row = n;
            else if (sizeof(INDEX) == 4) row = divided(static_cast<u32>(n), multiplier, shift);
            else row = n / width;
            const i64 column = n - row * width;
            i64 begin = 0;
            UNROLL for (int p = 0; p < PARTS; ++p) {  // registers, not an index into the arguments
                const Part& part = parts.part[p];
                if (column >= begin && column < part.end) {
                    held[i] = load_native(part.x + row * part.x_step + (column - begin));
                    target[i] = part.out + row * part.out_step + (column - begin);
                }
                begin = part.end;
            }
        }
        UNROLL for (int i = 0; i < PER_THREAD; ++i) {
            if (first + i * THREADS + threadIdx.x < words) store_native(target[i], held[i]);
        }
    }
}
