/*
 * openapi.json: the REST interface as OpenAPI 3.1. Paths and schemas of the
 * resources come from their tables; the few other paths are listed here.
 */
#include "schema/gwgen.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NAME_PATTERN "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
#define PREFIX_PATTERN "[0-9a-fA-F:.]+(/[0-9]{1,3}|-[0-9a-fA-F:.]+)?"
#define PROBLEM      "application/problem+json"
/* As webapi/rest.h has them; a test of the API asks for a page of each size. */
#define PAGE_MAX     1000
#define PAGE_DEFAULT 100
#define MERGE_PATCH  "application/merge-patch+json"

/* Which document of a resource a schema describes. */
enum shape {
	SHAPE_ANSWER,  /* every field is there */
	SHAPE_CREATE,  /* fields without a default are there */
	SHAPE_REPLACE, /* as create, but the name may be left to the path */
	SHAPE_PATCH,   /* any field, and null for its default */
};

static json_t *reference(const char *section, const char *name)
{
	return gwgen_need(json_pack("{s:s++}", "$ref", "#/components/", section, name));
}

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

static json_t *item_schema(enum item_kind item)
{
	static const char *const patterns[] = {
		"^[A-Za-z0-9._@-]{1,15}$",
		"^(" PREFIX_PATTERN "|@[a-z0-9-]{1,63})$",
		"^[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?$",
		"^(\\*\\.)?[A-Za-z0-9_-]{1,63}(\\.[A-Za-z0-9_-]{1,63})*$",
		"^[!-~]{1,32}$",
		"^[A-Z_-]{1,32}$",
		"^/[!-~]{0,254}$",
	};

	static_assert(ARRAY_SIZE(patterns) == ITEM_KINDS, "a pattern for each kind of item");

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
		return json_pack("{s:s, s:s, s:i, s:i}", "type", "string", "pattern", NAME_PATTERN, "minLength", 1,
		        "maxLength", NAME_MAX_BYTES);
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
		return field_required(field) && field->kind != FIELD_NAME;
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
	schema = gwgen_need(json_pack("{s:s, s:o, s:b}", "type", "object", "properties", properties,
	        "additionalProperties", 0));
	if (json_array_size(required) > 0)
		set(schema, "required", required);
	else
		json_decref(required);
	if (shape == SHAPE_PATCH)
		return gwgen_need(json_pack("{s:[o, {s:s}]}", "anyOf", schema, "type", "null"));
	return schema;
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
	schema = gwgen_need(json_pack("{s:s, s:s, s:o, s:b}", "type", "object", "description", resource->doc,
	        "properties", properties, "additionalProperties", 0));
	if (json_array_size(required) > 0)
		set(schema, "required", required);
	else
		json_decref(required);
	return schema;
}

static json_t *list_schema(const struct resource *resource)
{
	json_t *items = json_pack("{s:s, s:o}", "type", "array", "items", component("schemas", resource->name, ""));
	json_t *next = json_pack("{s:[s,s], s:s}", "type", "string", "null", "description",
	        "Give it as `after` for the next page; null on the last page.");
	json_t *total = json_pack("{s:s, s:i, s:s}", "type", "integer", "minimum", 0, "description",
	        "How many there are on all pages, after the filter.");

	return json_pack("{s:s, s:[s,s,s], s:{s:o, s:o, s:o}}", "type", "object", "required", "items", "next", "total",
	        "properties", "items", gwgen_need(items), "next", gwgen_need(next), "total", gwgen_need(total));
}

static json_t *problem_schema(void)
{
	return json_pack("{s:s, s:s, s:[s,s], s:{s:{s:s}, s:{s:s}, s:{s:s}, s:{s:s}, s:{s:s, s:{s:s, s:[s,s,s], "
	                 "s:{s:{s:s, s:s}, s:{s:s, s:s}, s:{s:s}}}}}}",
	        "type", "object", "description", "RFC 9457. `errors` names every fault of the request.", "required",
	        "title", "status", "properties", "type", "type", "string", "title", "type", "string", "status", "type",
	        "integer", "detail", "type", "string", "errors", "type", "array", "items", "type", "object", "required",
	        "pointer", "code", "detail", "properties", "pointer", "type", "string", "description",
	        "JSON pointer (RFC 6901) into the request body.", "code", "type", "string", "description",
	        "Stable word for programs.", "detail", "type", "string");
}

static json_t *schemas(void)
{
	json_t *all = gwgen_need(json_object());
	char name[128];

	for (enum resource_id i = 0; i < RESOURCES; i++) {
		const struct resource *resource = resource_get(i);

		set(all, resource->name, resource_schema(resource, SHAPE_ANSWER));
		snprintf(name, sizeof(name), "%s_create", resource->name);
		set(all, name, resource_schema(resource, SHAPE_CREATE));
		if (!resource->path)
			continue;
		snprintf(name, sizeof(name), "%s_replace", resource->name);
		set(all, name, resource_schema(resource, SHAPE_REPLACE));
		snprintf(name, sizeof(name), "%s_patch", resource->name);
		set(all, name, resource_schema(resource, SHAPE_PATCH));
		snprintf(name, sizeof(name), "%s_list", resource->name);
		set(all, name, list_schema(resource));
	}
	set(all, "problem", problem_schema());
	return all;
}

