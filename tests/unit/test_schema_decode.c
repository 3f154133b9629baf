/* Documents to rows: each field at and beyond its bounds (from the tables), whole documents, patches, round trips. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "schema/decode.h"
#include "schema/encode.h"
#include "tests/unit/amount.h"
#include "tests/unit/generate.h"

static json_t *parse(const char *text)
{
	json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);

	assert_non_null(value);
	return value;
}

/* A document that is taken as it is: the fields that have no default. */
static json_t *least_document(const struct resource *resource)
{
	json_t *object = json_object(), *value;

	for (size_t i = 0; i < resource->n_fields; i++) {
		const struct field *field = &resource->fields[i];

		if (!field_required(field))
			continue;
		value = field->kind == FIELD_INT ? json_integer(field->min)
		                                 : json_string(field->kind == FIELD_NAME ? "a-name" : "192.0.2.1");
		json_object_set_new(object, field->key, value);
	}
	return object;
}

/* Decodes; expects the fault `code` at `pointer` and no other, or none if code is NULL. Consumes the object. */
static void expect_only(enum resource_id id, json_t *object, const char *code, const char *pointer)
{
	struct errs errs = { 0 };
	struct row *row = NULL;
	int r = decode_row(resource_get(id), object, NULL, &errs, &row);

	if (!code && errs.n)
		fail_msg("refused: %s %s %s", errs.items[0].pointer, errs.items[0].code, errs.items[0].detail);
	assert_int_equal(r, code ? -EINVAL : 0);
	assert_int_equal(errs.n, code ? 1 : 0);
	if (code) {
		assert_string_equal(errs.items[0].code, code);
		assert_string_equal(errs.items[0].pointer, pointer);
		assert_true(strlen(errs.items[0].detail) > 0);
		assert_null(row);
	}
	errs_clear(&errs);
	row_unref(row);
	json_decref(object);
}

/* One field set to a value in an otherwise good document. */
static void field_takes(const struct resource *resource, const struct field *field, json_t *value, const char *code)
{
	json_t *object = least_document(resource);
	char pointer[VALUE_POINTER_MAX];

	value_pointer_field(pointer, "", field);
	if (field->group)
		json_object_set_new(object, field->group, json_pack("{s:o}", field->key, value));
	else
		json_object_set_new(object, field->key, value);
	expect_only(resource->id, object, code, pointer);
}

static void listener_takes(const char *listener_member, const char *json, const char *code, const char *pointer)
{
	json_t *object = least_document(resource_get(RESOURCE_LISTENER));

	json_object_set_new(object, listener_member, parse(json));
	expect_only(RESOURCE_LISTENER, object, code, pointer);
}

/* A text that is the name of a file, not a path. */
static bool is_file(const struct field *field)
{
	return strcmp(field->key, "file") == 0;
}

/* All "a", behind a slash for a field that is a path. */
static json_t *long_text(const struct field *field, int64_t length)
{
	char *text = malloc((size_t)length + 1);
	json_t *value;

	memset(text, 'a', (size_t)length);
	text[length] = '\0';
	if (field->group && !is_file(field))
		text[0] = '/';
	value = json_string(text);
	free(text);
	return value;
}

/* `n` different items of a list or children. */
static json_t *long_list(const struct field *field, int64_t n)
{
	json_t *array = json_array();

	for (int64_t i = 0; i < n; i++) {
		if (field->kind == FIELD_CHILDREN && field->target != RESOURCE_TARGET)
			json_array_append_new(array, json_object());
		else if (field->kind == FIELD_CHILDREN)
			json_array_append_new(
			        array, json_pack("{s:o}", "address",
			                       json_sprintf("10.0.%d.%d", (int)(i / 256), (int)(i % 256))));
		else if (field->kind == FIELD_NAMES)
			json_array_append_new(array, json_sprintf("n%d", (int)i));
		else if (field->kind == FIELD_PREFIXES)
			json_array_append_new(array,
			        json_sprintf("10.%d.%d.%d", (int)(i >> 16), (int)(i >> 8 & 255), (int)(i & 255)));
		else if (field->item == ITEM_INTERFACE)
			json_array_append_new(array, json_sprintf("eth%d", (int)i));
		else if (field->item == ITEM_PORTS)
			json_array_append_new(array, json_sprintf("%d", (int)i + 1));
		else if (field->item == ITEM_METHOD)
			json_array_append_new(array, json_sprintf("M%c", 'A' + (int)i));
		else if (field->item == ITEM_PATH)
			json_array_append_new(array, json_sprintf("/%d", (int)i));
		else if (field->item == ITEM_FLOW_FIELD)
			json_array_append_new(
			        array, json_string(i < FLOW_FIELDS ? flow_field_word((enum flow_field)i) : "more"));
		else if (field->item == ITEM_HOST || field->item == ITEM_ALPN)
			json_array_append_new(array, json_sprintf("h%d", (int)i));
		else
			json_array_append_new(array, json_sprintf("10.0.%d.%d", (int)(i / 256), (int)(i % 256)));
	}
	return array;
}

