/*
 * gateway.db.sql: one STRICT table per resource, with every range, length
 * and word as a CHECK, so that no other program can put in what decode would
 * refuse. Children hang on their parent by `parent` and `position`.
 */
#include "schema/gwgen.h"

#include <inttypes.h>

#include "schema/value.h"

#define NAME_CHECK                                                                                                     \
	"length(%1$s) BETWEEN 1 AND %2$d AND %1$s NOT GLOB '*[^a-z0-9-]*' AND %1$s NOT GLOB '-*' AND %1$s NOT GLOB "   \
	"'*-'"

static void column_enum(const struct field *field, FILE *out)
{
	fprintf(out, "TEXT NOT NULL DEFAULT '%s' CHECK (%s IN (", field_word(field, field->initial), field->member);
	for (int64_t i = 0; i <= field->max; i++)
		fprintf(out, "%s'%s'", i ? ", " : "", field->words[i]);
	fputs("))", out);
}

static void column_name(const struct field *field, FILE *out)
{
	if (field->flags & FLAG_FIXED)
		fprintf(out, "TEXT NOT NULL UNIQUE CHECK (%s = '%s')", field->member, field->initial_text);
	else if (field->flags & FLAG_INTERFACE)
		fprintf(out,
		        "TEXT NOT NULL UNIQUE CHECK (length(%1$s) BETWEEN 1 AND %2$d AND %1$s NOT GLOB "
		        "'*[^a-zA-Z0-9._@-]*')",
		        field->member, (int)field->max);
	else
		fprintf(out, "TEXT NOT NULL UNIQUE CHECK (" NAME_CHECK ")", field->member, NAME_MAX_BYTES);
}

/* Type and constraints of the field's column. */
static void column_type(const struct field *field, FILE *out)
{
	switch (field->kind) {
	case FIELD_NAME:
		column_name(field, out);
		return;
	case FIELD_BOOL:
		fprintf(out, "INTEGER NOT NULL DEFAULT %" PRId64 " CHECK (%s IN (0, 1))", field->initial,
		        field->member);
		return;
	case FIELD_TEXT:
		fprintf(out, "TEXT NOT NULL DEFAULT '%s' CHECK (length(CAST(%s AS BLOB)) <= %" PRId64 ")",
		        field->initial_text, field->member, field->max);
		return;
	case FIELD_TIME:
		fprintf(out, "INTEGER CHECK (%s BETWEEN %" PRId64 " AND %" PRId64 ")", field->member, field->min,
		        field->max);
		return;
	case FIELD_INT:
		fprintf(out, "INTEGER NOT NULL DEFAULT %" PRId64 " CHECK (%s BETWEEN %" PRId64 " AND %" PRId64 ")",
		        field->initial, field->member, field->min, field->max);
		return;
	case FIELD_ENUM:
		column_enum(field, out);
		return;
	case FIELD_REF:
		fprintf(out, "TEXT REFERENCES %s(name) ON DELETE RESTRICT", resource_get(field->target)->name);
		return;
	case FIELD_LIST:
	case FIELD_NAMES:
		/* SQLite before 3.41 counts its JSON functions as unsafe in a schema that is not trusted, and the store
		 * trusts none: the shape is checked here, the items whenever they are loaded. */
		fprintf(out, "TEXT NOT NULL DEFAULT '[]' CHECK (%1$s GLOB '[[]*]' AND length(%1$s) <= %2$" PRId64 ")",
		        field->member, 2 + field->max * (VALUE_TEXT_MAX + 3));
		return;
	case FIELD_ADDRESS:
		fprintf(out, "TEXT NOT NULL CHECK (length(%s) BETWEEN 2 AND 45)", field->member);
		return;
	case FIELD_CHILDREN:
	case FIELD_PREFIXES:
	case FIELD_KINDS:
		return;
	}
}

/* A child's key is unique within its parent; one without a key is known by its place. */
static void child_key(const struct resource *resource, FILE *out)
{
	bool any = false;

	fputs(",\n\tUNIQUE (parent", out);
	for (size_t i = 0; i < resource->n_fields; i++)
		if (field_is_key(&resource->fields[i])) {
			fprintf(out, ", %s", resource->fields[i].member);
			any = true;
		}
	fputs(any ? ")" : ", position)", out);
}

/* Prefixes have a table of their own: family (4 or 6), address and length as bytes, so that their order is that of
 * the set. */
static void prefixes_table(const struct resource *resource, const struct field *field, FILE *out)
{
	fprintf(out,
	        "\n-- The %2$s of each %1$s.\n"
	        "CREATE TABLE %1$s_%2$s (\n"
	        "\tparent INTEGER NOT NULL REFERENCES %1$s(id) ON DELETE CASCADE,\n"
	        "\tprefix BLOB NOT NULL CHECK (length(prefix) IN (6, 18)),\n"
	        "\tPRIMARY KEY (parent, prefix)\n"
	        ") STRICT, WITHOUT ROWID;\n",
	        resource->name, field->member);
}

