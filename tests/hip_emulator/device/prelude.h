// What a HIP kernel finds without including anything, for g++ on the host. Included before every
// source that hiprtc compiles. Words that are not macros here (__global__, __shared__,
// __launch_bounds__) are rewritten in the preprocessed text: see kernel_source.h.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernel_abi.h"

#define __HIP_EMULATOR__ 1
#define __HIP__ 1
#define __HIPCC__ 1
#define __HIPCC_RTC__ 1
#define __HIP_PLATFORM_AMD__ 1
#define __HIP_DEVICE_COMPILE__ 1

#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define HIP_DYNAMIC_SHARED(type, name) extern __shared__ type name[];

#ifndef INFINITY
#define INFINITY __builtin_inff()
#endif
#ifndef NAN
#define NAN __builtin_nanf("")
#endif

// ---- vectors -------------------------------------------------------------------------------

#define EMULATOR_VECTORS(name, type)                                                              \
    struct __attribute__((aligned(sizeof(type)))) name##1 { type x; };                            \
    struct __attribute__((aligned(2 * sizeof(type)))) name##2 { type x, y; };                     \
    struct name##3 { type x, y, z; };                                                             \
    struct __attribute__((aligned(4 * sizeof(type) > 16 ? 16 : 4 * sizeof(type)))) name##4 {      \
        type x, y, z, w;                                                                          \
    };                                                                                            \
    inline name##1 make_##name##1(type x) { return {x}; }                                         \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                              \
    inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                   \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATOR_VECTORS(char, signed char)
EMULATOR_VECTORS(uchar, unsigned char)
EMULATOR_VECTORS(short, short)
EMULATOR_VECTORS(ushort, unsigned short)
EMULATOR_VECTORS(int, int)
EMULATOR_VECTORS(uint, unsigned)
EMULATOR_VECTORS(long, long)
EMULATOR_VECTORS(ulong, unsigned long)
EMULATOR_VECTORS(longlong, long long)
EMULATOR_VECTORS(ulonglong, unsigned long long)
EMULATOR_VECTORS(float, float)
EMULATOR_VECTORS(double, double)
#undef EMULATOR_VECTORS

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// ---- the thread's place --------------------------------------------------------------------

// Plain variables: the runtime runs one thread at a time and sets them at every switch.
static dim3 threadIdx;
static dim3 blockIdx;
static dim3 blockDim;
static dim3 gridDim;
static int warpSize;

static const EmulatorRuntime* __emulator_runtime;
static constexpr size_t __emulator_shared_limit = 64 << 10;
// Room for the guard that shows a kernel which writes past its dynamic shared memory.
alignas(128) static char __emulator_dynamic_shared[__emulator_shared_limit + 128];

inline void __syncthreads() { __emulator_runtime->barrier(); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline unsigned __lane_id() { return __emulator_runtime->lane(); }

// ---- shuffles and votes --------------------------------------------------------------------

template <class T>
inline T __emulator_read_lane(T value, unsigned source) {
    static_assert(sizeof(T) <= 16, "a shuffle moves at most 16 bytes");
    T result;
    __emulator_runtime->exchange(&value, sizeof(T), source, &result);
    return result;
}

template <class T>
inline T __shfl(T value, int source, int width = warpSize) {
    const int lane = static_cast<int>(__lane_id());
    return __emulator_read_lane(value, (lane & ~(width - 1)) + (source & (width - 1)));
}

template <class T>
inline T __shfl_up(T value, unsigned delta, int width = warpSize) {
    const int lane = static_cast<int>(__lane_id());
    const int source = lane - static_cast<int>(delta);
    return __emulator_read_lane(value, source < (lane & ~(width - 1)) ? lane : source);
}

template <class T>
inline T __shfl_down(T value, unsigned delta, int width = warpSize) {
    const int lane = static_cast<int>(__lane_id());
    const int source = lane + static_cast<int>(delta);
    return __emulator_read_lane(value, source > (lane | (width - 1)) ? lane : source);
}

template <class T>
inline T __shfl_xor(T value, int mask, int width = warpSize) {
    const int lane = static_cast<int>(__lane_id());
    const int source = lane ^ mask;
    return __emulator_read_lane(value, source > (lane | (width - 1)) ? lane : source);
}

inline unsigned long long __ballot(int predicate) {
    unsigned long long result = 0;
    for (int lane = 0; lane < warpSize; ++lane) {
        int theirs = 0;
        const unsigned long long active =
            __emulator_runtime->exchange(&predicate, sizeof predicate, lane, &theirs);
        if ((active >> lane & 1) && theirs) result |= 1ull << lane;
    }
    return result;
}

inline unsigned long long __activemask() {
    int ignored = 0;
    return __emulator_runtime->exchange(&ignored, sizeof ignored, 0, &ignored);
}

inline int __any(int predicate) { return __ballot(predicate) != 0; }
inline int __all(int predicate) { return __ballot(!predicate) == 0; }

// The _sync forms take the 64-bit mask that HIP insists on.
#define EMULATOR_SYNC_FORM(name, delta_type)                                        \
    template <class Mask, class T>                                                  \
    inline T name##_sync(Mask, T value, delta_type delta, int width = warpSize) {   \
        static_assert(sizeof(Mask) == 8, "The mask must be a 64-bit integer.");     \
        return name(value, delta, width);                                           \
    }
