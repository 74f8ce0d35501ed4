// What every kernel starts from: element types, vector access, reductions, strided addressing.
//
// Three compilers read this: AMD's clang (hiprtc, hipcc), NVRTC and, in tests, g++. It includes
// nothing, since NVRTC need not have headers. f16 and bf16 are kept as their bits everywhere.
#pragma once

typedef long long i64;
typedef unsigned int u32;

struct f16 { unsigned short bits; };
struct bf16 { unsigned short bits; };
typedef float f32;
typedef double f64;

#define DEVICE __device__ __forceinline__

#if defined(__HIP_EMULATOR__)
#define UNROLL
#else
#define UNROLL _Pragma("unroll")
#endif

// ---- element types -------------------------------------------------------------------------

// Accumulator<T>::type is what values of T are computed in: float, or double for f64.
template <class T> struct Accumulator { typedef float type; };
template <> struct Accumulator<f64> { typedef double type; };

DEVICE u32 bits_of(float x) { return __float_as_uint(x); }
DEVICE float from_bits(u32 x) { return __uint_as_float(x); }

DEVICE float widen(bf16 x) { return from_bits(u32(x.bits) << 16); }
DEVICE float widen(f32 x) { return x; }
DEVICE double widen(f64 x) { return x; }

DEVICE unsigned short bf16_bits(float x) {
    const u32 bits = bits_of(x);
    if (x != x) return static_cast<unsigned short>(bits >> 16 | 0x40);  // a quiet NaN
    return static_cast<unsigned short>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

#if defined(__HIP_EMULATOR__)
inline float widen(f16 x) { return __emulator_half_to_float(x.bits); }
inline void narrow(float x, f16& y) { y.bits = __emulator_float_to_half(x); }
inline void narrow(float x, bf16& y) { y.bits = bf16_bits(x); }
#elif defined(__CUDACC__)
DEVICE float widen(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
DEVICE void narrow(float x, f16& y) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
#if __CUDA_ARCH__ >= 800
DEVICE void narrow(float x, bf16& y) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
#else
DEVICE void narrow(float x, bf16& y) { y.bits = bf16_bits(x); }
#endif
#else
DEVICE float widen(f16 x) { return static_cast<float>(__builtin_bit_cast(_Float16, x.bits)); }
DEVICE void narrow(float x, f16& y) {
    y.bits = __builtin_bit_cast(unsigned short, static_cast<_Float16>(x));
}
DEVICE void narrow(float x, bf16& y) { y.bits = bf16_bits(x); }
#endif

// To odd: rounding the result again, to at most 22 bits, rounds x correctly.
DEVICE float round_to_odd(double x) {
    const float nearest = static_cast<float>(x);
    if (nearest == x || x != x) return nearest;
    const bool is_away = (nearest < 0 ? -nearest : nearest) > (x < 0 ? -x : x);
    return from_bits((bits_of(nearest) - (is_away ? 1 : 0)) | 1);
}

DEVICE void narrow(float x, f32& y) { y = x; }
DEVICE void narrow(float x, f64& y) { y = x; }
DEVICE void narrow(double x, f16& y) { narrow(round_to_odd(x), y); }
DEVICE void narrow(double x, bf16& y) { narrow(round_to_odd(x), y); }
DEVICE void narrow(double x, f32& y) { y = static_cast<float>(x); }
DEVICE void narrow(double x, f64& y) { y = x; }

// Same type: the same bits, NaN payloads included.
template <class T> DEVICE void convert(T x, T& y) { y = x; }
template <class From, class To> DEVICE void convert(From x, To& y) { narrow(widen(x), y); }

// ---- vectors of elements -------------------------------------------------------------------

// N elements that are neighbours in memory, aligned to their size, but at most to 16 bytes.
template <class T, int N>
struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Vector { T at[N]; };

// Words<bytes>::type is loaded and stored by one instruction.
template <int bytes> struct Words;
template <> struct Words<2> { typedef unsigned short type; };
template <> struct Words<4> { typedef u32 type; };
template <> struct Words<8> { typedef uint2 type; };
template <> struct Words<16> { typedef uint4 type; };

template <int N, class T> DEVICE Vector<T, N> load(const T* from) {
    typedef typename Words<N * sizeof(T)>::type Word;
    const Word word = *reinterpret_cast<const Word*>(from);
    Vector<T, N> result;
    __builtin_memcpy(&result, &word, sizeof word);
    return result;
}

template <class T, int N> DEVICE void store(T* to, const Vector<T, N>& value) {
    typedef typename Words<N * sizeof(T)>::type Word;
    Word word;
    __builtin_memcpy(&word, &value, sizeof word);
    *reinterpret_cast<Word*>(to) = word;
}

// N elements `stride` apart, in pieces of W elements; W > 1 needs stride 1 and aligned pieces.
template <int N, int W, class T> DEVICE Vector<T, N> gather(const T* from, i64 stride) {
    static_assert(N % W == 0, "");
    Vector<T, N> result;
    UNROLL for (int i = 0; i < N; i += W) {
        const Vector<T, W> piece = load<W>(from + (W == 1 ? i * stride : i));
        UNROLL for (int j = 0; j < W; ++j) result.at[i + j] = piece.at[j];
    }
    return result;
}

// ---- wavefronts ----------------------------------------------------------------------------

// Groups of at most 32 lanes: wavefronts of 32 and of 64 hold whole ones.
template <class A> DEVICE A shuffle_xor(A value, int mask) {
#if defined(__CUDACC__)
    return __shfl_xor_sync(0xFFFFFFFFu, value, mask, 32);
#else
    return __shfl_xor(value, mask, 32);
#endif
}

// ---- strided addressing --------------------------------------------------------------------

// RANK axes, the last one fastest, and the strides of each operand along them, in elements.
// An index below 2^31 is split without dividing: n / extent = high(n * multiplier) >> shift
// (Granlund and Montgomery 1994); extents are at least 2, save for the first.
template <int operands, int rank>
struct Axes {
    i64 extent[rank];
    i64 multiplier[rank];
    i64 shift[rank];
    i64 stride[operands][rank];
};

DEVICE u32 divided(u32 n, i64 multiplier, i64 shift) {
    const unsigned long long product = static_cast<unsigned long long>(n) * u32(multiplier);
    return u32(product >> 32) >> u32(shift);
}

// Adds to offset[o] where element `n` of the axes lies in operand o. `Index` is u32 or i64.
template <class Index, int operands, int rank>
DEVICE void locate(const Axes<operands, rank>& axes, Index n, i64 (&offset)[operands]) {
    UNROLL for (int axis = rank - 1; axis > 0; --axis) {
        const Index extent = static_cast<Index>(axes.extent[axis]);
        Index quotient;
        if (sizeof(Index) == 4) {
            quotient = divided(static_cast<u32>(n), axes.multiplier[axis], axes.shift[axis]);
        } else {
            quotient = n / extent;
        }
        const Index here = n - quotient * extent;
        UNROLL for (int o = 0; o < operands; ++o) offset[o] += i64(here) * axes.stride[o][axis];
        n = quotient;
    }
    UNROLL for (int o = 0; o < operands; ++o) offset[o] += i64(n) * axes.stride[o][0];
}
