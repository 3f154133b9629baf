/* The rules before the daemon; see early.h. The daemon adopts the table as it would that of a daemon before it. */
#include "gatewayd/early.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gatewayd/apply.h"
#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/log.h"
#include "gatewayd/files.h"
#include "gatewayd/open.h"

/* Where tproxy leads to until a relay is there: no transparent socket is ever made on it, so the rule behind decides.
 */
#define NO_PORT 1

/* 1 if our table is in the kernel. */
static int is_there(struct kernel *kernel)
{
	struct kernel_state state = { 0 };
	int r = kernel_nft_read(kernel, &state);

	if (r == 0)
		r = state.present;
	kernel_state_clear(&state);
	return r;
}

static int put_rules(const struct options *options, struct kernel *kernel, struct snapshot *snapshot)
{
	_cleanup_free_ char *reason = NULL;
	struct apply_config config = {
		.kernel = kernel,
		.render = { .mark = options->mark,
		        .mark_mask = options->mark_mask,
		        .port_v4 = NO_PORT,
		        .port_v6 = NO_PORT,
		        .gate_open = true },
		.route = { .mark = options->mark,
		        .mark_mask = options->mark_mask,
		        .table = options->route_table,
		        .priority = options->rule_priority },
	};
	struct apply *apply = NULL;
	int r = apply_new(&config, &apply);

	if (r == 0)
		r = apply_boot(apply, snapshot, &reason);
	if (r < 0)
		log_error("the rules could not be put in place: %s", reason ? reason : strerror(-r));
	else
		log_notice(
		        "the rules of revision %lld are in place until gatewayd serves", (long long)snapshot->revision);
	apply_free(apply);
	return r;
}

static int put_last_good(const struct options *options)
{
	_cleanup_(snapshot_unref_p) struct snapshot *snapshot = NULL;
	_cleanup_free_ char *reason = NULL;
	struct kernel *kernel = NULL;
	int r = open_last_good(options, &reason, &snapshot);

	if (r == -ENOENT) {
		log_notice("there is no last good configuration, and nothing to be closed");
		return 0;
	}
	if (r < 0) {
		log_error("%s", reason ? reason : strerror(-r));
		return r;
	}
	r = kernel_open(&kernel);
	if (r == 0)
		r = is_there(kernel);
	if (r > 0)
		log_notice("our table is in the kernel already");
	else if (r == 0)
		r = put_rules(options, kernel, snapshot);
	kernel_free(kernel);
	return r;
}

int early_run(const struct options *options)
{
	int holder = 0, r = files_make_directory(options->runtime_dir, 0755);
	_cleanup_close_ int lock = r < 0 ? r : files_lock(options->runtime_dir, &holder);

	if (lock == -EWOULDBLOCK) {
		log_notice("gatewayd runs, process %d: nothing to be done", holder);
		return EXIT_SUCCESS;
	}
	if (lock < 0) {
		log_error("%s cannot be used: %s", options->runtime_dir, strerror(-lock));
		return EXIT_FAILURE;
	}
	return put_last_good(options) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
