/*
 * The REST interface as OpenAPI 3.1. Paths and schemas of the resources come
 * from their tables; everything else is written by hand in openapi.json and
 * merged with them. Errors are added to every operation by one rule.
 */
#include "schema/gwgen.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "schema/decode.h"
#include "schema/encode.h"
#include "schema/flow_field.h"

#define INTERFACE_PATTERN "^[A-Za-z0-9._@-]{1,15}$"
#define NAME_PATTERN      "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
#define PREFIX_PATTERN    "[0-9a-fA-F:.]+(/[0-9]{1,3}|-[0-9a-fA-F:.]+)?"
#define PROBLEM           "application/problem+json"
#define MERGE_PATCH       "application/merge-patch+json"

/* Which document of a resource a schema describes. */
enum shape {
	SHAPE_ANSWER,  /* every field is there */
	SHAPE_CREATE,  /* fields without a default are there */
	SHAPE_REPLACE, /* as create, but the name (or key) may be left to the path */
	SHAPE_PATCH,   /* any field, and null for its default */
};

static json_t *component(const char *section, const char *prefix, const char *suffix)
{
	return gwgen_need(json_pack("{s:o}", "$ref", json_sprintf("#/components/%s/%s%s", section, prefix, suffix)));
}

static void set(json_t *object, const char *key, json_t *value)
{
	if (json_object_set_new(object, key, gwgen_need(value)) < 0)
		gwgen_need(NULL);
}

/* ---- schemas of fields ---- */

static json_t *flow_field_words(void)
{
	json_t *words = gwgen_need(json_array());

	for (int i = 0; i < FLOW_FIELDS; i++)
		json_array_append_new(words, json_string(flow_field_word((enum flow_field)i)));
	return words;
}

static json_t *item_schema(enum item_kind item)
{
	static const char *const patterns[] = {
		INTERFACE_PATTERN,
		"^(" PREFIX_PATTERN "|@[a-z0-9-]{1,63})$",
		"^[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?$",
		"^(\\*\\.)?[A-Za-z0-9_-]{1,63}(\\.[A-Za-z0-9_-]{1,63})*$",
		"^[!-~]{1,32}$",
		"^[A-Z_-]{1,32}$",
		"^/[!-~]{0,254}$",
		NULL,
	};

	static_assert(ARRAY_SIZE(patterns) == ITEM_KINDS, "a pattern for each kind of item, or its words");
	if (item == ITEM_FLOW_FIELD)
		return gwgen_need(json_pack("{s:s, s:o}", "type", "string", "enum", flow_field_words()));
	return gwgen_need(json_pack("{s:s, s:s}", "type", "string", "pattern", patterns[item]));
}

static json_t *enum_words(const struct field *field)
{
	json_t *words = gwgen_need(json_array());

	for (int64_t i = 0; i <= field->max; i++)
		json_array_append_new(words, json_string(field->words[i]));
	return words;
}

static json_t *text_schema(const struct field *field)
{
	/* maxLength counts characters, our limit bytes: a text within both is always taken. */
	return json_pack("{s:s, s:I, s:I}", "type", "string", "maxLength", (json_int_t)field->max, "x-max-bytes",
	        (json_int_t)field->max);
}

