/* Revisions, single values and the audit log in the database; see store_history.h. */
#include "gatewayd/store_history.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "gatewayd/store_private.h"

static void finalize_p(struct sqlite3_stmt **statement)
{
	sqlite3_finalize(*statement);
}

#define _cleanup_statement_ _cleanup_(finalize_p)

/* Prepares a statement and binds its parameters: 'i' an int64_t, 's' a string (NULL: null). */
static int prepare(struct store *store, struct sqlite3_stmt **ret, const char *sql, const char *types, ...)
{
	int code = sqlite3_prepare_v2(store->db, sql, -1, ret, NULL);
	va_list values;

	va_start(values, types);
	for (int i = 0; code == SQLITE_OK && types[i]; i++)
		code = types[i] == 'i'
		               ? sqlite3_bind_int64(*ret, i + 1, va_arg(values, int64_t))
		               : sqlite3_bind_text(*ret, i + 1, va_arg(values, const char *), -1, SQLITE_TRANSIENT);
	va_end(values);
	return code == SQLITE_OK ? 0 : store_fail(store, code, "cannot prepare a statement");
}

static int finish(struct store *store, struct sqlite3_stmt *statement, const char *what)
{
	int code = sqlite3_step(statement);

	return code == SQLITE_DONE ? 0 : store_fail(store, code, what);
}

static const char *text(struct sqlite3_stmt *statement, int column)
{
	return (const char *)sqlite3_column_text(statement, column);
}

int store_history_add(struct store *store, const struct store_change *change, unsigned position)
{
	_cleanup_statement_ struct sqlite3_stmt *statement = NULL;
	int r = prepare(store, &statement,
	        "INSERT INTO revision_change (revision, position, resource, name, before, after) "
	        "VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
	        "iissss", change->revision, (int64_t)position, change->resource, change->name, change->before,
	        change->after);

	return r < 0 ? r : finish(store, statement, "cannot record a change");
}

void store_history_hash(struct store *store, const char *config_hash)
{
	snprintf(store->config_hash, sizeof(store->config_hash), "%s", config_hash);
}

/* Whether every revision above from up to to is kept. */
static int check_kept(struct store *store, int64_t from, int64_t to)
{
	_cleanup_statement_ struct sqlite3_stmt *statement = NULL;
	int r = prepare(store, &statement, "SELECT count(*) FROM revision WHERE n > ?1 AND n <= ?2", "ii", from, to);

	if (r < 0)
		return r;
	if (sqlite3_step(statement) != SQLITE_ROW)
		return store_fault(store, -EIO, "the history cannot be read");
	if (from < 0 || sqlite3_column_int64(statement, 0) != to - from)
		return store_fault(
		        store, -ENOENT, "the history does not reach from %lld to %lld", (long long)from, (long long)to);
	return 0;
}

int store_history_changes(struct store *store, int64_t from, int64_t to, store_change_visitor visitor, void *userdata)
{
	_cleanup_statement_ struct sqlite3_stmt *statement = NULL;
	int code, r;

	r = check_kept(store, from, to);
	if (r == 0)
		r = prepare(store, &statement,
		        "SELECT revision, resource, name, before, after FROM revision_change "
		        "WHERE revision > ?1 AND revision <= ?2 ORDER BY revision DESC, position DESC",
		        "ii", from, to);
	if (r < 0)
		return r;
	while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
		struct store_change change = { .revision = sqlite3_column_int64(statement, 0),
			.resource = text(statement, 1),
			.name = text(statement, 2),
			.before = text(statement, 3),
			.after = text(statement, 4) };

		r = visitor(userdata, &change);
		if (r < 0)
			return r;
	}
	return code == SQLITE_DONE ? 0 : store_fail(store, code, "the history cannot be read");
}

int store_history_revisions(
        struct store *store, int64_t before, size_t max, store_revision_visitor visitor, void *userdata)
{
	_cleanup_statement_ struct sqlite3_stmt *statement = NULL;
	int code, r;

	r = prepare(store, &statement,
	        "SELECT n, created_at, actor, summary, config_hash FROM revision WHERE n < ?1 ORDER BY n DESC LIMIT ?2",
	        "ii", before > 0 ? before : INT64_MAX, (int64_t)max);
	if (r < 0)
		return r;
	while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
		struct store_revision revision = { .n = sqlite3_column_int64(statement, 0),
			.created_at = sqlite3_column_int64(statement, 1),
			.actor = text(statement, 2),
			.summary = text(statement, 3),
			.config_hash = text(statement, 4) };

