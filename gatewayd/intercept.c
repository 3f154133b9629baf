/* The second interception engine; see intercept.h. */
#include "gatewayd/intercept.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/attached.h"
#include "gatewayd/base/array.h"
#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/base/sockmark.h"
#include "rules/kernel_bpf.h"
#include "rules/kernel_intercept.h"
#include "rules/kernel_tc.h"

/* How often it is looked whether the program is still where it was attached: costs two questions to the kernel for each
 * interface. */
#define LOOK_US (5 * UINT64_C(1000000))

struct intercept {
	const struct options *options;
	const char *directory;           /* for kernel_tc.h */
	struct kernel_intercept *kernel; /* NULL: not loaded */
	struct intercept_control control;
	bool wanted;
	bool differs; /* from nft; loaded anew with the next change */
	bool drifted; /* nft is not what it is to be, and that is only told */
	char why[256];
	struct attached attached;
	uint64_t looked_us;
};

static int attach(void *userdata, const char *interface)
{
	return kernel_intercept_attach(((struct intercept *)userdata)->kernel, interface);
}

/* The rules see the name of what an interface is part of. */
static bool fits(void *userdata, const char *interface)
{
	(void)userdata;
	return kernel_tc_fits(interface) && !kernel_tc_is_part(interface);
}

static void gone(void *userdata, unsigned ifindex)
{
	kernel_intercept_forget(((struct intercept *)userdata)->kernel, ifindex);
}

const char *intercept_directory(const struct options *options)
{
	char why[64];

	return kernel_bpf_possible(options->bpf_dir, why, sizeof(why)) == 0 ? options->bpf_dir : options->runtime_dir;
}

int intercept_new(const struct options *options, uint16_t port, struct intercept **ret)
{
	struct intercept *intercept = calloc(1, sizeof(*intercept));

	if (!intercept)
		return -ENOMEM;
	intercept->options = options;
	intercept->control = (struct intercept_control){ .mark = options->mark,
		.mark_mask = options->mark_mask,
		.own = sockmark_of(options->mark_mask & ~options->mark).own,
		.listener_v4 = htons(port),
		.listener_v6 = htons(port) };
	intercept->attached = (struct attached){ .what = "the engine ebpf",
		.attach = attach,
		.fits = fits,
		.is_there = kernel_intercept_is_attached,
		.gone = gone,
		.userdata = intercept };
	intercept->directory = intercept_directory(options);
	kernel_intercept_detach_all(intercept->directory);
	*ret = intercept;
	return 0;
}

void intercept_free(struct intercept *intercept)
{
	if (!intercept)
		return;
	kernel_intercept_free(intercept->kernel);
	attached_clear(&intercept->attached);
	free(intercept);
}

/* --- the program's elements --- */

static void tell_program(struct intercept *intercept)
{
	int r = kernel_intercept_set(intercept->kernel, &intercept->control);

	if (r < 0)
		log_error("the engine ebpf cannot be told of a change: %s", strerror(-r));
}

static void set_open(struct intercept *intercept, bool open)
{
	if (intercept->control.open == (open ? 1U : 0U))
		return;
	intercept->control.open = open;
	tell_program(intercept);
}

/* It is not, or no longer, what nft is: nothing is decided by it. */
static void fail(struct intercept *intercept, int error)
{
	bool again = intercept->differs;

	intercept->differs = true;
	snprintf(intercept->why, sizeof(intercept->why), "%s",
	        error == -E2BIG ? "the configuration has more ranges of ports, or more kinds of match, than it takes"
	                        : strerror(-error));
	if (!again)
		log_warning("the engine ebpf is not used: %s", intercept->why);
}

/* All that the model has; n: of the groups. */
static int load_elements(
        struct intercept *intercept, const struct group *groups, size_t n, const struct elements *elements)
{
	int r = kernel_intercept_shapes(intercept->kernel, groups, n);

	for (size_t i = 0; i < elements->n && r == 0; i++)
		r = kernel_intercept_put(intercept->kernel, &elements->items[i]);
	return r;
}

void intercept_pause(struct intercept *intercept)
{
	if (intercept && intercept->kernel)
		set_open(intercept, false);
}

void intercept_change(struct intercept *intercept, const struct plan *plan)
{
	int r;

	if (!intercept || !intercept->kernel || intercept->differs)
		return;
	r = kernel_intercept_shapes(intercept->kernel, plan->groups_after, plan->n_groups_after);
	for (size_t i = 0; i < plan->removed.n && r == 0; i++)
		r = kernel_intercept_remove(intercept->kernel, &plan->removed.items[i]);
	for (size_t i = 0; i < plan->added.n && r == 0; i++)
		r = kernel_intercept_put(intercept->kernel, &plan->added.items[i]);
	if (r < 0)
		fail(intercept, r);
}

void intercept_resume(struct intercept *intercept)
{
	if (intercept && intercept->kernel && !intercept->differs && !intercept->drifted)
		set_open(intercept, true);
}

void intercept_gate(struct intercept *intercept, bool open)
{
	if (!intercept)
		return;
	intercept->control.direct = open;
	if (intercept->kernel)
		tell_program(intercept);
}

/* --- whether it is wanted --- */

static void unload(struct intercept *intercept)
{
	if (intercept->kernel)
		kernel_intercept_detach_all(intercept->directory);
	kernel_intercept_free(intercept->kernel);
	intercept->kernel = NULL;
	intercept->control.open = 0;
	intercept->differs = false;
	attached_clear(&intercept->attached);
}

