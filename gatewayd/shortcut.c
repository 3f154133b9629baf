/* The short cut of flows; see shortcut.h. */
#include "gatewayd/shortcut.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/attached.h"
#include "gatewayd/base/bpf_shortcut.h"
#include "gatewayd/base/bpf_stitch.h"
#include "gatewayd/base/bpf_straight.h"
#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/base/shortcut_key.h"
#include "rules/kernel_others.h"
#include "rules/kernel_shortcut.h"
#include "rules/kernel_tc.h"

/* It is looked so often who wants to see each packet, and who is banned. */
#define LOOK_US UINT64_C(1000000)
/* TCP flows in the maps are looked after this often, and a second after a ban. */
#define REVIEW_US (10 * UINT64_C(1000000))
/* One that no relay knows of is taken out when it has been silent this long, or is over. */
#define ORPHAN_IDLE_MS (15 * 60 * 1000)
/* The same of one without sockets, beyond what its listener allows it; a connect may take ten minutes. */
#define LEFT_OVER_MS (11 * 60 * 1000)
/* It takes a daemon so long to hear of all flows. */
#define LEARNED_US (20 * UINT64_C(1000000))

struct shortcut {
	const struct options *options;
	struct kernel_shortcut *kernel; /* NULL: off, or it failed */
	bool forbidden;
	char why[256];
	uint32_t epoch;
	unsigned holds;
	bool followed, wanted;
	bool lingers;         /* not wanted, but there are TCP flows that the kernel carries */
	bool closed;          /* by what others have put in the way, */
	char in_the_way[192]; /* namely this */
	struct attached attached;
	struct shortcut_owner owner;
	sd_event_source *timer;
	bool review_due;
	uint64_t reviewed_us, watching_us;
	unsigned stitched; /* TCP flows in the maps at the last review */
};

static int attach(void *userdata, const char *interface)
{
	return kernel_shortcut_attach(((struct shortcut *)userdata)->kernel, interface);
}

static bool fits(void *userdata, const char *interface)
{
	(void)userdata;
	return kernel_tc_fits(interface);
}

static void gone(void *userdata, unsigned ifindex)
{
	kernel_shortcut_forget(((struct shortcut *)userdata)->kernel, ifindex);
}

int shortcut_new(const struct options *options, struct shortcut **ret)
{
	struct shortcut *shortcut = calloc(1, sizeof(*shortcut));

	if (!shortcut)
		return -ENOMEM;
	shortcut->options = options;
	shortcut->attached = (struct attached){ .what = "the short cut of flows",
		.attach = attach,
		.fits = fits,
		.is_there = kernel_shortcut_is_attached,
		.gone = gone,
		.userdata = shortcut };
	shortcut->forbidden = strcmp(options->mover, "auto") != 0;
	if (kernel_shortcut_open(options->bpf_dir, &shortcut->kernel, shortcut->why, sizeof(shortcut->why)) < 0 &&
	        !shortcut->forbidden)
		log_info("the short cut of flows is not used: %s", shortcut->why);
	if (shortcut->kernel)
		shortcut->epoch = kernel_shortcut_epoch(shortcut->kernel);
	if (shortcut->forbidden) {
		/* What an earlier daemon has begun is to end well. */
		snprintf(shortcut->why, sizeof(shortcut->why), "forbidden by --mover");
		shortcut->closed = true;
		shortcut_flush(shortcut);
	}
	*ret = shortcut;
	return 0;
}

void shortcut_free(struct shortcut *shortcut)
{
	if (!shortcut)
		return;
	sd_event_source_disable_unref(shortcut->timer);
	kernel_shortcut_free(shortcut->kernel);
	attached_clear(&shortcut->attached);
	free(shortcut);
}

bool shortcut_suits(const struct listener *listener)
{
	/* A PROXY header is one of a connection's first bytes, but one of each datagram's. */
	return listener->enabled && listener->action == ACTION_RELAY &&
	       (listener->mover == MOVER_AUTO || listener->mover == MOVER_KERNEL) &&
	       (listener->protocol == PROTOCOL_TCP || listener->proxy_protocol == PROXY_PROTOCOL_OFF) &&
	       listener->rate_limits.n == 0;
}

