/* POST /explain: the facts about this machine that rules/explain.h needs beside the configuration. */
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/core.h"
#include "gatewayd/health_view.h"
#include "rules/explain.h"

/* As nft's "fib daddr type { local, broadcast, multicast }". */
static bool is_own(const struct addr *addr)
{
	struct ifaddrs *all = NULL;
	static const struct addr broadcast = { .family = AF_INET, .bytes = { 255, 255, 255, 255 } };
	bool found = addr->family == AF_INET &&
	             (addr->bytes[0] >> 4 == 14 || addr->bytes[0] == 127 || addr_equal(addr, &broadcast));

	if (getifaddrs(&all) < 0)
		return found;
	for (struct ifaddrs *one = all; one && !found; one = one->ifa_next) {
		struct sockaddr_storage own = { 0 }, wide = { 0 };
		struct addr address;
		uint16_t port;
		size_t size = one->ifa_addr && one->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in)
		                                                                   : sizeof(struct sockaddr_in6);

		if (!one->ifa_addr || one->ifa_addr->sa_family != addr->family)
			continue;
		memcpy(&own, one->ifa_addr, size);
		found = addr_from_sockaddr(&own, &address, &port) == 0 && addr_equal(&address, addr);
		if (found || addr->family != AF_INET || !(one->ifa_flags & IFF_BROADCAST) || !one->ifa_broadaddr)
			continue;
		memcpy(&wide, one->ifa_broadaddr, size);
		found = addr_from_sockaddr(&wide, &address, &port) == 0 && addr_equal(&address, addr);
	}
	freeifaddrs(all);
	return found;
}

static bool forwards(uint8_t family)
{
	_cleanup_fclose_ FILE *file = fopen(
	        family == AF_INET ? "/proc/sys/net/ipv4/ip_forward" : "/proc/sys/net/ipv6/conf/all/forwarding", "re");

	return file && fgetc(file) != '0';
}

/* What the kernel holds about the source. */
struct source {
	struct core *core;
	const struct addr *addr;
};

/* The element of this set that the source is in, masked to this length. */
static bool find_element(const struct source *source, const char *set, unsigned length, struct explain_element *ret)
{
	*ret = (struct explain_element){ .prefix = { .addr = *source->addr, .length = (uint8_t)length } };
	addr_mask(&ret->prefix.addr, length);
	snprintf(ret->set, sizeof(ret->set), "%s", set);
	return kernel_nft_address(source->core->kernel, set, &ret->prefix.addr, &ret->left_ms) == 0;
}

static bool find_source(void *userdata, const struct rate_limit *limit, struct explain_element *ret)
{
	const struct source *source = userdata;
	int family = source->addr->family == AF_INET ? 4 : 6;
	unsigned length = limits_length(limit, family);
	char set[LIMITS_NAME_MAX];

	return length > 0 && find_element(source, limits_sources_set(limit, family, set), length, ret);
}

/* The sets of bans, in the order of the rules. */
static bool find_ban(const struct source *source, struct explain_element *ret)
{
	const struct limits *limits = model_limits(apply_model(source->core->apply));
	struct ban_lengths lengths = apply_render_params(source->core->apply)->bans;
	int family = source->addr->family == AF_INET ? 4 : 6;

	if (limits)
		ban_lengths_unite(&lengths, &limits->bans);
	for (unsigned length = 0; length <= addr_bits(source->addr->family); length++) {
		char set[LIMITS_NAME_MAX];

		if (ban_lengths_has(&lengths, family, length) &&
		        find_element(source, limits_ban_set(family, length, set), length, ret))
			return true;
	}
	return false;
}

