/* libhipblaslt on top of cuBLASLt. See hip.c. */
#include <cublasLt.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "blas_enums.h"

static const Pair EPILOGUES[] = {
    {1, CUBLASLT_EPILOGUE_DEFAULT},        {2, CUBLASLT_EPILOGUE_RELU},
    {4, CUBLASLT_EPILOGUE_BIAS},           {6, CUBLASLT_EPILOGUE_RELU_BIAS},
    {32, CUBLASLT_EPILOGUE_GELU},          {36, CUBLASLT_EPILOGUE_GELU_BIAS},
};

static const Pair LT_POINTER_MODES[] = {
    {0, CUBLASLT_POINTER_MODE_HOST},
    {1, CUBLASLT_POINTER_MODE_DEVICE},
    {4, CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_HOST},
};

static const Pair LT_ORDERS[] = {
    {0, CUBLASLT_ORDER_COL},
    {1, CUBLASLT_ORDER_ROW},
};

/* An attribute of a descriptor; `values` translates a 4-byte enumeration, NULL passes the bytes. */
typedef struct {
    int hip, cuda;
    const Pair *values;
    size_t value_count;
} LtAttribute;

#define ENUMERATION(table) table, LENGTH(table)
#define BYTES NULL, 0

static const LtAttribute MATMUL_ATTRIBUTES[] = {
    {0, CUBLASLT_MATMUL_DESC_TRANSA, ENUMERATION(BLAS_OPERATIONS)},
    {1, CUBLASLT_MATMUL_DESC_TRANSB, ENUMERATION(BLAS_OPERATIONS)},
    {2, CUBLASLT_MATMUL_DESC_EPILOGUE, ENUMERATION(EPILOGUES)},
    {3, CUBLASLT_MATMUL_DESC_BIAS_POINTER, BYTES},
    {4, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, ENUMERATION(DATA_TYPES)},
    {13, CUBLASLT_MATMUL_DESC_POINTER_MODE, ENUMERATION(LT_POINTER_MODES)},
    {23, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, BYTES},
};

static const LtAttribute LAYOUT_ATTRIBUTES[] = {
    {0, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, BYTES},
    {1, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, BYTES},
    {2, CUBLASLT_MATRIX_LAYOUT_TYPE, ENUMERATION(DATA_TYPES)},
    {3, CUBLASLT_MATRIX_LAYOUT_ORDER, ENUMERATION(LT_ORDERS)},
    {4, CUBLASLT_MATRIX_LAYOUT_ROWS, BYTES},
    {5, CUBLASLT_MATRIX_LAYOUT_COLS, BYTES},
    {6, CUBLASLT_MATRIX_LAYOUT_LD, BYTES},
};

static const LtAttribute PREFERENCE_ATTRIBUTES[] = {
    {1, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, BYTES},
};

/* The CUDA attribute and its value, ready to set. */
typedef struct {
    int attribute;
    const void *value;
    int translated; /* what `value` points to for an enumeration */
} LtSetting;

static hipblasStatus_t translate_setting(const LtAttribute *table, size_t length, int attribute,
                                         const void *value, size_t bytes, LtSetting *setting)
{
    for (size_t i = 0; i < length; i++) {
        int32_t hip;
        if (table[i].hip != attribute)
            continue;
        setting->attribute = table[i].cuda;
        setting->value = value;
        if (!table[i].values)
            return HIPBLAS_STATUS_SUCCESS;
        if (!value || bytes != sizeof hip)
            return HIPBLAS_STATUS_INVALID_VALUE;
        memcpy(&hip, value, sizeof hip);
        setting->value = &setting->translated;
        return find_pair(table[i].values, table[i].value_count, hip, &setting->translated)
                   ? HIPBLAS_STATUS_SUCCESS
                   : HIPBLAS_STATUS_NOT_SUPPORTED;
    }
    return HIPBLAS_STATUS_NOT_SUPPORTED;
}

EXPORT hipblasStatus_t hipblasLtCreate(cublasLtHandle_t *handle)
{
    return blas_done(cublasLtCreate(handle));
}

EXPORT hipblasStatus_t hipblasLtDestroy(cublasLtHandle_t handle)
{
    return blas_done(cublasLtDestroy(handle));
}

EXPORT hipblasStatus_t hipblasLtGetVersion(cublasLtHandle_t handle, int *version)
{
    if (!handle || !version)
        return HIPBLAS_STATUS_INVALID_VALUE;
    *version = (int)cublasLtGetVersion();
    return HIPBLAS_STATUS_SUCCESS;
}