/* Whether a target takes so many connections only: SYNs of clients that are not there would use them up. */
static bool is_bounded(const struct snapshot *snapshot, const struct listener *listener)
{
	const struct upstream *upstream = listener->upstream ? (const struct upstream *)snapshot_find(
	                                                               snapshot, RESOURCE_UPSTREAM, listener->upstream)
	                                                     : NULL;

	for (size_t i = 0; upstream && i < upstream->targets.n; i++)
		if (((const struct target *)upstream->targets.items[i])->max_connections > 0)
			return true;
	return false;
}

const char *shortcut_obstacle(const struct snapshot *snapshot, const struct listener *listener)
{
	const struct {
		bool is;
		const char *what;
	} obstacles[] = { { listener->protocol != PROTOCOL_TCP, "protocol is not tcp" },
		{ listener->action != ACTION_RELAY, "action is not relay" },
		{ listener->rate_limits.n > 0, "it has rate_limits" }, { listener->routes.n > 0, "it has routes" },
		{ listener->proxy_protocol != PROXY_PROTOCOL_OFF, "proxy_protocol is not off" },
		{ listener->accept_proxy_protocol.n > 0, "it has accept_proxy_protocol" },
		{ listener->source_address != SOURCE_ADDRESS_CLIENT, "source_address is not client" },
		{ listener->source_port != SOURCE_PORT_KEEP, "source_port is not keep" },
		{ is_bounded(snapshot, listener), "a target of its upstream has max_connections" } };

	for (size_t i = 0; i < ARRAY_SIZE(obstacles); i++)
		if (obstacles[i].is)
			return obstacles[i].what;
	return NULL;
}

/* Whether its flows may do without sockets. */
static bool may_be_straight(const struct snapshot *snapshot, const struct listener *listener)
{
	return shortcut_suits(listener) && !shortcut_obstacle(snapshot, listener);
}

static void ports_add(uint64_t *words, const struct listener *listener)
{
	struct port_range any = { 1, UINT16_MAX }, range;

	for (size_t i = 0; i < listener->ports.n || i == 0; i++) {
		if (listener->ports.n == 0)
			range = any;
		else if (port_range_parse(listener->ports.items[i], &range) < 0)
			continue;
		for (unsigned port = range.lo; port <= range.hi; port = (port / 64 + 1) * 64) {
			unsigned last = port / 64 == range.hi / 64 ? range.hi % 64 : 63;

			words[port / 64] |= UINT64_MAX << port % 64 & UINT64_MAX >> (63 - last);
		}
	}
}

/* SYNs are taken for ports whose listeners all allow that: the filter does not know the listeners. */
static void follow_ports(struct shortcut *shortcut, const struct snapshot *snapshot)
{
	const struct rows *rows = &snapshot->rows[RESOURCE_LISTENER];
	uint64_t words[BPF_STRAIGHT_WORDS] = { 0 }, others[BPF_STRAIGHT_PORT_WORDS] = { 0 };
	uint64_t *may = words + BPF_STRAIGHT_MAY, *always = words + BPF_STRAIGHT_ALWAYS;
	int r;

	for (size_t i = 0; i < rows->n; i++) {
		const struct listener *listener = (const struct listener *)rows->items[i];

		if (!listener->enabled || listener->protocol != PROTOCOL_TCP || listener->action != ACTION_RELAY)
			continue;
		ports_add(may_be_straight(snapshot, listener) ? may : others, listener);
		if (listener->mover == MOVER_KERNEL)
			ports_add(always, listener);
	}
	for (size_t i = 0; i < BPF_STRAIGHT_PORT_WORDS; i++)
		may[i] = shortcut->forbidden ? 0 : may[i] & ~others[i];
	r = kernel_shortcut_straight_ports(shortcut->kernel, words);
	if (r < 0)
		log_error("the ports of flows without sockets cannot be told to the kernel: %s", strerror(-r));
}

void shortcut_link_changed(struct shortcut *shortcut, const char *interface)
{
	const struct attached_item *item = attached_find(&shortcut->attached, interface);
	bool wanted = shortcut->wanted || shortcut->lingers;

	/* One that has gone is forgotten; where it is, it stays. */
	if (if_nametoindex(interface) == 0 || (wanted && (!item || item->why[0])))
		attached_link_changed(&shortcut->attached, interface);
}

/* --- epochs --- */

static void tell_program(struct shortcut *shortcut)
{
	int r = kernel_shortcut_set(shortcut->kernel, shortcut->epoch, shortcut->holds == 0 && !shortcut->closed);

	if (r < 0)
		log_error("the short cut of flows cannot be told of a change: %s", strerror(-r));
}

