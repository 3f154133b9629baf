/*
 * A database of an older version is brought to this one, or stays what it was.
 *
 * First a copy is put beside the file (gateway.db.v1), synced, so that the
 * older program can go on with it. Then all steps of schema/migrate run in
 * one transaction, with foreign_keys off (dropping a table would delete its
 * children) and every reference checked before the end; the caller compares
 * the tables with those of a fresh database before it commits.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <sqlite3.h>
#include <string.h>

#include "gatewayd/store_history.h"
#include "gatewayd/store_private.h"
#include "schema/docs.h"

static int sync_directory(struct store *store, const char *path)
{
	_cleanup_free_ char *copy = strdup(path);
	_cleanup_close_ int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (fd < 0 || fsync(fd) < 0)
		return store_fault(store, -EIO, "cannot sync the directory of %s: %s", path, strerror(errno));
	return 0;
}

/* A whole copy under its final name, or none. An older copy of the same version makes room. */
static int keep_copy(struct store *store, const char *path, int64_t version)
{
	_cleanup_free_ char *final = NULL, *partial = NULL;
	int r;

	if (asprintf(&final, "%s.v%lld", path, (long long)version) < 0 || asprintf(&partial, "%s.new", final) < 0)
		return -ENOMEM;
	if (unlink(partial) < 0 && errno != ENOENT)
		return store_fault(store, -errno, "cannot replace %s: %s", partial, strerror(errno));
	r = store_backup(store, partial);
	if (r < 0) {
		unlink(partial);
		return r;
	}
	if (rename(partial, final) < 0)
		return store_fault(store, -errno, "cannot write %s: %s", final, strerror(errno));
	return sync_directory(store, final);
}

static int run_step(struct store *store, int64_t version)
{
	const char *sql = docs_migration(version, NULL);
	char *words = NULL;
	int code;

	if (!sql)
		return store_fault(
		        store, -EPROTONOSUPPORT, "there is no way from version %lld", (long long)version - 1);
	code = sqlite3_exec(store->db, sql, NULL, NULL, &words);
	if (code != SQLITE_OK) {
		int r = store_fail(store, code, "the step is impossible");

		(void)store_fault(store, r, "cannot bring the database to version %lld, it stays as it is: %s",
		        (long long)version, words ? words : sqlite3_errstr(code));
		sqlite3_free(words);
		return r;
	}
	return 0;
}

int store_migrate(struct store *store, const char *path, int64_t from, int64_t to)
{
	char pragma[128];
	int r = keep_copy(store, path, from);

	if (r < 0)
		return r;
	if (sqlite3_exec(store->db, "PRAGMA foreign_keys = OFF; BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
		return store_fail(store, sqlite3_errcode(store->db), "cannot begin to bring the database up to date");
	for (int64_t version = from + 1; version <= to && r == 0; version++)
		r = run_step(store, version);
	/* The rows have more fields than when their hash was recorded. */
	snprintf(pragma, sizeof(pragma), "UPDATE revision SET config_hash = NULL; PRAGMA user_version = %lld",
	        (long long)to);
	if (r == 0 && sqlite3_exec(store->db, pragma, NULL, NULL, NULL) != SQLITE_OK)
		r = store_fail(store, sqlite3_errcode(store->db), "cannot set the version");
	return r;
}
