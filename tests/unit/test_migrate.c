/* Databases of older versions: brought up to date with their rows, copied first, and left alone if a step fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <glob.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>

#include "gatewayd/store.h"
#include "schema/docs.h"

static char directory[64], path[128], copy[160];

/* What a gateway of version 1 may hold; the ids of deleted rows are gone for good. */
static const char rows_of_1[] =
        "INSERT INTO upstream (revision, name, comment) VALUES (1, 'gone', ''), (1, 'pool', 'a ''pool''');"
        "DELETE FROM upstream WHERE name = 'gone';"
        "INSERT INTO target (revision, parent, position, address, port, weight, admin_state)"
        " VALUES (2, 2, 0, '10.0.0.1', 80, 3, 'drain'), (2, 2, 1, '2001:db8::1', 0, 1, 'up');"
        "INSERT INTO listener (revision, name, sources, ports, upstream, priority)"
        " VALUES (3, 'web', '[\"10.0.0.0/8\"]', '[\"443\"]', 'pool', 7), (3, 'last', '[]', '[]', NULL, 1);"
        "DELETE FROM listener WHERE name = 'last';"
        "INSERT INTO revision VALUES (1, 0, 'uid 0', 'x', 'of another form'), (3, 0, 'uid 0', 'y', 'of another form');"
        "INSERT INTO meta VALUES ('k', 'v');";

static int setup(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/test_migrate.XXXXXX");
	if (!mkdtemp(directory))
		return -1;
	snprintf(path, sizeof(path), "%s/gateway.db", directory);
	snprintf(copy, sizeof(copy), "%s.v1", path);
	return 0;
}

static int teardown(void **state)
{
	char pattern[160];
	glob_t found;

	(void)state;
	snprintf(pattern, sizeof(pattern), "%s/*", directory);
	if (glob(pattern, 0, NULL, &found) == 0) {
		for (size_t i = 0; i < found.gl_pathc; i++)
			unlink(found.gl_pathv[i]);
		globfree(&found);
	}
	return rmdir(directory);
}