/* Whether a rule about several fields narrows the range of this one. */
static bool is_bound(const char *member)
{
	static const char *const members[] = { "health_interval_ms", "health_timeout_ms", "rate", "burst" };

	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		if (strcmp(member, members[i]) == 0)
			return true;
	return false;
}

/* A list with this one item. */
static void field_takes_item(
        const struct resource *resource, const struct field *field, const char *item, const char *code)
{
	json_t *object = least_document(resource);
	char pointer[VALUE_POINTER_MAX], first[VALUE_POINTER_MAX];

	value_pointer(pointer, "", field->key);
	value_pointer_item(first, pointer, 0);
	json_object_set_new(object, field->key, json_pack("[s]", item));
	expect_only(resource->id, object, code, first);
}

static void bounds_of(const struct resource *resource, const struct field *field)
{
	bool named = !(field->flags & FLAG_INTERFACE);

	switch (field->kind) {
	case FIELD_NAME:
		field_takes(resource, field, long_text(field, field->max + 1), "too_long");
		field_takes(resource, field, json_string(""), named ? "bad_name" : "bad_value");
		field_takes(resource, field, json_string("Upper"), named ? "bad_name" : NULL);
		field_takes(resource, field, json_string("a b"), named ? "bad_name" : "bad_value");
		field_takes(resource, field, long_text(field, field->max), NULL);
		return;
	case FIELD_TIME:
		field_takes(resource, field, json_string("2030-02-29T12:00:00Z"), "bad_value");
		field_takes(resource, field, json_string("2030-01-31"), "bad_value");
		field_takes(resource, field, json_string("2030-01-31T12:00:00"), "bad_value");
		field_takes(resource, field, json_string("2030-01-31T12:00:60Z"), "bad_value");
		field_takes(resource, field, json_string("2030-01-31T12:00:00+1:30"), "bad_value");
		field_takes(resource, field, json_string("1970-01-01T00:00:00Z"), "bad_value");
		field_takes(resource, field, json_integer(1), "wrong_type");
		field_takes(resource, field, json_string("9999-12-31T23:59:59Z"), NULL);
		field_takes(resource, field, json_string("2030-01-31T12:00:00+01:30"), NULL);
		field_takes(resource, field, json_null(), NULL);
		return;
	case FIELD_TEXT:
		field_takes(resource, field, long_text(field, field->max + 1), "too_long");
		field_takes(resource, field, json_string("line\nbreak"), "bad_value");
		field_takes(resource, field, json_string("\xc2\x85"), "bad_value");
		field_takes(resource, field, json_stringn("a\0b", 3), "bad_value");
		field_takes(resource, field, json_string("/\xf0\x9f\x98\x80"), is_file(field) ? "bad_value" : NULL);
		field_takes(resource, field, long_text(field, field->max), NULL);
		return;
	case FIELD_INT:
		field_takes(resource, field, json_integer(field->min - 1), "out_of_range");
		field_takes(resource, field, json_integer(field->max + 1), "out_of_range");
		field_takes(resource, field, json_integer(INT64_MIN), "out_of_range");
		field_takes(resource, field, json_real(1.0), "wrong_type");
		field_takes(resource, field, json_string("1"), "wrong_type");
		for (int64_t end = field->min; !is_bound(field->member); end = field->max) {
			field_takes(resource, field, json_integer(end), NULL);
			if (end == field->max)
				break;
		}
		return;
	case FIELD_ENUM:
		field_takes(resource, field, json_string(""), "bad_value");
		field_takes(resource, field, json_string("TCP"), "bad_value");
		field_takes(resource, field, json_integer(0), "wrong_type");
		field_takes(resource, field, json_string(field->words[field->initial]), NULL);
		return;
	case FIELD_BOOL:
		field_takes(resource, field, json_integer(1), "wrong_type");
		field_takes(resource, field, json_string("true"), "wrong_type");
		field_takes(resource, field, json_false(), NULL);
		return;
	case FIELD_REF:
		field_takes(resource, field, json_string("not a name"), "bad_name");
		field_takes(resource, field, json_false(), "wrong_type");
		field_takes(resource, field, json_null(), NULL);
		field_takes(resource, field, json_string("pool"), NULL);
		return;
	case FIELD_NAMES:
		field_takes_item(resource, field, "not a name", "bad_name");
		field_takes_item(resource, field, "n", NULL);
		/* fall through */
	case FIELD_LIST:
	case FIELD_CHILDREN:
	case FIELD_PREFIXES:
		field_takes(resource, field, long_list(field, field->max + 1), "too_many_items");
		field_takes(resource, field, json_string("x"), "wrong_type");
		field_takes(resource, field, json_object(), "wrong_type");
		field_takes(resource, field, long_list(field, field->max), NULL);
		return;
	case FIELD_ADDRESS:
		field_takes(resource, field, json_string("server.example"), "bad_value");
		field_takes(resource, field, json_string(""), "bad_value");
		field_takes(resource, field, json_string("192.0.2.1/32"), "bad_value");
		field_takes(resource, field, json_string("0.0.0.0"), "bad_value");
		field_takes(resource, field, json_string("::"), "bad_value");
		field_takes(resource, field, json_string("224.0.0.1"), "bad_value");
		field_takes(resource, field, json_string("ff02::1"), "bad_value");
		field_takes(resource, field, json_string("fe80::1"), "bad_value");
		field_takes(resource, field, json_string("fe80::1%eth0"), "bad_value");
		field_takes(resource, field, json_string("::ffff:192.0.2.1"), "bad_value");
		field_takes(resource, field, json_string("2001:DB8::1"), NULL);
		return;
	case FIELD_KINDS:
		return;
	}
}

