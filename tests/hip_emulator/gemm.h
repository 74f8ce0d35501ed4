// C = alpha op(A) op(B) + beta C for column-major matrices, the arithmetic behind both BLAS
// libraries.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hip_types.h"

namespace emulator {

std::size_t type_bytes(hipDataType type);  // 0 for a type the emulator does not have
const char* type_name(hipDataType type);

// A matrix, or a batch of them: `addresses` has one entry a batch.
struct Operand {
    std::vector<char*> addresses;
    hipDataType type = HIP_R_32F;
    std::int64_t rows = 0;  // as stored
    std::int64_t cols = 0;
    std::int64_t ld = 0;

    std::size_t bytes() const;  // from the first element of one matrix to just past its last
    bool inside_memory() const;
};

enum class Activation { none, relu, gelu };

struct Gemm {
    std::int64_t m = 0;
    std::int64_t n = 0;
    std::int64_t k = 0;
    bool transpose_a = false;
    bool transpose_b = false;
    bool in_double = false;  // accumulate in f64 instead of f32
    double alpha = 1;
    double beta = 0;
    Operand a;
    Operand b;
    Operand c;  // read unless beta is 0
    Operand d;  // written; the same matrix as c in hipBLAS
    const char* bias = nullptr;  // m elements, added to every column
    hipDataType bias_type = HIP_R_32F;
    std::int64_t bias_stride = 0;  // elements to that of the next product; 0: all have the same
    Activation activation = Activation::none;

    std::string label() const;
    // Everything it would touch lies in live memory.
    bool memory_valid() const;
};

void run_gemm(const Gemm& gemm);

// f16 and bf16 bits, rounded to nearest even.
float load_half(std::uint16_t bits);
std::uint16_t store_half(float value);
float load_bfloat(std::uint16_t bits);
std::uint16_t store_bfloat(float value);

}  // namespace emulator
