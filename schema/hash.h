/*
 * A hash of a whole configuration that a change of one row updates: the sum,
 * modulo 2^256, of a SHA-256 for each row and one for each prefix of a large
 * set. The order of the rows does not count, and a change of one entry among
 * a hundred thousand costs one entry. It finds damage, not an attacker, who
 * could write the hash as well.
 */
#ifndef GW_SCHEMA_HASH_H
#define GW_SCHEMA_HASH_H

#include "schema/types.h"

/* Characters of the text, with its terminator. */
#define CONFIG_HASH_TEXT 65

/* Zeroed: of the empty configuration. */
struct config_hash {
	uint8_t bytes[32];
};

/* The configuration gains, loses, or exchanges a row; old or new may be NULL. Rows of a private resource (tokens) do
 * not count. A row that only has another id or revision is the same. 0, -ENOMEM, -EIO (no SHA-256); the hash is
 * unchanged then. */
int config_hash_add(struct config_hash *hash, const struct row *row);
int config_hash_remove(struct config_hash *hash, const struct row *row);
int config_hash_change(struct config_hash *hash, const struct row *old, const struct row *new);
/* All rows of a list. */
int config_hash_add_rows(struct config_hash *hash, const struct rows *rows);
/* Lower-case hexadecimal. */
void config_hash_text(const struct config_hash *hash, char text[CONFIG_HASH_TEXT]);

#endif
