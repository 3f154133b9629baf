/*
 * Rows to and from the database; see store.h. Generic over the descriptor
 * tables: bind and load have one switch each over the kinds of field.
 */
#include "gatewayd/store.h"

#include <errno.h>
#include <sqlite3.h>
#include <string.h>
#include <time.h>

#include "gatewayd/store_private.h"
#include "schema/check.h"
#include "schema/decode.h"
#include "schema/encode.h"
#include "schema/hash.h"

/* A cached statement that is free for its next use when it goes out of scope. */
static void reset_p(struct sqlite3_stmt **statement)
{
	if (*statement) {
		sqlite3_reset(*statement);
		sqlite3_clear_bindings(*statement);
	}
}

#define _cleanup_reset_ _cleanup_(reset_p)

/* ---- writing ---- */

static int bind_text(struct sqlite3_stmt *statement, int parameter, const char *text)
{
	return text ? sqlite3_bind_text(statement, parameter, text, -1, SQLITE_TRANSIENT)
	            : sqlite3_bind_null(statement, parameter);
}

static int bind_list(struct sqlite3_stmt *statement, int parameter, const struct strings *list)
{
	char *text = encode_list(list);

	return text ? sqlite3_bind_text(statement, parameter, text, -1, free) : SQLITE_NOMEM;
}

static int bind_field(struct sqlite3_stmt *statement, int parameter, const struct field *field, const struct row *row)
{
	switch (field->kind) {
	case FIELD_NAME:
		return bind_text(statement, parameter, FIELD_AT_CONST(row, field, char));
	case FIELD_BOOL:
		return sqlite3_bind_int(statement, parameter, *FIELD_AT_CONST(row, field, bool));
	case FIELD_INT:
		return sqlite3_bind_int64(statement, parameter, *FIELD_AT_CONST(row, field, int64_t));
	case FIELD_ENUM:
		return bind_text(statement, parameter, field_word(field, *FIELD_AT_CONST(row, field, int64_t)));
	case FIELD_TEXT:
	case FIELD_REF:
	case FIELD_ADDRESS:
		return bind_text(statement, parameter, *FIELD_AT_CONST(row, field, char *));
	case FIELD_TIME:
		return *FIELD_AT_CONST(row, field, int64_t)
		               ? sqlite3_bind_int64(statement, parameter, *FIELD_AT_CONST(row, field, int64_t))
		               : sqlite3_bind_null(statement, parameter);
	case FIELD_LIST:
	case FIELD_NAMES:
		return bind_list(statement, parameter, FIELD_AT_CONST(row, field, struct strings));
	case FIELD_CHILDREN:
	case FIELD_PREFIXES:
	case FIELD_KINDS:
		break;
	}
	return SQLITE_OK;
}

/* Binds the fields' columns, or only those of the key. */
static int bind_fields(struct sqlite3_stmt *statement, const struct row *row, bool key_only)
{
	const struct resource *resource = resource_get(row->resource);
	int parameter = PARAMETER_FIELDS, code = SQLITE_OK;

	for (size_t i = 0; i < resource->n_fields && code == SQLITE_OK; i++) {
		const struct field *field = &resource->fields[i];

		if (!field_has_column(field))
			continue;
		if (!key_only || field_is_key(field))
			code = bind_field(statement, parameter, field, row);
		parameter++;
	}
	return code;
}

/* Where a row hangs: parent 0 for one that is no child. */
struct place {
	int64_t parent, position;
};

/* The id of the stored row with the same key, or for children without one of the marked row at the same place; 0 if
 * there is none. */
static int find_id(struct store *store, const struct row *row, const struct place *place, int64_t *ret)
{
	_cleanup_reset_ struct sqlite3_stmt *statement = store->statement[row->resource][STATEMENT_FIND];
	int code = bind_fields(statement, row, true);

	if (code == SQLITE_OK && place->parent)
		code = sqlite3_bind_int64(statement, PARAMETER_PARENT, place->parent);
	if (code == SQLITE_OK && place->parent && sqlite3_bind_parameter_count(statement) >= PARAMETER_POSITION)
		code = sqlite3_bind_int64(statement, PARAMETER_POSITION, place->position);
	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	if (code != SQLITE_ROW && code != SQLITE_DONE)
		return store_fail(store, code, "cannot look up a row");
	*ret = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
	return 0;
}

