/* The checks, see doctor.h. Each fills what it found; `mend` makes it a fault. */
#include "rules/doctor.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"
#include "rules/forward_fate.h"
#include "rules/words.h"

__attribute__((format(printf, 2, 3))) static void say(struct doctor_check *check, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(check->detail, sizeof(check->detail), format, arguments);
	va_end(arguments);
}

/* It is a fault, and this is how to mend it. */
__attribute__((format(printf, 2, 3))) static void mend(struct doctor_check *check, const char *format, ...)
{
	va_list arguments;

	check->ok = false;
	va_start(arguments, format);
	vsnprintf(check->fix, sizeof(check->fix), format, arguments);
	va_end(arguments);
}

static void forwarding(const struct doctor_sysctl *value, const char *name, struct doctor_check *check)
{
	say(check, "%s is %ld", name, value->value);
	if (value->value == 0)
		mend(check, "sysctl -w %s=1", name);
}

static void check_ip_forward(const struct doctor_facts *facts, struct doctor_check *check)
{
	forwarding(&facts->ip_forward, "net.ipv4.ip_forward", check);
}

static void check_ip6_forward(const struct doctor_facts *facts, struct doctor_check *check)
{
	forwarding(&facts->ip6_forward, "net.ipv6.conf.all.forwarding", check);
}

static void check_rp_filter(const struct doctor_facts *facts, struct doctor_check *check)
{
	const struct doctor_sysctl *found = &facts->rp_filter;

	say(check, "no interface filters strictly by the way back");
	if (found->value != 1)
		return;
	say(check, "strict on %s: packets whose way back leads elsewhere are dropped without a word", found->where);
	mend(check, "sysctl -w net.ipv4.conf.all.rp_filter=2");
}

static void check_src_valid_mark(const struct doctor_facts *facts, struct doctor_check *check)
{
	bool set = facts->src_valid_mark.value > 0;

	say(check, set ? "is 1; our first routing rule keeps it from doing harm" : "is 0");
	if (!set || !facts->has_routing || facts->routing_wrong == 0)
		return;
	say(check, "is 1 on %s while our routing rules are not complete: intercepted packets are dropped as martians",
	        facts->src_valid_mark.where);
	mend(check, "sysctl -w net.ipv4.conf.%s.src_valid_mark=0, and see the check \"routing\"",
	        facts->src_valid_mark.where);
}

static void check_route_localnet(const struct doctor_facts *facts, struct doctor_check *check)
{
	const struct doctor_sysctl *found = &facts->route_localnet;

	say(check, "no interface takes packets to 127.0.0.0/8");
	if (found->value <= 0)
		return;
	say(check, "set on %s: others reach what listens on 127.0.0.1, the relay's own socket among it", found->where);
	mend(check, "sysctl -w net.ipv4.conf.%s.route_localnet=0", found->where);
}

static void check_bridge_netfilter(const struct doctor_facts *facts, struct doctor_check *check)
{
	say(check, facts->has_bridge ? "frames that are only switched do not meet our rules" : "there is no bridge");
	if (!facts->has_bridge || facts->bridge_netfilter.value != 1)
		return;
	say(check, "there is a bridge, and frames that are only switched meet our rules as if they were routed");
	mend(check, "sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0");
}

static void check_routing(const struct doctor_facts *facts, struct doctor_check *check)
{
	say(check, "our rules and routes are there, IPv4 and IPv6");
	if (!facts->has_routing) {
		say(check, "rules and routes cannot be read");
		mend(check, "see the log of gatewayd");
	} else if (facts->routing_wrong > 0) {
		say(check,
		        "%u of our rules and routes are missing or wrong: intercepted packets do not reach the relay",
		        facts->routing_wrong);
		mend(check, "set \"drift\" of /api/v1/settings to \"heal\"");
	}
}

static void check_nft_table(const struct doctor_facts *facts, struct doctor_check *check)
{
	say(check, "our table is as it must be");
	/* Drift of rules and routes has a check of its own. */
	if (!facts->table_differs || facts->routing_wrong > 0)
		return;
	say(check, "somebody has changed our table, and it was not put right");
	mend(check, "set \"drift\" of /api/v1/settings to \"heal\"");
}

