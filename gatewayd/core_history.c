/*
 * The core's memory: revisions, what differs between them, the way back to
 * any of them, the audit log and the copy of the database. See webapi/core.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "gatewayd/base/log.h"
#include "gatewayd/changeset.h"
#include "gatewayd/core.h"
#include "gatewayd/store_history.h"
#include "schema/decode.h"
#include "schema/encode.h"

/* RFC 3339 in UTC. */
static json_t *json_time(int64_t seconds)
{
	time_t at = (time_t)seconds;
	struct tm utc;
	char text[32];

	if (!gmtime_r(&at, &utc) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
		return json_null();
	return json_string(text);
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

/* ---- what differs ---- */

/* The first word of each row's JSON on the way from a later revision back to an earlier one, by "resource name". */
struct difference {
	json_t *rows; /* key -> {resource, name, before, after} */
};

static json_t *parse(const char *text)
{
	return text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : json_null();
}

/* Walking backward: the after of the first visit is that of the end, the before of the last visit that of the start. */
static int add_change(void *userdata, const struct store_change *change)
{
	struct difference *difference = userdata;
	char key[192];
	json_t *entry;

	snprintf(key, sizeof(key), "%s %s", change->resource, change->name);
	entry = json_object_get(difference->rows, key);
	if (!entry) {
		entry = json_pack("{s:s, s:s, s:o}", "resource", change->resource, "name", change->name, "after",
		        parse(change->after));
		if (json_object_set_new(difference->rows, key, entry) < 0)
			return -ENOMEM;
	}
	return json_object_set_new(entry, "before", parse(change->before)) < 0 ? -ENOMEM : 0;
}

/* A new reference, or NULL for JSON null. */
static json_t *value_or_none(json_t *entry, const char *key)
{
	json_t *value = json_object_get(entry, key);

	return json_is_null(value) ? NULL : json_incref(value);
}

/* The rows that differ between two revisions, from < to. */
static int find_difference(struct core *core, int64_t from, int64_t to, json_t **ret)
{
	struct difference difference = { json_object() };
	int r;

	if (!difference.rows)
		return -ENOMEM;
	r = store_history_changes(core->store, from, to, add_change, &difference);
	if (r < 0) {
		json_decref(difference.rows);
		return r;
	}
	*ret = difference.rows;
	return 0;
}

/* As the API shows it; backward swaps before and after. */
static int show_difference(json_t *rows, bool backward, json_t **ret)
{
	json_t *array = json_array(), *entry;
	const char *key;

	json_object_foreach(rows, key, entry)
	{
		const struct resource *resource =
		        resource_by_name(json_string_value(json_object_get(entry, "resource")));
		json_t *before = value_or_none(entry, backward ? "after" : "before");
		json_t *after = value_or_none(entry, backward ? "before" : "after");

		if (!resource || (!before && !after) || (before && after && json_equal(before, after))) {
			json_decref(before);
			json_decref(after);
			continue;
		}
		if (json_array_append_new(
		            array, changeset_json_item(resource, json_string_value(json_object_get(entry, "name")),
		                           before, after)) < 0) {
			json_decref(array);
			return -ENOMEM;
		}
	}
	*ret = array;
	return array ? 0 : -ENOMEM;
}

int core_revision_diff(struct core *core, int64_t from, int64_t to, json_t **ret)
{
	bool backward = from > to;
	json_t *rows;
	int r;

	r = find_difference(core, backward ? to : from, backward ? from : to, &rows);
	if (r < 0)
		return r;
	r = show_difference(rows, backward, ret);
	json_decref(rows);
	return r;
}

int core_revision_get(struct core *core, int64_t revision, json_t **ret)
{
	json_t *list = NULL, *changes = NULL, *found;
	int r;

	if (revision < 1)
		return -ENOENT;
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

/* The changes that make rows what they were before; rows[i] owns changes[i].row. */
struct way_back {
	struct core_change *changes;
	struct row **rows;
	size_t n;
};

static void way_back_clear(struct way_back *way)
{
	for (size_t i = 0; i < way->n; i++)
		row_unref(way->rows[i]);
	free(way->changes);
	free(way->rows);
}

static int add_step(struct way_back *way, struct core *core, json_t *entry, struct errs *errs)
{
	const struct resource *resource = resource_by_name(json_string_value(json_object_get(entry, "resource")));
	const char *name = json_string_value(json_object_get(entry, "name"));
	json_t *before = json_object_get(entry, "before");
	struct core_change change = { .operation = CORE_DELETE, .name = name };
	struct row *row = NULL;
	int r;

	if (!resource)
		return 0; /* of a kind that is no more */
	change.resource = resource->id;
	if (json_is_null(before)) {
		if (!core_find(core, resource->id, name))
			return 0;
	} else {
		r = decode_row(resource, before, name, errs, &row);
		if (r < 0)
			return r;
		change.operation = CORE_PUT;
		change.row = row;
	}
	way->rows[way->n] = row;
	way->changes[way->n++] = change;
	return 0;
}

static int find_way_back(struct core *core, json_t *rows, struct errs *errs, struct way_back *ret)
{
	json_t *entry;
	const char *key;
	int r = 0;

	ret->changes = calloc(json_object_size(rows) + 1, sizeof(*ret->changes));
	ret->rows = calloc(json_object_size(rows) + 1, sizeof(*ret->rows));
	if (!ret->changes || !ret->rows)
		return -ENOMEM;
	json_object_foreach(rows, key, entry)
	{
		r = add_step(ret, core, entry, errs);
		if (r < 0)
			break;
	}
	return r;
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
	_cleanup_(way_back_clear) struct way_back way = { 0 };
	json_t *rows = NULL;
	int r;

	if (revision < 0 || revision > core_revision(core)) {
		errs_add(errs, "", "not_found", "There is no revision %lld.", (long long)revision);
		return -ENOENT;
	}
	r = find_difference(core, revision, core_revision(core), &rows);
	if (r == -ENOENT)
		errs_add(errs, "", "not_found", "Revision %lld is not in the history any more.", (long long)revision);
	if (r == 0)
		r = find_way_back(core, rows, errs, &way);
	if (r == 0)
		r = core_write_unguarded(core, way.changes, way.n, request, errs, ret);
	json_decref(rows);
	if (r == 0 && !ret->changed && !request->dry_run)
		r = settle(core);
	return r;
}

/* ---- audit and copy ---- */

void core_audit(struct core *core, const struct core_audit *entry)
{
	struct store_audit line = { .actor = entry->actor,
		.method = entry->method,
		.path = entry->path,
		.status = entry->status,
		.revision = entry->revision,
		.detail = entry->detail };

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