static int bind_row(struct sqlite3_stmt *statement, const struct row *row, int64_t id, const struct place *place)
{
	int code = bind_fields(statement, row, false);

	if (code == SQLITE_OK && id)
		code = sqlite3_bind_int64(statement, PARAMETER_ID, id);
	if (code == SQLITE_OK)
		code = sqlite3_bind_int64(statement, PARAMETER_REVISION, row->revision);
	if (code == SQLITE_OK && place->parent)
		code = sqlite3_bind_int64(statement, PARAMETER_PARENT, place->parent);
	if (code == SQLITE_OK && place->parent)
		code = sqlite3_bind_int64(statement, PARAMETER_POSITION, place->position);
	return code;
}

/* Writes the row itself under its key, and sets its id. */
static int write_row(struct store *store, struct row *row, const struct place *place)
{
	_cleanup_reset_ struct sqlite3_stmt *statement = NULL;
	int64_t id;
	int r = find_id(store, row, place, &id), code;

	if (r < 0)
		return r;
	statement = store->statement[row->resource][id ? STATEMENT_UPDATE : STATEMENT_INSERT];
	code = bind_row(statement, row, id, place);
	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	if (code != SQLITE_DONE) {
		r = store_fail(store, code, "cannot write a row");
		return r == -EBUSY ? -EINVAL : r; /* here it is this row that refers to one that does not exist */
	}
	row->id = id ? id : sqlite3_last_insert_rowid(store->db);
	return 0;
}

static int run_with_id(struct store *store, struct sqlite3_stmt *cached, int64_t id)
{
	_cleanup_reset_ struct sqlite3_stmt *statement = cached;
	int code = sqlite3_bind_int64(statement, 1, id);

	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	return code == SQLITE_DONE ? 0 : store_fail(store, code, "cannot change a row");
}

/* Marks all children in the database, writes those of the row (which unmarks them), and deletes what is left. */
static int write_children(struct store *store, struct row *row, const struct field *field)
{
	struct rows *children = FIELD_AT(row, field, struct rows);
	int r = run_with_id(store, store->statement[field->target][STATEMENT_MARK], row->id);

	for (size_t i = 0; i < children->n && r == 0; i++) {
		struct place place = { row->id, (int64_t)i };

		children->items[i]->revision = row->revision;
		r = write_row(store, children->items[i], &place);
	}
	return r < 0 ? r : run_with_id(store, store->statement[field->target][STATEMENT_SWEEP], row->id);
}

static int need_transaction(struct store *store)
{
	return sqlite3_get_autocommit(store->db) ? store_fault(store, -EINVAL, "no transaction is open") : 0;
}

int store_put_over(struct store *store, struct row *row, const struct row *old)
{
	const struct resource *resource = resource_get(row->resource);
	struct place top = { 0, 0 };
	int r = need_transaction(store);

	if (r == 0)
		r = write_row(store, row, &top);
	for (size_t i = 0; i < resource->n_fields && r == 0; i++) {
		if (resource->fields[i].kind == FIELD_CHILDREN)
			r = write_children(store, row, &resource->fields[i]);
		else if (resource->fields[i].kind == FIELD_PREFIXES)
			r = store_entries_write(store, row, &resource->fields[i], old);
	}
	return r;
}

int store_put(struct store *store, struct row *row)
{
	return store_put_over(store, row, NULL);
}

int store_delete(struct store *store, const struct row *row)
{
	struct place top = { 0, 0 };
	int64_t id;
	int r = need_transaction(store);

	if (r == 0)
		r = find_id(store, row, &top, &id);
	if (r < 0)
		return r;
	if (id == 0)
		return store_fault(
		        store, -ENOENT, "%s %s is not stored", resource_get(row->resource)->name, row_name(row));
	return run_with_id(store, store->statement[row->resource][STATEMENT_DELETE], id);
}

/* ---- transactions ---- */

static int run_command(struct store *store, enum store_command command, const char *what)
{
	_cleanup_reset_ struct sqlite3_stmt *statement = store->command[command];
	int code = sqlite3_step(statement);

	return code == SQLITE_DONE ? 0 : store_fail(store, code, what);
}

