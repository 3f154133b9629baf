/* Bans in the database; see store_bans.h. */
#include "gatewayd/store_bans.h"

#include <errno.h>
#include <sqlite3.h>
#include <string.h>

#include "gatewayd/store_private.h"

static void finalize_p(struct sqlite3_stmt **statement)
{
	sqlite3_finalize(*statement);
}

#define _cleanup_statement_ _cleanup_(finalize_p)

static const char *text(struct sqlite3_stmt *statement, int column)
{
	const char *value = (const char *)sqlite3_column_text(statement, column);

	return value ? value : "";
}

int store_bans_load(struct store *store, store_ban_visitor visitor, void *userdata)
{
	_cleanup_statement_ struct sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(store->db,
	        "SELECT prefix, reason, actor, rate_limit, created_at, expires_at, placement FROM ban", -1, &statement,
	        NULL);

	while (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
		struct store_ban ban = { text(statement, 0), text(statement, 1), text(statement, 2), text(statement, 3),
			sqlite3_column_int64(statement, 4), sqlite3_column_int64(statement, 5),
			strcmp(text(statement, 6), "xdp") == 0 };
		int r = visitor(userdata, &ban);

		if (r < 0)
			return r;
		code = SQLITE_OK;
	}
	return code == SQLITE_DONE ? 0 : store_fail(store, code, "cannot read the bans");
}

static int put(struct sqlite3_stmt *statement, const struct store_ban *ban)
{
	const char *const texts[] = { ban->prefix, ban->reason, ban->actor, ban->rate_limit };

	sqlite3_reset(statement);
	for (int i = 0; i < 4; i++)
		sqlite3_bind_text(statement, i + 1, texts[i], -1, SQLITE_TRANSIENT);
	sqlite3_bind_int64(statement, 5, ban->created_at);
	if (ban->expires_at)
		sqlite3_bind_int64(statement, 6, ban->expires_at);
	else
		sqlite3_bind_null(statement, 6);
	sqlite3_bind_text(statement, 7, ban->xdp ? "xdp" : "nft", -1, SQLITE_STATIC);
	return sqlite3_step(statement);
}

static int put_all(struct store *store, const struct store_ban *bans, size_t n)
{
	_cleanup_statement_ struct sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(store->db,
	        "INSERT OR REPLACE INTO ban (prefix, reason, actor, rate_limit, created_at, expires_at, placement) "
	        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
	        -1, &statement, NULL);

	for (size_t i = 0; i < n && (code == SQLITE_OK || code == SQLITE_DONE); i++)
		code = put(statement, &bans[i]);
	return code == SQLITE_OK || code == SQLITE_DONE ? 0 : store_fail(store, code, "cannot write a ban");
}

static int forget_all(struct store *store, const char *const *prefixes, size_t n)
{
	_cleanup_statement_ struct sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(store->db, "DELETE FROM ban WHERE prefix = ?1", -1, &statement, NULL);

	for (size_t i = 0; i < n && (code == SQLITE_OK || code == SQLITE_DONE); i++) {
		sqlite3_reset(statement);
		sqlite3_bind_text(statement, 1, prefixes[i], -1, SQLITE_TRANSIENT);
		code = sqlite3_step(statement);
	}
	return code == SQLITE_OK || code == SQLITE_DONE ? 0 : store_fail(store, code, "cannot forget a ban");
}

int store_bans_write(
        struct store *store, const struct store_ban *bans, size_t n, const char *const *forget, size_t n_forget)
{
	int r = store_begin(store), code;

	if (r == 0)
		r = put_all(store, bans, n);
	if (r == 0)
		r = forget_all(store, forget, n_forget);
	if (r == 0) {
		code = sqlite3_exec(store->db, "COMMIT", NULL, NULL, NULL);
		r = code == SQLITE_OK ? 0 : store_fail(store, code, "cannot commit bans");
	}
	if (r < 0 && r != -EALREADY)
		store_rollback(store);
	return r;
}
