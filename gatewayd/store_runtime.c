/* Operators' words about targets in the database; see store_runtime.h. */
#include "gatewayd/store_runtime.h"

#include <errno.h>
#include <sqlite3.h>

#include "gatewayd/store_private.h"

enum column { TARGET, ADMIN, WEIGHT, OVER_ADMIN, OVER_WEIGHT, DEADLINE, RESET_PER_S, SAID_AT, ACTOR };

static void finalize_p(struct sqlite3_stmt **statement)
{
	sqlite3_finalize(*statement);
}

#define _cleanup_statement_ _cleanup_(finalize_p)

static int prepare(struct store *store, const char *sql, struct sqlite3_stmt **ret)
{
	int code = sqlite3_prepare_v2(store->db, sql, -1, ret, NULL);

	return code == SQLITE_OK ? 0 : store_fail(store, code, "cannot prepare a statement");
}

/* NONE becomes null. */
static int bind_number(struct sqlite3_stmt *statement, enum column column, int64_t value)
{
	return value == STORE_RUNTIME_NONE ? sqlite3_bind_null(statement, (int)column + 1)
	                                   : sqlite3_bind_int64(statement, (int)column + 1, value);
}

static int64_t number(struct sqlite3_stmt *statement, enum column column)
{
	return sqlite3_column_type(statement, (int)column) == SQLITE_NULL
	               ? STORE_RUNTIME_NONE
	               : sqlite3_column_int64(statement, (int)column);
}

static int finish(struct store *store, struct sqlite3_stmt *statement, const char *what)
{
	int code = sqlite3_step(statement);

	return code == SQLITE_DONE ? 0 : store_fail(store, code, what);
}

int store_runtime_put(struct store *store, const struct store_runtime *runtime)
{
	_cleanup_statement_ struct sqlite3_stmt *statement = NULL;
	const int64_t values[] = { [TARGET] = runtime->target,
		[ADMIN] = runtime->admin_state,
		[WEIGHT] = runtime->weight,
		[OVER_ADMIN] = runtime->over_admin,
		[OVER_WEIGHT] = runtime->over_weight,
		[DEADLINE] = runtime->drain_deadline,
		[RESET_PER_S] = runtime->reset_per_s,
		[SAID_AT] = runtime->said_at };
	int r = store_guard(store), code = SQLITE_OK;

	if (r == 0)
		r = prepare(store,
		        "INSERT OR REPLACE INTO target_runtime (target, admin_state, weight, over_admin, over_weight, "
		        "drain_deadline, reset_per_s, said_at, actor) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
		        &statement);
	if (r < 0)
		return r;
	for (enum column column = TARGET; code == SQLITE_OK && column < ARRAY_SIZE(values); column++)
		code = bind_number(statement, column, values[column]);
	if (code == SQLITE_OK)
		code = sqlite3_bind_text(statement, ACTOR + 1, runtime->actor, -1, SQLITE_TRANSIENT);
	if (code != SQLITE_OK)
		return store_fail(store, code, "cannot prepare a statement");
	return finish(store, statement, "cannot store the state of a target");
}

int store_runtime_delete(struct store *store, int64_t target)
{
	_cleanup_statement_ struct sqlite3_stmt *statement = NULL;
	int r = store_guard(store);

	if (r == 0)
		r = prepare(store, "DELETE FROM target_runtime WHERE target = ?1", &statement);
	if (r == 0 && bind_number(statement, TARGET, target) != SQLITE_OK)
		r = -ENOMEM;
	return r < 0 ? r : finish(store, statement, "cannot forget the state of a target");
}

int store_runtime_list(struct store *store, store_runtime_visitor visitor, void *userdata)
{
	_cleanup_statement_ struct sqlite3_stmt *statement = NULL;
	int r = prepare(store,
	            "SELECT target, admin_state, weight, over_admin, over_weight, drain_deadline, reset_per_s, "
	            "said_at, actor FROM target_runtime ORDER BY target",
	            &statement),
	    code;

	if (r < 0)
		return r;
	while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
		struct store_runtime runtime = { .target = number(statement, TARGET),
			.admin_state = number(statement, ADMIN),
			.weight = number(statement, WEIGHT),
			.over_admin = number(statement, OVER_ADMIN),
			.over_weight = number(statement, OVER_WEIGHT),
			.drain_deadline = number(statement, DEADLINE),
			.reset_per_s = number(statement, RESET_PER_S),
			.said_at = number(statement, SAID_AT),
			.actor = (const char *)sqlite3_column_text(statement, ACTOR) };

		r = visitor(userdata, &runtime);
		if (r < 0)
			return r;
	}
	return code == SQLITE_DONE ? 0 : store_fail(store, code, "the states of targets cannot be read");
}
