/* Prefilters through changes of configuration and of interfaces; see shield.h. */
#include "gatewayd/shield.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/log.h"
#include "gatewayd/shield_private.h"
#include "rules/frame.h"

/* --- items --- */

static void item_free(struct shield_item *item)
{
	if (!item)
		return;
	sd_event_source_disable_unref(item->ring);
	kernel_xdp_free(item->xdp);
	xdp_config_free(item->now);
	xdp_config_free(item->next);
	free(item);
}

struct shield_item *shield_find(const struct shield *shield, const char *interface)
{
	for (size_t i = 0; i < shield->n; i++)
		if (strcmp(shield->items[i]->interface, interface) == 0)
			return shield->items[i];
	return NULL;
}

static int item_new(struct shield *shield, const char *interface, struct shield_item **ret)
{
	struct shield_item **items = realloc(shield->items, (shield->n + 1) * sizeof(*items)), *item;
	size_t at = 0;

	if (!items)
		return -ENOMEM;
	shield->items = items;
	item = calloc(1, sizeof(*item));
	if (!item || kernel_xdp_new(shield->directory, interface, &item->xdp) < 0) {
		free(item);
		return -ENOMEM;
	}
	item->shield = shield;
	snprintf(item->interface, sizeof(item->interface), "%s", interface);
	while (at < shield->n && strcmp(items[at]->interface, interface) < 0)
		at++;
	memmove(items + at + 1, items + at, (shield->n - at) * sizeof(*items));
	items[at] = item;
	shield->n++;
	*ret = item;
	return 0;
}

/* Takes the program off, and forgets the item. */
static void item_remove(struct shield *shield, size_t at)
{
	struct shield_item *item = shield->items[at];

	item->ring = sd_event_source_disable_unref(item->ring);
	shield_keep_overs(item, NULL);
	kernel_xdp_remove(item->xdp);
	item_free(item);
	memmove(shield->items + at, shield->items + at + 1, (shield->n - at - 1) * sizeof(*shield->items));
	shield->n--;
}

/* --- a change --- */

static bool same_rows(const struct snapshot *a, const struct snapshot *b, enum resource_id id)
{
	if (a->rows[id].n != b->rows[id].n)
		return false;
	for (size_t i = 0; i < a->rows[id].n; i++)
		if (a->rows[id].items[i] != b->rows[id].items[i])
			return false;
	return true;
}

static int load_program(struct shield_item *item, const struct xdp_config *config, struct errs *errs)
{
	char why[XDP_WHY_MAX] = "";
	int r = kernel_xdp_load(item->xdp, config, why, sizeof(why));

	if (r == 0)
		return 0;
	errs_add(errs, "", "kernel_refused", "The prefilter of %s: %s.", item->interface, why);
	return r == -ENOMEM || r == -ENOSPC ? -ENOMEM : -EINVAL;
}

static int item_load(struct shield_item *item, const struct prefilter *prefilter, const struct snapshot *from,
        const struct snapshot *to, struct errs *errs)
{
	int r = render_xdp(prefilter, to, &item->shield->relay, errs, &item->next);

	if (r < 0)
		return r;
	item->strict = snapshot_find(from, RESOURCE_PREFILTER, item->interface) != &prefilter->row;
	item->todo = SHIELD_REPLACE;
	if (item->now && kernel_xdp_is_attached(item->xdp)) {
		enum xdp_difference difference = xdp_config_differ(item->now, item->next);

		item->todo = difference == XDP_SAME      ? SHIELD_NOTHING
		             : difference == XDP_ENTRIES ? SHIELD_ADJUST
		                                         : SHIELD_REPLACE;
	}
	return item->todo == SHIELD_REPLACE ? load_program(item, item->next, errs) : 0;
}

int shield_load(void *userdata, const struct snapshot *from, const struct snapshot *to, struct errs *errs)
{
	struct shield *shield = userdata;
	const struct rows *rows = &to->rows[RESOURCE_PREFILTER];
	int r = 0;

	if (same_rows(from, to, RESOURCE_PREFILTER) && same_rows(from, to, RESOURCE_ADDRESS_SET) &&
	        same_rows(from, to, RESOURCE_LISTENER) && same_rows(from, to, RESOURCE_RATE_LIMIT))
		return 0;
	shield->next = to;
	for (size_t i = 0; i < shield->n; i++)
		shield->items[i]->todo = SHIELD_REMOVE;
	for (size_t i = 0; i < rows->n && r == 0; i++) {
		const struct prefilter *prefilter = (const struct prefilter *)rows->items[i];
		struct shield_item *item = shield_find(shield, prefilter->interface);

		if (!prefilter->enabled)
			continue;
		if (!item)
			r = item_new(shield, prefilter->interface, &item);
		if (r == 0)
			r = item_load(item, prefilter, from, to, errs);
	}
	return r;
}

