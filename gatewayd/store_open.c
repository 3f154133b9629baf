/*
 * The database file: opened, made, and checked before a row of it is believed.
 *
 * Order matters: whose file it is comes first, because everything later (WAL
 * above all) writes into it. A refused file is left as it was, so that
 * somebody can look at it or put a backup in its place.
 */
#include "gatewayd/store_private.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <string.h>

#include "schema/docs.h"

/* How long a statement waits for another program that holds the file: the daemon's one thread stands still so long. */
#define BUSY_TIMEOUT_MS 200

static void finalize_p(struct sqlite3_stmt **statement)
{
	sqlite3_finalize(*statement);
}

static int fail_errno(int code)
{
	switch (code & 0xff) {
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_READONLY:
	case SQLITE_PERM:
		return -EROFS;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EAGAIN;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_CONSTRAINT:
		return code == SQLITE_CONSTRAINT_FOREIGNKEY || code == SQLITE_CONSTRAINT_TRIGGER ? -EBUSY : -EINVAL;
	default:
		return -EIO;
	}
}

int store_fail(struct store *store, int code, const char *what)
{
	if ((code & 0xff) == SQLITE_NOTADB)
		return store_fault(store, -EUCLEAN, "the file is damaged, or no SQLite database at all");
	snprintf(store->error, sizeof(store->error), "%s: %s", what,
	        store->db ? sqlite3_errmsg(store->db) : sqlite3_errstr(code));
	return fail_errno(code);
}

int store_fault(struct store *store, int r, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(store->error, sizeof(store->error), format, args);
	va_end(args);
	return r;
}

const char *store_error(struct store *store)
{
	return store->error;
}

const char *store_library(int *ret_number)
{
	*ret_number = sqlite3_libversion_number();
	return sqlite3_libversion();
}

/* The first column of the first row as a number. */
static int query_int(struct store *store, const char *sql, int64_t *ret)
{
	_cleanup_(finalize_p) struct sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL);

	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	if (code != SQLITE_ROW)
		return store_fail(store, code, sql);
	*ret = sqlite3_column_int64(statement, 0);
	return 0;
}

static int execute(struct store *store, const char *sql)
{
	int code = sqlite3_exec(store->db, sql, NULL, NULL, NULL);

	return code == SQLITE_OK ? 0 : store_fail(store, code, "cannot set up the database");
}

/* A setting that is not in force after it was made is a fault: some pragmas are ignored silently. */
static int set_pragma(struct store *store, const char *set, const char *get, int64_t wanted)
{
	int64_t value = -1;
	int r = execute(store, set);

	if (r == 0)
		r = query_int(store, get, &value);
	if (r == 0 && value != wanted)
		return store_fault(store, -EIO, "SQLite did not take the setting \"%s\"", set);
	return r;
}

/* Settings of the connection; none of them touches the file. */
static int set_connection(struct store *store)
{
	int r;

	sqlite3_busy_timeout(store->db, BUSY_TIMEOUT_MS);
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
	r = set_pragma(store, "PRAGMA trusted_schema = OFF", "PRAGMA trusted_schema", 0);
	if (r == 0)
		r = set_pragma(store, "PRAGMA cell_size_check = ON", "PRAGMA cell_size_check", 1);
	if (r == 0)
		r = set_pragma(store, "PRAGMA foreign_keys = ON", "PRAGMA foreign_keys", 1);
	if (r == 0)
		r = set_pragma(store, "PRAGMA synchronous = FULL", "PRAGMA synchronous", 2);
	return r < 0 ? r : execute(store, "PRAGMA mmap_size = 0");
}

static int set_wal(struct store *store)
{
	_cleanup_(finalize_p) struct sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(store->db, "PRAGMA journal_mode = WAL", -1, &statement, NULL);

	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	if (code != SQLITE_ROW)
		return store_fail(store, code, "cannot switch to write-ahead logging");
	if (strcmp((const char *)sqlite3_column_text(statement, 0), "wal") != 0)
		return store_fault(store, -EROFS,
		        "write-ahead logging is not possible here: is the directory "
		        "writable, and on a local file system?");
	return 0;
}

