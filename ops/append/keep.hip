// keep: a tensor becomes the next value of a state, unless the fault word is set.
//
// Defines: WORD bytes, a power of two up to 16; THREADS a block
#include "device.h"

template <int bytes> struct Word;
template <> struct Word<1> { typedef unsigned char type; };
template <> struct Word<2> { typedef unsigned short type; };
template <> struct Word<4> { typedef u32 type; };
template <> struct Word<8> { typedef uint2 type; };
template <> struct Word<16> { typedef uint4 type; };
typedef Word<WORD>::type word;

extern "C" __global__ void __launch_bounds__(THREADS)
keep(const word* x, word* out, const i32* fault, i64 words) {
    if (fault[0] != 0) return;
    for (i64 n = i64(blockIdx.x) * THREADS + threadIdx.x; n < words; n += i64(gridDim.x) * THREADS) {
        out[n] = x[n];
    }
}
