/* Groups and lists of elements: their order; see plan.h. */
#include "rules/plan.h"

#include <stdlib.h>

int group_compare(const struct group *a, const struct group *b)
{
	int order = match_shape_compare(&a->shape, &b->shape);

	if (order == 0)
		order = (a->verdict > b->verdict) - (a->verdict < b->verdict);
	if (order == 0)
		order = (a->port_lo > b->port_lo) - (a->port_lo < b->port_lo);
	return order ? order : (a->port_hi > b->port_hi) - (a->port_hi < b->port_hi);
}

bool group_is_interval(const struct group *group)
{
	return group->shape.port_kind == MATCH_PORT_RANGE && group->port_hi == 0;
}

int group_compare_items(const void *a, const void *b)
{
	return group_compare(a, b);
}

bool group_is_in(const struct group *groups, size_t n, const struct group *group)
{
	for (size_t i = 0; i < n; i++)
		if (group_compare(&groups[i], group) == 0)
			return true;
	return false;
}

struct group element_group(const struct element *element)
{
	return (struct group){ .shape = element->key.shape,
		.verdict = (uint8_t)(element->limited ? VERDICT_LIMITED : element->verdict),
		.port_lo = element->own_range ? element->key.port_lo : 0,
		.port_hi = element->own_range ? element->key.port_hi : 0 };
}

int element_compare(const struct element *a, const struct element *b)
{
	struct group one = element_group(a), other = element_group(b);
	int order = group_compare(&one, &other);

	if (order == 0)
		order = match_key_compare(&a->key, &b->key);
	if (order == 0 && a->limited)
		order = (a->listener > b->listener) - (a->listener < b->listener);
	return order;
}

static int compare_items(const void *a, const void *b)
{
	return element_compare(a, b);
}

void elements_sort(struct elements *elements)
{
	if (elements->n > 1)
		qsort(elements->items, elements->n, sizeof(*elements->items), compare_items);
}

size_t elements_run(const struct elements *elements, size_t at)
{
	struct group first = element_group(&elements->items[at]), next;
	size_t end = at;

	do {
		if (++end == elements->n)
			break;
		next = element_group(&elements->items[end]);
	} while (group_compare(&first, &next) == 0);
	return end - at;
}
