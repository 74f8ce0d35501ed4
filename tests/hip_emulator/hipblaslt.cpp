// hipBLASLt: descriptors, a few algorithms that differ in the workspace they need, and Matmul.
#include <algorithm>
#include <cstring>
#include <map>

#include "blas.h"
#include "blaslt.h"
#include "capture.h"
#include "memory.h"

namespace emulator {

LtHandleTable& lt_handles() {
    static LtHandleTable instance(0);
    return instance;
}

MatmulDescTable& matmul_descs() {
    static MatmulDescTable instance;
    return instance;
}

LayoutTable& layouts() {
    static LayoutTable instance;
    return instance;
}

PreferenceTable& preferences() {
    static PreferenceTable instance;
    return instance;
}

namespace {

constexpr unsigned char algorithm_tag = 0xa1;
constexpr int algorithm_count = 3;
constexpr int algorithm_count_with_bias = 2;  // real lists depend on the epilogue, too

std::size_t algorithm_workspace(int index) { return static_cast<std::size_t>(index) << 20; }

int algorithms_for(const Gemm& gemm) {
    return gemm.bias ? algorithm_count_with_bias : algorithm_count;
}

// Whether these are the bytes of an algorithm that the heuristic gave, with room for it to work.
bool can_use(const unsigned char* algorithm, const Gemm& gemm, std::size_t workspace_bytes) {
    return algorithm[0] == algorithm_tag && algorithm[1] < algorithms_for(gemm) &&
           algorithm_workspace(algorithm[1]) <= workspace_bytes;
}

template <class Body, class... Args>
hipblasStatus_t lt_call(const char* name, Body body, const Args&... args) {
    return api_call<hipblasStatus_t>(name, body, args...);
}

template <class T>
hipblasStatus_t assign(T& to, const void* from, std::size_t bytes) {
    if (!from || bytes != sizeof(T)) return HIPBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&to, from, sizeof(T));
    return HIPBLAS_STATUS_SUCCESS;
}

hipblasStatus_t set(MatmulDesc& desc, int attribute, const void* from, std::size_t bytes) {
    switch (attribute) {
        case HIPBLASLT_MATMUL_DESC_TRANSA: return assign(desc.op_a, from, bytes);
        case HIPBLASLT_MATMUL_DESC_TRANSB: return assign(desc.op_b, from, bytes);
        case HIPBLASLT_MATMUL_DESC_EPILOGUE: return assign(desc.epilogue, from, bytes);
        case HIPBLASLT_MATMUL_DESC_BIAS_POINTER: return assign(desc.bias, from, bytes);
        case HIPBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return assign(desc.bias_type, from, bytes);
        case HIPBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE: return assign(desc.bias_stride, from, bytes);
        case HIPBLASLT_MATMUL_DESC_POINTER_MODE: return assign(desc.pointer_mode, from, bytes);
        default: return HIPBLAS_STATUS_NOT_SUPPORTED;
    }
}

hipblasStatus_t set(Layout& layout, int attribute, const void* from, std::size_t bytes) {
    switch (attribute) {
        case HIPBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return assign(layout.batch, from, bytes);
        case HIPBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
            return assign(layout.stride, from, bytes);
        case HIPBLASLT_MATRIX_LAYOUT_TYPE: return assign(layout.type, from, bytes);
        case HIPBLASLT_MATRIX_LAYOUT_ORDER: return assign(layout.order, from, bytes);
        case HIPBLASLT_MATRIX_LAYOUT_ROWS: return assign(layout.rows, from, bytes);
        case HIPBLASLT_MATRIX_LAYOUT_COLS: return assign(layout.cols, from, bytes);
        case HIPBLASLT_MATRIX_LAYOUT_LD: return assign(layout.ld, from, bytes);
        default: return HIPBLAS_STATUS_NOT_SUPPORTED;
    }
}

struct Epilogue {
    bool bias;
    Activation activation;
};

const std::map<std::uint32_t, Epilogue>& epilogues() {
    static const std::map<std::uint32_t, Epilogue> table = {
        {1, {false, Activation::none}},   // DEFAULT
        {2, {false, Activation::relu}},   // RELU
        {4, {true, Activation::none}},    // BIAS
        {6, {true, Activation::relu}},    // RELU_BIAS
        {32, {false, Activation::gelu}},  // GELU
        {36, {true, Activation::gelu}},   // GELU_BIAS
    };
    return table;
}

Operand operand_of(const Layout& layout, const void* base) {
    Operand result{{}, layout.type, static_cast<std::int64_t>(layout.rows),
                   static_cast<std::int64_t>(layout.cols), layout.ld};
    for (std::int32_t i = 0; i < layout.batch; ++i) {
        const auto bytes = i * layout.stride * static_cast<std::int64_t>(type_bytes(layout.type));
        result.addresses.push_back(static_cast<char*>(const_cast<void*>(base)) + bytes);
    }
    return result;
}

struct Layouts {
    std::shared_ptr<Layout> a, b, c, d;

