/*
 * The core's memory: revisions, what differs between them, the way back to
 * any of them, the audit log and the copy of the database. See webapi/core.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gatewayd/base/log.h"
#include "gatewayd/changeset.h"
#include "gatewayd/core.h"
#include "gatewayd/store_history.h"
#include "schema/change.h"
#include "schema/value.h"

/* RFC 3339 in UTC. */
static json_t *json_time(int64_t seconds)
{
	char text[32];

	return json_string(value_time_format(seconds, text));
}

/* ---- revisions ---- */

static json_t *revision_json(const struct store_revision *revision)
{
	return json_pack("{s:I, s:o, s:s, s:s, s:s?}", "revision", (json_int_t)revision->n, "created_at",
	        json_time(revision->created_at), "actor", revision->actor, "summary", revision->summary, "config_hash",
	        revision->config_hash);
}

static int add_revision(void *userdata, const struct store_revision *revision)
{
	return json_array_append_new(userdata, revision_json(revision)) < 0 ? -ENOMEM : 0;
}

int core_revisions(struct core *core, int64_t before, size_t max, json_t **ret)
{
	json_t *array = json_array();
	int r;

	if (!array)
		return -ENOMEM;
	r = store_history_revisions(core->store, before, max, add_revision, array);
	if (r < 0) {
		json_decref(array);
		return r;
	}
	*ret = array;
	return 0;
}

/* ---- the past ---- */

/* A row on the way back through the history. */
struct past_row {
	enum resource_id resource;
	char name[NAME_MAX_BYTES + 1];
	struct row *row;  /* as it was where the walk stands; NULL: not there */
	struct row *late; /* as it was at the later of the two revisions */
	bool differs;     /* changed between the two */
};

/* A walk from the configuration in force back to revision `early`, with a look around at revision `late`. */
struct past {
	struct core *core;
	int64_t late;
	json_t *index; /* "resource name" -> position in rows */
	struct past_row *rows;
	size_t n, capacity;
	struct errs *errs;
};

static void past_clear(struct past *past)
{
	for (size_t i = 0; i < past->n; i++) {
		row_unref(past->rows[i].row);
		row_unref(past->rows[i].late);
	}
	free(past->rows);
	json_decref(past->index);
}