int store_begin(struct store *store)
{
	int r;

	if (!sqlite3_get_autocommit(store->db))
		return store_fault(store, -EALREADY, "a transaction is open already");
	r = store_guard(store);
	return r < 0 ? r : run_command(store, COMMAND_BEGIN, "cannot begin a transaction");
}

static int read_revision(struct store *store, int64_t *ret)
{
	_cleanup_reset_ struct sqlite3_stmt *statement = store->command[COMMAND_REVISION];
	int code = sqlite3_step(statement);

	if (code != SQLITE_ROW)
		return store_fail(store, code, "cannot read the revision");
	*ret = sqlite3_column_int64(statement, 0);
	return 0;
}

static int record_revision(struct store *store, int64_t revision, const char *actor, const char *summary)
{
	_cleanup_reset_ struct sqlite3_stmt *statement = store->command[COMMAND_RECORD];
	int code = sqlite3_bind_int64(statement, 1, revision);

	if (code == SQLITE_OK)
		code = sqlite3_bind_int64(statement, 2, (int64_t)time(NULL));
	if (code == SQLITE_OK)
		code = bind_text(statement, 3, actor);
	if (code == SQLITE_OK)
		code = bind_text(statement, 4, summary);
	if (code == SQLITE_OK)
		code = bind_text(statement, 5, store->config_hash[0] ? store->config_hash : NULL);
	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	store->config_hash[0] = '\0';
	return code == SQLITE_DONE ? 0 : store_fail(store, code, "cannot record the revision");
}

int store_commit(struct store *store, int64_t revision, const char *actor, const char *summary)
{
	int64_t last = 0;
	int r = need_transaction(store);

	if (r == 0)
		r = read_revision(store, &last);
	if (r < 0)
		return r;
	if (revision <= last)
		return store_fault(
		        store, -EINVAL, "revision %lld does not come after %lld", (long long)revision, (long long)last);
	r = record_revision(store, revision, actor, summary);
	if (r == 0)
		r = run_with_id(store, store->command[COMMAND_TRIM], revision);
	if (r == 0)
		r = store_guard_check(store);
	return r < 0 ? r : run_command(store, COMMAND_COMMIT, "cannot commit");
}

void store_rollback(struct store *store)
{
	/* Some faults (disk full, no memory) have ended the transaction already. */
	if (!sqlite3_get_autocommit(store->db))
		sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
}

/* ---- loading ---- */

/* A column's text, or NULL if it is null or has a NUL inside. */
static const char *column_text(struct sqlite3_stmt *statement, int column)
{
	const char *text = (const char *)sqlite3_column_text(statement, column);

	return text && strlen(text) == (size_t)sqlite3_column_bytes(statement, column) ? text : NULL;
}

static int load_text(char **member, const char *text)
{
	char *copy = text ? strdup(text) : NULL;

	if (!text)
		return -EBADMSG;
	if (!copy)
		return -ENOMEM;
	free(*member);
	*member = copy;
	return 0;
}

static int load_name(char *member, const char *text)
{
	if (!text || strlen(text) > NAME_MAX_BYTES)
		return -EBADMSG;
	memcpy(member, text, strlen(text) + 1);
	return 0;
}

static int load_enum(const struct field *field, struct row *row, const char *word)
{
	int64_t value = word ? field_word_value(field, word) : -1;

	*FIELD_AT(row, field, int64_t) = value;
	return value < 0 ? -EBADMSG : 0;
}

static int load_list(struct strings *list, const char *text)
{
	if (!text)
		return -EBADMSG;
	return strcmp(text, "[]") == 0 ? 0 : decode_list(text, list);
}

