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

	(void)state;
	check_references(root, root);
	assert_string_equal(json_string_value(json_object_get(root, "openapi")), "3.1.0");
	schemas = json_object_get(json_object_get(root, "components"), "schemas");
	for (enum resource_id i = 0; i < RESOURCES; i++) {
		const struct resource *resource = resource_get(i);

		properties = json_object_get(json_object_get(schemas, resource->name), "properties");
		assert_int_equal(json_object_size(properties), resource->n_fields);
		if (!resource->path)
			continue;
		snprintf(path, sizeof(path), "/api/v1/%s/{name}", resource->path);
		assert_int_equal(json_object_size(json_object_get(json_object_get(root, "paths"), path)), 5);
	}
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
		assert_int_equal(json_array_size(json_object_get(resource, "fields")), resource_get(i)->n_fields);
	}
	json_decref(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_committed_sql_is_current),
		cmocka_unit_test(test_openapi),
		cmocka_unit_test(test_schema),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
