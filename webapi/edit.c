/* Operations gathered into one write, see edit.h. */
#include "webapi/edit.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "gatewayd/base/addr.h"
#include "schema/check.h"
#include "schema/decode.h"
#include "schema/encode.h"
#include "webapi/tokens.h"
#include "webapi/write.h"

/* Key of the index: a resource's number, a slash, a name. Names in addresses may be longer than names can be. */
static char *key_of(enum resource_id resource, const char *name)
{
	char *key;

	return asprintf(&key, "%d/%s", (int)resource, name) < 0 ? NULL : key;
}

static struct edit_entry *entry_of(const struct edit *edit, enum resource_id resource, const char *name)
{
	_cleanup_free_ char *key = edit->index ? key_of(resource, name) : NULL;
	const json_t *number = key ? json_object_get(edit->index, key) : NULL;

	return number ? &edit->entries[json_integer_value(number)] : NULL;
}

const struct row *edit_find(const struct edit *edit, enum resource_id resource, const char *name)
{
	const struct edit_entry *entry = entry_of(edit, resource, name);

	return entry ? entry->after : core_find(edit->core, resource, name);
}

void edit_clear(struct edit *edit)
{
	for (size_t i = 0; i < edit->n; i++) {
		free(edit->entries[i].name);
		free(edit->entries[i].pointer);
		if (edit->entries[i].after)
			row_unref(edit->entries[i].after);
	}
	free(edit->entries);
	json_decref(edit->index);
	*edit = (struct edit){ .core = edit->core };
}

void operation_clear(struct operation *operation)
{
	free(operation->path);
	free(operation->secret);
	operation->path = operation->secret = NULL;
}

