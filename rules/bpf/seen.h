/*
 * From which peers of which flows TCP packets have come in lately: what a
 * program asks before it has the kernel search for a connection. For programs
 * of rules/bpf.
 *
 * Theory of operation:
 *
 * A request for a connection whose addresses and ports have a socket already -
 * in TIME_WAIT, half open, or of a connection whose client has forgotten it -
 * must not be answered with a cookie: the socket would get the ACK, and answer
 * it with numbers of its own. The client, which believes to be connected,
 * would wait for nothing until it gives up, or the socket ends. To have the
 * kernel search for that socket costs as much as all the rest of an answer,
 * and in a flood the search finds nothing.
 *
 * Where there is such a socket, there were packets of its peer's lately. So
 * each packet of TCP that is let through and is no SYN notes that its flow was
 * heard of, and only for a request of such a flow the kernel is asked. A
 * flow's place is a byte in a table, found by a hash; in it stands the period
 * (about a minute) in which it was heard of last. Established flows read it,
 * and write once in a period. Nothing needs to be cleared: what is old counts
 * no more. Flows that share a byte look alike, which costs a search. Nobody
 * can choose them, for the hash has keys by chance.
 *
 * What a flood can do: SYNs write nothing. One that begins half a connection
 * in the stack's queue does, but for those there is no room in a flood. A
 * flood of ACKs with false sources can fill the table: then each request is
 * searched for, as if there was no table.
 *
 * When a socket is there and the byte does not say so:
 * - The flow is older than the program. It has the kernel asked about each
 *   request until a whole window has gone by since the first one. A program
 *   that takes the place of another on the interface goes on with that one's
 *   table; one of a new daemon, or after the interface was without one, begins
 *   anew. The table is not pinned: no other version of the program will ever
 *   read it.
 * - It was silent for longer than the window. TIME_WAIT is shorter. Of a
 *   silent peer the kernel asks each minute whether it is there, and ends the
 *   connection after two (gatewayd/base/keepalive.h), which is less than the
 *   window: whoever is there has answered, and been heard. What is left are
 *   flows that the kernel itself carries (stitch.h), which are not asked.
 *   Their packets come through here as all others do.
 * - Its packets come in at another interface, and the new request at this one:
 *   the path has changed within a minute of the last connection, and the
 *   client took the same port again.
 * - Its packets were all fragments, had more extension headers than are read,
 *   or were dropped here: nothing of those is known, or has reached the
 *   socket. Acknowledgements are too small to be cut.
 * - Its packets had the tag of a VLAN or not: that is no part of the flow,
 *   here or in the kernel's search. What is in `allow` is noted as well, for
 *   the list may change.
 * - An interception program (interception: ebpf) comes behind this one: all
 *   the same.
 * In each of these the client has to have lost a connection and to use its
 * port again for the same server while queues are full. It waits, and as its
 * ACK has been noted, its next request with the same port goes to the stack.
 * All others are not concerned.
 */
#ifndef GW_RULES_BPF_SEEN_H
#define GW_RULES_BPF_SEEN_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "rules/bpf/packet.h"
#include "rules/prefilter.h"

const volatile struct prefilter_seen seen_params = { 0 };
/* In which period the first request for a connection has come; 0: none has. */
__u64 seen_since = 0;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PREFILTER_SEEN_SLOTS / 8);
	__type(key, __u32);
	__type(value, __u8[8]);
} seen SEC(".maps");

static __always_inline __u64 seen_period(void)
{
	return bpf_jiffies64() >> seen_params.shift;
}

/* One key for each word, two by two: sums of such products collide as seldom as chance has it for whoever does not
 * know the keys, and the processor makes them side by side. */
static __always_inline __u64 seen_product(__u32 a, __u32 b, __u32 i)
{
	return (__u64)(a + seen_params.keys[i]) * (__u32)(b + seen_params.keys[i + 1]);
}

static __always_inline __u32 seen_slot(const struct packet *packet)
{
	const __u32 *src = packet->src.words, *dst = packet->dst.words;
	__u64 sum = seen_product((__u32)packet->sport << 16 | packet->dport, packet->family, 0);

	sum += seen_product(src[0], dst[0], 2);
	if (packet->family != AF_INET)
		sum += seen_product(src[1], dst[1], 4) + seen_product(src[2], dst[2], 6) +
		       seen_product(src[3], dst[3], 8);
	return (__u32)(sum * seen_params.factor >> (64 - PREFILTER_SEEN_BITS));
}

static __always_inline __u8 *seen_find(const struct packet *packet)
{
	__u32 slot = seen_slot(packet), word = slot / 8;
	__u8 *bytes = bpf_map_lookup_elem(&seen, &word);

	return bytes ? bytes + slot % 8 : NULL;
}

/* The packet's flow is heard of. Most packets only read. */
static __always_inline void seen_note(const struct packet *packet)
{
	__u8 *slot = seen_find(packet), now = (__u8)(PREFILTER_SEEN_EVER | seen_period());

	if (slot && *(volatile __u8 *)slot != now)
		*(volatile __u8 *)slot = now;
}

/* To be called with each request for a connection. */
static __always_inline void seen_begin(void)
{
	if (*(volatile __u64 *)&seen_since == 0)
		seen_since = seen_period();
}

/* Whether the packet's flow may have a socket: somebody of its slot was heard of lately, or the program is too new to
 * say. */
static __always_inline int seen_lately(const struct packet *packet)
{
	__u64 period = seen_period();
	__u8 *slot = seen_find(packet);

	if (period - *(volatile __u64 *)&seen_since <= PREFILTER_SEEN_PERIODS || !slot)
		return 1;
	return (*slot & PREFILTER_SEEN_EVER) &&
	       ((period - *slot) & ~PREFILTER_SEEN_EVER & 0xff) <= PREFILTER_SEEN_PERIODS;
}

#endif