void shortcut_flush(struct shortcut *shortcut)
{
	if (!shortcut || !shortcut->kernel)
		return;
	shortcut->epoch++;
	shortcut->review_due = true;
	tell_program(shortcut);
}

void shortcut_hold(struct shortcut *shortcut)
{
	if (!shortcut)
		return;
	shortcut->holds++;
	if (shortcut->kernel)
		tell_program(shortcut);
}

void shortcut_release(struct shortcut *shortcut)
{
	if (!shortcut || shortcut->holds == 0)
		return;
	shortcut->holds--;
	if (shortcut->kernel)
		tell_program(shortcut);
}

/* --- TCP flows in the maps --- */

static bool client_is_banned(const struct shortcut *shortcut, const struct bpf_stitch *flow)
{
	struct addr client = shortcut_key_source(&flow->side[0].in);

	return shortcut->owner.is_banned(shortcut->owner.userdata, &client);
}

/* When it was last active, or begun. */
static uint64_t active_ms_of(const struct bpf_stitch *flow)
{
	uint64_t active_ns =
	        flow->side[0].active_ns > flow->side[1].active_ns ? flow->side[0].active_ns : flow->side[1].active_ns;
	uint64_t started_ms = flow->straight.started_us / 1000;

	return active_ns / 1000000 > started_ms ? active_ns / 1000000 : started_ms;
}

/* Of one without sockets, of which no daemon is told: only what its relay would have ended long ago. */
static bool is_left_over(const struct bpf_stitch *flow)
{
	uint64_t patience_ms = flow->state == BPF_STITCH_ACTIVE && !flow->reset_ns ? flow->straight.idle_timeout_ms : 0;

	return clock_us() / 1000 > active_ms_of(flow) + patience_ms + LEFT_OVER_MS;
}

/* Of a flow that nobody looks after. */
static bool has_ended(const struct bpf_stitch *flow)
{
	if (flow->options & BPF_STITCH_STRAIGHT)
		return is_left_over(flow);
	return flow->state != BPF_STITCH_ACTIVE || flow->reset_ns ||
	       clock_us() / 1000 > active_ms_of(flow) + ORPHAN_IDLE_MS;
}

static enum kernel_stitch_verdict judge(void *userdata, uint64_t id, const struct bpf_stitch *flow)
{
	struct shortcut *shortcut = userdata;

	if (shortcut->reviewed_us > shortcut->watching_us + LEARNED_US &&
	        !shortcut->owner.is_known(shortcut->owner.userdata, id) && has_ended(flow))
		return KERNEL_STITCH_OVER;
	return client_is_banned(shortcut, flow) ? KERNEL_STITCH_HELD : KERNEL_STITCH_STAYS;
}

static void review(struct shortcut *shortcut)
{
	uint64_t now = clock_us();

	if (!shortcut->owner.begin || (!shortcut->review_due && now < shortcut->reviewed_us + REVIEW_US))
		return;
	shortcut->review_due = false;
	shortcut->reviewed_us = now;
	shortcut->owner.begin(shortcut->owner.userdata);
	shortcut->stitched = kernel_shortcut_review(shortcut->kernel, judge, shortcut);
	/* Without it, they stand still, and new ones that have no sockets are lost. */
	attached_restore(&shortcut->attached);
}

/* Not while the kernel carries connections: they would be lost. */
static void detach_unless_used(struct shortcut *shortcut)
{
	shortcut->review_due = true;
	review(shortcut);
	if (kernel_shortcut_has_stitches(shortcut->kernel))
		return;
	kernel_shortcut_detach_all(shortcut->options->bpf_dir);
	kernel_shortcut_forget_all(shortcut->kernel);
	attached_clear(&shortcut->attached);
	shortcut->lingers = false;
}

/* Whether others want to see each packet. */
static void look_for_others(struct shortcut *shortcut)
{
	bool before;
	int r;

	if (!shortcut->wanted)
		return;
	before = shortcut->closed;
	r = kernel_others_look(shortcut->in_the_way, sizeof(shortcut->in_the_way));
	if (r < 0)
		snprintf(shortcut->in_the_way, sizeof(shortcut->in_the_way),
		        "it cannot be found out whether others want to see each packet: %s", strerror(-r));
	shortcut->closed = r != 0;
	if (shortcut->closed == before)
		return;
	log_info("the short cut of flows is %s%s", shortcut->closed ? "closed: " : "open again", shortcut->in_the_way);
	tell_program(shortcut);
}

