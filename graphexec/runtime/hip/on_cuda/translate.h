/* What the four libraries share: symbols to export, and enumerations translated by tables. */
#ifndef TRANSLATE_H
#define TRANSLATE_H

#include <stdbool.h>
#include <stddef.h>

#define EXPORT __attribute__((visibility("default")))
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

typedef struct {
    int hip, cuda;
} Pair;

static inline bool find_pair(const Pair *table, size_t length, int hip, int *cuda)
{
    for (size_t i = 0; i < length; i++) {
        if (table[i].hip == hip) {
            *cuda = table[i].cuda;
            return true;
        }
    }
    return false;
}

static inline bool find_pair_back(const Pair *table, size_t length, int cuda, int *hip)
{
    for (size_t i = 0; i < length; i++) {
        if (table[i].cuda == cuda) {
            *hip = table[i].hip;
            return true;
        }
    }
    return false;
}

#define TO_CUDA(table, hip, cuda) find_pair(table, LENGTH(table), (int)(hip), cuda)
#define TO_HIP(table, cuda, hip) find_pair_back(table, LENGTH(table), (int)(cuda), hip)

#endif
