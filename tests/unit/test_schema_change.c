/* What follows from a change of rows: the hash of the configuration, the texts of the history and the way back, who
 * refers to whom, and what has no effect yet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include "schema/change.h"
#include "schema/hash.h"
#include "tests/unit/amount.h"
#include "tests/unit/generate.h"

/* ---- hash ---- */

static void expect_hash(const struct config_hash *hash, const char *wanted)
{
	char text[CONFIG_HASH_TEXT];

	config_hash_text(hash, text);
	assert_string_equal(text, wanted);
}

#define EMPTY "0000000000000000000000000000000000000000000000000000000000000000"

/* One row is the SHA-256 of its text: computed here by other means. */
static void test_hash_of_one_row(void **state)
{
	static const char text[] =
	        "settings\0settings\0{\"drift\":\"heal\",\"interception\":\"nft\",\"ban_exempt\":null,\"revisions_"
	        "kept\":10000,\"flow_log\":{"
	        "\"destination\":\"off\",\"file\":\"flows.jsonl\",\"events\":\"end\",\"sample\":1,\"fields\":[]},"
	        "\"talkers_kept\":16384}";
	struct row *row = row_new(RESOURCE_SETTINGS);
	struct config_hash hash = { 0 };
	uint8_t digest[32];

	(void)state;
	expect_hash(&hash, EMPTY);
	assert_int_equal(config_hash_add(&hash, row), 0);
	assert_int_equal(gnutls_hash_fast(GNUTLS_DIG_SHA256, text, sizeof(text) - 1, digest), 0);
	assert_memory_equal(hash.bytes, digest, sizeof(digest));
	assert_int_equal(config_hash_add(&hash, row), 0); /* twice is one bit to the left: with carries */
	for (size_t i = 0; i < sizeof(digest); i++)
		assert_int_equal(
		        hash.bytes[i], (uint8_t)(digest[i] << 1 | (i + 1 < sizeof(digest) ? digest[i + 1] >> 7 : 0)));
	assert_int_equal(config_hash_remove(&hash, row), 0);
	assert_memory_equal(hash.bytes, digest, sizeof(digest));
	assert_int_equal(config_hash_remove(&hash, row), 0);
	expect_hash(&hash, EMPTY);
	row_unref(row);
}

static struct row *random_row(unsigned i)
{
	static const enum resource_id kinds[] = { RESOURCE_LISTENER, RESOURCE_UPSTREAM, RESOURCE_ADDRESS_SET,
		RESOURCE_RATE_LIMIT };
	char name[32];

	snprintf(name, sizeof(name), "n%u", i);
	return generate_row(kinds[i % ARRAY_SIZE(kinds)], name, "pool");
}

/* However a configuration came to be, its hash is the same; and a change is seen whatever field it is in. */
static void test_hash_does_not_depend_on_the_way(void **state)
{
	struct row *rows[40], *other[40];
	struct config_hash forward = { 0 }, backward = { 0 };

	(void)state;
	generate_state = 7;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		rows[i] = random_row(i);
		other[i] = random_row(i);
		assert_int_equal(config_hash_add(&forward, rows[i]), 0);
	}
	for (unsigned i = ARRAY_SIZE(rows); i-- > 0;) {
		assert_int_equal(config_hash_add(&backward, other[i]), 0);
		assert_memory_not_equal(&forward, &backward, sizeof(forward));
		rows[i]->id += 5; /* no part of it */
		assert_int_equal(config_hash_change(&backward, other[i], rows[i]), 0);
	}
	assert_memory_equal(&forward, &backward, sizeof(forward));
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(config_hash_change(&backward, rows[i], NULL), 0);
		row_unref(rows[i]);
		row_unref(other[i]);
	}
	expect_hash(&backward, EMPTY);
}