static void test_bounds(void **state)
{
	(void)state;
	for (enum resource_id i = 0; i < RESOURCES; i++) {
		const struct resource *resource = resource_get(i);

		expect_only(i, least_document(resource), NULL, NULL);
		for (size_t j = 0; j < resource->n_fields; j++) {
			const struct field *field = &resource->fields[j];

			if (!field_in_documents(field))
				continue;
			if (field->kind != FIELD_REF && field->kind != FIELD_TIME)
				field_takes(resource, field, json_null(), "wrong_type");
			bounds_of(resource, field);
		}
	}
}

static void test_prefixes(void **state)
{
	(void)state;
	listener_takes("sources", "[1]", "wrong_type", "/sources/0");
	listener_takes("sources", "[\"10.0.0.1/24\"]", "host_bits", "/sources/0");
	listener_takes("sources", "[\"10.0.0.0/33\"]", "bad_value", "/sources/0");
	listener_takes("sources", "[\"10.0.0.9-10.0.0.1\"]", "bad_value", "/sources/0");
	listener_takes("sources", "[\"10.0.0.1-::1\"]", "bad_value", "/sources/0");
	listener_takes("sources", "[\"10.0.0.0/24-10.0.1.0/24\"]", "bad_value", "/sources/0");
	listener_takes("sources", "[\"10.0.0.1 \"]", "bad_value", "/sources/0");
	listener_takes("sources", "[\"::ffff:10.0.0.0/104\"]", "bad_value", "/sources/0");
	listener_takes("sources", "[\"::1\", \"0:0::1\"]", "duplicate_item", "/sources/1");
	listener_takes("sources", "[\"10.0.0.0/31\", \"10.0.0.0-10.0.0.1\"]", "duplicate_item", "/sources/1");
	listener_takes("sources", "[\"0.0.0.0/0\", \"::/0\"]", NULL, NULL);
	listener_takes("interfaces", "[\"eth0; drop\"]", "bad_value", "/interfaces/0");
	listener_takes("interfaces", "[\"..\"]", "bad_value", "/interfaces/0");
	listener_takes("interfaces", "[\"eth0:1\"]", "bad_value", "/interfaces/0");
	listener_takes("interfaces", "[\"\"]", "bad_value", "/interfaces/0");
	listener_takes("interfaces", "[\"abcdefghijklmnop\"]", "too_long", "/interfaces/0");
	listener_takes("interfaces", "[\"abcdefghijklmno\"]", NULL, NULL);
	listener_takes("ports", "[443]", "wrong_type", "/ports/0");
	listener_takes("ports", "[\"0\"]", "bad_value", "/ports/0");
	listener_takes("ports", "[\"65536\"]", "bad_value", "/ports/0");
	listener_takes("ports", "[\"90-80\"]", "bad_value", "/ports/0");
	listener_takes("ports", "[\"80\", \"80-80\"]", "duplicate_item", "/ports/1");
}