EXPORT hipblasStatus_t hipblasLtMatmulDescCreate(cublasLtMatmulDesc_t *matmul, int compute,
                                                 int scale_type)
{
    int cuda_compute, cuda_type;
    if (!TO_CUDA(COMPUTE_TYPES, compute, &cuda_compute) ||
        !TO_CUDA(DATA_TYPES, scale_type, &cuda_type))
        return HIPBLAS_STATUS_NOT_SUPPORTED;
    return blas_done(cublasLtMatmulDescCreate(matmul, (cublasComputeType_t)cuda_compute,
                                              (cudaDataType)cuda_type));
}

EXPORT hipblasStatus_t hipblasLtMatmulDescDestroy(cublasLtMatmulDesc_t matmul)
{
    return blas_done(cublasLtMatmulDescDestroy(matmul));
}

EXPORT hipblasStatus_t hipblasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t matmul, int attribute,
                                                       const void *value, size_t bytes)
{
    LtSetting setting;
    hipblasStatus_t status = translate_setting(MATMUL_ATTRIBUTES, LENGTH(MATMUL_ATTRIBUTES),
                                               attribute, value, bytes, &setting);
    if (status != HIPBLAS_STATUS_SUCCESS)
        return status;
    return blas_done(cublasLtMatmulDescSetAttribute(
        matmul, (cublasLtMatmulDescAttributes_t)setting.attribute, setting.value, bytes));
}

EXPORT hipblasStatus_t hipblasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, int type,
                                                   uint64_t rows, uint64_t columns, int64_t ld)
{
    int cuda;
    if (!TO_CUDA(DATA_TYPES, type, &cuda))
        return HIPBLAS_STATUS_NOT_SUPPORTED;
    return blas_done(cublasLtMatrixLayoutCreate(layout, (cudaDataType)cuda, rows, columns, ld));
}

EXPORT hipblasStatus_t hipblasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    return blas_done(cublasLtMatrixLayoutDestroy(layout));
}

EXPORT hipblasStatus_t hipblasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                         int attribute, const void *value,
                                                         size_t bytes)
{
    LtSetting setting;
    hipblasStatus_t status = translate_setting(LAYOUT_ATTRIBUTES, LENGTH(LAYOUT_ATTRIBUTES),
                                               attribute, value, bytes, &setting);
    if (status != HIPBLAS_STATUS_SUCCESS)
        return status;
    return blas_done(cublasLtMatrixLayoutSetAttribute(
        layout, (cublasLtMatrixLayoutAttribute_t)setting.attribute, setting.value, bytes));
}

EXPORT hipblasStatus_t hipblasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    return blas_done(cublasLtMatmulPreferenceCreate(preference));
}

EXPORT hipblasStatus_t hipblasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    return blas_done(cublasLtMatmulPreferenceDestroy(preference));
}

EXPORT hipblasStatus_t hipblasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                             int attribute, const void *value,
                                                             size_t bytes)
{
    LtSetting setting;
    hipblasStatus_t status =
        translate_setting(PREFERENCE_ATTRIBUTES, LENGTH(PREFERENCE_ATTRIBUTES), attribute, value,
                          bytes, &setting);
    if (status != HIPBLAS_STATUS_SUCCESS)
        return status;
    return blas_done(cublasLtMatmulPreferenceSetAttribute(
        preference, (cublasLtMatmulPreferenceAttributes_t)setting.attribute, setting.value,
        bytes));
}

/* An algorithm is 64 opaque bytes in CUDA and 16 in HIP. So CUDA's are kept here, each once, for
 * the life of the process, and HIP's bytes hold a tag and the index. */
typedef struct {
    uint8_t data[16];
    size_t max_workspace_bytes;
} hipblasLtMatmulAlgo_t;

typedef struct {
    hipblasLtMatmulAlgo_t algo;
    size_t workspaceSize;
    hipblasStatus_t state;
    float wavesCount;
    int reserved[4];
} hipblasLtMatmulHeuristicResult_t;

typedef struct {
    char tag[8];
    uint64_t index;
} AlgorithmKey;

_Static_assert(sizeof(AlgorithmKey) == sizeof(((hipblasLtMatmulAlgo_t *)0)->data),
               "the key fills the opaque bytes");

static const char ALGORITHM_TAG[8] = "cublasLt";