static void check_foreign_route(const struct doctor_facts *facts, struct doctor_check *check)
{
	say(check, "nobody else has routes in our table %u", facts->table);
	if (facts->foreign_routes == 0)
		return;
	say(check,
	        "%u route%s of others in our routing table %u, the first to %s: intercepted packets follow them "
	        "instead of reaching the relay",
	        facts->foreign_routes, facts->foreign_routes == 1 ? "" : "s", facts->table, facts->foreign_first);
	mend(check, "ip route del %s table %u", facts->foreign_first, facts->table);
}

static void check_foreign_marks(const struct doctor_facts *facts, struct doctor_check *check)
{
	say(check, "no rule of others that comes before ours looks at bits 0x%08x of the mark", facts->mark_mask);
	if (facts->foreign_marks == 0)
		return;
	say(check, "%u routing rules of others come before ours and look at our bits 0x%08x of the mark",
	        facts->foreign_marks, facts->mark_mask);
	mend(check, "ip rule del pref %u; or start gatewayd with another --mark", facts->foreign_mark_priority);
}

/* Whether a chain lets our packets in: the other bits of their mark are taken to be 0, as they are unless others set
 * them. */
static bool lets_in_mark(const struct doctor_facts *facts, const json_t *finding)
{
	json_t *pair;
	size_t i;

	json_array_foreach(json_object_get(finding, "marks"), i, pair)
	{
		json_int_t mask = json_integer_value(json_array_get(pair, 0));

		if ((facts->mark & mask) == json_integer_value(json_array_get(pair, 1)))
			return true;
	}
	return false;
}

/* Whether a chain leaves alone what the relay sends. */
static bool spares_relay(const struct doctor_facts *facts, const json_t *finding)
{
	json_t *owner;
	size_t i;

	json_array_foreach(json_object_get(finding, "owners"), i, owner)
	{
		if (json_integer_value(owner) == facts->relay_uid)
			return true;
	}
	return false;
}

typedef bool exemption(const struct doctor_facts *facts, const json_t *finding);

/* Findings of one code that exempt nothing of ours, joined in the detail; returns the first, or NULL. */
static const json_t *join(
        const struct doctor_facts *facts, const char *code, exemption *exempt, struct doctor_check *check)
{
	const json_t *finding, *first = NULL;
	size_t i, length = 0;

	json_array_foreach(facts->foreign, i, finding)
	{
		const char *found = json_string_value(json_object_get(finding, "code"));
		const char *detail = json_string_value(json_object_get(finding, "detail"));

		if (!found || strcmp(found, code) != 0 || exempt(facts, finding))
			continue;
		if (length < sizeof(check->detail))
			length += (size_t)snprintf(check->detail + length, sizeof(check->detail) - length, "%s%s",
			        first ? "; " : "", detail ? detail : "");
		if (!first)
			first = finding;
	}
	return first;
}

/* "ip nat POSTROUTING", as a command takes it; a name that a shell would read otherwise is left for people to fill in.
 */
static const char *chain_words(const json_t *finding, char words[DOCTOR_CHAIN_MAX])
{
	const char *family = "", *table = "", *chain = "";

	json_unpack((json_t *)finding, "{s:s, s:s, s:s}", "family", &family, "table", &table, "chain", &chain);
	if (!*family || !*table || !*chain || !word_is_plain(table) || !word_is_plain(chain))
		return "FAMILY TABLE CHAIN";
	snprintf(words, DOCTOR_CHAIN_MAX, "%s %s %s", family, table, chain);
	return words;
}

static void check_input_drop(const struct doctor_facts *facts, struct doctor_check *check)
{
	char words[DOCTOR_CHAIN_MAX];
	const json_t *first;

	say(check, "no chain of others drops by default what is delivered here, or it accepts our mark");
	first = join(facts, "input_drop", lets_in_mark, check);
	if (first)
		mend(check,
		        "nft insert rule %s meta mark and 0x%08x == 0x%08x accept: and the same where its "
		        "rules are kept",
		        chain_words(first, words), facts->mark_mask, facts->mark);
}

