/* What generated C is made of: elements as they lie in memory, functions, and reductions. c.py puts
it, behind halves.h, before each body.

Loops over elements are written so that compilers make vectors of them: no branches, no calls. The
functions of float are within 4 ulp of the exact value; their polynomials interpolate at Chebyshev
nodes. Those of double are the C library's. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef ptrdiff_t word;
typedef float f32;
typedef double f64;
typedef int8_t i8;
typedef uint8_t u8;
typedef int32_t i32;
typedef int64_t i64;

#define EXPORT __attribute__((visibility("default")))
#define UNUSED __attribute__((unused))
#if defined(__clang__)
#define VECTORS _Pragma("clang loop vectorize(assume_safety)")
#else
#define VECTORS _Pragma("GCC ivdep")
#endif

/* Elements come in pieces of CHUNK. Registers have WIDE bytes. */
enum { CHUNK = 512 };
#if defined(__AVX512F__)
enum { WIDE = 64 };
#elif defined(__AVX__)
enum { WIDE = 32 };
#else
enum { WIDE = 16 };
#endif

/* With one rounding where the CPU can, for speed; both ways are accurate enough. */
#if defined(__FMA__) || defined(__aarch64__)
#define FMA(a, b, c) __builtin_fmaf(a, b, c)
#else
#define FMA(a, b, c) ((a) * (b) + (c))
#endif

INLINE word least(word a, word b) { return a < b ? a : b; }

/* Casts ---------------------------------------------------------------------------------------- */

/* A double as the float next to it whose last bit is 1, unless it is one: then rounding that to a
half rounds once (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", IEEE
Transactions on Computers 57(4), 2008). */
INLINE float to_odd(double x) {
    float y = (float)x;
    uint32_t bits = as_bits(y);
    int32_t moved = fabs((double)y) > fabs(x) ? -1 : 1;
    int even = (double)y != x && !(bits & 1) && (bits & 0x7fffffff) < 0x7f800000;
    return as_float(bits + (even ? moved : 0));
}

/* An integer as a double, whose last bits become one that says whether any is set. */
INLINE double odd_double(i64 x) {
    i64 rest = x & 0x7ff, size = x < 0 ? -x : x;
    return (double)(size < ((i64)1 << 53) && x != INT64_MIN ? x : x - rest + (rest ? 0x400 : 0));
}

/* Towards zero; the nearest there is, and 0 for NaN. */
#define TO_INTEGER(type, from, low, high, beyond)                                            \
    INLINE type from##_to_##type(from x) {                                                   \
        return x >= (from)beyond ? high : x <= (from)low ? low : x == x ? (type)x : 0;       \
    }
#define TO_INTEGERS(from)                                                                    \
    TO_INTEGER(i8, from, INT8_MIN, INT8_MAX, 128.0)                                          \
    TO_INTEGER(u8, from, 0, UINT8_MAX, 256.0)                                                \
    TO_INTEGER(i32, from, INT32_MIN, INT32_MAX, 2147483648.0)                                \
    TO_INTEGER(i64, from, INT64_MIN, INT64_MAX, 9223372036854775808.0)
TO_INTEGERS(f32)
TO_INTEGERS(f64)

/* Memory --------------------------------------------------------------------------------------- */

/* Neighbours in memory, as the type in which they are computed, and back. */
#define CONVERT(type, computed, from, to)                                                    \
    UNUSED static void widen_##type(computed *wide, const type *x, word count) {             \
        VECTORS for (word i = 0; i < count; i++)                                             \
            wide[i] = from(x[i]);                                                            \
    }                                                                                        \
    UNUSED static void narrow_##type(type *x, const computed *wide, word count) {            \
        VECTORS for (word i = 0; i < count; i++)                                             \
            x[i] = to(wide[i]);                                                              \
    }

