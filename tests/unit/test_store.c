/* The store: files it must refuse, transactions, round trips of random rows, and the time that loading takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "gatewayd/store_history.h"
#include "schema/docs.h"
#include "schema/hash.h"
#include "tests/unit/generate.h"

static char directory[64], path[128];

static int setup(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/test_store.XXXXXX");
	if (!mkdtemp(directory))
		return -1;
	snprintf(path, sizeof(path), "%s/gateway.db", directory);
	return 0;
}

static int teardown(void **state)
{
	char name[160];

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		static const char *const ends[] = { "", "-wal", "-shm" };

		snprintf(name, sizeof(name), "%s%s", path, ends[i]);
		unlink(name);
	}
	return rmdir(directory);
}

static struct store *open_store(void)
{
	struct store *store = NULL;
	char *reason = NULL;

	if (store_open(path, &reason, &store) < 0)
		fail_msg("%s", reason);
	assert_null(reason);
	return store;
}

/* Opening fails with this error, and the reason has these words. */
static void expect_refused(int error, const char *words)
{
	struct store *store = NULL;
	char *reason = NULL;

	assert_int_equal(store_open(path, &reason, &store), error);
	assert_null(store);
	assert_non_null(reason);
	if (!strstr(reason, words))
		fail_msg("\"%s\" is not in: %s", words, reason);
	free(reason);
}

static void write_at(off_t offset, const void *bytes, size_t length)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, length, offset), length);
	close(fd);
}

/* One transaction with one row; the row is consumed. */
static int put_one(struct store *store, struct row *row, int64_t revision)
{
	int r = store_begin(store);

	row->revision = revision;
	if (r == 0)
		r = store_put(store, row);
	if (r == 0)
		r = store_commit(store, revision, "test", "one row");
	row_unref(row);
	if (r < 0)
		store_rollback(store);
	return r;
}

static struct snapshot *load(struct store *store)
{
	struct snapshot *snapshot = NULL;

	if (store_load(store, &snapshot) < 0)
		fail_msg("%s", store_error(store));
	return snapshot;
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static struct row *upstream_row(const char *name)
{
	return generate_row(RESOURCE_UPSTREAM, name, NULL);
}

/* A sound database with one upstream, closed, without a journal beside it. */
static void make_database(void)
{
	struct store *store = open_store();

	assert_int_equal(put_one(store, upstream_row("pool"), 1), 0);
	store_close(store);
}

static void test_refuses_what_is_not_its_own(void **state)
{
	struct stat st;
	const uint8_t version[4] = { 0, 0, 0, (uint8_t)(docs_version() + 1) };
	static const uint8_t other[4] = { 0, 0, 0, 9 }, older[4] = { 0 };

	(void)state;
	snprintf(path, sizeof(path), "%s/none/gateway.db", directory);
	expect_refused(-ENOENT, "cannot make the file");
	snprintf(path, sizeof(path), "%s/gateway.db", directory);

	make_database();
	write_at(60, version, 4); /* user_version in the file's header */
	expect_refused(-EPROTONOSUPPORT, "newer version");
	write_at(60, older, 4);
	expect_refused(-EUCLEAN, "not those of format");
	write_at(60, (const uint8_t[]){ 0, 0, 0, 2 }, 4);
	write_at(68, other, 4); /* application_id */
	expect_refused(-EMEDIUMTYPE, "another program");
	write_at(0, "This is not a database at all...", 32);
	expect_refused(-EUCLEAN, "no SQLite database");
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size > 4096); /* nothing was thrown away */
}

static void test_refuses_damage(void **state)
{
	struct stat st;
	char noise[4096];

	(void)state;
	make_database();
	assert_int_equal(stat(path, &st), 0);
	memset(noise, 0xa5, sizeof(noise));
	for (off_t page = 4096; page < st.st_size; page += 4096)
		write_at(page, noise, sizeof(noise));
	expect_refused(-EUCLEAN, "");
	assert_int_equal(truncate(path, 5000), 0);
	expect_refused(-EUCLEAN, "");
}

static void run_sqlite(const char *sql)
{
	char command[512];

	snprintf(command, sizeof(command), "sqlite3 %s \"%s\"", path, sql);
	assert_int_equal(system(command), 0);
}

static void need_sqlite(void)
{
	if (system("command -v sqlite3 >/dev/null") != 0) {
		print_message("SKIP: the program sqlite3 is not installed\n");
		skip();
	}
}

