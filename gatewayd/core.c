/* The core behind the API; see core.h and webapi/core.h. */
#include "gatewayd/core.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "gatewayd/base/log.h"
#include "gatewayd/changeset.h"
#include "gatewayd/records.h"
#include "gatewayd/store_history.h"
#include "schema/encode.h"

const struct row *core_find(struct core *core, enum resource_id resource, const char *name)
{
	return snapshot_find(apply_snapshot(core->apply), resource, name);
}

size_t core_list(struct core *core, enum resource_id resource, const char *after, size_t max, const struct row **ret)
{
	const struct snapshot *snapshot = apply_snapshot(core->apply);
	const struct rows *rows = &snapshot->rows[resource];
	size_t first = snapshot_after(snapshot, resource, after), n = 0;

	while (n < max && first + n < rows->n) {
		ret[n] = rows->items[first + n];
		n++;
	}
	return n;
}

size_t core_count(struct core *core, enum resource_id resource)
{
	return apply_snapshot(core->apply)->rows[resource].n;
}

int64_t core_revision(struct core *core)
{
	return apply_snapshot(core->apply)->revision;
}

void core_result_clear(struct core_result *result)
{
	json_decref(result->diff);
	json_decref(result->warnings);
	free(result->nft);
	*result = (struct core_result){ 0 };
}

/* The mark of a change that is to be confirmed; NULL if it is for good. */
static int pending_mark(struct core *core, const struct core_request *request, const struct changeset *set,
        struct core_pending *ret, char **ret_text)
{
	*ret = (struct core_pending){ 0 };
	*ret_text = NULL;
	if (request->confirm_within_s <= 0)
		return 0;
	*ret = (struct core_pending){ .revision = set->to->revision,
		.base = core_revision(core),
		.deadline = (int64_t)time(NULL) + request->confirm_within_s };
	return core_pending_text(ret, ret_text);
}

/* A change of one listener or upstream names it. */
static void log_revision(const struct changeset *set, const struct core_request *request)
{
	const struct row *row = set->items[0].new_row ? set->items[0].new_row : set->items[0].old_row;
	const char *kind = row->resource == RESOURCE_LISTENER   ? "LISTENER"
	                   : row->resource == RESOURCE_UPSTREAM ? "UPSTREAM"
	                                                        : NULL;

	log_write_about(LOG_INFO,
	        LOG_ABOUT(LOG_NUMBER("REVISION", set->to->revision), LOG_TEXT("ACTOR", request->actor),
	                LOG_TEXT(set->n == 1 ? kind : NULL, row_name(row))),
	        "revision %lld is in force: %s, by %s", (long long)set->to->revision, request->summary, request->actor);
}

/* In milliseconds, as the header has it. */
static void tell_times(const struct apply *apply, char text[CORE_TIMING_BYTES])
{
	const uint64_t *times = apply_times(apply);
	int length = 0;

	for (int step = 0; step < APPLY_STEPS && length < CORE_TIMING_BYTES; step++)
		length += snprintf(text + length, (size_t)(CORE_TIMING_BYTES - length), "%s%s;dur=%.3f",
		        step > 0 ? ", " : "", apply_step_name((enum apply_step)step), (double)times[step] / 1e3);
}

static int run_changeset(struct core *core, const struct changeset *set, const struct core_request *request,
        struct errs *errs, struct core_result *ret)
{
	struct apply_request run = { .changes = set->items,
		.n = set->n,
		.to = set->to,
		.actor = request->actor,
		.summary = request->summary,
		.way_back = request->way_back,
		.dry_run = request->dry_run };
	struct store_audit audit;
	_cleanup_free_ char *mark = NULL;
	struct core_pending pending;
	int r = pending_mark(core, request, set, &pending, &mark);