static void run(const char *file, const char *sql)
{
	struct sqlite3 *db = NULL;

	assert_int_equal(sqlite3_open(file, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	sqlite3_close(db);
}

/* The first column of the first row; a new string. */
static char *ask(const char *file, const char *sql)
{
	struct sqlite3 *db = NULL;
	struct sqlite3_stmt *statement = NULL;
	const char *text;
	char *answer;

	assert_int_equal(sqlite3_open(file, &db), SQLITE_OK);
	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
	text = (const char *)sqlite3_column_text(statement, 0);
	answer = strdup(text ? text : "");
	sqlite3_finalize(statement);
	sqlite3_close(db);
	return answer;
}

static void expect(const char *file, const char *sql, const char *wanted)
{
	_cleanup_free_ char *answer = ask(file, sql);

	if (strcmp(answer, wanted) != 0)
		fail_msg("%s: %s, not %s", sql, answer, wanted);
}

/* A database as version 1 made it, with rows. */
static void make_version_1(void)
{
	_cleanup_fclose_ FILE *file = fopen(GW_SOURCE_DIR "/schema/migrate/001.sql", "r");
	_cleanup_free_ char *text = NULL;
	size_t size = 0;

	assert_non_null(file);
	assert_true(getdelim(&text, &size, '\0', file) > 0);
	run(path, "PRAGMA journal_mode = WAL");
	run(path, text);
	run(path, rows_of_1);
}

static int try_open(char **ret_reason)
{
	struct store *store = NULL;
	int r = store_open(path, ret_reason, &store);

	store_close(store);
	return r;
}

static void test_rows_come_along(void **state)
{
	char version[16];
	struct store *store = NULL;
	struct snapshot *snapshot = NULL;
	struct upstream *pool;
	struct listener *web;
	char *reason = NULL;

	(void)state;
	make_version_1();
	if (store_open(path, &reason, &store) < 0)
		fail_msg("%s", reason);
	if (store_load(store, &snapshot) < 0)
		fail_msg("%s", store_error(store));
	assert_int_equal(snapshot->revision, 3);
	pool = (struct upstream *)snapshot_find(snapshot, RESOURCE_UPSTREAM, "pool");
	web = (struct listener *)snapshot_find(snapshot, RESOURCE_LISTENER, "web");
	assert_int_equal(pool->row.id, 2);
	assert_int_equal(pool->row.revision, 1);
	assert_string_equal(pool->comment, "a 'pool'");
	assert_int_equal(pool->health_type, HEALTH_TYPE_NONE);
	assert_int_equal(pool->targets.n, 2);
	assert_int_equal(pool->targets.items[1]->id, 2);
	assert_int_equal(((struct target *)pool->targets.items[0])->admin_state, ADMIN_STATE_DRAIN);
	assert_false(((struct target *)pool->targets.items[0])->backup);
	assert_string_equal(web->upstream, "pool");
	assert_int_equal(web->priority, 7);
	assert_int_equal(web->proxy_protocol, PROXY_PROTOCOL_OFF);
	assert_int_equal(snapshot_settings(snapshot)->revisions_kept, 10000);
	assert_int_equal(snapshot->rows[RESOURCE_SETTINGS].n, 1);
	snapshot_unref(snapshot);
	store_close(store);
	snprintf(version, sizeof(version), "%d", docs_version());
	expect(path, "PRAGMA user_version", version);
	expect(path, "SELECT value FROM meta", "v");
	expect(path, "SELECT count(*) FROM revision WHERE config_hash IS NULL", "2");
	assert_int_equal(try_open(&reason), 0); /* once more: nothing is left to do */
}

/* The statement that shows every table and index, as the store compares them. */
#define TABLES                                                                                                         \
	"SELECT group_concat(replace(replace(replace(replace(sql, char(10), ''), char(9), ''), ' ', ''), '\"', ''), "  \
	"';') FROM (SELECT sql FROM sqlite_schema WHERE name NOT GLOB 'sqlite_*' ORDER BY name)"

static void test_as_if_made_anew(void **state)
{
	char fresh[160], *reason = NULL;
	_cleanup_free_ char *wanted = NULL;

	(void)state;
	make_version_1();
	assert_int_equal(try_open(&reason), 0);
	snprintf(fresh, sizeof(fresh), "%s/fresh.db", directory);
	run(fresh, docs_sql(NULL));
	wanted = ask(fresh, TABLES);
	assert_true(strlen(wanted) > 5000);
	expect(path, TABLES, wanted);
	expect(path, "PRAGMA integrity_check", "ok");
}

static void test_ids_stay_used(void **state)
{
	char *reason = NULL;

	(void)state;
	make_version_1();
	assert_int_equal(try_open(&reason), 0);
	run(path, "INSERT INTO listener (revision, name) VALUES (4, 'new')");
	expect(path, "SELECT id FROM listener WHERE name = 'new'", "3"); /* 2 was the deleted one's */
	expect(path, "SELECT count(*) FROM sqlite_sequence WHERE name GLOB '*_2'", "0");
}

static void test_copy_is_kept(void **state)
{
	char *reason = NULL;
	struct stat st;

	(void)state;
	make_version_1();
	run(copy, "CREATE TABLE old_copy (x)"); /* from an earlier attempt: makes room */
	assert_int_equal(try_open(&reason), 0);
	expect(copy, "PRAGMA user_version", "1");
	expect(copy, "SELECT name FROM listener", "web");
	assert_int_equal(stat(copy, &st), 0);
	assert_int_equal(st.st_mode & 0077, 0);
}

/* A step that fails in the middle: the tables before it have been made anew by then. */
static void test_a_step_that_fails(void **state)
{
	_cleanup_free_ char *before = NULL;
	char *reason = NULL;

	(void)state;
	make_version_1();
	run(path, "CREATE TABLE token (x)");
	before = ask(path, TABLES);
	assert_true(try_open(&reason) < 0);
	assert_non_null(strstr(reason, "stays as it is"));
	free(reason);
	expect(path, "PRAGMA user_version", "1");
	expect(path, TABLES, before);
	expect(path, "SELECT name FROM listener", "web");
	run(path, "DROP TABLE token");
	assert_int_equal(try_open(&reason), 0); /* the cause gone, it goes through */
}

/* The steps succeed, but the result is not what a fresh database would be, or a reference dangles. */
static void test_a_result_that_is_wrong(void **state)
{
	char *reason = NULL;

	(void)state;
	make_version_1();
	run(path, "CREATE TABLE foreign_thing (x)");
	assert_int_equal(try_open(&reason), -EUCLEAN);
	free(reason);
	expect(path, "PRAGMA user_version", "1");
	run(path, "DROP TABLE foreign_thing; UPDATE listener SET upstream = 'missing'");
	assert_int_equal(try_open(&reason), -EUCLEAN);
	assert_non_null(strstr(reason, "refers to a row of upstream"));
	free(reason);
	expect(path, "PRAGMA user_version", "1");
	expect(path, "SELECT upstream FROM listener", "missing");
}

static void test_no_copy_no_step(void **state)
{
	char *reason = NULL, blocked[192];

	(void)state;
	make_version_1();
	snprintf(blocked, sizeof(blocked), "%s.new", copy);
	assert_int_equal(mkdir(blocked, 0700), 0); /* the copy cannot be written */
	assert_true(try_open(&reason) < 0);
	free(reason);
	expect(path, "PRAGMA user_version", "1");
	assert_int_equal(rmdir(blocked), 0);
}

static void test_versions_that_are_refused(void **state)
{
	char *reason = NULL;

	(void)state;
	make_version_1();
	run(path, "PRAGMA user_version = 99");
	assert_int_equal(try_open(&reason), -EPROTONOSUPPORT);
	assert_non_null(strstr(reason, "newer version"));
	free(reason);
	run(path, "PRAGMA user_version = 0");
	assert_int_equal(try_open(&reason), -EUCLEAN);
	free(reason);
	assert_int_equal(access(copy, F_OK), -1);
	assert_null(docs_migration(1, NULL));
	assert_null(docs_migration(docs_version() + 1, NULL));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_rows_come_along),
		TEST(test_as_if_made_anew),
		TEST(test_ids_stay_used),
		TEST(test_copy_is_kept),
		TEST(test_a_step_that_fails),
		TEST(test_a_result_that_is_wrong),
		TEST(test_no_copy_no_step),
		TEST(test_versions_that_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
