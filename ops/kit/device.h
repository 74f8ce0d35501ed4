// What every kernel starts from: element types, vector access, reductions, strided addressing.
//
// Three compilers read this: AMD's clang (hiprtc, hipcc), NVRTC and, in tests, g++. It includes
// nothing, since NVRTC need not have headers. f16 and bf16 are kept as their bits everywhere.
#pragma once

typedef signed char i8;
typedef unsigned char u8;
typedef int i32;
typedef long long i64;
typedef unsigned int u32;
typedef unsigned long long u64;

struct f16 { unsigned short bits; };
struct bf16 { unsigned short bits; };
typedef float f32;
typedef double f64;
struct bool8 { u8 bits; };  // a bool in memory; any byte but 0 is true, and 1 is stored

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
DEVICE i8 widen(i8 x) { return x; }
DEVICE u8 widen(u8 x) { return x; }
DEVICE i32 widen(i32 x) { return x; }
DEVICE i64 widen(i64 x) { return x; }
DEVICE bool widen(bool8 x) { return x.bits != 0; }

DEVICE unsigned short bf16_bits(float x) {
    const u32 bits = bits_of(x);
    if (x != x) return static_cast<unsigned short>(bits >> 16 | 0x40);  // a quiet NaN
    return static_cast<unsigned short>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

#if defined(__HIP_EMULATOR__)
inline float widen(f16 x) { return __emulator_half_to_float(x.bits); }
inline void put(float x, f16& y) { y.bits = __emulator_float_to_half(x); }
inline void put(float x, bf16& y) { y.bits = bf16_bits(x); }
#elif defined(__CUDACC__)
DEVICE float widen(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
DEVICE void put(float x, f16& y) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
#if __CUDA_ARCH__ >= 800
DEVICE void put(float x, bf16& y) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
#else
DEVICE void put(float x, bf16& y) { y.bits = bf16_bits(x); }
#endif
#else
DEVICE float widen(f16 x) { return static_cast<float>(__builtin_bit_cast(_Float16, x.bits)); }
DEVICE void put(float x, f16& y) {
    y.bits = __builtin_bit_cast(unsigned short, static_cast<_Float16>(x));
}
DEVICE void put(float x, bf16& y) { y.bits = bf16_bits(x); }
#endif

// To odd: rounding the result again, to at most 22 bits, rounds x correctly.
DEVICE float round_to_odd(double x) {
    const float nearest = static_cast<float>(x);
    if (nearest == x || x != x) return nearest;
    const bool is_away = (nearest < 0 ? -nearest : nearest) > (x < 0 ? -x : x);
    return from_bits((bits_of(nearest) - (is_away ? 1 : 0)) | 1);
}

DEVICE void put(float x, f32& y) { y = x; }
DEVICE void put(float x, f64& y) { y = x; }
DEVICE void put(double x, f16& y) { put(round_to_odd(x), y); }
DEVICE void put(double x, bf16& y) { put(round_to_odd(x), y); }
DEVICE void put(double x, f32& y) { y = static_cast<float>(x); }
DEVICE void put(double x, f64& y) { y = x; }
DEVICE void put(i8 x, i8& y) { y = x; }
DEVICE void put(u8 x, u8& y) { y = x; }
DEVICE void put(i32 x, i32& y) { y = x; }
DEVICE void put(i64 x, i64& y) { y = x; }
DEVICE void put(bool x, bool8& y) { y.bits = x ? 1 : 0; }

// x in the type To that is stored. A float or double: to nearest, ties to even.
template <class To, class A> DEVICE To narrow(A x) {
    To y;
    put(x, y);
    return y;
}

// ---- casts ---------------------------------------------------------------------------------

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
    return sizeof(To) < 8 ? static_cast<To>(static_cast<i32>(x)) : static_cast<To>(x);
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

template <class To, class A> DEVICE To whole(A x) { return static_cast<To>(x); }  // wraps
template <class To> DEVICE To whole(float x) { return to_integer<To>(x); }
template <class To> DEVICE To whole(double x) { return to_integer<To>(x); }

// Any number x, as widen gives it, as an element of another type.
template <class A> DEVICE void cast_into(f16& y, A x) { put(exact(x), y); }
template <class A> DEVICE void cast_into(bf16& y, A x) { put(exact(x), y); }
template <class A> DEVICE void cast_into(f32& y, A x) { y = static_cast<float>(x); }
template <class A> DEVICE void cast_into(f64& y, A x) { y = static_cast<double>(x); }
template <class A> DEVICE void cast_into(i8& y, A x) { y = whole<i8>(x); }
template <class A> DEVICE void cast_into(u8& y, A x) { y = whole<u8>(x); }
template <class A> DEVICE void cast_into(i32& y, A x) { y = whole<i32>(x); }
template <class A> DEVICE void cast_into(i64& y, A x) { y = whole<i64>(x); }
template <class A> DEVICE void cast_into(bool8& y, A x) { y.bits = x != A(0) ? 1 : 0; }

// Same type: the same bits, NaN payloads included.
template <class To, class From> struct Conversion {
    static DEVICE To of(From x) {
        To y;
        cast_into(y, widen(x));
        return y;
    }
};
template <class T> struct Conversion<T, T> {
    static DEVICE T of(T x) { return x; }
};
template <class To, class From> DEVICE To convert(From x) { return Conversion<To, From>::of(x); }

// ---- vectors of elements -------------------------------------------------------------------

// What one instruction loads or stores, and the same as an array, which stays in registers.
template <class Part, int n> struct Native;
#define NATIVE(part, n, name, take, give)                              \
    template <> struct Native<part, n> {                               \
        typedef name type;                                             \
        static DEVICE void spread(name v, part (&to)[n]) { take; }     \
        static DEVICE name collect(const part (&x)[n]) { return give; } \
    };
NATIVE(u8, 1, u8, to[0] = v, x[0])
NATIVE(unsigned short, 1, unsigned short, to[0] = v, x[0])
NATIVE(i32, 1, i32, to[0] = v, x[0])
NATIVE(i32, 2, int2, (to[0] = v.x, to[1] = v.y), make_int2(x[0], x[1]))
NATIVE(i32, 4, int4, (to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w),
       make_int4(x[0], x[1], x[2], x[3]))
NATIVE(i64, 1, i64, to[0] = v, x[0])
NATIVE(i64, 2, longlong2, (to[0] = v.x, to[1] = v.y), make_longlong2(x[0], x[1]))
NATIVE(u32, 1, u32, to[0] = v, x[0])
NATIVE(u32, 2, uint2, (to[0] = v.x, to[1] = v.y), make_uint2(x[0], x[1]))
NATIVE(u32, 4, uint4, (to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w),
       make_uint4(x[0], x[1], x[2], x[3]))
NATIVE(f32, 1, float, to[0] = v, x[0])
NATIVE(f32, 2, float2, (to[0] = v.x, to[1] = v.y), make_float2(x[0], x[1]))
NATIVE(f32, 4, float4, (to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w),
       make_float4(x[0], x[1], x[2], x[3]))
NATIVE(f64, 1, double, to[0] = v, x[0])
NATIVE(f64, 2, double2, (to[0] = v.x, to[1] = v.y), make_double2(x[0], x[1]))
#undef NATIVE

// N elements that are neighbours in memory, as parts: the elements themselves,
template <class T, int N, int size = sizeof(T)> struct Vector {
    typedef T Part;
    static constexpr int parts = N;
    T part[parts];
    DEVICE T get(int i) const { return part[i]; }
    DEVICE void set(int i, T x) { part[i] = x; }
};
// ... pairs of 16 bits, each in a register,
template <class T, int N> struct Vector<T, N, 2> {
    typedef u32 Part;
    static constexpr int parts = N / 2;
    u32 part[parts];
    DEVICE T get(int i) const {
        const u32 pair = part[i / 2];
        return T{static_cast<unsigned short>(i % 2 ? pair >> 16 : pair & 0xFFFF)};
    }
    DEVICE void set(int i, T x) {
        u32& pair = part[i / 2];  // even elements are set first
        pair = i % 2 ? pair | u32(x.bits) << 16 : x.bits;
    }
};
// ... fours of 8 bits,
DEVICE u8 byte_of(i8 x) { return static_cast<u8>(x); }
DEVICE u8 byte_of(u8 x) { return x; }
DEVICE u8 byte_of(bool8 x) { return x.bits; }
DEVICE void put_byte(u32 byte, i8& x) { x = static_cast<i8>(byte); }
DEVICE void put_byte(u32 byte, u8& x) { x = static_cast<u8>(byte); }
DEVICE void put_byte(u32 byte, bool8& x) { x.bits = static_cast<u8>(byte); }
template <class T, class Word, int N, int all> struct Bytes {
    typedef Word Part;
    static constexpr int parts = N / all;
    Word part[parts];
    DEVICE T get(int i) const {
        T x;
        put_byte(u32(part[i / all]) >> 8 * (i % all) & 0xFF, x);
        return x;
    }
    DEVICE void set(int i, T x) {
        Word& word = part[i / all];  // the first is set first
        word = static_cast<Word>(i % all ? word | u32(byte_of(x)) << 8 * (i % all) : byte_of(x));
    }
};
template <class T, int N> struct Vector<T, N, 1> : Bytes<T, u32, N, 4> {};
template <class T> struct Vector<T, 2, 1> : Bytes<T, unsigned short, 2, 2> {};
template <class T> struct Vector<T, 1, 1> : Bytes<T, u8, 1, 1> {};
// ... or 16 bits alone.
template <class T> struct Vector<T, 1, 2> {
    typedef unsigned short Part;
    static constexpr int parts = 1;
    unsigned short part[parts];
    DEVICE T get(int) const { return T{part[0]}; }
    DEVICE void set(int, T x) { part[0] = x.bits; }
};

// One instruction each. NVIDIA's compiler splits stores that it cannot tell from shared memory.
template <class N> DEVICE N load_native(const N* from) { return *from; }
#if defined(__CUDACC__)
template <class N> DEVICE void store_native(N* to, N x) { __stwb(to, x); }
#else
template <class N> DEVICE void store_native(N* to, N x) { *to = x; }
#endif

// N * sizeof(T) bytes at once, 16 at most, aligned to their number.
template <int N, class T> DEVICE Vector<T, N> load(const T* from) {
    typedef Native<typename Vector<T, N>::Part, Vector<T, N>::parts> Form;
    Vector<T, N> result;
    Form::spread(load_native(reinterpret_cast<const typename Form::type*>(from)), result.part);
    return result;
}

template <class T, int N> DEVICE void store(T* to, const Vector<T, N>& value) {
    typedef Native<typename Vector<T, N>::Part, Vector<T, N>::parts> Form;
    store_native(reinterpret_cast<typename Form::type*>(to), Form::collect(value.part));
}

// N elements `stride` apart, in pieces of W elements; W > 1 needs stride 1 and aligned pieces.
template <int N, int W, class T> DEVICE Vector<T, N> gather(const T* from, i64 stride) {
    static_assert(N % W == 0, "");
    Vector<T, N> result;
    UNROLL for (int i = 0; i < N; i += W) {
        const Vector<T, W> piece = load<W>(from + (W == 1 ? i * stride : i));
        UNROLL for (int j = 0; j < W; ++j) result.set(i + j, piece.get(j));
    }
    return result;
}

// The reverse: N elements of `value` to places `stride` apart.
template <int N, int W, class T>
DEVICE void scatter(T* to, i64 stride, const Vector<T, N>& value) {
    static_assert(N % W == 0, "");
    UNROLL for (int i = 0; i < N; i += W) {
        Vector<T, W> piece;
        UNROLL for (int j = 0; j < W; ++j) piece.set(j, value.get(i + j));
        store(to + (W == 1 ? i * stride : i), piece);
    }
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
