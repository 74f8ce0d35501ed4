/* softmax(scale · q kᵀ + mask) v on the CPU, with vectors of any width. compiled.py compiles it.

The queries of a tile lie in the lanes of vectors, so nothing is summed or compared across lanes,
and what a query gives does not depend on the others. Keys and values are read as scalars that go to
all lanes: they stay where they are. Scores (keys, queries) and sums (values, queries) lie turned.
Keys are met some at a time, their logits less the largest so far, and what was summed before is
corrected when that grows (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022,
arXiv:2205.14135). */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../kit/halves.h"

/* ROWS × VECS vectors of sums, and a few more, fit into the registers. */
#if defined(__AVX512F__)
enum { W = 16, ROWS = 8, VECS = 2 };
#elif defined(__AVX__)
enum { W = 8, ROWS = 4, VECS = 3 };
#elif defined(__aarch64__)
enum { W = 4, ROWS = 8, VECS = 2 };
#else
enum { W = 4, ROWS = 4, VECS = 2 };
#endif
enum { TILE = W * VECS, KEYS = 64 /* at a time; a multiple of 4 */ };

typedef float vec __attribute__((vector_size(4 * W)));
typedef int32_t ints __attribute__((vector_size(4 * W)));
typedef ptrdiff_t word;
#define EXPORT __attribute__((visibility("default")))

enum { F32, F16, BF16, F64, BOOL };

typedef struct {
    char *data;
    const word *entries; /* where each batch entry begins, in elements */
    word row, column;    /* strides, in elements */
    word dtype;
} Matrix;

typedef struct {
    Matrix q, k, v, out, mask; /* as in Problem; the mask's data is NULL if there is none */
    word queries, keys, head, value;
    word block; /* queries of a task */
    word causal;
    float scale;
} Problem;

/* A tile of queries. Of vectors (1 or VECS a row): scale · q, (head, queries), the values summed so
far, (value, queries), and of each query the largest logit and the sum of the weights. */
typedef struct {
    vec *q, *out, *top, *sum;
    word first, queries, vecs;
} Tile;

/* Rows of f32, whose columns are neighbours. */
typedef struct {
    const float *data;
    word stride;
} Rows;

/* Elements ------------------------------------------------------------------------------------- */

static char *at(const Matrix *m, word entry, word row, word column) {
    static const word size[] = {4, 2, 2, 8, 1};
    return m->data + size[m->dtype] * (m->entries[entry] + row * m->row + column * m->column);
}

INLINE void swap(word *a, word *b) {
    word c = *a;
    *a = *b, *b = c;
}

/* to[i · to_row + j · to_column] = m[first + i, low + j], in f32; of bools, 0 if true, else -inf */
static void load(float *restrict to, word to_row, word to_column, const Matrix *m, word entry,
                 word first, word rows, word low, word columns) {
    const void *from = at(m, entry, first, low);
    word row = m->row, column = m->column;
    if (row < column) { /* neighbours are read one after the other */
        swap(&row, &column), swap(&to_row, &to_column), swap(&rows, &columns);
    }
#define LOAD(type, convert)                                                                  \
    for (word i = 0; i < rows; i++)                                                          \
        for (word j = 0; j < columns; j++)                                                   \
            to[i * to_row + j * to_column] =                                                 \
                convert(((const type *)from)[i * row + j * column]);                         \
    break
#define FROM_BF16(x) as_float((uint32_t)(x) << 16)
#define FROM_BOOL(x) ((x) ? 0.0f : -INFINITY)
    switch (m->dtype) {
    case F32: LOAD(float, );
    case F16: LOAD(uint16_t, from_f16);
    case BF16: LOAD(uint16_t, FROM_BF16);
    case BOOL: LOAD(uint8_t, FROM_BOOL);
    default: LOAD(double, (float));
    }
}

