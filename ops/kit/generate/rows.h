// Reductions of rows: what a thread has of one, and how it merges with what the others have.
//
// A sum is in the order of a thread's elements, then of the lanes: always the same.
#pragma once
#include "steps.h"

// ---- what is reduced -----------------------------------------------------------------------

DEVICE float lowest(float) { return -from_bits(0x7F800000u); }
DEVICE double lowest(double) { return -double(from_bits(0x7F800000u)); }
DEVICE i32 lowest(i32) { return Limits<i32>::low; }
DEVICE i64 lowest(i64) { return Limits<i64>::low; }
DEVICE float highest(float) { return from_bits(0x7F800000u); }
DEVICE double highest(double) { return double(from_bits(0x7F800000u)); }
DEVICE i32 highest(i32) { return Limits<i32>::high; }
DEVICE i64 highest(i64) { return Limits<i64>::high; }

// Integers wrap.
struct Add {
    static DEVICE float of(float a, float b) { return a + b; }
    static DEVICE double of(double a, double b) { return a + b; }
    static DEVICE i32 of(i32 a, i32 b) { return i32(u32(a) + u32(b)); }
    static DEVICE i64 of(i64 a, i64 b) { return i64(u64(a) + u64(b)); }
    template <class A> static DEVICE A none() { return A(0); }
};
struct Multiply {
    static DEVICE float of(float a, float b) { return a * b; }
    static DEVICE double of(double a, double b) { return a * b; }
    static DEVICE i32 of(i32 a, i32 b) { return i32(u32(a) * u32(b)); }
    static DEVICE i64 of(i64 a, i64 b) { return i64(u64(a) * u64(b)); }
    template <class A> static DEVICE A none() { return A(1); }
};
struct Smallest {
    template <class A> static DEVICE A of(A a, A b) { return smaller(a, b); }
    template <class A> static DEVICE A none() { return highest(A()); }
    template <class A> static DEVICE bool first(A a, A b) { return a < b; }
};
struct Largest {
    template <class A> static DEVICE A of(A a, A b) { return larger(a, b); }
    template <class A> static DEVICE A none() { return lowest(A()); }
    template <class A> static DEVICE bool first(A a, A b) { return a > b; }
};

// One number of all that were taken.
template <class A, class Operation> struct Fold {
    A value;
    static DEVICE Fold none() { return {Operation::template none<A>()}; }
    DEVICE void take(A x, i64) { value = Operation::of(value, x); }
    DEVICE void merge(const Fold& other) { value = Operation::of(value, other.value); }
    DEVICE Fold shuffled(int mask) const { return {shuffle_xor(value, mask)}; }
    DEVICE A result() const { return value; }
};

// Where the extreme was taken: the first of equal ones; a NaN wins over all numbers.
template <class A, class Operation> struct Place {
    A value;
    i64 place;
    static DEVICE Place none() { return {Operation::template none<A>(), Limits<i64>::high}; }
    DEVICE void take(A x, i64 k) { merge({x, k}); }
    DEVICE void merge(const Place& other) {
        const bool is_nan = value != value, comes_nan = other.value != other.value;
        const bool equal = value == other.value || (is_nan && comes_nan);
        const bool wins = comes_nan || Operation::first(other.value, value);
        if (equal ? other.place < place : wins) *this = other;
    }
    DEVICE Place shuffled(int mask) const {
        return {shuffle_xor(value, mask), shuffle_xor(place, mask)};
    }
    DEVICE i64 result() const { return place; }
};

// ---- over threads --------------------------------------------------------------------------

// Over groups of `lanes` neighbouring threads, a power of two up to 32.
template <int lanes, class R> DEVICE void merge_lanes(R& mine) {
    UNROLL for (int mask = 1; mask < lanes; mask *= 2) mine.merge(mine.shuffled(mask));
}

// Over a block in two halves, with a barrier between them: each wavefront of 32 puts its own,
template <class R> DEVICE void put_warp(R mine, R* shared) {
    merge_lanes<32>(mine);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = mine;
}
// ... and every thread merges those of all.
template <int warps, class R> DEVICE R merged_warps(const R* shared) {
    const int lane = threadIdx.x % 32;
    R mine = lane < warps ? shared[lane] : R::none();
    merge_lanes<32>(mine);
    return mine;
}

// The same over the threads of a column, `columns` apart in the block.
template <int columns, int depth, class R> DEVICE R merged_column(const R* shared) {
    R mine = shared[threadIdx.x % columns];
    for (int d = 1; d < depth; ++d) mine.merge(shared[d * columns + threadIdx.x % columns]);
    return mine;
}