    bool all() const { return a && b && c && d; }
};

bool same(const Layout& one, const Layout& other) {
    return one.ld == other.ld && (one.batch == 1 || one.stride == other.stride);
}

// The sizes of op(A) op(B) = D agree, the batches are as many, the order is by columns.
hipblasStatus_t check_layouts(const MatmulDesc& desc, const Layouts& l, Gemm& gemm) {
    gemm.transpose_a = desc.op_a != HIPBLAS_OP_N;
    gemm.transpose_b = desc.op_b != HIPBLAS_OP_N;
    const std::uint64_t m = gemm.transpose_a ? l.a->cols : l.a->rows;
    const std::uint64_t k = gemm.transpose_a ? l.a->rows : l.a->cols;
    const std::uint64_t n = gemm.transpose_b ? l.b->rows : l.b->cols;
    const std::uint64_t k_of_b = gemm.transpose_b ? l.b->cols : l.b->rows;
    if (k != k_of_b || l.d->rows != m || l.d->cols != n || l.c->rows != m || l.c->cols != n) {
        explain("the layouts' sizes do not fit together");
        return HIPBLAS_STATUS_INVALID_VALUE;
    }
    for (const Layout* layout : {l.a.get(), l.b.get(), l.c.get(), l.d.get()}) {
        if (layout->order != HIPBLASLT_ORDER_COL) return HIPBLAS_STATUS_NOT_SUPPORTED;
        if (layout->batch != l.d->batch || layout->batch < 1) return HIPBLAS_STATUS_INVALID_VALUE;
        if (layout->ld < static_cast<std::int64_t>(layout->rows)) {
            return HIPBLAS_STATUS_INVALID_VALUE;
        }
    }
    if (l.a->type != l.b->type || l.c->type != l.d->type) return HIPBLAS_STATUS_NOT_SUPPORTED;
    gemm.m = static_cast<std::int64_t>(m);
    gemm.n = static_cast<std::int64_t>(n);
    gemm.k = static_cast<std::int64_t>(k);
    return HIPBLAS_STATUS_SUCCESS;
}

// Everything but addresses and scalars.
hipblasStatus_t prepare(const MatmulDesc& desc, const Layouts& l, Gemm& gemm) {
    const auto epilogue = epilogues().find(desc.epilogue);
    if (epilogue == epilogues().end() || desc.pointer_mode != HIPBLAS_POINTER_MODE_HOST) {
        return HIPBLAS_STATUS_NOT_SUPPORTED;
    }
    const Arithmetic arithmetic = arithmetic_for(l.a->type, l.d->type, desc.compute);
    if (arithmetic.scalar != desc.scale_type) return HIPBLAS_STATUS_NOT_SUPPORTED;
    gemm.in_double = arithmetic.in_double;
    gemm.activation = epilogue->second.activation;
    if (epilogue->second.bias) {
        gemm.bias = static_cast<const char*>(desc.bias);
        const bool unset = desc.bias_type == bias_type_unset;
        gemm.bias_type = unset ? l.d->type : static_cast<hipDataType>(desc.bias_type);
        gemm.bias_stride = desc.bias_stride;
    }
    return check_layouts(desc, l, gemm);
}

}  // namespace
}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT hipblasStatus_t hipblasLtCreate(void** handle) {
    return lt_call(
        "hipblasLtCreate",
        [&] {
            if (!handle) return HIPBLAS_STATUS_INVALID_VALUE;
            forbid_while_capturing("hipblasLtCreate");
            *handle = lt_handles().add(std::make_shared<LtHandle>());
            return HIPBLAS_STATUS_SUCCESS;
        },
        out(handle));
}

EMULATOR_EXPORT hipblasStatus_t hipblasLtDestroy(void* handle) {
    return lt_call(
        "hipblasLtDestroy",
        [&] {
            if (!lt_handles().find(handle)) return HIPBLAS_STATUS_NOT_INITIALIZED;
            lt_handles().remove(handle);
            return HIPBLAS_STATUS_SUCCESS;
        },
        handle);
}

EMULATOR_EXPORT hipblasStatus_t hipblasLtGetVersion(void* handle, int* version) {
    return lt_call(
        "hipblasLtGetVersion",
        [&] {
            if (!lt_handles().find(handle)) return HIPBLAS_STATUS_NOT_INITIALIZED;
            if (!version) return HIPBLAS_STATUS_INVALID_VALUE;
            *version = 100400;  // 1.4.0
            return HIPBLAS_STATUS_SUCCESS;
        },
        handle, out(version));
}

