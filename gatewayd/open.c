/* Opening the database, and the ways out; see open.h. */
#include "gatewayd/open.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gatewayd/base/log.h"
#include "gatewayd/lastgood.h"

/* Paths of one start. */
struct paths {
	char database[PATH_MAX], last_good[PATH_MAX];
};

static struct paths paths_of(const struct options *options)
{
	struct paths paths;

	snprintf(paths.database, sizeof(paths.database), "%s/gateway.db", options->state_dir);
	snprintf(paths.last_good, sizeof(paths.last_good), "%s/gateway.lastgood", options->state_dir);
	return paths;
}

static int try_open(const struct paths *paths, struct store **ret_store, struct snapshot **ret_snapshot)
{
	_cleanup_(store_close_p) struct store *store = NULL;
	_cleanup_free_ char *reason = NULL;
	int r = store_open(paths->database, &reason, &store);

	if (r < 0) {
		log_error("%s: %s", paths->database, reason ? reason : strerror(-r));
		return r;
	}
	r = store_load(store, ret_snapshot);
	if (r < 0) {
		log_error("%s: %s", paths->database, store_error(store));
		return r;
	}
	*ret_store = TAKE_PTR(store);
	return 0;
}

/* Puts every row into a fresh database, under the number of the revision they were last in force as. */
static int import_rows(struct store *store, const struct snapshot *snapshot)
{
	int r = store_begin(store);

	for (int id = 0; id < RESOURCES && r == 0; id++)
		for (size_t i = 0; i < snapshot->rows[id].n && r == 0; i++) {
			snapshot->rows[id].items[i]->id = 0; /* the new database gives its own */
			r = store_put(store, snapshot->rows[id].items[i]);
		}
	if (r == 0)
		r = store_commit(store, snapshot->revision > 0 ? snapshot->revision : 1, "gatewayd",
		        "restored from the last good configuration");
	if (r < 0) {
		log_error("the last good configuration cannot be stored: %s", store_error(store));
		store_rollback(store);
	}
	return r;
}

/* Makes a database from the last good configuration; there must be none. */
static int make_from(const struct paths *paths, const struct snapshot *good)
{
	_cleanup_(store_close_p) struct store *store = NULL;
	_cleanup_free_ char *reason = NULL;
	int r = store_open(paths->database, &reason, &store);

	if (r < 0) {
		log_error("%s: %s", paths->database, reason ? reason : strerror(-r));
		return r;
	}
	r = import_rows(store, good);
	if (r == 0)
		log_warning(
		        "the database was made anew from the last good configuration, revision %lld; tokens are gone",
		        (long long)good->revision);
	return r;
}

/* The refused file is evidence: it is kept, with its journal. */
static int move_aside(const struct paths *paths)
{
	static const char *const endings[] = { "", "-wal", "-shm" };
	char from[PATH_MAX + 8], to[PATH_MAX + 64];
	long long now = (long long)time(NULL);

	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		snprintf(from, sizeof(from), "%s%s", paths->database, endings[i]);
		snprintf(to, sizeof(to), "%s.refused-%lld%s", paths->database, now, endings[i]);
		if (rename(from, to) < 0 && errno != ENOENT)
			return -errno;
	}
	log_warning("the refused database is kept as %s.refused-%lld", paths->database, now);
	return 0;
}

/* Whether this fault is about what is in the file, and not about the machine. */
static bool is_refusal(int error)
{
	return error == -EUCLEAN || error == -EMEDIUMTYPE || error == -EPROTONOSUPPORT;
}

int open_store(const struct options *options, struct store **ret_store, struct snapshot **ret_snapshot)
{
	_cleanup_(snapshot_unref_p) struct snapshot *good = NULL;
	_cleanup_free_ char *reason = NULL;
	struct paths paths = paths_of(options);
	bool there = access(paths.database, F_OK) == 0;
	int r = there ? try_open(&paths, ret_store, ret_snapshot) : -ENOENT;

	if (there && (r == 0 || !is_refusal(r)))
		return r;
	if (lastgood_read(paths.last_good, &reason, &good) < 0)
		return there ? r : try_open(&paths, ret_store, ret_snapshot);
	if (options->mode == OPTIONS_CHECK || (there && !options->restore)) {
		log_error("the last good configuration is revision %lld, in %s: start %s to go on from it",
		        (long long)good->revision, paths.last_good, there ? "with --restore" : "gatewayd");
		return r;
	}
	r = there ? move_aside(&paths) : 0;
	if (r == 0)
		r = make_from(&paths, good);
	return r < 0 ? r : try_open(&paths, ret_store, ret_snapshot);
}

int open_last_good(const struct options *options, char **ret_reason, struct snapshot **ret)
{
	struct paths paths = paths_of(options);

	return lastgood_read(paths.last_good, ret_reason, ret);
}

int open_save_last_good(const struct options *options, const struct snapshot *snapshot)
{
	struct paths paths = paths_of(options);
	int r = lastgood_write(paths.last_good, snapshot);

	if (r < 0)
		log_warning("%s cannot be written: %s", paths.last_good, strerror(-r));
	return r;
}
