/*
 * The maps of the sockmap mover as one thread holds them: descriptors that the
 * daemon handed over, shared by all threads, and the thread's own ring of
 * notices. tcp_sockmap.c uses them, control.c collects them.
 */
#ifndef GW_RELAY_SOCKMAP_H
#define GW_RELAY_SOCKMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/base/proto.h"
#include "gatewayd/base/stats.h"
#include "gatewayd/relay/ring.h"

/* What came from the daemon so far. Written by the control thread until it is complete, never changed after. */
struct sockmap_set {
	int rx, tx, directions, controls;
	struct {
		struct ring ring;
		int fd; /* to be polled */
		uint32_t number;
	} ring[STATS_THREADS_MAX];
	bool complete;
};

/* An empty set. */
void sockmap_set_init(struct sockmap_set *set);
/* Adds one map. *fd is taken over (-1 afterwards) if it is kept: one that came before, or for no thread of ours, is
 * not. 1: the set of a relay of n_threads is complete by this; 0; -EBADMSG (nonsense) or another negative errno. */
int sockmap_set_add(struct sockmap_set *set, const struct proto_sockmap *message, unsigned n_threads, int *fd);

#endif