static int replace(struct shield_item *item)
{
	int r;

	item->why[0] = '\0';
	r = kernel_xdp_switch(item->xdp, item->next->mode, item->why, sizeof(item->why));
	if (r == -ENODEV)
		snprintf(item->why, sizeof(item->why), "waiting for interface");
	return r;
}

static int item_put(struct shield_item *item, struct errs *errs)
{
	int r = 0;

	item->begun = true;
	if (item->todo == SHIELD_ADJUST) {
		r = kernel_xdp_adjust(item->xdp, item->now, item->next);
		if (r < 0)
			errs_add(errs, "", "kernel_refused", "The prefilter of %s cannot be changed: %s.",
			        item->interface, strerror(-r));
	} else if (item->todo == SHIELD_REPLACE) {
		r = replace(item);
		if (r < 0 && (r == -ENODEV || !item->strict))
			return 0;
		if (r < 0)
			errs_add(errs, "", "kernel_refused", "The prefilter of %s: %s.", item->interface, item->why);
	}
	return r == 0 ? 0 : r == -ENOMEM || r == -ENOSPC ? -ENOMEM : -EINVAL;
}

int shield_put(void *userdata, struct errs *errs)
{
	struct shield *shield = userdata;

	for (size_t i = 0; i < shield->n; i++) {
		int r = item_put(shield->items[i], errs);

		if (r < 0)
			return r;
	}
	return 0;
}

static void item_undo(struct shield_item *item)
{
	if (item->todo == SHIELD_ADJUST && item->begun && kernel_xdp_adjust(item->xdp, item->next, item->now) < 0)
		log_error("the prefilter of %s is not in the state of the configuration", item->interface);
	if (item->todo == SHIELD_REPLACE && item->begun && kernel_xdp_undo(item->xdp) < 0)
		log_error("the prefilter of %s has not been put back", item->interface);
	kernel_xdp_discard(item->xdp);
	xdp_config_free(TAKE_PTR(item->next));
	item->todo = SHIELD_NOTHING;
	item->begun = item->strict = false;
}

void shield_undo(void *userdata)
{
	struct shield *shield = userdata;

	for (size_t i = shield->n; i-- > 0;) {
		item_undo(shield->items[i]);
		if (!shield->items[i]->now)
			item_remove(shield, i);
	}
	shield->next = NULL;
}

static void item_settle(struct shield_item *item)
{
	kernel_xdp_settle(item->xdp);
	kernel_xdp_discard(item->xdp);
	if (item->next) {
		shield_keep_overs(item, item->next);
		xdp_config_free(item->now);
		item->now = TAKE_PTR(item->next);
	}
	item->limits_work = kernel_xdp_refresh(item->xdp);
	if (item->todo == SHIELD_REPLACE) {
		item->shield->epoch++;
		shield_listen(item);
		shield_tell(item);
	}
	item->todo = SHIELD_NOTHING;
	item->begun = item->strict = false;
}

void shield_settle(void *userdata, int64_t revision)
{
	struct shield *shield = userdata;

	for (size_t i = shield->n; i-- > 0;) {
		if (shield->items[i]->todo == SHIELD_REMOVE)
			item_remove(shield, i);
		else
			item_settle(shield->items[i]);
	}
	if (shield->next)
		shield_forget_overs(shield, shield->next);
	shield->next = NULL;
	shield->generation = revision;
}

/* --- beside changes --- */

static void forget_pinned(void *userdata, const char *interface)
{
	struct shield *shield = userdata;
	struct kernel_xdp *xdp;

	if (shield_find(shield, interface) || kernel_xdp_new(shield->directory, interface, &xdp) < 0)
		return;
	kernel_xdp_remove(xdp);
	kernel_xdp_free(xdp);
}

static void boot_item(struct shield *shield, const struct prefilter *prefilter, const struct snapshot *snapshot)
{
	_cleanup_errs_ struct errs errs = { 0 };
	struct shield_item *item;

	if (!prefilter->enabled || item_new(shield, prefilter->interface, &item) < 0)
		return;
	if (item_load(item, prefilter, snapshot, snapshot, &errs) == 0)
		(void)item_put(item, &errs);
	if (errs.n > 0)
		snprintf(item->why, sizeof(item->why), "%s", errs.items[0].detail ? errs.items[0].detail : "refused");
	item_settle(item);
}

void shield_boot(struct shield *shield, const struct snapshot *snapshot)
{
	const struct rows *rows = &snapshot->rows[RESOURCE_PREFILTER];

	for (size_t i = 0; i < rows->n; i++)
		boot_item(shield, (const struct prefilter *)rows->items[i], snapshot);
	kernel_xdp_each_pinned(shield->directory, forget_pinned, shield);
	shield->generation = snapshot->revision;
}

