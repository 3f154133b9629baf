/* The configuration beside the database: there and back, damage anywhere in it, and writing that fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "gatewayd/lastgood.h"
#include "tests/unit/generate.h"

static char directory[64], path[128], partial[160];

static int setup(void **state)
{
	(void)state;
	strcpy(directory, "/tmp/test_lastgood.XXXXXX");
	if (!mkdtemp(directory))
		return -1;
	snprintf(path, sizeof(path), "%s/config.json", directory);
	snprintf(partial, sizeof(partial), "%s.new", path);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	unlink(partial);
	return rmdir(directory);
}

static void put(struct snapshot *snapshot, enum resource_id id, const char *name)
{
	struct row *row = generate_row(id, name, "n0");
	struct upstream *upstream = id == RESOURCE_UPSTREAM ? (struct upstream *)row : NULL;

	row->id = 1 + generate_number(1000);
	row->revision = generate_number(40);
	for (size_t i = 0; upstream && i < upstream->targets.n; i++)
		upstream->targets.items[i]->id = 1 + generate_number(1000);
	assert_int_equal(snapshot_put(snapshot, row), 0);
	row_unref(row);
}

static struct snapshot *random_snapshot(void)
{
	struct snapshot *snapshot = snapshot_new();
	char name[16];

	generate_sets = generate_limits = "n0";
	snapshot->revision = 41;
	for (unsigned i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		for (enum resource_id id = 0; id < RESOURCES; id++)
			if (resource_get(id)->parent == RESOURCE_NONE)
				put(snapshot, id, name);
	}
	generate_sets = generate_limits = NULL;
	return snapshot;
}

static void expect_equal(const struct snapshot *a, const struct snapshot *b)
{
	assert_int_equal(a->revision, b->revision);
	for (enum resource_id id = 0; id < RESOURCES; id++) {
		if (id == RESOURCE_TOKEN) {
			assert_int_equal(b->rows[id].n, 0);
			continue;
		}
		assert_int_equal(a->rows[id].n, b->rows[id].n);
		for (size_t i = 0; i < a->rows[id].n; i++) {
			assert_true(row_equal(a->rows[id].items[i], b->rows[id].items[i]));
			assert_int_equal(a->rows[id].items[i]->id, b->rows[id].items[i]->id);
			assert_int_equal(a->rows[id].items[i]->revision, b->rows[id].items[i]->revision);
		}
	}
}

static void test_there_and_back(void **state)
{
	char *reason;
	struct stat st;

	(void)state;
	for (unsigned seed = 1; seed < 20; seed++) {
		struct snapshot *snapshot, *back = NULL;
		struct upstream *a, *b;

		generate_state = seed;
		snapshot = random_snapshot();
		assert_int_equal(lastgood_write(path, snapshot), 0);
		if (lastgood_read(path, &reason, &back) < 0)
			fail_msg("%s", reason);
		expect_equal(snapshot, back);
		a = (struct upstream *)snapshot_find(snapshot, RESOURCE_UPSTREAM, "n1");
		b = (struct upstream *)snapshot_find(back, RESOURCE_UPSTREAM, "n1");
		for (size_t i = 0; i < a->targets.n; i++)
			assert_int_equal(a->targets.items[i]->id, b->targets.items[i]->id);
		snapshot_unref(snapshot);
		snapshot_unref(back);
	}
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(access(partial, F_OK), -1);
}

static void expect_refused(int error, const char *words)
{
	struct snapshot *snapshot = NULL;
	char *reason = NULL;

	assert_int_equal(lastgood_read(path, &reason, &snapshot), error);
	assert_null(snapshot);
	if (!reason || !strstr(reason, words))
		fail_msg("\"%s\" is not in: %s", words, reason ? reason : "nothing");
	free(reason);
}

static void write_text(const char *text)
{
	_cleanup_fclose_ FILE *out = fopen(path, "w");

	assert_non_null(out);
	assert_true(fputs(text, out) >= 0);
}

static void test_what_is_refused(void **state)
{
	(void)state;
	expect_refused(-ENOENT, "No such file");
	write_text("");
	expect_refused(-EUCLEAN, "cut off or damaged");
	write_text("{\"format\":2}");
	expect_refused(-EUCLEAN, "another version");
	write_text("{\"format\":1,\"rows\":[{\"resource\":\"token\",\"row\":{\"name\":\"t\"}}]}");
	expect_refused(-EUCLEAN, "no known resource");
	write_text("{\"format\":1,\"rows\":[{\"resource\":\"listener\",\"row\":{\"name\":\"T\"}}]}");
	expect_refused(-EUCLEAN, "row 0: /name");
	write_text("{\"format\":1,\"rows\":[{\"resource\":\"listener\",\"row\":{\"name\":\"t\",\"upstream\":\"u\"}}]}");
	expect_refused(-EUCLEAN, "listener t refers to");
	write_text("{\"format\":1,\"rows\":[{\"resource\":\"listener\",\"children\":[1],\"row\":{\"name\":\"t\"}}]}");
	expect_refused(-EUCLEAN, "other children");
	write_text("{\"format\":1,\"rows\":[{\"resource\":\"listener\",\"row\":{\"name\":\"t\"}}]}");
	expect_refused(-EUCLEAN, "hash");
}

/* Cut off anywhere, or one value exchanged for another that is as good: found. */
static void test_damage(void **state)
{
	struct snapshot *snapshot;
	_cleanup_free_ char *text = NULL;
	char *reason, *at;
	size_t size = 0;
	ssize_t length;
	FILE *in;

	(void)state;
	generate_state = 5;
	snapshot = random_snapshot();
	assert_int_equal(lastgood_write(path, snapshot), 0);
	in = fopen(path, "r");
	length = getdelim(&text, &size, '\0', in);
	fclose(in);
	assert_true(length > 1000);
	for (ssize_t cut = length - 2; cut > 0; cut -= length / 40) {
		struct snapshot *back = NULL;

		assert_int_equal(truncate(path, cut), 0);
		assert_int_equal(lastgood_read(path, &reason, &back), -EUCLEAN);
		free(reason);
		write_text(text);
	}
	at = strstr(text, "\"revisions_kept\":");
	assert_non_null(at);
	at[strlen("\"revisions_kept\":")] ^= 1;
	write_text(text);
	expect_refused(-EUCLEAN, "");
	snapshot_unref(snapshot);
}

