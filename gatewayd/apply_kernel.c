/*
 * Our part of the kernel brought to the configuration in force outside of a
 * change: at start, after somebody else's hand, when the way back fails, and
 * when the relay comes or goes. See apply.h.
 */
#include "gatewayd/apply_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gatewayd/base/log.h"
#include "rules/heal.h"

int apply_commit(struct apply *apply, const char *text, char **ret_error)
{
	bool large = apply->large_begin && kernel_nft_is_large(text);
	uint64_t before = kernel_nft_commits(apply->config.kernel);
	int r;

	apply->serial++;
	if (large)
		apply->large_begin(apply->large_userdata);
	r = kernel_nft_commit(apply->config.kernel, text, ret_error);
	if (large)
		apply->large_end(apply->large_userdata, kernel_nft_commits(apply->config.kernel) - before);
	return r;
}

void apply_on_large(struct apply *apply, void (*begin)(void *userdata), void (*end)(void *userdata, uint64_t commits),
        void *userdata)
{
	apply->large_begin = begin;
	apply->large_end = end;
	apply->large_userdata = userdata;
}

int apply_replace_table(struct apply *apply, int64_t generation, char **ret_error)
{
	_cleanup_free_ char *text = NULL;
	int r;

	r = render_nft_full(apply->model, &apply->config.render, generation, &text);
	if (r < 0)
		return r;
	r = apply_commit(apply, text, ret_error);
	if (r < 0)
		return r;
	apply->nft_generation = generation;
	apply_tell_replaced(apply);
	return 0;
}

void apply_on_replace(struct apply *apply, void (*replaced)(void *userdata), void *userdata)
{
	apply->replaced = replaced;
	apply->replaced_userdata = userdata;
}

void apply_tell_replaced(struct apply *apply)
{
	if (apply->replaced)
		apply->replaced(apply->replaced_userdata);
}

void apply_note_limits(struct apply *apply)
{
	const struct limits *limits = model_limits(apply->model);

	if (limits)
		ban_lengths_unite(&apply->config.render.bans, &limits->bans);
}

static struct ban_lengths lengths_of(const struct render_ban *bans, size_t n)
{
	struct ban_lengths lengths = { 0 };

	for (size_t i = 0; i < n; i++)
		ban_lengths_add(&lengths, bans[i].prefix.addr.family == AF_INET ? 4 : 6, bans[i].prefix.length);
	return lengths;
}

int apply_bans(struct apply *apply, const struct render_ban *bans, size_t n)
{
	_cleanup_free_ char *text = NULL, *error = NULL;
	struct ban_lengths lengths = lengths_of(bans, n);
	int r = render_nft_bans(model_limits(apply->model), &apply->config.render, &lengths, bans, n, &text);

	if (r == 0)
		r = apply_commit(apply, text, &error);
	if (r < 0) {
		log_error("the kernel does not take a ban: %s", error ? error : strerror(-r));
		return r;
	}
	ban_lengths_unite(&apply->config.render.bans, &lengths);
	return 0;
}

static int hash_all(struct apply *apply)
{
	int r = 0;

	apply->hash = (struct config_hash){ 0 };
	for (int id = 0; id < RESOURCES && r == 0; id++)
		r = config_hash_add_rows(&apply->hash, &apply->current->rows[id]);
	return r;
}

/* Makes the snapshot the model's state. */
static int load_model(struct apply *apply, struct snapshot *snapshot, char **ret_reason)
{
	_cleanup_errs_ struct errs errs = { 0 };
	struct plan *plan;
	int r;

	r = plan_new(apply->model, apply->current, snapshot, &errs, &plan);
	if (r < 0) {
		if (asprintf(ret_reason, "the stored configuration contradicts itself: %s",
		            errs.n > 0 && errs.items[0].detail ? errs.items[0].detail : strerror(-r)) < 0)
			*ret_reason = NULL;
		return r;
	}
	plan_commit(apply->model, plan);
	apply_note_limits(apply);
	snapshot_unref(apply->current);
	apply->current = snapshot_ref(snapshot);
	return hash_all(apply);
}

