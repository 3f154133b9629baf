/*
 * The chains of our nft table; see render_chains.h.
 *
 * Theory of operation:
 *
 *   prerouting ─ from lo: past us
 *     ├ tcp ► pre_tcp ─ bare SYN ► new_tcp                 a SYN is never diverted: it may reuse the ports of a
 *     │         │                                          socket of ours in TIME_WAIT, and must reach tproxy
 *     │         ├ established                              banned sources; limits of packets of accepted connections
 *     │         ├ a transparent socket's ► mark, accept    flows of the relay, both legs
 *     │         ├ in direct4 / direct6 ► go_known          flows that began while the gate was open, or pass by;
 *     │         │                                          a FIN or RST moves them to closing4 / closing6
 *     │         ├ in closing4 / closing6 ► go_known        so that they do not pile up
 *     │         └ else ► new_tcp ► tcp4 / tcp6             tproxy hands it to the listener, which answers with RST
 *     ├ udp ► pre_udp ─ a connected socket of the relay's ► mark, accept     answers of targets, whoever matches them
 *     │         └ else ► udp4 / udp6
 *     ├ icmp unreachable about a socket with that mark ► go_error    told to whom the packet was from
 *     ├ icmp about a transparent socket's packets ► take_icmp        or path MTU discovery breaks
 *     └ not_ours                                                     here ends, too, what no listener matches
 *
 *   tcp4, tcp6, udp4, udp6 ─ one set per shape and verdict in use, the strongest first; the gateway's own
 *     addresses leave after the full-length destinations, so that ssh and the API cannot be caught by a wide prefix
 *   act_* ─ what an element's verdict goes to
 *   act_handed ─ what begins a flow and has the mark already, for the other engine has found its listener
 *     (rules/bpf/intercept.bpf.c): TCP with the relay's listening socket. What is not so loses the mark, and comes back
 *   listener.* ─ what an element of a limited listener goes to before that; limits_text.c has the picture
 *   take_tcp, take_udp, take_icmp ─ mark, accept: to the relay
 *   bans ─ jumped to by all of these: what is in a set of bans is dropped, unless it is never to be banned
 *
 * Packets of accepted connections are taken by their socket before any listener is looked for. Where a limit counts
 * them, `established` sends those that have the mark of accepted sockets (base/sockmark.h), so not those of targets,
 * through meter4 or meter6 first: the same look-ups up to the last that is of limited listeners.
 *
 * The wildcard check of `socket` is left out for TCP: request sockets and TIME_WAIT ones have no wildcard bit and
 * would not match; a bare SYN, the only packet a listening socket could match by mistake, does not get there.
 *
 * UDP sockets are told by marks of their own (base/sockmark.h), not by being transparent: the relay also has
 * unconnected ones, at the original destinations, from which it answers. They must get no packet, for each that is sent
 * there is some other flow's, maybe one that no listener matches. A socket is marked when it is connected, so that
 * there is no moment in which it would take more than its own. The mark of errors is on the sockets whose packets look
 * as if there were no gateway: an ICMP error about them is as good for the client, or server, as it was without us. It
 * is forwarded, unless it tells a path MTU, which the kernel must learn that makes the packets.
 *
 * A SYN-ACK that is no socket's answers a connection that passes us by: a bypassed one, or one from the other side.
 * Where a relay listener matches it (it names no port, say), it must not be answered by the relay with a reset, and
 * neither must what follows: the flow is remembered in the direct sets and forwarded.
 *
 * A reset that is no socket's is forwarded: a listening socket would only ignore it. It is the client's answer to what
 * a server goes on sending because the relay's own reset was lost, and the only one that this server gets.
 *
 * tproxy falls through where no socket listens; the rule behind it drops, so that nothing passes unseen.
 *
 * The ledger (ledger.h): a packet is counted once when it comes and once where it ends, or is passed on; what is passed
 * on is counted again where it is forwarded. A rule ends when its counting finds no place in the set. So counting has a
 * rule of its own; only the two rules that every packet of a flow meets count by themselves, for half the price, each
 * with another rule behind it which does what it has then not done.
 */
#include "rules/render_chains.h"

#include <assert.h>
#include <string.h>

#include "gatewayd/base/array.h"
#include "gatewayd/base/sockmark.h"
#include "rules/ledger.h"
#include "rules/nftset.h"

#define RULE "add rule inet " NFT_TABLE " "