static json_t *field_type(const struct field *field)
{
	switch (field->kind) {
	case FIELD_NAME:
		return json_pack("{s:s, s:s, s:i, s:I}", "type", "string", "pattern",
		        field->flags & FLAG_INTERFACE ? INTERFACE_PATTERN : NAME_PATTERN, "minLength", 1, "maxLength",
		        (json_int_t)field->max);
	case FIELD_TIME:
		return json_pack("{s:[s,s], s:s}", "type", "string", "null", "format", "date-time");
	case FIELD_NAMES:
		return json_pack("{s:s, s:{s:s, s:s}, s:I, s:b, s:s}", "type", "array", "items", "type", "string",
		        "pattern", NAME_PATTERN, "maxItems", (json_int_t)field->max, "uniqueItems", 1, "x-refers-to",
		        resource_get(field->target)->plural);
	case FIELD_PREFIXES:
		return json_pack("{s:s, s:{s:s, s:s}, s:I}", "type", "array", "items", "type", "string", "pattern",
		        "^" PREFIX_PATTERN "$", "maxItems", (json_int_t)field->max);
	case FIELD_BOOL:
		return json_pack("{s:s}", "type", "boolean");
	case FIELD_TEXT:
		return text_schema(field);
	case FIELD_INT:
		return json_pack("{s:s, s:I, s:I}", "type", "integer", "minimum", (json_int_t)field->min, "maximum",
		        (json_int_t)field->max);
	case FIELD_ENUM:
		return json_pack("{s:s, s:o}", "type", "string", "enum", enum_words(field));
	case FIELD_REF:
		return json_pack("{s:[s,s], s:s, s:s}", "type", "string", "null", "pattern", NAME_PATTERN,
		        "x-refers-to", resource_get(field->target)->plural);
	case FIELD_LIST:
		return json_pack("{s:s, s:o, s:I, s:b}", "type", "array", "items", item_schema(field->item), "maxItems",
		        (json_int_t)field->max, "uniqueItems", 1);
	case FIELD_ADDRESS:
		return json_pack(
		        "{s:s, s:[{s:s}, {s:s}]}", "type", "string", "anyOf", "format", "ipv4", "format", "ipv6");
	case FIELD_CHILDREN:
		return json_pack("{s:s, s:I}", "type", "array", "maxItems", (json_int_t)field->max);
	case FIELD_KINDS:
		break;
	}
	return NULL;
}

static json_t *field_schema(const struct field *field, enum shape shape)
{
	json_t *schema = gwgen_need(field_type(field)), *initial = gwgen_default(field);

	if (field->kind == FIELD_CHILDREN)
		set(schema, "items",
		        component(
		                "schemas", resource_get(field->target)->name, shape == SHAPE_ANSWER ? "" : "_create"));
	if (initial && shape != SHAPE_ANSWER)
		set(schema, "default", initial);
	else
		json_decref(initial);
	if (shape == SHAPE_PATCH && field->kind != FIELD_NAME)
		schema = gwgen_need(json_pack("{s:[o, {s:s}]}", "anyOf", schema, "type", "null"));
	set(schema, "description", json_string(field->doc));
	return schema;
}

static bool is_required(const struct field *field, enum shape shape)
{
	switch (shape) {
	case SHAPE_ANSWER:
		return true;
	case SHAPE_CREATE:
		return field_required(field);
	case SHAPE_REPLACE:
		return field_required(field) && !field_is_key(field);
	case SHAPE_PATCH:
		break;
	}
	return false;
}

static bool is_first_of_group(const struct resource *resource, size_t index)
{
	const char *group = resource->fields[index].group;

	return index == 0 || !resource->fields[index - 1].group ||
	       strcmp(resource->fields[index - 1].group, group) != 0;
}

/* The object that a group of fields stands in. */
static json_t *group_schema(const struct resource *resource, const char *group, enum shape shape)
{
	json_t *properties = gwgen_need(json_object()), *required = gwgen_need(json_array()), *schema;

	for (size_t i = 0; i < resource->n_fields; i++) {
		const struct field *field = &resource->fields[i];

		if (!field->group || strcmp(field->group, group) != 0)
			continue;
		set(properties, field->key, field_schema(field, shape));
		if (is_required(field, shape))
			json_array_append_new(required, json_string(field->key));
	}
	schema = gwgen_need(
	        json_pack("{s:s, s:o, s:b}", "type", "object", "properties", properties, "additionalProperties", 0));
	if (json_array_size(required) > 0)
		set(schema, "required", required);
	else
		json_decref(required);
	if (shape == SHAPE_PATCH)
		return gwgen_need(json_pack("{s:[o, {s:s}]}", "anyOf", schema, "type", "null"));
	return schema;
}

/* What is observed has a schema written by hand; a write may bring it back. */
static json_t *observed_schema(const struct resource *resource, enum shape shape)
{
	if (shape == SHAPE_ANSWER)
		return component("schemas", resource->name, "_" FIELD_OBSERVED);
	return json_pack("{s:b, s:s}", "readOnly", 1, "description", "As it was got; not looked at.");
}

