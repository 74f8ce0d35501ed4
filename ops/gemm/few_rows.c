/* y = alpha · x w + beta · c + bias on the CPU for at most 8 rows of x, with vectors of any width.
few_rows_on_cpu.py compiles it.

w is read once, at the memory's rate. Where its elements are neighbours along K, a vector of sums
for each row and column stays in registers. Where they are neighbours along N, the sums of some columns
stay in the first-level cache, and rows of w are added to them, DEEP at a time. The order of the
sums of a column does not depend on how the work is shared. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "../kit/halves.h"

#if defined(__AVX512F__)
enum { W = 16 };
#elif defined(__AVX__)
enum { W = 8 };
#else
enum { W = 4 };
#endif
enum { MOST_ROWS = 8, MOST_SUMS = 16, UNIT = 16 /* columns of a task */, WIDE = 1024, DEEP = 4 };
enum { AHEAD = 8 /* rows of w */, FAR = 4096 /* bytes */ }; /* that are fetched beforehand */

typedef float vec __attribute__((vector_size(4 * W)));
typedef float four __attribute__((vector_size(16)));
typedef int32_t ints __attribute__((vector_size(4 * W)));
typedef uint16_t halves __attribute__((vector_size(2 * W)));
typedef ptrdiff_t word;
#define EXPORT __attribute__((visibility("default")))
#define UNROLL _Pragma("GCC unroll 16")

enum { F32, F16, BF16 };

/* Strides are in elements. `entries` are where each entry of the batch begins. */
typedef struct {
    char *data;
    const word *entries;
    word row, column, dtype;
} Matrix;

typedef struct {
    Matrix x, w, y, c, bias; /* what is not there has no data; c is multiplied by beta */
    float *packed;           /* x in f32, (entries, padded, k); rows after `rows` are 0 */
    word entries, rows, padded, n, k;
    float alpha, beta;
} Problem;

/* Elements ------------------------------------------------------------------------------------- */

INLINE word size_of(word dtype) { return dtype == F32 ? 4 : 2; }

static char *at(const Matrix *m, word entry, word row, word column) {
    return m->data + size_of(m->dtype) * (m->entries[entry] + row * m->row + column * m->column);
}

INLINE float get(const void *from, word dtype) {
    float x;
    uint16_t half;
    memcpy(&x, from, dtype == F32 ? 4 : 2);
    memcpy(&half, from, 2);
    return dtype == F32 ? x : dtype == F16 ? from_f16(half) : as_float((uint32_t)half << 16);
}

INLINE void put(void *to, word dtype, float x) {
    uint16_t half = dtype == F16 ? to_f16(x) : to_bf16(x);
    if (dtype == F32)
        memcpy(to, &x, 4);
    else
        memcpy(to, &half, 2);
}

INLINE vec f16_vector(halves h) {
#if defined(__AVX512F__)
    return (vec)_mm512_cvtph_ps((__m256i)h);
#elif defined(__F16C__) && defined(__AVX__)
    return (vec)_mm256_cvtph_ps((__m128i)h);
#else
    vec x;
    UNROLL for (int i = 0; i < W; i++) x[i] = from_f16(h[i]);
    return x;
#endif
}

/* W elements from `index` on. */
INLINE vec take(const void *from, word index, word dtype) {
    vec x;
    halves h;
    if (dtype == F32) {
        memcpy(&x, (const float *)from + index, sizeof x);
        return x;
    }
    memcpy(&h, (const uint16_t *)from + index, sizeof h);
    return dtype == F16 ? f16_vector(h) : (vec)(__builtin_convertvector(h, ints) << 16);
}

/* W elements to `index` and on. */
INLINE void give(void *to, word index, word dtype, vec x) {
    if (dtype == F32) {
        memcpy((float *)to + index, &x, sizeof x);
        return;
    }
    halves h;
#if defined(__AVX512F__)
    if (dtype == F16) h = (halves)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__F16C__) && defined(__AVX__)
    if (dtype == F16) h = (halves)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
#else
    UNROLL for (int i = 0; i < W && dtype == F16; i++) h[i] = to_f16(x[i]);