static void test_hint_names_the_prefix(void **state)
{
	struct errs errs = { 0 };
	char text[VALUE_TEXT_MAX];

	(void)state;
	assert_int_equal(value_item(ITEM_PREFIX, "10.1.2.3/8", text, "", &errs), -EINVAL);
	assert_non_null(strstr(errs.items[0].detail, "10.0.0.0/8"));
	errs_clear(&errs);
	assert_int_equal(value_item(ITEM_PREFIX, "10.0.0.0-10.0.0.255", text, "", &errs), 0);
	assert_string_equal(text, "10.0.0.0/24");
	assert_int_equal(value_item(ITEM_PREFIX, "10.0.0.1-10.0.0.2", text, "", &errs), 0);
	assert_string_equal(text, "10.0.0.1-10.0.0.2");
	assert_int_equal(value_item(ITEM_PREFIX, "2001:DB8:0::1/128", text, "", &errs), 0);
	assert_string_equal(text, "2001:db8::1");
	assert_int_equal(value_item(ITEM_PORTS, "80-80", text, "", &errs), 0);
	assert_string_equal(text, "80");
	errs_clear(&errs);
}

static void expect_document(enum resource_id id, const char *text, const char *code, const char *pointer)
{
	expect_only(id, parse(text), code, pointer);
}

static void test_documents(void **state)
{
	(void)state;
	expect_document(RESOURCE_LISTENER, "{}", "required", "/name");
	expect_document(RESOURCE_LISTENER, "[]", "wrong_type", "");
	expect_document(RESOURCE_LISTENER, "{\"name\":\"a\",\"port\":1}", "unknown_key", "/port");
	expect_document(RESOURCE_LISTENER, "{\"name\":\"a\",\"a/b~c\":1}", "unknown_key", "/a~1b~0c");
	expect_document(RESOURCE_UPSTREAM, "{\"name\":\"a\",\"targets\":[{}]}", "required", "/targets/0/address");
	expect_document(RESOURCE_UPSTREAM, "{\"name\":\"a\",\"targets\":[7]}", "wrong_type", "/targets/0");
	expect_document(RESOURCE_UPSTREAM, "{\"name\":\"a\",\"targets\":[{\"address\":\"10.0.0.1\",\"x\":1}]}",
	        "unknown_key", "/targets/0/x");
	expect_document(RESOURCE_UPSTREAM,
	        "{\"name\":\"a\",\"targets\":[{\"address\":\"::1:2\",\"port\":5},{\"address\":\"0::1:2\",\"port\":5}]}",
	        "duplicate_item", "/targets");
	expect_document(RESOURCE_UPSTREAM,
	        "{\"name\":\"a\",\"targets\":[{\"address\":\"::1:2\",\"port\":5},{\"address\":\"::1:2\",\"port\":6}]}",
	        NULL, NULL);
}