static json_t *resource_schema(const struct resource *resource, enum shape shape)
{
	json_t *properties = gwgen_need(json_object()), *required = gwgen_need(json_array()), *schema;

	for (size_t i = 0; i < resource->n_fields; i++) {
		const struct field *field = &resource->fields[i];

		if (!field_in_documents(field))
			continue;
		if (field->group) {
			if (is_first_of_group(resource, i))
				set(properties, field->group, group_schema(resource, field->group, shape));
			if (shape == SHAPE_ANSWER && is_first_of_group(resource, i))
				json_array_append_new(required, json_string(field->group));
			continue;
		}
		set(properties, field->key, field_schema(field, shape));
		if (is_required(field, shape))
			json_array_append_new(required, json_string(field->key));
	}
	if (resource->flags & RESOURCE_IS_OBSERVED)
		set(properties, FIELD_OBSERVED, observed_schema(resource, shape));
	schema = gwgen_need(json_pack("{s:s, s:s, s:o, s:b}", "type", "object", "description", resource->doc,
	        "properties", properties, "additionalProperties", 0));
	if (json_array_size(required) > 0)
		set(schema, "required", required);
	else
		json_decref(required);
	return schema;
}

static void replace_text(json_t *array, const char *old, const char *new)
{
	for (size_t i = 0; i < json_array_size(array); i++)
		if (strcmp(json_string_value(json_array_get(array, i)), old) == 0)
			json_array_set_new(array, i, gwgen_need(json_string(new)));
}

/* What stands for a row in a list: itself, or of a row with many prefixes (webapi/rest.h) their number. */
static json_t *item_of_list(const struct resource *resource)
{
	json_t *item = component("schemas", resource->name, ""), *brief;
	char key[128];

	for (size_t i = 0; i < resource->n_fields; i++) {
		if (resource->fields[i].kind != FIELD_PREFIXES)
			continue;
		brief = resource_schema(resource, SHAPE_ANSWER);
		snprintf(key, sizeof(key), "%s_count", resource->fields[i].member);
		json_object_del(json_object_get(brief, "properties"), resource->fields[i].member);
		set(json_object_get(brief, "properties"), key,
		        json_pack("{s:s, s:i}", "type", "integer", "minimum", 0));
		replace_text(json_object_get(brief, "required"), resource->fields[i].member, key);
		return gwgen_need(json_pack("{s:[o, o]}", "anyOf", item, brief));
	}
	return item;
}

static json_t *list_schema(const struct resource *resource)
{
	json_t *items = json_pack("{s:s, s:o}", "type", "array", "items", item_of_list(resource));
	json_t *next = json_pack("{s:[s,s], s:s}", "type", "string", "null", "description",
	        "Give it as `after` for the next page; null on the last page.");
	json_t *total = json_pack("{s:s, s:i, s:s}", "type", "integer", "minimum", 0, "description",
	        "How many there are on all pages, after the filter.");

	return json_pack("{s:s, s:[s,s,s], s:{s:o, s:o, s:o}}", "type", "object", "required", "items", "next", "total",
	        "properties", "items", gwgen_need(items), "next", gwgen_need(next), "total", gwgen_need(total));
}

/* A schema under a name that is made of the resource's. */
static void set_schema(json_t *all, const struct resource *resource, const char *suffix, json_t *schema)
{
	char name[128];

	snprintf(name, sizeof(name), "%s%s", resource->name, suffix);
	set(all, name, schema);
}

/* Whether an item of a parent has a path of its own, since it has a key. */
static bool is_addressed(const struct resource *resource)
{
	for (size_t i = 0; i < resource->n_fields; i++)
		if (field_is_key(&resource->fields[i]))
			return true;
	return false;
}

static void add_schemas(json_t *all)
{
	for (enum resource_id i = 0; i < RESOURCES; i++) {
		const struct resource *resource = resource_get(i);

		set_schema(all, resource, "", resource_schema(resource, SHAPE_ANSWER));
		set_schema(all, resource, "_create", resource_schema(resource, SHAPE_CREATE));
		if (!resource->path && !is_addressed(resource))
			continue;
		set_schema(all, resource, "_replace", resource_schema(resource, SHAPE_REPLACE));
		if (i != RESOURCE_TARGET) /* what is said of one target has a schema of its own, written by hand */
			set_schema(all, resource, "_patch", resource_schema(resource, SHAPE_PATCH));
		if (resource->path && !(resource->flags & RESOURCE_IS_SINGLE))
			set_schema(all, resource, "_list", list_schema(resource));
	}
}

