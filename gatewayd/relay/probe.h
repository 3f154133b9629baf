/*
 * Probes of the way back: does the answer to a packet from a client's address
 * come back to this machine? Asked for by the daemon (PROBE, PROBED), made by
 * the control thread, which has the relay's rights and its network namespace;
 * no flow and no loop has to do with it.
 *
 * Theory of operation: a connect from the client's address, with a port that
 * the kernel chooses, and if that is not answered another from the gateway's
 * own. An answer to the second alone says that answers to clients go another
 * way. Each ends in a reset before the handshake's last packet, so the
 * target's program has nothing to accept.
 */
#ifndef GW_RELAY_PROBE_H
#define GW_RELAY_PROBE_H

#include "gatewayd/base/proto.h"
#include "gatewayd/relay/flow.h"

/* Probes under way at once; the daemon asks for fewer. Each has one descriptor at a time. */
#define PROBES_MAX 16
/* Longest wait for an answer: the kernel asks a second time after one second. */
#define PROBE_ANSWER_MS 2500

struct probe {
	struct proto_probed answer; /* as far as it is known */
	struct flow_origin origin;
	bool as_gateway; /* the second of its connects */
	int fd;          /* that connects; -1: none, it is over */
	uint64_t deadline_ms;
};

struct probes {
	int epoll_fd; /* readable when a probe has something to tell; -1: none was ever made */
	unsigned n;
	struct probe probe[PROBES_MAX];
};

/* No probes. */
void probes_init(struct probes *probes);
/* Begins one. What cannot be begun is over, with an answer of its own. -EBUSY: too many are under way, -EBADMSG: its
 * addresses make no sense, or another errno: nothing can be probed. */
int probes_begin(struct probes *probes, const struct proto_probe *message, uint64_t now_ms);
/* Milliseconds until one of them is over for want of an answer, at most `longest`, where -1 is any time. */
int probes_timeout(const struct probes *probes, uint64_t now_ms, int longest);
/* Takes one that is over by now, with its answer. False: there is none. */
bool probes_next(struct probes *probes, uint64_t now_ms, struct proto_probed *ret);

#endif
