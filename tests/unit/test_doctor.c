/* The doctor's checks on made-up facts: what the lab cannot break without harming its machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "rules/doctor.h"

/* A machine in good order. */
static struct doctor_facts good(void)
{
	return (struct doctor_facts){ .ip_forward = { .value = 1 },
		.ip6_forward = { .value = 1 },
		.conntrack_count = { .value = 10 },
		.conntrack_max = { .value = 1000 },
		.somaxconn = { .value = 4096 },
		.has_routing = true,
		.table = 26487,
		.mark = 0x01000000,
		.mark_mask = 0x0f000000,
		.foreign = json_array(),
		.relay_runs = true,
		.descriptors_limit = 100000,
		.sockmap_state = "off",
		.sockmap_why = "",
		.ebpf_why = "",
		.clock = 2000000000,
		.disk_free_mib = 1000,
		.state_dir = "/var/lib/gatewayd",
		.prefilter_first = "",
		.prefilter_why = "",
		.sqlite_version = "3.40.1",
		.sqlite_number = 3040001 };
}

/* The name of the only check that is red; "" if none is. */
static const char *red(const struct doctor_facts *facts, struct doctor_check checks[DOCTOR_CHECKS_MAX])
{
	size_t n = doctor_examine(facts, checks);
	const char *found = "";

	for (size_t i = 0; i < n; i++) {
		assert_true(checks[i].detail[0] != '\0');
		assert_int_equal(checks[i].ok, checks[i].fix[0] == '\0');
		if (checks[i].ok)
			continue;
		assert_string_equal(found, "");
		found = checks[i].name;
	}
	json_decref((json_t *)facts->foreign);
	return found;
}

static void test_good(void **state)
{
	struct doctor_check checks[DOCTOR_CHECKS_MAX];
	struct doctor_facts facts = good();

	(void)state;
	assert_string_equal(red(&facts, checks), "");
}

static void test_conntrack_at_its_bound(void **state)
{
	struct doctor_check checks[DOCTOR_CHECKS_MAX];
	struct doctor_facts facts = good();

	(void)state;
	facts.conntrack_count.value = 799;
	assert_string_equal(red(&facts, checks), "");
	facts = good();
	facts.conntrack_count.value = 800;
	assert_string_equal(red(&facts, checks), "conntrack");
	/* Not there at all. */
	facts = good();
	facts.conntrack_count.value = facts.conntrack_max.value = -1;
	assert_string_equal(red(&facts, checks), "");
}

static void test_descriptors_in_use(void **state)
{
	struct doctor_check checks[DOCTOR_CHECKS_MAX];
	struct doctor_facts facts = good();

	(void)state;
	facts.descriptors_used = 80000;
	assert_string_equal(red(&facts, checks), "descriptors");
}

static void test_sockmap_that_was_wanted(void **state)
{
	struct doctor_check checks[DOCTOR_CHECKS_MAX];
	struct doctor_facts facts = good();

	(void)state;
	facts.sockmap_wanted = true;
	facts.sockmap_state = "failed";
	assert_string_equal(red(&facts, checks), "sockmap");
}

static void test_engine_that_was_wanted(void **state)
{
	struct doctor_check checks[DOCTOR_CHECKS_MAX];
	struct doctor_facts facts = good();

	(void)state;
	facts.ebpf_why = "too old";
	assert_string_equal(red(&facts, checks), "interception");
}

static void test_prefilter_that_is_kept_away(void **state)
{
	struct doctor_check checks[DOCTOR_CHECKS_MAX];
	struct doctor_facts facts = good();

	(void)state;
	facts.prefilters = 2;
	facts.prefilters_failed = 1;
	facts.prefilter_first = "in0";
	facts.prefilter_why = "in0 has an XDP program of somebody else (id 7)";
	assert_string_equal(red(&facts, checks), "prefilters");
}

static void test_generations_that_differ(void **state)
{
	struct doctor_check checks[DOCTOR_CHECKS_MAX];
	struct doctor_facts facts = good();

	(void)state;
	facts.revision = facts.nft_generation = facts.route_generation = 7;
	facts.relay_generation = 6;
	assert_string_equal(red(&facts, checks), "relay");
}

/* More findings than a detail holds: cut, and nothing is overrun. */
static void test_many_findings(void **state)
{
	struct doctor_check checks[DOCTOR_CHECKS_MAX];
	struct doctor_facts facts = good();

	(void)state;
	for (int i = 0; i < 100; i++)
		json_array_append_new((json_t *)facts.foreign,
		        json_pack("{s:s, s:s}", "code", "source_nat", "detail", "chain ip somebody post does so"));
	assert_string_equal(red(&facts, checks), "source_nat");
}

/* A finding of a chain at the forward hook whose rules are these; the policy is drop. */
static json_t *forward_finding(const char *rules)
{
	json_t *parsed = json_loads(rules, 0, NULL);

	assert_non_null(parsed);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:o}", "code", "forward_drop", "detail", "chain inet wall way",
	        "family", "inet", "table", "wall", "chain", "way", "policy", "drop", "rules", parsed);
}

/* Chains that jump to each other many times over: it ends, and what is not seen counts as the policy does. */
static void test_forward_jumps_without_end(void **state)
{
	static const char jumps[] =
	        "{\"way\": [[{\"jump\": {\"target\": \"way\"}}], [{\"jump\": {\"target\": \"way\"}}], "
	        "[{\"jump\": {\"target\": \"way\"}}], [{\"accept\": null}]]}";
	struct doctor_check checks[DOCTOR_CHECKS_MAX];
	struct doctor_facts facts = good();

	(void)state;
	facts.n_interfaces = 1;
	json_array_append_new((json_t *)facts.foreign, forward_finding(jumps));
	/* The deepest chain passes by its jumps and accepts. */
	assert_string_equal(red(&facts, checks), "");
	facts = good();
	facts.n_interfaces = 1;
	json_array_append_new((json_t *)facts.foreign,
	        forward_finding(
	                "{\"way\": [[{\"jump\": {\"target\": \"way\"}}], [{\"jump\": {\"target\": \"way\"}}]]}"));
	assert_string_equal(red(&facts, checks), "forward_drop");
}

static void test_foreign_unreadable(void **state)
{
	struct doctor_check checks[DOCTOR_CHECKS_MAX];
	struct doctor_facts facts = good();

	(void)state;
	json_decref((json_t *)facts.foreign);
	facts.foreign = NULL;
	assert_string_equal(red(&facts, checks), "nft_unreadable");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_conntrack_at_its_bound),
		cmocka_unit_test(test_descriptors_in_use),
		cmocka_unit_test(test_sockmap_that_was_wanted),
		cmocka_unit_test(test_engine_that_was_wanted),
		cmocka_unit_test(test_prefilter_that_is_kept_away),
		cmocka_unit_test(test_generations_that_differ),
		cmocka_unit_test(test_many_findings),
		cmocka_unit_test(test_forward_jumps_without_end),
		cmocka_unit_test(test_foreign_unreadable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
