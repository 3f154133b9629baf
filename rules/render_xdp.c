/* What an interface's XDP program is to hold; see render_xdp.h. */
#include "rules/render_xdp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rules/reach.h"

#define NS_PER_S UINT64_C(1000000000)
/* Nine years: so far a source's account may reach into the future, whatever burst and rate say. */
#define DEPTH_MAX (UINT64_C(1) << 62)

static int render_list(const struct prefilter *prefilter, const char *field, const struct strings *texts,
        const struct snapshot *snapshot, struct errs *errs, struct prefixes *ret)
{
	char pointer[128];
	int r = reach_entries(texts, snapshot, ret);

	snprintf(pointer, sizeof(pointer), "/prefilters/%s/%s", prefilter->interface, field);
	if (r == -ENOENT) {
		errs_add(errs, pointer, "unknown_reference", "prefilter \"%s\": there is no such address set",
		        prefilter->interface);
		return -EINVAL;
	}
	if (r == -EINVAL)
		errs_add(errs, pointer, "invalid", "prefilter \"%s\": an address is not valid", prefilter->interface);
	if (r == 0 && ret->n > PREFILTER_ENTRIES_MAX) {
		errs_add(errs, pointer, "too_complex", "prefilter \"%s\": %zu prefixes; at most %d are possible",
		        prefilter->interface, ret->n, PREFILTER_ENTRIES_MAX);
		return -EINVAL;
	}
	return r;
}

/* IPv4 stands first in a sorted list. */
static void note_families(const struct prefixes *list, __u8 *ret_v4, __u8 *ret_v6)
{
	*ret_v4 = list->n > 0 && prefixes_at(list, 0)->addr.family == AF_INET;
	*ret_v6 = list->n > 0 && prefixes_at(list, list->n - 1)->addr.family == AF_INET6;
}

void render_xdp_rate(int64_t rate, unsigned seconds, int64_t burst, __u64 *ret_interval, __u64 *ret_depth)
{
	uint64_t interval = (seconds * NS_PER_S << PREFILTER_TIME_SHIFT) / (uint64_t)rate;

	if (interval == 0)
		interval = 1;
	*ret_interval = interval;
	*ret_depth = (uint64_t)burst > DEPTH_MAX / interval ? DEPTH_MAX : (uint64_t)burst * interval;
}

static void render_rate(const struct prefilter *prefilter, struct prefilter_params *params)
{
	int64_t rate = prefilter->source_pps_rate, burst = prefilter->source_pps_burst;

	if (rate == 0)
		return;
	render_xdp_rate(rate, 1, burst ? burst : rate, &params->interval, &params->depth);
	if (prefilter->source_pps_action == SOURCE_ACTION_BAN)
		params->ban_ns = (uint64_t)prefilter->source_pps_ban_s * NS_PER_S;
}

static void set_ports(uint64_t *words, uint16_t lo, uint16_t hi)
{
	for (unsigned port = lo; port <= hi; port++)
		words[port >> 6] |= UINT64_C(1) << (port & 63);
}

static void render_listener(const struct listener *listener, struct xdp_config *config)
{
	uint64_t *words = config->ports + (listener->protocol == PROTOCOL_UDP ? PREFILTER_PORT_WORDS : 0);
	struct port_range range;

	if (listener->ports.n == 0)
		set_ports(words, 0, UINT16_MAX);
	for (size_t i = 0; i < listener->ports.n; i++)
		if (port_range_parse(listener->ports.items[i], &range) == 0)
			set_ports(words, range.lo, range.hi);
}

static void render_ports(const struct snapshot *snapshot, struct xdp_config *config)
{
	const struct rows *rows = &snapshot->rows[RESOURCE_LISTENER];

	for (size_t i = 0; i < rows->n; i++) {
		const struct listener *listener = (const struct listener *)rows->items[i];

		if (listener->enabled && relayed_comes_in_at(listener, config->interface))
			render_listener(listener, config);
	}
}