/* The three numbers that say whose file it is. */
struct identity {
	int64_t application, version, objects;
};

static int read_identity(struct store *store, struct identity *ret)
{
	int r = query_int(store, "PRAGMA application_id", &ret->application);

	if (r == 0)
		r = query_int(store, "PRAGMA user_version", &ret->version);
	if (r == 0)
		r = query_int(store, "SELECT count(*) FROM sqlite_schema", &ret->objects);
	return r;
}

/* A database in memory as this program would make it: what a file is compared with. */
static int open_model(struct store *store, struct store *model)
{
	int code = sqlite3_open_v2(":memory:", &model->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY, NULL);

	if (code == SQLITE_OK)
		code = sqlite3_exec(model->db, docs_sql(NULL), NULL, NULL, NULL);
	if (code != SQLITE_OK)
		return store_fault(store, -EIO, "cannot build the model database: %s", sqlite3_errmsg(model->db));
	return 0;
}

/* Leaves out what a step of schema/migrate changes in a text but not in its meaning: white space, and the quotes
 * that renaming a table puts around its name. */
static void squeeze(char *text)
{
	char *to = text;

	for (; *text; text++)
		if (!strchr(" \t\n\"", *text))
			*to++ = *text;
	*to = '\0';
}

/* All CREATE statements of a database as one new string; NULL when memory is out or the database is broken. */
static char *read_tables(struct store *store)
{
	_cleanup_(finalize_p) struct sqlite3_stmt *statement = NULL;
	static const char sql[] = "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_schema "
	                          "WHERE name NOT GLOB 'sqlite_*' ORDER BY name)";
	const char *text;
	char *copy;

	if (sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) != SQLITE_OK ||
	        sqlite3_step(statement) != SQLITE_ROW)
		return NULL;
	text = (const char *)sqlite3_column_text(statement, 0);
	copy = text ? strdup(text) : NULL;
	if (copy)
		squeeze(copy);
	return copy;
}

static int check_identity(struct store *store, const struct identity *found, const struct identity *own)
{
	if (found->application != own->application)
		return store_fault(store, -EMEDIUMTYPE, "this is a database of another program; it was not touched");
	if (found->version > own->version)
		return store_fault(store, -EPROTONOSUPPORT,
		        "the database was written by a newer version (format %lld, this program knows %lld); it was "
		        "not touched",
		        (long long)found->version, (long long)own->version);
	if (found->version < 1)
		return store_fault(store, -EUCLEAN,
		        "the tables in the database are not those of format 1 or any later one; it was "
		        "not touched");
	return 0;
}

static int check_tables(struct store *store, struct store *model)
{
	_cleanup_free_ char *tables = read_tables(store), *expected = read_tables(model);

	if (!tables || !expected || strcmp(tables, expected) != 0)
		return store_fault(store, -EUCLEAN,
		        "the tables in the database are not those of format %d; it was not touched", docs_version());
	return 0;
}

/* The first column of the first row; "ok" is what quick_check says of a sound file. */
static int check_pages(struct store *store)
{
	_cleanup_(finalize_p) struct sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(store->db, "PRAGMA quick_check(1)", -1, &statement, NULL);
	const char *words;

	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	if (code != SQLITE_ROW)
		return store_fail(store, code, "the database is damaged");
	words = (const char *)sqlite3_column_text(statement, 0);
	if (!words || strcmp(words, "ok") != 0)
		return store_fault(store, -EUCLEAN, "the database is damaged: %s", words ? words : "no words");
	return 0;
}

static int check_references(struct store *store)
{
	_cleanup_(finalize_p) struct sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(store->db, "PRAGMA foreign_key_check", -1, &statement, NULL);

	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	if (code == SQLITE_DONE)
		return 0;
	if (code != SQLITE_ROW)
		return store_fail(store, code, "cannot check the references");
	return store_fault(store, -EUCLEAN, "table %s, id %lld refers to a row of %s that does not exist",
	        sqlite3_column_text(statement, 0), (long long)sqlite3_column_int64(statement, 1),
	        sqlite3_column_text(statement, 2));
}