static void check_source_nat(const struct doctor_facts *facts, struct doctor_check *check)
{
	char words[DOCTOR_CHAIN_MAX];
	const json_t *first;

	say(check, "nobody rewrites source addresses, or not of what the relay sends");
	first = join(facts, "source_nat", spares_relay, check);
	if (first)
		mend(check,
		        "nft insert rule %s meta skuid %u accept: what the relay sends keeps its source then; and the "
		        "same where its rules are kept",
		        chain_words(first, words), facts->relay_uid);
}

/* At which of the listeners' interfaces the chain drops what they bypass, or the answers to that; NULL: a listener has
 * any. False if at none. */
static bool drops_forwarded(const struct doctor_facts *facts, const json_t *finding, const char **ret_interface)
{
	for (size_t i = 0; i < facts->n_interfaces; i++) {
		const char *interface = facts->interfaces[i];

		if (!fate_drops_first(finding, interface) && !fate_drops_answers(finding, interface))
			continue;
		*ret_interface = interface;
		return true;
	}
	return false;
}

static bool lets_through(const struct doctor_facts *facts, const json_t *finding)
{
	const char *interface;

	return !drops_forwarded(facts, finding, &interface);
}

/* The chain that iptables' rules of their own are to be put in, Docker's if it is there; NULL: not one of iptables. */
static const char *iptables_chain(const json_t *finding)
{
	const char *family = "", *table = "", *chain = "";

	json_unpack((json_t *)finding, "{s:s, s:s, s:s}", "family", &family, "table", &table, "chain", &chain);
	if (strcmp(family, "inet") == 0 || strcmp(table, "filter") != 0 || strcmp(chain, "FORWARD") != 0)
		return NULL;
	return json_object_get(json_object_get(finding, "rules"), "DOCKER-USER") ? "DOCKER-USER" : "FORWARD";
}

static void mend_forward(const json_t *finding, const char *interface, struct doctor_check *check)
{
	char words[DOCTOR_CHAIN_MAX];
	const char *chain = iptables_chain(finding);
	const char *name = interface && word_is_plain(interface) ? interface : "INTERFACE";
	const char *also = interface ? "and the same where its rules are kept"
	                             : "for each INTERFACE of clients, which the listeners' interfaces are to name "
	                               "too; and the same where its rules are kept";

	if (chain) {
		const char *program = fate_is_of_family(finding, AF_INET) ? "iptables" : "ip6tables";

		mend(check,
		        "%s -I %s -i %s -j ACCEPT && %s -I %s -o %s -m conntrack --ctstate RELATED,ESTABLISHED -j "
		        "ACCEPT: %s",
		        program, chain, name, program, chain, name, also);
	} else {
		const char *place = chain_words(finding, words);

		mend(check,
		        "nft insert rule %s iifname %s accept && nft insert rule %s oifname %s ct state "
		        "established,related accept: %s",
		        place, name, place, name, also);
	}
}

static void check_forward_drop(const struct doctor_facts *facts, struct doctor_check *check)
{
	const char *interface = NULL;
	const json_t *first;
	size_t length;

	say(check, "no chain of others drops by default what is forwarded from the listeners' interfaces");
	first = join(facts, FATE_CODE, lets_through, check);
	if (!first)
		return;
	length = strlen(check->detail);
	(void)drops_forwarded(facts, first, &interface);
	snprintf(check->detail + length, sizeof(check->detail) - length,
	        ": what %s%s%sno listener matches, or one bypasses, ends there, or the answers to it do",
	        interface ? "comes in at " : "", interface ? interface : "", interface ? " and " : "");
	mend_forward(first, interface, check);
}

static void check_nft_readable(const struct doctor_facts *facts, struct doctor_check *check)
{
	say(check, "the rules of others can be read");
	if (facts->foreign)
		return;
	say(check, "The ruleset of others could not be read.");
	mend(check, "nft list ruleset, and look at what it says");
}

static void check_conntrack(const struct doctor_facts *facts, struct doctor_check *check)
{
	long count = facts->conntrack_count.value, max = facts->conntrack_max.value;

	say(check, count < 0 || max <= 0 ? "connections are not tracked" : "%ld of %ld entries", count, max);
	if (count >= 0 && max > 0 && count >= max / 100 * DOCTOR_FULL_PERCENT + max % 100 * DOCTOR_FULL_PERCENT / 100)
		mend(check, "sysctl -w net.netfilter.nf_conntrack_max=%ld", 2 * max);
}

