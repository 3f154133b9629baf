/*
 * A core for tests of webapi: rows in memory, nothing applied anywhere. It
 * defines the functions of webapi/core.h, so a test that includes it does not
 * link the real one.
 */
#ifndef GW_TESTS_FAKE_CORE_H
#define GW_TESTS_FAKE_CORE_H

#include <errno.h>
#include <string.h>

#include "webapi/core.h"

#define FAKE_ROWS_MAX 2048

struct core {
	struct row *rows[FAKE_ROWS_MAX]; /* sorted by name */
	size_t n;
	int64_t revision;
	unsigned calls; /* of core_write */
	int fail;       /* what the next writes return, with a fault */
	bool ready;
	size_t ruleset_bytes;
	char actor[64];      /* of the last write */
	int64_t if_revision; /* of the last write */
};

static inline void fake_core_clear(struct core *core)
{
	for (size_t i = 0; i < core->n; i++)
		row_unref(core->rows[i]);
	*core = (struct core){ 0 };
}

static inline size_t fake_index(struct core *core, enum resource_id resource, const char *name)
{
	for (size_t i = 0; i < core->n; i++)
		if (core->rows[i]->resource == resource && !strcmp(row_name(core->rows[i]), name))
			return i;
	return core->n;
}

const struct row *core_find(struct core *core, enum resource_id resource, const char *name)
{
	size_t i = fake_index(core, resource, name);

	return i < core->n ? core->rows[i] : NULL;
}

static inline void fake_remove(struct core *core, size_t at)
{
	row_unref(core->rows[at]);
	memmove(&core->rows[at], &core->rows[at + 1], (core->n - at - 1) * sizeof(*core->rows));
	core->n--;
}

static inline void fake_insert(struct core *core, struct row *row)
{
	size_t at = 0;

	while (at < core->n && strcmp(row_name(core->rows[at]), row_name(row)) < 0)
		at++;
	memmove(&core->rows[at + 1], &core->rows[at], (core->n - at) * sizeof(*core->rows));
	core->rows[at] = row;
	core->n++;
}

int core_write(struct core *core, const struct core_write *write, struct errs *errs, struct core_result *ret)
{
	size_t at = fake_index(core, write->resource, write->name);
	bool exists = at < core->n;

	core->calls++;
	core->if_revision = write->if_revision;
	snprintf(core->actor, sizeof(core->actor), "%s", write->actor);
	if (core->fail) {
		errs_add(errs, "/ports/0", "overlap", "the port is taken by \"other\"");
		return core->fail;
	}
	if (write->operation == CORE_CREATE && exists)
		return -EEXIST;
	if (write->operation == CORE_DELETE && !exists)
		return -ENOENT;
	if ((write->if_revision == -1 && exists) ||
	        (write->if_revision > 0 && (!exists || core->rows[at]->revision != write->if_revision)))
		return -ESTALE;
	if (exists)
		fake_remove(core, at);
	core->revision++;
	if (write->operation != CORE_DELETE) {
		write->row->revision = core->revision;
		fake_insert(core, row_ref(write->row));
	}
	*ret = (struct core_result){ .revision = core->revision, .created = !exists };
	return 0;
}

size_t core_list(struct core *core, enum resource_id resource, const char *after, size_t max, const struct row **ret)
{
	size_t n = 0;

	for (size_t i = 0; i < core->n && n < max; i++)
		if (core->rows[i]->resource == resource && (!after || strcmp(row_name(core->rows[i]), after) > 0))
			ret[n++] = core->rows[i];
	return n;
}

size_t core_count(struct core *core, enum resource_id resource)
{
	size_t n = 0;

	for (size_t i = 0; i < core->n; i++)
		n += core->rows[i]->resource == resource;
	return n;
}

int64_t core_revision(struct core *core)
{
	return core->revision;
}

json_t *core_status(struct core *core)
{
	return json_pack("{s:I}", "revision", (json_int_t)core->revision);
}

int core_ready(struct core *core)
{
	return core->ready;
}

int core_ruleset(struct core *core, bool desired, char **ret_text)
{
	size_t length = core->ruleset_bytes ? core->ruleset_bytes : 8;
	char *text;

	if (core->fail)
		return core->fail;
	text = malloc(length + 1);
	if (!text)
		return -ENOMEM;
	memset(text, desired ? 'd' : 'a', length);
	text[length] = '\0';
	*ret_text = text;
	return 0;
}

#endif