/* A program with empty maps, closed, in the place of the one before, if any. */
static int open_program(struct intercept *intercept)
{
	struct kernel_intercept *made;
	int r = kernel_intercept_open(intercept->directory, &made, intercept->why, sizeof(intercept->why));

	if (r < 0) {
		if (!intercept->differs)
			log_warning("the engine ebpf is not used: %s", intercept->why);
		unload(intercept);
		intercept->differs = true;
		return r;
	}
	kernel_intercept_free(intercept->kernel);
	intercept->kernel = made;
	intercept->control.open = 0;
	tell_program(intercept);
	return 0;
}

/* The program is filled, attached and opened. */
static void load(struct intercept *intercept, const struct model *model)
{
	_cleanup_free_ struct group *groups = NULL;
	struct elements elements = { 0 };
	size_t n_groups = 0;
	int r = model_groups(model, &groups, &n_groups);

	if (r == 0)
		r = model_elements(model, &elements);
	if (r == 0)
		r = kernel_intercept_takes(groups, n_groups, &elements) ? 0 : -E2BIG;
	if (r == 0 && open_program(intercept) < 0) {
		free(elements.items);
		return;
	}
	if (r == 0)
		r = load_elements(intercept, groups, n_groups, &elements);
	free(elements.items);
	if (r < 0) {
		fail(intercept, r);
		return;
	}
	intercept->why[0] = '\0';
	intercept->differs = false;
	attached_try_all(&intercept->attached);
	intercept_resume(intercept);
}

static bool is_wanted(const struct intercept *intercept, const struct snapshot *snapshot)
{
	const struct settings *settings = snapshot_settings(snapshot);

	if (strcmp(intercept->options->interception, "auto") != 0)
		return strcmp(intercept->options->interception, "ebpf") == 0;
	return settings && settings->interception == INTERCEPTION_EBPF;
}

void intercept_follow(struct intercept *intercept, const struct snapshot *snapshot, const struct model *model)
{
	bool wanted;

	if (!intercept)
		return;
	wanted = is_wanted(intercept, snapshot);
	if (wanted && (!intercept->wanted || intercept->differs))
		load(intercept, model);
	else if (!wanted && intercept->wanted)
		unload(intercept);
	intercept->wanted = wanted;
}

void intercept_link_changed(struct intercept *intercept, const char *interface)
{
	const struct attached_item *item;

	if (!intercept || !intercept->kernel)
		return;
	item = attached_find(&intercept->attached, interface);
	/* It has become part of another one. */
	if (item && if_nametoindex(interface) != 0 && kernel_tc_is_part(interface)) {
		kernel_intercept_detach(intercept->directory, interface);
		attached_forget(&intercept->attached, interface);
		return;
	}
	attached_link_changed(&intercept->attached, interface);
}

void intercept_drifted(struct intercept *intercept, bool drifted)
{
	if (!intercept)
		return;
	intercept->drifted = drifted;
	if (drifted)
		intercept_pause(intercept);
	else
		intercept_resume(intercept);
}

void intercept_look(struct intercept *intercept)
{
	if (!intercept || !intercept->kernel || clock_us() < intercept->looked_us + LOOK_US)
		return;
	intercept->looked_us = clock_us();
	attached_restore(&intercept->attached);
	attached_try_again(&intercept->attached);
}

/* --- what is told --- */

bool intercept_is_on(const struct intercept *intercept)
{
	return intercept && intercept->kernel && intercept->control.open;
}

const char *intercept_why(const struct intercept *intercept)
{
	return intercept && intercept->wanted ? intercept->why : "";
}

bool intercept_is_at(const struct intercept *intercept, const char *interface)
{
	const struct attached_item *item =
	        intercept && interface ? attached_find(&intercept->attached, interface) : NULL;

	return intercept_is_on(intercept) && (!interface || (item && !item->why[0]));
}

bool intercept_counts(const struct intercept *intercept, uint64_t ret[INTERCEPT_COUNTS])
{
	if (!intercept || !intercept->kernel)
		return false;
	kernel_intercept_counts(intercept->kernel, ret);
	return true;
}

const char *intercept_count_name(enum intercept_count which)
{
	static const char *const names[] = {
#define COUNT(name, doc) #name,
#include "rules/intercept_count.def"
#undef COUNT
	};

	static_assert(ARRAY_SIZE(names) == INTERCEPT_COUNTS, "all of them");
	return names[which];
}

static json_t *packets(const struct intercept *intercept)
{
	json_t *object = json_object();
	uint64_t value[INTERCEPT_COUNTS];

	if (!object || !intercept_counts(intercept, value))
		return object;
	for (int i = 0; i < INTERCEPT_COUNTS; i++)
		if (json_object_set_new(object, intercept_count_name((enum intercept_count)i),
		            json_integer((json_int_t)value[i])) < 0) {
			json_decref(object);
			return NULL;
		}
	return object;
}

json_t *intercept_status(const struct intercept *intercept)
{
	bool on = intercept_is_on(intercept);

	return json_pack("{s:s, s:s, s:s?, s:o, s:o}", "engine", on ? "ebpf" : "nft", "state",
	        !intercept->wanted   ? "off"
	        : on                 ? "on"
	        : intercept->drifted ? "closed"
	                             : "failed",
	        "why", *intercept_why(intercept) ? intercept_why(intercept) : NULL, "interfaces",
	        attached_status(&intercept->attached), "packets", packets(intercept));
}