		r = visitor(userdata, &revision);
		if (r < 0)
			return r;
	}
	return code == SQLITE_DONE ? 0 : store_fail(store, code, "the history cannot be read");
}

int store_meta_set(struct store *store, const char *key, const char *value)
{
	_cleanup_statement_ struct sqlite3_stmt *statement = NULL;
	int r = store_guard(store);

	if (r < 0)
		return r;
	if (value)
		r = prepare(store, &statement,
		        "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = "
		        "excluded.value",
		        "ss", key, value);
	else
		r = prepare(store, &statement, "DELETE FROM meta WHERE key = ?1", "s", key);
	return r < 0 ? r : finish(store, statement, "cannot write a value");
}

int store_meta_get(struct store *store, const char *key, char **ret)
{
	_cleanup_statement_ struct sqlite3_stmt *statement = NULL;
	int r = prepare(store, &statement, "SELECT value FROM meta WHERE key = ?1", "s", key), code;

	if (r < 0)
		return r;
	code = sqlite3_step(statement);
	if (code == SQLITE_DONE) {
		*ret = NULL;
		return 0;
	}
	if (code != SQLITE_ROW)
		return store_fail(store, code, "cannot read a value");
	*ret = strdup(text(statement, 0));
	return *ret ? 0 : -ENOMEM;
}

int store_audit_append(struct store *store, const struct store_audit *entry)
{
	_cleanup_statement_ struct sqlite3_stmt *statement = NULL, *trim = NULL;
	int r = prepare(store, &statement,
	        "INSERT INTO audit (at, actor, method, path, status, revision, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, "
	        "?7)",
	        "isssiis", (int64_t)time(NULL), entry->actor, entry->method, entry->path, entry->status,
	        entry->revision, entry->detail);

	if (r == 0)
		r = finish(store, statement, "cannot write the audit log");
	if (r == 0)
		r = prepare(store, &trim, "DELETE FROM audit WHERE id <= ?1", "i",
		        (int64_t)sqlite3_last_insert_rowid(store->db) - STORE_AUDIT_MAX);
	return r < 0 ? r : finish(store, trim, "cannot trim the audit log");
}

int store_audit_list(struct store *store, int64_t before, size_t max, store_audit_visitor visitor, void *userdata)
{
	_cleanup_statement_ struct sqlite3_stmt *statement = NULL;
	int code, r;

	r = prepare(store, &statement,
	        "SELECT id, at, actor, method, path, detail, status, revision FROM audit WHERE id < ?1 "
	        "ORDER BY id DESC LIMIT ?2",
	        "ii", before > 0 ? before : INT64_MAX, (int64_t)max);
	if (r < 0)
		return r;
	while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
		struct store_audit entry = { .id = sqlite3_column_int64(statement, 0),
			.at = sqlite3_column_int64(statement, 1),
			.actor = text(statement, 2),
			.method = text(statement, 3),
			.path = text(statement, 4),
			.detail = text(statement, 5),
			.status = sqlite3_column_int64(statement, 6),
			.revision = sqlite3_column_int64(statement, 7) };

		r = visitor(userdata, &entry);
		if (r < 0)
			return r;
	}
	return code == SQLITE_DONE ? 0 : store_fail(store, code, "the audit log cannot be read");
}

/* VACUUM INTO does not sync by itself. */
static int sync_file(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int store_backup(struct store *store, const char *path)
{
	_cleanup_statement_ struct sqlite3_stmt *statement = NULL;
	/* Empty, and readable by nobody else, before the library writes into it: it holds the hashes of tokens. */
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int r;

	if (fd < 0 && errno == EEXIST)
		return store_fault(store, -EEXIST, "there is a file %s already", path);
	if (fd < 0)
		return store_fault(store, -errno, "cannot make %s: %s", path, strerror(errno));
	r = prepare(store, &statement, "VACUUM INTO ?1", "s", path);
	if (r == 0)
		r = finish(store, statement, "cannot write the copy");
	if (r == 0)
		r = sync_file(path);
	if (r < 0)
		unlink(path);
	return r;
}