/* The disk is full: the old file is still there, and nothing else. */
static void test_failed_write_keeps_the_old_one(void **state)
{
	struct snapshot *small = snapshot_new(), *large = snapshot_new(), *back = NULL;
	struct rlimit old, tight = { .rlim_cur = 20000 };
	char *reason, name[16];

	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		put(large, RESOURCE_UPSTREAM, name);
	}
	small->revision = 7;
	assert_int_equal(lastgood_write(path, small), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	tight.rlim_max = old.rlim_max;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
	assert_true(lastgood_write(path, large) < 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(access(partial, F_OK), -1);
	assert_int_equal(lastgood_read(path, &reason, &back), 0);
	assert_int_equal(back->revision, 7);
	snapshot_unref(small);
	snapshot_unref(large);
	snapshot_unref(back);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void test_many_listeners(void **state)
{
	struct snapshot *snapshot = snapshot_new(), *back = NULL;
	double start, written, read;
	char *reason;

	(void)state;
	for (int i = 0; i < 10000; i++) {
		struct listener *listener = (struct listener *)row_new(RESOURCE_LISTENER);

		snprintf(listener->name, sizeof(listener->name), "listener-%05d", i);
		assert_int_equal(strings_append(&listener->ports, "443"), 0);
		assert_int_equal(snapshot_put(snapshot, &listener->row), 0);
		row_unref(&listener->row);
	}
	start = seconds();
	assert_int_equal(lastgood_write(path, snapshot), 0);
	written = seconds();
	assert_int_equal(lastgood_read(path, &reason, &back), 0);
	read = seconds();
	print_message(
	        "10000 listeners: written %.0f ms, read %.0f ms\n", (written - start) * 1e3, (read - written) * 1e3);
	assert_true(read - start < 10); /* far above any machine's figure: finds only what grows faster than rows */
	snapshot_unref(snapshot);
	snapshot_unref(back);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_there_and_back),
		TEST(test_what_is_refused),
		TEST(test_damage),
		TEST(test_failed_write_keeps_the_old_one),
		TEST(test_many_listeners),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
