/*
 * What store.c (rows) and store_open.c (the file) share. Not for others.
 */
#ifndef GW_GATEWAYD_STORE_PRIVATE_H
#define GW_GATEWAYD_STORE_PRIVATE_H

#include <stddef.h>
#include <sys/types.h>

#include "gatewayd/store.h"
#include "schema/field.h"

struct sqlite3;
struct sqlite3_stmt;

/* Parameters of INSERT and UPDATE; the columns of the fields follow. */
enum store_parameter { PARAMETER_ID = 1, PARAMETER_REVISION, PARAMETER_PARENT, PARAMETER_POSITION, PARAMETER_FIELDS };

/* Statements per resource. */
enum store_statement {
	STATEMENT_LIST,    /* all rows, sorted by name, children by parent and position */
	STATEMENT_FIND,    /* id by key */
	STATEMENT_INSERT,  /* parameters as above */
	STATEMENT_UPDATE,  /* the same */
	STATEMENT_DELETE,  /* by id */
	STATEMENT_MARK,    /* children of a parent: position made negative */
	STATEMENT_SWEEP,   /* children of a parent that are still marked */
	STATEMENT_ENTRIES, /* the prefixes of a row, in their order */
	STATEMENT_ENTRY_ADD,
	STATEMENT_ENTRY_DELETE,
	STATEMENTS
};

/* Statements that belong to no resource. */
enum store_command {
	COMMAND_BEGIN,
	COMMAND_COMMIT,
	COMMAND_REVISION,
	COMMAND_RECORD,
	COMMAND_TRIM,
	COMMAND_HASH,
	COMMANDS
};

/* Which file it is. */
struct store_place {
	dev_t device;
	ino_t inode; /* 0: not known yet */
};

struct store {
	struct sqlite3 *db;
	struct sqlite3_stmt *statement[RESOURCES][STATEMENTS]; /* MARK, SWEEP: of children; ENTR...: with prefixes */
	struct sqlite3_stmt *command[COMMANDS];
	char config_hash[65]; /* of the revision to be committed; empty: none */
	char error[512];
	char *path; /* NULL: in memory */
	struct store_place file, log;
};

/* Keeps the library's words with `what` in front, and translates its code; returns a negative errno. */
int store_fail(struct store *store, int code, const char *what);
/* Keeps words of our own; returns r. */
int store_fault(struct store *store, int r, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The prefixes stored for this row. */
int store_entries_load(struct store *store, enum resource_id resource, int64_t id, struct prefixes *ret);
/* Writes what differs between the row's prefixes and those of old, or if that is NULL those stored. */
int store_entries_write(struct store *store, const struct row *row, const struct field *field, const struct row *old);
/* Copies the file at path beside itself and begins a transaction in which it becomes one of version `to`; the caller
 * checks, commits, and turns foreign_keys on again. */
int store_migrate(struct store *store, const char *path, int64_t from, int64_t to);
/* Notes which file the name leads to. -ENOMEM. */
int store_guard_start(struct store *store, const char *path);
/* Within a transaction: -EIO if the name does not lead to the file any more. */
int store_guard_check(struct store *store);
/* Prepares every statement. */
int store_prepare(struct store *store);

#endif