static void expect_unloadable(const char *words)
{
	struct store *store = open_store();
	struct snapshot *snapshot = NULL;

	assert_int_equal(store_load(store, &snapshot), -EUCLEAN);
	if (!strstr(store_error(store), words))
		fail_msg("\"%s\" is not in: %s", words, store_error(store));
	store_close(store);
}

/* Somebody wrote with another program, around the CHECKs or within them. */
static void test_refuses_bad_rows(void **state)
{
	(void)state;
	need_sqlite();
	make_database();
	run_sqlite("INSERT INTO listener (revision, name, sources) VALUES (1, 'l', '[\\\"10.0.0.1/8\\\"]')");
	expect_unloadable("table listener, id 1 (l): /sources/0");
	run_sqlite("UPDATE listener SET sources = '[1]'");
	expect_unloadable("table listener, id 1, field sources");
	run_sqlite("UPDATE listener SET sources = '[\\\"@gone\\\"]'");
	expect_unloadable("/sources/0: there is no address_set gone");
	run_sqlite("UPDATE listener SET sources = '[]', rate_limits = '[\\\"gone\\\"]'");
	expect_unloadable("/rate_limits/0: there is no rate_limit gone");
	run_sqlite(
	        "INSERT INTO address_set (revision, name) VALUES (1, 's'); INSERT INTO address_set_entries VALUES (1, "
	        "x'040a00000108')");
	expect_unloadable("table address_set, id 1 (s): /entries");
	run_sqlite("UPDATE address_set_entries SET prefix = x'050a0000ff08'");
	expect_unloadable("no prefix");
	run_sqlite("DELETE FROM address_set; DELETE FROM address_set_entries; UPDATE listener SET rate_limits = '[]', "
	           "sources = '[\\\"10.0.0.0/8\\\"]', destinations = '[\\\"fd00::/8\\\"]'");
	expect_unloadable("/sources");
	run_sqlite("UPDATE listener SET sources = '[]', destinations = '[]'; PRAGMA ignore_check_constraints = 1; "
	           "UPDATE listener SET protocol = 'sctp'");
	expect_refused(-EUCLEAN, "CHECK constraint failed");
	run_sqlite("PRAGMA foreign_keys = 0; UPDATE listener SET protocol = 'tcp', upstream = 'missing'");
	expect_refused(-EUCLEAN, "table listener, id 1 refers to a row of upstream");
	run_sqlite("UPDATE listener SET upstream = NULL; CREATE TABLE foreign_thing (x)");
	expect_refused(-EUCLEAN, "not those of format");
}

/* What decode refuses, the tables refuse as well. */
static void test_checks_hold(void **state)
{
	static const char *const refused[] = {
		"UPDATE upstream SET name = 'Upper'",
		"UPDATE upstream SET name = ''",
		"UPDATE upstream SET name = '-a'",
		"UPDATE upstream SET comment = hex(zeroblob(128))",
		"UPDATE upstream SET algorithm = 'best'",
		"UPDATE upstream SET id = 4294967296",
		"INSERT INTO listener (revision, name, ports) VALUES (1, 'x', '{}')",
		"INSERT INTO listener (revision, name, ports) VALUES (1, 'x', 'nonsense')",
		"INSERT INTO settings (revision, name) VALUES (1, 'more')",
		"INSERT INTO prefilter (revision, interface) VALUES (1, 'a b')",
		"INSERT INTO token (revision, name, expires_at) VALUES (1, 't', 0)",
		"INSERT INTO address_set_entries VALUES (9, x'040a00000008')",
		"UPDATE upstream SET health_type = 'icmp'",
		"INSERT INTO listener (revision, name, priority) VALUES (1, 'x', 65536)",
		"INSERT INTO listener (revision, name, priority) VALUES (1, 'x', 'many')",
		"INSERT INTO listener (revision, name, upstream) VALUES (1, 'x', 'missing')",
		"INSERT INTO target (revision, parent, position, address) VALUES (1, 99, 0, '10.0.0.1')",
	};
	char command[512];

	(void)state;
	need_sqlite();
	make_database();
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		snprintf(command, sizeof(command), "sqlite3 %s \"PRAGMA foreign_keys = 1; %s\" 2>/dev/null", path,
		        refused[i]);
		if (system(command) == 0)
			fail_msg("taken: %s", refused[i]);
	}
}