/* load_: elements as an array of the type in which they are computed, where they lie if that may be,
else in `spare`. place_: where to compute elements that are to lie at `to`, or `spare`; store_ takes
them from there. fill_: the same element for all. Steps are in bytes. */
#define MEMORY(type, computed, from, to)                                                     \
    UNUSED static const computed *load_##type(computed *spare, const char *x, word step,     \
                                              word count) {                                  \
        if (step == sizeof(type) && sizeof(type) == sizeof(computed))                        \
            return (const computed *)x;                                                      \
        if (step == sizeof(type)) {                                                          \
            widen_##type(spare, (const type *)x, count);                                     \
        } else if (step == 0) {                                                              \
            computed one = from(*(const type *)x);                                           \
            for (word i = 0; i < count; i++)                                                 \
                spare[i] = one;                                                              \
        } else {                                                                             \
            for (word i = 0; i < count; i++)                                                 \
                spare[i] = from(*(const type *)(x + i * step));                              \
        }                                                                                    \
        return spare;                                                                        \
    }                                                                                        \
    UNUSED static computed *place_##type(computed *spare, char *x, word step) {              \
        int there = step == sizeof(type) && sizeof(type) == sizeof(computed);                \
        return there ? (computed *)x : spare;                                                \
    }                                                                                        \
    UNUSED static void store_##type(char *x, word step, const computed *wide, word count) {  \
        if ((const char *)wide == x)                                                         \
            return;                                                                          \
        if (step == sizeof(type)) {                                                          \
            narrow_##type((type *)x, wide, count);                                           \
        } else {                                                                             \
            for (word i = 0; i < count; i++)                                                 \
                *(type *)(x + i * step) = to(wide[i]);                                       \
        }                                                                                    \
    }                                                                                        \
    UNUSED static void fill_##type(char *x, word step, computed wide, word count) {          \
        type one = to(wide);                                                                 \
        for (word i = 0; i < (step ? count : 1); i++)                                        \
            *(type *)(x + i * step) = one;                                                   \
    }

#define SAME(x) (x)
#define PLAIN(type) CONVERT(type, type, SAME, SAME) MEMORY(type, type, SAME, SAME)
PLAIN(f32)
PLAIN(f64)
PLAIN(i8)
PLAIN(u8)
PLAIN(i32)
PLAIN(i64)
CONVERT(bf16, f32, from_bf16, to_bf16)
MEMORY(bf16, f32, from_bf16, to_bf16)

#if defined(__F16C__) && defined(__AVX__)
/* Eight at a time. To include immintrin.h would take longer than to compile all the rest. */
typedef float eight __attribute__((vector_size(32)));
typedef short eight_f16 __attribute__((vector_size(16)));

UNUSED static void widen_f16(f32 *wide, const f16 *x, word count) {
    word i = 0;
    for (; i + 8 <= count; i += 8) {
        eight_f16 from;
        memcpy(&from, x + i, sizeof from);
        eight to = __builtin_ia32_vcvtph2ps256(from);
        memcpy(wide + i, &to, sizeof to);
    }
    for (; i < count; i++)
        wide[i] = from_f16(x[i]);
}

UNUSED static void narrow_f16(f16 *x, const f32 *wide, word count) {
    word i = 0;
    for (; i + 8 <= count; i += 8) {
        eight from;
        memcpy(&from, wide + i, sizeof from);
        eight_f16 to = __builtin_ia32_vcvtps2ph256(from, 0);
        memcpy(x + i, &to, sizeof to);
    }
    for (; i < count; i++)
        x[i] = to_f16(wide[i]);
}
#else
CONVERT(f16, f32, from_f16, to_f16)
#endif
MEMORY(f16, f32, from_f16, to_f16)

/* Rows that lie side by side ------------------------------------------------------------------- */

enum { TURNED = 32 }; /* rows at a time */

/* Whether the next row begins with the next element, and the next element of a row does not. */
INLINE int is_turned(word step, word next, word size) {
    return next == size && step != 0 && step != size;
}

/* Bytes from row to row in memory: no two begin in the same set of a cache. */
INLINE word turned_pitch(word extent, word size) { return (extent * size + 127) / 64 * 64; }

