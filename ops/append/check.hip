// check: whether the rows of an append fit, told by the fault word.
//
// The fault word is {node, steps}: the number of the first node whose rows did not fit, or 0, and
// how many steps began before that. While it is set, nothing that is kept from run to run changes.
//
// Defines: PLACE and COUNT, the types of at and count; HAS_COUNT 0 or 1
#include "device.h"

DEVICE i64 counted(const COUNT* count, i64 counts, i64 entry, i64 rows) {
    if (!HAS_COUNT) return rows;
    const i64 given = count[counts > 1 ? entry : 0];
    return given < 0 ? 0 : given < rows ? given : rows;
}

// One thread: at and count have an element, or one for each entry of axis 0.
extern "C" __global__ void append_check(const PLACE* at, const COUNT* count, i32* fault,
                                        i64 places, i64 counts, i64 rows, i64 capacity, i64 node,
                                        i64 first) {
    if (blockIdx.x + threadIdx.x > 0 || fault[0] != 0) return;
    fault[1] += static_cast<i32>(first);
    const i64 entries = places > counts ? places : counts;
    for (i64 entry = 0; entry < entries; ++entry) {
        const i64 place = at[places > 1 ? entry : 0];
        const i64 some = counted(count, counts, entry, rows);
        if (place < 0 || place > capacity - some) {
            fault[0] = static_cast<i32>(node);
            return;
        }
    }
}
