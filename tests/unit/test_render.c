/*
 * The nft text: golden files (regenerate with GW_GOLDEN_UPDATE=1 and read the
 * difference), set names, and that no hostile interface name gets through.
 */
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
		"sctp4_d0_s0_any_drop", "tcp6_d129_s0_any_drop", "tcp4_d-1_s0_any_drop" };
	struct group group = { .shape.protocol = IPPROTO_TCP }, again;
	struct match_shape *shape = &group.shape;
	char name[32];

	(void)state;
	for (unsigned i = 0; i < 5000; i++) {
		shape->protocol = fixture_random(2) ? IPPROTO_TCP : IPPROTO_UDP;
		shape->family = fixture_random(2) ? AF_INET : AF_INET6;
		shape->dst_len = (uint8_t)fixture_random(addr_bits(shape->family) + 1);
		shape->src_len = (uint8_t)fixture_random(addr_bits(shape->family) + 1);
		shape->interface = (uint8_t)fixture_random(2);
		shape->port_kind = (uint8_t)fixture_random(MATCH_PORT_KINDS);
		group.verdict = (uint8_t)fixture_random(VERDICTS);
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
		cmocka_unit_test(gate_is_golden),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