/* m[first + i, j] = from[i + j · column] · factors[i] */
static void store(const Matrix *m, word entry, word first, word rows, word columns,
                  const float *restrict from, word column, const float *factors) {
#define STORE(type, convert)                                                                 \
    for (word i = 0; i < rows; i++) {                                                        \
        type *to = (type *)at(m, entry, first + i, 0);                                          \
        for (word j = 0; j < columns; j++)                                                   \
            to[j * m->column] = convert(from[i + j * column] * factors[i]);                  \
    }                                                                                        \
    break
    switch (m->dtype) {
    case F32: STORE(float, );
    case F16: STORE(uint16_t, to_f16);
    case BF16: STORE(uint16_t, to_bf16);
    default: STORE(double, );
    }
}

/* Vectors -------------------------------------------------------------------------------------- */

INLINE vec all(float x) { return x - (vec){0}; }

INLINE vec choose(ints which, vec a, vec b) {
    return (vec)(((ints)a & which) | ((ints)b & ~which));
}

/* The larger of a and b; b where either is NaN. */
INLINE vec larger(vec a, vec b) { return choose(a > b, a, b); }

/* e^x / 2^less for x ≤ 0, as 2 to a whole number and to a rest in [-½, ½]; 0 where that is below
2^-125, which leaves no subnormal weights. The polynomial has the least relative error for its
degree, 2e-9. */
INLINE vec power(vec x, float less) {
    const float shift = 0x1.8p23f + 127 - less; /* leaves the biased exponent in the last places */
    x *= 0x1.715476p+0f;                 /* log2 e */
    vec whole = x + shift, rest = x - (whole - shift), p = all(0x1.41d2f6p-13f);
    p = p * rest + 0x1.5f45b4p-10f;
    p = p * rest + 0x1.3b2e0cp-7f;
    p = p * rest + 0x1.c6aec6p-5f;
    p = p * rest + 0x1.ebfbd8p-3f;
    p = p * rest + 0x1.62e43p-1f;
    p = p * rest + 1.0f;
    p *= (vec)((ints)whole << 23);
    return (vec)((ints)p & ~(x < less - 125)); /* NaN stays NaN */
}

/* sums (rows, queries) += a (rows, count) · b (count, queries), a with strides */
INLINE void multiply(vec *restrict sums, const int rows, const int vecs, const float *restrict a,
                     word row, word column, const vec *restrict b, word count) {
    for (word c = 0; c < count; c++)
        for (int i = 0; i < rows; i++) {
            float x = a[i * row + c * column];
            for (int j = 0; j < vecs; j++)
                sums[i * vecs + j] += b[c * vecs + j] * x;
        }
}

/* z (keys, queries) = k · q */
INLINE void some_scores(vec *z, const int rows, const int vecs, const float *k, word row,
                        const vec *q, word head) {
    vec sums[ROWS * VECS];
    for (int i = 0; i < rows * vecs; i++)
        sums[i] = all(0);
    multiply(sums, rows, vecs, k, row, 1, q, head);
    for (int i = 0; i < rows * vecs; i++)
        z[i] = sums[i];
}

INLINE void scores(vec *z, const int vecs, Rows k, word keys, const vec *q, word head) {
    word i = 0;
    for (; i + ROWS <= keys; i += ROWS)
        some_scores(z + i * vecs, ROWS, vecs, k.data + i * k.stride, k.stride, q, head);
    for (; i < keys; i++)
        some_scores(z + i * vecs, 1, vecs, k.data + i * k.stride, k.stride, q, head);
}

/* out (values, queries) = out · factors + vᵀ · z */
INLINE void some_values(vec *out, const int rows, const int vecs, const vec *factors,
                        const float *v, word row, const vec *z, word keys) {
    vec sums[ROWS * VECS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vecs; j++)
            sums[i * vecs + j] = out[i * vecs + j] * factors[j];
    multiply(sums, rows, vecs, v, 1, row, z, keys);
    for (int i = 0; i < rows * vecs; i++)
        out[i] = sums[i];
}