/* A pause that doubles: of five together a second and a half. */
#define READ_PAUSE_MS 50U
#define READ_PAUSES   5U

/* Others' transactions, in whatever table, interrupt a read of ours: -EINTR if that was so again after each pause. */
static int read_table(struct apply *apply, unsigned pauses, struct kernel_state *ret)
{
	for (unsigned i = 0;; i++) {
		int r = kernel_nft_read(apply->config.kernel, ret);

		if (r != -EINTR || i == pauses)
			return r;
		(void)usleep((READ_PAUSE_MS << i) * 1000);
	}
}

/* What is wrong with our table, and how to put it right. A table that cannot be read counts as one that is not there,
 * but for one whose read was interrupted (-EINTR): to replace it would cost its counters and dynamic sets, and nothing
 * says that anything is wrong with it. */
static int examine(struct apply *apply, unsigned pauses, struct heal *ret)
{
	struct kernel_state state = { 0 };
	int r = read_table(apply, pauses, &state);

	if (r == -EINTR)
		return r;
	if (r < 0) {
		log_warning("our table cannot be read (%s); it is replaced", strerror(-r));
		state = (struct kernel_state){ 0 };
	}
	r = heal_new(apply->model, &state, &apply->config.render, apply->current->revision, ret);
	kernel_state_clear(&state);
	return r;
}

/* Commits the text, or puts the whole table in place if the kernel does not take it. */
static int commit_or_replace(struct apply *apply, const char *text, char **ret_error)
{
	_cleanup_free_ char *error = NULL;
	int r = apply_commit(apply, text, &error);

	if (r == 0)
		return 0;
	log_warning("the table that was found cannot be adopted, replacing it: %s", error ? error : "no words");
	return apply_replace_table(apply, apply->current->revision, ret_error);
}

int apply_examine(struct apply *apply, struct heal *ret)
{
	return examine(apply, 0, ret);
}

int apply_examine_in_child(struct apply *apply, struct heal *ret)
{
	int r = kernel_renew(apply->config.kernel);

	return r < 0 ? r : examine(apply, READ_PAUSES, ret);
}

int apply_mend(struct apply *apply, const struct heal *heal)
{
	_cleanup_free_ char *error = NULL;
	int r;

	if (!heal->needed)
		return 0;
	r = commit_or_replace(apply, heal->text, &error);
	if (r < 0) {
		log_error("nft cannot be put right: %s", error ? error : strerror(-r));
		return r;
	}
	apply->nft_generation = apply->current->revision;
	if (heal->replaces)
		apply_tell_replaced(apply);
	return 1;
}

int apply_look_at_routing(struct apply *apply, struct route_look *ret)
{
	return kernel_route_look(apply->config.kernel, &apply->config.route, ret);
}

int apply_mend_routing(struct apply *apply, struct route_look *ret)
{
	int r = apply_look_at_routing(apply, ret);

	if (r == 0 && ret->wrong > 0)
		r = kernel_route_sync(apply->config.kernel, &apply->config.route, NULL);
	if (r == 0)
		apply->route_generation = apply->current->revision;
	return r;
}

bool apply_is_large(const struct apply *apply)
{
	return model_count(apply->model) >= APPLY_LARGE;
}

uint64_t apply_serial(const struct apply *apply)
{
	return apply->serial;
}

int apply_heal_refused(struct apply *apply, struct errs *errs)
{
	const char *code = errs->n > 0 ? errs->items[0].code : NULL;
	_cleanup_(heal_clear) struct heal heal = { 0 };
	struct route_look routing;
	int r;

	if (!code || (strcmp(code, "kernel_refused") != 0 && strcmp(code, "apply_failed") != 0) ||
	        examine(apply, 0, &heal) < 0 || !heal.needed)
		return 0;
	/* Routing first: a mark without a route would lose packets, a route without a mark does nothing. */
	r = apply_mend_routing(apply, &routing);
	if (r == 0)
		r = apply_mend(apply, &heal);
	if (r < 0) {
		errs_clear(errs);
		errs_add(errs, "", "apply_failed",
		        "Somebody has changed our table in nft, and it cannot be put right: %s.", strerror(-r));
	}
	return r;
}