EMULATOR_SYNC_FORM(__shfl, int)
EMULATOR_SYNC_FORM(__shfl_up, unsigned)
EMULATOR_SYNC_FORM(__shfl_down, unsigned)
EMULATOR_SYNC_FORM(__shfl_xor, int)
#undef EMULATOR_SYNC_FORM

#define EMULATOR_VOTE_SYNC_FORM(result, name)                                       \
    template <class Mask>                                                           \
    inline result name##_sync(Mask, int predicate) {                                \
        static_assert(sizeof(Mask) == 8, "The mask must be a 64-bit integer.");     \
        return name(predicate);                                                     \
    }
EMULATOR_VOTE_SYNC_FORM(unsigned long long, __ballot)
EMULATOR_VOTE_SYNC_FORM(int, __any)
EMULATOR_VOTE_SYNC_FORM(int, __all)
#undef EMULATOR_VOTE_SYNC_FORM

inline void __syncwarp(unsigned long long = ~0ull) { __activemask(); }

// ---- atomics: threads run one at a time, so plain code is atomic ---------------------------

template <class T, class F>
inline T __emulator_update(T* address, F change) {
    const T old = *address;
    *address = change(old);
    return old;
}

#define EMULATOR_ATOMIC(name, expression)                                           \
    template <class T, class U>                                                     \
    inline T name(T* address, U operand) {                                          \
        const T value = static_cast<T>(operand);                                    \
        return __emulator_update(address, [value](T old) -> T { return expression; }); \
    }
EMULATOR_ATOMIC(atomicAdd, old + value)
EMULATOR_ATOMIC(atomicSub, old - value)
EMULATOR_ATOMIC(atomicMin, value < old ? value : old)
EMULATOR_ATOMIC(atomicMax, old < value ? value : old)
EMULATOR_ATOMIC(atomicAnd, old & value)
EMULATOR_ATOMIC(atomicOr, old | value)
EMULATOR_ATOMIC(atomicXor, old ^ value)
EMULATOR_ATOMIC(atomicExch, (static_cast<void>(old), value))
#undef EMULATOR_ATOMIC

template <class T, class U, class V>
inline T atomicCAS(T* address, U expected, V replacement) {
    return __emulator_update(address, [=](T old) -> T {
        return old == static_cast<T>(expected) ? static_cast<T>(replacement) : old;
    });
}

// ---- mathematics ---------------------------------------------------------------------------

