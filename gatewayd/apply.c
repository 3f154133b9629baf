/*
 * One change as one transaction; see apply.h. The steps are a table of doing
 * and undoing; the machine runs forward through it, and backward from the
 * step that failed.
 */
#include "gatewayd/apply.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gatewayd/apply_private.h"
#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/store_history.h"
#include "schema/change.h"
#include "schema/field.h"
#include "schema/hash.h"

struct transaction {
	struct apply *apply;
	const struct apply_request *request;
	struct errs *errs;
	struct plan *plan;
	char *text, *undo_text;
	struct config_hash hash; /* of request->to */
	bool relay_prepared;
};

/* The plan that leads back. Shares everything with the plan but its list of changes. */
static int plan_reverse(const struct plan *plan, struct plan *ret)
{
	*ret = *plan;
	ret->from_revision = plan->to_revision;
	ret->to_revision = plan->from_revision;
	ret->from = plan->to;
	ret->to = plan->from;
	ret->removed = plan->added;
	ret->added = plan->removed;
	ret->groups_before = plan->groups_after;
	ret->n_groups_before = plan->n_groups_after;
	ret->groups_after = plan->groups_before;
	ret->n_groups_after = plan->n_groups_before;
	/* What was rebuilt goes back element by element: the content before is not in the plan. */
	ret->groups_rebuilt = NULL;
	ret->n_groups_rebuilt = 0;
	ret->rebuilt = (struct elements){ 0 };
	ret->changes = calloc(plan->n_changes + 1, sizeof(*ret->changes));
	if (!ret->changes)
		return -ENOMEM;
	for (size_t i = 0; i < plan->n_changes; i++) {
		ret->changes[i].old_row = plan->changes[i].new_row;
		ret->changes[i].new_row = plan->changes[i].old_row;
	}
	return 0;
}

static int store_failed(struct transaction *t, int error)
{
	errs_add(t->errs, "", "store_failed", "The database does not take the change: %s.",
	        store_error(t->apply->config.store));
	return error == -ENOMEM || error == -ENOSPC || error == -EROFS || error == -EAGAIN ? error : -EIO;
}

/* Secrets have no history: they could neither be shown nor be brought back. */
static bool is_private(const struct apply_change *change)
{
	const struct row *row = change->new_row ? change->new_row : change->old_row;

	return resource_get(row->resource)->flags & RESOURCE_IS_PRIVATE;
}

static int store_history(struct transaction *t, unsigned position)
{
	const struct apply_change *change = &t->request->changes[position];
	const struct row *row = change->new_row ? change->new_row : change->old_row;
	_cleanup_free_ char *before = NULL, *after = NULL;
	struct store_change entry = { .revision = t->request->to->revision,
		.resource = resource_get(row->resource)->name,
		.name = row_name(row) };
	int r;

	r = change_encode(change->old_row, change->new_row, &before, &after);
	entry.before = before;
	entry.after = after;
	return r < 0 ? r : store_history_add(t->apply->config.store, &entry, position);
}