static void table(const struct resource *resource, FILE *out)
{
	fprintf(out, "\n-- %s\nCREATE TABLE %s (\n", resource->doc, resource->name);
	/* The upper end: kernel and relay know a row by a 32-bit number. */
	fputs("\tid INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),\n"
	      "\trevision INTEGER NOT NULL CHECK (revision >= 0)",
	        out);
	if (resource->parent != RESOURCE_NONE)
		fprintf(out,
		        ",\n\tparent INTEGER NOT NULL REFERENCES %s(id) ON DELETE CASCADE,\n"
		        "\tposition INTEGER NOT NULL",
		        resource_get(resource->parent)->name);
	for (size_t i = 0; i < resource->n_fields; i++) {
		if (!field_has_column(&resource->fields[i]))
			continue;
		fprintf(out, ",\n\t%s ", resource->fields[i].member);
		column_type(&resource->fields[i], out);
	}
	if (resource->parent != RESOURCE_NONE)
		child_key(resource, out);
	fputs("\n) STRICT;\n", out);
	for (size_t i = 0; i < resource->n_fields; i++)
		if (resource->fields[i].kind == FIELD_PREFIXES)
			prefixes_table(resource, &resource->fields[i], out);
	if (resource->flags & RESOURCE_IS_SINGLE)
		fprintf(out, "INSERT INTO %s (revision, %s) VALUES (0, '%s');\n", resource->name,
		        resource->fields[0].member, resource->fields[0].initial_text);
}

/* A foreign key is looked up from the other side whenever its target is deleted. */
static void indexes(const struct resource *resource, FILE *out)
{
	for (size_t i = 0; i < resource->n_fields; i++)
		if (resource->fields[i].kind == FIELD_REF)
			fprintf(out, "CREATE INDEX %1$s_%2$s ON %1$s(%2$s) WHERE %2$s IS NOT NULL;\n", resource->name,
			        resource->fields[i].member);
}

void gwgen_sql(FILE *out)
{
	fprintf(out,
	        "-- The database of gatewayd. Made by gwgen from schema/*.def; not edited by hand.\n"
	        "-- Run in one transaction, with foreign_keys on.\n"
	        "PRAGMA application_id = %d;\n"
	        "PRAGMA user_version = %d;\n",
	        GWGEN_APPLICATION_ID, GWGEN_USER_VERSION);
	fputs("\n-- One row per change of the configuration.\n"
	      "CREATE TABLE revision (\n"
	      "\tn INTEGER PRIMARY KEY CHECK (n > 0),\n"
	      "\tcreated_at INTEGER NOT NULL, -- seconds since 1970, UTC\n"
	      "\tactor TEXT NOT NULL,\n"
	      "\tsummary TEXT NOT NULL,\n"
	      "\tconfig_hash TEXT\n"
	      ") STRICT;\n"
	      "\n-- Single values that are no resource.\n"
	      "CREATE TABLE meta (\n"
	      "\tkey TEXT PRIMARY KEY NOT NULL,\n"
	      "\tvalue TEXT NOT NULL\n"
	      ") STRICT;\n"
	      "\n-- The rows that a revision changed, as JSON: before is null for a new one, after for a deleted one.\n"
	      "-- With row ids: without them each row is part of a key, and a key is read as a whole to be compared.\n"
	      "CREATE TABLE revision_change (\n"
	      "\trevision INTEGER NOT NULL REFERENCES revision(n) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,\n"
	      "\tposition INTEGER NOT NULL,\n"
	      "\tresource TEXT NOT NULL,\n"
	      "\tname TEXT NOT NULL,\n"
	      "\tbefore TEXT,\n"
	      "\tafter TEXT,\n"
	      "\tPRIMARY KEY (revision, position)\n"
	      ") STRICT;\n"
	      "\n-- Every write that was asked for, also the refused ones.\n"
	      "CREATE TABLE audit (\n"
	      "\tid INTEGER PRIMARY KEY AUTOINCREMENT,\n"
	      "\tat INTEGER NOT NULL, -- seconds since 1970, UTC\n"
	      "\tactor TEXT NOT NULL,\n"
	      "\tmethod TEXT NOT NULL,\n"
	      "\tpath TEXT NOT NULL,\n"
	      "\tstatus INTEGER NOT NULL,\n"
	      "\trevision INTEGER NOT NULL,\n"
	      "\tdetail TEXT NOT NULL\n"
	      ") STRICT;\n"
	      "\n-- Who is shut out, and until when.\n"
	      "CREATE TABLE ban (\n"
	      "\tprefix TEXT PRIMARY KEY,\n"
	      "\treason TEXT NOT NULL,\n"
	      "\tactor TEXT NOT NULL,\n"
	      "\trate_limit TEXT NOT NULL, -- by which; empty: by hand\n"
	      "\tcreated_at INTEGER NOT NULL, -- seconds since 1970, UTC\n"
	      "\texpires_at INTEGER, -- NULL: when it is lifted\n"
	      "\tplacement TEXT NOT NULL CHECK (placement IN ('nft', 'xdp')) -- xdp: at the prefilters too\n"
	      ") STRICT, WITHOUT ROWID;\n",
	        out);
	for (enum resource_id i = 0; i < RESOURCES; i++) {
		table(resource_get(i), out);
		indexes(resource_get(i), out);
	}
	fputs("\n-- What operators have said about targets, in no revision (gatewayd/overrides.h). NULL: nothing.\n"
	      "CREATE TABLE target_runtime (\n"
	      "\ttarget INTEGER PRIMARY KEY REFERENCES target(id) ON DELETE CASCADE,\n"
	      "\tadmin_state INTEGER CHECK (admin_state BETWEEN 0 AND 2), -- up, drain, down\n"
	      "\tweight INTEGER CHECK (weight BETWEEN 0 AND 256),\n"
	      "\tover_admin INTEGER NOT NULL, -- what was configured then\n"
	      "\tover_weight INTEGER NOT NULL,\n"
	      "\tdrain_deadline INTEGER, -- seconds since 1970, UTC\n"
	      "\treset_per_s INTEGER NOT NULL CHECK (reset_per_s BETWEEN 0 AND 10000),\n"
	      "\tsaid_at INTEGER NOT NULL, -- seconds since 1970, UTC\n"
	      "\tactor TEXT NOT NULL\n"
	      ") STRICT;\n",
	        out);
}