/* The configuration as one document: a list per resource, the object of a single one. */
static json_t *config_schema(const char *suffix)
{
	json_t *properties = gwgen_need(json_object());

	for (enum resource_id i = 0; i < RESOURCES; i++) {
		const struct resource *resource = resource_get(i);
		json_t *item;

		if (!resource->path || (resource->flags & RESOURCE_IS_PRIVATE))
			continue;
		item = component("schemas", resource->name, suffix);
		set(properties, resource->plural,
		        resource->flags & RESOURCE_IS_SINGLE ? item
		                                             : json_pack("{s:s, s:o}", "type", "array", "items", item));
	}
	return json_pack("{s:s, s:o, s:b}", "type", "object", "properties", properties, "additionalProperties", 0);
}

/* ---- examples ---- */

/* The example of a resource as it stands in openapi.json: what a client sends. */
static json_t *example(json_t *document, const struct resource *resource)
{
	json_t *value = json_object_get(json_object_get(document, "x-examples"), resource->name);

	if (!value) {
		fprintf(stderr, "gwgen: openapi.json has no example of %s\n", resource->name);
		exit(2);
	}
	return value;
}

/* The same as the gateway answers it, with every field. Ends the program if it would be refused. */
static json_t *example_answer(json_t *document, const struct resource *resource)
{
	_cleanup_errs_ struct errs errs = { 0 };
	struct row *row = NULL;
	json_t *answer;

	if (decode_row(resource, example(document, resource), NULL, &errs, &row) < 0) {
		fprintf(stderr, "gwgen: the example of %s is refused: %s\n", resource->name,
		        errs.n ? errs.items[0].detail : "?");
		exit(2);
	}
	answer = gwgen_need(encode_row(row));
	row_unref(row);
	return answer;
}

/* ---- operations ---- */

/* What operations of one resource are made with. */
struct subject {
	json_t *document;
	const struct resource *resource;
};

static json_t *operation(const struct subject *subject, const char *id, const char *summary)
{
	return gwgen_need(json_pack("{s:o, s:s, s:[s], s:[], s:{}}", "operationId",
	        json_sprintf("%s_%s", id, subject->resource->name), "summary", summary, "tags",
	        subject->resource->plural, "parameters", "responses"));
}

static void takes_parameters(json_t *op, const char *const names[])
{
	for (size_t i = 0; names[i]; i++)
		json_array_append_new(json_object_get(op, "parameters"), component("parameters", names[i], ""));
}

static void takes(const struct subject *subject, json_t *op, const char *type, const char *suffix, json_t *value)
{
	set(op, "requestBody",
	        json_pack("{s:b, s:{s:{s:o, s:o}}}", "required", 1, "content", type, "schema",
	                component("schemas", subject->resource->name, suffix), "example", gwgen_need(value)));
}

static json_t *headers_of(const char *const names[])
{
	json_t *list = gwgen_need(json_object());

	for (size_t i = 0; names[i]; i++)
		set(list, names[i], component("headers", names[i], ""));
	return list;
}

/* An answer with headers and, unless schema is NULL, a body. */
static void answers(
        json_t *op, const char *status, const char *doc, const char *const headers[], json_t *schema, json_t *value)
{
	json_t *answer = gwgen_need(json_pack("{s:s, s:o}", "description", doc, "headers", headers_of(headers)));

	if (json_object_size(json_object_get(answer, "headers")) == 0)
		json_object_del(answer, "headers");
	if (schema)
		set(answer, "content",
		        json_pack("{s:{s:o, s:o*}}", "application/json", "schema", schema, "example", value));
	set(json_object_get(op, "responses"), status, answer);
}