/* How long a flow that is forwarded although a relay listener matches it is remembered after its last packet, and how
 * many at most; beyond that, such flows are reset, by the relay or when it comes back, nothing worse. */
#define DIRECT_TIMEOUT "2h"
#define DIRECT_SIZE    "262144"
/* And how long after a FIN or RST: longer than the other side may take to end as well, and than retransmissions. Each
 * packet until then begins it anew, so that a half-closed flow goes on. */
#define CLOSING_TIMEOUT "60s"

/* How long after its client's last datagram a UDP flow that limits of new connections let pass is no new one. Where
 * there are more than the set holds, each datagram of the others counts as a connection. */
#define KNOWN_TIMEOUT "60s"

#define TUPLE4       "ip saddr . tcp sport . ip daddr . tcp dport"
#define TUPLE6       "ip6 saddr . tcp sport . ip6 daddr . tcp dport"
#define REPLY_TUPLE4 "ip daddr . tcp dport . ip saddr . tcp sport"
#define REPLY_TUPLE6 "ip6 daddr . tcp dport . ip6 saddr . tcp sport"
#define BARE_SYN     "tcp flags & (syn | ack) == syn "
#define SYN_ACK      "tcp flags & (syn | ack) == syn | ack "
/* One that carries no more than the longest headers do. */
#define BARE_RESET "tcp flags & (syn | rst) == rst meta length <= 120 "

const struct chain_id classify_chains[] = {
	{ "tcp4", IPPROTO_TCP, AF_INET, "meter4" },
	{ "tcp6", IPPROTO_TCP, AF_INET6, "meter6" },
	{ "udp4", IPPROTO_UDP, AF_INET, NULL },
	{ "udp6", IPPROTO_UDP, AF_INET6, NULL },
};
static_assert(ARRAY_SIZE(classify_chains) == CLASSIFY_CHAINS, "all of them");

/* Chains other than the classification ones; targets of a jump come before those who jump. */
static const char *const other_chains[] = { "banned", "bans", "meter4", "meter6", "established", "take_tcp", "take_udp",
	"take_icmp", "go_direct", "go_reply", "go_reset", "go_error", "go_known", "not_ours", "direct_gate",
	"act_relay", "act_relay_direct", "act_reject", "act_drop", "act_bypass", "act_handed", "flow_ends", "new_tcp",
	"pre_tcp", "pre_udp" };

/* Those that packets come to by themselves; the second behind the chains of others, so that a packet which they drop
 * does not get there. */
static const struct {
	const char *name, *hook;
} base_chains[] = {
	{ "prerouting", "prerouting priority mangle" },
	{ "ledger_forward", "forward priority 300" },
};

static const char *const counters[] = { "no_listener_socket", "forwarded_direct", "forwarded_replies",
	"forwarded_resets", "forwarded_errors", "rejected", "dropped", "bypassed", "banned" };

static const char *const sets[] = { "generation", "skeleton", "direct4", "direct6", "closing4", "closing6", "known4",
	"known6", "exempt4", "exempt6", LEDGER_SET };

/* The flows that are forwarded although a relay listener matches them, and those of UDP that are not new. */
static const struct {
	const char *name, *address, *timeout;
} flow_sets[] = {
	{ "direct4", "ipv4_addr", DIRECT_TIMEOUT },
	{ "direct6", "ipv6_addr", DIRECT_TIMEOUT },
	{ "closing4", "ipv4_addr", CLOSING_TIMEOUT },
	{ "closing6", "ipv6_addr", CLOSING_TIMEOUT },
	{ "known4", "ipv4_addr", KNOWN_TIMEOUT },
	{ "known6", "ipv6_addr", KNOWN_TIMEOUT },
};

/* A flow is kept by the tuple of its first packet, so each packet is looked up both ways round. */
static const struct {
	const char *tuple;
	char family;
} lookups[] = { { TUPLE4, '4' }, { REPLY_TUPLE4, '4' }, { TUPLE6, '6' }, { REPLY_TUPLE6, '6' } };

bool chains_own(const char *kind, const char *name)
{
	if (strcmp(kind, "counter") == 0)
		return words_have(counters, ARRAY_SIZE(counters), name);
	if (strcmp(kind, "set") == 0)
		return words_have(sets, ARRAY_SIZE(sets), name);
	if (strcmp(kind, "chain") != 0)
		return false;
	for (size_t i = 0; i < CLASSIFY_CHAINS; i++)
		if (strcmp(classify_chains[i].name, name) == 0)
			return true;
	for (size_t i = 0; i < ARRAY_SIZE(base_chains); i++)
		if (strcmp(base_chains[i].name, name) == 0)
			return true;
	return words_have(other_chains, ARRAY_SIZE(other_chains), name);
}

