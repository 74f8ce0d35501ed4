#include "gemm.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "memory.h"

namespace emulator {
namespace {

template <class To, class From>
To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <class Real>
Real load(const char* from, hipDataType type) {
    switch (type) {
        case HIP_R_16F: return load_half(*reinterpret_cast<const std::uint16_t*>(from));
        case HIP_R_16BF: return load_bfloat(*reinterpret_cast<const std::uint16_t*>(from));
        case HIP_R_32F: return static_cast<Real>(*reinterpret_cast<const float*>(from));
        case HIP_R_64F: return static_cast<Real>(*reinterpret_cast<const double*>(from));
    }
    return 0;
}

template <class Real>
void store(char* to, hipDataType type, Real value) {
    switch (type) {
        case HIP_R_16F:
            *reinterpret_cast<std::uint16_t*>(to) = store_half(static_cast<float>(value));
            return;
        case HIP_R_16BF:
            *reinterpret_cast<std::uint16_t*>(to) = store_bfloat(static_cast<float>(value));
            return;
        case HIP_R_32F: *reinterpret_cast<float*>(to) = static_cast<float>(value); return;
        case HIP_R_64F: *reinterpret_cast<double*>(to) = static_cast<double>(value); return;
    }
}

// The column-major matrix as a dense one with `rows` rows, row after row; transposed if asked.
template <class Real>
std::vector<Real> dense_rows(const Operand& operand, std::size_t batch, bool transposed) {
    const std::size_t element = type_bytes(operand.type);
    const std::int64_t rows = operand.rows;
    const std::int64_t cols = operand.cols;
    std::vector<Real> result(static_cast<std::size_t>(rows * cols));
    for (std::int64_t col = 0; col < cols; ++col) {
        const char* from =
            operand.addresses[batch] + static_cast<std::size_t>(col * operand.ld) * element;
        for (std::int64_t row = 0; row < rows; ++row, from += element) {
            const std::int64_t at = transposed ? col * rows + row : row * cols + col;
            result[static_cast<std::size_t>(at)] = load<Real>(from, operand.type);
        }
    }
    return result;
}

// product += a b, all dense row by row. Blocked so that a piece of b stays in the cache; a macro
// because g++ makes no clones of templates.
#define EMULATOR_MULTIPLY(Real, name)                                                             \
    __attribute__((target_clones("arch=haswell", "default"))) void name(                          \
        const Real* __restrict__ a, const Real* __restrict__ b, Real* __restrict__ product,       \
        std::int64_t m, std::int64_t n, std::int64_t k) {                                         \
        constexpr std::int64_t block_k = 128;                                                     \
        constexpr std::int64_t block_n = 256;                                                     \
        for (std::int64_t k0 = 0; k0 < k; k0 += block_k) {                                        \
            for (std::int64_t n0 = 0; n0 < n; n0 += block_n) {                                    \
                const std::int64_t k1 = std::min(k, k0 + block_k);                                \
                const std::int64_t n1 = std::min(n, n0 + block_n);                                \
                for (std::int64_t i = 0; i < m; ++i) {                                            \
                    for (std::int64_t l = k0; l < k1; ++l) {                                      \
                        const Real factor = a[i * k + l];                                         \
                        for (std::int64_t j = n0; j < n1; ++j) {                                  \
                            product[i * n + j] += factor * b[l * n + j];                          \
                        }                                                                         \
                    }                                                                             \
                }                                                                                 \
            }                                                                                     \
        }                                                                                         \
    }
EMULATOR_MULTIPLY(float, multiply_float)
EMULATOR_MULTIPLY(double, multiply_double)
#undef EMULATOR_MULTIPLY

template <class Real>
Real activate(Activation activation, Real x) {
    switch (activation) {
        case Activation::none: return x;
        case Activation::relu: return std::isnan(x) ? x : std::max(x, Real{0});
        case Activation::gelu: {
            constexpr auto root_two_over_pi = static_cast<Real>(0.7978845608028654);
            const Real inner = root_two_over_pi * (x + static_cast<Real>(0.044715) * x * x * x);
            return static_cast<Real>(0.5) * x * (1 + std::tanh(inner));
        }
    }
    return x;
}

char* element_of(const Operand& operand, std::size_t batch, std::int64_t row, std::int64_t col) {
    return operand.addresses[batch] +
           static_cast<std::size_t>(col * operand.ld + row) * type_bytes(operand.type);
}

// Real kernels write the output in any order, so an output that is also an operand is garbage.
void poison_output(const Gemm& gemm, std::size_t batch) {
    const std::size_t column = static_cast<std::size_t>(gemm.m) * type_bytes(gemm.d.type);
    for (std::int64_t col = 0; col < gemm.n; ++col) {
        std::memset(element_of(gemm.d, batch, 0, col), poison_byte, column);
    }
}

template <class Real>
void run_batch(const Gemm& gemm, std::size_t batch,
               void (*multiply)(const Real*, const Real*, Real*, std::int64_t, std::int64_t,
                                std::int64_t)) {
    std::vector<Real> addend;  // beta C; beta 0 means that C is not read, whatever it holds
    if (gemm.beta != 0) {
        addend = dense_rows<Real>(gemm.c, batch, false);
        for (Real& value : addend) value *= static_cast<Real>(gemm.beta);
    }
    poison_output(gemm, batch);
    std::vector<Real> product(static_cast<std::size_t>(gemm.m * gemm.n));
    if (gemm.alpha != 0 && gemm.k > 0) {
        const std::vector<Real> a = dense_rows<Real>(gemm.a, batch, gemm.transpose_a);
        const std::vector<Real> b = dense_rows<Real>(gemm.b, batch, gemm.transpose_b);
        multiply(a.data(), b.data(), product.data(), gemm.m, gemm.n, gemm.k);
    }
    const std::size_t bias_step = gemm.bias ? type_bytes(gemm.bias_type) : 0;
    const std::int64_t first = static_cast<std::int64_t>(batch) * gemm.bias_stride;
    for (std::int64_t row = 0; row < gemm.m; ++row) {
        const char* bias = gemm.bias + static_cast<std::size_t>(first + row) * bias_step;
        const Real shift = gemm.bias ? load<Real>(bias, gemm.bias_type) : 0;
        for (std::int64_t col = 0; col < gemm.n; ++col) {
            const auto at = static_cast<std::size_t>(row * gemm.n + col);
            Real value = static_cast<Real>(gemm.alpha) * product[at] + shift;
            if (!addend.empty()) value += addend[at];
            store(element_of(gemm.d, batch, row, col), gemm.d.type,
                  activate(gemm.activation, value));
        }
    }
}

std::vector<float> half_table() {
    std::vector<float> result(1 << 16);
    for (std::uint32_t half = 0; half < result.size(); ++half) {
        const std::uint32_t exponent = half >> 10 & 0x1F;
        const auto mantissa = static_cast<float>(half & 0x3FF);
        float magnitude;
        if (exponent == 0x1F) {
            magnitude = bits<float>(0x7F800000u | (half & 0x3FF) << 13);
        } else if (exponent == 0) {
            magnitude = std::ldexp(mantissa, -24);
        } else {
            magnitude = std::ldexp(1024 + mantissa, static_cast<int>(exponent) - 25);
        }
        result[half] = half & 0x8000 ? -magnitude : magnitude;
    }
    return result;
}

}  // namespace

float load_half(std::uint16_t half) {
    static const std::vector<float> table = half_table();
    return table[half];
}

std::uint16_t store_half(float value) {
    const auto word = bits<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>(word >> 16 & 0x8000);
    const std::uint32_t magnitude = word & 0x7FFFFFFF;
    constexpr std::uint32_t infinity = 0x7F800000;
    constexpr std::uint32_t first_overflow = 0x477FF000;   // 65520, halfway past the largest half
    constexpr std::uint32_t smallest_normal = 0x38800000;  // 2^-14
    if (magnitude > infinity) return sign | 0x7E00;
    if (magnitude >= first_overflow) return sign | 0x7C00;
    if (magnitude < smallest_normal) {
        // Adding 0.5 makes the float unit round at 2^-24, the last place of a subnormal half.
        const auto shifted = bits<std::uint32_t>(bits<float>(magnitude) + 0.5f);
        return static_cast<std::uint16_t>(sign | (shifted - bits<std::uint32_t>(0.5f)));
    }
    const std::uint32_t rounded = magnitude + 0xFFF + (magnitude >> 13 & 1);
    return static_cast<std::uint16_t>(sign | (rounded - 0x38000000) >> 13);
}

float load_bfloat(std::uint16_t half) { return bits<float>(std::uint32_t{half} << 16); }

std::uint16_t store_bfloat(float value) {
    const auto word = bits<std::uint32_t>(value);
    if (std::isnan(value)) return static_cast<std::uint16_t>(word >> 16 | 0x40);
    return static_cast<std::uint16_t>((word + 0x7FFF + (word >> 16 & 1)) >> 16);
}

std::size_t type_bytes(hipDataType type) {
    switch (type) {
        case HIP_R_16F:
        case HIP_R_16BF: return 2;
        case HIP_R_32F: return 4;
        case HIP_R_64F: return 8;
    }
    return 0;
}

const char* type_name(hipDataType type) {
    switch (type) {
        case HIP_R_16F: return "f16";
        case HIP_R_16BF: return "bf16";
        case HIP_R_32F: return "f32";
        case HIP_R_64F: return "f64";
    }
    return "?";
}

std::size_t Operand::bytes() const {
    if (rows == 0 || cols == 0) return 0;
    return static_cast<std::size_t>((cols - 1) * ld + rows) * type_bytes(type);
}

bool Operand::inside_memory() const {
    return std::all_of(addresses.begin(), addresses.end(),
                       [this](const char* address) { return memory().holds(address, bytes()); });
}

bool Gemm::memory_valid() const {
    const bool reads_product = alpha != 0 && k > 0;
    if (reads_product && !(a.inside_memory() && b.inside_memory())) return false;
    if (beta != 0 && !c.inside_memory()) return false;
    const auto last = static_cast<std::int64_t>(d.addresses.size()) - 1;
    const std::size_t bias_bytes =
        static_cast<std::size_t>(last * bias_stride + m) * type_bytes(bias_type);
    return d.inside_memory() && (!bias || memory().holds(bias, bias_bytes));
}

std::string Gemm::label() const {
    return std::string("gemm ") + type_name(a.type) + ' ' + std::to_string(m) + 'x' +
           std::to_string(n) + 'x' + std::to_string(k) + " batch " +
           std::to_string(d.addresses.size()) + ' ' +
           (d.addresses.empty() ? "" : memory().describe(d.addresses[0])) + " <- " +
           (a.addresses.empty() ? "" : memory().describe(a.addresses[0])) + ' ' +
           (b.addresses.empty() ? "" : memory().describe(b.addresses[0]));
}

void run_gemm(const Gemm& gemm) {
    for (std::size_t batch = 0; batch < gemm.d.addresses.size(); ++batch) {
        if (gemm.in_double) {
            run_batch<double>(gemm, batch, multiply_double);
        } else {
            run_batch<float>(gemm, batch, multiply_float);
        }
    }
}

}  // namespace emulator
