/* See array.h. */
#include "gatewayd/base/array.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int array_reserve(void *items, size_t *size, size_t need, size_t item_size)
{
	size_t wanted = *size ? *size : 4;
	void *grown, *old;

	if (need <= *size)
		return 0;
	while (wanted < need)
		wanted *= 2;
	memcpy(&old, items, sizeof(old));
	grown = reallocarray(old, wanted, item_size);
	if (!grown)
		return -ENOMEM;
	memcpy(items, &grown, sizeof(grown));
	*size = wanted;
	return 0;
}

bool words_have(const char *const *words, size_t n, const char *word)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(words[i], word) == 0)
			return true;
	return false;
}
