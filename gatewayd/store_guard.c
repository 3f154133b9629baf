/*
 * The database's file under the running daemon: whether its name still leads
 * to it. SQLite goes on writing into a file that somebody has deleted, and
 * what is acknowledged then is gone with the process. All of it can still be
 * read through the open descriptors, so a deleted file, or its log, is written
 * anew as an exact copy. A file that was put in its place is somebody's will:
 * it is left alone, and writes are refused.
 */
#include "gatewayd/store_private.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <libgen.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/log.h"
#include "gatewayd/store_history.h"

enum place { PLACE_OURS, PLACE_EMPTY, PLACE_TAKEN };

static enum place look(const char *path, const struct store_place *place)
{
	struct stat found;

	if (stat(path, &found) < 0)
		return PLACE_EMPTY;
	return found.st_dev == place->device && found.st_ino == place->inode ? PLACE_OURS : PLACE_TAKEN;
}

static void remember(const char *path, struct store_place *ret)
{
	struct stat found;

	*ret = (struct store_place){ 0 };
	if (stat(path, &found) == 0)
		*ret = (struct store_place){ found.st_dev, found.st_ino };
}

static void log_path(const struct store *store, const char *suffix, char buffer[PATH_MAX])
{
	snprintf(buffer, PATH_MAX, "%s%s", store->path, suffix);
}

/* The log comes with the first transaction. */
static void remember_log(struct store *store)
{
	char path[PATH_MAX];

	log_path(store, "-wal", path);
	if (store->log.inode == 0)
		remember(path, &store->log);
}

int store_guard_start(struct store *store, const char *path)
{
	store->path = strdup(path);
	if (!store->path)
		return -ENOMEM;
	remember(store->path, &store->file);
	return 0;
}

static enum place look_at_all(struct store *store)
{
	enum place file = look(store->path, &store->file);
	char path[PATH_MAX];

	if (file != PLACE_OURS)
		return file;
	remember_log(store);
	log_path(store, "-wal", path);
	return store->log.inode == 0 || look(path, &store->log) == PLACE_OURS ? PLACE_OURS : PLACE_EMPTY;
}

int store_guard_check(struct store *store)
{
	if (!store->path || look_at_all(store) == PLACE_OURS)
		return 0;
	return store_fault(store, -EIO, "%s was deleted or replaced meanwhile", store->path);
}

/* From here on the copy is the database: everything of the store but its words changes hands. */
static void adopt(struct store *store, struct store *copy)
{
	struct store old = *store;
	int persist = 1;

	*store = *copy;
	*copy = old;
	/* At the end of its last connection SQLite deletes the log by its name, which is the other's now. */
	(void)sqlite3_file_control(copy->db, "main", SQLITE_FCNTL_PERSIST_WAL, &persist);
	store_close(copy);
}

static int sync_directory(const char *path)
{
	_cleanup_free_ char *copy = strdup(path);
	_cleanup_close_ int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int write_anew(struct store *store)
{
	char fresh[PATH_MAX], path[PATH_MAX];
	_cleanup_free_ char *reason = NULL;
	struct store *copy = NULL;
	int r;

	log_path(store, ".fresh", fresh);
	(void)unlink(fresh); /* of an attempt before */
	r = store_backup(store, fresh);
	if (r < 0)
		return r;
	log_path(store, "-wal", path);
	(void)unlink(path); /* a log of the file that is gone must not be taken for the copy's */
	log_path(store, "-shm", path);
	(void)unlink(path);
	r = rename(fresh, store->path) < 0 ? -errno : sync_directory(store->path);
	if (r == 0)
		r = store_open(store->path, &reason, &copy);
	if (r < 0)
		return store_fault(store, r, "%s", reason ? reason : strerror(-r));
	adopt(store, copy);
	return 0;
}

int store_guard(struct store *store)
{
	char words[512];
	enum place place;
	int r;

	if (!store->path || !sqlite3_get_autocommit(store->db))
		return 0;
	place = look_at_all(store);
	if (place == PLACE_OURS)
		return 0;
	if (place == PLACE_TAKEN)
		return store_fault(store, -EIO,
		        "another file was put in the place of %s; restart gatewayd to load it, or put the old one back",
		        store->path);
	r = write_anew(store);
	if (r == 0) {
		log_warning("%s was deleted by somebody; it has been written anew", store->path);
		return 0;
	}
	snprintf(words, sizeof(words), "%s", store->error);
	return store_fault(store, r == -ENOSPC || r == -EROFS ? r : -EIO,
	        "%s was deleted by somebody and cannot be written anew: %s", store->path, words);
}
