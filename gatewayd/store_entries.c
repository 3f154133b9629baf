/*
 * The prefixes of a row in a table of their own. Written by difference: what
 * an address set of a hundred thousand entries costs is what changes in it.
 */
#include <errno.h>
#include <sqlite3.h>
#include <string.h>

#include "gatewayd/store_private.h"
#include "schema/prefixes.h"

/* Family (4 or 6), address, length: bytes whose order is that of prefix_compare. */
#define ENTRY_MAX 18

static int entry_write(const struct prefix *prefix, uint8_t entry[ENTRY_MAX])
{
	int size = prefix->addr.family == AF_INET ? 4 : 16;

	entry[0] = prefix->addr.family == AF_INET ? 4 : 6;
	memcpy(entry + 1, prefix->addr.bytes, (size_t)size);
	entry[1 + size] = prefix->length;
	return size + 2;
}

static int entry_read(const uint8_t *entry, int length, struct prefix *ret)
{
	struct prefix prefix = { 0 };
	int size = length - 2;

	if (!entry || (length != 6 && length != 18) || entry[0] != (length == 6 ? 4 : 6))
		return -EBADMSG;
	prefix.addr.family = length == 6 ? AF_INET : AF_INET6;
	memcpy(prefix.addr.bytes, entry + 1, (size_t)size);
	prefix.length = entry[1 + size];
	*ret = prefix;
	return 0;
}

static int read_entries(struct store *store, struct sqlite3_stmt *statement, int64_t id, struct prefixes *ret)
{
	_cleanup_prefixes_builder_ struct prefixes_builder builder = { 0 };
	int code = sqlite3_bind_int64(statement, 1, id), r = 0;

	while (r == 0 && code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
		struct prefix prefix;

		r = entry_read(sqlite3_column_blob(statement, 0), sqlite3_column_bytes(statement, 0), &prefix);
		if (r == 0)
			r = prefixes_add(&builder, &prefix);
		code = SQLITE_OK;
	}
	if (r == 0 && code != SQLITE_DONE)
		return store_fail(store, code, "cannot read prefixes");
	if (r == 0)
		r = prefixes_finish(&builder, ret);
	return r == -EBADMSG ? store_fault(store, -EUCLEAN, "id %lld has an entry that is no prefix", (long long)id)
	                     : r;
}

int store_entries_load(struct store *store, enum resource_id resource, int64_t id, struct prefixes *ret)
{
	struct sqlite3_stmt *statement = store->statement[resource][STATEMENT_ENTRIES];
	int r = read_entries(store, statement, id, ret);

	sqlite3_reset(statement);
	return r;
}

/* Where the differences of one row go. */
struct writer {
	struct store *store;
	const struct row *row;
};

static int write_difference(void *userdata, const struct prefix *prefix, bool added)
{
	struct writer *writer = userdata;
	struct sqlite3_stmt *statement =
	        writer->store->statement[writer->row->resource][added ? STATEMENT_ENTRY_ADD : STATEMENT_ENTRY_DELETE];
	uint8_t entry[ENTRY_MAX];
	int length = entry_write(prefix, entry), code, r = 0;

	code = sqlite3_bind_int64(statement, 1, writer->row->id);
	if (code == SQLITE_OK)
		code = sqlite3_bind_blob(statement, 2, entry, length, SQLITE_STATIC);
	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	if (code != SQLITE_DONE)
		r = store_fail(writer->store, code, "cannot write a prefix");
	sqlite3_reset(statement);
	sqlite3_clear_bindings(statement);
	return r;
}

int store_entries_write(struct store *store, const struct row *row, const struct field *field, const struct row *old)
{
	_cleanup_prefixes_ struct prefixes stored = { 0 };
	struct writer writer = { store, row };
	int r = 0;

	if (old)
		prefixes_share(&stored, FIELD_AT_CONST(old, field, struct prefixes));
	else
		r = store_entries_load(store, row->resource, row->id, &stored);
	if (r < 0)
		return r;
	return prefixes_differences(&stored, FIELD_AT_CONST(row, field, struct prefixes), write_difference, &writer);
}