/* Elements that lie side by side, of rows that lie apart; `back` from these. Hardware does not
foresee steps of a page and more. */
UNUSED static void turn(char *aside, word step, char *rows, word pitch, word count, word extent,
                        word size, int back) {
#define TURN(type)                                                                           \
    for (word i = 0; i < extent; i++) {                                                      \
        for (word n = 0; n < count * size; n += 64)                                          \
            __builtin_prefetch(aside + (i + 16) * step + n);                                 \
        for (word n = 0; n < count; n++) {                                                   \
            type *one = (type *)(aside + i * step) + n;                                      \
            type *other = (type *)(rows + n * pitch) + i;                                    \
            if (back)                                                                        \
                *one = *other;                                                               \
            else                                                                             \
                *other = *one;                                                               \
        }                                                                                    \
    }                                                                                        \
    return;
    switch (size) {
    case 1: TURN(uint8_t)
    case 2: TURN(uint16_t)
    case 4: TURN(uint32_t)
    default: TURN(uint64_t)
    }
}

/* Functions ------------------------------------------------------------------------------------ */

/* NaN if either is. */
#define MIN(a, b) ((a) < (b) || (a) != (a) ? (a) : (b))
#define MAX(a, b) ((a) > (b) || (a) != (a) ? (a) : (b))
#define SIGN(type, a) ((a) > 0 ? (type)1 : (a) < 0 ? (type)-1 : (a) == 0 ? (type)0 : (a))

#define FLOOR __builtin_floor
#define FLOORF __builtin_floorf
#define CEIL __builtin_ceil
#define CEILF __builtin_ceilf
#define RINT __builtin_rint
#define RINTF __builtin_rintf
#define FABS __builtin_fabs
#define FABSF __builtin_fabsf
#define SQRT __builtin_sqrt
#define SQRTF __builtin_sqrtf

/* The floor of a / b, and what is left; 0 if b is 0. */
#define WHOLE(type)                                                                          \
    INLINE type floordiv_##type(type a, type b) {                                            \
        if (b == 0 || b == (type)-1)                                                         \
            return b == 0 ? 0 : (type)-1 > 0 ? a / b : (type)-(uint64_t)a;                   \
        return a / b - (a % b != 0 && (a < 0) != (b < 0));                                   \
    }                                                                                        \
    INLINE type mod_##type(type a, type b) {                                                 \
        if (b == 0 || ((type)-1 < 0 && b == (type)-1))                                       \
            return 0;                                                                        \
        type rest = a % b;                                                                   \
        return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;                         \
    }
WHOLE(i8)
WHOLE(u8)
WHOLE(i32)
WHOLE(i64)

/* As 2 to a whole number times e to a rest in [-ln 2 / 2, ln 2 / 2], ln 2 in two parts (Cody and
Waite, "Software Manual for the Elementary Functions", 1980). */
INLINE f32 exp_f32(f32 x) {
    x = x < -104.0f ? -104.0f : x > 89.0f ? 89.0f : x;
    f32 whole = __builtin_rintf(x * 0x1.715476p+0f);
    f32 r = FMA(whole, -0.693359375f, x);
    r = FMA(whole, 2.12194440e-4f, r);
    f32 p = 0x1.a124e4p-13f;
    p = FMA(p, r, 0x1.6d4316p-10f);
    p = FMA(p, r, 0x1.1110e0p-7f);
    p = FMA(p, r, 0x1.5554eap-5f);
    p = FMA(p, r, 0x1.555556p-3f);
    p = FMA(p, r, 0.5f);
    p = FMA(p * r, r, r) + 1.0f;
    int32_t power = (int32_t)whole, half = power >> 1; /* in two steps, for subnormal results */
    return p * as_float((uint32_t)(half + 127) << 23) *
           as_float((uint32_t)(power - half + 127) << 23);
}

