/* What is told of prefilters: status, counts, events of drops; see shield.h. */
#include <assert.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "gatewayd/base/log.h"
#include "gatewayd/document.h"
#include "gatewayd/files.h"
#include "gatewayd/shield_private.h"
#include "schema/prefixes.h"

static const struct {
	const char *name;
	bool drops;
} reasons[] = {
#define REASON(name, drops, doc) { #name, drops },
#include "rules/prefilter_reason.def"
#undef REASON
};
static_assert(ARRAY_SIZE(reasons) == PREFILTER_REASONS, "one row each");

const char *shield_reason_name(enum prefilter_reason reason)
{
	return reasons[reason].name;
}

bool shield_reason_drops(enum prefilter_reason reason)
{
	return reasons[reason].drops;
}

static const char *state_of(const struct shield_item *item, const struct xdp_look *look)
{
	return look->mode != XDP_MODE_NONE ? "on" : !look->present ? "waiting" : *item->why ? "failed" : "off";
}

/* Whether an item gives SYN cookies, and what there is to say about it; "" for nothing. */
static bool gives_cookies(const struct shield_item *item)
{
	int64_t age = kernel_xdp_cookie_age(item->xdp);

	return kernel_xdp_has_cookies(item->xdp) && age >= 0 && age < SHIELD_COOKIE_S;
}

static const char *why_no_cookies(const struct shield_item *item, long sysctl)
{
	if (item->now->no_cookies)
		return item->now->no_cookies;
	if (!kernel_xdp_has_cookies(item->xdp))
		return "the kernel does not load the program with them";
	if (sysctl < 0)
		return "this kernel has none";
	return sysctl == 0 ? "net.ipv4.tcp_syncookies is 0" : NULL;
}

static json_t *cookies_status(const struct shield_item *item)
{
	long sysctl = files_read_number("/proc/sys/net/ipv4/tcp_syncookies");
	const struct relayed *relayed;
	const char *why;
	char text[XDP_WHY_MAX] = "";

	if (!item->now || item->now->syn_cookies == SYN_COOKIES_OFF)
		return json_pack("{s:s, s:n}", "state", "off", "why");
	why = why_no_cookies(item, sysctl);
	if (why)
		return json_pack("{s:s, s:s}", "state", "unavailable", "why", why);
	relayed = &item->now->relayed;
	if (item->now->syn_cookies == SYN_COOKIES_ALWAYS && sysctl != 2)
		snprintf(text, sizeof(text), "not always: net.ipv4.tcp_syncookies is %ld, not 2", sysctl);
	if (relayed->excepted > 0)
		snprintf(text + strlen(text), sizeof(text) - strlen(text),
		        "%snot for %zu of %zu listeners, which have limits of connections or on_worker_down direct",
		        *text ? "; " : "", relayed->excepted, relayed->listeners);
	return json_pack("{s:s, s:s?}", "state", gives_cookies(item) ? "engaged" : "ready", "why", *text ? text : NULL);
}

static json_t *item_status(const struct shield_item *item)
{
	struct xdp_look look;
	const char *why = item->why;

	kernel_xdp_look(item->xdp, &look);
	if (look.mode != XDP_MODE_NONE)
		why = kernel_xdp_why(item->xdp);
	return json_pack("{s:s, s:s, s:s, s:s?, s:o, s:o, s:b, s:I, s:o}", "interface", item->interface, "state",
	        state_of(item, &look), "mode", xdp_mode_name(look.mode), "why", *why ? why : NULL, "program",
	        look.program ? json_integer(look.program) : json_null(), "foreign",
	        look.foreign ? json_integer(look.foreign) : json_null(), "pinned", look.pinned, "bans",
	        (json_int_t)kernel_xdp_ban_count(item->xdp), "syn_cookies", cookies_status(item));
}

void shield_health(const struct shield *shield, struct shield_health *ret)
{
	*ret = (struct shield_health){ 0 };
	for (size_t i = 0; i < shield->n; i++) {
		const struct shield_item *item = shield->items[i];
		struct xdp_look look;

		kernel_xdp_look(item->xdp, &look);
		ret->n += item->now != NULL;
		if (strcmp(state_of(item, &look), "failed") != 0 || ret->failed++ > 0)
			continue;
		snprintf(ret->interface, sizeof(ret->interface), "%s", item->interface);
		snprintf(ret->why, sizeof(ret->why), "%s", item->why);
	}
}

