// The functions of a body's steps that C++ has no operator for (graphexec.ir.body.FUNCTIONS).
//
// Values are float for f16, bf16 and f32, double for f64, bool, and integers of their own types.
#pragma once
#include "device.h"

// ---- numbers -------------------------------------------------------------------------------

// NaN if either is.
template <class A> DEVICE A smaller(A a, A b) { return a < b || a != a ? a : b; }
template <class A> DEVICE A larger(A a, A b) { return a > b || a != a ? a : b; }

// -1, 0 or 1; NaN for NaN.
template <class A> DEVICE A sign_of(A x) {
    return x > A(0) ? A(1) : x < A(0) ? static_cast<A>(-1) : x == A(0) ? A(0) : x;
}

DEVICE bool is_infinite(float x) { return fabsf(x) == from_bits(0x7F800000u); }
DEVICE bool is_infinite(double x) { return fabs(x) == double(from_bits(0x7F800000u)); }

// Integers; by 0 they give 0. By -1 the quotient wraps, and hardware may trap.
template <class A> DEVICE A floor_divided(A a, A b) {
    if (b == A(0)) return A(0);
    if (A(-1) < A(0) && b == A(-1)) return static_cast<A>(u64(0) - static_cast<u64>(a));
    const A quotient = static_cast<A>(a / b);
    return static_cast<A>(a % b != 0 && (a < A(0)) != (b < A(0)) ? quotient - 1 : quotient);
}
template <class A> DEVICE A floor_remainder(A a, A b) {
    if (b == A(0) || (A(-1) < A(0) && b == A(-1))) return A(0);
    const A rest = static_cast<A>(a % b);
    return static_cast<A>(rest != 0 && (a < A(0)) != (b < A(0)) ? rest + b : rest);
}

// ---- conversions ---------------------------------------------------------------------------

template <class A> struct Limits;
template <> struct Limits<i8> { static constexpr i8 low = -128, high = 127; };
template <> struct Limits<u8> { static constexpr u8 low = 0, high = 255; };
template <> struct Limits<i32> { static constexpr i32 low = -2147483647 - 1, high = 2147483647; };
template <> struct Limits<i64> {
    static constexpr i64 low = -9223372036854775807ll - 1, high = 9223372036854775807ll;
};

// A float or double as an integer: truncated, saturated, 0 for NaN.
template <class To, class A> DEVICE To to_integer(A x) {
    constexpr A past = A(Limits<To>::high / 2 + 1) * A(2);  // a power of two, so it is exact
    if (x != x) return To(0);
    if (x >= past) return Limits<To>::high;
    if (x <= A(Limits<To>::low)) return Limits<To>::low;
    return static_cast<To>(static_cast<i64>(x));
}

// A number as a float or double that rounds on to f16 and bf16 as the number itself does.
DEVICE float exact(float x) { return x; }
DEVICE double exact(double x) { return x; }
DEVICE float exact(bool x) { return x ? 1.0f : 0.0f; }
DEVICE float exact(i8 x) { return float(x); }
DEVICE float exact(u8 x) { return float(x); }
DEVICE double exact(i32 x) { return double(x); }
DEVICE double exact(i64 x) {
    const i64 low = 0x7FF;  // bits that a double may lack: a 1 above stands for them
    const bool fits = -(i64(1) << 53) <= x && x <= i64(1) << 53;
    return double(fits || (x & low) == 0 ? x : (x & ~low) | (low + 1));
}

// x as it would be stored as T, f16 or bf16, and read again.
template <class T, class A> DEVICE float rounded(A x) { return widen(narrow<T>(exact(x))); }
