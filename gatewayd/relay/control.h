/*
 * The control thread: the channel to the daemon, the relay's view of its
 * configuration generation, and orders to the loops. The daemon may go and
 * come back at any time; flows are not touched by that.
 */
#ifndef GW_RELAY_CONTROL_H
#define GW_RELAY_CONTROL_H

#include "gatewayd/relay/health.h"
#include "gatewayd/relay/loop.h"

/* Descriptors that the relay is started with. */
#define CONTROL_CHANNEL_FD 3 /* connected to the daemon */
#define CONTROL_LISTEN_FD  4 /* where a later daemon connects */

/* Listening sockets in all: as many loops as a relay can have, in two families and protocols, and as much again to
 * spare. */
#define CONTROL_SOCKETS_MAX 512
/* A daemon that takes no message for this long is taken for dead. */
#define CONTROL_SEND_TIMEOUT_MS 2000
/* How often it is looked whether the last flow has ended, while shutting down. */
#define CONTROL_DRAIN_POLL_MS 20

/* Exit status for a daemon of another protocol version: EX_CONFIG, which a restart will not cure. */
#define CONTROL_EXIT_VERSION 78

struct control_params {
	struct loop **loops;
	unsigned n_loops;
	struct health *health; /* NULL: nothing is checked */
	uint32_t max_flows;
	uid_t daemon_uid;                     /* besides 0, who may connect as a daemon */
	int reply_fd;                         /* the eventfd that the loops write to */
	int signal_fd;                        /* a signalfd for SIGTERM and SIGINT */
	const char *program;                  /* which file this process was started from */
	const struct proto_message *enclosed; /* an ENCLOSED for the daemon; NULL: it is not told */
	bool has_channel;                     /* whether CONTROL_CHANNEL_FD is open */
	bool has_listen;                      /* whether CONTROL_LISTEN_FD is open */
};

/* Serves the channel until the relay is told to end. Returns the exit status of the process. */
int control_run(const struct control_params *params);

#endif