json_t *shield_status(struct shield *shield)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < shield->n; i++)
		if (json_array_append_new(array, item_status(shield->items[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

json_t *shield_where_shut(const struct shield *shield, const struct prefix *prefix)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < shield->n; i++)
		if (kernel_xdp_is_shut(shield->items[i]->xdp, prefix) &&
		        json_array_append_new(array, json_string(shield->items[i]->interface)) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

const char *shield_counts(struct shield *shield, size_t place, struct prefilter_count ret[PREFILTER_REASONS])
{
	if (place >= shield->n)
		return NULL;
	kernel_xdp_counts(shield->items[place]->xdp, ret);
	return shield->items[place]->interface;
}

enum xdp_mode shield_mode(struct shield *shield, const char *interface, struct prefilter_count ret[PREFILTER_REASONS])
{
	const struct shield_item *item = shield_find(shield, interface);
	struct xdp_look look = { 0 };

	if (item)
		kernel_xdp_look(item->xdp, &look);
	if (look.mode != XDP_MODE_NONE)
		kernel_xdp_counts(item->xdp, ret);
	return look.mode;
}

static json_t *entries_document(const struct prefixes *list)
{
	const struct prefix first_v6 = { .addr = { .family = AF_INET6 } };
	json_int_t v4 = (json_int_t)prefixes_lower_bound(list, &first_v6);

	return json_pack("{s:I, s:I}", "ipv4", v4, "ipv6", (json_int_t)list->n - v4);
}

static json_t *reasons_document(const struct prefilter_count counts[PREFILTER_REASONS])
{
	json_t *all = json_object();
	bool failed = !all;

	for (unsigned k = 0; k < PREFILTER_REASONS; k++)
		document_set(all, reasons[k].name,
		        json_pack("{s:o, s:o}", "packets", document_number(counts[k].packets), "bytes",
		                document_number(counts[k].bytes)),
		        &failed);
	return document_done(all, failed);
}

static json_t *not_observed(const struct shield *shield)
{
	return json_pack("{s:s, s:s, s:s, s:n, s:n, s:b, s:i, s:{s:s, s:n}, s:i, s:I, s:n, s:i, s:n}", "state", "off",
	        "mode", xdp_mode_name(XDP_MODE_NONE), "why", "it is not enabled", "program", "foreign", "pinned", 0,
	        "bans", 0, "syn_cookies", "state", "off", "why", "bans_max", PREFILTER_BANS_MAX, "generation",
	        (json_int_t)shield->generation, "entries", "entries_max", PREFILTER_ENTRIES_MAX, "reasons");
}

json_t *shield_observed(struct shield *shield, const char *interface)
{
	const struct shield_item *item = shield_find(shield, interface);
	struct prefilter_count counts[PREFILTER_REASONS];
	json_t *object = item ? item_status(item) : not_observed(shield);
	bool failed = !object;

	if (!item || failed)
		return object;
	kernel_xdp_counts(item->xdp, counts);
	(void)json_object_del(object, "interface");
	document_set(object, "bans_max", json_integer(PREFILTER_BANS_MAX), &failed);
	document_set(object, "generation", json_integer((json_int_t)shield->generation), &failed);
	document_set(object, "entries",
	        item->now ? json_pack("{s:o, s:o}", "deny", entries_document(&item->now->deny), "allow",
	                            entries_document(&item->now->allow))
	                  : json_null(),
	        &failed);
	document_set(object, "entries_max", json_integer(PREFILTER_ENTRIES_MAX), &failed);
	document_set(object, "reasons", reasons_document(counts), &failed);
	return document_done(object, failed);
}

json_t *shield_stats(struct shield *shield)
{
	struct prefilter_count counts[PREFILTER_REASONS];
	json_t *array = json_array();
	const char *interface;
	bool failed = !array;

	for (size_t i = 0; !failed && (interface = shield_counts(shield, i, counts)); i++)
		failed = json_array_append_new(array, json_pack("{s:s, s:o}", "interface", interface, "reasons",
		                                              reasons_document(counts))) < 0;
	if (!failed)
		return array;
	json_decref(array);
	return NULL;
}

void shield_tell(struct shield_item *item)
{
	struct xdp_look look;

	kernel_xdp_look(item->xdp, &look);
	if (look.mode == XDP_MODE_NONE && *item->why && strcmp(item->told_why, item->why) == 0)
		return;
	snprintf(item->told_why, sizeof(item->told_why), "%s", look.mode == XDP_MODE_NONE ? item->why : "");
	if (look.mode != XDP_MODE_NONE)
		log_info("prefilter of %s: %s%s%s", item->interface, xdp_mode_name(look.mode),
		        *kernel_xdp_why(item->xdp) ? ", " : "", kernel_xdp_why(item->xdp));
	else
		log_warning("prefilter of %s is not in force: %s", item->interface, item->why);
	if (item->shield->events)
		events_publish(item->shield->events, "prefilter", item_status(item));
}

bool shield_gives_cookies(const struct shield *shield, size_t place)
{
	return place < shield->n && gives_cookies(shield->items[place]);
}

void shield_watch_cookies(struct shield_item *item)
{
	bool gives = gives_cookies(item);

	if (gives == item->gave_cookies)
		return;
	item->gave_cookies = gives;
	if (gives)
		log_warning("prefilter of %s: more connection requests come than the listeners take; they are answered "
		            "with "
		            "SYN cookies",
		        item->interface);
	else
		log_info("prefilter of %s: no more SYN cookies", item->interface);
	if (item->shield->events)
		events_publish(item->shield->events, "prefilter", item_status(item));
}

/* --- drops --- */

static const char *address_text(uint32_t family, const __u8 *bytes, char text[ADDR_TEXT_MAX])
{
	struct addr addr = { .family = (uint8_t)family };

	if (family != AF_INET && family != AF_INET6)
		return "";
	memcpy(addr.bytes, bytes, addr_bits(addr.family) / 8);
	return addr_format(&addr, text);
}

/* The program tells few; this bounds what many processors and reasons make of it. */
static bool may_tell(struct shield_item *item)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (item->told_second != (uint64_t)now.tv_sec) {
		item->told_second = (uint64_t)now.tv_sec;
		item->told = 0;
	}
	return item->told++ < SHIELD_EVENTS_PER_S;
}

static void on_drop(void *userdata, const struct prefilter_event *event)
{
	struct shield_item *item = userdata;
	char source[ADDR_TEXT_MAX], destination[ADDR_TEXT_MAX];

	if (event->reason >= PREFILTER_REASONS)
		return;
	if (item->shield->dropped)
		item->shield->dropped(item->shield->dropped_userdata, item->interface, event);
	if (!may_tell(item))
		return;
	events_publish(item->shield->events, "drop",
	        json_pack("{s:s, s:s, s:s, s:i, s:s, s:i, s:i, s:i}", "interface", item->interface, "reason",
	                reasons[event->reason].name, "source",
	                address_text(event->source.family, event->source.addr, source), "source_port",
	                (int)event->source_port, "destination",
	                address_text(event->source.family, event->destination, destination), "destination_port",
	                (int)event->destination_port, "protocol", (int)event->protocol, "bytes", (int)event->length));
}

void shield_watch(struct shield *shield,
        void (*dropped)(void *userdata, const char *interface, const struct prefilter_event *event), void *userdata)
{
	shield->dropped = dropped;
	shield->dropped_userdata = userdata;
}

static int on_ring(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct shield_item *item = userdata;

	(void)source;
	(void)fd;
	(void)events;
	kernel_xdp_events(item->xdp, on_drop, item);
	return 0;
}

void shield_listen(struct shield_item *item)
{
	int fd = kernel_xdp_ring(item->xdp);

	if (fd >= 0 && !item->ring && item->shield->event && item->shield->events)
		(void)sd_event_add_io(item->shield->event, &item->ring, fd, EPOLLIN, on_ring, item);
}
