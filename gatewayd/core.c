/* The core behind the API; see core.h and webapi/core.h. */
#include "gatewayd/core.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

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

/* If-Match and If-None-Match, and what the operation itself presumes. */
static int check_presence(const struct core_write *write, const struct row *old, struct errs *errs)
{
	if (write->operation == CORE_DELETE && !old) {
		errs_add(errs, "", "not_found", "There is no %s \"%s\".", resource_get(write->resource)->name,
		        write->name);
		return -ENOENT;
	}
	if (write->operation == CORE_CREATE && old) {
		errs_add(errs, "/name", "exists", "There is a %s \"%s\" already.", resource_get(write->resource)->name,
		        write->name);
		return -EEXIST;
	}
	if (write->if_revision == 0)
		return 0;
	if (write->if_revision < 0 ? old != NULL : !old || old->revision != write->if_revision) {
		errs_add(errs, "", "precondition_failed", old ? "It is at revision %lld." : "It does not exist.",
		        old ? (long long)old->revision : 0LL);
		return -ESTALE;
	}
	return 0;
}

static int check_reference(struct core *core, const struct row *row, const struct field *field, struct errs *errs)
{
	const char *name = *FIELD_AT_CONST(row, field, char *);
	char pointer[80];

	if (!name || core_find(core, field->target, name))
		return 0;
	snprintf(pointer, sizeof(pointer), "/%s", field->member);
	errs_add(errs, pointer, "unknown_reference", "There is no %s \"%s\".", resource_get(field->target)->name, name);
	return -EINVAL;
}

static int check_references(struct core *core, const struct row *row, struct errs *errs)
{
	const struct resource *resource = resource_get(row->resource);
	int result = 0;

	for (size_t i = 0; i < resource->n_fields; i++)
		if (resource->fields[i].kind == FIELD_REF && check_reference(core, row, &resource->fields[i], errs) < 0)
			result = -EINVAL;
	return result;
}

static bool refers_to(const struct row *row, const struct field *field, const struct row *target)
{
	const char *name = *FIELD_AT_CONST(row, field, char *);

	return field->target == target->resource && name && strcmp(name, row_name(target)) == 0;
}

/* Names the rows of one resource that refer to the target through this field. */
static int check_unused_by(struct core *core, const struct resource *resource, const struct field *field,
        const struct row *target, struct errs *errs)
{
	const struct rows *rows = &apply_snapshot(core->apply)->rows[resource->id];
	int result = 0;

	for (size_t i = 0; i < rows->n; i++) {
		if (!refers_to(rows->items[i], field, target))
			continue;
		errs_add(errs, "", "in_use", "The %s \"%s\" uses it as its %s.", resource->name,
		        row_name(rows->items[i]), field->member);
		result = -EBUSY;
	}
	return result;
}

static int check_unused(struct core *core, const struct row *target, struct errs *errs)
{
	int result = 0;

	for (int id = 0; id < RESOURCES; id++) {
		const struct resource *resource = resource_get((enum resource_id)id);

		for (size_t i = 0; i < resource->n_fields; i++)
			if (resource->fields[i].kind == FIELD_REF &&
			        check_unused_by(core, resource, &resource->fields[i], target, errs) < 0)
				result = -EBUSY;
	}
	return result;
}

static int apply_one(struct core *core, const struct core_write *write, const struct row *old, struct row *new_row,
        struct errs *errs, struct core_result *ret)
{
	static const char *const verbs[] = { [CORE_CREATE] = "create", [CORE_PUT] = "put", [CORE_DELETE] = "delete" };
	struct apply_change change = { .old_row = old, .new_row = new_row };
	char summary[160];
	int r;

	snprintf(summary, sizeof(summary), "%s %s/%s", verbs[write->operation], resource_get(write->resource)->plural,
	        write->name);
	r = apply_run(core->apply, &change, 1, write->actor, summary, errs, &ret->revision);
	if (r == 0)
		ret->created = !old;
	return r;
}

int core_write(struct core *core, const struct core_write *write, struct errs *errs, struct core_result *ret)
{
	_cleanup_(row_unref_p) struct row *row = NULL;
	const struct row *old = core_find(core, write->resource, write->name);
	int r;

	r = check_presence(write, old, errs);
	if (r < 0)
		return r;
	if (write->operation == CORE_DELETE) {
		r = check_unused(core, old, errs);
		return r < 0 ? r : apply_one(core, write, old, NULL, errs, ret);
	}
	r = check_references(core, write->row, errs);
	if (r < 0)
		return r;
	if (old && row_equal(old, write->row)) {
		*ret = (struct core_result){ .revision = core_revision(core) };
		return 0;
	}
	row = row_copy(write->row);
	if (!row)
		return -ENOMEM;
	row->id = old ? old->id : 0;
	return apply_one(core, write, old, row, errs, ret);
}

int core_ready(struct core *core)
{
	int64_t revision = core_revision(core);

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