/* What cannot be had is no fault of the configuration: the kernel's own cookies are there in any case. */
static int render_cookies(const struct snapshot *snapshot, uint16_t listener_port, struct xdp_config *config)
{
	struct prefilter_params before = config->params;
	int r;

	if (config->syn_cookies == SYN_COOKIES_OFF)
		return 0;
	r = listener_port ? relayed_of(snapshot, config->interface, &config->params, &config->relayed) : -ENODEV;
	if (r == 0)
		config->params.listener_port = listener_port;
	else
		config->params = before;
	if (r == -E2BIG)
		config->no_cookies = "listeners match in too many ways";
	else if (r < 0)
		config->no_cookies = "it is not known where the relay listens";
	return r == -ENOMEM ? r : 0;
}

int render_xdp(const struct prefilter *prefilter, const struct snapshot *snapshot, const struct render_xdp_relay *relay,
        struct errs *errs, struct xdp_config **ret)
{
	_cleanup_(xdp_config_free_p) struct xdp_config *config = calloc(1, sizeof(*config));
	int r;

	if (!config)
		return -ENOMEM;
	snprintf(config->interface, sizeof(config->interface), "%s", prefilter->interface);
	config->mode = (enum prefilter_mode)prefilter->mode;
	r = render_list(prefilter, "deny", &prefilter->deny, snapshot, errs, &config->deny);
	if (r == 0)
		r = render_list(prefilter, "allow", &prefilter->allow, snapshot, errs, &config->allow);
	if (r < 0)
		return r;
	note_families(&config->deny, &config->params.deny_v4, &config->params.deny_v6);
	note_families(&config->allow, &config->params.allow_v4, &config->params.allow_v6);
	render_rate(prefilter, &config->params);
	config->params.fragments = prefilter->drop_fragments;
	config->params.bogons = prefilter->drop_bogons;
	config->params.ports = prefilter->only_listener_ports;
	if (prefilter->only_listener_ports)
		render_ports(snapshot, config);
	config->syn_cookies = (enum syn_cookies)prefilter->syn_cookies;
	r = render_cookies(snapshot, relay->listener_port, config);
	if (r == 0)
		r = xdp_limits_of(snapshot, config->interface, relay->own_mark, &config->params, &config->relayed,
		        &config->limits);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(config);
	return 0;
}

void xdp_config_free(struct xdp_config *config)
{
	if (!config)
		return;
	prefixes_clear(&config->deny);
	prefixes_clear(&config->allow);
	relayed_clear(&config->relayed);
	xdp_limits_clear(&config->limits);
	free(config);
}

static int count_difference(void *userdata, const struct prefix *prefix, bool added)
{
	size_t *n = userdata;

	(void)prefix;
	(void)added;
	return ++*n > XDP_ENTRIES_FEW ? -E2BIG : 0;
}

static int count_entry(void *userdata, const struct relayed_entry *entry, bool added)
{
	(void)entry;
	return count_difference(userdata, NULL, added);
}

static bool same_pairs(const struct xdp_limits *a, const struct xdp_limits *b)
{
	return a->n == b->n && (a->n == 0 || memcmp(a->pairs, b->pairs, a->n * sizeof(*a->pairs)) == 0);
}

enum xdp_difference xdp_config_differ(const struct xdp_config *old, const struct xdp_config *new)
{
	size_t n = 0;

	if (!same_pairs(&old->limits, &new->limits) || old->mode != new->mode ||
	        memcmp(&old->params, &new->params, sizeof(new->params)) != 0 ||
	        prefixes_differences(&old->deny, &new->deny, count_difference, &n) < 0 ||
	        prefixes_differences(&old->allow, &new->allow, count_difference, &n) < 0 ||
	        relayed_differences(&old->relayed, &new->relayed, count_entry, &n) < 0)
		return XDP_PROGRAM;
	return n > 0 || memcmp(old->ports, new->ports, sizeof(new->ports)) != 0 ||
	                       memcmp(old->limits.ports, new->limits.ports, sizeof(new->limits.ports)) != 0
	               ? XDP_ENTRIES
	               : XDP_SAME;
}
