/*
 * The nft text: golden files (regenerate with GW_GOLDEN_UPDATE=1 and read the
 * difference), set names, and that no hostile interface name gets through.
 */
#include <assert.h>
#include "rules_fixture.h"

#include <errno.h>

#include "rules/nftset.h"

#define GOLDEN GW_SOURCE_DIR "/tests/golden/"

static const struct render_params params = { 0x01000000, 0x0f000000, 41000, 41001, false, { 0 } };

static char *read_file(const char *path)
{
	_cleanup_fclose_ FILE *file = fopen(path, "re");
	char *text = calloc(1, 65536);

	assert_non_null(text);
	if (file)
		(void)!fread(text, 1, 65535, file);
	return text;
}

static void is_golden(char *text, const char *name)
{
	_cleanup_free_ char *wanted = NULL;
	char path[512];

	snprintf(path, sizeof(path), GOLDEN "%s", name);
	if (getenv("GW_GOLDEN_UPDATE")) {
		_cleanup_fclose_ FILE *file = fopen(path, "we");

		assert_non_null(file);
		fputs(text, file);
	} else {
		wanted = read_file(path);
		assert_string_equal(text, wanted);
	}
	free(text);
}

/* One listener of each action, one of each way to match. */
static struct snapshot *example(void)
{
	struct snapshot *snapshot = snapshot_new();
	struct listener *listener;

	snapshot->revision = 42;
	fixture_put(snapshot, fixture_listener("web", 1, "", "", "10.0.0.0/24 2001:db8::/32", "80 443"));
	listener = fixture_listener("games", 2, "eth0", "10.9.0.0/16", "192.0.2.1", "8000-8063");
	listener->on_worker_down = ON_WORKER_DOWN_DIRECT;
	fixture_put(snapshot, listener);
	listener = fixture_listener("no-smtp", 3, "", "", "", "25");
	listener->action = ACTION_REJECT;
	fixture_put(snapshot, listener);
	listener = fixture_listener("no-quic", 4, "", "", "", "443");
	listener->protocol = PROTOCOL_UDP;
	listener->action = ACTION_DROP;
	fixture_put(snapshot, listener);
	listener = fixture_listener("the-rest", 5, "", "", "", "");
	listener->action = ACTION_BYPASS;
	fixture_put(snapshot, listener);
	return snapshot;
}

static void full_is_golden(void **state)
{
	struct snapshot *snapshot = example();
	struct model *model = fixture_model(snapshot);
	char *text;

	(void)state;
	assert_int_equal(render_nft_full(model, &params, snapshot->revision, &text), 0);
	is_golden(text, "full.nft");
	model_free(model);
	snapshot_unref(snapshot);
}

static void plan_is_golden(struct snapshot *from, struct snapshot *to, bool rewrite, const char *name)
{
	struct model *model = fixture_model(from);
	struct errs errs = { 0 };
	struct plan *plan;
	char *text;

	assert_int_equal(plan_new(model, from, to, &errs, &plan), 0);
	plan->rewrite_chains = rewrite;
	assert_int_equal(render_nft_plan(plan, &params, &text), 0);
	is_golden(text, name);
	plan_abort(model, plan);
	model_free(model);
	snapshot_unref(from);
	snapshot_unref(to);
}

static void plans_are_golden(void **state)
{
	struct snapshot *from = example(), *to = snapshot_edit(from, 43);
	struct listener *listener;

	(void)state;
	/* Elements only: another verdict, ports cut anew, one more address. */
	listener = fixture_listener("web", 1, "", "", "10.0.0.0/24 10.0.1.0/24 2001:db8::/32", "80 443");
	listener->on_worker_down = ON_WORKER_DOWN_DIRECT;
	fixture_put(to, listener);
	listener = fixture_listener("one-game", 6, "eth0", "10.9.0.0/16", "192.0.2.1", "8010-8011");
	fixture_put(to, listener);
	plan_is_golden(from, to, false, "plan_elements.nft");
	/* A map goes, another one comes. */
	from = example();
	to = snapshot_edit(from, 44);
	assert_int_equal(snapshot_remove(to, RESOURCE_LISTENER, "no-smtp"), 0);
	fixture_put(to, fixture_listener("lan", 7, "eth1", "", "", "25"));
	plan_is_golden(from, to, false, "plan_shapes.nft");
	/* Nothing but the chains. */
	from = example();
	plan_is_golden(from, snapshot_edit(from, 45), true, "plan_chains.nft");
}