static void test_new_file(void **state)
{
	struct store *store;
	struct snapshot *snapshot;
	struct stat st;
	mode_t mask = umask(0);

	(void)state;
	store = open_store();
	umask(mask);
	for (size_t i = 0; i < 3; i++) {
		static const char *const ends[] = { "", "-wal", "-shm" };
		char name[160];

		snprintf(name, sizeof(name), "%s%s", path, ends[i]);
		assert_int_equal(stat(name, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
	snapshot = load(store);
	assert_int_equal(snapshot->revision, 0);
	assert_int_equal(snapshot->rows[RESOURCE_LISTENER].n, 0);
	snapshot_unref(snapshot);
	store_close(store);
	store_close(NULL);
}

static void test_transactions(void **state)
{
	struct store *store = open_store();
	struct row *row = upstream_row("pool");
	struct snapshot *snapshot;

	(void)state;
	store_rollback(store); /* legal without a transaction */
	assert_int_equal(store_put(store, row), -EINVAL);
	assert_int_equal(store_delete(store, row), -EINVAL);
	assert_int_equal(store_commit(store, 1, "a", "b"), -EINVAL);
	assert_int_equal(store_begin(store), 0);
	assert_int_equal(store_begin(store), -EALREADY);
	assert_int_equal(store_delete(store, row), -ENOENT);
	assert_int_equal(store_put(store, row), 0);
	assert_int_equal(store_commit(store, 0, "a", "b"), -EINVAL);
	store_rollback(store);
	snapshot = load(store);
	assert_int_equal(snapshot->rows[RESOURCE_UPSTREAM].n, 0);
	snapshot_unref(snapshot);
	assert_int_equal(put_one(store, row, 5), 0);
	assert_int_equal(put_one(store, upstream_row("pool"), 5), -EINVAL); /* not after 5 */
	snapshot = load(store);
	assert_int_equal(snapshot->revision, 5);
	snapshot_unref(snapshot);
	store_close(store);
}

static void test_second_writer_is_told(void **state)
{
	struct store *a = open_store(), *b = open_store();

	(void)state;
	assert_int_equal(store_begin(a), 0);
	assert_int_equal(store_begin(b), -EAGAIN);
	store_rollback(a);
	assert_int_equal(store_begin(b), 0);
	store_close(b); /* with an open transaction */
	assert_int_equal(store_begin(a), 0);
	store_close(a);
}

/* A listener whose upstream is set. */
static struct row *listener_of(const char *name, const char *upstream)
{
	struct listener *listener = (struct listener *)row_new(RESOURCE_LISTENER);

	snprintf(listener->name, sizeof(listener->name), "%s", name);
	generate_text(&listener->upstream, upstream);
	return &listener->row;
}

static void test_references(void **state)
{
	struct store *store = open_store();
	struct row *pool = upstream_row("pool");

	(void)state;
	assert_int_equal(put_one(store, listener_of("web", "pool"), 1), -EINVAL); /* there is no such upstream */
	assert_int_equal(put_one(store, row_ref(pool), 1), 0);
	assert_int_equal(put_one(store, listener_of("web", "pool"), 2), 0);
	assert_int_equal(put_one(store, row_ref(pool), 3), 0); /* replacing does not disturb the reference */
	assert_int_equal(store_begin(store), 0);
	assert_int_equal(store_delete(store, pool), -EBUSY);
	store_rollback(store);
	row_unref(pool);
	store_close(store);
}

static void add_target(struct row *upstream, const char *address, int64_t port, int64_t weight)
{
	struct target *target = (struct target *)row_new(RESOURCE_TARGET);

	generate_text(&target->address, address);
	target->port = port;
	target->weight = weight;
	assert_int_equal(rows_append(&((struct upstream *)upstream)->targets, &target->row), 0);
}

static const struct target *target_at(const struct snapshot *snapshot, size_t index)
{
	const struct upstream *upstream = (const struct upstream *)snapshot->rows[RESOURCE_UPSTREAM].items[0];

	return (const struct target *)upstream->targets.items[index];
}

static void test_children_keep_their_ids(void **state)
{
	struct store *store = open_store();
	struct row *row = row_new(RESOURCE_UPSTREAM);
	struct snapshot *before, *after;

	(void)state;
	strcpy(((struct upstream *)row)->name, "pool");
	add_target(row, "10.0.0.1", 80, 1);
	add_target(row, "10.0.0.1", 81, 1);
	add_target(row, "10.0.0.2", 80, 1);
	assert_int_equal(put_one(store, row_ref(row), 1), 0);
	before = load(store);
	/* The first goes, a new one comes, and the others change places. */
	rows_clear(&((struct upstream *)row)->targets);
	add_target(row, "10.0.0.2", 80, 7);
	add_target(row, "10.0.0.3", 80, 1);
	add_target(row, "10.0.0.1", 81, 1);
	assert_int_equal(put_one(store, row_ref(row), 2), 0);
	after = load(store);
	assert_true(row_equal(after->rows[RESOURCE_UPSTREAM].items[0], row));
	assert_int_equal(after->rows[RESOURCE_UPSTREAM].items[0]->id, row->id);
	assert_int_equal(target_at(after, 0)->row.id, target_at(before, 2)->row.id);
	assert_int_equal(target_at(after, 2)->row.id, target_at(before, 1)->row.id);
	assert_true(target_at(after, 1)->row.id > target_at(before, 2)->row.id);
	assert_int_equal(target_at(after, 0)->row.revision, 2);
	snapshot_unref(before);
	snapshot_unref(after);
	row_unref(row);
	store_close(store);
}

static void test_ids_are_not_used_again(void **state)
{
	struct store *store = open_store();
	struct row *row = upstream_row("pool");
	int64_t id;

	(void)state;
	assert_int_equal(put_one(store, row_ref(row), 1), 0);
	id = row->id;
	assert_int_equal(store_begin(store), 0);
	assert_int_equal(store_delete(store, row), 0);
	assert_int_equal(store_commit(store, 2, "test", "delete"), 0);
	assert_int_equal(put_one(store, row_ref(row), 3), 0);
	assert_true(row->id > id);
	row_unref(row);
	store_close(store);
}

/* Records the hash of this configuration with the next commit. */
static void set_hash(struct store *store, const struct snapshot *snapshot)
{
	struct config_hash hash = { 0 };
	char text[CONFIG_HASH_TEXT];

	for (enum resource_id i = 0; i < RESOURCES; i++)
		assert_int_equal(config_hash_add_rows(&hash, &snapshot->rows[i]), 0);
	config_hash_text(&hash, text);
	store_history_hash(store, text);
}

/* A sound file in which a value was exchanged for another sound one is not believed. */
static void test_hash_is_compared(void **state)
{
	struct store *store = open_store();
	struct snapshot *snapshot;
	struct row *row = upstream_row("pool");

	(void)state;
	need_sqlite();
	snapshot = load(store);
	assert_int_equal(store_begin(store), 0);
	assert_int_equal(store_put(store, row), 0);
	assert_int_equal(snapshot_put(snapshot, row), 0);
	set_hash(store, snapshot);
	assert_int_equal(store_commit(store, 1, "test", "hashed"), 0);
	store_close(store);
	store = open_store();
	snapshot_unref(snapshot);
	snapshot = load(store);
	store_close(store);
	run_sqlite("UPDATE upstream SET comment = 'changed', revision = 1");
	expect_unloadable("not the one of revision 1");
	snapshot_unref(snapshot);
	row_unref(row);
}

/* As many revisions are kept as the setting says. */
static void test_history_is_trimmed(void **state)
{
	struct store *store = open_store();
	struct settings *settings = (struct settings *)row_new(RESOURCE_SETTINGS);

	(void)state;
	need_sqlite();
	settings->revisions_kept = 10;
	for (int64_t i = 1; i <= 25; i++)
		assert_int_equal(put_one(store, i == 1 ? row_ref(&settings->row) : upstream_row("pool"), i), 0);
	store_close(store);
	run_sqlite("CREATE TEMP TABLE t (n CHECK (n = 10)); INSERT INTO t SELECT count(*) FROM revision WHERE n > 15");
	run_sqlite("CREATE TEMP TABLE t (n CHECK (n = 0)); INSERT INTO t SELECT count(*) FROM revision WHERE n <= 15");
	row_unref(&settings->row);
}

static void test_routes_are_known_by_place(void **state)
{
	struct store *store = open_store();
	struct listener *listener = (struct listener *)row_new(RESOURCE_LISTENER), *found;
	struct snapshot *before, *after;

	(void)state;
	strcpy(listener->name, "l");
	for (int i = 0; i < 3; i++) {
		struct listener_route *route = (struct listener_route *)row_new(RESOURCE_LISTENER_ROUTE);

		assert_int_equal(strings_append(&route->sni, (const char *[]){ "a", "b", "c" }[i]), 0);
		assert_int_equal(rows_append(&listener->routes, &route->row), 0);
	}
	assert_int_equal(put_one(store, row_ref(&listener->row), 1), 0);
	before = load(store);
	row_unref(listener->routes.items[1]);
	listener->routes.items[1] = listener->routes.items[2];
	listener->routes.n = 2;
	assert_int_equal(put_one(store, row_ref(&listener->row), 2), 0);
	after = load(store);
	found = (struct listener *)after->rows[RESOURCE_LISTENER].items[0];
	assert_true(row_equal(&found->row, &listener->row));
	assert_int_equal(found->routes.items[0]->id,
	        ((struct listener *)before->rows[RESOURCE_LISTENER].items[0])->routes.items[0]->id);
	snapshot_unref(before);
	snapshot_unref(after);
	row_unref(&listener->row);
	store_close(store);
}

static struct address_set *large_set(unsigned n)
{
	struct address_set *set = (struct address_set *)row_new(RESOURCE_ADDRESS_SET);
	struct prefixes_builder builder = { 0 };

	strcpy(set->name, "large");
	for (unsigned i = 0; i < n; i++) {
		struct prefix prefix = { { AF_INET, { 10, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i } }, 32 };

		assert_int_equal(prefixes_add(&builder, &prefix), 0);
	}
	assert_int_equal(prefixes_finish(&builder, &set->entries), 0);
	return set;
}

/* Of a large set only what differs is written. */
static void test_one_entry_more(void **state)
{
	struct store *store = open_store();
	struct address_set *set = large_set(100000), *more = large_set(100001), *less = large_set(99999);
	struct snapshot *snapshot;
	double start = seconds(), loaded, written, added;

	(void)state;
	assert_int_equal(put_one(store, row_ref(&set->row), 1), 0);
	written = seconds();
	assert_int_equal(store_begin(store), 0);
	assert_int_equal(store_put_over(store, &more->row, &set->row), 0);
	assert_int_equal(store_commit(store, 2, "test", "one more"), 0);
	added = seconds();
	snapshot = load(store);
	loaded = seconds();
	assert_true(row_equal(snapshot->rows[RESOURCE_ADDRESS_SET].items[0], &more->row));
	snapshot_unref(snapshot);
	assert_int_equal(put_one(store, row_ref(&less->row), 3), 0); /* without the old row: it is read */
	snapshot = load(store);
	assert_true(row_equal(snapshot->rows[RESOURCE_ADDRESS_SET].items[0], &less->row));
	print_message("100000 entries: written %.0f ms, one more %.2f ms, loaded %.0f ms\n", (written - start) * 1e3,
	        (added - written) * 1e3, (loaded - added) * 1e3);
	assert_true(added - written < (written - start) / 2);
	snapshot_unref(snapshot);
	row_unref(&set->row);
	row_unref(&more->row);
	row_unref(&less->row);
	store_close(store);
}

static void test_round_trip(void **state)
{
	struct store *store = open_store();
	struct snapshot *wanted = snapshot_new(), *found;
	char name[32];

	(void)state;
	generate_state = 42;
	assert_int_equal(store_begin(store), 0);
	generate_sets = generate_limits = "n0";
	for (int i = 0; i < 700; i++) {
		static const enum resource_id kinds[] = { RESOURCE_UPSTREAM, RESOURCE_ADDRESS_SET, RESOURCE_RATE_LIMIT,
			RESOURCE_SETTINGS, RESOURCE_TOKEN, RESOURCE_PREFILTER };
		bool first = i < (int)ARRAY_SIZE(kinds);
		struct row *row;

		/* Names come again, so that rows are replaced too. */
		snprintf(name, sizeof(name), "n%u", first ? 0 : generate_number(80));
		row = generate_row(
		        i % 2 && !first ? RESOURCE_LISTENER : kinds[(size_t)i % ARRAY_SIZE(kinds)], name, "n0");
		assert_int_equal(store_put(store, row), 0);
		assert_int_equal(snapshot_put(wanted, row), 0);
		row_unref(row);
	}
	generate_sets = generate_limits = NULL;
	set_hash(store, wanted);
	assert_int_equal(store_commit(store, 1, "test", "random"), 0);
	store_close(store);
	store = open_store();
	found = load(store);
	for (enum resource_id i = 0; i < RESOURCES; i++) {
		assert_int_equal(found->rows[i].n, wanted->rows[i].n);
		for (size_t j = 0; j < found->rows[i].n; j++) {
			assert_true(row_equal(found->rows[i].items[j], wanted->rows[i].items[j]));
			assert_int_equal(found->rows[i].items[j]->id, wanted->rows[i].items[j]->id);
		}
	}
	snapshot_unref(found);
	snapshot_unref(wanted);
	store_close(store);
}

/* Writing fails beyond the limit of this process: nothing of the transaction remains, and the store goes on. */
static void test_failed_write_leaves_nothing(void **state)
{
	struct store *store = open_store();
	struct rlimit old, tight = { .rlim_cur = 150000 };
	struct snapshot *snapshot;
	int r = 0;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	tight.rlim_max = old.rlim_max;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(put_one(store, upstream_row("first"), 1), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
	for (int64_t i = 2; i < 100 && r == 0; i++)
		r = put_one(store, upstream_row("more"), i);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(r, -EIO);
	assert_true(strlen(store_error(store)) > 0);
	snapshot = load(store);
	assert_true(snapshot->revision < 100);
	assert_int_equal(put_one(store, upstream_row("again"), snapshot->revision + 1), 0);
	snapshot_unref(snapshot);
	store_close(store);
	store = open_store();
	store_close(store);
}

/* A disk of its own, small and full: the change is refused as such, and what was stored before is still there. */
static void test_full_disk(void **state)
{
	struct store *store;
	struct snapshot *snapshot;
	int r = 0;

	(void)state;
	if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	        mount("tmpfs", directory, "tmpfs", 0, "size=256k") < 0) {
		print_message("SKIP: a file system of a given size needs the right to mount\n");
		skip();
	}
	store = open_store();
	assert_int_equal(put_one(store, upstream_row("first"), 1), 0);
	for (int64_t i = 2; i < 1000 && r == 0; i++)
		r = put_one(store, upstream_row("more"), i);
	assert_int_equal(r, -ENOSPC);
	assert_non_null(strstr(store_error(store), "full"));
	snapshot = load(store);
	assert_string_equal(row_name(snapshot->rows[RESOURCE_UPSTREAM].items[0]), "first");
	snapshot_unref(snapshot);
	store_close(store);
	assert_int_equal(umount2(directory, MNT_DETACH), 0);
}

static void test_many_listeners(void **state)
{
	struct store *store = open_store();
	struct snapshot *snapshot;
	double start = seconds(), written, opened, loaded;
	char name[32];

	(void)state;
	assert_int_equal(store_begin(store), 0);
	for (int i = 0; i < 10000; i++) {
		struct listener *listener = (struct listener *)row_new(RESOURCE_LISTENER);

		snprintf(listener->name, sizeof(listener->name), "listener-%d", i);
		snprintf(name, sizeof(name), "10.%d.%d.0/24", i / 256, i % 256);
		assert_int_equal(strings_append(&listener->destinations, name), 0);
		assert_int_equal(strings_append(&listener->ports, "443"), 0);
		assert_int_equal(store_put(store, &listener->row), 0);
		row_unref(&listener->row);
	}
	snapshot = load(store); /* within the transaction, for the hash */
	set_hash(store, snapshot);
	snapshot_unref(snapshot);
	assert_int_equal(store_commit(store, 1, "test", "many"), 0);
	written = seconds();
	store_close(store);
	store = open_store();
	opened = seconds();
	snapshot = load(store);
	loaded = seconds();
	assert_int_equal(snapshot->rows[RESOURCE_LISTENER].n, 10000);
	print_message("10000 listeners: written %.0f ms, opened and checked %.0f ms, loaded %.0f ms\n",
	        (written - start) * 1e3, (opened - written) * 1e3, (loaded - opened) * 1e3);
	assert_true(loaded - opened < 5); /* far above any machine's figure: finds only what grows faster than rows */
	snapshot_unref(snapshot);
	store_close(store);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_refuses_what_is_not_its_own),
		TEST(test_refuses_damage),
		TEST(test_refuses_bad_rows),
		TEST(test_checks_hold),
		TEST(test_new_file),
		TEST(test_transactions),
		TEST(test_second_writer_is_told),
		TEST(test_references),
		TEST(test_children_keep_their_ids),
		TEST(test_ids_are_not_used_again),
		TEST(test_round_trip),
		TEST(test_hash_is_compared),
		TEST(test_history_is_trimmed),
		TEST(test_routes_are_known_by_place),
		TEST(test_one_entry_more),
		TEST(test_failed_write_leaves_nothing),
		TEST(test_full_disk),
		TEST(test_many_listeners),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
