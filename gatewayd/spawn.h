/* Starting the relay's process with exactly the rights and descriptors it is to have. Called by worker.c. */
#ifndef GW_SPAWN_H
#define GW_SPAWN_H

#include <sys/types.h>

#include "gatewayd/options.h"

/* The user the relay runs as, where it exists; else the unprivileged "nobody". */
#define SPAWN_RELAY_USER "gateway-relay"

/* Longest time that the program may take to say that it works. */
#define SPAWN_PROBE_MS 2000

/* Forks and executes the relay: channel becomes its descriptor 3, control its descriptor 4, all others are closed.
 * Both stay the caller's. The child has its own user and only what isolate_drop leaves, where the daemon may give that.
 * ret_pidfd is a close-on-exec process descriptor. 0 or negative errno; a failing exec shows as exit status 127. */
int spawn_relay(const struct options *options, unsigned threads, unsigned max_flows, int channel, int control,
        pid_t *ret_pid, int *ret_pidfd);

/* Whether the relay's program can be started, as its user: runs it with --probe. 0, -ENOEXEC (it cannot, or says so),
 * -ETIMEDOUT, or another negative errno. Waits up to SPAWN_PROBE_MS. */
int spawn_probe(const struct options *options);

/* The user that a relay which is started now runs as, and so whose sockets its flows' are. */
uid_t spawn_relay_uid(void);

/* Most flows the relay can hold: from the options, or from the descriptor limit. */
unsigned spawn_max_flows(const struct options *options);

#endif
