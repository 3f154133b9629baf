/*
 * A core for tests of webapi: rows in memory, nothing applied anywhere. It
 * defines the functions of webapi/core.h, so a test that includes it does not
 * link the real one.
 */
#ifndef GW_TESTS_FAKE_CORE_H
#define GW_TESTS_FAKE_CORE_H

#include <errno.h>
#include <string.h>

#include "schema/encode.h"
#include "webapi/core.h"

#define FAKE_ROWS_MAX  2048
#define FAKE_AUDIT_MAX 64

struct core {
	struct row *rows[FAKE_ROWS_MAX]; /* sorted by name */
	size_t n;
	int64_t revision;
	unsigned calls;    /* of core_write */
	int fail;          /* what the next writes return, with a fault */
	int relay_restart; /* what core_relay_restart returns */
	bool ready;
	size_t ruleset_bytes;
	char actor[64];      /* of the last write */
	char summary[192];   /* of the last write */
	int64_t if_revision; /* of the last write's first change */
	size_t n_changes;    /* of the last write */
	bool warn;           /* answer each write with two warnings */
	int64_t pending;     /* revision that waits for its confirmation; 0: none */
	int64_t confirmed, rolled_back_to;
	unsigned ordered; /* times that a target was told something */
	struct core_target_order order;
	char ordered_target[64];
	unsigned audited; /* entries of the audit log, the last of them kept as text */
	char audit[FAKE_AUDIT_MAX][512];
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

void core_result_clear(struct core_result *result)
{
	json_decref(result->diff);
	json_decref(result->warnings);
	free(result->nft);
	*result = (struct core_result){ 0 };
}

/* What core_write would refuse about one change. */
static inline int fake_refusal(struct core *core, const struct core_change *change)
{
	size_t at = fake_index(core, change->resource, change->name);
	bool exists = at < core->n;

	if (change->operation == CORE_CREATE && exists)
		return -EEXIST;
	if (change->operation == CORE_DELETE && !exists)
		return -ENOENT;
	if ((change->if_revision == -1 && exists) ||
	        (change->if_revision > 0 && (!exists || core->rows[at]->revision != change->if_revision)))
		return -ESTALE;
	return 0;
}

static inline void fake_change(struct core *core, const struct core_change *change)
{
	size_t at = fake_index(core, change->resource, change->name);
	struct row *row;

	if (at < core->n)
		fake_remove(core, at);
	if (change->operation == CORE_DELETE)
		return;
	row = row_copy(change->row);
	row->revision = core->revision;
	fake_insert(core, row);
}

static inline json_t *fake_diff(const struct core_change *changes, size_t n)
{
	json_t *diff = json_array();

	for (size_t i = 0; i < n; i++) {
		char path[256];

		snprintf(path, sizeof(path), "/%s/%s", resource_get(changes[i].resource)->plural, changes[i].name);
		json_array_append_new(diff,
		        json_pack("{s:s, s:s, s:n, s:o*}", "op", changes[i].operation == CORE_DELETE ? "remove" : "add",
		                "path", path, "before", "after", changes[i].row ? encode_row(changes[i].row) : NULL));
	}
	return diff;
}

static inline void fake_note(struct core *core, const struct core_request *request)
{
	core->calls++;
	snprintf(core->actor, sizeof(core->actor), "%s", request->actor);
	snprintf(core->summary, sizeof(core->summary), "%s", request->summary);
}

static inline int fake_fail(struct core *core, const char *base, struct errs *errs)
{
	char pointer[128];

	snprintf(pointer, sizeof(pointer), "%s/ports/0", base);
	errs_add(errs, pointer, "overlap", "the port is taken by \"other\"");
	return core->fail;
}

static inline void fake_finish(struct core *core, const struct core_request *request, struct core_result *ret)
{
	ret->revision = core->revision;
	if (request->dry_run)
		ret->nft = strdup("add rule\n");
	else if (request->confirm_within_s)
		core->pending = core->revision;
	if (core->warn)
		ret->warnings = json_pack("[{s:s,s:s,s:s},{s:s,s:s,s:s}]", "code", "first", "detail",
		        "no limits\r\nX: y", "pointer", "/a", "code", "second", "detail", "d", "pointer", "");
}

int core_write(struct core *core, const struct core_change *changes, size_t n, const struct core_request *request,
        struct errs *errs, struct core_result *ret)
{
	int r = 0;