EMULATOR_EXPORT hipblasStatus_t hipblasLtMatmulDescCreate(hipblasLtMatmulDesc_t* desc,
                                                          hipblasComputeType_t compute,
                                                          hipDataType scale_type) {
    return lt_call(
        "hipblasLtMatmulDescCreate",
        [&] {
            if (!desc) return HIPBLAS_STATUS_INVALID_VALUE;
            const auto created = std::make_shared<MatmulDesc>();
            created->compute = compute;
            created->scale_type = scale_type;
            *desc = matmul_descs().add(created);
            return HIPBLAS_STATUS_SUCCESS;
        },
        out(desc), compute, scale_type);
}

EMULATOR_EXPORT hipblasStatus_t hipblasLtMatmulDescDestroy(hipblasLtMatmulDesc_t desc) {
    return lt_call(
        "hipblasLtMatmulDescDestroy",
        [&] {
            if (!matmul_descs().find(desc)) return HIPBLAS_STATUS_INVALID_VALUE;
            matmul_descs().remove(desc);
            return HIPBLAS_STATUS_SUCCESS;
        },
        desc);
}

EMULATOR_EXPORT hipblasStatus_t hipblasLtMatmulDescSetAttribute(hipblasLtMatmulDesc_t desc,
                                                                int attribute, const void* from,
                                                                std::size_t bytes) {
    return lt_call(
        "hipblasLtMatmulDescSetAttribute",
        [&] {
            const std::shared_ptr<MatmulDesc> found = matmul_descs().find(desc);
            return found ? set(*found, attribute, from, bytes) : HIPBLAS_STATUS_INVALID_VALUE;
        },
        desc, attribute, bytes);
}

EMULATOR_EXPORT hipblasStatus_t hipblasLtMatrixLayoutCreate(hipblasLtMatrixLayout_t* layout,
                                                            hipDataType type, std::uint64_t rows,
                                                            std::uint64_t cols, std::int64_t ld) {
    return lt_call(
        "hipblasLtMatrixLayoutCreate",
        [&] {
            if (!layout) return HIPBLAS_STATUS_INVALID_VALUE;
            const auto created = std::make_shared<Layout>();
            created->type = type;
            created->rows = rows;
            created->cols = cols;
            created->ld = ld;
            *layout = layouts().add(created);
            return HIPBLAS_STATUS_SUCCESS;
        },
        out(layout), type, rows, cols, ld);
}

EMULATOR_EXPORT hipblasStatus_t hipblasLtMatrixLayoutDestroy(hipblasLtMatrixLayout_t layout) {
    return lt_call(
        "hipblasLtMatrixLayoutDestroy",
        [&] {
            if (!layouts().find(layout)) return HIPBLAS_STATUS_INVALID_VALUE;
            layouts().remove(layout);
            return HIPBLAS_STATUS_SUCCESS;
        },
        layout);
}

EMULATOR_EXPORT hipblasStatus_t hipblasLtMatrixLayoutSetAttribute(hipblasLtMatrixLayout_t layout,
                                                                  int attribute, const void* from,
                                                                  std::size_t bytes) {
    return lt_call(
        "hipblasLtMatrixLayoutSetAttribute",
        [&] {
            const std::shared_ptr<Layout> found = layouts().find(layout);
            return found ? set(*found, attribute, from, bytes) : HIPBLAS_STATUS_INVALID_VALUE;
        },
        layout, attribute, bytes);
}

EMULATOR_EXPORT hipblasStatus_t hipblasLtMatmulPreferenceCreate(
    hipblasLtMatmulPreference_t* preference) {
    return lt_call(
        "hipblasLtMatmulPreferenceCreate",
        [&] {
            if (!preference) return HIPBLAS_STATUS_INVALID_VALUE;
            *preference = preferences().add(std::make_shared<Preference>());
            return HIPBLAS_STATUS_SUCCESS;
        },
        out(preference));
}

EMULATOR_EXPORT hipblasStatus_t hipblasLtMatmulPreferenceDestroy(
    hipblasLtMatmulPreference_t preference) {
    return lt_call(
        "hipblasLtMatmulPreferenceDestroy",
        [&] {
            if (!preferences().find(preference)) return HIPBLAS_STATUS_INVALID_VALUE;
            preferences().remove(preference);
            return HIPBLAS_STATUS_SUCCESS;
        },
        preference);
}