static struct {
    pthread_mutex_t lock;
    cublasLtMatmulAlgo_t *items;
    size_t count, capacity;
} algorithms = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The index of an algorithm, added if it is new. False when memory is exhausted. Hold the lock. */
static bool index_algorithm(const cublasLtMatmulAlgo_t *algorithm, uint64_t *index)
{
    for (size_t i = 0; i < algorithms.count; i++) {
        if (memcmp(&algorithms.items[i], algorithm, sizeof *algorithm) == 0) {
            *index = i;
            return true;
        }
    }
    if (algorithms.count == algorithms.capacity) {
        size_t capacity = algorithms.capacity ? 2 * algorithms.capacity : 64;
        void *grown = realloc(algorithms.items, capacity * sizeof *algorithms.items);
        if (!grown)
            return false;
        algorithms.items = grown;
        algorithms.capacity = capacity;
    }
    algorithms.items[algorithms.count] = *algorithm;
    *index = algorithms.count++;
    return true;
}

static bool keep_algorithm(const cublasLtMatmulAlgo_t *algorithm, hipblasLtMatmulAlgo_t *kept)
{
    AlgorithmKey key;
    bool stored;
    memcpy(key.tag, ALGORITHM_TAG, sizeof key.tag);
    pthread_mutex_lock(&algorithms.lock);
    stored = index_algorithm(algorithm, &key.index);
    pthread_mutex_unlock(&algorithms.lock);
    memcpy(kept->data, &key, sizeof key);
    return stored;
}

static bool recall_algorithm(const hipblasLtMatmulAlgo_t *kept, cublasLtMatmulAlgo_t *algorithm)
{
    AlgorithmKey key;
    bool known;
    memcpy(&key, kept->data, sizeof key);
    if (memcmp(key.tag, ALGORITHM_TAG, sizeof key.tag) != 0)
        return false;
    pthread_mutex_lock(&algorithms.lock);
    known = key.index < algorithms.count;
    if (known)
        *algorithm = algorithms.items[key.index];
    pthread_mutex_unlock(&algorithms.lock);
    return known;
}

EXPORT hipblasStatus_t hipblasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t handle, cublasLtMatmulDesc_t matmul, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
    cublasLtMatmulPreference_t preference, int requested,
    hipblasLtMatmulHeuristicResult_t *results, int *returned)
{
    cublasLtMatmulHeuristicResult_t *cuda;
    hipblasStatus_t status;
    if (requested <= 0 || !results || !returned)
        return HIPBLAS_STATUS_INVALID_VALUE;
    *returned = 0;
    cuda = calloc((size_t)requested, sizeof *cuda);
    if (!cuda)
        return HIPBLAS_STATUS_ALLOC_FAILED;
    status = blas_done(cublasLtMatmulAlgoGetHeuristic(handle, matmul, a, b, c, d, preference,
                                                      requested, cuda, returned));
    for (int i = 0; i < *returned && status == HIPBLAS_STATUS_SUCCESS; i++) {
        memset(&results[i], 0, sizeof results[i]);
        if (!keep_algorithm(&cuda[i].algo, &results[i].algo))
            status = HIPBLAS_STATUS_ALLOC_FAILED;
        results[i].algo.max_workspace_bytes = cuda[i].workspaceSize;
        results[i].workspaceSize = cuda[i].workspaceSize;
        results[i].state = blas_done(cuda[i].state);
        results[i].wavesCount = cuda[i].wavesCount;
    }
    free(cuda);
    return status;
}

/* Without an algorithm cuBLASLt asks its heuristic itself. */
EXPORT hipblasStatus_t hipblasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t matmul,
                                       const void *alpha, const void *a,
                                       cublasLtMatrixLayout_t a_layout, const void *b,
                                       cublasLtMatrixLayout_t b_layout, const void *beta,
                                       const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                                       cublasLtMatrixLayout_t d_layout,
                                       const hipblasLtMatmulAlgo_t *algo, void *workspace,
                                       size_t workspace_bytes, cudaStream_t stream)
{
    cublasLtMatmulAlgo_t algorithm;
    if (algo && !recall_algorithm(algo, &algorithm))
        return HIPBLAS_STATUS_INVALID_VALUE;
    return blas_done(cublasLtMatmul(handle, matmul, alpha, a, a_layout, b, b_layout, beta, c,
                                    c_layout, d, d_layout, algo ? &algorithm : NULL, workspace,
                                    workspace_bytes, stream));
}