void chains_put_version(FILE *out)
{
	fprintf(out, "flush set inet " NFT_TABLE " skeleton\nadd element inet " NFT_TABLE " skeleton { %d }\n",
	        NFT_SKELETON_VERSION);
}

void chains_put_objects(FILE *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++)
		fprintf(out, "add counter inet " NFT_TABLE " %s\n", counters[i]);
	fputs("add set inet " NFT_TABLE " generation { type mark; }\n", out);
	fprintf(out, "add set inet " NFT_TABLE " skeleton { type mark; elements = { %d }; }\n", NFT_SKELETON_VERSION);
	for (size_t i = 0; i < ARRAY_SIZE(flow_sets); i++)
		fprintf(out,
		        "add set inet " NFT_TABLE " %s { type %s . inet_service . %s . inet_service; size " DIRECT_SIZE
		        "; flags dynamic,timeout; timeout %s; }\n",
		        flow_sets[i].name, flow_sets[i].address, flow_sets[i].address, flow_sets[i].timeout);
	for (int i = 0; i < 2; i++)
		fprintf(out, "add set inet " NFT_TABLE " exempt%c { type ipv%c_addr; flags interval; auto-merge; }\n",
		        "46"[i], "46"[i]);
	fputs("add set inet " NFT_TABLE " " LEDGER_SET " ", out);
	ledger_put_set(out);
	fputc('\n', out);
	for (size_t i = 0; i < ARRAY_SIZE(other_chains); i++)
		fprintf(out, "add chain inet " NFT_TABLE " %s\n", other_chains[i]);
	for (size_t i = 0; i < CLASSIFY_CHAINS; i++)
		fprintf(out, "add chain inet " NFT_TABLE " %s\n", classify_chains[i].name);
	for (size_t i = 0; i < ARRAY_SIZE(base_chains); i++)
		fprintf(out, "add chain inet " NFT_TABLE " %s { type filter hook %s; policy accept; }\n",
		        base_chains[i].name, base_chains[i].hook);
}

void chains_put_flush(FILE *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(base_chains); i++)
		fprintf(out, "flush chain inet " NFT_TABLE " %s\n", base_chains[i].name);
	for (size_t i = 0; i < ARRAY_SIZE(other_chains); i++)
		fprintf(out, "flush chain inet " NFT_TABLE " %s\n", other_chains[i]);
}

/* "meta mark set ...": our bit in our part of the mark, the others' bits as they are. */
static void put_mark(FILE *out, const struct render_params *params)
{
	fprintf(out, "meta mark set meta mark & 0x%08x | 0x%08x", ~params->mark_mask, params->mark);
}

/* A rule that counts an outcome. */
static void put_count(FILE *out, const char *chain, enum ledger_outcome outcome)
{
	fprintf(out, RULE "%s ", chain);
	ledger_put_count(out, outcome);
	fputc('\n', out);
}

/* Rules that count why a packet is passed on, and whether it is for this host. */
static void put_passed(FILE *out, const char *chain, enum ledger_outcome outcome)
{
	put_count(out, chain, outcome);
	fprintf(out, RULE "%s fib daddr type local ", chain);
	ledger_put_count(out, LEDGER_local);
	fputc('\n', out);
}

static void put_take(FILE *out, const char *chain, enum ledger_outcome outcome, const struct render_params *params)
{
	put_count(out, chain, outcome);
	fprintf(out, RULE "%s ", chain);
	put_mark(out, params);
	fputs(" accept\n", out);
}

/* The end of a rule that hands a packet over, and counts: marked, and accepted here or by the next. */
static void put_take_fast(FILE *out, const char *chain, enum ledger_outcome outcome, const struct render_params *params)
{
	put_mark(out, params);
	fputc(' ', out);
	ledger_put_count(out, outcome);
	fprintf(out, " accept\n" RULE "%s meta mark & 0x%08x == 0x%08x accept\n", chain, params->mark_mask,
	        params->mark);
}

static void put_tproxy(FILE *out, const char *chain, const char *protocol, const struct render_params *params)
{
	fprintf(out,
	        RULE "%s meta nfproto ipv4 meta l4proto %s tproxy ip to 127.0.0.1:%u goto take_%s\n" RULE
	             "%s meta nfproto ipv6 meta l4proto %s tproxy ip6 to [::1]:%u goto take_%s\n",
	        chain, protocol, params->port_v4, protocol, chain, protocol, params->port_v6, protocol);
}