	run.pending = mark;
	if (request->audit) {
		audit = core_audit_line(request->audit);
		run.audit = &audit;
	}
	if (r == 0)
		r = apply_run(core->apply, &run, errs, request->dry_run ? &ret->nft : NULL);
	if (r < 0 && core->drift && apply_nft_generation(core->apply) != core_revision(core))
		drift_look_for_ours(core->drift);
	if (r < 0 || request->dry_run)
		return r;
	ret->audited = request->audit != NULL;
	tell_times(core->apply, ret->timing);
	core_tell(core, "revision",
	        json_pack("{s:I, s:s, s:s}", "revision", (json_int_t)set->to->revision, "actor", request->actor,
	                "summary", request->summary));
	log_revision(set, request);
	core_set_pending(core, &pending);
	core_targets_follow(core);
	if (core->shortcut)
		shortcut_follow(core->shortcut, set->to);
	intercept_follow(core->intercept, set->to, apply_model(core->apply));
	if (core->records)
		records_follow(core->records);
	/* How drift is dealt with may have changed: what was only told so far may be to be put right. */
	if (core->drift)
		drift_look_if_present(core->drift);
	return 0;
}

/* Nothing to do: no revision is made, but a change that waited is settled by a write that leads to where it is. */
static int write_nothing(struct core *core, const struct core_request *request, struct core_result *ret)
{
	ret->revision = core_revision(core);
	if (!request->dry_run)
		return 0;
	ret->diff = json_array();
	ret->nft = strdup("");
	return ret->diff && ret->nft ? 0 : -ENOMEM;
}

int core_write_unguarded(struct core *core, const struct core_change *changes, size_t n,
        const struct core_request *request, struct errs *errs, struct core_result *ret)
{
	_cleanup_(changeset_clear) struct changeset set = { 0 };
	int r;

	*ret = (struct core_result){ 0 };
	r = changeset_new((struct snapshot *)apply_snapshot(core->apply), changes, n, errs, &set);
	if (r < 0)
		return r;
	if (set.n == 0)
		return write_nothing(core, request, ret);
	ret->changed = true;
	ret->created = n == 1 && !set.items[0].old_row;
	if (request->dry_run) {
		ret->diff = changeset_json(&set);
		r = ret->diff ? 0 : -ENOMEM;
	}
	if (r == 0)
		r = run_changeset(core, &set, request, errs, ret);
	/* What is in force by now is not refused for want of memory. */
	if (r == 0)
		(void)core_warn(core, &set, &ret->warnings);
	if (r < 0)
		changeset_point(&set, errs);
	if (r < 0)
		core_result_clear(ret);
	else
		ret->revision = core_revision(core);
	return r;
}

int core_write(struct core *core, const struct core_change *changes, size_t n, const struct core_request *request,
        struct errs *errs, struct core_result *ret)
{
	if (core->pending.revision != 0 && !request->dry_run) {
		errs_add(errs, "", "pending", "Revision %lld waits to be confirmed or rolled back to %lld.",
		        (long long)core->pending.revision, (long long)core->pending.base);
		return -EBUSY;
	}
	return core_write_unguarded(core, changes, n, request, errs, ret);
}

/* Whether a resource is part of the configuration as a document. */
static bool is_documented(const struct resource *resource)
{
	return resource->path && !(resource->flags & RESOURCE_IS_PRIVATE);
}

json_t *core_config(struct core *core)
{
	const struct snapshot *snapshot = apply_snapshot(core->apply);
	json_t *document = json_object();

	for (int id = 0; document && id < RESOURCES; id++) {
		const struct resource *resource = resource_get((enum resource_id)id);
		json_t *list;

		if (!is_documented(resource))
			continue;
		list = json_array();
		for (size_t i = 0; list && i < snapshot->rows[id].n; i++)
			if (json_array_append_new(list, encode_row(snapshot->rows[id].items[i])) < 0) {
				json_decref(list);
				list = NULL;
			}
		if (json_object_set_new(document, resource->path, list) < 0) {
			json_decref(document);
			return NULL;
		}
	}
	return document;
}

