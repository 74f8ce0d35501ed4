// The end of a product of few rows: y = alpha * sum + beta * c + bias, each thread some elements.
//
// Defines: T of x and w, Y of the result, ROWS of x
//          ADDENDS 0 to 2, FIRST and SECOND, their types; the first one is multiplied by beta
//          RANK of the batch
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

constexpr int kOperands = 3 + ADDENDS;  // x, w, y and the addends

// Elements from one row to the next, and from one column to the next.
struct Steps {
    i64 x_row, w_row, y_row, first_row, first_column, second_row, second_column;
};

DEVICE void finish(Y* y, ADDEND_PARAMETERS const i64 (&entry)[kOperands], const Steps& steps,
                   i64 row, i64 column, A alpha, A beta, A sum) {
    A value = alpha * sum;
#if ADDENDS > 0
    const i64 one = entry[3] + row * steps.first_row + column * steps.first_column;
    value += beta * A(widen(first[one]));
#endif
#if ADDENDS > 1
    const i64 other = entry[4] + row * steps.second_row + column * steps.second_column;
    value += A(widen(second[other]));
#endif
    y[entry[2] + row * steps.y_row + column] = narrow<Y>(value);
}
