/*
 * The kernel in memory: it must follow our own text as the real one does, or
 * the tests of the core would prove nothing.
 */
#include "rules_fixture.h"

#include <errno.h>

#include "rules/kernel.h"

static const struct render_params params = { 0x01000000, 0x0f000000, 41000, 41001, false, { 0 } };

static void failures_come_on_request(void **state)
{
	struct kernel_state found = { 0 };
	struct kernel *kernel;
	char *error = NULL;

	(void)state;
	assert_int_equal(kernel_fake_new(&kernel), 0);
	kernel_fake_fail_at(kernel, KERNEL_NFT_COMMIT, 2, -EIO);
	assert_int_equal(kernel_nft_commit(kernel, "add element inet gatewayd generation { 0x00000007 }\n", NULL), 0);
	assert_int_equal(kernel_nft_commit(kernel, "delete table inet gatewayd\n", &error), -EIO);
	assert_non_null(error);
	free(error);
	assert_int_equal(kernel_fake_calls(kernel, KERNEL_NFT_COMMIT), 2);
	assert_int_equal(kernel_fake_calls(kernel, KERNEL_NFT_CHECK), 0);
	assert_string_equal(kernel_fake_committed(kernel), "add element inet gatewayd generation { 0x00000007 }\n");
	assert_int_equal(kernel_nft_read(kernel, &found), 0);
	assert_true(found.present);
	assert_int_equal(found.generation, 7);
	kernel_state_clear(&found);
	assert_int_equal(kernel_nft_commit(kernel, "delete table inet gatewayd\n", &error), 0);
	assert_null(error);
	kernel_free(kernel);
}

static void it_follows_plans(void **state)
{
	struct snapshot *at = snapshot_new();
	struct model *model = fixture_model(at);
	struct kernel *kernel;
	char *text;

	(void)state;
	plan_own_range_min(3);
	assert_int_equal(kernel_fake_new(&kernel), 0);
	assert_int_equal(render_nft_full(model, &params, 0, &text), 0);
	assert_int_equal(kernel_nft_commit(kernel, text, NULL), 0);
	free(text);
	for (unsigned round = 0; round < 300; round++) {
		struct snapshot *to = fixture_random_edit(at, 25);
		struct kernel_state found = { 0 };
		struct errs errs = { 0 };
		struct elements elements;
		struct plan *plan;

		if (plan_new(model, at, to, &errs, &plan) == 0) {
			assert_int_equal(render_nft_plan(plan, &params, &text), 0);
			assert_int_equal(kernel_nft_commit(kernel, text, NULL), 0);
			free(text);
			plan_commit(model, plan);
			snapshot_unref(at);
			at = snapshot_ref(to);
		}
		errs_clear(&errs);
		snapshot_unref(to);
		assert_int_equal(kernel_nft_read(kernel, &found), 0);
		assert_int_equal(model_elements(model, &elements), 0);
		fixture_same_elements(&found.elements, &elements, false);
		assert_int_equal(found.generation, at->revision);
		free(elements.items);
		kernel_state_clear(&found);
	}
	model_free(model);
	snapshot_unref(at);
	kernel_free(kernel);
}

static void routes_and_cleanup(void **state)
{
	static const struct route_params routes = { 1, 1, 100, 100 };
	struct kernel_state found = { 0 };
	struct kernel *kernel;
	unsigned changed;

	(void)state;
	assert_int_equal(kernel_fake_new(&kernel), 0);
	assert_int_equal(kernel_nft_commit(kernel, "add table inet gatewayd\n", NULL), 0);
	assert_int_equal(kernel_route_sync(kernel, &routes, &changed), 0);
	assert_int_equal(changed, 1);
	assert_int_equal(kernel_route_sync(kernel, &routes, &changed), 0);
	assert_int_equal(changed, 0);
	assert_int_equal(kernel_cleanup(kernel), 0);
	assert_int_equal(kernel_nft_read(kernel, &found), 0);
	assert_false(found.present);
	kernel_state_clear(&found);
	kernel_free(kernel);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(failures_come_on_request),
		cmocka_unit_test(it_follows_plans),
		cmocka_unit_test(routes_and_cleanup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