static int reserve(struct edit *edit)
{
	size_t capacity = edit->capacity ? 2 * edit->capacity : 4;
	struct edit_entry *entries;

	if (!edit->index && !(edit->index = json_object()))
		return -ENOMEM;
	if (edit->n < edit->capacity)
		return 0;
	entries = realloc(edit->entries, capacity * sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	edit->entries = entries;
	edit->capacity = capacity;
	return 0;
}

/* A new entry for a row that no operation has touched yet; NULL when memory is out. */
static struct edit_entry *entry_new(struct edit *edit, const struct resource *resource, const char *name)
{
	_cleanup_free_ char *key = key_of(resource->id, name), *copy = strdup(name);
	struct edit_entry *entry;

	if (!key || !copy || reserve(edit) < 0 ||
	        json_object_set_new(edit->index, key, json_integer((json_int_t)edit->n)) < 0)
		return NULL;
	entry = &edit->entries[edit->n++];
	*entry = (struct edit_entry){
		.resource = resource, .name = TAKE_PTR(copy), .before = core_find(edit->core, resource->id, name)
	};
	return entry;
}

/* Notes what the row will be (NULL: deleted); takes over the reference. `based_on`: it was made from the row that is
 * there, which must not have changed. */
static int edit_set(
        struct edit *edit, const struct operation *operation, const char *name, struct row *row, bool based_on)
{
	struct edit_entry *entry = entry_of(edit, operation->resource->id, name);
	char *pointer = strdup(operation->pointer);

	if (pointer && !entry)
		entry = entry_new(edit, operation->resource, name);
	if (!pointer || !entry) {
		free(pointer);
		if (row)
			row_unref(row);
		return -ENOMEM;
	}
	if (entry->after)
		row_unref(entry->after);
	free(entry->pointer);
	entry->after = row;
	entry->pointer = pointer;
	if (based_on && entry->before)
		entry->if_revision = entry->before->revision;
	return 0;
}

void edit_move_faults(struct errs *to, struct errs *from, const char *base)
{
	for (size_t i = 0; i < from->n; i++) {
		_cleanup_free_ char *pointer = NULL;

		if (asprintf(&pointer, "%s%s", base, from->items[i].pointer) < 0)
			pointer = NULL;
		errs_add(to, pointer ? pointer : base, from->items[i].code, "%s", from->items[i].detail);
	}
	to->dropped += from->dropped;
	errs_clear(from);
}

/* The row out of an object; `now` is the one it replaces, or NULL. */
static int decode(
        struct operation *operation, json_t *object, const struct row *now, struct errs *errs, struct row **ret)
{
	_cleanup_errs_ struct errs own = { 0 };
	_cleanup_row_ struct row *row = NULL;
	int r;

	if (operation->resource->flags & RESOURCE_IS_OBSERVED)
		(void)json_object_del(object, FIELD_OBSERVED);
	r = decode_row(operation->resource, object, operation->name, &own, &row);

	edit_move_faults(errs, &own, operation->pointer);
	if (r == 0 && tokens_is(operation->resource))
		r = tokens_prepare(row, now, operation->pointer, errs, &operation->secret);
	if (r == 0)
		*ret = TAKE_PTR(row);
	return r;
}

static int missing(const struct operation *operation, struct errs *errs)
{
	errs_add(errs, operation->address, "not_found", "There is no %s of this name.", operation->resource->name);
	return -ENOENT;
}

static int set_path(struct operation *operation, const char *name)
{
	bool single = operation->resource->flags & RESOURCE_IS_SINGLE;

	if (asprintf(&operation->path, "/api/v1/%s%s%s", operation->resource->path, single ? "" : "/",
	            single ? "" : name) >= 0)
		return 0;
	operation->path = NULL;
	return -ENOMEM;
}

/* POST to a list. */
static int run_create(struct edit *edit, struct operation *operation, struct errs *errs)
{
	_cleanup_row_ struct row *row = NULL;
	int r = decode(operation, operation->body, NULL, errs, &row);

	if (r < 0)
		return r;
	if (edit_find(edit, operation->resource->id, row_name(row))) {
		errs_add(errs, operation->address, "exists", "The name %s is taken.", row_name(row));
		return -EEXIST;
	}
	operation->status = 201;
	r = set_path(operation, row_name(row));
	return r < 0 ? r : edit_set(edit, operation, row_name(row), row_ref(row), false);
}

static int run_put(struct edit *edit, struct operation *operation, struct errs *errs)
{
	const struct row *now = edit_find(edit, operation->resource->id, operation->name);
	_cleanup_row_ struct row *row = NULL;
	int r = decode(operation, operation->body, now, errs, &row);

	if (r < 0)
		return r;
	operation->status = now ? 200 : 201;
	r = set_path(operation, row_name(row));
	return r < 0 ? r : edit_set(edit, operation, row_name(row), row_ref(row), false);
}

static int run_patch(struct edit *edit, struct operation *operation, struct errs *errs)
{
	const struct row *now = edit_find(edit, operation->resource->id, operation->name);
	_cleanup_json_ json_t *object = NULL;
	_cleanup_row_ struct row *row = NULL;
	int r;

	if (!now)
		return missing(operation, errs);
	object = encode_row(now);
	if (!object || decode_merge_patch(object, operation->body) < 0)
		return -ENOMEM;
	r = decode(operation, object, now, errs, &row);
	if (r < 0)
		return r;
	operation->status = 200;
	r = set_path(operation, operation->name);
	return r < 0 ? r : edit_set(edit, operation, operation->name, row_ref(row), true);
}

static int run_delete(struct edit *edit, struct operation *operation, struct errs *errs)
{
	int r;

	if (!edit_find(edit, operation->resource->id, operation->name))
		return missing(operation, errs);
	operation->status = 204;
	r = set_path(operation, operation->name);
	return r < 0 ? r : edit_set(edit, operation, operation->name, NULL, false);
}

/* "192.0.2.1:80", "[2001:db8::1]:80" or "2001:db8::1:80" (the port is behind the last colon), into canonical parts. */
static int parse_target(const char *text, char address[ADDR_TEXT_MAX], int64_t *ret_port)
{
	const char *colon = strrchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : 0;
	char host[ADDR_TEXT_MAX];
	struct addr addr;

	if (!length || length >= sizeof(host) || strspn(colon + 1, "0123456789") != strlen(colon + 1) || !colon[1] ||
	        strlen(colon) > 6 || (colon[1] == '0' && colon[2]))
		return -EINVAL;
	if (*text == '[' && colon[-1] == ']') {
		text++;
		length -= 2;
	}
	memcpy(host, text, length);
	host[length] = '\0';
	if (addr_parse(host, &addr) < 0)
		return -EINVAL;
	*ret_port = strtol(colon + 1, NULL, 10);
	addr_format(&addr, address);
	return *ret_port > 65535 ? -EINVAL : 0;
}

static const struct target *target_at(const struct row *upstream, const char *address, int64_t port, size_t *ret_index)
{
	const struct rows *rows = &((const struct upstream *)upstream)->targets;

	for (size_t i = 0; i < rows->n; i++) {
		const struct target *target = (const void *)rows->items[i];

		if (target->port != port || strcmp(target->address, address) != 0)
			continue;
		if (ret_index)
			*ret_index = i;
		return target;
	}
	return NULL;
}

const struct target *edit_find_target(const struct row *upstream, const char *text, size_t *ret_index)
{
	char address[ADDR_TEXT_MAX];
	int64_t port;

	return parse_target(text, address, &port) < 0 ? NULL : target_at(upstream, address, port, ret_index);
}

char *edit_target_path(const char *upstream, const struct target *target)
{
	bool v6 = strchr(target->address, ':');
	char *path;

	return asprintf(&path, "/api/v1/upstreams/%s/targets/%s%s%s:%" PRId64, upstream, v6 ? "[" : "", target->address,
	               v6 ? "]" : "", target->port) < 0
	               ? NULL
	               : path;
}

/* Sets a key of the address into the body, which may leave it out but not contradict it. */
static void settle(const struct operation *operation, json_t *object, const char *key, json_t *value, struct errs *errs)
{
	const json_t *given = json_object_get(object, key);

	if (given && !json_equal(given, value)) {
		_cleanup_free_ char *pointer = NULL;

		if (asprintf(&pointer, "%s/%s", operation->pointer, key) < 0)
			pointer = NULL;
		errs_add(errs, pointer ? pointer : operation->pointer, "name_mismatch",
		        "the path says something else; a target cannot be renamed");
	}
	json_object_set_new(object, key, value);
}

/* The target as the operation makes it. */
static int decode_target(const struct operation *operation, struct errs *errs, struct row **ret)
{
	_cleanup_errs_ struct errs own = { 0 };
	_cleanup_json_ json_t *object = json_copy(operation->body);
	char address[ADDR_TEXT_MAX];
	size_t before = errs_count(errs);
	int64_t port;
	int r;

	if (!object)
		return -ENOMEM;
	if (operation->target) {
		if (parse_target(operation->target, address, &port) < 0) {
			errs_add(errs, operation->address, "bad_value", "A target is addressed as ADDRESS:PORT.");
			return -EINVAL;
		}
		settle(operation, object, "address", json_string(address), errs);
		settle(operation, object, "port", json_integer(port), errs);
	}
	r = decode_row(resource_get(RESOURCE_TARGET), object, NULL, &own, ret);
	edit_move_faults(errs, &own, operation->pointer);
	if (r == 0 && errs_count(errs) > before) {
		row_unref(*ret);
		*ret = NULL;
		return -EINVAL;
	}
	return r;
}

/* Puts the target into a copy of its upstream, in place of the one at `at` or at the end. */
static int place_target(struct row *upstream, struct row *target, const struct target *now, size_t at)
{
	struct rows *rows = &((struct upstream *)upstream)->targets;

	if (!now)
		return rows_append(rows, row_ref(target));
	row_unref(rows->items[at]);
	rows->items[at] = row_ref(target);
	return 0;
}

static void remove_target(struct row *upstream, size_t at)
{
	struct rows *rows = &((struct upstream *)upstream)->targets;

	row_unref(rows->items[at]);
	memmove(&rows->items[at], &rows->items[at + 1], (rows->n - at - 1) * sizeof(*rows->items));
	if (!--rows->n) {
		free(rows->items);
		rows->items = NULL;
	}
}

/* Makes the change in `copy`, the upstream as it will be. */
static int change_target(
        struct operation *operation, struct row *copy, const struct target *now, size_t at, struct errs *errs)
{
	_cleanup_errs_ struct errs own = { 0 };
	_cleanup_row_ struct row *target = NULL;
	const struct target *made;
	int r;

	if (operation->method == METHOD_DELETE) {
		operation->path = edit_target_path(operation->name, now);
		operation->status = 204;
		remove_target(copy, at);
		return operation->path ? 0 : -ENOMEM;
	}
	r = decode_target(operation, errs, &target);
	if (r < 0)
		return r;
	made = (const void *)target;
	if (!operation->target && target_at(copy, made->address, made->port, NULL)) {
		errs_add(errs, operation->address, "exists", "The upstream has this target already.");
		return -EEXIST;
	}
	operation->path = edit_target_path(operation->name, made);
	operation->status = now ? 200 : 201;
	r = operation->path ? place_target(copy, target, now, at) : -ENOMEM;
	if (r == 0 && (r = check_row(copy, &own)) < 0)
		edit_move_faults(errs, &own, operation->address);
	return r;
}

static int run_target(struct edit *edit, struct operation *operation, struct errs *errs)
{
	const struct row *upstream = edit_find(edit, operation->resource->id, operation->name);
	const struct target *now;
	_cleanup_row_ struct row *copy = NULL;
	size_t at = 0;
	int r;

	if (!upstream)
		return missing(operation, errs);
	now = operation->target ? edit_find_target(upstream, operation->target, &at) : NULL;
	if (!now && operation->target && operation->method != METHOD_PUT) {
		errs_add(errs, operation->address, "not_found", "The upstream has no such target.");
		return -ENOENT;
	}
	copy = row_copy(upstream);
	if (!copy)
		return -ENOMEM;
	r = change_target(operation, copy, now, at, errs);
	return r < 0 ? r : edit_set(edit, operation, operation->name, row_ref(copy), true);
}

int edit_run(struct edit *edit, struct operation *operation, struct errs *errs)
{
	if (operation->on_targets)
		return run_target(edit, operation, errs);
	switch (operation->method) {
	case METHOD_POST:
		return run_create(edit, operation, errs);
	case METHOD_PUT:
		return run_put(edit, operation, errs);
	case METHOD_PATCH:
		return run_patch(edit, operation, errs);
	case METHOD_DELETE:
		return run_delete(edit, operation, errs);
	case METHOD_NONE:
	case METHOD_GET:
	case METHOD_HEAD:
	case METHOD_OPTIONS:
	case METHODS:
		break;
	}
	return -EINVAL;
}

/* What the entry asks of the core; false if that is nothing (made and deleted again). */
static bool change_of(const struct edit_entry *entry, struct core_change *ret)
{
	*ret = (struct core_change){ .operation = entry->after ? CORE_PUT : CORE_DELETE,
		.resource = entry->resource->id,
		.name = entry->name,
		.row = entry->after,
		.if_revision = entry->if_revision,
		.pointer = entry->pointer };
	return entry->after || entry->before;
}

int edit_commit(struct edit *edit, const struct core_request *request, struct errs *errs, struct core_result *ret)
{
	_cleanup_free_ struct core_change *changes = calloc(edit->n ? edit->n : 1, sizeof(*changes));
	size_t n = 0;

	if (!changes)
		return -ENOMEM;
	for (size_t i = 0; i < edit->n; i++)
		n += change_of(&edit->entries[i], &changes[n]);
	return core_write(edit->core, changes, n, request, errs, ret);
}
