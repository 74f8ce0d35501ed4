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

// ---- functions that C++ lacks ----------------------------------------------------------------

// By e^-|x|, which does not overflow.
DEVICE float sigmoid_of(float x) {
    const float e = expf(-fabsf(x));
    return (x < 0.0f ? e : 1.0f) / (e + 1.0f);
}
DEVICE double sigmoid_of(double x) {
    const double e = exp(-fabs(x));
    return (x < 0.0 ? e : 1.0) / (e + 1.0);
}

// Within 2 ulp: 1 / x of 1 to 2, and 2^x, or 0 where that is subnormal. One instruction each.
#if defined(__CUDACC__)
DEVICE float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#elif defined(__AMDGCN__)
DEVICE float reciprocal(float x) { return __builtin_amdgcn_rcpf(x); }
#if __has_builtin(__builtin_amdgcn_exp2f)
DEVICE float power_of_two(float x) { return __builtin_amdgcn_exp2f(x); }
#else
DEVICE float power_of_two(float x) { return exp2f(x); }
#endif
#else
DEVICE float reciprocal(float x) { return 1.0f / x; }
DEVICE float power_of_two(float x) { return exp2f(x); }
#endif

// For results that are rounded to f16 or bf16: within 2^-17.
DEVICE float sigmoid_of_halves(float x) {
    const float e = power_of_two(fabsf(x) * -0x1.715476p+0f);
    return (x < 0.0f ? e : 1.0f) * reciprocal(1.0f + e);
}

// 1 - erf(x) likewise: 2^(p(|x|) - x² / log 2), p fitted to |x| < 9.5, from
// where on it falls. Within 2^-17 of the right value up to |x| = 4, within 2^-15 up to 9.5.
DEVICE float complementary_error_of_halves(float x) {
    const float t = fmaf(fabsf(x), 0x1.af286cp-3f, -1.0f);
    float p = -0x1.30e582p-6f;
    p = fmaf(p, t, 0x1.f3dbd8p-9f);
    p = fmaf(p, t, 0x1.28ca1ap-4f);
    p = fmaf(p, t, -0x1.f6fe3ap-5f);
    p = fmaf(p, t, -0x1.34d8f0p-9f);
    p = fmaf(p, t, -0x1.8664dap-5f);
    p = fmaf(p, t, 0x1.0ad72ep-3f);
    p = fmaf(p, t, -0x1.5f26bap-3f);
    p = fmaf(p, t, 0x1.ee0d94p-3f);
    p = fmaf(p, t, -0x1.844454p-2f);
    p = fmaf(p, t, 0x1.47ce1ap-1f);
    p = fmaf(p, t, -0x1.6289d2p+0f);
    p = fmaf(p, t, -0x1.8d516cp+1f);
    const float positive = power_of_two(fmaf(x * x, -0x1.715476p+0f, p));
    return x < 0.0f ? 2.0f - positive : positive;
}

// ---- conversions ---------------------------------------------------------------------------

// x as it would be stored as T, f16 or bf16, and read again.
template <class T, class A> DEVICE float rounded(A x) { return widen(narrow<T>(exact(x))); }