INLINE void values(vec *out, const int vecs, const vec *factors, Rows v, word value, const vec *z,
                   word keys) {
    word i = 0;
    for (; i + ROWS <= value; i += ROWS)
        some_values(out + i * vecs, ROWS, vecs, factors, v.data + i, v.stride, z, keys);
    for (; i < value; i++)
        some_values(out + i * vecs, 1, vecs, factors, v.data + i, v.stride, z, keys);
}

/* All weights of a query together are at most ½ when they are divided by two to this power: no sum
of values exceeds the largest value. Dividing by it is exact. */
INLINE float headroom(const Problem *p) {
    float power = 1;
    for (word n = 1; n < p->keys; n *= 2)
        power++;
    return power;
}

/* Scores become weights, divided by 2^less; what was summed before is to be multiplied with
`factors`. */
INLINE void weights(Tile *t, vec *z, const int vecs, word keys, vec *factors, float less) {
    for (word i = keys; i % 4; i++)
        for (int j = 0; j < vecs; j++)
            z[i * vecs + j] = all(-INFINITY);
    for (int j = 0; j < vecs; j++) {
        vec most[4] = {t->top[j], t->top[j], t->top[j], t->top[j]};
        for (word i = 0; i < keys; i += 4)
            for (int n = 0; n < 4; n++)
                most[n] = larger(z[(i + n) * vecs + j], most[n]);
        vec top = larger(larger(most[0], most[1]), larger(most[2], most[3]));
        vec base = choose(top == -INFINITY, all(0), top), sum = all(0);
        for (word i = 0; i < keys; i++)
            sum += z[i * vecs + j] = power(z[i * vecs + j] - base, less);
        factors[j] = power(t->top[j] - base, 0);
        t->sum[j] = t->sum[j] * factors[j] + sum;
        t->top[j] = top;
    }
}

/* Tiles ---------------------------------------------------------------------------------------- */

/* Key j of z is hidden from query i where j > i + ahead. */
INLINE void hide(vec *z, const int vecs, word keys, word ahead) {
    ints lane[VECS];
    for (int i = 0; i < W * vecs; i++)
        ((int32_t *)lane)[i] = i;
    for (word j = ahead < 0 ? 0 : ahead + 1; j < keys; j++)
        for (int n = 0; n < vecs; n++) {
            vec *some = z + j * vecs + n;
            *some = choose(lane[n] < (int32_t)(j - ahead), all(-INFINITY), *some);
        }
}

/* Add the mask to scores of keys from `low` on. Lanes without a query get what lies in memory. */
INLINE void add_mask(const Problem *p, word entry, const Tile *t, const int vecs, word low,
                     word keys, vec *z, vec *more) {
    float *to = (float *)more;
    if (p->mask.row == 0) { /* the same for all queries */
        load(to, 0, 1, &p->mask, entry, 0, 1, low, keys);
        for (word i = 0; i < keys; i++)
            for (int j = 0; j < vecs; j++)
                z[i * vecs + j] += to[i];
        return;
    }
    load(to, 1, W * vecs, &p->mask, entry, t->first, t->queries, low, keys);
    for (word i = 0; i < keys * vecs; i++)
        z[i] += more[i];
}

/* The tile meets some keys, from `low` on. */
INLINE void meet(const Problem *p, word entry, Tile *t, const int vecs, word low, word keys, Rows k,
                 Rows v, vec *z, vec *more) {
    vec factors[VECS];
    scores(z, vecs, k, keys, t->q, p->head);
    if (p->mask.data)
        add_mask(p, entry, t, vecs, low, keys, z, more);
    if (p->causal)
        hide(z, vecs, keys, t->first + p->keys - p->queries - low);
    weights(t, z, vecs, keys, factors, headroom(p));
    values(t->out, vecs, factors, v, p->value, z, keys);
}

static void begin(const Problem *p, word entry, Tile *t) {
    if (t->queries < W * t->vecs)
        memset(t->q, 0, sizeof(vec) * t->vecs * p->head);
    load((float *)t->q, 1, W * t->vecs, &p->q, entry, t->first, t->queries, 0, p->head);
    for (word i = 0; i < t->vecs * p->head; i++)
        t->q[i] *= p->scale;
    memset(t->out, 0, sizeof(vec) * t->vecs * p->value);
    for (word j = 0; j < t->vecs; j++) {
        t->top[j] = all(-INFINITY);
        t->sum[j] = all(0);
    }
}

