/* The short cut of UDP flows; see shortcut.h. */
#include "gatewayd/shortcut.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/array.h"
#include "gatewayd/base/bpf_shortcut.h"
#include "gatewayd/base/log.h"
#include "rules/kernel_others.h"
#include "rules/kernel_shortcut.h"

struct attached {
	char interface[IFNAMSIZ];
	char why[64]; /* it is not; "": it is */
};

struct shortcut {
	const struct options *options;
	struct kernel_shortcut *kernel; /* NULL: off, or it failed */
	bool forbidden;
	char why[256];
	uint32_t epoch;
	unsigned holds;
	bool followed, wanted;
	bool closed;          /* by what others have put in the way, */
	char in_the_way[192]; /* namely this */
	struct attached *attached;
	size_t n, size;
};

int shortcut_new(const struct options *options, struct shortcut **ret)
{
	struct shortcut *shortcut = calloc(1, sizeof(*shortcut));

	if (!shortcut)
		return -ENOMEM;
	shortcut->options = options;
	shortcut->forbidden = strcmp(options->mover, "auto") != 0;
	if (shortcut->forbidden)
		snprintf(shortcut->why, sizeof(shortcut->why), "forbidden by --mover");
	else if (kernel_shortcut_open(options->bpf_dir, &shortcut->kernel, shortcut->why, sizeof(shortcut->why)) < 0)
		log_info("the short cut of UDP flows is not used: %s", shortcut->why);
	else
		shortcut->epoch = kernel_shortcut_epoch(shortcut->kernel);
	*ret = shortcut;
	return 0;
}

void shortcut_free(struct shortcut *shortcut)
{
	if (!shortcut)
		return;
	kernel_shortcut_free(shortcut->kernel);
	free(shortcut->attached);
	free(shortcut);
}

bool shortcut_suits(const struct listener *listener)
{
	return listener->enabled && listener->protocol == PROTOCOL_UDP && listener->action == ACTION_RELAY &&
	       listener->mover == MOVER_AUTO && listener->proxy_protocol == PROXY_PROTOCOL_OFF &&
	       listener->rate_limits.n == 0;
}

/* --- interfaces --- */

static struct attached *find(const struct shortcut *shortcut, const char *interface)
{
	for (size_t i = 0; i < shortcut->n; i++)
		if (strcmp(shortcut->attached[i].interface, interface) == 0)
			return &shortcut->attached[i];
	return NULL;
}

static void attach(struct shortcut *shortcut, const char *interface)
{
	struct attached *item = find(shortcut, interface);
	int r;

	if (!kernel_shortcut_fits(interface))
		return;
	if (!item) {
		if (array_reserve(&shortcut->attached, &shortcut->size, shortcut->n + 1, sizeof(*item)) < 0)
			return;
		item = &shortcut->attached[shortcut->n++];
		*item = (struct attached){ 0 };
		snprintf(item->interface, sizeof(item->interface), "%s", interface);
	}
	r = kernel_shortcut_attach(shortcut->kernel, interface);
	snprintf(item->why, sizeof(item->why), "%s",
	        r == -EBUSY ? "somebody else's filter is in its place"
	        : r < 0     ? strerror(-r)
	                    : "");
	if (r < 0)
		log_warning("the short cut of UDP flows is not used on %s: %s", interface, item->why);
}

static void attach_all(struct shortcut *shortcut)
{
	struct if_nameindex *names = if_nameindex();

	for (const struct if_nameindex *name = names; name && name->if_index; name++)
		attach(shortcut, name->if_name);
	if (names)
		if_freenameindex(names);
}

void shortcut_link_changed(struct shortcut *shortcut, const char *interface)
{
	struct attached *item = find(shortcut, interface);

	if (if_nametoindex(interface) == 0) {
		if (item)
			*item = shortcut->attached[--shortcut->n];
	} else if (shortcut->wanted && (!item || item->why[0])) {
		attach(shortcut, interface);
	}
}

/* --- epochs --- */

static void tell_program(struct shortcut *shortcut)
{
	int r = kernel_shortcut_set(shortcut->kernel, shortcut->epoch, shortcut->holds == 0 && !shortcut->closed);

	if (r < 0)
		log_error("the short cut of UDP flows cannot be told of a change: %s", strerror(-r));
}

void shortcut_flush(struct shortcut *shortcut)
{
	if (!shortcut || !shortcut->kernel)
		return;
	shortcut->epoch++;
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

void shortcut_look(struct shortcut *shortcut)
{
	bool before;
	int r;

	if (!shortcut || !shortcut->kernel || !shortcut->wanted)
		return;
	before = shortcut->closed;
	r = kernel_others_look(shortcut->in_the_way, sizeof(shortcut->in_the_way));
	if (r < 0)
		snprintf(shortcut->in_the_way, sizeof(shortcut->in_the_way),
		        "it cannot be found out whether others want to see each packet: %s", strerror(-r));
	shortcut->closed = r != 0;
	if (shortcut->closed == before)
		return;
	log_info("the short cut of UDP flows is %s%s", shortcut->closed ? "closed: " : "open again",
	        shortcut->in_the_way);
	tell_program(shortcut);
}

void shortcut_follow(struct shortcut *shortcut, const struct snapshot *snapshot)
{
	const struct rows *rows = &snapshot->rows[RESOURCE_LISTENER];
	bool wanted = false;

	if (!shortcut->kernel)
		return;
	for (size_t i = 0; i < rows->n && !wanted; i++)
		wanted = shortcut_suits((const struct listener *)rows->items[i]);
	if (wanted && !shortcut->wanted) {
		attach_all(shortcut);
	} else if (!wanted && (shortcut->wanted || !shortcut->followed)) {
		kernel_shortcut_detach_all(shortcut->options->bpf_dir);
		shortcut->n = 0;
	}
	shortcut->followed = true;
	shortcut->wanted = wanted;
	shortcut_look(shortcut);
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
	int r;

	if (!shortcut || !shortcut->kernel)
		return 0;
	r = send_map(channel, PROTO_SHORTCUT_FLOWS, kernel_shortcut_flows(shortcut->kernel), timeout_ms);
	return r < 0 ? r
	             : send_map(channel, PROTO_SHORTCUT_CONTROL, kernel_shortcut_control(shortcut->kernel), timeout_ms);
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

json_t *shortcut_status(const struct shortcut *shortcut)
{
	const char *words = shortcut->wanted && shortcut->closed ? shortcut->in_the_way : shortcut->why;
	json_t *interfaces = json_array();

	for (size_t i = 0; i < shortcut->n; i++) {
		const struct attached *item = &shortcut->attached[i];

		if (json_array_append_new(
		            interfaces, json_pack("{s:s, s:b, s:s?}", "interface", item->interface, "attached",
		                                item->why[0] == '\0', "why", item->why[0] ? item->why : NULL)) < 0) {
			json_decref(interfaces);
			return NULL;
		}
	}
	return json_pack("{s:s, s:s?, s:o}", "state",
	        shortcut->forbidden ? "off"
	        : !shortcut->kernel ? "failed"
	        : !shortcut->wanted ? "idle"
	        : shortcut->closed  ? "closed"
	                            : "on",
	        "why", words[0] ? words : NULL, "interfaces", interfaces);
}
