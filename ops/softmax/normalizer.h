// The running maximum and sum of exponentials of a softmax, and how two of them merge.
#pragma once
#include "device.h"

typedef Accumulator<X_TYPE>::type A;

// The hardware's exponential is exact enough for 16 bits.
DEVICE float exponential_of(float x, f16) { return __expf(x); }
DEVICE float exponential_of(float x, bf16) { return __expf(x); }
DEVICE float exponential_of(float x, f32) { return expf(x); }
DEVICE double exponential_of(double x, f64) { return exp(x); }
DEVICE A exponential(A x) { return exponential_of(x, X_TYPE()); }

DEVICE float larger(float a, float b) { return fmaxf(a, b); }
DEVICE double larger(double a, double b) { return fmax(a, b); }

DEVICE A minus_infinity() { return from_bits(0xFF800000u); }

// What is subtracted from z. Where every z is -inf, that is not the maximum: it would give NaN.
// A NaN is in no maximum but in the sum, and so in every result of its row.
DEVICE A shift_of(A max) { return max == minus_infinity() ? A(0) : max; }

// The factor of the exponentials; a row that is masked entirely has sum 0 and becomes zeros.
DEVICE A inverse(A sum) { return sum == 0 ? A(1) : A(1) / sum; }

struct Normalizer {
    A max, sum;  // sum of exp(z - shift_of(max))
};

DEVICE Normalizer nothing() { return {minus_infinity(), A(0)}; }

DEVICE void merge(Normalizer& into, const Normalizer& other) {
    const A max = larger(into.max, other.max), shift = shift_of(max);
    into.sum = into.sum * exponential(into.max - shift) + other.sum * exponential(other.max - shift);
    into.max = max;
}

// Merges over the lanes whose numbers differ in the bits from `low` up to below `end`.
template <int low, int end> DEVICE void merge_shuffled(Normalizer& mine) {
    A max = mine.max;
    UNROLL for (int mask = low; mask < end; mask *= 2) max = larger(max, shuffle_xor(max, mask));
    mine.sum *= exponential(mine.max - shift_of(max));
    mine.max = max;
    UNROLL for (int mask = low; mask < end; mask *= 2) mine.sum += shuffle_xor(mine.sum, mask);
}

// z becomes exp(z - shift_of(max z)); the maximum and the sum are returned.
template <int n> DEVICE Normalizer exponentiate(A (&z)[n]) {
    Normalizer total = nothing();
    UNROLL for (int i = 0; i < n; ++i) total.max = larger(total.max, z[i]);
    const A shift = shift_of(total.max);
    UNROLL for (int i = 0; i < n; ++i) {
        z[i] = exponential(z[i] - shift);
        total.sum += z[i];
    }
    return total;
}
