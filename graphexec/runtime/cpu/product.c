/* out = a · b in f32, where b lies in panels of PANEL columns: of each panel its rows one after the
other. packed_gemm.py compiles this and packs b.

A tile of out is ROWS × PANEL sums in registers (Goto and van de Geijn 2008, ACM TOMS 34(3)). Every
sum runs over k in order: what an element is depends neither on the size of out nor on how the work
is split. */

#include <stddef.h>
#include <string.h>

#if defined(__AVX512F__)
enum { W = 16, ROWS = 12, VECS = 2 };
#elif defined(__AVX__)
enum { W = 8, ROWS = 6, VECS = 2 };
#elif defined(__aarch64__)
enum { W = 4, ROWS = 6, VECS = 4 };
#else
enum { W = 4, ROWS = 3, VECS = 4 };
#endif
enum { PANEL = W * VECS, DEPTH = 2048 /* of a panel that stays in the L2 cache */ };

typedef float vec __attribute__((vector_size(4 * W), aligned(4)));
typedef ptrdiff_t word;
#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

typedef struct {
    const float *a;    /* (rows, depth) */
    const float *b;    /* panels */
    float *out;        /* (rows, columns) */
    const float *bias; /* (columns), or NULL */
    word columns, depth, a_row, out_row;
    float alpha;
} Product;

EXPORT word product_panel(void) { return PANEL; }

/* A tile of alpha · a · b + bias, over k from `from` to `to`. Sums that do not end there wait in out.
`rows` is known where this is inlined. */
INLINE void tile(const Product *p, const int rows, word first, word panel, word from, word to) {
    const float *a = p->a + first * p->a_row, *b = p->b + panel * PANEL * p->depth;
    word low = panel * PANEL, count = p->columns - low < PANEL ? p->columns - low : PANEL;
    float *out = p->out + first * p->out_row + low;
    vec sums[ROWS][VECS] = {0}, bias[VECS] = {0};
    for (int i = 0; i < rows; i++)
        if (from)
            memcpy(sums[i], out + i * p->out_row, count * sizeof(float));
    for (word k = from; k < to; k++)
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < VECS; j++)
                sums[i][j] += ((const vec *)(b + k * PANEL))[j] * a[i * p->a_row + k];
    if (to == p->depth && p->bias)
        memcpy(bias, p->bias + low, count * sizeof(float));
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < VECS && to == p->depth; j++)
            sums[i][j] = sums[i][j] * p->alpha + bias[j];
        memcpy(out + i * p->out_row, sums[i], count * sizeof(float));
    }
}

static void some_rows(const Product *p, word rows, word first, word panel, word from, word to) {
    switch (rows) {
#define CASE(n)                                                                                  \
    case n:                                                                                      \
        if (n <= ROWS)                                                                           \
            tile(p, n, first, panel, from, to);                                                  \
        return;
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
    }
}

/* Rows `first` to `end` of panels `low` to `high`. */
EXPORT void product(const Product *p, word first, word end, word low, word high) {
    for (word panel = low; panel < high; panel++)
        for (word from = 0; from < p->depth; from += DEPTH) {
            word to = p->depth - from < DEPTH ? p->depth : from + DEPTH;
            for (word row = first; row < end; row += ROWS)
                some_rows(p, end - row < ROWS ? end - row : ROWS, row, panel, from, to);
        }
}

/* All of it with other threads: each takes the next panel of `block` rows, by the counter `next`. */
EXPORT void product_shared(const Product *p, word rows, word block, word *next) {
    word panels = (p->columns + PANEL - 1) / PANEL, units = (rows + block - 1) / block * panels;
    word unit;
    while ((unit = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED)) < units) {
        word first = unit / panels * block, end = first + block < rows ? first + block : rows;
        product(p, first, end, unit % panels, unit % panels + 1);
    }
}
