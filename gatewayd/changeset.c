/* Changes resolved against the configuration in force; see changeset.h. */
#include "gatewayd/changeset.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "schema/change.h"

static const struct row *any_row(const struct apply_change *change)
{
	return change->new_row ? change->new_row : change->old_row;
}

static int compare_names(enum resource_id a_resource, const char *a, enum resource_id b_resource, const char *b)
{
	return a_resource != b_resource ? (a_resource < b_resource ? -1 : 1) : strcmp(a, b);
}

/* A change and where it came from, for sorting. */
struct entry {
	const struct core_change *change;
	size_t index;
};

static int compare_entries(const void *a, const void *b)
{
	const struct core_change *x = ((const struct entry *)a)->change, *y = ((const struct entry *)b)->change;

	return compare_names(x->resource, x->name, y->resource, y->name);
}

static const char *pointer_of(const struct core_change *change)
{
	return change->pointer ? change->pointer : "";
}

static const char *kind_of(const struct core_change *change)
{
	return resource_get(change->resource)->name;
}

/* What the operation itself and If-Match or If-None-Match presume. */
static int check_presence(const struct core_change *change, const struct row *old, struct errs *errs)
{
	char pointer[128];

	if (change->operation == CORE_DELETE && !old) {
		errs_add(
		        errs, pointer_of(change), "not_found", "There is no %s \"%s\".", kind_of(change), change->name);
		return -ENOENT;
	}
	if (change->operation == CORE_CREATE && old) {
		snprintf(pointer, sizeof(pointer), "%s/name", pointer_of(change));
		errs_add(errs, pointer, "exists", "There is a %s \"%s\" already.", kind_of(change), change->name);
		return -EEXIST;
	}
	if (change->if_revision == 0)
		return 0;
	if (change->if_revision < 0 ? old == NULL : old && old->revision == change->if_revision)
		return 0;
	if (old)
		errs_add(errs, pointer_of(change), "precondition_failed", "It is at revision %lld.",
		        (long long)old->revision);
	else
		errs_add(errs, pointer_of(change), "precondition_failed", "It does not exist.");
	return -ESTALE;
}

static int resolve_one(struct changeset *set, const struct core_change *change, struct errs *errs)
{
	struct row *old = snapshot_find(set->from, change->resource, change->name), *row = NULL;
	int r = check_presence(change, old, errs);

	if (r < 0)
		return r;
	if (change->operation != CORE_DELETE) {
		if (old && row_equal(old, change->row))
			return 0;
		row = row_copy(change->row);
		if (!row)
			return -ENOMEM;
		row->id = old ? old->id : 0;
	}
	set->pointers[set->n] = pointer_of(change);
	set->items[set->n++] = (struct apply_change){ .old_row = old, .new_row = row };
	return 0;
}

static int resolve_sorted(struct changeset *set, const struct entry *entries, size_t n, struct errs *errs)
{
	int result = 0;

	for (size_t i = 0; i < n; i++) {
		const struct core_change *change = entries[i].change;
		int r;

		if (i > 0 && compare_entries(&entries[i - 1], &entries[i]) == 0) {
			errs_add(errs, pointer_of(change), "duplicate", "The %s \"%s\" occurs more than once.",
			        kind_of(change), change->name);
			r = -EINVAL;
		} else {
			r = resolve_one(set, change, errs);
		}
		if (r == -ENOMEM)
			return r;
		if (r < 0 && result == 0)
			result = r;
	}
	return result;
}

static int resolve(struct changeset *set, const struct core_change *changes, size_t n, struct errs *errs)
{
	_cleanup_free_ struct entry *entries = calloc(n + 1, sizeof(*entries));

	set->items = calloc(n + 1, sizeof(*set->items));
	set->pointers = calloc(n + 1, sizeof(*set->pointers));
	if (!entries || !set->items || !set->pointers)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		entries[i] = (struct entry){ &changes[i], i };
	qsort(entries, n, sizeof(*entries), compare_entries);
	return resolve_sorted(set, entries, n, errs);
}