// The C library's, declared here because including <math.h> costs more than compiling a kernel.
#define EMULATOR_MATH_1(name)                                            \
    extern "C" double name(double) noexcept;                             \
    extern "C" float name##f(float) noexcept;                            \
    inline float name(float x) { return name##f(x); }
EMULATOR_MATH_1(acos) EMULATOR_MATH_1(asin) EMULATOR_MATH_1(atan) EMULATOR_MATH_1(cbrt)
EMULATOR_MATH_1(ceil) EMULATOR_MATH_1(cos) EMULATOR_MATH_1(cosh) EMULATOR_MATH_1(erf)
EMULATOR_MATH_1(erfc) EMULATOR_MATH_1(exp) EMULATOR_MATH_1(exp2) EMULATOR_MATH_1(expm1)
EMULATOR_MATH_1(fabs) EMULATOR_MATH_1(floor) EMULATOR_MATH_1(lgamma) EMULATOR_MATH_1(log)
EMULATOR_MATH_1(log10) EMULATOR_MATH_1(log1p) EMULATOR_MATH_1(log2) EMULATOR_MATH_1(nearbyint)
EMULATOR_MATH_1(rint) EMULATOR_MATH_1(round) EMULATOR_MATH_1(sin) EMULATOR_MATH_1(sinh)
EMULATOR_MATH_1(sqrt) EMULATOR_MATH_1(tan) EMULATOR_MATH_1(tanh) EMULATOR_MATH_1(trunc)
#undef EMULATOR_MATH_1

#define EMULATOR_MATH_2(name)                                            \
    extern "C" double name(double, double) noexcept;                     \
    extern "C" float name##f(float, float) noexcept;                     \
    inline float name(float x, float y) { return name##f(x, y); }
EMULATOR_MATH_2(atan2) EMULATOR_MATH_2(copysign) EMULATOR_MATH_2(fmax) EMULATOR_MATH_2(fmin)
EMULATOR_MATH_2(fmod) EMULATOR_MATH_2(hypot) EMULATOR_MATH_2(pow) EMULATOR_MATH_2(remainder)
#undef EMULATOR_MATH_2

extern "C" double fma(double, double, double) noexcept;
extern "C" float fmaf(float, float, float) noexcept;
inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
extern "C" double ldexp(double, int) noexcept;
extern "C" float ldexpf(float, int) noexcept;

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float fdividef(float x, float y) { return x / y; }
inline float exp10f(float x) { return powf(10.0f, x); }

inline float __expf(float x) { return expf(x); }
inline float __exp2f(float x) { return exp2f(x); }
inline float __exp10f(float x) { return exp10f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return rsqrtf(x); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }

template <class T>
inline bool isnan(T x) { return __builtin_isnan(x); }
template <class T>
inline bool isinf(T x) { return __builtin_isinf(x); }
template <class T>
inline bool isfinite(T x) { return __builtin_isfinite(x); }

// HIP's overloads for mixed operands convert as arithmetic does.
template <class A, class B>
inline auto max(A a, B b) -> decltype(a + b) { return a < b ? b : a; }
template <class A, class B>
inline auto min(A a, B b) -> decltype(a + b) { return b < a ? b : a; }
inline float max(float a, float b) { return fmaxf(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
template <class T>
inline T abs(T x) { return x < 0 ? -x : x; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) {
    return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64;
}
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }

template <class To, class From>
inline To __emulator_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}
inline unsigned __float_as_uint(float x) { return __emulator_bits<unsigned>(x); }
inline int __float_as_int(float x) { return __emulator_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return __emulator_bits<float>(x); }
inline float __int_as_float(int x) { return __emulator_bits<float>(x); }
inline long long __double_as_longlong(double x) { return __emulator_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return __emulator_bits<double>(x); }

// ---- half precision: g++ 12 has no _Float16 in C++ -----------------------------------------

inline float __emulator_half_to_float(unsigned short half) {
    const unsigned sign = (half & 0x8000u) << 16;
    const unsigned exponent = half >> 10 & 0x1F;
    const unsigned mantissa = half & 0x3FFu;
    if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24 is exact
        return __uint_as_float(sign | __float_as_uint(static_cast<float>(mantissa) * 0x1p-24f));
    }
    if (exponent == 0x1F) return __uint_as_float(sign | 0x7F800000u | mantissa << 13);
    return __uint_as_float(sign | (exponent + 127 - 15) << 23 | mantissa << 13);
}

// To nearest, ties to even.
inline unsigned short __emulator_float_to_half(float value) {
    const unsigned bits = __float_as_uint(value);
    const unsigned sign = bits >> 16 & 0x8000u;
    const unsigned magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return static_cast<unsigned short>(sign | 0x7E00u);  // NaN
    if (magnitude >= 0x477FF000u) return static_cast<unsigned short>(sign | 0x7C00u);  // overflow
    if (magnitude < 0x38800000u) {
        // Subnormal: adding 0.5 makes the float unit round at 2^-24, the half's last place.
        const float shifted = __uint_as_float(magnitude) + 0.5f;
        return static_cast<unsigned short>(sign | (__float_as_uint(shifted) - 0x3F000000u));
    }
    const unsigned rounded = magnitude + 0xFFFu + (magnitude >> 13 & 1);
    return static_cast<unsigned short>(sign | (rounded - 0x38000000u) >> 13);
}

// ---- from a packed argument buffer to a call -----------------------------------------------

template <size_t... indices>
struct __emulator_indices {};

template <class T>
struct __emulator_is_pointer {
    static constexpr bool value = false;
};
template <class T>
struct __emulator_is_pointer<T*> {
    static constexpr bool value = true;
};

template <auto kernel>
struct __emulator_launcher;

template <class... Args, void (*kernel)(Args...)>
struct __emulator_launcher<kernel> {
    static constexpr size_t count = sizeof...(Args);

    struct Layout {
        EmulatorParameter parameters[count + 1];
        unsigned bytes;
    };

    // Each argument at its natural alignment, as the compiler lays out a structure.
    static constexpr Layout make_layout() {
        Layout result{};
        const unsigned sizes[] = {unsigned(sizeof(Args))..., 0};
        const unsigned alignments[] = {unsigned(alignof(Args))..., 1};
        const bool pointers[] = {__emulator_is_pointer<Args>::value..., false};
        for (size_t i = 0; i < count; ++i) {
            result.bytes = (result.bytes + alignments[i] - 1) / alignments[i] * alignments[i];
            result.parameters[i] = {result.bytes, sizes[i], pointers[i]};
            result.bytes += sizes[i];
        }
        return result;
    }
    static constexpr Layout layout = make_layout();

    template <class T>
    static T read(const char* from) {
        T value;
        __builtin_memcpy(&value, from, sizeof value);
        return value;
    }

    template <size_t... i>
    static void run_all(const char* arguments, __emulator_indices<i...>) {
        static_cast<void>(arguments);
        while (__emulator_runtime->next_thread()) {
            kernel(read<Args>(arguments + layout.parameters[i].offset)...);
        }
    }

    static void run(const char* arguments) {
        run_all(arguments, __emulator_indices<__integer_pack(count)...>{});
    }

    static constexpr EmulatorKernel describe(const char* name, unsigned max_threads) {
        return {name, nullptr, run, layout.parameters, unsigned(count), layout.bytes, max_threads};
    }
};

template <auto kernel>
inline EmulatorKernel __emulator_describe(const char* name, unsigned max_threads = 0) {
    EmulatorKernel result = __emulator_launcher<kernel>::describe(name, max_threads);
    result.address = reinterpret_cast<void*>(kernel);
    return result;
}

// The bounds of the section that static __shared__ variables are put into; null without any.
extern "C" __attribute__((weak, visibility("hidden"))) char __start_emulator_shared[];
extern "C" __attribute__((weak, visibility("hidden"))) char __stop_emulator_shared[];

inline const EmulatorModule* __emulator_bind(const EmulatorRuntime* runtime,
                                             const EmulatorKernel* kernels, size_t count) {
    __emulator_runtime = runtime;
    static EmulatorModule module;
    module = {&threadIdx.x, &blockIdx.x, &blockDim.x, &gridDim.x, &warpSize,
              __start_emulator_shared, __stop_emulator_shared,
              __emulator_dynamic_shared, __emulator_shared_limit, kernels, count};
    return &module;
}