/* Puts the program on an interface that has none of ours. */
static void mend(struct shield_item *item)
{
	char before[XDP_WHY_MAX];
	struct xdp_look look;
	int r;

	item->limits_work = kernel_xdp_refresh(item->xdp);
	kernel_xdp_look(item->xdp, &look);
	if (!item->now || look.mode != XDP_MODE_NONE)
		return;
	memcpy(before, item->why, sizeof(before));
	item->why[0] = '\0';
	if (!look.present) {
		kernel_xdp_detach(item->xdp);
		snprintf(item->why, sizeof(item->why), "waiting for interface");
	} else if (look.foreign) {
		kernel_xdp_foreign(item->xdp, look.foreign, item->why, sizeof(item->why));
	} else {
		r = kernel_xdp_load(item->xdp, item->now, item->why, sizeof(item->why));
		if (r == 0)
			r = kernel_xdp_switch(item->xdp, item->now->mode, item->why, sizeof(item->why));
		kernel_xdp_settle(item->xdp);
		kernel_xdp_discard(item->xdp);
		item->limits_work = kernel_xdp_refresh(item->xdp);
		item->shield->epoch++;
		shield_listen(item);
	}
	if (strcmp(before, item->why) != 0 || !*item->why)
		shield_tell(item);
}

void shield_link_changed(struct shield *shield, const char *interface)
{
	struct shield_item *item = shield_find(shield, interface);

	if (item)
		mend(item);
	/* It may be a VLAN on another one. */
	for (size_t i = 0; i < shield->n; i++)
		shield->items[i]->limits_work = kernel_xdp_refresh(shield->items[i]->xdp);
}

static int on_tend(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct shield *shield = userdata;

	(void)usec;
	for (size_t i = 0; i < shield->n; i++) {
		mend(shield->items[i]);
		shield_watch_cookies(shield->items[i]);
		(void)kernel_xdp_ban_count(shield->items[i]->xdp);
	}
	(void)sd_event_source_set_time_relative(source, SHIELD_TEND_MS * UINT64_C(1000));
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int shield_new(sd_event *event, const char *directory, struct events *events, const struct render_xdp_relay *relay,
        struct shield **ret)
{
	struct shield *shield = calloc(1, sizeof(*shield));

	if (!shield)
		return -ENOMEM;
	shield->event = event;
	shield->events = events;
	shield->relay = *relay;
	shield->directory = strdup(directory);
	if (!shield->directory || (event && sd_event_add_time_relative(event, &shield->timer, CLOCK_MONOTONIC,
	                                            SHIELD_TEND_MS * UINT64_C(1000), 0, on_tend, shield) < 0)) {
		shield_free(shield);
		return -ENOMEM;
	}
	*ret = shield;
	return 0;
}

void shield_free(struct shield *shield)
{
	if (!shield)
		return;
	sd_event_source_disable_unref(shield->timer);
	for (size_t i = 0; i < shield->n; i++)
		item_free(shield->items[i]);
	free(shield->items);
	free(shield->bans);
	free(shield->overs);
	free(shield->directory);
	free(shield);
}

/* The interface is there, and the program is not on it. */
static bool is_behind(const struct shield_item *item)
{
	struct xdp_look look;

	if (!item->now)
		return false;
	kernel_xdp_look(item->xdp, &look);
	return look.present && look.mode == XDP_MODE_NONE;
}

int64_t shield_generation(const struct shield *shield)
{
	for (size_t i = 0; i < shield->n; i++)
		if (is_behind(shield->items[i]))
			return 0;
	return shield->generation;
}

uint64_t shield_epoch(const struct shield *shield)
{
	return shield->epoch;
}

int shield_judge(struct shield *shield, const struct match_packet *packet, uint16_t source_port,
        enum prefilter_reason *ret, uint32_t *ret_limit)
{
	struct shield_item *item = packet->interface ? shield_find(shield, packet->interface) : NULL;
	uint8_t frame[FRAME_MAX];
	struct xdp_look look;
	size_t length;

	if (!item)
		return -ENODEV;
	kernel_xdp_look(item->xdp, &look);
	if (look.mode == XDP_MODE_NONE)
		return -ENODEV;
	length = frame_build(packet, source_port, frame);
	return kernel_xdp_judge(item->xdp, &packet->src, frame, length, ret, ret_limit);
}

unsigned shield_shut(struct shield *shield, const struct prefix *prefix, int64_t seconds)
{
	unsigned n = 0;

	for (size_t i = 0; i < shield->n; i++)
		n += kernel_xdp_shut(shield->items[i]->xdp, prefix, seconds) == 0;
	return n;
}

unsigned shield_unshut(struct shield *shield, const struct prefix *prefix)
{
	unsigned n = 0;

	for (size_t i = 0; i < shield->n; i++)
		n += kernel_xdp_unshut(shield->items[i]->xdp, prefix) == 0;
	return n;
}

void shield_unshut_others(
        struct shield *shield, bool (*keep)(void *userdata, const struct prefix *prefix), void *userdata)
{
	for (size_t i = 0; i < shield->n; i++)
		kernel_xdp_unshut_others(shield->items[i]->xdp, keep, userdata);
}