/* Index of the first row at or behind `start` whose name is not less. */
static size_t find_place(const struct rows *rows, size_t start, const char *name)
{
	size_t low = start, high = rows->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(row_name(rows->items[middle]), name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void share_range(const struct rows *old, size_t from, size_t to, struct rows *ret)
{
	while (from < to)
		ret->items[ret->n++] = row_ref(old->items[from++]);
}

/* One resource of the target: the sorted old rows with the sorted changes put in their places. */
static int merge_rows(const struct rows *old, const struct apply_change *changes, size_t n, struct rows *ret)
{
	size_t done = 0;

	ret->items = calloc(old->n + n + 1, sizeof(struct row *));
	if (!ret->items)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		size_t place = find_place(old, done, row_name(any_row(&changes[i])));

		share_range(old, done, place, ret);
		if (changes[i].new_row)
			ret->items[ret->n++] = row_ref(changes[i].new_row);
		done = changes[i].old_row ? place + 1 : place;
	}
	share_range(old, done, old->n, ret);
	return 0;
}

static int make_target(struct changeset *set)
{
	size_t start = 0;

	set->to = snapshot_new();
	if (!set->to)
		return -ENOMEM;
	set->to->revision = set->from->revision + 1;
	for (int id = 0; id < RESOURCES; id++) {
		size_t end = start;
		int r;

		while (end < set->n && (int)any_row(&set->items[end])->resource == id)
			end++;
		r = merge_rows(&set->from->rows[id], set->items + start, end - start, &set->to->rows[id]);
		if (r < 0)
			return r;
		start = end;
	}
	return 0;
}

/* The item that concerns this row, or NULL. */
static const struct apply_change *find_item(const struct changeset *set, enum resource_id resource, const char *name)
{
	size_t low = 0, high = set->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct row *row = any_row(&set->items[middle]);
		int order = compare_names(row->resource, row_name(row), resource, name);

		if (order == 0)
			return &set->items[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* The references of one row, being looked at. */
struct look {
	const struct changeset *set;
	const struct row *row;
	const struct apply_change *own; /* the row's own item, NULL if it is not written */
	struct errs *errs;
	int result;
};

/* A reference that leads nowhere is the fault of the row that refers if it is being written, else of the deletion. */
static int look_at_reference(void *userdata, const struct reference *reference)
{
	struct look *look = userdata;
	const struct changeset *set = look->set;
	const struct apply_change *deletion = find_item(set, reference->target, reference->name);
	const char *target = resource_get(reference->target)->name;
	char pointer[192];

	if (snapshot_find(set->to, reference->target, reference->name))
		return 0;
	if (look->own || !deletion) {
		snprintf(pointer, sizeof(pointer), "%s%s", look->own ? set->pointers[look->own - set->items] : "",
		        reference->pointer);
		errs_add(look->errs, pointer, "unknown_reference", "There is no %s \"%s\".", target, reference->name);
		look->result = -EINVAL;
		return 0;
	}
	errs_add(look->errs, set->pointers[deletion - set->items], "in_use", "The %s \"%s\" uses the %s \"%s\".",
	        resource_get(look->row->resource)->name, row_name(look->row), target, reference->name);
	if (look->result == 0)
		look->result = -EBUSY;
	return 0;
}

static int check_row_references(const struct changeset *set, const struct row *row, struct errs *errs)
{
	struct look look = {
		.set = set, .row = row, .own = find_item(set, row->resource, row_name(row)), .errs = errs
	};
	int r = resource_references(row, look_at_reference, &look);

	return r < 0 ? r : look.result;
}

static bool deletes_any(const struct changeset *set)
{
	for (size_t i = 0; i < set->n; i++)
		if (!set->items[i].new_row)
			return true;
	return false;
}

/* Only a deletion can break the references of rows that are not written. */
static int check_references(const struct changeset *set, struct errs *errs)
{
	int result = 0, r;

	if (!deletes_any(set)) {
		for (size_t i = 0; i < set->n; i++) {
			r = check_row_references(set, set->items[i].new_row, errs);
			result = result < 0 ? result : r;
		}
		return result;
	}
	for (int id = 0; id < RESOURCES; id++)
		for (size_t i = 0; i < set->to->rows[id].n; i++) {
			r = check_row_references(set, set->to->rows[id].items[i], errs);
			result = result < 0 ? result : r;
		}
	return result;
}

int changeset_new(
        struct snapshot *from, const struct core_change *changes, size_t n, struct errs *errs, struct changeset *ret)
{
	struct changeset set = { .from = snapshot_ref(from) };
	int r;

	r = resolve(&set, changes, n, errs);
	if (r == 0)
		r = make_target(&set);
	if (r == 0)
		r = check_references(&set, errs);
	if (r < 0) {
		changeset_clear(&set);
		return r;
	}
	*ret = set;
	return 0;
}

/* The pointer into the request for "/listeners/NAME/REST"; NULL when memory is out. */
static char *point(const struct changeset *set, const char *pointer)
{
	static const char listeners[] = "/listeners/";
	const struct apply_change *item;
	char name[NAME_MAX_BYTES + 1], *ret;
	const char *rest;
	size_t length;

	if (strncmp(pointer, listeners, strlen(listeners)) != 0)
		return strdup(pointer);
	pointer += strlen(listeners);
	length = strcspn(pointer, "/");
	rest = pointer + length;
	snprintf(name, sizeof(name), "%.*s", (int)length, pointer);
	item = find_item(set, RESOURCE_LISTENER, name);
	if (!item || !item->new_row)
		return strdup(set->n ? set->pointers[0] : "");
	return asprintf(&ret, "%s%s", set->pointers[item - set->items], rest) < 0 ? NULL : ret;
}

void changeset_point(const struct changeset *changeset, struct errs *errs)
{
	for (size_t i = 0; i < errs->n; i++) {
		char *pointer = point(changeset, errs->items[i].pointer ? errs->items[i].pointer : "");

		if (!pointer)
			continue;
		free(errs->items[i].pointer);
		errs->items[i].pointer = pointer;
	}
}

void changeset_clear(struct changeset *changeset)
{
	for (size_t i = 0; i < changeset->n; i++)
		row_unref(changeset->items[i].new_row);
	free(changeset->items);
	free(changeset->pointers);
	snapshot_unref(changeset->from);
	snapshot_unref(changeset->to);
	*changeset = (struct changeset){ 0 };
}

/* The path is that of the row in the API; before and after are taken over, JSON null where there is none. */
static json_t *changeset_json_item(const struct resource *resource, const char *name, json_t *before, json_t *after)
{
	const char *op = json_is_null(before) ? "add" : json_is_null(after) ? "remove" : "replace";
	bool single = resource->flags & RESOURCE_IS_SINGLE;
	char path[192];

	snprintf(path, sizeof(path), "/%s%s%s", resource->path, single ? "" : "/", single ? "" : name);
	return json_pack("{s:s, s:s, s:o, s:o}", "op", op, "path", path, "before", before, "after", after);
}

json_t *changeset_json_rows(const struct row *before, const struct row *after)
{
	const struct row *row = after ? after : before;
	json_t *old = NULL, *new = NULL;

	if (change_json(before, after, &old, &new) < 0)
		return NULL;
	return changeset_json_item(resource_get(row->resource), row_name(row), old, new);
}

json_t *changeset_json(const struct changeset *changeset)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < changeset->n; i++)
		if (json_array_append_new(
		            array, changeset_json_rows(changeset->items[i].old_row, changeset->items[i].new_row)) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}