static void put_tproxies(FILE *out, const char *chain, const struct render_params *params)
{
	put_tproxy(out, chain, "tcp", params);
	put_tproxy(out, chain, "udp", params);
}

static struct sockmark marks_of(const struct render_params *params)
{
	return sockmark_of(params->mark_mask & ~params->mark);
}

/* What does not come to the relay, and is not dropped. */
static void put_ways_past(FILE *out)
{
	put_passed(out, "go_direct", LEDGER_direct);
	fputs(RULE "go_direct " BARE_SYN "meta nfproto ipv4 update @direct4 { " TUPLE4 " }\n" RULE "go_direct " BARE_SYN
	           "meta nfproto ipv6 update @direct6 { " TUPLE6 " }\n" RULE
	           "go_direct counter name forwarded_direct accept\n",
	        out);
	put_passed(out, "go_reply", LEDGER_replies);
	fputs(RULE "go_reply meta nfproto ipv4 update @direct4 { " REPLY_TUPLE4 " }\n" RULE
	           "go_reply meta nfproto ipv6 update @direct6 { " REPLY_TUPLE6 " }\n" RULE
	           "go_reply counter name forwarded_replies accept\n",
	        out);
	put_passed(out, "go_reset", LEDGER_resets);
	fputs(RULE "go_reset counter name forwarded_resets accept\n", out);
	put_passed(out, "go_error", LEDGER_errors);
	fputs(RULE "go_error counter name forwarded_errors accept\n", out);
	put_passed(out, "go_known", LEDGER_known);
	fputs(RULE "go_known accept\n" RULE "not_ours meta pkttype != host ", out);
	ledger_put_count(out, LEDGER_multicast);
	fputs(" return\n", out);
	put_passed(out, "not_ours", LEDGER_no_listener);
}

static void put_actions(FILE *out, const struct render_params *params)
{
	chains_put_gate(out, params->gate_open);
	fputs(RULE "act_relay jump bans\n" RULE "act_relay_direct jump bans\n" RULE "act_reject jump bans\n" RULE
	           "act_bypass jump bans\n",
	        out);
	fputs(RULE "act_relay " SYN_ACK "goto go_reply\n" RULE "act_relay_direct " SYN_ACK "goto go_reply\n", out);
	fputs(RULE "act_relay " BARE_RESET "goto go_reset\n" RULE "act_relay_direct " BARE_RESET "goto go_reset\n",
	        out);
	put_tproxies(out, "act_relay", params);
	put_count(out, "act_relay", LEDGER_no_listener_socket);
	fputs(RULE "act_relay counter name no_listener_socket drop\n", out);
	fputs(RULE "act_relay_direct jump direct_gate\n", out);
	put_tproxies(out, "act_relay_direct", params);
	fputs(RULE "act_relay_direct goto go_direct\n", out);
	put_count(out, "act_reject", LEDGER_rejected);
	put_count(out, "act_drop", LEDGER_dropped);
	put_passed(out, "act_bypass", LEDGER_bypassed);
	fputs(RULE "act_reject meta l4proto tcp counter name rejected reject with tcp reset\n" RULE
	           "act_reject counter name rejected reject with icmpx port-unreachable\n" RULE
	           "act_drop counter name dropped drop\n" RULE "act_bypass counter name bypassed accept\n",
	        out);
}

void chains_put_gate(FILE *out, bool open)
{
	if (open)
		fputs(RULE "direct_gate goto go_direct\n", out);
}

/* A FIN or RST of a remembered flow. */
static void put_flow_ends(FILE *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(lookups); i++)
		fprintf(out,
		        RULE "flow_ends %s @direct%c update @closing%c { %s } delete @direct%c { %s } goto go_known\n",
		        lookups[i].tuple, lookups[i].family, lookups[i].family, lookups[i].tuple, lookups[i].family,
		        lookups[i].tuple);
}

static void put_remembered(FILE *out, const char *set)
{
	for (size_t i = 0; i < ARRAY_SIZE(lookups); i++)
		fprintf(out, RULE "pre_tcp %s @%s%c update @%s%c { %s } goto go_known\n", lookups[i].tuple, set,
		        lookups[i].family, set, lookups[i].family, lookups[i].tuple);
}

