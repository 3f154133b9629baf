/*
 * The secrets behind the rows of the resource "tokens": made with the row,
 * shown once, kept as SHA-256 sums. Called by edit.c and auth.c.
 */
#ifndef GW_WEBAPI_TOKENS_H
#define GW_WEBAPI_TOKENS_H

#include "webapi/message.h"

/* Begins every token that is made here, so that one in a log or a repository is recognised. */
#define TOKENS_PREFIX    "gwt_"
#define TOKENS_SUM_BYTES 32

/* Who a token stands for. */
struct identity {
	enum role role;
	char token[NAME_MAX_BYTES + 1]; /* name of the row; "" for the token in the file */
	uint8_t sum[TOKENS_SUM_BYTES];
};

/* Whether the resource is that of the tokens (which are no part of the configuration document). */
bool tokens_is(const struct resource *resource);
/* Gives the row the hash of the row it replaces; or, if there is none (now is NULL), makes a secret, which is a new
 * string. 0, -EINVAL (a reserved name; the fault's pointer is below `base`), -ENOMEM, -EIO. */
int tokens_prepare(struct row *row, const struct row *now, const char *base, struct errs *errs, char **ret_secret);
/* SHA-256 of a text. 0 or -EIO. */
int tokens_sum(const char *text, size_t length, uint8_t ret[TOKENS_SUM_BYTES]);
/* Finds the row with this sum that has not expired, in a time that does not depend on how much of it is right. */
bool tokens_find(struct core *core, const uint8_t sum[TOKENS_SUM_BYTES], int64_t now, struct identity *ret);
/* Whether the row that the identity came from still has the same secret and has not expired; takes its role anew. */
bool tokens_still(struct core *core, int64_t now, struct identity *identity);
/* Fills `size` bytes (even) with random hexadecimal digits and a terminator behind them. 0 or -EIO. */
int tokens_random(char *text, size_t size);

#endif
