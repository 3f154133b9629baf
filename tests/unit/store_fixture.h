/* A store in a directory of its own, and a disk that is full: what tests of whatever writes to it share. */
#ifndef GW_TEST_STORE_FIXTURE_H
#define GW_TEST_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/store.h"
#include "rules/snapshot.h"

#define STORE_FIXTURE_DIRECTORY 64

static inline void store_fixture_make(char directory[STORE_FIXTURE_DIRECTORY], const char *name)
{
	snprintf(directory, STORE_FIXTURE_DIRECTORY, "/tmp/gw-%s-XXXXXX", name);
	assert_non_null(mkdtemp(directory));
}

/* Opens the store of the directory, a new one at first. */
static inline void store_fixture_open(const char *directory, struct store **ret, struct snapshot **ret_snapshot)
{
	_cleanup_free_ char *reason = NULL;
	char path[STORE_FIXTURE_DIRECTORY + 32];

	snprintf(path, sizeof(path), "%s/gateway.db", directory);
	if (store_open(path, &reason, ret) < 0)
		fail_msg("%s", reason);
	assert_int_equal(store_load(*ret, ret_snapshot), 0);
}

static inline void store_fixture_remove(const char *directory)
{
	static const char *const files[] = { "gateway.db", "gateway.db-wal", "gateway.db-shm", "copy.db" };
	char path[STORE_FIXTURE_DIRECTORY + 32];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		snprintf(path, sizeof(path), "%s/%s", directory, files[i]);
		unlink(path);
	}
	rmdir(directory);
}

/* No file grows beyond this from here on. */
static inline void limit_files(rlim_t bytes)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

#endif