static int load_field(struct sqlite3_stmt *statement, int column, const struct field *field, struct row *row)
{
	switch (field->kind) {
	case FIELD_NAME:
		return load_name(FIELD_AT(row, field, char), column_text(statement, column));
	case FIELD_BOOL:
		*FIELD_AT(row, field, bool) = sqlite3_column_int64(statement, column) != 0;
		return 0;
	case FIELD_INT:
		*FIELD_AT(row, field, int64_t) = sqlite3_column_int64(statement, column);
		return 0;
	case FIELD_ENUM:
		return load_enum(field, row, column_text(statement, column));
	case FIELD_REF:
		if (sqlite3_column_type(statement, column) == SQLITE_NULL)
			return 0;
		return load_text(FIELD_AT(row, field, char *), column_text(statement, column));
	case FIELD_TEXT:
	case FIELD_ADDRESS:
		return load_text(FIELD_AT(row, field, char *), column_text(statement, column));
	case FIELD_TIME:
		*FIELD_AT(row, field, int64_t) = sqlite3_column_int64(statement, column); /* null: 0 */
		return 0;
	case FIELD_LIST:
	case FIELD_NAMES:
		return load_list(FIELD_AT(row, field, struct strings), column_text(statement, column));
	case FIELD_CHILDREN:
	case FIELD_PREFIXES:
	case FIELD_KINDS:
		break;
	}
	return 0;
}

/* The current row of a list statement as a new row, not yet checked; for children also the parent's id. */
static int load_row(struct store *store, const struct resource *resource, int64_t *ret_parent, struct row **ret)
{
	struct sqlite3_stmt *statement = store->statement[resource->id][STATEMENT_LIST];
	_cleanup_(row_unref_p) struct row *row = row_new(resource->id);
	int column = 2;

	if (!row)
		return store_fault(store, -ENOMEM, "out of memory");
	row->id = sqlite3_column_int64(statement, 0);
	row->revision = sqlite3_column_int64(statement, 1);
	*ret_parent = resource->parent == RESOURCE_NONE ? 0 : sqlite3_column_int64(statement, column++);
	for (size_t i = 0; i < resource->n_fields; i++) {
		const struct field *field = &resource->fields[i];
		int r;

		if (field->kind == FIELD_CHILDREN)
			continue;
		if (field->kind == FIELD_PREFIXES)
			r = store_entries_load(store, resource->id, row->id, FIELD_AT(row, field, struct prefixes));
		else
			r = load_field(statement, column++, field, row);
		if (r == -EUCLEAN)
			return r;
		if (r == -ENOMEM)
			return store_fault(store, -ENOMEM, "out of memory");
		if (r < 0)
			return store_fault(store, -EUCLEAN, "table %s, id %lld, field %s: not a value of its type",
			        resource->name, (long long)row->id, field->member);
	}
	*ret = TAKE_PTR(row);
	return 0;
}

static int compare_ids(const void *a, const void *b)
{
	const struct row *left = *(struct row *const *)a, *right = *(struct row *const *)b;

	return left->id < right->id ? -1 : left->id > right->id;
}

/* Where a child goes: `by_id` holds the parents, sorted by id. Takes over the child. */
static int attach(struct store *store, const struct rows *by_id, int64_t parent, struct row *child)
{
	struct row key = { .id = parent }, *wanted = &key, **found;
	const struct resource *resource;

	found = by_id->n ? bsearch(&wanted, by_id->items, by_id->n, sizeof(struct row *), compare_ids) : NULL;
	if (!found) {
		row_unref(child);
		return store_fault(store, -EUCLEAN, "a child without its parent %lld", (long long)parent);
	}
	resource = resource_get((*found)->resource);
	for (size_t i = 0; i < resource->n_fields; i++)
		if (resource->fields[i].kind == FIELD_CHILDREN && resource->fields[i].target == child->resource)
			return rows_append(FIELD_AT(*found, &resource->fields[i], struct rows), child);
	row_unref(child);
	return store_fault(store, -EUCLEAN, "a child of a kind that its parent does not have");
}

/* All rows of one table: into the snapshot, or children into their parents. */
static int load_table(struct store *store, const struct resource *resource, struct snapshot *snapshot)
{
	_cleanup_reset_ struct sqlite3_stmt *statement = store->statement[resource->id][STATEMENT_LIST];
	_cleanup_(rows_clear) struct rows by_id = { 0 };
	bool child = resource->parent != RESOURCE_NONE;
	struct row *row = NULL;
	int64_t parent = 0;
	int r = child ? rows_share(&by_id, &snapshot->rows[resource->parent]) : 0, code = SQLITE_DONE;

	if (by_id.n)
		qsort(by_id.items, by_id.n, sizeof(struct row *), compare_ids);
	while (r == 0 && (code = sqlite3_step(statement)) == SQLITE_ROW) {
		r = load_row(store, resource, &parent, &row);
		if (r == 0)
			r = child ? attach(store, &by_id, parent, row)
			          : rows_append(&snapshot->rows[resource->id], row);
	}
	return r == 0 && code != SQLITE_DONE ? store_fail(store, code, resource->name) : r;
}