static void test_hash_sees_each_prefix(void **state)
{
	struct address_set *set = (struct address_set *)generate_row(RESOURCE_ADDRESS_SET, "a", NULL), *copy, *renamed;
	struct config_hash hash = { 0 }, direct = { 0 };
	struct prefixes more = { 0 }, none = { 0 };
	struct errs errs = { 0 };

	(void)state;
	assert_int_equal(prefixes_parse("192.0.2.0/25", 12, &errs, &more), 0);
	copy = (struct address_set *)row_copy(&set->row);
	none = copy->entries;
	copy->entries = (struct prefixes){ 0 };
	assert_int_equal(prefixes_unite(&none, &more, &copy->entries), 0);
	assert_int_equal(config_hash_add(&hash, &set->row), 0);
	assert_int_equal(config_hash_add(&direct, &copy->row), 0);
	assert_memory_not_equal(&hash, &direct, sizeof(hash));
	assert_int_equal(config_hash_change(&hash, &set->row, &copy->row), 0);
	assert_memory_equal(&hash, &direct, sizeof(hash));
	/* The same entries under another name are another configuration. */
	renamed = (struct address_set *)row_copy(&copy->row);
	renamed->name[0] = 'b';
	assert_int_equal(config_hash_change(&hash, &copy->row, &renamed->row), 0);
	assert_memory_not_equal(&hash, &direct, sizeof(hash));
	direct = (struct config_hash){ 0 };
	assert_int_equal(config_hash_add(&direct, &renamed->row), 0);
	assert_memory_equal(&hash, &direct, sizeof(hash));
	row_unref(&renamed->row);
	prefixes_clear(&none);
	prefixes_clear(&more);
	row_unref(&set->row);
	row_unref(&copy->row);
}

/* An entry is a term of its own, and no part of its row's text. */
static void test_hash_of_one_prefix(void **state)
{
	static const char text[] = "address_set\0a\0entries\0004\12\0\0\0\10";
	struct address_set *set = (struct address_set *)row_new(RESOURCE_ADDRESS_SET), *with;
	struct config_hash hash = { 0 };
	struct errs errs = { 0 };
	uint8_t digest[32];

	(void)state;
	strcpy(set->name, "a");
	with = (struct address_set *)row_copy(&set->row);
	assert_int_equal(prefixes_parse("10.0.0.0/8", 10, &errs, &with->entries), 0);
	assert_int_equal(config_hash_add(&hash, &with->row), 0);
	assert_int_equal(config_hash_remove(&hash, &set->row), 0);
	assert_int_equal(gnutls_hash_fast(GNUTLS_DIG_SHA256, text, sizeof(text) - 1, digest), 0);
	assert_memory_equal(hash.bytes, digest, sizeof(digest));
	row_unref(&set->row);
	row_unref(&with->row);
}

static void test_hash_leaves_tokens_out(void **state)
{
	struct row *row = generate_row(RESOURCE_TOKEN, "t", NULL);
	struct config_hash hash = { 0 };

	(void)state;
	assert_int_equal(config_hash_add(&hash, row), 0);
	expect_hash(&hash, EMPTY);
	row_unref(row);
}

/* ---- history ---- */

static void test_there_and_back(void **state)
{
	(void)state;
	generate_state = 3;
	for (unsigned i = 0; i < amount(60, 200); i++) {
		struct row *old = random_row(i), *new = random_row(i), *back = NULL, *forth = NULL;
		_cleanup_free_ char *before = NULL, *after = NULL;
		struct errs errs = { 0 };

		new->id = 4;
		assert_int_equal(change_encode(old, new, &before, &after), 0);
		assert_int_equal(change_undo(new->resource, row_name(new), new, before, after, &errs, &back), 0);
		assert_true(row_equal(back, old));
		assert_int_equal(back->id, 4);
		assert_int_equal(change_undo(old->resource, row_name(old), old, after, before, &errs, &forth), 0);
		assert_true(row_equal(forth, new));
		row_unref(old);
		row_unref(new);
		row_unref(back);
		row_unref(forth);
	}
}