EMULATOR_EXPORT hipblasStatus_t hipblasLtMatmulPreferenceSetAttribute(
    hipblasLtMatmulPreference_t preference, int attribute, const void* from, std::size_t bytes) {
    return lt_call(
        "hipblasLtMatmulPreferenceSetAttribute",
        [&] {
            const std::shared_ptr<Preference> found = preferences().find(preference);
            if (!found) return HIPBLAS_STATUS_INVALID_VALUE;
            if (attribute != HIPBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
                return HIPBLAS_STATUS_NOT_SUPPORTED;
            }
            return assign(found->workspace_bytes, from, bytes);
        },
        preference, attribute, bytes);
}

EMULATOR_EXPORT hipblasStatus_t hipblasLtMatmulAlgoGetHeuristic(
    void* handle, hipblasLtMatmulDesc_t desc, hipblasLtMatrixLayout_t a, hipblasLtMatrixLayout_t b,
    hipblasLtMatrixLayout_t c, hipblasLtMatrixLayout_t d, hipblasLtMatmulPreference_t preference,
    int requested, HeuristicResult* results, int* returned) {
    return lt_call(
        "hipblasLtMatmulAlgoGetHeuristic",
        [&] {
            if (!lt_handles().find(handle)) return HIPBLAS_STATUS_NOT_INITIALIZED;
            const std::shared_ptr<MatmulDesc> found = matmul_descs().find(desc);
            const Layouts l{layouts().find(a), layouts().find(b), layouts().find(c),
                            layouts().find(d)};
            const std::shared_ptr<Preference> limits = preferences().find(preference);
            if (!found || !l.all() || !limits || requested < 1 || !results || !returned) {
                return HIPBLAS_STATUS_INVALID_VALUE;
            }
            *returned = 0;
            Gemm gemm;
            const hipblasStatus_t status = prepare(*found, l, gemm);
            if (status != HIPBLAS_STATUS_SUCCESS) return status;
            for (int i = 0; i < std::min(requested, algorithms_for(gemm)); ++i) {
                if (algorithm_workspace(i) > limits->workspace_bytes) break;
                results[i] = {};
                results[i].algorithm[0] = algorithm_tag;
                results[i].algorithm[1] = static_cast<unsigned char>(i);
                results[i].workspace_bytes = algorithm_workspace(i);
                results[i].waves = 1;
                ++*returned;
            }
            return HIPBLAS_STATUS_SUCCESS;
        },
        handle, desc, a, b, c, d, preference, requested, out(returned));
}

EMULATOR_EXPORT hipblasStatus_t hipblasLtMatmul(
    void* handle, hipblasLtMatmulDesc_t desc, const void* alpha, const void* a,
    hipblasLtMatrixLayout_t layout_a, const void* b, hipblasLtMatrixLayout_t layout_b,
    const void* beta, const void* c, hipblasLtMatrixLayout_t layout_c, void* d,
    hipblasLtMatrixLayout_t layout_d, const void* algorithm, void* workspace,
    std::size_t workspace_bytes, hipStream_t stream) {
    return lt_call(
        "hipblasLtMatmul",
        [&](Lock& lock) {
            if (!lt_handles().find(handle)) return HIPBLAS_STATUS_NOT_INITIALIZED;
            const std::shared_ptr<MatmulDesc> found = matmul_descs().find(desc);
            const Layouts l{layouts().find(layout_a), layouts().find(layout_b),
                            layouts().find(layout_c), layouts().find(layout_d)};
            if (!found || !l.all() || !alpha || !beta) return HIPBLAS_STATUS_INVALID_VALUE;
            Gemm gemm;
            const hipblasStatus_t status = prepare(*found, l, gemm);
            if (status != HIPBLAS_STATUS_SUCCESS) return status;
            gemm.alpha = read_scalar(alpha, found->scale_type);
            gemm.beta = read_scalar(beta, found->scale_type);
            gemm.a = operand_of(*l.a, a);
            gemm.b = operand_of(*l.b, b);
            gemm.c = operand_of(*l.c, c);
            gemm.d = operand_of(*l.d, d);
            if (gemm.beta != 0 && c == d && !same(*l.c, *l.d)) {
                explain("C and D are one matrix, but their layouts differ");
                return HIPBLAS_STATUS_INVALID_VALUE;
            }
            if (workspace && !memory().holds(workspace, workspace_bytes)) {
                return HIPBLAS_STATUS_INVALID_VALUE;
            }
            if (algorithm && !can_use(static_cast<const unsigned char*>(algorithm), gemm,
                                      workspace ? workspace_bytes : 0)) {
                return HIPBLAS_STATUS_INVALID_VALUE;
            }
            queue_gemm(stream, std::move(gemm), {static_cast<char*>(workspace), workspace_bytes},
                       lock);
            return HIPBLAS_STATUS_SUCCESS;
        },
        handle, desc, a, layout_a, b, layout_b, c, layout_c, d, layout_d, workspace,
        workspace_bytes, stream);
}
