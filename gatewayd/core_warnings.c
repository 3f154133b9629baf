/*
 * What the writer of a change should know of although it was accepted: what it
 * relies on and is not there. In the answer's `warnings`, a dry run's too, and
 * in its Gateway-Warning headers (webapi/write.c).
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>

#include "gatewayd/changeset.h"
#include "gatewayd/core.h"
#include "gatewayd/shortcut.h"

/* So many are told; a document of all may name thousands of interfaces. */
#define WARNINGS_MAX 100

struct telling {
	const struct changeset *set;
	size_t at; /* of the row that it is about */
	json_t *warnings;
};

/* Then nothing more is asked for either. */
static bool is_full(const struct telling *telling)
{
	return json_array_size(telling->warnings) >= WARNINGS_MAX;
}

static int tell(const struct telling *telling, const char *code, const char *behind, const char *detail)
{
	if (is_full(telling))
		return 0;
	return json_array_append_new(
	        telling->warnings, json_pack("{s:s, s:s, s:s+}", "code", code, "detail", detail, "pointer",
	                                   telling->set->pointers[telling->at], behind));
}

static int tell_absent(const struct telling *telling, const char *behind, const char *interface, const char *what)
{
	char detail[192];

	if (is_full(telling) || if_nametoindex(interface) != 0)
		return 0;
	snprintf(detail, sizeof(detail), "There is no interface \"%s\" now: %s", interface, what);
	return tell(telling, "no_interface", behind, detail);
}

static int about_mover(const struct telling *telling, const struct listener *listener)
{
	const char *obstacle = listener->mover == MOVER_KERNEL ? shortcut_obstacle(telling->set->to, listener) : NULL;
	char detail[192];

	if (!obstacle)
		return 0;
	snprintf(detail, sizeof(detail),
	        "Its connections go by way of the relay's sockets, as with mover auto, for %s.", obstacle);
	return tell(telling, "mover_not_used", "/mover", detail);
}

static int about_listener(const struct telling *telling, const struct listener *listener)
{
	char behind[40];
	int r = 0;

	for (size_t i = 0; listener->enabled && r == 0 && i < listener->interfaces.n; i++) {
		snprintf(behind, sizeof(behind), "/interfaces/%zu", i);
		r = tell_absent(telling, behind, listener->interfaces.items[i],
		        "nothing comes to the listener from there until there is one.");
	}
	return r == 0 ? about_mover(telling, listener) : r;
}

static int about_prefilter(const struct telling *telling, const struct prefilter *prefilter)
{
	return prefilter->enabled ? tell_absent(telling, "", prefilter->interface,
	                                    "the prefilter comes into force when there is one.")
	                          : 0;
}

static int about_rate_limit(const struct telling *telling, const struct shield *shield, const struct rate_limit *limit)
{
	struct shield_health health = { 0 };
	char detail[sizeof(health.why) + 192];

	if (shield && limit->escalate_after > 0)
		shield_health(shield, &health);
	if (health.failed == 0)
		return 0;
	snprintf(detail, sizeof(detail),
	        "Sources that it bans are not dropped at interface \"%s\", whose prefilter is not in force: %s",
	        health.interface, health.why);
	return tell(telling, "prefilter_failed", "/escalate/after", detail);
}

int core_warn(const struct core *core, const struct changeset *set, json_t **ret)
{
	struct telling telling = { .set = set, .warnings = json_array() };
	int r = telling.warnings ? 0 : -1;

	for (; r == 0 && telling.at < set->n && !is_full(&telling); telling.at++) {
		const struct row *row = set->items[telling.at].new_row;

		if (row && row->resource == RESOURCE_LISTENER)
			r = about_listener(&telling, (const struct listener *)row);
		else if (row && row->resource == RESOURCE_PREFILTER)
			r = about_prefilter(&telling, (const struct prefilter *)row);
		else if (row && row->resource == RESOURCE_RATE_LIMIT)
			r = about_rate_limit(&telling, core->shield, (const struct rate_limit *)row);
	}
	if (r == 0 && json_array_size(telling.warnings) > 0) {
		*ret = telling.warnings;
		return 0;
	}
	json_decref(telling.warnings);
	return r < 0 ? -ENOMEM : 0;
}