static void test_rules(void **state)
{
	(void)state;
	expect_document(RESOURCE_LISTENER, "{\"name\":\"a\",\"protocol\":\"udp\"}", NULL, NULL);
	expect_document(RESOURCE_LISTENER, "{\"name\":\"a\",\"protocol\":\"udp\",\"action\":\"drop\"}", NULL, NULL);
	expect_document(RESOURCE_LISTENER, "{\"name\":\"a\",\"protocol\":\"udp\",\"routes\":[{\"sni\":[\"a\"]}]}",
	        "not_applicable", "/routes");
	expect_document(
	        RESOURCE_LISTENER, "{\"name\":\"a\",\"action\":\"drop\",\"routes\":[{}]}", "not_applicable", "/routes");
	expect_document(RESOURCE_LISTENER, "{\"name\":\"a\",\"routes\":[{\"sni\":[\"a\"],\"http_host\":[\"a\"]}]}",
	        "never_matches", "/routes/0/sni");
	expect_document(RESOURCE_LISTENER,
	        "{\"name\":\"a\",\"routes\":[{},{\"action\":\"reject\",\"upstream\":\"u\"}]}", "not_applicable",
	        "/routes/1/upstream");
	expect_document(RESOURCE_LISTENER,
	        "{\"name\":\"a\",\"sources\":[\"10.0.0.1\",\"@x\"],\"destinations\":[\"::1\"]}", NULL, NULL);
	expect_document(RESOURCE_RATE_LIMIT, "{\"name\":\"a\"}", "required", "/rate");
	expect_document(RESOURCE_RATE_LIMIT, "{\"name\":\"a\",\"rate\":1,\"metric\":\"bytes\",\"action\":\"reject\"}",
	        "not_applicable", "/action");
	expect_document(RESOURCE_ADDRESS_SET, "{\"name\":\"a\",\"entries\":[\"@b\"]}", "bad_value", "/entries/0");
	expect_document(
	        RESOURCE_ADDRESS_SET, "{\"name\":\"a\",\"entries\":[\"10.0.0.1/8\"]}", "host_bits", "/entries/0");
	expect_document(RESOURCE_LISTENER, "{\"name\":\"a\",\"protocol\":\"udp\",\"proxy_protocol\":\"v1\"}",
	        "not_applicable", "/proxy_protocol");
	expect_document(RESOURCE_LISTENER,
	        "{\"name\":\"a\",\"protocol\":\"udp\",\"accept_proxy_protocol\":[\"10.0.0.0/8\"]}", "not_applicable",
	        "/accept_proxy_protocol");
	expect_document(RESOURCE_LISTENER, "{\"name\":\"a\",\"accept_proxy_protocol\":[\"10.0.0.1/8\"]}", "host_bits",
	        "/accept_proxy_protocol/0");
	expect_document(RESOURCE_LISTENER, "{\"name\":\"a\",\"action\":\"drop\",\"upstream\":\"u\"}", "not_applicable",
	        "/upstream");
	expect_document(RESOURCE_LISTENER, "{\"name\":\"a\",\"sources\":[\"10.0.0.1\"],\"destinations\":[\"::1\"]}",
	        "family_mismatch", "/sources");
	expect_document(RESOURCE_LISTENER,
	        "{\"name\":\"a\",\"sources\":[\"10.0.0.1\",\"::2\"],\"destinations\":[\"::1\"]}", NULL, NULL);
}

static void test_all_faults_at_once(void **state)
{
	static const char *const pointers[] = { "/x", "/name", "/enabled", "/comment", "/ports/0", "/ports/2",
		"/priority" };
	json_t *object =
	        parse("{\"priority\":-1,\"x\":0,\"ports\":[\"x\",\"1\",\"1\"],\"comment\":7,\"enabled\":\"\"}");
	struct errs errs = { 0 };
	struct row *row = NULL;

	(void)state;
	assert_int_equal(decode_row(resource_get(RESOURCE_LISTENER), object, NULL, &errs, &row), -EINVAL);
	assert_int_equal(errs.n, ARRAY_SIZE(pointers));
	for (size_t i = 0; i < errs.n; i++)
		assert_string_equal(errs.items[i].pointer, pointers[i]);
	errs_clear(&errs);
	json_decref(object);
}

