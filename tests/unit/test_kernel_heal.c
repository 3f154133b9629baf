/*
 * Healing on the real kernel, in a network namespace of the test's own: after
 * random damage to our table by another hand, one transaction makes it equal
 * to a fresh rendering, and what was intact - counters, remembered flows - is
 * as it was. Skipped without the right to make a namespace.
 */
#include "rules_fixture.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "rules/heal.h"
#include "rules/nftset.h"

static const struct render_params params = { 0x01000000, 0x0f000000, 41000, 41001, false, { 0 } };

#define REMEMBERED "10.7.7.7 . 7 . 10.7.7.8 . 8"

struct bench {
	struct kernel *kernel, *stranger;
};

static int setup(void **state)
{
	static struct bench bench;

	*state = &bench;
	if (unshare(CLONE_NEWNET) < 0) {
		print_message("SKIP: no right to make a network namespace\n");
		return 0;
	}
	assert_int_equal(kernel_open(&bench.kernel), 0);
	assert_int_equal(kernel_open(&bench.stranger), 0);
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	kernel_free(bench->kernel);
	kernel_free(bench->stranger);
	return 0;
}

static struct bench *bench_of(void **state)
{
	struct bench *bench = *state;

	if (!bench->kernel)
		skip();
	return bench;
}

static void commit(struct kernel *kernel, const char *text)
{
	_cleanup_free_ char *error = NULL;

	if (kernel_nft_commit(kernel, text, &error) < 0)
		fail_msg("%s\n%.3000s", error ? error : "no words", text);
}

static void load(struct bench *bench, const struct model *model, int64_t generation)
{
	_cleanup_free_ char *text = NULL;

	assert_int_equal(render_nft_full(model, &params, generation, &text), 0);
	commit(bench->kernel, text);
	commit(bench->stranger, "add element inet gatewayd direct4 { " REMEMBERED " }\n");
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Without handles, counts and times; only what was there from the beginning of a set's life stays. */
static void strip(json_t *json)
{
	static const char *const passing[] = { "handle", "packets", "bytes", "expires" };
	const char *key;
	json_t *value;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(passing); i++)
		json_object_del(json, passing[i]);
	json_object_foreach(json, key, value) strip(value);
	json_array_foreach(json, i, value) strip(value);
}