/* Of 2 to a whole number times 1 + f, in [√½, √2). */
INLINE f32 log_f32(f32 x) {
    int small = x < 0x1p-126f;
    uint32_t bits = as_bits(small ? x * 0x1p23f : x) - 0x3f3504f3;
    f32 e = (f32)(((int32_t)bits >> 23) - (small ? 23 : 0));
    f32 f = as_float((bits & 0x7fffff) + 0x3f3504f3) - 1.0f;
    f32 p = 0x1.1d8ea6p-4f;
    p = FMA(p, f, -0x1.d635bcp-4f);
    p = FMA(p, f, 0x1.dea282p-4f);
    p = FMA(p, f, -0x1.fcf4c6p-4f);
    p = FMA(p, f, 0x1.23d21ap-3f);
    p = FMA(p, f, -0x1.555b4ap-3f);
    p = FMA(p, f, 0x1.999d5ap-3f);
    p = FMA(p, f, -0x1.fffffcp-3f);
    p = FMA(p, f, 0x1.555554p-2f);
    p = p * f * f * f;
    p = FMA(e, -2.12194440e-4f, p);
    p = FMA(-0.5f * f, f, p);
    p = FMA(e, 0.693359375f, f + p);
    p = x == INFINITY ? x : p;
    return x > 0 ? p : x == 0 ? -INFINITY : NAN;
}

/* The logarithm of what 1 + x rounds to, and what that lost. */
INLINE f32 log1p_f32(f32 x) {
    f32 u = 1.0f + x, lost = x >= 1.0f ? 1.0f - (u - x) : x - (u - 1.0f);
    f32 found = log_f32(u);
    return u > 0 && u < INFINITY ? found + lost / u : found;
}

INLINE f32 tanh_f32(f32 x) {
    f32 a = fabsf(x), z = x * x, p = -0x1.8878a0p-8f;
    p = FMA(p, z, 0x1.56c526p-6f);
    p = FMA(p, z, -0x1.b90306p-5f);
    p = FMA(p, z, 0x1.110d88p-3f);
    p = FMA(p, z, -0x1.555552p-2f);
    f32 near = FMA(p * z, x, x), far = 1.0f - 2.0f / (exp_f32(2.0f * a) + 1.0f);
    return a < 0.640625f ? near : copysignf(far, x);
}

/* By e^-|x|, which does not overflow. */
INLINE f32 sigmoid_f32(f32 x) {
    f32 e = exp_f32(-fabsf(x));
    return (x < 0 ? e : 1.0f) / (e + 1.0f);
}

INLINE f64 sigmoid_f64(f64 x) {
    f64 e = exp(-fabs(x));
    return (x < 0 ? e : 1.0) / (e + 1.0);
}

/* erf for |x| ≤ 1. */
INLINE f32 near_erf(f32 x) {
    f32 z = x * x, p = 0x1.4a5690p-14f;
    p = FMA(p, z, -0x1.a45088p-11f);
    p = FMA(p, z, 0x1.541270p-8f);
    p = FMA(p, z, -0x1.b7fabap-6f);
    p = FMA(p, z, 0x1.ce2d10p-4f);
    p = FMA(p, z, -0x1.81273ep-2f);
    p = FMA(p, z, 0x1.06eba7p-3f); /* 1 + 0.128, of which f32 has more digits */
    return FMA(p, x, x);
}

/* erfc for x ≥ 0: e^(-x²) / (1 + 2x) times what varies little (Shepherd and Laframboise 1981, as in
error_function.py). */
INLINE f32 far_erfc(f32 x) {
    x = x > 10.5f ? 10.5f : x;
    f32 high = as_float(as_bits(x) & 0xfffff000), low = x - high;
    f32 square = x * x, rest = ((high * high - square) + 2.0f * high * low) + low * low;
    f32 t = (x - 2.0f) / (x + 2.0f), p = 0x1.5fa490p-14f;
    p = FMA(p, t, 0x1.74e3e0p-13f);
    p = FMA(p, t, -0x1.a55aa2p-12f);
    p = FMA(p, t, -0x1.76e7bcp-10f);
    p = FMA(p, t, 0x1.47d7c2p-10f);
    p = FMA(p, t, 0x1.1d8024p-7f);
    p = FMA(p, t, -0x1.071eb6p-7f);
    p = FMA(p, t, -0x1.bc284ep-5f);
    p = FMA(p, t, 0x1.4ff9e8p-3f);
    p = FMA(p, t, -0x1.5407cap-3f);
    p = FMA(p, t, -0x1.7bf5e8p-4f);
    p = FMA(p, t, 0x1.46e80ep+0f);
    p /= 1.0f + 2.0f * x;
    return exp_f32(-square) * FMA(p, -rest, p);
}