#endif
    UNROLL for (int i = 0; i < W && dtype == BF16; i++) h[i] = to_bf16(x[i]);
    memcpy((uint16_t *)to + index, &h, sizeof h);
}

INLINE float total(vec x) {
    union {
        vec all;
        four parts[W / 4];
    } of = {x};
    four sum = of.parts[0];
    UNROLL for (int i = 1; i < W / 4; i++) sum += of.parts[i];
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

/* Neighbours along K --------------------------------------------------------------------------- */

/* sums[row][c] of some columns, whose elements of w begin at w[c]. */
INLINE void dots(const void *const *w, const int columns, const int dtype, const float *x, word k,
                 const int rows, float (*sums)[WIDE]) {
    const int deep = rows * columns >= 4 ? 1 : 4 / (rows * columns);
    vec sum[MOST_SUMS] = {{0}};
    word i = 0;
    for (; i + deep * W <= k; i += deep * W) {
        UNROLL for (int d = 0; d < deep; d++) {
            UNROLL for (int c = 0; c < columns; c++) {
                if (rows > 1) /* one row is read as fast without */
                    __builtin_prefetch((const char *)w[c] + (i + d * W) * size_of(dtype) + FAR);
                const vec found = take(w[c], i + d * W, dtype);
                UNROLL for (int r = 0; r < rows; r++)
                    sum[(d * rows + r) * columns + c] += found * take(x + r * k, i + d * W, F32);
            }
        }
    }
    for (; i + W <= k; i += W) {
        UNROLL for (int c = 0; c < columns; c++) {
            const vec found = take(w[c], i, dtype);
            UNROLL for (int r = 0; r < rows; r++)
                sum[r * columns + c] += found * take(x + r * k, i, F32);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int c = 0; c < columns; c++) {
            vec all = sum[r * columns + c];
            UNROLL for (int d = 1; d < deep; d++) all += sum[(d * rows + r) * columns + c];
            float last = total(all);
            for (word j = i; j < k; j++)
                last += x[r * k + j] * get((const char *)w[c] + size_of(dtype) * j, dtype);
            sums[r][c] = last;
        }
    }
}

/* Some columns from `first` on, several at a time where that needs x less often. */
INLINE void along_k(const Problem *p, word entry, word first, word columns, const int dtype,
                    const int rows, float (*sums)[WIDE]) {
    const float *x = p->packed + entry * rows * p->k;
    const int wide = rows == 1 ? 1 : rows == 8 ? 2 : 4;
    const word step = p->w.column * size_of(dtype);
    word c = 0;
    for (; c + wide <= columns; c += wide) {
        const char *w = at(&p->w, entry, 0, first + c);
        const void *from[] = {w, w + step, w + 2 * step, w + 3 * step};
        dots(from, wide, dtype, x, p->k, rows, (float (*)[WIDE])(sums[0] + c));
    }
    for (; c < columns; c++) {
        const void *w[] = {at(&p->w, entry, 0, first + c)};
        dots(w, 1, dtype, x, p->k, rows, (float (*)[WIDE])(sums[0] + c));
    }
}

/* Neighbours along N --------------------------------------------------------------------------- */

/* Adds `deep` rows of w to the sums. */
INLINE void add_rows(const Problem *p, const char *w, word columns, const float *x, const int deep,
                     const int dtype, const int rows, float (*sums)[WIDE]) {
    const word step = p->w.row * size_of(dtype);
    word c = 0;
    for (; c + W <= columns; c += W) {
        vec sum[MOST_ROWS];
        UNROLL for (int r = 0; r < rows; r++) memcpy(&sum[r], sums[r] + c, sizeof sum[r]);
        UNROLL for (int d = 0; d < deep; d++) {
            __builtin_prefetch(w + (d + AHEAD) * step + c * size_of(dtype));
            const vec found = take(w + d * step, c, dtype);
            UNROLL for (int r = 0; r < rows; r++) sum[r] += x[r * p->k + d] * found;
        }
        UNROLL for (int r = 0; r < rows; r++) memcpy(sums[r] + c, &sum[r], sizeof sum[r]);
    }
    for (; c < columns; c++)
        for (int r = 0; r < rows; r++)
            for (int d = 0; d < deep; d++)
                sums[r][c] += x[r * p->k + d] * get(w + d * step + c * size_of(dtype), dtype);
}

INLINE void along_n(const Problem *p, word entry, word first, word columns, const int dtype,
                    const int rows, float (*sums)[WIDE]) {
    const float *x = p->packed + entry * rows * p->k;
    for (int r = 0; r < rows; r++) memset(sums[r], 0, columns * sizeof(float));
    word i = 0;
    for (; i + DEEP <= p->k; i += DEEP)
        add_rows(p, at(&p->w, entry, i, first), columns, x + i, DEEP, dtype, rows, sums);
    for (; i < p->k; i++)
        add_rows(p, at(&p->w, entry, i, first), columns, x + i, 1, dtype, rows, sums);
}

/* All ------------------------------------------------------------------------------------------ */

/* Adds factor · m to a row of sums. */
static void add(const Matrix *m, word entry, word row, word first, word columns, float factor,
                float *sums) {
    if (!m->data)
        return;
    const char *from = at(m, entry, row, first);
    const word size = size_of(m->dtype), step = size * m->column;
    word c = 0;
    for (; m->column == 1 && c + W <= columns; c += W)
        give(sums, c, F32, take(sums, c, F32) + factor * take(from, c, m->dtype));
    for (; c < columns; c++) sums[c] += factor * get(from + c * step, m->dtype);
}

static void finish(const Problem *p, word entry, word first, word columns, float (*sums)[WIDE]) {
    const word size = size_of(p->y.dtype);
    for (word r = 0; r < p->rows; r++) {
        for (word c = 0; c < columns; c++) sums[r][c] *= p->alpha;
        add(&p->c, entry, r, first, columns, p->beta, sums[r]);
        add(&p->bias, entry, r, first, columns, 1.0f, sums[r]);
        char *to = at(&p->y, entry, r, first);
        word c = 0;
        for (; c + W <= columns; c += W) give(to, c, p->y.dtype, take(sums[r], c, F32));
        for (; c < columns; c++) put(to + c * size, p->y.dtype, sums[r][c]);
    }
}

/* For 1, 2, 4 and 8 rows: the compiler sees what is constant, and compiles for a second or two. */
#define ROWS(rows)                                                                   \
    case rows:                                                                       \
        if (p->w.row == 1)                                                           \
            along_k(p, entry, first, columns, dtype, rows, sums);                    \
        else                                                                         \
            along_n(p, entry, first, columns, dtype, rows, sums);                    \
        break;
#define KERNEL(name, dtype_)                                                         \
    static void name(const Problem *p, word entry, word first, word columns,         \
                     float (*sums)[WIDE]) {                                          \
        const int dtype = dtype_;                                                    \
        switch (p->padded) { ROWS(1) ROWS(2) ROWS(4) ROWS(8) } \
    }
KERNEL(of_f32, F32)
KERNEL(of_f16, F16)
KERNEL(of_bf16, BF16)

/* To be called before any task. */
EXPORT void few_rows_pack(const Problem *p) {
    float *to = p->packed;
    for (word entry = 0; entry < p->entries; entry++) {
        for (word row = 0; row < p->padded; row++, to += p->k) {
            memset(to, 0, p->k * sizeof(float));
            if (row < p->rows)
                add(&p->x, entry, row, 0, p->k, 1.0f, to);
        }
    }
}

/* Tasks low to high: UNIT columns each, of the first entry, of the second and so on. */
EXPORT void few_rows(const Problem *p, word low, word high) {
    static void (*const kernels[])(const Problem *, word, word, word, float (*)[WIDE]) = {
        of_f32, of_f16, of_bf16};
    float sums[MOST_ROWS][WIDE];
    const word units = (p->n + UNIT - 1) / UNIT;
    while (low < high) {
        word entry = low / units, unit = low % units, count = WIDE / UNIT;
        if (count > high - low)
            count = high - low;
        if (count > units - unit)
            count = units - unit;
        word first = unit * UNIT, columns = count * UNIT;
        if (columns > p->n - first)
            columns = p->n - first;
        kernels[p->w.dtype](p, entry, first, columns, sums);
        finish(p, entry, first, columns, sums);
        low += count;
    }
}

EXPORT word few_rows_unit(void) { return UNIT; }