static void check_descriptors(const struct doctor_facts *facts, struct doctor_check *check)
{
	uint64_t limit = facts->descriptors_limit, used = facts->descriptors_used;

	say(check, limit ? "the relay may have %" PRIu64 ", and flows need %" PRIu64 : "no relay to ask", limit, used);
	if (limit && (limit < DOCTOR_DESCRIPTORS_MIN || used >= limit / 100 * DOCTOR_FULL_PERCENT))
		mend(check, "LimitNOFILE=1048576 in the service of gatewayd, then restart it");
}

static void check_backlog(const struct doctor_facts *facts, struct doctor_check *check)
{
	say(check, "net.core.somaxconn is %ld", facts->somaxconn.value);
	if (facts->somaxconn.value >= 0 && facts->somaxconn.value < DOCTOR_BACKLOG_MIN)
		mend(check, "sysctl -w net.core.somaxconn=%d", DOCTOR_BACKLOG_MIN);
}

static void check_relay(const struct doctor_facts *facts, struct doctor_check *check)
{
	bool equal = facts->revision == facts->nft_generation && facts->revision == facts->route_generation &&
	             facts->revision == facts->relay_generation;

	say(check, "runs, and every plane has applied revision %" PRId64, facts->revision);
	if (facts->relay_runs && equal)
		return;
	say(check, "%s; revision %" PRId64 " is applied by nft as %" PRId64 ", routing %" PRId64 ", relay %" PRId64,
	        facts->relay_runs ? "runs" : "does not run", facts->revision, facts->nft_generation,
	        facts->route_generation, facts->relay_generation);
	mend(check, "see the log of gatewayd; POST /api/v1/relay/restart");
}

static void check_sockmap(const struct doctor_facts *facts, struct doctor_check *check)
{
	say(check, "%s%s%s", facts->sockmap_state, *facts->sockmap_why ? ": " : "", facts->sockmap_why);
	if (facts->sockmap_wanted && strcmp(facts->sockmap_state, "on") != 0 &&
	        strcmp(facts->sockmap_state, "testing") != 0)
		mend(check, "start gatewayd without --mover sockmap, or on a kernel that has it");
}

static void check_interception(const struct doctor_facts *facts, struct doctor_check *check)
{
	say(check, "by %s", facts->ebpf ? "the engine ebpf, with nft behind it" : "nft");
	if (!*facts->ebpf_why)
		return;
	say(check, "the engine ebpf is asked for and not in force, nft does it all: %s", facts->ebpf_why);
	mend(check, "set \"interception\" of /api/v1/settings to \"nft\", or give the engine what it lacks");
}

static void check_prefilters(const struct doctor_facts *facts, struct doctor_check *check)
{
	say(check, facts->prefilters ? "none of %zu is kept from its interface" : "there are none", facts->prefilters);
	if (facts->prefilters_failed == 0)
		return;
	say(check, "%zu of %zu not in force, the gateway works without: %s", facts->prefilters_failed,
	        facts->prefilters, facts->prefilter_why);
	mend(check,
	        "bpftool net show dev %s shows what is there (xdp-loader unload %s --all takes libxdp's off); the "
	        "prefilter comes into force by itself when it can, or disable it",
	        facts->prefilter_first, facts->prefilter_first);
}

/* What is known of the way back, and what that rests on. */
static void say_return_path(const struct doctor_return *back, struct doctor_check *check)
{
	char udp[96] = "", unknown[96] = "";

	if (back->udp_heard || back->udp_probed)
		snprintf(udp, sizeof(udp), "; of UDP, %u by their answers, %u by TCP probes of their addresses",
		        back->udp_heard, back->udp_probed);
	if (back->silent)
		snprintf(unknown, sizeof(unknown), "; unknown of %u: no probe (TCP) is answered, from whatever address",
		        back->silent);
	say(check, "answers to clients come back from %u of the %u targets that clients were seen of%s%s", back->good,
	        back->seen, udp, unknown);
}

