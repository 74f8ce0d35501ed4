/* Halves in C: f16 and bf16 as their bits, and casts from and to float, to nearest, ties to even.
Compilers make vectors of loops over them: there are no branches. */

#include <stdint.h>
#include <string.h>

typedef uint16_t f16;
typedef uint16_t bf16;

#define INLINE static inline __attribute__((always_inline))

INLINE float as_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

INLINE uint32_t as_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

INLINE float from_f16(f16 h) {
    float x = as_float((uint32_t)(h & 0x7fff) << 13) * 0x1p112f;
    uint32_t bits = as_bits(x) | (x >= 65536.0f ? 0x7f800000 : 0); /* infinity and NaN */
    return as_float(bits | (uint32_t)(h & 0x8000) << 16);
}

INLINE f16 to_f16(float x) {
    uint32_t bits = as_bits(x) & 0x7fffffff, sign = as_bits(x) >> 16 & 0x8000;
    uint32_t special = bits > 0x7f800000 ? 0x7e00 : 0x7c00;
    uint32_t small = as_bits(as_float(bits) + 0.5f) - 0x3f000000; /* has its last place there */
    uint32_t normal = (bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13;
    return sign | (bits >= 0x47800000 ? special : bits < 0x38800000 ? small : normal);
}

INLINE float from_bf16(bf16 h) { return as_float((uint32_t)h << 16); }

INLINE bf16 to_bf16(float x) {
    uint32_t bits = as_bits(x);
    uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
    return (x != x ? bits | 0x400000 : rounded) >> 16;
}
