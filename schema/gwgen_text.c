/* The smaller documents: the tables for the UI, the reference manual, the fuzzer's dictionary. */
#include "schema/gwgen.h"

#include <assert.h>
#include <inttypes.h>

const char *gwgen_kind(enum field_kind kind)
{
	static const char *const words[] = { "name", "bool", "text", "int", "enum", "ref", "list", "address",
		"children", "time", "names", "prefixes" };

	static_assert(ARRAY_SIZE(words) == FIELD_KINDS, "a word for each kind");
	return words[kind];
}

const char *gwgen_item(enum item_kind item)
{
	static const char *const words[] = { "interface", "prefix", "ports", "host", "alpn", "method", "path",
		"flow_field" };

	static_assert(ARRAY_SIZE(words) == ITEM_KINDS, "a word for each kind of item");
	return words[item];
}

json_t *gwgen_default(const struct field *field)
{
	if (field_required(field))
		return NULL;
	switch (field->kind) {
	case FIELD_BOOL:
		return gwgen_need(json_boolean(field->initial));
	case FIELD_TEXT:
		return gwgen_need(json_string(field->initial_text));
	case FIELD_INT:
		return gwgen_need(json_integer(field->initial));
	case FIELD_ENUM:
		return gwgen_need(json_string(field_word(field, field->initial)));
	case FIELD_REF:
	case FIELD_TIME:
		return gwgen_need(json_null());
	case FIELD_LIST:
	case FIELD_NAMES:
	case FIELD_PREFIXES:
	case FIELD_CHILDREN:
		return gwgen_need(json_array());
	case FIELD_NAME:
	case FIELD_ADDRESS:
	case FIELD_KINDS:
		break;
	}
	return NULL;
}

/* ---- tables for the UI ---- */

static json_t *schema_planes(const struct field *field)
{
	json_t *planes = gwgen_need(json_array());

	if (field->flags & PLANE_NFT)
		json_array_append_new(planes, json_string("nft"));
	if (field->flags & PLANE_RELAY)
		json_array_append_new(planes, json_string("relay"));
	if (field->flags & PLANE_XDP)
		json_array_append_new(planes, json_string("xdp"));
	return planes;
}

static json_t *schema_words(const struct field *field)
{
	json_t *words = gwgen_need(json_array());

	for (int64_t i = 0; i <= field->max; i++)
		json_array_append_new(words, json_string(field->words[i]));
	return words;
}

static json_t *schema_field(const struct field *field)
{
	json_t *object = gwgen_need(json_pack("{s:s, s:s, s:s, s:b, s:b, s:o, s:s}", "member", field->member, "name",
	        field->key, "kind", gwgen_kind(field->kind), "key", field_is_key(field), "required",
	        field_required(field), "planes", schema_planes(field), "doc", field->doc));
	json_t *initial = gwgen_default(field);

	json_object_set_new(object, "group", field->group ? json_string(field->group) : json_null());
	if (initial)
		json_object_set_new(object, "default", initial);
	if (field->kind == FIELD_ENUM)
		json_object_set_new(object, "words", schema_words(field));
	else if (field->kind != FIELD_BOOL && field->kind != FIELD_ADDRESS) {
		json_object_set_new(object, "min", json_integer(field->min));
		json_object_set_new(object, "max", json_integer(field->max));
	}
	if (field->kind == FIELD_LIST)
		json_object_set_new(object, "item", json_string(gwgen_item(field->item)));
	if (field->target != RESOURCE_NONE)
		json_object_set_new(object, "target", json_string(resource_get(field->target)->name));
	return object;
}

static json_t *schema_resource(const struct resource *resource)
{
	json_t *fields = gwgen_need(json_array());

	for (size_t i = 0; i < resource->n_fields; i++)
		if (field_in_documents(&resource->fields[i]))
			json_array_append_new(fields, schema_field(&resource->fields[i]));
	return gwgen_need(json_pack("{s:s, s:s, s:s?, s:s?, s:b, s:s, s:o}", "name", resource->name, "plural",
	        resource->plural, "path", resource->path, "parent",
	        resource->parent == RESOURCE_NONE ? NULL : resource_get(resource->parent)->name, "single",
	        (resource->flags & RESOURCE_IS_SINGLE) != 0, "doc", resource->doc, "fields", fields));
}

void gwgen_schema(FILE *out)
{
	json_t *resources = gwgen_need(json_array());

	for (enum resource_id i = 0; i < RESOURCES; i++)
		json_array_append_new(resources, schema_resource(resource_get(i)));
	gwgen_dump(gwgen_need(json_pack("{s:i, s:o}", "version", GWGEN_USER_VERSION, "resources", resources)), out);
}

