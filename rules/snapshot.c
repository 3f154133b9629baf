/* Immutable configuration states that share their rows; see snapshot.h. */
#include "rules/snapshot.h"

#include <errno.h>
#include <string.h>

struct snapshot *snapshot_new(void)
{
	struct snapshot *snapshot = calloc(1, sizeof(*snapshot));

	if (snapshot)
		snapshot->references = 1;
	return snapshot;
}

struct snapshot *snapshot_ref(struct snapshot *snapshot)
{
	snapshot->references++;
	return snapshot;
}

void snapshot_unref(struct snapshot *snapshot)
{
	if (!snapshot || --snapshot->references > 0)
		return;
	for (size_t i = 0; i < RESOURCES; i++)
		rows_clear(&snapshot->rows[i]);
	free(snapshot);
}

struct snapshot *snapshot_edit(const struct snapshot *from, int64_t revision)
{
	struct snapshot *copy = snapshot_new();

	if (!copy)
		return NULL;
	copy->revision = revision;
	for (size_t i = 0; i < RESOURCES; i++)
		if (rows_share(&copy->rows[i], &from->rows[i]) < 0) {
			snapshot_unref(copy);
			return NULL;
		}
	return copy;
}

/* Index of the first row whose name is not less than `name`. */
static size_t lower_bound(const struct rows *rows, const char *name)
{
	size_t low = 0, high = rows->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(row_name(rows->items[middle]), name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool is_at(const struct rows *rows, size_t index, const char *name)
{
	return index < rows->n && strcmp(row_name(rows->items[index]), name) == 0;
}

int snapshot_put(struct snapshot *snapshot, struct row *row)
{
	struct rows *rows = &snapshot->rows[row->resource];
	size_t at = lower_bound(rows, row_name(row));
	struct row *old;

	if (!is_at(rows, at, row_name(row)))
		return rows_insert(rows, at, row_ref(row));
	old = rows->items[at];
	rows->items[at] = row_ref(row);
	row_unref(old);
	return 0;
}

int snapshot_remove(struct snapshot *snapshot, enum resource_id resource, const char *name)
{
	struct rows *rows = &snapshot->rows[resource];
	size_t at = lower_bound(rows, name);
	struct row *old;

	if (!is_at(rows, at, name))
		return -ENOENT;
	old = rows->items[at];
	memmove(rows->items + at, rows->items + at + 1, (rows->n - at - 1) * sizeof(*rows->items));
	rows->n--;
	row_unref(old); /* last: `name` may point into the row */
	return 0;
}

struct row *snapshot_find(const struct snapshot *snapshot, enum resource_id resource, const char *name)
{
	const struct rows *rows = &snapshot->rows[resource];
	size_t at = lower_bound(rows, name);

	return is_at(rows, at, name) ? rows->items[at] : NULL;
}

size_t snapshot_after(const struct snapshot *snapshot, enum resource_id resource, const char *after)
{
	const struct rows *rows = &snapshot->rows[resource];
	size_t at = after ? lower_bound(rows, after) : 0;

	return after && is_at(rows, at, after) ? at + 1 : at;
}

const struct settings *snapshot_settings(const struct snapshot *snapshot)
{
	static struct row *initial; /* one for the process, never freed */

	if (snapshot->rows[RESOURCE_SETTINGS].n)
		return (const struct settings *)snapshot->rows[RESOURCE_SETTINGS].items[0];
	if (!initial)
		initial = row_new(RESOURCE_SETTINGS);
	return (const struct settings *)initial;
}
