/*
 * Any JSON as any resource: the first byte says which, the rest is the
 * document. What is taken encodes to a document that decodes to the same row,
 * is the same in both encoders, and keeps every rule of check. What is refused
 * has words.
 */
#include <errno.h>

#include "schema/check.h"
#include "schema/decode.h"
#include "schema/encode.h"
#include "tests/fuzz/fuzz.h"

/* The fast encoder writes the same document. */
static void expect_same_text(const struct row *row, json_t *json)
{
	struct text text = { 0 };
	json_t *again;

	FUZZ_EXPECT(encode_text(row, 0, &text) == 0);
	again = json_loads(text.bytes, JSON_REJECT_DUPLICATES, NULL);
	FUZZ_EXPECT(again);
	FUZZ_EXPECT(json_equal(again, json));
	json_decref(again);
	text_clear(&text);
}

/* There and back again. */
static void expect_round_trip(const struct resource *resource, const struct row *row)
{
	_cleanup_errs_ struct errs errs = { 0 };
	json_t *json = encode_row(row);
	struct row *again, *copy;

	FUZZ_EXPECT(json);
	expect_same_text(row, json);
	FUZZ_EXPECT(decode_row(resource, json, row_name(row), &errs, &again) == 0);
	FUZZ_EXPECT(row_equal(row, again));
	copy = row_copy(again);
	FUZZ_EXPECT(copy && row_equal(copy, row));
	row_unref(copy);
	row_unref(again);
	json_decref(json);
}

/* An empty patch changes nothing; the document as a patch of itself neither. */
static void expect_merge(json_t *object)
{
	json_t *empty = json_object(), *target = json_deep_copy(object);

	FUZZ_EXPECT(empty && target);
	FUZZ_EXPECT(decode_merge_patch(target, empty) == 0);
	FUZZ_EXPECT(json_equal(target, object));
	FUZZ_EXPECT(decode_merge_patch(target, object) == 0);
	json_decref(empty);
	json_decref(target);
}

static void decode_one(const struct resource *resource, json_t *object)
{
	_cleanup_errs_ struct errs errs = { 0 };
	struct row *row = NULL;
	int r = decode_row(resource, object, NULL, &errs, &row);

	FUZZ_EXPECT(r == 0 || r == -EINVAL);
	FUZZ_EXPECT((r == 0) == (row != NULL));
	FUZZ_EXPECT((r < 0) == (errs.n > 0));
	for (size_t i = 0; i < errs.n; i++)
		FUZZ_EXPECT(errs.items[i].pointer && errs.items[i].code && errs.items[i].detail);
	if (r < 0)
		return;
	expect_round_trip(resource, row);
	FUZZ_EXPECT(check_row(row, &errs) == 0);
	row_unref(row);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_errs_ struct errs errs = { 0 };
	json_t *object = NULL;
	char *text;
	int r;

	if (size < 1)
		return 0;
	text = fuzz_text(data + 1, size - 1);
	r = decode_parse(text, size - 1, &errs, &object);
	FUZZ_EXPECT(r == 0 || r == -EBADMSG);
	FUZZ_EXPECT((r < 0) == (errs.n > 0));
	if (r == 0) {
		expect_merge(object);
		decode_one(resource_get((enum resource_id)(data[0] % RESOURCES)), object);
		json_decref(object);
	}
	free(text);
	return 0;
}
