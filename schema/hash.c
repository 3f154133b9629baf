/* An incremental hash of the configuration; see hash.h. */
#include "schema/hash.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>

#include "gatewayd/base/hex.h"
#include "schema/encode.h"
#include "schema/prefixes.h"

/* A sum that is being changed, and room for the texts that go into it. */
struct sum {
	struct config_hash hash;
	const struct row *row; /* whose prefixes are counted */
	const struct field *field;
	struct text text;
};

/* 256-bit arithmetic, the first byte being the highest. */
static void sum_add(uint8_t sum[32], const uint8_t term[32], bool negative)
{
	int carry = 0;

	for (int i = 31; i >= 0; i--) {
		int digit = sum[i] + carry + (negative ? -term[i] : term[i]);

		sum[i] = (uint8_t)(digit & 0xff);
		carry = digit >> 8;
	}
}

static int sum_text(struct sum *sum, bool negative)
{
	uint8_t digest[32];

	if (sum->text.failed)
		return -ENOMEM;
	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, sum->text.bytes, sum->text.n, digest) < 0)
		return -EIO;
	sum_add(sum->hash.bytes, digest, negative);
	return 0;
}

/* Resource and name, each with its terminator. */
static void begin(struct sum *sum, const struct row *row)
{
	const char *resource = resource_get(row->resource)->name;

	text_restart(&sum->text);
	text_bytes(&sum->text, resource, strlen(resource) + 1);
	text_bytes(&sum->text, row_name(row), strlen(row_name(row)) + 1);
}

static int sum_row(struct sum *sum, const struct row *row, bool negative)
{
	begin(sum, row);
	(void)encode_text(row, ENCODE_SECRETS | ENCODE_WITHOUT_PREFIXES, &sum->text);
	return sum_text(sum, negative);
}

static int sum_prefix(void *userdata, const struct prefix *prefix, bool added)
{
	struct sum *sum = userdata;

	begin(sum, sum->row);
	text_bytes(&sum->text, sum->field->member, strlen(sum->field->member) + 1);
	text_bytes(&sum->text, prefix->addr.family == AF_INET ? "4" : "6", 1);
	text_bytes(&sum->text, (const char *)prefix->addr.bytes, addr_bits(prefix->addr.family) / 8);
	text_bytes(&sum->text, (const char *)&prefix->length, 1);
	return sum_text(sum, !added);
}

static int sum_prefixes(struct sum *sum, const struct row *old, const struct row *new)
{
	const struct resource *resource = resource_get((old ? old : new)->resource);
	static const struct prefixes none;
	int r = 0;

	sum->row = new ? new : old;
	for (size_t i = 0; i < resource->n_fields && r == 0; i++) {
		sum->field = &resource->fields[i];
		if (sum->field->kind == FIELD_PREFIXES)
			r = prefixes_differences(old ? FIELD_AT_CONST(old, sum->field, struct prefixes) : &none,
			        new ? FIELD_AT_CONST(new, sum->field, struct prefixes) : &none, sum_prefix, sum);
	}
	return r;
}

static int sum_change(struct sum *sum, const struct row *old, const struct row *new)
{
	int r = 0;

	if ((!old && !new) || (resource_get((old ? old : new)->resource)->flags & RESOURCE_IS_PRIVATE))
		return 0;
	if (old)
		r = sum_row(sum, old, true);
	if (r == 0 && new)
		r = sum_row(sum, new, false);
	return r < 0 ? r : sum_prefixes(sum, old, new);
}

/* Another name or resource: the prefixes of one say nothing about those of the other. */
static bool is_same(const struct row *old, const struct row *new)
{
	return !old || !new || (old->resource == new->resource &&strcmp(row_name(old), row_name(new)) == 0);
}

int config_hash_change(struct config_hash *hash, const struct row *old, const struct row *new)
{
	struct sum sum = { .hash = *hash };
	int r;

	if (is_same(old, new)) {
		r = sum_change(&sum, old, new);
	} else {
		r = sum_change(&sum, old, NULL);
		if (r == 0)
			r = sum_change(&sum, NULL, new);
	}
	text_clear(&sum.text);
	if (r == 0)
		*hash = sum.hash;
	return r;
}

int config_hash_add(struct config_hash *hash, const struct row *row)
{
	return config_hash_change(hash, NULL, row);
}

int config_hash_remove(struct config_hash *hash, const struct row *row)
{
	return config_hash_change(hash, row, NULL);
}

int config_hash_add_rows(struct config_hash *hash, const struct rows *rows)
{
	struct sum sum = { .hash = *hash };
	int r = 0;

	for (size_t i = 0; i < rows->n && r == 0; i++)
		r = sum_change(&sum, NULL, rows->items[i]);
	text_clear(&sum.text);
	if (r == 0)
		*hash = sum.hash;
	return r;
}

void config_hash_text(const struct config_hash *hash, char text[CONFIG_HASH_TEXT])
{
	hex_format(hash->bytes, sizeof(hash->bytes), text);
}
