/*
 * What of the machine stands in a transparent gateway's way: pure checks over
 * facts that gatewayd/doctor.c collects. Each says whether all is well, what
 * was found, and the command that mends it. GET /doctor shows all of them, and
 * the warnings of GET /status are those that found something: one mechanism.
 */
#ifndef GW_RULES_DOCTOR_H
#define GW_RULES_DOCTOR_H

#include <jansson.h>
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gatewayd/base/addr.h"

/* A share, in percent, from which something that has an end counts as nearly full. */
#define DOCTOR_FULL_PERCENT 80
/* Connections that may wait to be accepted: the kernel's own default. */
#define DOCTOR_BACKLOG_MIN 4096
/* Descriptors that a relay should have: two for each of some thousand flows. */
#define DOCTOR_DESCRIPTORS_MIN 8192
/* Room for the database to grow in, in MiB. */
#define DOCTOR_DISK_MIN_MIB 32
/* IPv6 vanishes from a link below this. */
#define DOCTOR_MTU_MIN 1280

/* A value of /proc/sys, and the interface (or "all") where it was found; -1: it cannot be read here. */
struct doctor_sysctl {
	long value;
	char where[IFNAMSIZ];
};

/* Interfaces of listeners that are looked at: what others' chains do is asked for each of them, every second. */
#define DOCTOR_INTERFACES_MAX 32

/* Longest "family table chain" that is told; names of nft have up to 255 letters, those of people fewer. */
#define DOCTOR_CHAIN_MAX 160

/* The way back of answers, of targets that clients were seen of: how many these are, how many of them are well, do not
 * answer anybody, or answer the gateway's own address and not a client's. The texts are of the first one of these. Of
 * the targets of UDP that are well: of how many answers to clients say so, and of how many a probe by TCP. */
struct doctor_return {
	uint32_t seen, good, silent, broken;
	uint32_t udp_heard, udp_probed;
	bool ipv6, udp;
	char target[ADDR_END_MAX];
	/* Addresses: of the target, of the client, and the one of this machine that the target does answer. */
	char server[ADDR_TEXT_MAX], client[ADDR_TEXT_MAX], own[ADDR_TEXT_MAX];
	char listener[64];
};

struct doctor_facts {
	struct doctor_sysctl ip_forward, ip6_forward;
	struct doctor_sysctl rp_filter;      /* the strictest in effect: 1 is strict */
	struct doctor_sysctl src_valid_mark; /* the largest in effect */
	struct doctor_sysctl route_localnet; /* the largest, lo apart */
	struct doctor_sysctl bridge_netfilter;
	struct doctor_sysctl conntrack_count, conntrack_max;
	struct doctor_sysctl somaxconn;
	bool has_bridge; /* an interface of this kind exists */
	bool has_routing;
	unsigned routing_wrong;  /* rules and routes of ours that are missing or not as they must be */
	unsigned foreign_routes; /* others' in our table */
	char foreign_first[64];
	unsigned foreign_marks; /* others' rules before ours that look at our bits of the mark */
	uint32_t foreign_mark_priority;
	uint32_t table, mark, mark_mask;
	bool table_differs;    /* our nft table is not as it must be, and was not put right */
	const json_t *foreign; /* kernel_nft_foreign's findings, borrowed; NULL: could not be read */
	const char *interfaces[DOCTOR_INTERFACES_MAX]; /* of the enabled listeners, borrowed; NULL: any interface */
	size_t n_interfaces;
	bool relay_runs;
	uint32_t relay_uid; /* whose sockets the flows' are */
	int64_t revision, nft_generation, route_generation, relay_generation;
	uint64_t descriptors_limit, descriptors_used; /* of the relay; 0: unknown */
	const char *sockmap_state, *sockmap_why;
	bool ebpf;            /* that engine intercepts */
	const char *ebpf_why; /* it is asked for and does not; "": it does, or is not asked for */
	bool sockmap_wanted;
	size_t prefilters,
	        prefilters_failed; /* those in force or to be, and those that their interface does not take */
	const char *prefilter_first, *prefilter_why; /* interface of the first such, and the reason */
	long mtu_least;                              /* of the interfaces that are up; 0: there are none */
	char mtu_where[IFNAMSIZ];
	int64_t clock, newest_revision_at; /* seconds since 1970; 0: there is none */
	uint64_t disk_free_mib;            /* UINT64_MAX: cannot be asked */
	const char *state_dir, *sqlite_version;
	int sqlite_number; /* 3040001 is 3.40.1 */
	struct doctor_return back;
};

struct doctor_check {
	const char *name; /* a-z and _ */
	bool ok;
	char detail[512], fix[384]; /* fix: "" if ok */
};

/* Every check, in a fixed order: how many there are, at most max; into ret. */
#define DOCTOR_CHECKS_MAX 32
size_t doctor_examine(const struct doctor_facts *facts, struct doctor_check ret[DOCTOR_CHECKS_MAX]);

#endif