#define WRITE_HEADERS    "Gateway-Revision", "Gateway-Confirm-Deadline", "Gateway-Warning", "Server-Timing"
#define WRITE_PARAMETERS "dry_run", "confirm_within"
static const char *const no_headers[] = { NULL };
static const char *const read_headers[] = { "ETag", NULL };
static const char *const changed_headers[] = { "ETag", WRITE_HEADERS, NULL };
static const char *const made_headers[] = { "ETag", "Location", WRITE_HEADERS, NULL };
static const char *const gone_headers[] = { WRITE_HEADERS, NULL };

/* The object itself; of a new token also its secret, this once. */
static json_t *body_of(const struct subject *subject, bool made)
{
	json_t *schema = component("schemas", subject->resource->name, ""), *whole;

	if (!made || subject->resource->id != RESOURCE_TOKEN)
		return schema;
	json_decref(schema);
	whole = resource_schema(subject->resource, SHAPE_ANSWER);
	set(json_object_get(whole, "properties"), "token",
	        json_pack("{s:s, s:s}", "type", "string", "description", "The secret; it is shown only here."));
	json_array_append_new(json_object_get(whole, "required"), json_string("token"));
	return whole;
}

static json_t *made_example(const struct subject *subject)
{
	json_t *value = example_answer(subject->document, subject->resource);

	if (subject->resource->id == RESOURCE_TOKEN)
		set(value, "token", json_string("gwt_0123456789abcdef"));
	return value;
}

static json_t *or_dry_run(json_t *schema)
{
	return json_pack("{s:[o, o]}", "anyOf", schema, component("schemas", "dry_run", ""));
}

static json_t *list_operation(const struct subject *subject)
{
	json_t *op = operation(subject, "list", "All of them, sorted by name.");
	json_t *page = json_pack(
	        "{s:[o], s:n, s:i}", "items", example_answer(subject->document, subject->resource), "next", "total", 1);

	takes_parameters(op, (const char *const[]){ "limit", "after", "by_name", "if_none_match_get", NULL });
	answers(op, "200", "One page.", read_headers, component("schemas", subject->resource->name, "_list"), page);
	return op;
}

static json_t *create_operation(const struct subject *subject)
{
	json_t *op = operation(subject, "create", "Makes a new one.");

	takes(subject, op, "application/json", "_create", json_incref(example(subject->document, subject->resource)));
	takes_parameters(op, (const char *const[]){ "if_match", WRITE_PARAMETERS, NULL });
	answers(op, "200", "What it would do (dry_run).", no_headers, component("schemas", "dry_run", ""), NULL);
	answers(op, "201", "Made.", made_headers, body_of(subject, true), made_example(subject));
	return op;
}

static json_t *get_operation(const struct subject *subject)
{
	json_t *op = operation(subject, "get", "One of them.");

	takes_parameters(op, (const char *const[]){ "if_none_match_get", NULL });
	answers(op, "200", "It.", read_headers, body_of(subject, false),
	        example_answer(subject->document, subject->resource));
	return op;
}

static json_t *put_operation(const struct subject *subject)
{
	bool single = subject->resource->flags & RESOURCE_IS_SINGLE;
	json_t *op =
	        operation(subject, "put", single ? "Replaces it as a whole." : "Makes it or replaces it as a whole.");
	json_t *body = json_deep_copy(example(subject->document, subject->resource));

	json_object_del(body, "name");
	takes(subject, op, "application/json", "_replace", body);
	takes_parameters(op, (const char *const[]){ "if_match", "if_none_match", WRITE_PARAMETERS, NULL });
	answers(op, "200", "Replaced; or what it would do (dry_run).", changed_headers,
	        or_dry_run(body_of(subject, false)), example_answer(subject->document, subject->resource));
	if (!single)
		answers(op, "201", "Made.", made_headers, body_of(subject, true), made_example(subject));
	return op;
}

/* What a patch may look like: the first field that has a default, set to it. */
static json_t *patch_example(const struct resource *resource)
{
	for (size_t i = 0; i < resource->n_fields; i++) {
		const struct field *field = &resource->fields[i];
		json_t *initial = field->group || !field_in_documents(field) ? NULL : gwgen_default(field);

		if (initial)
			return json_pack("{s:o}", field->key, initial);
	}
	return json_object();
}