static void end(const Problem *p, word entry, Tile *t) {
    float factors[TILE];
    for (word i = 0; i < t->queries; i++) {
        float sum = ((const float *)t->sum)[i];
        factors[i] = sum == 0 ? 0 : 1 / sum; /* a query that sees no key has no weights */
    }
    store(&p->out, entry, t->first, t->queries, p->value, (const float *)t->out, W * t->vecs,
          factors);
}

/* Rows of a matrix where they lie, if that may be, else a copy of them in `spare`. */
static Rows rows_of(const Matrix *m, word entry, word first, word rows, word columns,
                    float *spare) {
    if (m->dtype == F32 && m->column == 1)
        return (Rows){(const float *)at(m, entry, first, 0), m->row};
    load(spare, columns, 1, m, entry, first, rows, 0, columns);
    return (Rows){spare, columns};
}

static word least(word a, word b) { return a < b ? a : b; }

/* Vectors of a tile with all its sums. */
static word vectors(const Problem *p) { return (p->head + p->value + 2) * VECS; }

static word tiles_of(word queries) { return (queries + TILE - 1) / TILE; }

/* A block of queries, from `first` on, of a batch entry. */
static void block(const Problem *p, word entry, word first, vec *memory) {
    word last = least(first + p->block, p->queries), tiles = tiles_of(last - first);
    word ahead = p->causal ? p->keys - p->queries : p->keys; /* query i sees keys j ≤ i + ahead */
    vec *z = memory + tiles_of(p->block) * vectors(p), *more = z + KEYS * VECS;
    float *k_spare = (float *)(more + KEYS * VECS), *v_spare = k_spare + KEYS * p->head;
    Tile all_tiles[tiles];

    for (word n = 0; n < tiles; n++) {
        Tile *t = all_tiles + n;
        t->first = first + n * TILE;
        t->queries = least(TILE, last - t->first);
        t->vecs = t->queries > W ? VECS : 1;
        t->q = memory + n * vectors(p);
        t->out = t->q + p->head * VECS;
        t->top = t->out + p->value * VECS;
        t->sum = t->top + VECS;
        begin(p, entry, t);
    }
    for (word low = 0, seen = least(p->keys, last + ahead); low < seen; low += KEYS) {
        word keys = least(KEYS, seen - low);
        Rows k = rows_of(&p->k, entry, low, keys, p->head, k_spare);
        Rows v = rows_of(&p->v, entry, low, keys, p->value, v_spare);
        for (Tile *t = all_tiles; t < all_tiles + tiles; t++) {
            word some = least(keys, t->first + t->queries + ahead - low);
            if (some > 0 && t->vecs == VECS)
                meet(p, entry, t, VECS, low, some, k, v, z, more);
            else if (some > 0)
                meet(p, entry, t, 1, low, some, k, v, z, more);
        }
    }
    for (word n = 0; n < tiles; n++)
        end(p, entry, all_tiles + n);
}

/* How many queries are worked on at a time; blocks are best multiples of it. */
EXPORT word attention_tile(void) { return TILE; }

/* Bytes of memory that a thread needs. */
EXPORT word attention_memory(const Problem *p) {
    word vecs = tiles_of(p->block) * vectors(p) + 2 * KEYS * VECS;
    return sizeof(vec) * (vecs + 1) + sizeof(float) * KEYS * (p->head + p->value);
}

/* Blocks `low` to `high` of all batch entries, numbered through. */
EXPORT void attention(const Problem *p, char *memory, word low, word high) {
    word blocks = (p->queries + p->block - 1) / p->block;
    memory += -(uintptr_t)memory % sizeof(vec);
    for (word n = low; n < high; n++)
        block(p, n / blocks, n % blocks * p->block, (vec *)memory);
}
