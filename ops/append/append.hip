// append: rows of x are written into a tensor at a place that is read on the device, unless the
// fault word is set (check.hip).
//
// Defines: WORD bytes, a power of two up to 16; PLACE and COUNT, the types of at and count;
//          HAS_COUNT 0 or 1; THREADS a block
#include "device.h"

template <int bytes> struct Word;
template <> struct Word<1> { typedef unsigned char type; };
template <> struct Word<2> { typedef unsigned short type; };
template <> struct Word<4> { typedef u32 type; };
template <> struct Word<8> { typedef uint2 type; };
template <> struct Word<16> { typedef uint4 type; };
typedef Word<WORD>::type word;

DEVICE i64 counted(const COUNT* count, i64 counts, i64 entry, i64 rows) {
    if (!HAS_COUNT) return rows;
    const i64 given = count[counts > 1 ? entry : 0];
    return given < 0 ? 0 : given < rows ? given : rows;
}

// x is (outer, rows, width) words, the result (outer, capacity, width). Entry o of the outer axis
// has the place and the count number o / share.
extern "C" __global__ void __launch_bounds__(THREADS)
append_rows(const word* x, const PLACE* at, const COUNT* count, word* out, const i32* fault,
            i64 places, i64 counts, i64 share, i64 outer, i64 rows, i64 capacity, i64 width) {
    if (fault[0] != 0) return;
    const i64 words = outer * rows * width;
    for (i64 n = i64(blockIdx.x) * THREADS + threadIdx.x; n < words; n += i64(gridDim.x) * THREADS) {
        const i64 line = n / width, column = n - line * width;
        const i64 o = line / rows, row = line - o * rows;
        const i64 entry = o / share;
        const i64 place = i64(at[places > 1 ? entry : 0]) + row;
        if (row >= counted(count, counts, entry, rows) || place < 0 || place >= capacity) continue;
        out[(o * capacity + place) * width + column] = x[n];
    }
}