static void test_name_of_path(void **state)
{
	const struct resource *resource = resource_get(RESOURCE_UPSTREAM);
	json_t *object = parse("{\"name\":\"b\"}"), *empty = json_object();
	struct errs errs = { 0 };
	struct row *row = NULL;

	(void)state;
	assert_int_equal(decode_row(resource, object, "a", &errs, &row), -EINVAL);
	assert_string_equal(errs.items[0].code, "name_mismatch");
	errs_clear(&errs);
	assert_int_equal(decode_row(resource, empty, "A", &errs, &row), -EINVAL);
	assert_string_equal(errs.items[0].code, "bad_name");
	errs_clear(&errs);
	assert_int_equal(decode_row(resource, empty, "a", &errs, &row), 0);
	assert_string_equal(row_name(row), "a");
	row_unref(row);
	assert_int_equal(decode_row(resource, object, "b", &errs, &row), 0);
	row_unref(row);
	json_decref(object);
	json_decref(empty);
}

static void expect_parse(const char *bytes, size_t length, const char *code)
{
	struct errs errs = { 0 };
	json_t *value = NULL;

	assert_int_equal(decode_parse(bytes, length, &errs, &value), code ? -EBADMSG : 0);
	if (code)
		assert_string_equal(errs.items[0].code, code);
	errs_clear(&errs);
	json_decref(value);
}

#define EXPECT_PARSE(text, code) expect_parse(text, sizeof(text) - 1, code)

static void test_parse(void **state)
{
	char deep[200000];

	(void)state;
	EXPECT_PARSE("", "malformed");
	EXPECT_PARSE("{", "malformed");
	EXPECT_PARSE("{} {}", "malformed");
	EXPECT_PARSE("[]", "malformed");
	EXPECT_PARSE("null", "malformed");
	EXPECT_PARSE("{\"a\":1,\"a\":1}", "duplicate_key");
	EXPECT_PARSE("{\"a\":{\"b\":1,\"b\":2}}", "duplicate_key");
	EXPECT_PARSE("{\"a\":\"\\u0000\"}", "malformed");
	EXPECT_PARSE("{\"a\\u0000\":1}", "malformed");
	EXPECT_PARSE("{}\0", "malformed");
	EXPECT_PARSE("{\"a\":\"\xff\"}", "malformed");
	EXPECT_PARSE("{\"a\":99999999999999999999}", "malformed");
	memset(deep, '[', sizeof(deep));
	memcpy(deep, "{\"a\":", 5);
	expect_parse(deep, sizeof(deep), "malformed");
	EXPECT_PARSE("{\"a\":[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}", "malformed"); /* 17 deep */
	EXPECT_PARSE("{\"a\":[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]}", NULL);          /* 16 deep */
	EXPECT_PARSE("{\"a\":\"[[[[[[[[[[[[[[[[[[[[\\\"[\"}", NULL);
	EXPECT_PARSE("{}", NULL);
}