/* ---- parameters, headers, responses ---- */

static json_t *text(void)
{
	return json_pack("{s:s}", "type", "string");
}

static json_t *parameter(const char *name, const char *in, json_t *schema, const char *doc)
{
	return json_pack("{s:s, s:s, s:b, s:o, s:s}", "name", name, "in", in, "required", strcmp(in, "path") == 0,
	        "schema", gwgen_need(schema), "description", doc);
}

static json_t *name_schema(void)
{
	return json_pack("{s:s, s:s}", "type", "string", "pattern", NAME_PATTERN);
}

static json_t *parameters(void)
{
	json_t *all = gwgen_need(json_object());

	set(all, "name", parameter("name", "path", name_schema(), "Name of the resource."));
	set(all, "limit",
	        parameter("limit", "query",
	                json_pack("{s:s, s:i, s:i, s:i}", "type", "integer", "minimum", 1, "maximum", PAGE_MAX,
	                        "default", PAGE_DEFAULT),
	                "Most items in the answer."));
	set(all, "after", parameter("after", "query", name_schema(), "Only items with greater names."));
	set(all, "by_name",
	        parameter("name", "query", text(),
	                "Only the item of this name, or with `*` at its end those that begin so."));
	set(all, "if_match", parameter("If-Match", "header", text(), "ETag the resource must still have, else 412."));
	set(all, "if_none_match",
	        parameter("If-None-Match", "header", text(), "`*`: the resource must not exist, else 412."));
	return all;
}

static json_t *header(const char *doc)
{
	return gwgen_need(json_pack("{s:s, s:{s:s}}", "description", doc, "schema", "type", "string"));
}

static json_t *headers(void)
{
	json_t *all = gwgen_need(json_object());

	set(all, "ETag", header("Revision that wrote the resource; for If-Match."));
	set(all, "Location", header("Path of the resource that was made."));
	set(all, "Gateway-Revision", header("Revision of the configuration after the write."));
	return all;
}

/* A response with up to three headers and, unless schema is NULL, a body. */
static json_t *response(const char *doc, const char *type, json_t *schema, const char *const headers_[])
{
	json_t *answer = gwgen_need(json_pack("{s:s}", "description", doc)), *list = gwgen_need(json_object());

	for (size_t i = 0; headers_ && headers_[i]; i++)
		set(list, headers_[i], component("headers", headers_[i], ""));
	if (json_object_size(list) > 0)
		set(answer, "headers", list);
	else
		json_decref(list);
	if (schema)
		set(answer, "content", json_pack("{s:{s:o}}", type, "schema", schema));
	return answer;
}

static json_t *responses(void)
{
	json_t *all = gwgen_need(json_object());

	set(all, "problem",
	        response("The request was refused; nothing was changed.", PROBLEM, component("schemas", "problem", ""),
	                NULL));
	return all;
}

/* ---- paths ---- */

static const char *const header_etag[] = { "ETag", NULL };
static const char *const header_write[] = { "ETag", "Gateway-Revision", NULL };
static const char *const header_create[] = { "ETag", "Location", "Gateway-Revision", NULL };
static const char *const header_delete[] = { "Gateway-Revision", NULL };

static json_t *operation(const char *id, const struct resource *resource, const char *summary)
{
	json_t *all = gwgen_need(json_object()), *answers = gwgen_need(json_object());

	set(all, "operationId", resource ? json_sprintf("%s_%s", id, resource->name) : json_string(id));
	set(all, "summary", json_string(summary));
	if (resource)
		set(all, "tags", json_pack("[s]", resource->plural));
	set(answers, "default", reference("responses/", "problem"));
	set(all, "responses", answers);
	return all;
}

static void answers_with(json_t *op, const char *status, json_t *answer)
{
	set(json_object_get(op, "responses"), status, answer);
}

static void takes(json_t *op, const char *type, const struct resource *resource, const char *suffix)
{
	set(op, "requestBody",
	        json_pack("{s:b, s:{s:{s:o}}}", "required", 1, "content", type, "schema",
	                component("schemas", resource->name, suffix)));
}

static void takes_parameter(json_t *op, const char *name)
{
	json_t *list = json_object_get(op, "parameters");

	if (!list) {
		set(op, "parameters", json_array());
		list = json_object_get(op, "parameters");
	}
	json_array_append_new(list, component("parameters", name, ""));
}

static json_t *body_of(const struct resource *resource, const char *suffix)
{
	return component("schemas", resource->name, suffix);
}