static void look_at_bans(const struct source *source, struct explain_facts *facts, struct explain_element *place)
{
	const struct bans *bans = source->core->bans;
	const struct prefix whole = { .addr = *source->addr, .length = (uint8_t)addr_bits(source->addr->family) };
	const struct ban *ban;

	facts->ban_reason = facts->ban_limit = "";
	if (!find_ban(source, place))
		return;
	facts->ban = place;
	facts->ban_exempt = bans && bans_is_exempt(bans, &whole);
	ban = bans ? bans_find(bans, &place->prefix) : NULL;
	if (ban) {
		facts->ban_reason = ban->reason;
		facts->ban_limit = ban->limit;
	}
}

static void look_at_prefilter(
        struct core *core, const struct match_packet *packet, uint16_t source_port, struct explain_prefilter *ret)
{
	enum prefilter_reason reason;
	uint32_t limit = 0;
	int r = core->shield ? shield_judge(core->shield, packet, source_port, &reason, &limit) : -ENODEV;

	if (r >= 0)
		*ret = (struct explain_prefilter){ r                                     ? EXPLAIN_PREFILTER_PASS
			                           : reason == PREFILTER_syn_cookie_sent ? EXPLAIN_PREFILTER_COOKIE
			                                                                 : EXPLAIN_PREFILTER_DROP,
			shield_reason_name(reason), core_limit_name(core, limit) };
	else if (r != -ENODEV || (!packet->interface && core_count(core, RESOURCE_PREFILTER) > 0))
		ret->verdict = EXPLAIN_PREFILTER_UNKNOWN;
}

/* What stands in the way of new flows comes first. */
static void look_at_target(
        void *userdata, const struct upstream *upstream, const struct target *target, struct explain_target *ret)
{
	const struct source *source = userdata;
	char words[HEALTH_VIEW_WORDS_MAX];
	struct health_view view;

	health_view_read(worker_meter(source->core->worker), target, clock_us() / 1000, &view);
	ret->usable = view.usable;
	ret->weight = view.weight;
	health_view_words(&view, upstream, target, words);
	if (view.admin != ADMIN_STATE_UP)
		snprintf(ret->state, sizeof(ret->state), "it is set to %s",
		        field_word(resource_field(resource_get(RESOURCE_TARGET), "admin_state"), view.admin));
	else if (view.weight == 0)
		snprintf(ret->state, sizeof(ret->state), "its weight is 0");
	else if (view.ejected_until_ms)
		snprintf(ret->state, sizeof(ret->state), "left out for a while, for too many connections failed");
	else
		snprintf(ret->state, sizeof(ret->state), "%s: %s", health_view_state_name(view.health), words);
}

static json_t *look_at_foreign(void *userdata)
{
	const struct source *source = userdata;
	json_t *findings;

	return kernel_nft_foreign(source->core->kernel, &findings) == 0 ? findings : NULL;
}

json_t *core_explain(
        struct core *core, const struct match_packet *packet, uint16_t source_port, const struct first *first)
{
	struct source source = { core, &packet->src };
	struct explain_element ban;
	struct route_look routes;
	struct explain_facts facts = { .model = apply_model(core->apply),
		.snapshot = apply_snapshot(core->apply),
		.destination_is_local = is_own(&packet->dst),
		.gate_open = apply_render_params(core->apply)->gate_open,
		.ebpf = intercept_is_at(core->intercept, packet->interface),
		.relay_runs = worker_state(core->worker) == WORKER_RUNNING,
		.routing_right = apply_look_at_routing(core->apply, &routes) == 0 && routes.wrong == 0,
		.table = core->options->route_table,
		.mark = core->options->mark,
		.forwarding = forwards(packet->dst.family),
		.rules = core_rules(core),
		.find_source = find_source,
		.look_at_target = look_at_target,
		.look_at_foreign = look_at_foreign,
		.userdata = &source,
		.first = first };

	if (packet->interface && if_nametoindex(packet->interface) == 0)
		facts.no_interface = packet->interface;
	look_at_prefilter(core, packet, source_port, &facts.prefilter);
	look_at_bans(&source, &facts, &ban);
	return explain_packet(&facts, packet, source_port);
}