static void test_merge_patch(void **state)
{
	/* Target, patch, result: RFC 7396, appendix A, as far as both are objects. */
	static const char *const cases[][3] = {
		{ "{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}" },
		{ "{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}" },
		{ "{\"a\":\"b\"}", "{\"a\":null}", "{}" },
		{ "{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}" },
		{ "{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}" },
		{ "{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}" },
		{ "{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}" },
		{ "{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}" },
		{ "{\"e\":null}", "{\"a\":1}", "{\"e\":null,\"a\":1}" },
		{ "{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_t *target = parse(cases[i][0]), *patch = parse(cases[i][1]), *wanted = parse(cases[i][2]);

		assert_int_equal(decode_merge_patch(target, patch), 0);
		assert_true(json_equal(target, wanted));
		json_decref(target);
		json_decref(patch);
		json_decref(wanted);
	}
}

static void test_lists(void **state)
{
	struct strings list = { 0 };
	char *text;

	(void)state;
	assert_int_equal(decode_list("[\"a\",1]", &list), -EBADMSG);
	assert_int_equal(list.n, 0);
	assert_int_equal(decode_list("{}", &list), -EBADMSG);
	assert_int_equal(decode_list("nonsense", &list), -EBADMSG);
	assert_int_equal(decode_list("[\"a\",\"b\"]", &list), 0);
	text = encode_list(&list);
	assert_string_equal(text, "[\"a\",\"b\"]");
	free(text);
	strings_clear(&list);
}

/* The text that is written without a tree says the same, in the same order. */
static void expect_text(const struct row *row, json_t *object)
{
	_cleanup_free_ char *wanted = json_dumps(object, JSON_COMPACT);
	struct text text = { 0 };

	assert_int_equal(encode_text(row, 0, &text), 0);
	assert_string_equal(text.bytes, wanted);
	text_clear(&text);
}

static void hide_secrets(struct row *row)
{
	const struct resource *resource = resource_get(row->resource);

	for (size_t i = 0; i < resource->n_fields; i++)
		if (resource->fields[i].flags & FLAG_SECRET)
			generate_text(FIELD_AT(row, &resource->fields[i], char *), "");
}

static void test_groups(void **state)
{
	struct errs errs = { 0 };
	struct row *row = NULL;
	json_t *object = parse("{\"name\":\"u\",\"health\":{\"type\":\"http\",\"rise\":7}}"), *again;

	(void)state;
	expect_document(RESOURCE_UPSTREAM, "{\"name\":\"u\",\"health\":1}", "wrong_type", "/health");
	expect_document(RESOURCE_UPSTREAM, "{\"name\":\"u\",\"health\":{\"kind\":1}}", "unknown_key", "/health/kind");
	expect_document(RESOURCE_UPSTREAM, "{\"name\":\"u\",\"health_type\":\"tcp\"}", "unknown_key", "/health_type");
	expect_document(
	        RESOURCE_UPSTREAM, "{\"name\":\"u\",\"health\":{\"type\":\"icmp\"}}", "bad_value", "/health/type");
	expect_document(RESOURCE_UPSTREAM, "{\"name\":\"u\",\"health\":{\"timeout_ms\":6000}}", "out_of_range",
	        "/health/timeout_ms");
	expect_document(RESOURCE_UPSTREAM, "{\"name\":\"u\",\"health\":{\"http_status\":7}}", "out_of_range",
	        "/health/http_status");
	expect_document(RESOURCE_UPSTREAM, "{\"name\":\"u\",\"health\":{\"http_status\":300,\"http_status_max\":299}}",
	        "out_of_range", "/health/http_status_max");
	expect_document(RESOURCE_UPSTREAM, "{\"name\":\"u\",\"health\":{\"http_status_max\":199}}", "out_of_range",
	        "/health/http_status_max");
	expect_document(RESOURCE_UPSTREAM, "{\"name\":\"u\",\"health\":{\"http_method\":\"HEAD\",\"http_body\":\"x\"}}",
	        "not_applicable", "/health/http_body");
	expect_document(RESOURCE_UPSTREAM, "{\"name\":\"u\",\"health\":{\"http_host\":\"a b\"}}", "bad_value",
	        "/health/http_host");
	expect_document(RESOURCE_UPSTREAM, "{\"name\":\"u\",\"health\":{\"http_path\":\"x\"}}", "bad_value",
	        "/health/http_path");
	assert_int_equal(decode_row(resource_get(RESOURCE_UPSTREAM), object, NULL, &errs, &row), 0);
	assert_int_equal(((struct upstream *)row)->health_type, HEALTH_TYPE_HTTP);
	assert_int_equal(((struct upstream *)row)->health_rise, 7);
	assert_int_equal(((struct upstream *)row)->health_interval_ms, 5000);
	again = encode_row(row);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(again, "health"), "rise")), 7);
	json_decref(object);
	json_decref(again);
	row_unref(row);
}