/* The same rules as for a request: a file that somebody else wrote to is not believed. */
static int check_rows(struct store *store, const struct rows *rows)
{
	_cleanup_errs_ struct errs errs = { 0 };

	for (size_t i = 0; i < rows->n; i++)
		if (check_row(rows->items[i], &errs) < 0)
			return store_fault(store, -EUCLEAN, "table %s, id %lld (%s): %s: %s",
			        resource_get(rows->items[i]->resource)->name, (long long)rows->items[i]->id,
			        row_name(rows->items[i]), errs.n ? errs.items[0].pointer : "",
			        errs.n ? errs.items[0].detail : "a rule is broken");
	return 0;
}

/* Who refers, for the words of a fault. */
struct referrer {
	struct store *store;
	const struct snapshot *snapshot;
	const struct row *row;
};

static int check_reference(void *userdata, const struct reference *reference)
{
	const struct referrer *referrer = userdata;

	if (snapshot_find(referrer->snapshot, reference->target, reference->name))
		return 0;
	return store_fault(referrer->store, -EUCLEAN, "table %s, id %lld (%s): %s: there is no %s %s",
	        resource_get(referrer->row->resource)->name, (long long)referrer->row->id, row_name(referrer->row),
	        reference->pointer, resource_get(reference->target)->name, reference->name);
}

/* Names in lists are no foreign keys; they must lead to rows all the same. */
static int check_names(struct store *store, const struct snapshot *snapshot)
{
	int r = 0;

	for (enum resource_id i = 0; i < RESOURCES && r == 0; i++)
		for (size_t j = 0; j < snapshot->rows[i].n && r == 0; j++) {
			struct referrer referrer = { store, snapshot, snapshot->rows[i].items[j] };

			r = resource_references(referrer.row, check_reference, &referrer);
		}
	return r;
}

/* Damage that leaves the file's structure sound shows here: the rows are not those that were committed. */
static int check_hash(struct store *store, const struct snapshot *snapshot)
{
	_cleanup_reset_ struct sqlite3_stmt *statement = store->command[COMMAND_HASH];
	int code = sqlite3_step(statement), r = 0;
	const char *recorded = code == SQLITE_ROW ? column_text(statement, 0) : NULL;
	struct config_hash hash = { 0 };
	char text[CONFIG_HASH_TEXT];

	if (code != SQLITE_ROW && code != SQLITE_DONE)
		return store_fail(store, code, "cannot read the hash of the configuration");
	if (!recorded)
		return 0;
	for (enum resource_id i = 0; i < RESOURCES && r == 0; i++)
		r = config_hash_add_rows(&hash, &snapshot->rows[i]);
	if (r < 0)
		return store_fault(store, r, "cannot compute the hash of the configuration");
	config_hash_text(&hash, text);
	if (strcmp(text, recorded) == 0)
		return 0;
	return store_fault(store, -EUCLEAN,
	        "the configuration in the database is not the one of revision %lld: its hash is %.16s..., and not "
	        "%.16s...",
	        (long long)snapshot->revision, text, recorded);
}

int store_load(struct store *store, struct snapshot **ret)
{
	_cleanup_(snapshot_unref_p) struct snapshot *snapshot = snapshot_new();
	int r = snapshot ? 0 : -ENOMEM;

	if (r == 0)
		r = read_revision(store, &snapshot->revision);
	for (enum resource_id i = 0; i < RESOURCES && r == 0; i++)
		r = load_table(store, resource_get(i), snapshot);
	for (enum resource_id i = 0; i < RESOURCES && r == 0; i++)
		r = check_rows(store, &snapshot->rows[i]);
	if (r == 0)
		r = check_names(store, snapshot);
	if (r == 0)
		r = check_hash(store, snapshot);
	if (r == 0)
		*ret = TAKE_PTR(snapshot);
	return r;
}