static json_t *patch_operation(const struct subject *subject)
{
	json_t *op = operation(subject, "patch", "Changes some fields (RFC 7396); null sets a field to its default.");

	takes(subject, op, MERGE_PATCH, "_patch", patch_example(subject->resource));
	takes_parameters(op, (const char *const[]){ "if_match", WRITE_PARAMETERS, NULL });
	answers(op, "200", "Changed; or what it would do (dry_run).", changed_headers,
	        or_dry_run(body_of(subject, false)), example_answer(subject->document, subject->resource));
	return op;
}

static json_t *delete_operation(const struct subject *subject)
{
	json_t *op = operation(subject, "delete", "Deletes it; 409 while another object refers to it.");

	takes_parameters(op, (const char *const[]){ "if_match", WRITE_PARAMETERS, NULL });
	answers(op, "200", "What it would do (dry_run).", no_headers, component("schemas", "dry_run", ""), NULL);
	answers(op, "204", "Deleted.", gone_headers, NULL, NULL);
	return op;
}

static json_t *name_parameter(const struct resource *resource)
{
	const struct field *field = &resource->fields[0];

	return json_pack("{s:s, s:s, s:b, s:o, s:s}", "name", "name", "in", "path", "required", 1, "schema",
	        gwgen_need(field_type(field)), "description", field->doc);
}

static void add_resource(json_t *paths, const struct subject *subject)
{
	json_t *list = gwgen_need(json_object()), *item = gwgen_need(json_object());
	bool single = subject->resource->flags & RESOURCE_IS_SINGLE;
	char path[256];

	if (!single) {
		set(list, "get", list_operation(subject));
		set(list, "post", create_operation(subject));
		set(item, "parameters", json_pack("[o]", name_parameter(subject->resource)));
		set(item, "delete", delete_operation(subject));
	}
	set(item, "get", get_operation(subject));
	set(item, "put", put_operation(subject));
	set(item, "patch", patch_operation(subject));
	snprintf(path, sizeof(path), "/api/v1/%s", subject->resource->path);
	if (single) {
		json_decref(list);
		set(paths, path, item);
		return;
	}
	set(paths, path, list);
	snprintf(path, sizeof(path), "/api/v1/%s/{name}", subject->resource->path);
	set(paths, path, item);
}

static void add_resources(json_t *document)
{
	json_t *tags = json_object_get(document, "tags");

	for (enum resource_id i = 0; i < RESOURCES; i++) {
		struct subject subject = { document, resource_get(i) };

		if (!subject.resource->path) {
			json_decref(example_answer(document, subject.resource)); /* it is one at least */
			continue;
		}
		add_resource(json_object_get(document, "paths"), &subject);
		json_array_append_new(tags, gwgen_need(json_pack("{s:s, s:s}", "name", subject.resource->plural,
		                                    "description", subject.resource->doc)));
	}
}

/* ---- errors ---- */

/* Which operations can be answered with which refusal. */
enum kind {
	EVERY = 1 << 0,
	SECURED = 1 << 1, /* not public */
	NAMED = 1 << 2,   /* the path has a parameter */
	WRITE = 1 << 3,
	BODY = 1 << 4,
	CONDITIONAL = 1 << 5, /* takes If-Match or If-None-Match */
	CACHED = 1 << 6,      /* a GET with If-None-Match */
};

static const struct refusal {
	unsigned kinds;
	const char *status, *doc;
	const char *header;
} refusals[] = {
	{ CACHED, "304", "Still the same.", "ETag" },
	{ EVERY, "400", "Malformed: framing, query or JSON.", NULL },
	{ SECURED, "401", "A valid token is needed.", "WWW-Authenticate" },
	{ SECURED, "403", "The role or the CSRF token does not allow it.", NULL },
	{ NAMED, "404", "There is no such thing.", NULL },
	{ EVERY, "405", "The method is not for this path.", "Allow" },
	{ BODY, "408", "The body did not arrive in time.", NULL },
	{ WRITE, "409",
	        "In conflict: the name is taken, two listeners match alike, in use, or a change waits to be confirmed.",
	        NULL },
	{ CONDITIONAL, "412", "The object is not in the state that was asked for.", "ETag" },
	{ BODY, "413", "The body is too large.", NULL },
	{ BODY, "415", "The media type is not accepted.", NULL },
	{ EVERY, "421", "This server does not answer for that host.", NULL },
	{ WRITE, "422", "Not valid; `errors` names every fault.", NULL },
	{ SECURED, "429", "Too many attempts or readers.", "Retry-After" },
	{ EVERY, "503", "Not possible now: the kernel, the disk or the relay refuses; nothing was changed.", NULL },
};

