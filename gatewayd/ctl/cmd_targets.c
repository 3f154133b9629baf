/* targets: which servers there are behind upstreams, and how each one is. */
#include <stdio.h>
#include <string.h>

#include "gatewayd/ctl/ctl.h"
#include "gatewayd/ctl/print.h"

/* What an operator, checks and failures make of it, in one word. */
static const char *state_of(const json_t *target)
{
	const char *admin = print_text(target, "admin_state");

	if (strcmp(admin, "up") != 0)
		return admin;
	if (*print_text(target, "ejected_until"))
		return "ejected";
	return print_text(target, "health.state");
}

static void put_target(struct print_table *table, const char *upstream, const json_t *target)
{
	char place[PRINT_PLACE_BYTES];

	print_cell(table, "%s", upstream);
	print_cell(table, "%s", print_place(target, place));
	print_cell(table, "%s", state_of(target));
	print_cell(table, "%s", json_is_true(json_object_get(target, "usable")) ? "yes" : "NO");
	print_cell(table, "%.0f", print_number(target, "weight"));
	print_cell(table, "%.0f", print_number(target, "flows_active"));
	print_cell(table, "%s", print_text(target, "health.reason"));
}

/* Adds {upstream, ... the target ...} for each target. */
static int add_targets(struct ctl *ctl, const char *upstream, json_t *all)
{
	_cleanup_free_ char *resource = NULL;
	_cleanup_json_ json_t *targets = NULL;
	json_t *target;
	size_t i;
	int code;

	if (asprintf(&resource, "upstreams/%s/targets", upstream) < 0)
		return CTL_REFUSED;
	code = ctl_list(ctl, resource, UINT32_MAX, &targets);
	if (code != CTL_OK)
		return code;
	json_array_foreach(targets, i, target)
	{
		json_object_set_new(target, "upstream", json_string(upstream));
		json_array_append(all, target);
	}
	return CTL_OK;
}

static int add_upstreams(struct ctl *ctl, json_t *all)
{
	_cleanup_json_ json_t *upstreams = NULL;
	const json_t *upstream;
	size_t i;
	int code = ctl_list(ctl, "upstreams", UINT32_MAX, &upstreams);

	json_array_foreach(upstreams, i, upstream)
	{
		if (code == CTL_OK)
			code = add_targets(ctl, print_text(upstream, "name"), all);
	}
	return code;
}

static void print_targets(const json_t *all)
{
	struct print_table table;
	const json_t *target;
	size_t i;

	print_begin(&table, stdout, "UPSTREAM TARGET STATE USABLE >WEIGHT >FLOWS CHECKS");
	json_array_foreach(all, i, target)
	{
		put_target(&table, print_text(target, "upstream"), target);
	}
	print_end(&table);
}

int ctl_targets(struct ctl *ctl)
{
	_cleanup_json_ json_t *all = json_array();
	const json_t *target;
	bool unusable = false;
	size_t i;
	int code;

	code = ctl->args.n_words > 0 ? add_targets(ctl, ctl->args.words[0], all) : add_upstreams(ctl, all);
	if (code != CTL_OK)
		return code;
	if (ctl->json)
		print_json(all);
	else
		print_targets(all);
	json_array_foreach(all, i, target)
	{
		unusable |= !json_is_true(json_object_get(target, "usable"));
	}
	return unusable ? CTL_ATTENTION : CTL_OK;
}