static void test_made_and_deleted(void **state)
{
	struct row *row = generate_row(RESOURCE_ADDRESS_SET, "a", NULL), *back = NULL;
	_cleanup_free_ char *before = NULL, *after = NULL;
	struct errs errs = { 0 };

	(void)state;
	assert_int_equal(change_encode(NULL, row, &before, &after), 0);
	assert_null(before);
	assert_int_equal(change_undo(RESOURCE_ADDRESS_SET, "a", NULL, after, NULL, &errs, &back), 0);
	assert_true(row_equal(back, row));
	assert_int_equal(change_undo(RESOURCE_ADDRESS_SET, "a", NULL, "{", NULL, &errs, &back), -EBADMSG);
	assert_int_equal(change_undo(RESOURCE_ADDRESS_SET, "a", NULL, "{\"x\":1}", NULL, &errs, &back), -EINVAL);
	errs_clear(&errs);
	row_unref(row);
	row_unref(back);
}

/* One entry more among many is one entry in the history. */
static void test_only_what_differs_is_kept(void **state)
{
	struct address_set *old = (struct address_set *)row_new(RESOURCE_ADDRESS_SET), *new;
	_cleanup_free_ char *before = NULL, *after = NULL;
	struct errs errs = { 0 };

	(void)state;
	strcpy(old->name, "a");
	assert_int_equal(prefixes_parse("10.0.0.1\n10.0.0.2\n10.0.0.3", 26, &errs, &old->entries), 0);
	new = (struct address_set *)row_copy(&old->row);
	prefixes_clear(&new->entries);
	assert_int_equal(prefixes_parse("10.0.0.1\n10.0.0.2\n10.0.0.4", 26, &errs, &new->entries), 0);
	assert_int_equal(change_encode(&old->row, &new->row, &before, &after), 0);
	assert_string_equal(before, "{\"name\":\"a\",\"comment\":\"\",\"entries\":[\"10.0.0.3\"]}");
	assert_string_equal(after, "{\"name\":\"a\",\"comment\":\"\",\"entries\":[\"10.0.0.4\"]}");
	row_unref(&old->row);
	row_unref(&new->row);
}

/* ---- references ---- */

/* "table name pointer; " of each, until `left` are told. */
struct notes {
	char text[512];
	int left;
};

static int note(void *userdata, const struct reference *reference)
{
	struct notes *notes = userdata;
	size_t length = strlen(notes->text);

	snprintf(notes->text + length, sizeof(notes->text) - length, "%s %s %s; ",
	        resource_get(reference->target)->name, reference->name, reference->pointer);
	return --notes->left ? 0 : -EXDEV;
}

static void test_references(void **state)
{
	struct listener *listener = (struct listener *)row_new(RESOURCE_LISTENER);
	struct listener_route *route = (struct listener_route *)row_new(RESOURCE_LISTENER_ROUTE);
	struct notes notes = { .left = 99 };

	(void)state;
	assert_int_equal(resource_references(&listener->row, note, &notes), 0);
	assert_string_equal(notes.text, "");
	generate_text(&listener->upstream, "pool");
	generate_text(&route->upstream, "other");
	assert_int_equal(strings_append(&listener->sources, "10.0.0.0/8"), 0);
	assert_int_equal(strings_append(&listener->sources, "@office"), 0);
	assert_int_equal(strings_append(&listener->rate_limits, "slow"), 0);
	assert_int_equal(strings_append(&route->http_path_prefix, "/@no"), 0);
	assert_int_equal(strings_append(&listener->interfaces, "@if"), 0); /* a name, no reference */
	assert_int_equal(rows_append(&listener->routes, &route->row), 0);
	assert_int_equal(resource_references(&listener->row, note, &notes), 0);
	assert_string_equal(notes.text, "address_set office /sources/1; upstream pool /upstream; "
	                                "upstream other /routes/0/upstream; rate_limit slow /rate_limits/0; ");
	notes = (struct notes){ .left = 2 };
	assert_int_equal(resource_references(&listener->row, note, &notes), -EXDEV);
	assert_string_equal(notes.text, "address_set office /sources/1; upstream pool /upstream; ");
	row_unref(&listener->row);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hash_of_one_row),
		cmocka_unit_test(test_hash_does_not_depend_on_the_way),
		cmocka_unit_test(test_hash_sees_each_prefix),
		cmocka_unit_test(test_hash_of_one_prefix),
		cmocka_unit_test(test_hash_leaves_tokens_out),
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_made_and_deleted),
		cmocka_unit_test(test_only_what_differs_is_kept),
		cmocka_unit_test(test_references),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
