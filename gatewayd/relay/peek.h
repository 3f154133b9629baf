/*
 * What a client says first, looked at and left in its socket, so that the
 * flow goes on as any other: which protocol, and which of its listener's
 * routes that makes. Called by tcp.c; knows nothing of targets and timers.
 */
#ifndef GW_RELAY_PEEK_H
#define GW_RELAY_PEEK_H

#include "gatewayd/base/stats.h"
#include "gatewayd/relay/first_routes.h"

/* How long a client may take to say what it wants. Protocols in which the server speaks first wait for so long, and
 * then take what is for connections that say nothing. */
#define PEEK_WAIT_MS 3000

/* Room for one look; each thread has one. */
struct peek {
	struct first first;
	uint8_t bytes[FIRST_BYTES_MAX];
};

/* Looks at what waits in the socket. final: no more will come, or none is waited for. 1: that suffices, and then
 * *ret is what was understood (inside peek) or NULL, and *ret_counter says how it went; 0: more bytes are needed;
 * or a negative errno of the socket. */
int peek_look(struct peek *peek, int fd, bool final, const struct first **ret, enum stats_counter *ret_counter);

#endif