/* At the start there is no later: a table that cannot be read for longer than that is made anew. */
static int examine_at_start(struct apply *apply, struct heal *ret)
{
	static const struct kernel_state none;
	int r = examine(apply, READ_PAUSES, ret);

	if (r != -EINTR)
		return r;
	log_warning("our table cannot be read, for others change theirs without a pause; it is replaced");
	return heal_new(apply->model, &none, &apply->config.render, apply->current->revision, ret);
}

static void explain_refusal(int error, const char *text, char **ret_reason)
{
	if (asprintf(ret_reason, "nft refuses the configuration: %s", text ? text : strerror(-error)) < 0)
		*ret_reason = NULL;
}

int apply_dry_boot(struct apply *apply, struct snapshot *snapshot, char **ret_reason)
{
	_cleanup_(heal_clear) struct heal heal = { 0 };
	_cleanup_free_ char *error = NULL;
	int r;

	r = load_model(apply, snapshot, ret_reason);
	if (r == 0)
		r = examine_at_start(apply, &heal);
	if (r < 0)
		return r;
	r = kernel_nft_check(apply->config.kernel, heal.text, &error);
	if (r < 0)
		explain_refusal(r, error, ret_reason);
	return r;
}

int apply_boot(struct apply *apply, struct snapshot *snapshot, char **ret_reason)
{
	_cleanup_(heal_clear) struct heal heal = { 0 };
	_cleanup_free_ char *error = NULL;
	int r;

	r = load_model(apply, snapshot, ret_reason);
	if (r == 0)
		r = kernel_route_sync(apply->config.kernel, &apply->config.route, NULL);
	if (r == 0)
		r = examine_at_start(apply, &heal);
	if (r < 0)
		return r;
	log_info("our table in the kernel: %s, %zu elements to add, %zu to remove",
	        heal.replaces ? "to be made" : "to be adopted", heal.added, heal.removed);
	r = commit_or_replace(apply, heal.text, &error);
	if (r < 0) {
		explain_refusal(r, error, ret_reason);
		return r;
	}
	apply->nft_generation = apply->route_generation = snapshot->revision;
	return 0;
}

/* Whether the gate is there for anybody. */
static bool has_direct(const struct snapshot *snapshot)
{
	const struct rows *rows = &snapshot->rows[RESOURCE_LISTENER];

	for (size_t i = 0; i < rows->n; i++)
		if (((const struct listener *)rows->items[i])->on_worker_down == ON_WORKER_DOWN_DIRECT)
			return true;
	return false;
}

bool apply_has_direct(const struct apply *apply)
{
	return has_direct(apply->current);
}

int apply_settle_gate(struct apply *apply)
{
	_cleanup_free_ char *text = NULL, *error = NULL;
	bool open = apply->gate_wanted;
	int r;

	if (apply->config.render.gate_open == open || (open && !has_direct(apply->current)))
		return 0;
	r = render_nft_gate(open, &text);
	if (r < 0)
		return r;
	if (open)
		intercept_gate(apply->config.intercept, true);
	r = apply_commit(apply, text, &error);
	if (r < 0) {
		log_error("the way past the relay cannot be %s: %s", open ? "opened" : "closed",
		        error ? error : "no words");
		return r;
	}
	apply->config.render.gate_open = open;
	intercept_gate(apply->config.intercept, open);
	return 0;
}

int apply_set_gate(struct apply *apply, bool open)
{
	apply->gate_wanted = open;
	return apply_settle_gate(apply);
}

bool apply_gate_is_wanted(const struct apply *apply)
{
	return apply->gate_wanted;
}