static json_t *list_path(const struct resource *resource)
{
	json_t *path = gwgen_need(json_object()), *op = operation("list", resource, "All of them, sorted by name.");

	takes_parameter(op, "limit");
	takes_parameter(op, "after");
	takes_parameter(op, "by_name");
	answers_with(op, "200", response("One page.", "application/json", body_of(resource, "_list"), NULL));
	set(path, "get", op);

	op = operation("create", resource, "Makes a new one.");
	takes(op, "application/json", resource, "_create");
	answers_with(op, "201", response("Made.", "application/json", body_of(resource, ""), header_create));
	set(path, "post", op);
	return path;
}

static json_t *put_operation(const struct resource *resource)
{
	json_t *op = operation("put", resource, "Makes it or replaces it as a whole.");

	takes(op, "application/json", resource, "_replace");
	takes_parameter(op, "if_match");
	takes_parameter(op, "if_none_match");
	answers_with(op, "200", response("Replaced.", "application/json", body_of(resource, ""), header_write));
	answers_with(op, "201", response("Made.", "application/json", body_of(resource, ""), header_create));
	return op;
}

static json_t *item_path(const struct resource *resource)
{
	json_t *path = gwgen_need(json_object()), *op;

	set(path, "parameters", json_pack("[o]", component("parameters", "name", "")));
	op = operation("get", resource, "One of them.");
	answers_with(op, "200", response("It.", "application/json", body_of(resource, ""), header_etag));
	set(path, "get", op);
	set(path, "put", put_operation(resource));

	op = operation("patch", resource, "Changes some fields (RFC 7396); null sets a field to its default.");
	takes(op, MERGE_PATCH, resource, "_patch");
	takes_parameter(op, "if_match");
	answers_with(op, "200", response("Changed.", "application/json", body_of(resource, ""), header_write));
	set(path, "patch", op);

	op = operation("delete", resource, "Deletes it; 409 while another resource refers to it.");
	takes_parameter(op, "if_match");
	answers_with(op, "204", response("Deleted.", NULL, NULL, header_delete));
	set(path, "delete", op);
	return path;
}

static void system_path(json_t *paths, const char *path, const char *id, const char *summary, const char *type)
{
	json_t *op = operation(id, NULL, summary), *item = gwgen_need(json_object());
	bool json = strcmp(type, "application/json") == 0;

	answers_with(
	        op, "200", response("The answer.", type, json_pack("{s:s}", "type", json ? "object" : "string"), NULL));
	set(item, "get", op);
	set(paths, path, item);
}

static json_t *paths(void)
{
	json_t *all = gwgen_need(json_object()), *desired, *op;
	char path[256];

	for (enum resource_id i = 0; i < RESOURCES; i++) {
		const struct resource *resource = resource_get(i);

		if (!resource->path)
			continue;
		snprintf(path, sizeof(path), "/api/v1/%s", resource->path);
		set(all, path, list_path(resource));
		snprintf(path, sizeof(path), "/api/v1/%s/{name}", resource->path);
		set(all, path, item_path(resource));
	}
	system_path(all, "/api/v1/status", "status", "Version, revision, and what each plane has applied.",
	        "application/json");
	system_path(all, "/api/v1/ruleset", "ruleset", "The nft rules in force, as text.", "text/plain");
	system_path(all, "/api/v1/openapi.json", "openapi", "This document.", "application/json");
	system_path(all, "/api/v1/schema", "schema", "The tables of the resources' fields.", "application/json");
	system_path(all, "/healthz", "healthz", "Whether the daemon answers; no authentication.", "text/plain");
	system_path(all, "/readyz", "readyz", "200 when every plane has applied the configuration, else 503.",
	        "text/plain");
	op = json_object_get(json_object_get(all, "/readyz"), "get");
	answers_with(op, "503", response("Not yet.", "text/plain", text(), NULL));
	op = json_object_get(json_object_get(all, "/api/v1/ruleset"), "get");
	desired = parameter("format", "query",
	        json_pack("{s:s, s:[s,s], s:s}", "type", "string", "enum", "applied", "desired", "default", "applied"),
	        "As read from the kernel, or as rendered from the configuration.");
	set(op, "parameters", json_pack("[o]", gwgen_need(desired)));
	return all;
}

void gwgen_openapi(FILE *out)
{
	json_t *document = gwgen_need(json_object()), *components = gwgen_need(json_object());

	set(document, "openapi", json_string("3.1.0"));
	set(document, "info",
	        json_pack("{s:s, s:s, s:s}", "title", "gatewayd", "version", GW_VERSION, "description",
	                "Configuration and state of a transparent gateway."));
	set(document, "servers", json_pack("[{s:s}]", "url", "/"));
	set(document, "security", json_pack("[{s:[]}, {}]", "bearer"));
	set(document, "paths", paths());
	set(components, "schemas", schemas());
	set(components, "parameters", parameters());
	set(components, "headers", headers());
	set(components, "responses", responses());
	set(components, "securitySchemes",
	        json_pack("{s:{s:s, s:s, s:s}}", "bearer", "type", "http", "scheme", "bearer", "description",
	                "Needed over TCP; on the unix socket the peer's user is enough."));
	set(document, "components", components);
	gwgen_dump(document, out);
}