INLINE f32 erf_f32(f32 x) {
    f32 far = copysignf(1.0f - far_erfc(fabsf(x)), x);
    return fabsf(x) <= 1.0f ? near_erf(x) : far;
}

INLINE f32 erfc_f32(f32 x) {
    f32 far = far_erfc(fabsf(x));
    return x < 0 ? 2.0f - far : far;
}

/* Bits of 2/π from number 8 (i - 1) on. */
UNUSED static const uint32_t two_over_pi[24] = {
    0x00517cc1, 0x517cc1b7, 0x7cc1b727, 0xc1b72722, 0xb727220a, 0x27220a94,
    0x220a94fe, 0x0a94fe13, 0x94fe13ab, 0xfe13abe8, 0x13abe8fa, 0xabe8fa9a,
    0xe8fa9a6e, 0xfa9a6ee0, 0x9a6ee06d, 0x6ee06db1, 0xe06db14a, 0x6db14acc,
    0xb14acc9e, 0x4acc9e21, 0xcc9e21c8, 0x9e21c820, 0x21c820ff, 0xc820ff28,
};

/* x less a whole number of quarter turns, in [-π/4, π/4]; `turns` is that number modulo 4. Large x
by the bits of 2/π that matter for it (Payne and Hanek, "Radian reduction for trigonometric
functions", ACM SIGNUM Newsletter 18(1), 1983). */
INLINE f32 reduced(f32 x, uint32_t *turns) {
    f64 whole = __builtin_rint(x * 0x1.45f306dc9c883p-1);
    f64 near = (x - whole * 0x1.921fb54400000p+0) - whole * 0x1.0b4611a626331p-34;

    uint32_t bits = as_bits(x) & 0x7fffffff;
    int32_t first = (int32_t)(bits >> 23) - 150 - 1 + 8; /* the first bit that matters, and 8 */
    first = first < 0 ? 0 : first;
    uint64_t m = (uint64_t)((bits & 0x7fffff) | 0x800000) << (first & 7);
    word at = first >> 3;
    uint64_t sum = (m * two_over_pi[at] << 32) + m * two_over_pi[at + 4];
    sum += m * two_over_pi[at + 8] >> 32;
    uint64_t quarters = (sum + ((uint64_t)1 << 61)) >> 62;
    f64 far = (f64)(int64_t)(sum - (quarters << 62)) * 0x1.921fb54442d18p-62;

    int large = bits >= 0x49000000; /* 2^19 */
    uint32_t count = (uint32_t)quarters;
    *turns = large ? (x < 0 ? -count : count) : (uint32_t)(int32_t)(large ? 0.0 : whole);
    return (f32)(large ? (x < 0 ? -far : far) : near);
}

/* The sine of x plus so many quarter turns. */
INLINE f32 sine(f32 x, uint32_t more) {
    uint32_t turns;
    f32 r = reduced(x, &turns), z = r * r;
    f32 s = 0x1.6dbe08p-19f, c = 0x1.9bd89cp-16f;
    s = FMA(s, z, -0x1.a013a8p-13f);
    s = FMA(s, z, 0x1.11110ep-7f);
    s = FMA(s, z, -0x1.555556p-3f);
    s = FMA(s * z, r, r);
    c = FMA(c, z, -0x1.6c12d2p-10f);
    c = FMA(c, z, 0x1.555554p-5f);
    c = FMA(c * z, z, FMA(z, -0.5f, 1.0f));
    turns += more;
    f32 found = turns & 1 ? c : s;
    found = turns & 2 ? -found : found;
    return fabsf(x) < INFINITY ? found : NAN;
}

INLINE f32 sin_f32(f32 x) { return sine(x, 0); }
INLINE f32 cos_f32(f32 x) { return sine(x, 1); }

#define exp_f64 exp
#define log_f64 log
#define log1p_f64 log1p
#define tanh_f64 tanh
#define erf_f64 erf
#define erfc_f64 erfc
#define sin_f64 sin
#define cos_f64 cos
#define pow_f32 powf
#define pow_f64 pow