static int store_new_rows(struct transaction *t)
{
	for (size_t i = 0; i < t->request->n; i++) {
		struct row *row = t->request->changes[i].new_row;
		int r;

		if (!row)
			continue;
		row->revision = t->request->to->revision;
		r = store_put_over(t->apply->config.store, row, t->request->changes[i].old_row);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Backward, so that what refers goes before what it refers to. */
static int store_deletions(struct transaction *t)
{
	for (size_t i = t->request->n; i-- > 0;) {
		int r;

		if (t->request->changes[i].new_row)
			continue;
		r = store_delete(t->apply->config.store, t->request->changes[i].old_row);
		if (r < 0)
			return r;
	}
	return 0;
}

static int store_audit(struct transaction *t)
{
	struct store_audit line;

	if (!t->request->audit)
		return 0;
	line = *t->request->audit;
	line.revision = t->request->to->revision;
	return store_audit_append(t->apply->config.store, &line);
}

static int store_all(struct transaction *t)
{
	int r = store_new_rows(t);

	if (r == 0)
		r = store_deletions(t);
	for (unsigned i = 0; r == 0 && i < t->request->n; i++)
		if (!is_private(&t->request->changes[i]))
			r = store_history(t, i);
	if (r == 0)
		r = store_meta_set(t->apply->config.store, APPLY_PENDING_KEY, t->request->pending);
	return r < 0 ? r : store_audit(t);
}

static int hash_changes(struct transaction *t)
{
	t->hash = t->apply->hash;
	for (size_t i = 0; i < t->request->n; i++) {
		int r = config_hash_change(&t->hash, t->request->changes[i].old_row, t->request->changes[i].new_row);

		if (r < 0)
			return r;
	}
	return 0;
}

static int do_store(struct transaction *t)
{
	int r = hash_changes(t);

	if (r == 0)
		r = store_begin(t->apply->config.store);

	if (r < 0)
		return store_failed(t, r);
	r = store_all(t);
	if (r < 0) {
		r = store_failed(t, r);
		store_rollback(t->apply->config.store);
	}
	return r;
}

static void undo_store(struct transaction *t)
{
	store_rollback(t->apply->config.store);
}

static int do_plan(struct transaction *t)
{
	int r = plan_new(t->apply->model, t->apply->current, t->request->to, t->errs, &t->plan);

	if (r == 0 && !t->request->way_back)
		r = plan_check_load(t->apply->model, t->plan, t->errs);
	if (r < 0 && t->plan)
		plan_abort(t->apply->model, TAKE_PTR(t->plan));
	return r;
}

static void undo_plan(struct transaction *t)
{
	plan_abort(t->apply->model, TAKE_PTR(t->plan));
}

static int render_undo(struct transaction *t)
{
	struct plan reverse;
	int r;

	r = plan_reverse(t->plan, &reverse);
	if (r < 0)
		return r;
	r = render_nft_plan(&reverse, &t->apply->config.render, &t->undo_text);
	free(reverse.changes);
	return r;
}

/* Where only elements change, the transaction itself, which is all or nothing as well, is the check. */
static bool needs_dry_run(const struct transaction *t)
{
	return t->request->dry_run || render_nft_needs_check(t->plan);
}

static void add_refusal(struct transaction *t, int error, const char *text)
{
	errs_add(t->errs, "", "kernel_refused", "The kernel refuses the change: %s", text ? text : strerror(-error));
}

static int do_check(struct transaction *t)
{
	_cleanup_free_ char *error = NULL;
	int r;

	r = render_nft_plan(t->plan, &t->apply->config.render, &t->text);
	if (r == 0)
		r = render_undo(t);
	if (r < 0 || !needs_dry_run(t))
		return r;
	r = kernel_nft_check(t->apply->config.kernel, t->text, &error);
	if (r < 0)
		add_refusal(t, r, error);
	return r;
}

/* Of both steps: what is in force goes back, what is only loaded goes. */
static void undo_shield(struct transaction *t)
{
	const struct apply_shield *shield = &t->apply->config.shield;

	if (shield->undo)
		shield->undo(shield->userdata);
}

static int do_load(struct transaction *t)
{
	const struct apply_shield *shield = &t->apply->config.shield;

	int r = shield->load ? shield->load(shield->userdata, t->apply->current, t->request->to, t->errs) : 0;

	/* Some may be loaded already. */
	if (r < 0)
		undo_shield(t);
	return r;
}

static int do_xdp(struct transaction *t)
{
	const struct apply_shield *shield = &t->apply->config.shield;

	int r = shield->put ? shield->put(shield->userdata, t->errs) : 0;

	/* Some may be in force already. Those that are only loaded would be taken back by the step before. */
	if (r < 0)
		undo_shield(t);
	return r;
}

static int do_prepare(struct transaction *t)
{
	const struct apply_relay *relay = &t->apply->config.relay;
	const char *reason = "";
	int r;

	r = relay->prepare(relay->userdata, t->plan, &reason);
	if (r < 0) {
		errs_add(t->errs, "", "apply_failed", "Step prepare: %s.", reason);
		return -EIO;
	}
	t->relay_prepared = r > 0;
	return 0;
}

static void undo_prepare(struct transaction *t)
{
	const struct apply_relay *relay = &t->apply->config.relay;

	if (t->relay_prepared)
		relay->abort(relay->userdata, t->plan);
}

static int do_route(struct transaction *t)
{
	int r = kernel_route_sync(t->apply->config.kernel, &t->apply->config.route, NULL);

	if (r < 0) {
		errs_add(t->errs, "", "apply_failed", "Step route: %s.", strerror(-r));
		return -EIO;
	}
	return 0;
}

static int do_nft(struct transaction *t)
{
	_cleanup_free_ char *error = NULL;
	int r;

	intercept_pause(t->apply->config.intercept);
	r = apply_commit(t->apply, t->text, &error);
	if (r == -EINVAL && !needs_dry_run(t)) {
		add_refusal(t, r, error);
		return r;
	}
	if (r < 0) {
		errs_add(t->errs, "", "apply_failed", "Step nft: %s", error ? error : strerror(-r));
		return -EIO;
	}
	t->apply->nft_generation = t->request->to->revision;
	return 0;
}

static void undo_nft(struct transaction *t)
{
	_cleanup_free_ char *error = NULL, *again = NULL;
	struct apply *apply = t->apply;

	if (apply_commit(apply, t->undo_text, &error) == 0) {
		apply->nft_generation = apply->current->revision;
		return;
	}
	log_error("the way back in nft failed, replacing the table: %s", error ? error : "no words");
	if (apply_replace_table(apply, apply->current->revision, &again) < 0)
		log_error("nft is not in the state of the configuration: %s", again ? again : "no words");
}

static int do_relay(struct transaction *t)
{
	const struct apply_relay *relay = &t->apply->config.relay;

	if (t->relay_prepared)
		relay->commit(relay->userdata, t->plan);
	return 0;
}

static void undo_relay(struct transaction *t)
{
	const struct apply_relay *relay = &t->apply->config.relay;
	const char *reason = "";
	struct plan reverse;

	/* The step before must not abort what has been committed. */
	if (!t->relay_prepared || plan_reverse(t->plan, &reverse) < 0)
		return;
	t->relay_prepared = false;
	if (relay->prepare(relay->userdata, &reverse, &reason) > 0)
		relay->commit(relay->userdata, &reverse);
	free(reverse.changes);
}

static int do_commit(struct transaction *t)
{
	const struct apply_request *request = t->request;
	struct store *store = t->apply->config.store;
	char hash[CONFIG_HASH_TEXT];
	int r;

	config_hash_text(&t->hash, hash);
	store_history_hash(store, hash);
	r = store_commit(store, request->to->revision, request->actor, request->summary);
	return r < 0 ? store_failed(t, r) : 0;
}

static const struct {
	const char *name;
	int (*run)(struct transaction *);
	void (*undo)(struct transaction *);
} steps[] = {
	[APPLY_STORE] = { "store", do_store, undo_store },
	[APPLY_PLAN] = { "plan", do_plan, undo_plan },
	[APPLY_CHECK] = { "check", do_check, NULL },
	[APPLY_LOAD] = { "load", do_load, undo_shield },
	[APPLY_PREPARE] = { "prepare", do_prepare, undo_prepare },
	[APPLY_ROUTE] = { "route", do_route, NULL },
	[APPLY_NFT] = { "nft", do_nft, undo_nft },
	[APPLY_XDP] = { "xdp", do_xdp, undo_shield },
	[APPLY_RELAY] = { "relay", do_relay, undo_relay },
	[APPLY_COMMIT] = { "commit", do_commit, NULL },
};
static_assert(ARRAY_SIZE(steps) == APPLY_STEPS, "every step has a way forward and a way back");

/* Takes back the steps below this one, the last first. */
static void undo_steps(struct transaction *t, int step)
{
	while (--step >= 0)
		if (steps[step].undo)
			steps[step].undo(t);
}

static int run_steps(struct transaction *t)
{
	int end = t->request->dry_run ? APPLY_LOAD + 1 : APPLY_STEPS;

	memset(t->apply->times, 0, sizeof(t->apply->times));
	for (int step = 0; step < end; step++) {
		uint64_t begun = clock_us();
		int r = steps[step].run(t);

		t->apply->times[step] = clock_us() - begun;
		if (r == 0)
			continue;
		if (step > APPLY_LOAD)
			log_write_about(LOG_ERR, LOG_ABOUT(LOG_NUMBER("REVISION", t->request->to->revision)),
			        "change %lld failed at step %s: %s", (long long)t->request->to->revision,
			        steps[step].name, strerror(-r));
		undo_steps(t, step);
		return r;
	}
	if (t->request->dry_run)
		undo_steps(t, end);
	return 0;
}

int apply_run(struct apply *apply, const struct apply_request *request, struct errs *errs, char **ret_nft)
{
	struct transaction t = { .apply = apply, .request = request, .errs = errs };
	int r, healed;

	r = run_steps(&t);
	healed = r < 0 ? apply_heal_refused(apply, errs) : 0;
	if (healed < 0)
		r = -EIO;
	if (healed > 0) {
		log_warning("somebody had changed our table; change %lld is tried once more",
		        (long long)request->to->revision);
		errs_clear(errs);
		free(t.text);
		free(t.undo_text);
		t = (struct transaction){ .apply = apply, .request = request, .errs = errs };
		r = run_steps(&t);
	}
	if (r == 0 && !request->dry_run) {
		intercept_change(apply->config.intercept, t.plan);
		plan_commit(apply->model, t.plan);
		apply_note_limits(apply);
		snapshot_unref(apply->current);
		apply->current = snapshot_ref(request->to);
		apply->hash = t.hash;
		apply->route_generation = apply->current->revision;
		if (apply->config.shield.settle)
			apply->config.shield.settle(apply->config.shield.userdata, apply->current->revision);
		(void)apply_settle_gate(apply);
	}
	intercept_resume(apply->config.intercept);
	if (r == 0 && ret_nft)
		*ret_nft = TAKE_PTR(t.text);
	free(t.text);
	free(t.undo_text);
	return r;
}

int apply_new(const struct apply_config *config, struct apply **ret)
{
	struct apply *apply = calloc(1, sizeof(*apply));
	int r;

	if (!apply)
		return -ENOMEM;
	apply->config = *config;
	apply->current = snapshot_new();
	r = apply->current ? model_new(&apply->model) : -ENOMEM;
	if (r < 0) {
		apply_free(apply);
		return r;
	}
	*ret = apply;
	return 0;
}

void apply_free(struct apply *apply)
{
	if (!apply)
		return;
	model_free(apply->model);
	snapshot_unref(apply->current);
	free(apply);
}

const struct snapshot *apply_snapshot(const struct apply *apply)
{
	return apply->current;
}

const struct model *apply_model(const struct apply *apply)
{
	return apply->model;
}

const struct render_params *apply_render_params(const struct apply *apply)
{
	return &apply->config.render;
}

const uint64_t *apply_times(const struct apply *apply)
{
	return apply->times;
}

int64_t apply_nft_generation(const struct apply *apply)
{
	return apply->nft_generation;
}

int64_t apply_route_generation(const struct apply *apply)
{
	return apply->route_generation;
}

const char *apply_step_name(enum apply_step step)
{
	return steps[step].name;
}