static struct rate_limit *a_limit(const char *name, enum limit_key key, enum metric metric, int64_t rate)
{
	struct rate_limit *limit = (struct rate_limit *)row_new(RESOURCE_RATE_LIMIT);

	assert_non_null(limit);
	snprintf(limit->name, sizeof(limit->name), "%s", name);
	limit->key = key;
	limit->metric = metric;
	limit->rate = rate;
	return limit;
}

static void put_limit(struct snapshot *snapshot, struct rate_limit *limit)
{
	assert_int_equal(snapshot_put(snapshot, &limit->row), 0);
	row_unref(&limit->row);
}

/* A listener of each protocol; limits of each key, metric and action. */
static struct snapshot *limited_example(void)
{
	struct snapshot *unlimited = example(), *snapshot = snapshot_edit(unlimited, 50);
	struct rate_limit *limit;
	struct listener *listener;

	snapshot_unref(unlimited);
	put_limit(snapshot, a_limit("few", LIMIT_KEY_SOURCE, METRIC_CONCURRENT_CONNECTIONS, 3));
	limit = a_limit("net", LIMIT_KEY_SOURCE_PREFIX, METRIC_NEW_CONNECTIONS, 10);
	limit->action = LIMIT_ACTION_BAN;
	limit->burst = 100000;
	put_limit(snapshot, limit);
	limit = a_limit("traffic", LIMIT_KEY_SOURCE, METRIC_BYTES, 6000000);
	limit->per = PER_MINUTE;
	limit->escalate_after = 20;
	put_limit(snapshot, limit);
	limit = a_limit("all", LIMIT_KEY_LISTENER, METRIC_NEW_CONNECTIONS, 500);
	limit->action = LIMIT_ACTION_REJECT;
	limit->mode = LIMIT_MODE_SHADOW;
	limit->escalate_after = 5;
	put_limit(snapshot, limit);
	put_limit(snapshot, a_limit("unused", LIMIT_KEY_SOURCE, METRIC_PACKETS, 1));
	listener = fixture_listener("limited", 8, "", "", "10.0.0.0/24", "8080");
	fixture_words(&listener->rate_limits, "few net traffic all");
	fixture_put(snapshot, listener);
	listener = fixture_listener("dns", 9, "", "", "", "53");
	listener->protocol = PROTOCOL_UDP;
	fixture_words(&listener->rate_limits, "few");
	fixture_put(snapshot, listener);
	return snapshot;
}

static void limits_are_golden(void **state)
{
	struct snapshot *from = limited_example(), *to = snapshot_edit(from, 51);
	struct rate_limit *limit;

	(void)state;
	/* Another rate: a set of another name, and the chains that look there; nothing else. */
	put_limit(to, a_limit("few", LIMIT_KEY_SOURCE, METRIC_CONCURRENT_CONNECTIONS, 4));
	plan_is_golden(from, to, false, "plan_limit_rate.nft");
	/* Another consequence: no state is touched. */
	from = limited_example();
	to = snapshot_edit(from, 52);
	limit = a_limit("all", LIMIT_KEY_LISTENER, METRIC_NEW_CONNECTIONS, 500);
	limit->action = LIMIT_ACTION_REJECT;
	put_limit(to, limit);
	plan_is_golden(from, to, false, "plan_limit_mode.nft");
	/* From nothing, and back. */
	from = example();
	plan_is_golden(from, limited_example(), false, "plan_limits.nft");
	from = limited_example();
	plan_is_golden(from, example(), false, "plan_limits_gone.nft");
}