static int make_tables(struct store *store)
{
	int r = set_wal(store);

	if (r == 0)
		r = execute(store, "BEGIN IMMEDIATE");
	if (r == 0)
		r = execute(store, docs_sql(NULL));
	return r < 0 ? r : execute(store, "COMMIT");
}

/* All or nothing: an older database becomes one of this version, with tables and references checked, or stays. */
static int upgrade(struct store *store, const char *path, int64_t version, struct store *model)
{
	int r = check_pages(store);

	if (r == 0)
		r = store_migrate(store, path, version, docs_version());
	if (r == 0)
		r = check_tables(store, model);
	if (r == 0)
		r = check_references(store);
	if (r == 0)
		r = execute(store, "COMMIT");
	store_rollback(store);
	if (r == 0)
		r = set_pragma(store, "PRAGMA foreign_keys = ON", "PRAGMA foreign_keys", 1);
	return r;
}

static int check_or_make(struct store *store, const char *path)
{
	_cleanup_(store_close_p) struct store *model = calloc(1, sizeof(*model));
	struct identity found, own;
	int r = read_identity(store, &found);

	if (!model)
		return -ENOMEM;
	if (r == 0 && found.application == 0 && found.version == 0 && found.objects == 0)
		return make_tables(store);
	if (r == 0)
		r = open_model(store, model);
	if (r == 0)
		r = read_identity(model, &own);
	if (r == 0)
		r = check_identity(store, &found, &own);
	if (r == 0 && found.version < own.version)
		r = upgrade(store, path, found.version, model);
	if (r == 0)
		r = check_tables(store, model);
	if (r == 0)
		r = check_pages(store);
	if (r == 0)
		r = check_references(store);
	return r < 0 ? r : set_wal(store);
}

/* A new file gets its mode before the library sees it, so that it is never readable by others; the library gives
 * its journals the same mode. An existing file is not opened here: closing it would drop the library's locks. */
static int make_file(struct store *store, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return errno == EEXIST ? 0 : store_fault(store, -errno, "cannot make the file: %s", strerror(errno));
	close(fd);
	return 0;
}

static int open_file(struct store *store, const char *path)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE | SQLITE_OPEN_PRIVATECACHE;
	int r = make_file(store, path), code;

	if (r < 0)
		return r;
	code = sqlite3_open_v2(path, &store->db, flags, NULL);
	if (code != SQLITE_OK)
		return store_fail(store, code, "cannot open the file");
	if (sqlite3_db_readonly(store->db, "main") == 1)
		return store_fault(store, -EROFS, "the file is not writable");
	r = set_connection(store);
	if (r == 0)
		r = check_or_make(store, path);
	return r < 0 ? r : store_prepare(store);
}

int store_open(const char *path, char **ret_reason, struct store **ret)
{
	_cleanup_(store_close_p) struct store *store = calloc(1, sizeof(*store));
	int r;

	*ret_reason = NULL;
	if (!store)
		return -ENOMEM;
	r = open_file(store, path);
	if (r == 0)
		r = store_guard_start(store, path);
	if (r < 0) {
		if (asprintf(ret_reason, "%s: %s", path, store->error) < 0)
			*ret_reason = NULL;
		return r;
	}
	*ret = TAKE_PTR(store);
	return 0;
}

void store_close(struct store *store)
{
	if (!store)
		return;
	for (size_t i = 0; i < COMMANDS; i++)
		sqlite3_finalize(store->command[i]);
	for (size_t i = 0; i < RESOURCES; i++)
		for (size_t j = 0; j < STATEMENTS; j++)
			sqlite3_finalize(store->statement[i][j]);
	sqlite3_close(store->db); /* rolls back what is open */
	free(store->path);
	free(store);
}