/* After TCP flows as well: all of them, which takes a millisecond for some hundred, and is part of no write. */
static void look(struct shortcut *shortcut)
{
	if (!shortcut->kernel)
		return;
	if (shortcut->wanted)
		review(shortcut);
	else if (shortcut->lingers)
		detach_unless_used(shortcut);
	look_for_others(shortcut);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)usec;
	look(userdata);
	(void)sd_event_source_set_time_relative(source, LOOK_US);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int shortcut_watch(struct shortcut *shortcut, sd_event *event, const struct shortcut_owner *owner)
{
	shortcut->owner = *owner;
	shortcut->watching_us = clock_us();
	shortcut->review_due = true;
	return sd_event_add_time_relative(event, &shortcut->timer, CLOCK_MONOTONIC, LOOK_US, 0, on_timer, shortcut);
}

void shortcut_follow(struct shortcut *shortcut, const struct snapshot *snapshot)
{
	const struct rows *rows = &snapshot->rows[RESOURCE_LISTENER];
	bool wanted = false;

	if (!shortcut->kernel)
		return;
	for (size_t i = 0; i < rows->n && !wanted; i++)
		wanted = shortcut_suits((const struct listener *)rows->items[i]);
	if (shortcut->forbidden)
		wanted = false;
	if (wanted && !shortcut->wanted) {
		shortcut->lingers = false;
		attached_try_all(&shortcut->attached);
	} else if (!wanted && (shortcut->wanted || !shortcut->followed)) {
		shortcut->lingers = true;
		detach_unless_used(shortcut);
	}
	follow_ports(shortcut, snapshot);
	shortcut->followed = true;
	shortcut->wanted = wanted;
	look_for_others(shortcut);
	shortcut_flush(shortcut);
}

/* --- relays --- */

static int send_map(struct msg_channel *channel, enum proto_shortcut_kind kind, int fd, int timeout_ms)
{
	struct proto_message message = { .type = PROTO_SHORTCUT };

	message.shortcut.layout = BPF_SHORTCUT_LAYOUT;
	message.shortcut.kind = (uint8_t)kind;
	return msg_send(channel, &message, fd, timeout_ms);
}

int shortcut_send(struct shortcut *shortcut, struct msg_channel *channel, int timeout_ms)
{
	int r = 0;

	if (!shortcut || !shortcut->kernel)
		return 0;
	for (unsigned kind = 0; kind < PROTO_SHORTCUT_KINDS && r == 0; kind++)
		r = send_map(channel, (enum proto_shortcut_kind)kind,
		        kernel_shortcut_fd(shortcut->kernel, (enum proto_shortcut_kind)kind), timeout_ms);
	return r;
}

uint64_t shortcut_straight_open(const struct shortcut *shortcut)
{
	return shortcut && shortcut->kernel ? kernel_shortcut_straight_open(shortcut->kernel) : 0;
}

void shortcut_relay_ended(struct shortcut *shortcut)
{
	if (shortcut && shortcut->kernel)
		(void)kernel_shortcut_straight_stop(shortcut->kernel);
}

void shortcut_relay_changed(struct shortcut *shortcut)
{
	unsigned swept;

	if (!shortcut || !shortcut->kernel)
		return;
	shortcut_flush(shortcut);
	swept = kernel_shortcut_sweep(shortcut->kernel, shortcut->epoch);
	if (swept > 0)
		log_info("removed %u directions of UDP flows of an earlier relay from the short cut", swept);
}

void shortcut_tally(const struct shortcut *shortcut,
        void (*tell)(void *userdata, const char *interface, unsigned kind, uint64_t packets, uint64_t bytes),
        void *userdata)
{
	if (shortcut && shortcut->kernel)
		kernel_shortcut_tally(shortcut->kernel, tell, userdata);
}

json_t *shortcut_status(const struct shortcut *shortcut)
{
	const char *words = shortcut->wanted && shortcut->closed ? shortcut->in_the_way : shortcut->why;
	return json_pack("{s:s, s:s?, s:o, s:i}", "state",
	        shortcut->forbidden ? "off"
	        : !shortcut->kernel ? "failed"
	        : !shortcut->wanted ? "idle"
	        : shortcut->closed  ? "closed"
	                            : "on",
	        "why", words[0] ? words : NULL, "interfaces", attached_status(&shortcut->attached), "stitched",
	        (int)shortcut->stitched);
}