/* ---- reference manual ---- */

static void manual_values(const struct field *field, FILE *out)
{
	switch (field->kind) {
	case FIELD_NAME:
		if (field->flags & FLAG_INTERFACE)
			fprintf(out, "interface name, 1-%" PRId64 " of `a-z A-Z 0-9 . _ - @`", field->max);
		else
			fprintf(out, "name, 1-%d of `a-z 0-9 -`", NAME_MAX_BYTES);
		return;
	case FIELD_TIME:
		fputs("time as `2030-01-31T12:00:00Z`, or `null`", out);
		return;
	case FIELD_NAMES:
		fprintf(out, "list of names of %s, at most %" PRId64, resource_get(field->target)->plural, field->max);
		return;
	case FIELD_PREFIXES:
		fprintf(out, "list of prefixes, at most %" PRId64, field->max);
		return;
	case FIELD_BOOL:
		fputs("`true`, `false`", out);
		return;
	case FIELD_TEXT:
		fprintf(out, "text, at most %" PRId64 " bytes", field->max);
		return;
	case FIELD_INT:
		fprintf(out, "integer, %" PRId64 " to %" PRId64, field->min, field->max);
		return;
	case FIELD_ENUM:
		for (int64_t i = 0; i <= field->max; i++)
			fprintf(out, "%s`%s`", i ? ", " : "", field->words[i]);
		return;
	case FIELD_REF:
		fprintf(out, "name of one of the %s, or `null`", resource_get(field->target)->plural);
		return;
	case FIELD_LIST:
		fprintf(out, "list of %s items, at most %" PRId64, gwgen_item(field->item), field->max);
		return;
	case FIELD_ADDRESS:
		fputs("IPv4 or IPv6 address", out);
		return;
	case FIELD_CHILDREN:
		fprintf(out, "list of %s objects, at most %" PRId64, resource_get(field->target)->name, field->max);
		return;
	case FIELD_KINDS:
		return;
	}
}

static void manual_field(const struct field *field, FILE *out)
{
	json_t *initial = gwgen_default(field);
	_cleanup_free_ char *text = initial ? json_dumps(initial, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;

	fprintf(out, "| `%s%s%s` | ", field->group ? field->group : "", field->group ? "." : "", field->key);
	manual_values(field, out);
	fprintf(out, " | %s%s%s | %s |\n", text ? "`" : "", text ? text : "required", text ? "`" : "", field->doc);
	json_decref(initial);
}

void gwgen_manual(FILE *out)
{
	fputs("# Reference of the resources\n\n"
	      "Made by `gwgen` from `schema/*.def`; build the target `regen` after a change there.\n\n"
	      "A prefix item is an address, a prefix such as `192.0.2.0/24`, a range `first-last`, or `@name` of an\n"
	      "address set. A ports item is `443` or `8000-8100`, as a string. Items are kept in canonical text; the\n"
	      "same item twice is refused. `health.type` stands in an object: `{\"health\": {\"type\": \"tcp\"}}`.\n",
	        out);
	for (enum resource_id i = 0; i < RESOURCES; i++) {
		const struct resource *resource = resource_get(i);

		fprintf(out, "\n## %s\n\n%s", resource->name, resource->doc);
		if (resource->path)
			fprintf(out, " In the API: `/api/v1/%s`.", resource->path);
		else
			fprintf(out, " An item of the %s.", resource_get(resource->parent)->name);
		fputs("\n\n| field | values | default | meaning |\n|---|---|---|---|\n", out);
		for (size_t j = 0; j < resource->n_fields; j++)
			if (field_in_documents(&resource->fields[j]))
				manual_field(&resource->fields[j], out);
	}
}

/* ---- fuzzer's dictionary ---- */

void gwgen_dict(FILE *out)
{
	static const char *const values[] = { "null", "true", "false", "192.0.2.0/24", "2001:db8::/32",
		"192.0.2.1-192.0.2.9", "8000-8100", "65535", "-1", "9223372036854775807", "1e3" };

	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		fprintf(out, "\"%s\"\n", values[i]);
	for (enum resource_id i = 0; i < RESOURCES; i++)
		for (size_t j = 0; j < resource_get(i)->n_fields; j++) {
			const struct field *field = &resource_get(i)->fields[j];

			fprintf(out, "\"\\\"%s\\\":\"\n", field->key);
			if (field->group)
				fprintf(out, "\"\\\"%s\\\":\"\n", field->group);
			for (int64_t k = 0; field->kind == FIELD_ENUM && k <= field->max; k++)
				fprintf(out, "\"\\\"%s\\\"\"\n", field->words[k]);
		}
}