/* A chain is emptied, but no set, counter or limit goes away, and none but those of the changed limit comes. */
static void a_rate_leaves_state_alone(void **state)
{
	struct snapshot *from = limited_example(), *to = snapshot_edit(from, 51);
	struct model *model = fixture_model(from);
	struct errs errs = { 0 };
	struct plan *plan;
	char *text;

	(void)state;
	put_limit(to, a_limit("few", LIMIT_KEY_SOURCE, METRIC_CONCURRENT_CONNECTIONS, 4));
	assert_int_equal(plan_new(model, from, to, &errs, &plan), 0);
	assert_int_equal(render_nft_plan(plan, &params, &text), 0);
	assert_null(strstr(text, "limit.net"));
	assert_null(strstr(text, "limit.traffic"));
	assert_null(strstr(text, "delete counter"));
	assert_null(strstr(text, "element inet gatewayd tcp"));
	free(text);
	plan_abort(model, plan);
	model_free(model);
	snapshot_unref(from);
	snapshot_unref(to);
}

/* Whether the limits of a snapshot can be compiled. */
static int compile(const struct snapshot *snapshot)
{
	struct errs errs = { 0 };
	struct limits *limits = NULL;
	int r = limits_compile(snapshot, &errs, &limits);

	if (r < 0)
		assert_string_equal(errs.items[0].code, "too_complex");
	limits_unref(limits);
	errs_clear(&errs);
	return r;
}

static void too_many_pairs_are_refused(void **state)
{
	enum { EACH = 16 };
	struct snapshot *snapshot = snapshot_new();
	struct listener *listener;
	char name[16];

	(void)state;
	for (int i = 0; i < EACH; i++) {
		snprintf(name, sizeof(name), "l%d", i);
		put_limit(snapshot, a_limit(name, LIMIT_KEY_SOURCE, METRIC_PACKETS, 1));
	}
	static_assert(LIMITS_PAIRS_MAX % EACH == 0, "the last listener reaches the limit");
	for (int i = 0; i < LIMITS_PAIRS_MAX / EACH; i++) {
		snprintf(name, sizeof(name), "n%05d", i);
		listener = fixture_listener(name, i + 1, "", "", "", "80");
		fixture_words(&listener->rate_limits, "l0 l1 l2 l3 l4 l5 l6 l7 l8 l9 l10 l11 l12 l13 l14 l15");
		fixture_put(snapshot, listener);
	}
	assert_int_equal(compile(snapshot), 0);
	listener = fixture_listener("one-more", LIMITS_PAIRS_MAX, "", "", "", "81");
	fixture_words(&listener->rate_limits, "l0");
	fixture_put(snapshot, listener);
	assert_int_equal(compile(snapshot), -EINVAL);
	snapshot_unref(snapshot);
}

static void bans_are_golden(void **state)
{
	struct render_ban bans[] = { { .seconds = 60 }, { .seconds = -1 }, { .seconds = 0, .limit = "net" } };
	struct snapshot *snapshot = limited_example();
	struct model *model = fixture_model(snapshot);
	struct ban_lengths lengths = { 0 };
	char *text;

	(void)state;
	assert_int_equal(prefix_parse("192.0.2.1", &bans[0].prefix), 0);
	assert_int_equal(prefix_parse("2001:db8::/33", &bans[1].prefix), 0);
	assert_int_equal(prefix_parse("192.0.2.0/24", &bans[2].prefix), 0);
	ban_lengths_add(&lengths, 4, 32);
	ban_lengths_add(&lengths, 6, 33);
	assert_int_equal(render_nft_bans(model_limits(model), &params, &lengths, bans, ARRAY_SIZE(bans), &text), 0);
	is_golden(text, "bans.nft");
	model_free(model);
	snapshot_unref(snapshot);
}

static void gate_is_golden(void **state)
{
	char *text;

	(void)state;
	assert_int_equal(render_nft_gate(true, &text), 0);
	is_golden(text, "gate_open.nft");
	assert_int_equal(render_nft_gate(false, &text), 0);
	is_golden(text, "gate_closed.nft");
}

