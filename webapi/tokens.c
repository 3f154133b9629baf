/* Secrets of tokens, see tokens.h. */
#include "webapi/tokens.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>

#include "gatewayd/base/hex.h"

/* Random digits of a token: 256 bits. */
#define SECRET_DIGITS 64
/* The token of the file is "token admin" in the audit log; a row of that name would be taken for it. */
#define RESERVED_NAME "admin"

bool tokens_is(const struct resource *resource)
{
	return resource->id == RESOURCE_TOKEN;
}

int tokens_random(char *text, size_t size)
{
	uint8_t bytes[SECRET_DIGITS / 2];
	size_t n = size / 2 < sizeof(bytes) ? size / 2 : sizeof(bytes);

	if (gnutls_rnd(GNUTLS_RND_KEY, bytes, n) < 0)
		return -EIO;
	hex_format(bytes, n, text);
	gnutls_memset(bytes, 0, sizeof(bytes));
	return 0;
}

int tokens_sum(const char *text, size_t length, uint8_t ret[TOKENS_SUM_BYTES])
{
	return gnutls_hash_fast(GNUTLS_DIG_SHA256, text, length, ret) < 0 ? -EIO : 0;
}

/* Makes the secret and notes its hash in the row. */
static int make_secret(struct token *token, char **ret_secret)
{
	char secret[sizeof(TOKENS_PREFIX) + SECRET_DIGITS] = TOKENS_PREFIX, hash[2 * TOKENS_SUM_BYTES + 1];
	uint8_t sum[TOKENS_SUM_BYTES];
	int r = tokens_random(secret + strlen(TOKENS_PREFIX), SECRET_DIGITS);

	if (!r)
		r = tokens_sum(secret, strlen(secret), sum);
	if (r < 0)
		return r;
	hex_format(sum, sizeof(sum), hash);
	free(token->hash);
	token->hash = strdup(hash);
	*ret_secret = strdup(secret);
	gnutls_memset(secret, 0, sizeof(secret));
	return token->hash && *ret_secret ? 0 : -ENOMEM;
}

int tokens_prepare(struct row *row, const struct row *now, const char *base, struct errs *errs, char **ret_secret)
{
	struct token *token = (struct token *)row;
	char pointer[64];

	if (!strcmp(token->name, RESERVED_NAME)) {
		snprintf(pointer, sizeof(pointer), "%s/name", base);
		errs_add(errs, pointer, "reserved", "this is the name of the token in the daemon's file");
		return -EINVAL;
	}
	if (!now)
		return make_secret(token, ret_secret);
	free(token->hash);
	token->hash = strdup(((const struct token *)now)->hash);
	return token->hash ? 0 : -ENOMEM;
}

/* Whether the row's hash is this one (as text); the time taken does not depend on where they differ. */
static bool has_hash(const struct token *token, const char *hash)
{
	return strlen(token->hash) == 2 * TOKENS_SUM_BYTES && !gnutls_memcmp(token->hash, hash, 2 * TOKENS_SUM_BYTES);
}

static bool in_time(const struct token *token, int64_t now)
{
	return !token->expires_at || now < token->expires_at;
}

static enum role role_of(const struct token *token)
{
	switch (token->role) {
	case TOKEN_ROLE_ADMIN:
		return ROLE_ADMIN;
	case TOKEN_ROLE_OPERATOR:
		return ROLE_OPERATOR;
	default:
		return ROLE_VIEWER;
	}
}

bool tokens_find(struct core *core, const uint8_t sum[TOKENS_SUM_BYTES], int64_t now, struct identity *ret)
{
	const struct row *rows[64];
	const struct token *found = NULL;
	char hash[2 * TOKENS_SUM_BYTES + 1];
	const char *after = NULL;
	size_t n;

	hex_format(sum, TOKENS_SUM_BYTES, hash);
	while ((n = core_list(core, RESOURCE_TOKEN, after, ARRAY_SIZE(rows), rows)) > 0) {
		for (size_t i = 0; i < n; i++)
			if (has_hash((const void *)rows[i], hash))
				found = (const void *)rows[i];
		after = row_name(rows[n - 1]);
	}
	if (!found || !in_time(found, now))
		return false;
	*ret = (struct identity){ .role = role_of(found) };
	memcpy(ret->token, found->name, sizeof(ret->token));
	memcpy(ret->sum, sum, TOKENS_SUM_BYTES);
	return true;
}

bool tokens_still(struct core *core, int64_t now, struct identity *identity)
{
	const struct token *token = (const void *)core_find(core, RESOURCE_TOKEN, identity->token);
	char hash[2 * TOKENS_SUM_BYTES + 1];

	hex_format(identity->sum, TOKENS_SUM_BYTES, hash);
	if (!token || !has_hash(token, hash) || !in_time(token, now))
		return false;
	identity->role = role_of(token);
	return true;
}