/* What code sets is told to nobody and taken from nobody. */
static void test_secrets(void **state)
{
	struct row *row = row_new(RESOURCE_TOKEN);
	struct text text = { 0 };
	json_t *object;

	(void)state;
	expect_document(RESOURCE_TOKEN, "{\"name\":\"t\",\"hash\":\"x\"}", "unknown_key", "/hash");
	expect_document(RESOURCE_SETTINGS, "{\"name\":\"settings\"}", "unknown_key", "/name");
	generate_text(&((struct token *)row)->hash, "c0ffee");
	object = encode_row(row);
	assert_null(json_object_get(object, "hash"));
	assert_int_equal(encode_text(row, 0, &text), 0);
	assert_null(strstr(text.bytes, "c0ffee"));
	text_restart(&text);
	assert_int_equal(encode_text(row, ENCODE_SECRETS, &text), 0);
	assert_non_null(strstr(text.bytes, "c0ffee"));
	text_clear(&text);
	json_decref(object);
	row_unref(row);
}

static void test_items_of_routes(void **state)
{
	char text[VALUE_TEXT_MAX];
	struct errs errs = { 0 };
	static const struct {
		enum item_kind kind;
		const char *item, *canonical; /* NULL: refused */
	} cases[] = {
		{ ITEM_HOST, "*.Example.COM", "*.example.com" },
		{ ITEM_HOST, "*", NULL },
		{ ITEM_HOST, "a..b", NULL },
		{ ITEM_HOST, "a.*.b", NULL },
		{ ITEM_HOST, "a.b.", NULL },
		{ ITEM_HOST, "a\"b", NULL },
		{ ITEM_HOST, "", NULL },
		{ ITEM_ALPN, "http/1.1", "http/1.1" },
		{ ITEM_ALPN, "h 2", NULL },
		{ ITEM_ALPN, "h\xc3\xbc", NULL },
		{ ITEM_METHOD, "GET", "GET" },
		{ ITEM_METHOD, "get", NULL },
		{ ITEM_FLOW_FIELD, "bytes_to_client", "bytes_to_client" },
		{ ITEM_FLOW_FIELD, "bytes", NULL },
		{ ITEM_PATH, "/v1/", "/v1/" },
		{ ITEM_PATH, "v1", NULL },
		{ ITEM_PATH, "/a\\", NULL },
		{ ITEM_PATH, "/a?b", NULL }, /* the query is not looked at: would never match */
		{ ITEM_PATH, "/a#b", NULL },
		{ ITEM_PREFIX, "@office", "@office" },
		{ ITEM_PREFIX, "@", NULL },
		{ ITEM_PREFIX, "@Office", NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int r = value_item(cases[i].kind, cases[i].item, text, "", &errs);

		if ((r == 0) != (cases[i].canonical != NULL))
			fail_msg("%s: %d", cases[i].item, r);
		if (r == 0)
			assert_string_equal(text, cases[i].canonical);
	}
	assert_int_equal(value_item(ITEM_HOST, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b",
	                         text, "", &errs),
	        -EINVAL); /* a label of 64 */
	errs_clear(&errs);
}

static void test_times(void **state)
{
	char text[32];
	int64_t time;

	(void)state;
	assert_int_equal(value_time_parse("2001-09-09T01:46:40Z", &time), 0);
	assert_int_equal(time, 1000000000);
	assert_int_equal(value_time_parse("2001-09-09T03:16:40+01:30", &time), 0);
	assert_int_equal(time, 1000000000);
	assert_string_equal(value_time_format(time, text), "2001-09-09T01:46:40Z");
	assert_string_equal(value_time_format(FIELD_TIME_MAX, text), "9999-12-31T23:59:59Z");
}

static void test_round_trip(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= amount(60, 200); seed++)
		for (enum resource_id i = 0; i < RESOURCES; i++) {
			struct row *row, *back = NULL;
			struct errs errs = { 0 };
			json_t *object, *again;

			generate_state = seed;
			row = generate_row(i, "some-name", "pool");
			hide_secrets(row);
			object = encode_row(row);
			expect_text(row, object);
			assert_int_equal(decode_row(resource_get(i), object, NULL, &errs, &back), 0);
			assert_true(row_equal(row, back));
			again = encode_row(back);
			assert_true(json_equal(object, again));
			json_decref(object);
			json_decref(again);
			row_unref(row);
			row_unref(back);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_hint_names_the_prefix),
		cmocka_unit_test(test_documents),
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_all_faults_at_once),
		cmocka_unit_test(test_name_of_path),
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_merge_patch),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_groups),
		cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_items_of_routes),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