/* What the other engine has classified. */
static void put_handed(FILE *out, const char *chain, const struct render_params *params)
{
	fprintf(out, RULE "%s meta mark & 0x%08x == 0x%08x jump act_handed\n", chain, params->mark_mask, params->mark);
}

static void put_act_handed(FILE *out, const struct render_params *params)
{
	uint32_t own = marks_of(params).own;

	fprintf(out,
	        RULE "act_handed jump bans\n" RULE
	             "act_handed meta l4proto tcp socket mark & 0x%08x == 0x%08x goto take_tcp\n",
	        own, own);
	put_tproxy(out, "act_handed", "udp", params);
	fprintf(out, RULE "act_handed meta mark set meta mark & 0x%08x\n", ~params->mark_mask);
}

static void put_pre_tcp(FILE *out, const struct render_params *params)
{
	put_handed(out, "new_tcp", params);
	fputs(RULE "new_tcp meta nfproto vmap { ipv4 : jump tcp4, ipv6 : jump tcp6 }\n" RULE "new_tcp goto not_ours\n",
	        out);
	fputs(RULE "pre_tcp " BARE_SYN "goto new_tcp\n" RULE "pre_tcp jump established\n" RULE
	           "pre_tcp socket transparent 1 ",
	        out);
	put_take_fast(out, "pre_tcp", LEDGER_relay_tcp, params);
	fputs(RULE "pre_tcp tcp flags & (fin | rst) != 0 jump flow_ends\n", out);
	put_remembered(out, "direct");
	put_remembered(out, "closing");
	fputs(RULE "pre_tcp goto new_tcp\n", out);
}

static void put_pre_udp(FILE *out, const struct render_params *params)
{
	uint32_t own = marks_of(params).own;

	put_handed(out, "pre_udp", params);
	fprintf(out, RULE "pre_udp socket mark & 0x%08x == 0x%08x ", own, own);
	put_take_fast(out, "pre_udp", LEDGER_relay_udp, params);
	fputs(RULE "pre_udp meta nfproto vmap { ipv4 : jump udp4, ipv6 : jump udp6 }\n" RULE "pre_udp goto not_ours\n",
	        out);
}

static void put_icmp(FILE *out, const struct render_params *params)
{
	uint32_t errors = marks_of(params).errors;

	fprintf(out,
	        RULE "prerouting icmp type destination-unreachable icmp code != frag-needed "
	             "socket mark & 0x%08x == 0x%08x goto go_error\n" RULE
	             "prerouting icmpv6 type destination-unreachable "
	             "socket mark & 0x%08x == 0x%08x goto go_error\n" RULE
	             "prerouting meta l4proto { icmp, ipv6-icmp } socket transparent 1 socket wildcard 0 "
	             "goto take_icmp\n",
	        errors, errors, errors, errors);
}

/* --- bans, and limits of accepted connections --- */

static bool is_ban_set(const char *name, const struct ban_lengths *lengths, int family, unsigned length)
{
	char wanted[LIMITS_NAME_MAX];

	return ban_lengths_has(lengths, family, length) && strcmp(name, limits_ban_set(family, length, wanted)) == 0;
}

bool chains_is_ban_set(const char *name, const struct ban_lengths *lengths)
{
	bool found = false;

	for (int family = 4; family <= 6 && !found; family += 2)
		for (unsigned length = 0; length <= (family == 4 ? 32U : 128U) && !found; length++)
			found = is_ban_set(name, lengths, family, length);
	return found;
}

void chains_put_ban_sets(FILE *out, const struct ban_lengths *lengths)
{
	char name[LIMITS_NAME_MAX];

	for (int family = 4; family <= 6; family += 2)
		for (unsigned length = 0; length <= (family == 4 ? 32U : 128U); length++)
			if (ban_lengths_has(lengths, family, length))
				fprintf(out,
				        "add set inet " NFT_TABLE
				        " %s { type ipv%d_addr; size %d; flags dynamic,timeout; }\n",
				        limits_ban_set(family, length, name), family, LIMITS_BANS_MAX);
}

static void put_ban_rule(FILE *out, const char *chain, int family, unsigned length, uint32_t mark)
{
	char name[LIMITS_NAME_MAX];

	fprintf(out, RULE "%s ", chain);
	nftset_put_address(out, family == 4 ? AF_INET : AF_INET6, "saddr", length);
	fprintf(out, " @%s ", limits_ban_set(family, length, name));
	if (mark)
		fprintf(out, "socket mark & 0x%08x == 0x%08x ", mark, mark);
	fputs("jump banned\n", out);
}