/* The server's own route, for no setting here can change where it sends its answers to. */
static void check_return_path(const struct doctor_facts *facts, struct doctor_check *check)
{
	const struct doctor_return *back = &facts->back;

	if (back->seen == 0)
		say(check, "not probed yet: no client was seen of a listener with source_address client");
	else
		say_return_path(back, check);
	if (back->broken == 0)
		return;
	say(check,
	        "answers of %u of %u targets to clients do not come back here, those to this machine do. The first: %s "
	        "to client %s of listener %s%s",
	        back->broken, back->seen, back->target, back->client, back->listener,
	        back->udp ? " (UDP, found by TCP: a filter there of TCP alone looks alike)" : "");
	mend(check, "on %s: ip %sroute replace %s/%u via %s; or here, source_address gateway for listener %s",
	        back->server, back->ipv6 ? "-6 " : "", back->client, addr_bits(back->ipv6 ? AF_INET6 : AF_INET),
	        back->own, back->listener);
}

static void check_mtu(const struct doctor_facts *facts, struct doctor_check *check)
{
	say(check, facts->mtu_least ? "the least is %ld, on %s" : "no interface is up", facts->mtu_least,
	        facts->mtu_where);
	if (facts->mtu_least && facts->mtu_least < DOCTOR_MTU_MIN)
		mend(check, "ip link set %s mtu %d: below that there is no IPv6", facts->mtu_where, DOCTOR_MTU_MIN);
}

static void check_clock(const struct doctor_facts *facts, struct doctor_check *check)
{
	say(check, "not before the newest revision");
	/* A second or two may lie between two clocks' readings. */
	if (facts->newest_revision_at <= facts->clock + 5)
		return;
	say(check, "the clock is %" PRId64 " s before the newest revision's time",
	        facts->newest_revision_at - facts->clock);
	mend(check, "set the clock: timedatectl set-ntp true");
}

static void check_disk(const struct doctor_facts *facts, struct doctor_check *check)
{
	say(check, "%" PRIu64 " MiB free at %s", facts->disk_free_mib, facts->state_dir);
	if (facts->disk_free_mib < DOCTOR_DISK_MIN_MIB)
		mend(check, "make room on the file system of %s: changes cannot be stored when it is full",
		        facts->state_dir);
}

static void check_sqlite(const struct doctor_facts *facts, struct doctor_check *check)
{
	bool affected = facts->sqlite_number >= 3007000 && facts->sqlite_number <= 3051002;

	say(check, affected ? "%s can corrupt a database that several connections write; here one does" : "%s",
	        facts->sqlite_version);
}

static const struct {
	const char *name;
	void (*run)(const struct doctor_facts *facts, struct doctor_check *check);
} checks[] = {
	{ "ip_forward", check_ip_forward },
	{ "ip6_forward", check_ip6_forward },
	{ "rp_filter", check_rp_filter },
	{ "src_valid_mark", check_src_valid_mark },
	{ "route_localnet", check_route_localnet },
	{ "bridge_netfilter", check_bridge_netfilter },
	{ "routing", check_routing },
	{ "nft_table", check_nft_table },
	{ "foreign_route", check_foreign_route },
	{ "foreign_marks", check_foreign_marks },
	{ "input_drop", check_input_drop },
	{ "forward_drop", check_forward_drop },
	{ "source_nat", check_source_nat },
	{ "nft_unreadable", check_nft_readable },
	{ "conntrack", check_conntrack },
	{ "descriptors", check_descriptors },
	{ "backlog", check_backlog },
	{ "relay", check_relay },
	{ "sockmap", check_sockmap },
	{ "interception", check_interception },
	{ "prefilters", check_prefilters },
	{ "return_path", check_return_path },
	{ "mtu", check_mtu },
	{ "clock", check_clock },
	{ "disk", check_disk },
	{ "sqlite", check_sqlite },
};
static_assert(ARRAY_SIZE(checks) <= DOCTOR_CHECKS_MAX, "all of them fit");

size_t doctor_examine(const struct doctor_facts *facts, struct doctor_check ret[DOCTOR_CHECKS_MAX])
{
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		ret[i] = (struct doctor_check){ .name = checks[i].name, .ok = true };
		checks[i].run(facts, &ret[i]);
	}
	return ARRAY_SIZE(checks);
}