static int past_grow(struct past *past)
{
	size_t capacity = past->capacity ? 2 * past->capacity : 64;
	struct past_row *rows;

	if (past->n < past->capacity)
		return 0;
	rows = reallocarray(past->rows, capacity, sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	past->rows = rows;
	past->capacity = capacity;
	return 0;
}

/* The row's place on the walk; seen for the first time it is as it is now. */
static int past_find(struct past *past, const struct resource *resource, const char *name, struct past_row **ret)
{
	char key[192];
	json_t *position;
	struct row *now;

	snprintf(key, sizeof(key), "%s %s", resource->name, name);
	position = json_object_get(past->index, key);
	if (position) {
		*ret = &past->rows[json_integer_value(position)];
		return 0;
	}
	if (past_grow(past) < 0 || json_object_set_new(past->index, key, json_integer((json_int_t)past->n)) < 0)
		return -ENOMEM;
	now = (struct row *)core_find(past->core, resource->id, name);
	*ret = &past->rows[past->n++];
	**ret = (struct past_row){ .resource = resource->id, .row = now ? row_ref(now) : NULL };
	snprintf((*ret)->name, sizeof((*ret)->name), "%s", name);
	return 0;
}

static int past_undo(void *userdata, const struct store_change *change)
{
	const struct resource *resource = resource_by_name(change->resource);
	struct past *past = userdata;
	struct past_row *place;
	struct row *before = NULL;
	int r;

	if (!resource)
		return 0; /* of a kind that is no more */
	r = past_find(past, resource, change->name, &place);
	if (r < 0)
		return r;
	if (change->revision <= past->late && !place->differs) {
		place->differs = true;
		place->late = place->row ? row_ref(place->row) : NULL;
	}
	if (change->before)
		r = change_undo(
		        resource->id, change->name, place->row, change->before, change->after, past->errs, &before);
	if (r < 0)
		return r;
	row_unref(place->row);
	place->row = before;
	return 0;
}

/* Walks back from now to revision early. -ENOENT: out of reach. */
static int past_walk(struct past *past, int64_t early)
{
	past->index = json_object();
	if (!past->index)
		return -ENOMEM;
	return store_history_changes(past->core->store, early, core_revision(past->core), past_undo, past);
}

static int show_row(const struct past_row *place, bool backward, json_t *array)
{
	const struct row *before = backward ? place->late : place->row;
	const struct row *after = backward ? place->row : place->late;

	if (!place->differs || (!before && !after) || (before && after && row_equal(before, after)))
		return 0;
	return json_array_append_new(array, changeset_json_rows(before, after)) < 0 ? -ENOMEM : 0;
}

int core_revision_diff(struct core *core, int64_t from, int64_t to, json_t **ret)
{
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_(past_clear) struct past past = { .core = core, .late = from > to ? from : to, .errs = &errs };
	json_t *array = NULL;
	int r = past.late > core_revision(core) ? -ENOENT : past_walk(&past, from > to ? to : from);

	if (r == 0) {
		array = json_array();
		r = array ? 0 : -ENOMEM;
	}
	for (size_t i = 0; r == 0 && i < past.n; i++)
		r = show_row(&past.rows[i], from > to, array);
	if (r < 0)
		json_decref(array);
	else
		*ret = array;
	return r;
}

/* The configuration before the first change is nobody's work: there as long as the history reaches back to it. */
static int revision_zero(struct core *core, json_t **ret)
{
	json_t *none = NULL;
	int r = core_revision_diff(core, 0, 0, &none);

	if (r < 0)
		return r;
	*ret = json_pack("{s:i, s:n, s:s, s:s, s:n, s:o}", "revision", 0, "created_at", "actor", "", "summary",
	        "the empty configuration", "config_hash", "changes", none);
	return *ret ? 0 : -ENOMEM;
}

int core_revision_get(struct core *core, int64_t revision, json_t **ret)
{
	json_t *list = NULL, *changes = NULL, *found;
	int r;

	if (revision == 0)
		return revision_zero(core, ret);
	r = core_revisions(core, revision + 1, 1, &list);
	if (r < 0)
		return r;
	found = json_incref(json_array_get(list, 0));
	json_decref(list);
	if (!found || json_integer_value(json_object_get(found, "revision")) != revision) {
		json_decref(found);
		return -ENOENT;
	}
	r = core_revision_diff(core, revision - 1, revision, &changes);
	if (r == 0 && json_object_set_new(found, "changes", changes) < 0)
		r = -ENOMEM;
	if (r < 0)
		json_decref(found);
	else
		*ret = found;
	return r;
}

/* ---- the way back ---- */

/* The changes that lead from the configuration in force to what the walk has found; they borrow from it. */
static size_t way_back(struct past *past, struct core_change *changes)
{
	size_t n = 0;

	for (size_t i = 0; i < past->n; i++) {
		const struct past_row *place = &past->rows[i];

		if (!place->row && !core_find(past->core, place->resource, place->name))
			continue;
		changes[n++] = (struct core_change){ .operation = place->row ? CORE_PUT : CORE_DELETE,
			.resource = place->resource,
			.name = place->name,
			.row = place->row };
	}
	return n;
}

/* After a way back that had nothing to do in the configuration the mark is still there. */
static int settle(struct core *core)
{
	static const struct core_pending none = { 0 };
	int r = store_meta_set(core->store, APPLY_PENDING_KEY, NULL);

	if (r == 0)
		core_set_pending(core, &none);
	return r;
}

int core_rollback(struct core *core, int64_t revision, const struct core_request *request, struct errs *errs,
        struct core_result *ret)
{
	_cleanup_(past_clear) struct past past = { .core = core, .late = core_revision(core), .errs = errs };
	_cleanup_free_ struct core_change *changes = NULL;
	struct core_request back = *request;
	int r;

	back.way_back = true;
	if (revision < 0 || revision > core_revision(core)) {
		errs_add(errs, "", "not_found", "There is no revision %lld.", (long long)revision);
		return -ENOENT;
	}
	r = past_walk(&past, revision);
	if (r == -ENOENT)
		errs_add(errs, "", "not_found", "Revision %lld is not in the history any more.", (long long)revision);
	if (r < 0)
		return r;
	changes = calloc(past.n + 1, sizeof(*changes));
	if (!changes)
		return -ENOMEM;
	r = core_write_unguarded(core, changes, way_back(&past, changes), &back, errs, ret);
	if (r == 0 && !ret->changed && !request->dry_run)
		r = settle(core);
	return r;
}

/* ---- audit and copy ---- */

struct store_audit core_audit_line(const struct core_audit *entry)
{
	return (struct store_audit){ .actor = entry->actor,
		.method = entry->method,
		.path = entry->path,
		.status = entry->status,
		.revision = entry->revision,
		.detail = entry->detail };
}

void core_audit(struct core *core, const struct core_audit *entry)
{
	struct store_audit line = core_audit_line(entry);

	if (store_audit_append(core->store, &line) < 0)
		log_warning("the audit log cannot be written: %s", store_error(core->store));
}

static int add_audit(void *userdata, const struct store_audit *entry)
{
	json_t *line = json_pack("{s:I, s:o, s:s, s:s, s:s, s:I, s:o, s:s}", "id", (json_int_t)entry->id, "at",
	        json_time(entry->at), "actor", entry->actor, "method", entry->method, "path", entry->path, "status",
	        (json_int_t)entry->status, "revision",
	        entry->revision > 0 ? json_integer((json_int_t)entry->revision) : json_null(), "detail", entry->detail);

	return json_array_append_new(userdata, line) < 0 ? -ENOMEM : 0;
}

int core_audit_list(struct core *core, int64_t before, size_t max, json_t **ret)
{
	json_t *array = json_array();
	int r;

	if (!array)
		return -ENOMEM;
	r = store_audit_list(core->store, before, max, add_audit, array);
	if (r < 0) {
		json_decref(array);
		return r;
	}
	*ret = array;
	return 0;
}

int core_backup(struct core *core, const char *path)
{
	return store_backup(core->store, path);
}