static int compare_rows(const void *a, const void *b)
{
	const struct row *x = *(const struct row *const *)a, *y = *(const struct row *const *)b;

	return x->resource != y->resource ? (x->resource < y->resource ? -1 : 1) : strcmp(row_name(x), row_name(y));
}

/* Deletions of what is in force and not among the sorted rows. */
static size_t add_deletions(
        const struct snapshot *now, const struct row **sorted, size_t n, struct core_change *changes)
{
	size_t count = 0;

	for (int id = 0; id < RESOURCES; id++)
		for (size_t i = 0; i < now->rows[id].n; i++) {
			const struct row *row = now->rows[id].items[i];

			if (!is_documented(resource_get(row->resource)) ||
			        (resource_get(row->resource)->flags & RESOURCE_IS_SINGLE))
				break;
			if (n > 0 && bsearch(&row, sorted, n, sizeof(*sorted), compare_rows))
				continue;
			changes[count++] = (struct core_change){
				.operation = CORE_DELETE, .resource = (enum resource_id)id, .name = row_name(row)
			};
		}
	return count;
}

/* Where rows stand in a document of all: "/listeners/3". */
typedef char place[64];

static void tell_places(const struct row *const *rows, size_t n, place *places)
{
	size_t counts[RESOURCES] = { 0 };

	for (size_t i = 0; i < n; i++) {
		const struct resource *resource = resource_get(rows[i]->resource);

		if (resource->flags & RESOURCE_IS_SINGLE)
			snprintf(places[i], sizeof(place), "/%s", resource->plural);
		else
			snprintf(places[i], sizeof(place), "/%s/%zu", resource->plural, counts[resource->id]++);
	}
}

int core_replace(struct core *core, const struct row *const *rows, size_t n, const struct core_request *request,
        struct errs *errs, struct core_result *ret)
{
	const struct snapshot *now = apply_snapshot(core->apply);
	_cleanup_free_ struct core_change *changes = NULL;
	_cleanup_free_ const struct row **sorted = NULL;
	_cleanup_free_ place *places = calloc(n + 1, sizeof(*places));
	size_t existing = 0;

	for (int id = 0; id < RESOURCES; id++)
		existing += now->rows[id].n;
	changes = calloc(n + existing + 1, sizeof(*changes));
	sorted = calloc(n + 1, sizeof(*sorted));
	if (!changes || !sorted || !places)
		return -ENOMEM;
	tell_places(rows, n, places);
	for (size_t i = 0; i < n; i++) {
		sorted[i] = rows[i];
		changes[i] = (struct core_change){ .operation = CORE_PUT,
			.resource = rows[i]->resource,
			.name = row_name(rows[i]),
			.row = rows[i],
			.pointer = places[i] };
	}
	qsort(sorted, n, sizeof(*sorted), compare_rows);
	return core_write(core, changes, n + add_deletions(now, sorted, n, changes + n), request, errs, ret);
}

json_t *core_observed(struct core *core, const struct row *row)
{
	const struct prefilter *prefilter = (const struct prefilter *)row;

	if (row->resource != RESOURCE_PREFILTER || !core->shield)
		return json_object();
	return shield_observed(core->shield, prefilter->interface);
}

int core_ready(struct core *core)
{
	int64_t revision = core_revision(core);

	if (core->drift && drift_present(core->drift))
		return 0;
	if (core->shield && shield_generation(core->shield) != revision)
		return 0;
	return apply_nft_generation(core->apply) == revision && apply_route_generation(core->apply) == revision &&
	       worker_state(core->worker) == WORKER_RUNNING && worker_generation(core->worker) == revision;
}

int core_ruleset(struct core *core, bool desired, char **ret_text)
{
	if (desired)
		return render_nft_full(
		        apply_model(core->apply), apply_render_params(core->apply), core_revision(core), ret_text);
	return kernel_nft_list(core->kernel, ret_text);
}
