/* Objects by row id; see names.h. */
#include "gatewayd/names.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
	uint32_t x = ((const struct name *)a)->id, y = ((const struct name *)b)->id;

	return x < y ? -1 : x > y;
}

void names_clear(struct names *names)
{
	for (unsigned kind = 0; kind < STATS_SLOT_KINDS; kind++)
		free(names->items[kind]);
	if (names->snapshot)
		snapshot_unref(names->snapshot);
	*names = (struct names){ 0 };
}

static void add(struct names *names, enum stats_kind kind, const struct row *row, const struct upstream *upstream)
{
	names->items[kind][names->n[kind]++] = (struct name){ (uint32_t)row->id, row, upstream };
}

static int reserve(struct names *names, enum stats_kind kind, size_t n)
{
	names->items[kind] = calloc(n + 1, sizeof(struct name));
	return names->items[kind] ? 0 : -ENOMEM;
}

static int fill(struct names *names)
{
	const struct rows *upstreams = &names->snapshot->rows[RESOURCE_UPSTREAM];
	const struct rows *listeners = &names->snapshot->rows[RESOURCE_LISTENER];
	const struct rows *limits = &names->snapshot->rows[RESOURCE_RATE_LIMIT];
	size_t targets = 0;

	for (size_t i = 0; i < upstreams->n; i++)
		targets += ((const struct upstream *)upstreams->items[i])->targets.n;
	if (reserve(names, STATS_LISTENER, listeners->n) < 0 || reserve(names, STATS_UPSTREAM, upstreams->n) < 0 ||
	        reserve(names, STATS_TARGET, targets) < 0 || reserve(names, STATS_LIMIT, limits->n) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < listeners->n; i++)
		add(names, STATS_LISTENER, listeners->items[i], NULL);
	for (size_t i = 0; i < limits->n; i++)
		add(names, STATS_LIMIT, limits->items[i], NULL);
	for (size_t i = 0; i < upstreams->n; i++) {
		const struct upstream *upstream = (const struct upstream *)upstreams->items[i];

		add(names, STATS_UPSTREAM, &upstream->row, NULL);
		for (size_t j = 0; j < upstream->targets.n; j++)
			add(names, STATS_TARGET, upstream->targets.items[j], upstream);
	}
	for (unsigned kind = 0; kind < STATS_SLOT_KINDS; kind++)
		qsort(names->items[kind], names->n[kind], sizeof(struct name), compare);
	return 0;
}

int names_follow(struct names *names, const struct snapshot *snapshot)
{
	int r;

	if (names->snapshot == snapshot)
		return 0;
	names_clear(names);
	names->snapshot = snapshot_ref((struct snapshot *)snapshot);
	r = fill(names);
	if (r < 0)
		names_clear(names);
	return r;
}

const struct name *names_find(const struct names *names, enum stats_kind kind, uint32_t id)
{
	const struct name key = { .id = id };

	return names->n[kind] ? bsearch(&key, names->items[kind], names->n[kind], sizeof(key), compare) : NULL;
}

const char *names_target(const struct target *target, char buffer[NAMES_TARGET_MAX])
{
	bool v6 = strchr(target->address, ':') != NULL;

	snprintf(buffer, NAMES_TARGET_MAX, v6 ? "[%s]:%u" : "%s:%u", target->address, (unsigned)target->port);
	return buffer;
}

bool names_has_histograms(enum stats_kind kind, const struct name *name)
{
	return kind < (enum stats_kind)STATS_OWN_KINDS &&
	       (kind != STATS_LISTENER || ((const struct listener *)name->row)->protocol != PROTOCOL_UDP);
}
