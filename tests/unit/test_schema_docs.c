/* The documents made from the tables: the committed ones are current, the embedded ones are complete. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <string.h>

#include "schema/docs.h"
#include "schema/field.h"

static void test_committed_sql_is_current(void **state)
{
	_cleanup_fclose_ FILE *file = fopen(GW_SOURCE_DIR "/gateway.db.sql", "r");
	_cleanup_free_ char *text = NULL;
	size_t length, size = 0;

	(void)state;
	assert_non_null(file);
	assert_true(getdelim(&text, &size, '\0', file) > 0);
	assert_string_equal(text, docs_sql(&length));
	assert_int_equal(strlen(text), length);
}

/* As many fields as documents have, those of a group counted as one. */
static size_t document_keys(const struct resource *resource)
{
	size_t n = 0;

	for (size_t i = 0; i < resource->n_fields; i++) {
		const struct field *field = &resource->fields[i];

		if (field_in_documents(field) &&
		        (!field->group || i == 0 || !field[-1].group || strcmp(field->group, field[-1].group) != 0))
			n++;
	}
	return n;
}

/* What a document only shows. */
static size_t observed_keys(json_t *properties)
{
	return json_object_get(properties, "observed") ? 1 : 0;
}

static size_t fields_in_documents(const struct resource *resource)
{
	size_t n = 0;

	for (size_t i = 0; i < resource->n_fields; i++)
		n += field_in_documents(&resource->fields[i]);
	return n;
}

static json_t *load(const char *(*document)(size_t *))
{
	size_t length;
	const char *text = document(&length);
	json_t *value;

	assert_int_equal(strlen(text), length);
	value = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(value);
	return value;
}

/* Every "$ref" below the value names something that exists. */
static void check_references(json_t *root, json_t *value)
{
	const char *key;
	json_t *member;
	size_t i;

	json_array_foreach(value, i, member) check_references(root, member);
	json_object_foreach(value, key, member)
	{
		char path[256];
		json_t *at = root;

		check_references(root, member);
		if (strcmp(key, "$ref") != 0)
			continue;
		assert_int_equal(strncmp(json_string_value(member), "#/", 2), 0);
		snprintf(path, sizeof(path), "%s", json_string_value(member) + 2);
		for (char *step = strtok(path, "/"); step; step = strtok(NULL, "/"))
			at = json_object_get(at, step);
		if (!at)
			fail_msg("%s leads nowhere", json_string_value(member));
	}
}

static void test_openapi(void **state)
{
	json_t *root = load(docs_openapi), *schemas, *properties;
	char path[128];
	bool single;

	(void)state;
	check_references(root, root);
	assert_string_equal(json_string_value(json_object_get(root, "openapi")), "3.1.0");
	schemas = json_object_get(json_object_get(root, "components"), "schemas");
	for (enum resource_id i = 0; i < RESOURCES; i++) {
		const struct resource *resource = resource_get(i);

		properties = json_object_get(json_object_get(schemas, resource->name), "properties");
		assert_int_equal(json_object_size(properties), document_keys(resource) + observed_keys(properties));
		if (!resource->path)
			continue;
		single = resource->flags & RESOURCE_IS_SINGLE;
		snprintf(path, sizeof(path), single ? "/api/v1/%s" : "/api/v1/%s/{name}", resource->path);
		assert_int_equal(
		        json_object_size(json_object_get(json_object_get(root, "paths"), path)), single ? 3 : 5);
	}
	json_decref(root);
}

/* What no rule could do for the writer of openapi.json: every operation says how it can be refused. */
static void test_every_operation_can_be_refused(void **state)
{
	json_t *root = load(docs_openapi), *path, *operation;
	const char *address, *method;
	size_t n = 0;

	(void)state;
	json_object_foreach(json_object_get(root, "paths"), address, path)
	{
		json_object_foreach(path, method, operation)
		{
			json_t *responses = json_object_get(operation, "responses");

			if (!json_is_object(operation))
				continue;
			n++;
			if (!json_object_get(responses, "400") || !json_object_get(responses, "405") ||
			        !json_object_get(responses, "503"))
				fail_msg("%s %s", method, address);
			if (json_object_get(operation, "requestBody"))
				assert_non_null(json_object_get(responses, "413"));
			if (strcmp(method, "get") != 0)
				assert_non_null(json_object_get(responses, "422"));
			if (strstr(address, "{name}"))
				assert_non_null(json_object_get(responses, "404"));
		}
	}
	assert_true(n > 50);
	assert_null(json_object_get(root, "x-examples"));
	json_decref(root);
}

static void test_schema(void **state)
{
	json_t *root = load(docs_schema), *resources = json_object_get(root, "resources");

	(void)state;
	assert_int_equal(json_array_size(resources), RESOURCES);
	for (enum resource_id i = 0; i < RESOURCES; i++) {
		json_t *resource = json_array_get(resources, (size_t)i);

		assert_string_equal(json_string_value(json_object_get(resource, "name")), resource_get(i)->name);
		assert_int_equal(
		        json_array_size(json_object_get(resource, "fields")), fields_in_documents(resource_get(i)));
	}
	json_decref(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_committed_sql_is_current),
		cmocka_unit_test(test_openapi),
		cmocka_unit_test(test_every_operation_can_be_refused),
		cmocka_unit_test(test_schema),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
