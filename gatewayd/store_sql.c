/* The statements of the store, built from the descriptor tables and prepared once. */
#include "gatewayd/store_private.h"

#include <assert.h>
#include <errno.h>
#include <sqlite3.h>

#include "schema/field.h"

static bool is_child(const struct resource *resource)
{
	return resource->parent != RESOURCE_NONE;
}

/* The fields' columns, each with a comma in front: "column", "?parameter", or "column = ?parameter". */
static void columns(const struct resource *resource, FILE *out, bool name, bool value)
{
	int parameter = PARAMETER_FIELDS;

	for (size_t i = 0; i < resource->n_fields; i++) {
		if (!field_has_column(&resource->fields[i]))
			continue;
		fprintf(out, ", %s%s", name ? resource->fields[i].member : "", name && value ? " = " : "");
		if (value)
			fprintf(out, "?%d", parameter);
		parameter++;
	}
}

static void sql_list(const struct resource *resource, FILE *out)
{
	fprintf(out, "SELECT id, revision%s", is_child(resource) ? ", parent" : "");
	columns(resource, out, true, false);
	fprintf(out, " FROM %s ORDER BY %s", resource->name,
	        is_child(resource) ? "parent, position" : resource->fields[0].member);
}

static void sql_find(const struct resource *resource, FILE *out)
{
	int parameter = PARAMETER_FIELDS;
	bool keyed = false;

	fprintf(out, "SELECT id FROM %s WHERE ", resource->name);
	if (is_child(resource))
		fprintf(out, "parent = ?%d AND ", PARAMETER_PARENT);
	for (size_t i = 0; i < resource->n_fields; i++) {
		const struct field *field = &resource->fields[i];

		if (!field_has_column(field))
			continue;
		if (field_is_key(field)) {
			fprintf(out, "%s = ?%d AND ", field->member, parameter);
			keyed = true;
		}
		parameter++;
	}
	/* Without a key it is the place that counts; the rows that are looked for are marked. */
	if (keyed)
		fputs("1", out);
	else
		fprintf(out, "position = -1 - ?%d", PARAMETER_POSITION);
}

static void sql_insert(const struct resource *resource, FILE *out)
{
	fprintf(out, "INSERT INTO %s (id, revision%s", resource->name, is_child(resource) ? ", parent, position" : "");
	columns(resource, out, true, false);
	fprintf(out, ") VALUES (?%d, ?%d", PARAMETER_ID, PARAMETER_REVISION);
	if (is_child(resource))
		fprintf(out, ", ?%d, ?%d", PARAMETER_PARENT, PARAMETER_POSITION);
	columns(resource, out, false, true);
	fputs(")", out);
}

static void sql_update(const struct resource *resource, FILE *out)
{
	fprintf(out, "UPDATE %s SET revision = ?%d", resource->name, PARAMETER_REVISION);
	if (is_child(resource))
		fprintf(out, ", parent = ?%d, position = ?%d", PARAMETER_PARENT, PARAMETER_POSITION);
	columns(resource, out, true, true);
	fprintf(out, " WHERE id = ?%d", PARAMETER_ID);
}

/* The field whose prefixes are in a table of their own, or NULL. */
static const char *prefixes_member(const struct resource *resource)
{
	for (size_t i = 0; i < resource->n_fields; i++)
		if (resource->fields[i].kind == FIELD_PREFIXES)
			return resource->fields[i].member;
	return NULL;
}

static void sql_write(const struct resource *resource, enum store_statement statement, FILE *out)
{
	switch (statement) {
	case STATEMENT_LIST:
		sql_list(resource, out);
		return;
	case STATEMENT_FIND:
		sql_find(resource, out);
		return;
	case STATEMENT_INSERT:
		sql_insert(resource, out);
		return;
	case STATEMENT_UPDATE:
		sql_update(resource, out);
		return;
	case STATEMENT_DELETE:
		fprintf(out, "DELETE FROM %s WHERE id = ?1", resource->name);
		return;
	case STATEMENT_MARK:
		fprintf(out, "UPDATE %s SET position = -1 - position WHERE parent = ?1", resource->name);
		return;
	case STATEMENT_SWEEP:
		fprintf(out, "DELETE FROM %s WHERE parent = ?1 AND position < 0", resource->name);
		return;
	case STATEMENT_ENTRIES:
		fprintf(out, "SELECT prefix FROM %s_%s WHERE parent = ?1 ORDER BY prefix", resource->name,
		        prefixes_member(resource));
		return;
	case STATEMENT_ENTRY_ADD:
		fprintf(out, "INSERT INTO %s_%s (parent, prefix) VALUES (?1, ?2)", resource->name,
		        prefixes_member(resource));
		return;
	case STATEMENT_ENTRY_DELETE:
		fprintf(out, "DELETE FROM %s_%s WHERE parent = ?1 AND prefix = ?2", resource->name,
		        prefixes_member(resource));
		return;
	case STATEMENTS:
		return;
	}
}

static int prepare_text(struct store *store, const char *text, struct sqlite3_stmt **ret)
{
	int code = sqlite3_prepare_v3(store->db, text, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL);

	return code == SQLITE_OK ? 0 : store_fail(store, code, text);
}

static int prepare_one(struct store *store, const struct resource *resource, enum store_statement statement)
{
	_cleanup_free_ char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		return -ENOMEM;
	sql_write(resource, statement, out);
	if (fclose(out) != 0)
		return -ENOMEM;
	return prepare_text(store, text, &store->statement[resource->id][statement]);
}

static bool has_statement(const struct resource *resource, enum store_statement statement)
{
	if (statement >= STATEMENT_ENTRIES)
		return prefixes_member(resource);
	return statement < STATEMENT_MARK || is_child(resource);
}

int store_prepare(struct store *store)
{
	static const char *const commands[] = {
		[COMMAND_BEGIN] = "BEGIN IMMEDIATE",
		[COMMAND_COMMIT] = "COMMIT",
		[COMMAND_REVISION] = "SELECT ifnull(max(n), 0) FROM revision",
		[COMMAND_RECORD] = ("INSERT INTO revision (n, created_at, actor, summary, config_hash) "
		                    "VALUES (?1, ?2, ?3, ?4, ?5)"),
		[COMMAND_TRIM] = "DELETE FROM revision WHERE n <= ?1 - (SELECT revisions_kept FROM settings)",
		[COMMAND_HASH] = "SELECT config_hash FROM revision ORDER BY n DESC LIMIT 1",
	};
	int r = 0;

	static_assert(ARRAY_SIZE(commands) == COMMANDS, "a text for each command");
	for (size_t i = 0; i < COMMANDS && r == 0; i++)
		r = prepare_text(store, commands[i], &store->command[i]);
	for (enum resource_id i = 0; i < RESOURCES; i++) {
		const struct resource *resource = resource_get(i);

		for (enum store_statement j = 0; j < STATEMENTS && r == 0; j++)
			if (has_statement(resource, j))
				r = prepare_one(store, resource, j);
	}
	return r;
}