static bool has_parameter(json_t *op, const char *name)
{
	char wanted[128];
	json_t *parameter;
	size_t i;

	snprintf(wanted, sizeof(wanted), "#/components/parameters/%s", name);
	json_array_foreach(json_object_get(op, "parameters"), i, parameter)
	{
		const char *found = json_string_value(json_object_get(parameter, "$ref"));

		if (found && strcmp(found, wanted) == 0)
			return true;
	}
	return false;
}

static unsigned kinds_of(const char *path, const char *method, json_t *op)
{
	json_t *security = json_object_get(op, "security");
	unsigned kinds = EVERY;

	if (!security || strcmp(method, "get") != 0)
		kinds |= SECURED;
	if (strchr(path, '{'))
		kinds |= NAMED;
	if (strcmp(method, "get") != 0)
		kinds |= WRITE;
	if (json_object_get(op, "requestBody"))
		kinds |= BODY;
	if (has_parameter(op, "if_match") || has_parameter(op, "if_none_match"))
		kinds |= CONDITIONAL;
	if (has_parameter(op, "if_none_match_get"))
		kinds |= CACHED;
	return kinds;
}

static json_t *refusal_response(const struct refusal *refusal)
{
	json_t *answer = gwgen_need(json_pack("{s:s}", "description", refusal->doc));
	int status = atoi(refusal->status);

	if (refusal->header)
		set(answer, "headers", json_pack("{s:o}", refusal->header, component("headers", refusal->header, "")));
	if (status >= 400)
		set(answer, "content",
		        json_pack("{s:{s:o, s:{s:s, s:s, s:i, s:s}}}", PROBLEM, "schema",
		                component("schemas", "problem", ""), "example", "type", "about:blank", "title",
		                refusal->doc, "status", status, "detail", refusal->doc));
	return answer;
}

static void add_refusals(const char *path, const char *method, json_t *op)
{
	json_t *responses = json_object_get(op, "responses");
	unsigned kinds = kinds_of(path, method, op);

	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++)
		if ((refusals[i].kinds & kinds) && !json_object_get(responses, refusals[i].status))
			set(responses, refusals[i].status, component("responses", "refused_", refusals[i].status));
}

static void add_errors(json_t *document)
{
	json_t *responses = gwgen_need(json_object()), *item, *op;
	const char *path, *method;
	char name[32];

	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		snprintf(name, sizeof(name), "refused_%s", refusals[i].status);
		set(responses, name, refusal_response(&refusals[i]));
	}
	set(json_object_get(document, "components"), "responses", responses);
	json_object_foreach(json_object_get(document, "paths"), path, item)
	        json_object_foreach(item, method, op) if (json_is_object(op)) add_refusals(path, method, op);
}

/* ---- document ---- */

static json_t *read_hand_written(void)
{
	json_error_t error;
	json_t *document = json_load_file(GW_SCHEMA_DIR "/openapi.json", JSON_REJECT_DUPLICATES, &error);

	if (!document) {
		fprintf(stderr, "gwgen: openapi.json, line %d: %s\n", error.line, error.text);
		exit(2);
	}
	return document;
}

void gwgen_openapi(FILE *out)
{
	json_t *document = read_hand_written(), *schemas;

	schemas = json_object_get(json_object_get(document, "components"), "schemas");
	set(json_object_get(document, "info"), "version", json_string(GW_VERSION));
	add_schemas(schemas);
	set(schemas, "config", config_schema(""));
	set(schemas, "config_replace", config_schema("_create"));
	add_resources(document);
	add_errors(document);
	json_object_del(document, "x-examples");
	gwgen_dump(document, out);
}