/* Reductions ----------------------------------------------------------------------------------- */

/* Of a piece of a row: in the lanes of four registers, then these by halves. */
#define FOLD(name, type, combine)                                                            \
    UNUSED static type name##_##type(const type *x, word count) {                            \
        typedef type vec __attribute__((vector_size(WIDE)));                                 \
        enum { LANES = WIDE / sizeof(type) };                                                \
        vec a, b, c, d, next;                                                                \
        type all[LANES], one = x[0];                                                         \
        word i = 1;                                                                          \
        if (count >= LANES) {                                                                \
            memcpy(&a, x, WIDE);                                                             \
            i = LANES;                                                                       \
            if (count >= 4 * LANES) {                                                        \
                memcpy(&b, x + LANES, WIDE);                                                 \
                memcpy(&c, x + 2 * LANES, WIDE);                                             \
                memcpy(&d, x + 3 * LANES, WIDE);                                             \
                for (i = 4 * LANES; i + 4 * LANES <= count; i += 4 * LANES) {                \
                    memcpy(&next, x + i, WIDE);                                              \
                    a = combine(a, next);                                                    \
                    memcpy(&next, x + i + LANES, WIDE);                                      \
                    b = combine(b, next);                                                    \
                    memcpy(&next, x + i + 2 * LANES, WIDE);                                  \
                    c = combine(c, next);                                                    \
                    memcpy(&next, x + i + 3 * LANES, WIDE);                                  \
                    d = combine(d, next);                                                    \
                }                                                                            \
                a = combine(a, b), c = combine(c, d);                                        \
                a = combine(a, c);                                                           \
            }                                                                                \
            for (; i + LANES <= count; i += LANES) {                                         \
                memcpy(&next, x + i, WIDE);                                                  \
                a = combine(a, next);                                                        \
            }                                                                                \
            memcpy(all, &a, WIDE);                                                           \
            for (int half = LANES / 2; half > 0; half /= 2)                                  \
                for (int j = 0; j < half; j++)                                               \
                    all[j] = combine##_ONE(all[j], all[j + half]);                           \
            one = all[0];                                                                    \
        }                                                                                    \
        for (; i < count; i++)                                                               \
            one = combine##_ONE(one, x[i]);                                                  \
        return one;                                                                          \
    }
#define BLEND(which, a, b)                                                                   \
    ((__typeof__(a))(((__typeof__(which))(a) & (which)) | ((__typeof__(which))(b) & ~(which))))
#define SUM(a, b) ((a) + (b))
#define PROD(a, b) ((a) * (b))
#define LESS(a, b) BLEND(((a) < (b)) | ((a) != (a)), a, b)
#define MORE(a, b) BLEND(((a) > (b)) | ((a) != (a)), a, b)
#define SUM_ONE SUM
#define PROD_ONE PROD
#define LESS_ONE MIN
#define MORE_ONE MAX

/* Where the least or the largest is so far, in a piece that begins at `first`: the first of equals,
the first NaN. */
#define WHERE(name, type, fold, order)                                                       \
    UNUSED static void name##_##type(const type *x, word count, word first, type *best,      \
                                     i64 *at) {                                              \
        type found = fold##_##type(x, count);                                                \
        if (*at >= 0 && !(found order *best) && !(found != found && *best == *best))         \
            return;                                                                          \
        word i = 0;                                                                          \
        while (!(x[i] == found || (found != found && x[i] != x[i])))                         \
            i++;                                                                             \
        *best = found, *at = first + i;                                                      \
    }
#define REDUCTIONS(type)                                                                     \
    FOLD(sum, type, SUM)                                                                     \
    FOLD(prod, type, PROD)                                                                   \
    FOLD(min, type, LESS)                                                                    \
    FOLD(max, type, MORE)                                                                    \
    WHERE(argmin, type, min, <)                                                              \
    WHERE(argmax, type, max, >)
REDUCTIONS(f32)
REDUCTIONS(f64)
REDUCTIONS(i8)
REDUCTIONS(u8)
REDUCTIONS(i32)
REDUCTIONS(i64)