	fake_note(core, request);
	core->n_changes = n;
	core->if_revision = n ? changes[0].if_revision : 0;
	if (core->fail)
		return fake_fail(core, n && changes[0].pointer ? changes[0].pointer : "", errs);
	for (size_t i = 0; i < n && !r; i++)
		r = fake_refusal(core, &changes[i]);
	if (r)
		return r;
	*ret = (struct core_result){ .changed = n > 0,
		.created = n && fake_index(core, changes[0].resource, changes[0].name) == core->n };
	if (request->dry_run) {
		ret->diff = fake_diff(changes, n);
	} else if (n) {
		core->revision++;
		for (size_t i = 0; i < n; i++)
			fake_change(core, &changes[i]);
	}
	fake_finish(core, request, ret);
	return 0;
}

json_t *core_config(struct core *core)
{
	json_t *document = json_object();

	for (int id = 0; id < RESOURCES; id++) {
		const struct resource *resource = resource_get((enum resource_id)id);
		json_t *rows = resource->path ? json_array() : NULL;

		for (size_t i = 0; rows && i < core->n; i++)
			if (core->rows[i]->resource == resource->id)
				json_array_append_new(rows, encode_row(core->rows[i]));
		if (rows)
			json_object_set_new(document, resource->path, rows);
	}
	return document;
}

int core_replace(struct core *core, const struct row *const *rows, size_t n, const struct core_request *request,
        struct errs *errs, struct core_result *ret)
{
	fake_note(core, request);
	core->n_changes = n;
	if (core->fail)
		return fake_fail(core, "/listeners/0", errs);
	*ret = (struct core_result){ .changed = true };
	if (request->dry_run) {
		ret->diff = json_array();
	} else {
		struct row *kept[FAKE_ROWS_MAX];

		for (size_t i = 0; i < n; i++)
			kept[i] = row_copy(rows[i]);
		core->revision++;
		while (core->n)
			fake_remove(core, 0);
		for (size_t i = 0; i < n; i++) {
			kept[i]->revision = core->revision;
			fake_insert(core, kept[i]);
		}
	}
	fake_finish(core, request, ret);
	return 0;
}

/* The history of a fake: each revision up to the current one, without contents. */
static inline json_t *fake_revision(int64_t revision)
{
	return json_pack("{s:I,s:s}", "revision", (json_int_t)revision, "actor", "uid 0");
}

int core_revisions(struct core *core, int64_t before, size_t max, json_t **ret)
{
	json_t *list = json_array();
	int64_t revision = before && before <= core->revision ? before - 1 : core->revision;

	for (; revision > 0 && json_array_size(list) < max; revision--)
		json_array_append_new(list, fake_revision(revision));
	*ret = list;
	return core->fail == -EIO ? (json_decref(list), -EIO) : 0;
}

int core_revision_get(struct core *core, int64_t revision, json_t **ret)
{
	if (revision < 0 || revision > core->revision)
		return -ENOENT;
	*ret = fake_revision(revision);
	return 0;
}

int core_revision_diff(struct core *core, int64_t from, int64_t to, json_t **ret)
{
	if (from < 0 || to < 0 || from > core->revision || to > core->revision)
		return -ENOENT;
	*ret = json_pack("[{s:I,s:I}]", "from", (json_int_t)from, "to", (json_int_t)to);
	return 0;
}

int core_relay_restart(struct core *core)
{
	return core->relay_restart;
}

int core_rollback(struct core *core, int64_t revision, const struct core_request *request, struct errs *errs,
        struct core_result *ret)
{
	fake_note(core, request);
	if (core->fail)
		return fake_fail(core, "", errs);
	if (revision < 0 || revision > core->revision)
		return -ENOENT;
	*ret = (struct core_result){ .changed = true };
	if (request->dry_run)
		ret->diff = json_array();
	else
		core->revision++;
	core->rolled_back_to = request->dry_run ? core->rolled_back_to : revision;
	fake_finish(core, request, ret);
	return 0;
}

int core_confirm(struct core *core, int64_t revision, const struct core_request *request, struct errs *errs)
{
	(void)errs;
	fake_note(core, request);
	if (!core->pending || core->pending != revision)
		return -ENOENT;
	core->confirmed = revision;
	core->pending = 0;
	return 0;
}

json_t *core_pending(struct core *core)
{
	if (!core->pending)
		return json_null();
	return json_pack("{s:I,s:I,s:s,s:I}", "revision", (json_int_t)core->pending, "base",
	        (json_int_t)core->pending - 1, "deadline", "2030-01-01T00:00:00Z", "seconds_left", (json_int_t)30);
}

void core_audit(struct core *core, const struct core_audit *entry)
{
	snprintf(core->audit[core->audited++ % FAKE_AUDIT_MAX], sizeof(core->audit[0]), "%s|%s|%s|%u|%lld|%s",
	        entry->actor, entry->method, entry->path, entry->status, (long long)entry->revision, entry->detail);
}

int core_audit_list(struct core *core, int64_t before, size_t max, json_t **ret)
{
	json_t *list = json_array();
	int64_t id = before && before <= core->audited ? before - 1 : core->audited;

	for (; id > 0 && json_array_size(list) < max; id--)
		json_array_append_new(list, json_pack("{s:I}", "id", (json_int_t)id));
	*ret = list;
	return 0;
}

int core_backup(struct core *core, const char *path)
{
	FILE *file = core->fail ? NULL : fopen(path, "wx");

	if (!file)
		return core->fail ? core->fail : -errno;
	for (int i = 0; i < 300000; i++)
		fprintf(file, "%08d", i);
	return fclose(file) ? -errno : 0;
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

json_t *core_doctor(struct core *core)
{
	(void)core;
	return json_pack("{s:b, s:[]}", "ok", 1, "checks");
}

size_t core_doctor_probe(struct core *core)
{
	(void)core;
	return 3;
}

json_t *core_explain(
        struct core *core, const struct match_packet *packet, uint16_t source_port, const struct first *first)
{
	(void)core, (void)packet, (void)source_port, (void)first;
	return json_pack("{s:[]}", "stages");
}

int core_trace_start(
        struct core *core, const struct core_trace_order *order, const char *actor, json_t **ret, char **ret_reason)
{
	(void)core, (void)actor;
	*ret_reason = NULL;
	*ret = json_pack("{s:i, s:i, s:i}", "id", 7, "seconds", (int)order->seconds, "packets", (int)order->packets);
	return *ret ? 0 : -ENOMEM;
}

json_t *core_traces(struct core *core)
{
	(void)core;
	return json_pack("{s:[]}", "items");
}

int core_trace_get(struct core *core, uint64_t number, json_t **ret)
{
	(void)core;
	if (number != 7)
		return -ENOENT;
	*ret = json_pack("{s:i}", "id", 7);
	return *ret ? 0 : -ENOMEM;
}

int core_trace_end(struct core *core, uint64_t number)
{
	(void)core;
	return number == 7 ? 0 : -ENOENT;
}

json_t *core_stats(struct core *core, size_t max)
{
	(void)core;
	return json_pack("{s:I}", "max", (json_int_t)max);
}

json_t *core_observed(struct core *core, const struct row *row)
{
	(void)core;
	(void)row;
	return json_object();
}

int core_ledger(struct core *core, const char *interface, json_t **ret)
{
	(void)core;
	*ret = json_pack("{s:s?}", "interface", interface);
	return *ret ? 0 : -ENOMEM;
}

json_t *core_stats_page(struct core *core, enum core_counted kind, uint32_t after, size_t max)
{
	(void)core;
	return json_pack("{s:i,s:I,s:I}", "kind", (int)kind, "after", (json_int_t)after, "max", (json_int_t)max);
}

json_t *core_stats_history(struct core *core, unsigned step, int64_t after)
{
	(void)core;
	return json_pack("{s:i,s:I}", "step", (int)step, "after", (json_int_t)after);
}

int core_metrics(struct core *core, char **ret, size_t *ret_length)
{
	(void)core;
	*ret = strdup("gateway_up 1\n");
	*ret_length = *ret ? strlen(*ret) : 0;
	return *ret ? 0 : -ENOMEM;
}

/* What was asked for, in words. */
int core_flows(struct core *core, const struct core_flows_query *query, json_t **ret)
{
	char client[ADDR_TEXT_MAX] = "", target[ADDR_TEXT_MAX] = "";

	(void)core;
	if (query->after && *query->after == '!')
		return -EINVAL;
	if (query->has_client)
		prefix_format(&query->client, client);
	if (query->has_target)
		addr_format(&query->target, target);
	*ret = json_pack("{s:I,s:i,s:i,s:i,s:s,s:s,s:i,s:s,s:s,s:s,s:s}", "limit", (json_int_t)query->limit, "sort",
	        (int)query->sort, "group", (int)query->group, "protocol", (int)query->protocol, "client", client,
	        "target", target, "port", (int)query->target_port, "listener", query->listener ? query->listener : "",
	        "upstream", query->upstream ? query->upstream : "", "after", query->after ? query->after : "", "sni",
	        query->sni ? query->sni : "");
	return 0;
}

int core_flow_get(struct core *core, uint64_t id, json_t **ret)
{
	(void)core;
	if (id != 0x12ab)
		return -ENOENT;
	*ret = json_pack("{s:I}", "id", (json_int_t)id);
	return 0;
}

json_t *core_limits(struct core *core, const char *after, size_t max)
{
	(void)core;
	(void)after;
	(void)max;
	return json_pack("{s:[], s:n, s:i}", "items", "next", "total", 0);
}

int core_limit_get(struct core *core, const char *name, json_t **ret)
{
	(void)core;
	(void)name;
	(void)ret;
	return -ENOENT;
}

json_t *core_bans(struct core *core, const struct prefix *after, size_t max)
{
	(void)core;
	(void)after;
	(void)max;
	return json_pack("{s:[], s:n, s:i}", "items", "next", "total", 0);
}

int core_ban_get(struct core *core, const struct prefix *prefix, json_t **ret)
{
	(void)core;
	(void)prefix;
	*ret = json_object();
	return *ret ? 0 : -ENOMEM;
}

int core_ban_add(struct core *core, const struct core_ban *ban)
{
	(void)core;
	(void)ban;
	return 0;
}

int core_ban_lift(struct core *core, const struct prefix *prefix, const char *actor)
{
	(void)core;
	(void)prefix;
	(void)actor;
	return -ENOENT;
}

int core_flow_kill(struct core *core, uint64_t id)
{
	if (core->fail)
		return core->fail;
	return id == 0x12ab ? 0 : -ENOENT;
}

/* As seen: the row, and the order given last, if it was about this target. */
json_t *core_target(struct core *core, const struct upstream *upstream, const struct target *target)
{
	json_t *object = encode_row(&target->row);

	(void)upstream;
	if (core->ordered && !strcmp(core->ordered_target, target->address))
		json_object_set_new(object, "ordered",
		        json_pack("[I, I, I, I]", (json_int_t)core->order.admin_state, (json_int_t)core->order.weight,
		                (json_int_t)core->order.drain_deadline_s, (json_int_t)core->order.drain_reset_per_s));
	return object;
}

int core_target_set(struct core *core, const struct upstream *upstream, const struct target *target,
        const struct core_target_order *order, const char *actor, struct errs *errs)
{
	(void)upstream;
	if (core->fail)
		return fake_fail(core, "", errs);
	core->ordered++;
	core->order = *order;
	snprintf(core->ordered_target, sizeof(core->ordered_target), "%s", target->address);
	snprintf(core->actor, sizeof(core->actor), "%s", actor);
	return 0;
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
