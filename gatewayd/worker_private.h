/* What the files worker*.c share. */
#ifndef GW_WORKER_PRIVATE_H
#define GW_WORKER_PRIVATE_H

#include "gatewayd/worker.h"

#include "gatewayd/base/keep.h"
#include "gatewayd/base/msg.h"
#include "gatewayd/sockets.h"

struct worker {
	sd_event *event;
	const struct options *options;
	struct worker_owner owner;
	enum worker_state state;

	struct relay_socket *sockets; /* 2 per thread once prepared */
	unsigned n_sockets, threads;
	struct meter *meter;
	unsigned bank; /* of the meter that the relay writes to, as this run; 0: to none */
	uint32_t run;
	char control_path[256];

	struct keeper *keeper;
	struct movers *movers;
	unsigned relay_threads; /* of the relay that lives */
	bool foreign;           /* it speaks another version of the protocol: it can only hand over */
	bool outdated;          /* it was started from another file than today's */
	bool handing_over;      /* it has been told to */
	bool handed_over;       /* and it has */
	bool killed;            /* by us, for a reason */

	struct msg_channel *channel;
	pid_t pid;
	int pidfd;
	bool is_child;
	sd_event_source *channel_source, *pid_source, *restart_source, *ping_source;

	int64_t generation; /* that the relay does as it says; it has not been told of those that changed nothing for it
	                     */
	int64_t served;     /* the last one that it was told */
	int64_t ready;      /* last READY */
	bool unconcerned;   /* by the change that is being made */
	bool overloaded;    /* it can hardly take more flows */
	struct proto_enclosed enclosed;
	bool refused;
	int64_t unaccounted; /* flows that were open when the last relay died and are not held; some may have ended then
	                      */
	uint64_t over;       /* flows held at a death that had ended already, as counted before the last death */
	char reason[256];
	uint64_t killed_id; /* the last answer about a flow to be reset, and what it was */
	bool killed_found;
	uint64_t started_us;
	unsigned pings; /* since its last sign of life */
	uint64_t restarts, handovers;
	bool keep_hung_up; /* the relay has closed a channel of kept flows */
	bool crashed;      /* the last relay has ended by its own fault */
	unsigned young_deaths;
};

/* worker.c: kills the relay, for this reason; NULL: it is most likely dead already. */
void worker_kill(struct worker *worker, const char *why);
/* worker.c: the daemon's HELLO. 0 or a negative errno. */
int worker_send_hello(struct worker *worker, int64_t generation);

/* worker_flows.c: what holds the flows. 0 or a negative errno. */
int worker_make_keeper(struct worker *worker);
/* The relay that wrote to this bank (STATS_BANKS: to none) is dead: its flows wait for the next one. Those that were
 * not held end in resets. */
void worker_bequeath(struct worker *worker, unsigned bank, bool handed_over);
/* Gives a new relay the channels of kept flows, and hands it the waiting ones. 0 or a negative errno. */
int worker_send_keep_channels(struct worker *worker);
/* Notes from a relay's HELLO what it can be used for. */
void worker_note_hello(struct worker *worker, const struct proto_hello *hello);
/* Whether a relay that was found is to be replaced, and its successor can be. */
bool worker_wants_successor(const struct worker *worker);
/* Tells a relay that was found, and does not know us yet, to hand over. */
void worker_succeed(struct worker *worker);

#endif
