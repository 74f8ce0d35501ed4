// The end of a product of few rows: alpha * sum + beta * c + bias, and what a body makes of it.
//
// A result may come from several columns of the product, its parts (as gate and up in silu(g) * u);
// all of these are computed by the same threads.
//
// Defines: T of x and w, Y of the result, ROWS of x, RANK of the batch
//          ADDENDS 0 to 2, FIRST and SECOND, their types; the first one is multiplied by beta
//          BATCHED 1 if there are several entries, else 0, which saves divisions before the loads
//          PARTS; MORE, the operands of the body beside them; BODY if there is one. It comes first:
//          struct More, the pointers to these operands, and element(), the body of one element
#pragma once
#include "device.h"

typedef Accumulator<T>::type A;

#if ADDENDS == 0
#define ADDEND_PARAMETERS
#define ADDEND_ARGUMENTS
#elif ADDENDS == 1
#define ADDEND_PARAMETERS const FIRST *first,
#define ADDEND_ARGUMENTS first,
#else
#define ADDEND_PARAMETERS const FIRST *first, const SECOND *second,
#define ADDEND_ARGUMENTS first, second,
#endif
#if MORE > 0
#define MORE_PARAMETERS More more,
#define MORE_ARGUMENTS more,
#else
#define MORE_PARAMETERS
#define MORE_ARGUMENTS
#endif

constexpr int kOperands = 3 + ADDENDS + MORE;  // x, w, y and the others

// Elements from one row to the next, and from one column to the next. A part begins at a column of
// the product.
struct Steps {
    i64 x_row, w_row, y_row, first_row, first_column, second_row, second_column, part[PARTS];
#if MORE > 0
    i64 more_row[MORE], more_column[MORE];
#endif
};

DEVICE void finish(Y* y, ADDEND_PARAMETERS MORE_PARAMETERS const i64 (&entry)[kOperands],
                   const Steps& steps, i64 row, i64 column, A alpha, A beta, A (&sum)[PARTS]) {
    UNROLL for (int part = 0; part < PARTS; ++part) {
        sum[part] *= alpha;
#if ADDENDS > 0
        const i64 from = steps.part[part] + column;
        sum[part] += beta * A(widen(first[entry[3] + row * steps.first_row +
                                          from * steps.first_column]));
#endif
#if ADDENDS > 1
        sum[part] += A(widen(second[entry[4] + row * steps.second_row +
                                    from * steps.second_column]));
#endif
    }
    Y result;
#ifdef BODY
    i64 at[MORE + 1];
    UNROLL for (int n = 0; n < MORE; ++n) {
#if MORE > 0
        at[n] = entry[3 + ADDENDS + n] + row * steps.more_row[n] + column * steps.more_column[n];
#endif
    }
    element(sum, MORE_ARGUMENTS at, result);
#else
    result = narrow<Y>(sum[0]);
#endif
    y[entry[2] + row * steps.y_row + column] = result;
}