/* A map is unordered, and so are the objects of a table; the rules of a chain are not. */
static void sort_array(json_t *array)
{
	size_t n = json_array_size(array);
	char **texts = calloc(n + 1, sizeof(*texts));

	assert_non_null(texts);
	for (size_t i = 0; i < n; i++)
		texts[i] = json_dumps(json_array_get(array, i), JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
	qsort(texts, n, sizeof(*texts), compare_texts);
	json_array_clear(array);
	for (size_t i = 0; i < n; i++) {
		json_array_append_new(array, json_loads(texts[i], JSON_DECODE_ANY, NULL));
		free(texts[i]);
	}
	free(texts);
}

/* Within a chain the order of rules counts. */
static void tell_place(json_t *rule, json_t *places)
{
	const char *chain = json_string_value(json_object_get(rule, "chain"));
	json_int_t place = json_integer_value(json_object_get(places, chain));

	json_object_set_new(rule, "place", json_integer(place));
	json_object_set_new(places, chain, json_integer(place + 1));
}

/* The whole table in a form that two equal tables share. */
static char *canonical(void)
{
	FILE *pipe = popen("nft -n -j list table inet gatewayd", "re");
	json_t *listing = json_loadf(pipe, 0, NULL), *objects = json_object_get(listing, "nftables"), *object, *body;
	json_t *places = json_object();
	size_t i;
	char *text;

	pclose(pipe);
	assert_non_null(listing);
	strip(listing);
	json_array_foreach(objects, i, object)
	{
		if ((body = json_object_get(object, "rule")))
			tell_place(body, places);
		body = json_object_get(object, "map");
		if (!body)
			body = json_object_get(object, "set");
		if (body && json_object_get(body, "elem"))
			sort_array(json_object_get(body, "elem"));
	}
	sort_array(objects);
	text = json_dumps(listing, JSON_INDENT(1) | JSON_SORT_KEYS);
	json_decref(listing);
	json_decref(places);
	return text;
}

static void same_text(const char *a, const char *b)
{
	size_t at = 0;

	while (a[at] && a[at] == b[at])
		at++;
	if (a[at] != b[at])
		fail_msg("differ at %zu: %.300s\n------\n%.300s", at, a + (at > 100 ? at - 100 : 0),
		        b + (at > 100 ? at - 100 : 0));
}

/* A random wrong of one line, for an element, a map or a chain that exists; "" if this table offers no occasion. */
static void random_damage(const struct kernel_state *found, char *text, size_t size)
{
	static const char *const plain[] = {
		"add rule inet gatewayd pre_tcp counter accept",
		"insert rule inet gatewayd prerouting drop",
		"flush chain inet gatewayd pre_tcp",
		"flush chain inet gatewayd act_relay",
		"flush chain inet gatewayd tcp4",
		"flush chain inet gatewayd prerouting",
		"flush table inet gatewayd",
		"add chain inet gatewayd stranger { type filter hook prerouting priority -5; policy accept; }\n"
		"add chain inet gatewayd friend\nadd rule inet gatewayd stranger jump friend",
		"add chain inet gatewayd pre_tcp2\nadd rule inet gatewayd pre_tcp2 jump pre_udp\n"
		"add rule inet gatewayd prerouting jump pre_tcp2",
		"add set inet gatewayd strange { type ipv4_addr; }\nadd element inet gatewayd strange { 1.2.3.4 }\n"
		"add rule inet gatewayd udp4 ip saddr @strange drop",
		"add map inet gatewayd tcp4_d32_s0_odd { type ipv4_addr : verdict; }\n"
		"add element inet gatewayd tcp4_d32_s0_odd { 1.1.1.1 : goto act_drop }",
		"add set inet gatewayd tcp4_d31_s3_exact_relay { type mark; }",
		"add set inet gatewayd tcp4_d31_s0_any_drop { type ipv4_addr; counter; size 7; }",
		"add set inet gatewayd tcp6_d77_s0_any_drop { type ipv6_addr; counter; }\n"
		"add element inet gatewayd tcp6_d77_s0_any_drop { fd00::77 }",
		"add map inet gatewayd tcp6_d77_s0_any_drop { type ipv6_addr : verdict; }",
		"add counter inet gatewayd strange\nadd quota inet gatewayd cap { 25 mbytes }\n"
		"add rule inet gatewayd pre_udp quota name \"cap\" counter name strange",
		"add element inet gatewayd generation { 77, 78 }",
		"flush set inet gatewayd generation",
		"add element inet gatewayd skeleton { 99 }",
		"flush set inet gatewayd skeleton",
		"flush chain inet gatewayd go_direct\nflush chain inet gatewayd go_reply\n"
		"flush chain inet gatewayd pre_tcp\ndelete set inet gatewayd direct6",
		"add chain inet gatewayd prerouting { policy drop; }",
		"flush ruleset",
		"delete table inet gatewayd",
		"add rule inet gatewayd act_drop comment \"a\\\"",
		"flush chain inet gatewayd prerouting\nflush chain inet gatewayd pre_udp\n"
		"delete chain inet gatewayd pre_udp",
	};
	const struct group *group;
	char name[NFTSET_NAME_MAX], next[32];

	text[0] = '\0';
	if (fixture_random(3) || found->n_groups == 0) {
		snprintf(text, size, "%s\n", plain[fixture_random(ARRAY_SIZE(plain))]);
		return;
	}
	group = &found->groups[fixture_random((unsigned)found->n_groups)];
	nftset_name(group, name);
	snprintf(next, sizeof(next), "%s%c", group->shape.protocol == IPPROTO_TCP ? "tcp" : "udp",
	        group->shape.family == AF_INET ? '4' : '6');
	if (fixture_random(2))
		snprintf(text, size, "flush set inet gatewayd %s\n", name);
	else
		snprintf(text, size, "flush chain inet gatewayd %s\ndelete set inet gatewayd %s\n", next, name);
}

/* Removes a random element of ours, or makes it odd; by our own renderer's text. */
static void damage_element(const struct kernel_state *found, char *text, size_t size)
{
	struct plan plan = { .groups_after = found->groups, .n_groups_after = found->n_groups };
	_cleanup_free_ char *whole = NULL;
	char *end;

	text[0] = '\0';
	if (found->elements.n == 0)
		return;
	plan.groups_before = plan.groups_after;
	plan.n_groups_before = plan.n_groups_after;
	plan.removed = (struct elements){ &found->elements.items[fixture_random((unsigned)found->elements.n)], 1 };
	assert_int_equal(render_nft_plan(&plan, &params, &whole), 0);
	end = strstr(whole, "}\n");
	assert_non_null(end);
	snprintf(text, size, "%.*s}\n", (int)(end - whole), whole);
	if (fixture_random(2) == 0)
		return;
	/* The same element again, with a comment: "delete element ... {\n KEY\n}" once more as "add". */
	snprintf(text + strlen(text), size - strlen(text), "add%.*s comment \"x\" }\n", (int)(end - whole) - 7,
	        whole + 6);
}

static void damage(struct bench *bench)
{
	struct kernel_state found = { 0 };
	char text[4096];

	assert_int_equal(kernel_nft_read(bench->stranger, &found), 0);
	if (fixture_random(3))
		random_damage(&found, text, sizeof(text));
	else
		damage_element(&found, text, sizeof(text));
	/* What does not go together is not done. */
	(void)kernel_nft_commit(bench->stranger, text, NULL);
	kernel_state_clear(&found);
}

static bool remembers(struct kernel *kernel)
{
	_cleanup_free_ char *text = NULL;

	assert_int_equal(kernel_nft_list(kernel, &text), 0);
	return strstr(text, REMEMBERED) != NULL;
}

/* Returns whether the table had to be made anew. */
static bool heal(struct bench *bench, const struct model *model, int64_t generation, bool differs)
{
	_cleanup_free_ char *error = NULL, *full = NULL;
	_cleanup_(heal_clear) struct heal heal = { 0 };
	struct kernel_state found = { 0 };

	assert_int_equal(kernel_nft_read(bench->kernel, &found), 0);
	assert_int_equal(heal_new(model, &found, &params, generation, &heal), 0);
	assert_int_equal(heal.needed, differs);
	kernel_state_clear(&found);
	if (kernel_nft_commit(bench->kernel, heal.text, &error) == 0)
		return heal.replaces;
	print_message("refused: %.200s\n", error);
	assert_int_equal(render_nft_full(model, &params, generation, &full), 0);
	commit(bench->kernel, full);
	return true;
}

static bool table_exists(struct bench *bench)
{
	struct kernel_state found = { 0 };
	bool present;

	assert_int_equal(kernel_nft_read(bench->stranger, &found), 0);
	present = found.present;
	kernel_state_clear(&found);
	return present;
}

/* Tables that are damaged; each costs about a tenth of a second with the sanitizers. */
#define ROUNDS amount(25, 80)

static void any_damage_is_healed(void **state)
{
	struct bench *bench = bench_of(state);
	struct snapshot *at = snapshot_new();
	struct model *model = fixture_model(at);
	unsigned healed = 0, replaced = 0;

	plan_own_range_min(2); /* small listeners, too, have sets of their ranges */
	for (unsigned round = 0; round < ROUNDS; round++) {
		_cleanup_free_ char *fresh = NULL, *damaged = NULL, *after = NULL;
		struct snapshot *to = fixture_random_edit(at, 12);
		bool differs, kept, made_anew;

		if (fixture_apply(model, at, to) == 0) {
			snapshot_unref(at);
			at = snapshot_ref(to);
		}
		snapshot_unref(to);
		load(bench, model, at->revision);
		fresh = canonical();
		for (unsigned n = 1 + fixture_random(3); n > 0; n--)
			damage(bench);
		damaged = table_exists(bench) ? canonical() : strdup("");
		differs = strcmp(fresh, damaged) != 0;
		kept = damaged[0] && remembers(bench->stranger);
		made_anew = heal(bench, model, at->revision, differs);
		if (!made_anew)
			assert_int_equal(remembers(bench->kernel), kept);
		else /* what is not kept is the flows remembered */
			commit(bench->stranger, "add element inet gatewayd direct4 { " REMEMBERED " }\n");
		after = canonical();
		same_text(after, fresh);
		assert_false(heal(bench, model, at->revision, false));
		healed += differs;
		replaced += made_anew;
	}
	print_message("%u tables, %u of them damaged and healed, %u by making them anew\n", ROUNDS, healed, replaced);
	assert_true(healed > ROUNDS / 2 && replaced < healed / 2);
	model_free(model);
	snapshot_unref(at);
}

static int64_t packets_of(const char *counter)
{
	char command[128];
	FILE *pipe;
	json_t *listing;
	int64_t packets;

	snprintf(command, sizeof(command), "nft -j list counter inet gatewayd %s", counter);
	pipe = popen(command, "re");
	listing = json_loadf(pipe, 0, NULL);
	pclose(pipe);
	packets = json_integer_value(json_object_get(
	        json_object_get(json_array_get(json_object_get(listing, "nftables"), 1), "counter"), "packets"));
	json_decref(listing);
	return packets;
}

static void counters_survive(void **state)
{
	struct bench *bench = bench_of(state);
	struct snapshot *empty = snapshot_new();
	struct model *model = fixture_model(empty);

	load(bench, model, 1);
	commit(bench->stranger, "flush chain inet gatewayd act_bypass\ndelete counter inet gatewayd bypassed\n");
	commit(bench->stranger, "flush chain inet gatewayd act_drop\ndelete counter inet gatewayd dropped\n"
	                        "add counter inet gatewayd dropped { packets 5 bytes 300 }\n");
	assert_false(heal(bench, model, 1, true));
	assert_int_equal(packets_of("dropped"), 5);
	assert_int_equal(packets_of("bypassed"), 0);
	model_free(model);
	snapshot_unref(empty);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_damage_is_healed),
		cmocka_unit_test(counters_survive),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
