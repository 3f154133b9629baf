/* Arrays: that grow, and of words. */
#ifndef GW_BASE_ARRAY_H
#define GW_BASE_ARRAY_H

#include <stdbool.h>
#include <stddef.h>

/* Makes *items (of item_size bytes each) hold at least `need`; 0 or -ENOMEM. */
int array_reserve(void *items, size_t *size, size_t need, size_t item_size);

/* Whether one of n words is this one. */
bool words_have(const char *const *words, size_t n, const char *word);

#endif