void chains_put_bans_flush(FILE *out)
{
	fputs("flush chain inet " NFT_TABLE " banned\nflush chain inet " NFT_TABLE " bans\nflush chain inet " NFT_TABLE
	      " established\n",
	        out);
}

void chains_put_bans(FILE *out, const struct render_params *params, const struct ban_lengths *lengths, bool metered)
{
	uint32_t own = marks_of(params).own;

	/* What a target answers is no client's. Only what the other engine has handed over can get here with it. */
	fprintf(out, RULE "banned meta l4proto udp socket mark & 0x%08x == 0x%08x return\n", own, own);
	fputs(RULE "banned ip saddr @exempt4 return\n" RULE "banned ip6 saddr @exempt6 return\n", out);
	put_count(out, "banned", LEDGER_banned);
	fputs(RULE "banned counter name banned drop\n", out);
	for (int family = 4; family <= 6; family += 2)
		for (unsigned length = 0; length <= (family == 4 ? 32U : 128U); length++)
			if (ban_lengths_has(lengths, family, length)) {
				put_ban_rule(out, "bans", family, length, 0);
				put_ban_rule(out, "established", family, length, own);
			}
	if (metered)
		fprintf(out,
		        RULE "established socket mark & 0x%08x == 0x%08x "
		             "meta nfproto vmap { ipv4 : jump meter4, ipv6 : jump meter6 }\n",
		        own, own);
}

/* Packets to a group are forwarded in copies; they have been accounted for before. */
static void put_forward(FILE *out)
{
	fputs(RULE "ledger_forward meta pkttype != host return\n" RULE "ledger_forward iifname \"lo\" return\n", out);
	put_count(out, "ledger_forward", LEDGER_forwarded);
}

void chains_put_rules(FILE *out, const struct render_params *params)
{
	static const char dispatch[] = "meta l4proto vmap { tcp : goto pre_tcp, udp : goto pre_udp }\n";

	put_take(out, "take_tcp", LEDGER_relay_tcp, params);
	put_take(out, "take_udp", LEDGER_relay_udp, params);
	put_take(out, "take_icmp", LEDGER_relay_icmp, params);
	put_ways_past(out);
	put_actions(out, params);
	put_act_handed(out, params);
	put_flow_ends(out);
	put_pre_tcp(out, params);
	put_pre_udp(out, params);
	fputs(RULE "prerouting iifname \"lo\" accept\n" RULE "prerouting ", out);
	ledger_put_count(out, LEDGER_in);
	fprintf(out, " %s" RULE "prerouting %s", dispatch, dispatch);
	put_icmp(out, params);
	fputs(RULE "prerouting goto not_ours\n", out);
	put_forward(out);
}

static bool is_of(const struct chain_id *chain, const struct group *group)
{
	return group->shape.protocol == chain->protocol && group->shape.family == chain->family;
}

/* What is not for listeners. */
static void put_exemptions(FILE *out, const struct chain_id *chain, const char *name)
{
	if (chain->family == AF_INET6)
		fprintf(out, RULE "%s ip6 daddr fe80::/10 return\n" RULE "%s ip6 daddr ff00::/8 return\n", name, name);
}

static void put_lookups(FILE *out, const struct chain_id *chain, const char *name, const struct group *groups, size_t n,
        void (*put)(FILE *, const char *, const struct group *))
{
	bool exempted = false;

	put_exemptions(out, chain, name);
	for (size_t i = 0; i < n; i++) {
		if (!is_of(chain, &groups[i]))
			continue;
		if (!exempted && groups[i].shape.dst_len < addr_bits(chain->family)) {
			fprintf(out, RULE "%s fib daddr type { local, broadcast, multicast } return\n", name);
			exempted = true;
		}
		put(out, name, &groups[i]);
	}
}

void chains_put_classify(FILE *out, const struct chain_id *chain, const struct group *groups, size_t n)
{
	put_lookups(out, chain, chain->name, groups, n, nftset_put_lookup);
}

void chains_put_meter(FILE *out, const struct chain_id *chain, const struct group *groups, size_t n)
{
	while (n > 0 && !(is_of(chain, &groups[n - 1]) && groups[n - 1].verdict == VERDICT_LIMITED))
		n--;
	if (n > 0)
		put_lookups(out, chain, chain->meter, groups, n, nftset_put_meter);
}