static void names_can_be_read_back(void **state)
{
	static const char *const bad[] = { "", "tcp4", "tcp4_d33_s0_exact_relay", "tcp4_d32_s0_exact",
		"tcp4_d32_s0_exact_", "tcp4_d32_s0_exact_relay_", "tcp4_d32_s0_i_exact_relays", "tcp5_d0_s0_any_drop",
		"udp4_d0_s0_i_", "TCP4_d0_s0_any_drop", "tcp4_d00_s0_any_drop", "tcp4_d0_s0_any_drop ",
		"sctp4_d0_s0_any_drop", "tcp4_d0_s0_p5_drop", "tcp4_d0_s0_p7-7_drop", "tcp4_d0_s0_p8-7_drop",
		"tcp4_d0_s0_p1-65536_drop", "tcp4_d0_s0_p01-7_drop", "tcp6_d129_s0_any_drop", "tcp4_d-1_s0_any_drop" };
	struct group group = { .shape.protocol = IPPROTO_TCP }, again;
	struct match_shape *shape = &group.shape;
	char name[NFTSET_NAME_MAX];

	(void)state;
	for (unsigned i = 0; i < 5000; i++) {
		shape->protocol = fixture_random(2) ? IPPROTO_TCP : IPPROTO_UDP;
		shape->family = fixture_random(2) ? AF_INET : AF_INET6;
		shape->dst_len = (uint8_t)fixture_random(addr_bits(shape->family) + 1);
		shape->src_len = (uint8_t)fixture_random(addr_bits(shape->family) + 1);
		shape->interface = (uint8_t)fixture_random(2);
		shape->port_kind = (uint8_t)fixture_random(MATCH_PORT_KINDS);
		group.verdict = (uint8_t)fixture_random(VERDICTS);
		group.port_lo = group.port_hi = 0;
		if (shape->port_kind == MATCH_PORT_RANGE && fixture_random(2)) {
			group.port_lo = (uint16_t)(1 + fixture_random(65534));
			group.port_hi = (uint16_t)(group.port_lo + 1 + fixture_random(65535U - group.port_lo));
		}
		nftset_name(&group, name);
		assert_int_equal(nftset_group_of_name(name, &again), 0);
		assert_int_equal(group_compare(&group, &again), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(nftset_group_of_name(bad[i], &again), -EINVAL);
}

/* Whatever got into a row by a way around the checks stops here. */
static void hostile_interfaces_are_refused(void **state)
{
	static const char *const hostile[] = { "eth\"0", "a\nflush x", "eth*", "a;b", "a b", "a{", "x}", "\\", "$x",
		"@#", "\xc3\xa9th0", "'x'" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hostile); i++) {
		struct snapshot *snapshot = snapshot_new();
		struct listener *listener = fixture_listener("a", 1, "", "", "", "80");
		struct model *model;
		char *text = NULL;

		assert_int_equal(strings_append(&listener->interfaces, hostile[i]), 0);
		fixture_put(snapshot, listener);
		if (strlen(hostile[i]) < IFNAMSIZ) {
			model = fixture_model(snapshot);
			assert_int_equal(render_nft_full(model, &params, 1, &text), -EINVAL);
			assert_null(text);
			model_free(model);
		}
		snapshot_unref(snapshot);
	}
}

static void long_interfaces_are_refused(void **state)
{
	struct snapshot *empty = snapshot_new(), *snapshot = snapshot_edit(empty, 1);
	struct model *model;

	(void)state;
	fixture_put(snapshot, fixture_listener("a", 1, "sixteen-bytes-xx", "", "", "80"));
	assert_int_equal(model_new(&model), 0);
	assert_int_equal(fixture_apply(model, empty, snapshot), -EINVAL);
	model_free(model);
	snapshot_unref(snapshot);
	snapshot = snapshot_edit(empty, 1);
	fixture_put(snapshot, fixture_listener("a", 1, "fifteen-bytes-x", "", "", "80"));
	model = fixture_model(snapshot);
	model_free(model);
	snapshot_unref(snapshot);
	snapshot_unref(empty);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_interfaces_are_refused),
		cmocka_unit_test(long_interfaces_are_refused),
		cmocka_unit_test(names_can_be_read_back),
		cmocka_unit_test(full_is_golden),
		cmocka_unit_test(plans_are_golden),
		cmocka_unit_test(limits_are_golden),
		cmocka_unit_test(a_rate_leaves_state_alone),
		cmocka_unit_test(too_many_pairs_are_refused),
		cmocka_unit_test(bans_are_golden),
		cmocka_unit_test(gate_is_golden),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
