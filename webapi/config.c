/* The configuration as one document, see config.h. */
#include "webapi/config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "schema/decode.h"
#include "webapi/edit.h"
#include "webapi/problem.h"
#include "webapi/write.h"

/* The rows of a document while it is read. */
struct reading {
	struct row **rows; /* owned references */
	size_t n, capacity;
};

static void reading_clear(struct reading *reading)
{
	for (size_t i = 0; i < reading->n; i++)
		row_unref(reading->rows[i]);
	free(reading->rows);
}

/* Takes over the reference, also on failure. */
static int reading_add(struct reading *reading, struct row *row)
{
	size_t capacity = reading->capacity ? 2 * reading->capacity : 64;
	struct row **rows;

	if (reading->n == reading->capacity) {
		rows = realloc(reading->rows, capacity * sizeof(struct row *));
		if (!rows) {
			row_unref(row);
			return -ENOMEM;
		}
		reading->rows = rows;
		reading->capacity = capacity;
	}
	reading->rows[reading->n++] = row;
	return 0;
}

/* Whether a resource is a part of the document. */
static bool is_part(const struct resource *resource)
{
	return resource->path && !(resource->flags & RESOURCE_IS_PRIVATE);
}

static const struct resource *part_of(const char *key)
{
	for (int id = 0; id < RESOURCES; id++) {
		const struct resource *resource = resource_get((enum resource_id)id);

		if (is_part(resource) && !strcmp(resource->plural, key))
			return resource;
	}
	return NULL;
}

/* The core has lists by path; the document has keys as other documents have them, and the one row of a single
 * resource instead of a list. NULL when memory is out. */
static json_t *document_of(struct core *core)
{
	_cleanup_json_ json_t *lists = core_config(core);
	json_t *document = lists ? json_object() : NULL;

	for (int id = 0; document && id < RESOURCES; id++) {
		const struct resource *resource = resource_get((enum resource_id)id);
		json_t *part = is_part(resource) ? json_object_get(lists, resource->path) : NULL;

		if (resource->flags & RESOURCE_IS_SINGLE)
			part = json_array_get(part, 0);
		if (part && json_object_set(document, resource->plural, part) < 0) {
			json_decref(document);
			return NULL;
		}
	}
	return document;
}

int config_get(const struct request *request, struct response *response)
{
	char etag[ETAG_BYTES];
	int r = write_refuse_query(request, response);

	if (!r)
		r = write_check_precondition(request, write_etag(core_revision(request->core), etag), response);
	if (r && response->status != 304)
		return r < 0 ? r : 0;
	if (response_header(response, "ETag", "%s", etag) < 0)
		return -ENOMEM;
	if (r)
		return 0;
	return response_json(response, 200, CONTENT_JSON, document_of(request->core));
}

/* One row of a list. A name that stands twice is a fault; names holds those seen. */
static int read_row(const struct resource *resource, json_t *object, const char *pointer, json_t *names,
        struct reading *reading, struct errs *errs)
{
	_cleanup_errs_ struct errs own = { 0 };
	struct row *row;
	int r = decode_row(resource, object, NULL, &own, &row);

	edit_move_faults(errs, &own, pointer);
	if (r < 0)
		return r == -EINVAL ? 0 : r;
	if (json_object_get(names, row_name(row))) {
		char at[160];

		snprintf(at, sizeof(at), "%s/name", pointer);
		errs_add(errs, at, "duplicate_name", "the name %s stands twice", row_name(row));
	} else if (json_object_set_new(names, row_name(row), json_true()) < 0) {
		row_unref(row);
		return -ENOMEM;
	}
	return reading_add(reading, row);
}

static int read_list(const struct resource *resource, json_t *list, struct reading *reading, struct errs *errs)
{
	_cleanup_json_ json_t *names = json_object();
	char pointer[128];
	int r = names ? 0 : -ENOMEM;

	snprintf(pointer, sizeof(pointer), "/%s", resource->plural);
	if (!r && (resource->flags & RESOURCE_IS_SINGLE))
		return read_row(resource, list, pointer, names, reading, errs);
	if (!json_is_array(list))
		errs_add(errs, pointer, "wrong_type", "a list is wanted here");
	for (size_t i = 0; i < json_array_size(list) && !r; i++) {
		snprintf(pointer, sizeof(pointer), "/%s/%zu", resource->plural, i);
		r = read_row(resource, json_array_get(list, i), pointer, names, reading, errs);
	}
	return r;
}

/* A single row that the document leaves out has its defaults. */
static int add_singles(const json_t *document, struct reading *reading)
{
	int r = 0;

	for (int id = 0; id < RESOURCES && !r; id++) {
		const struct resource *resource = resource_get((enum resource_id)id);
		struct row *row;

		if (!(resource->flags & RESOURCE_IS_SINGLE) || json_object_get(document, resource->plural))
			continue;
		row = row_new(resource->id);
		r = row ? reading_add(reading, row) : -ENOMEM;
	}
	return r;
}

static int read_document(json_t *document, struct reading *reading, struct errs *errs)
{
	const char *key;
	json_t *list;
	int r = 0;

	json_object_foreach(document, key, list)
	{
		const struct resource *resource = part_of(key);

		if (resource)
			r = read_list(resource, list, reading, errs);
		else
			errs_add(errs, "", "unknown_key", "a configuration has no part named \"%s\"", key);
		if (r < 0)
			return r;
	}
	return errs_count(errs) ? -EINVAL : add_singles(document, reading);
}

/* What is not a part of the document stays as it is. */
static int keep_tokens(struct core *core, struct reading *reading)
{
	const struct row *row = NULL;
	int r = 0;

	for (int id = 0; id < RESOURCES; id++) {
		const struct resource *resource = resource_get((enum resource_id)id);

		if (!resource->path || is_part(resource))
			continue;
		while (!r && core_list(core, resource->id, row ? row_name(row) : NULL, 1, &row))
			r = reading_add(reading, row_ref((struct row *)row));
		row = NULL;
	}
	return r;
}

static int replace(
        const struct request *request, json_t *document, const struct write *write, struct response *response)
{
	_cleanup_(reading_clear) struct reading reading = { 0 };
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_core_result_ struct core_result result = { 0 };
	char etag[ETAG_BYTES];
	int r = read_document(document, &reading, &errs);

	if (!r)
		r = keep_tokens(request->core, &reading);
	if (!r)
		r = core_replace(request->core, (const struct row *const *)reading.rows, reading.n, &write->core, &errs,
		        &result);
	if (r < 0)
		return problem_from_errno(response, r, request, &errs);
	if (!write->core.dry_run && response_header(response, "ETag", "%s", write_etag(result.revision, etag)) < 0)
		return -ENOMEM;
	return write_answer(request, write, &result, NULL, response);
}

int config_put(const struct request *request, struct response *response)
{
	_cleanup_json_ json_t *document = NULL;
	struct write write;
	char etag[ETAG_BYTES];
	int r = write_begin(request, &write, response);

	if (!r)
		r = write_parse_body(request, response, &document);
	if (!r)
		r = write_check_precondition(request, write_etag(core_revision(request->core), etag), response);
	if (r)
		return r < 0 ? r : 0;
	return replace(request, document, &write, response);
}
