/*
 * One thread of the relay: its event loop and everything that only this
 * thread touches (flows, tables, pools, timers, sockets). The control thread
 * reaches it by orders in a mailbox with one writer and one reader, and sees
 * how far it has come; there are no locks.
 */
#ifndef GW_RELAY_LOOP_H
#define GW_RELAY_LOOP_H

#include <pthread.h>
#include <stdatomic.h>

#include "gatewayd/base/stats.h"
#include "gatewayd/relay/buffers.h"
#include "gatewayd/relay/config.h"
#include "gatewayd/relay/connect.h"
#include "gatewayd/relay/flow.h"
#include "gatewayd/relay/keep.h"
#include "gatewayd/relay/limit.h"
#include "gatewayd/relay/listen.h"
#include "gatewayd/relay/overload.h"
#include "gatewayd/relay/peek.h"
#include "gatewayd/relay/pipes.h"
#include "gatewayd/relay/reap.h"
#include "gatewayd/relay/sockmap.h"
#include "gatewayd/relay/straight.h"
#include "gatewayd/relay/udp.h"
#include "gatewayd/relay/shortcut_maps.h"
#include "gatewayd/relay/udp_shortcut.h"
#include "gatewayd/relay/wheel.h"

/* Events taken from epoll at once. */
#define LOOP_EVENTS 256
/* The longest pause of a flow that waits for what nobody tells (loop_wait). */
#define LOOP_WAIT_MAX_MS 64
/* Orders that may wait; a power of two. A thread that lets so many pile up hangs. */
#define LOOP_ORDERS_MAX 1024

enum order_kind {
	ORDER_PING,     /* nothing but to be seen done */
	ORDER_LISTEN,   /* fd: accept from it, once there is a configuration */
	ORDER_HELP,     /* fd: the same, but it is another thread's */
	ORDER_UDP,      /* fd: read datagrams from it, once there is a configuration */
	ORDER_APPLY,    /* batch: carry it out; loop.apply_result says how it went */
	ORDER_SOCKMAP,  /* sockmap: the maps are there */
	ORDER_SHORTCUT, /* shortcut: the maps are there */
	ORDER_SAMPLE,   /* look at the flows' connections, bit by bit */
	ORDER_KILL,     /* kill: reset this flow; loop.kill_found says whether it was there */
	ORDER_REAP,     /* look for flows that are to be reset because of their target */
	ORDER_STATS,    /* place: count there from now on */
	ORDER_KEEP,     /* fd: the channel of kept flows; becomes the loop's */
	ORDER_HANDOVER, /* deadline_ms: stop accepting, give all flows to the daemon, park */
	ORDER_DRAIN     /* stop accepting */
};

struct order {
	enum order_kind kind;
	uint64_t sequence; /* ascending; loop.done says which one was carried out last */
	union {
		int fd;
		uint32_t deadline_ms;
		const struct config_batch *batch;
		struct sockmap_set *sockmap;
		const struct shortcut_maps *shortcut;
		struct stats_place place;
		struct {
			uint64_t id;
			uint32_t row;
			uint8_t table; /* enum stats_table */
		} kill;
	};
};

struct loop {
	/* The thread's own. */
	int epoll_fd;
	enum proto_mover mode; /* of all flows; AUTO: as the listener says */
	unsigned number;       /* among the relay's threads */
	uint64_t now_ms;       /* read once per turn */
	struct stats_thread *stats;
	struct stats_place place; /* of which `stats` is the thread */
	struct config *config;
	uint32_t queue_head, queue_tail; /* flows with more to do */
	uint32_t *waits; /* indices of flows that are looked at without an event; room for each flow once */
	uint32_t n_waits;
	struct sockmap_set *sockmap;          /* NULL as long as there is none */
	const struct shortcut_maps *shortcut; /* the same */
	struct flow_table flows;
	struct wheel wheel;
	struct buffers buffers;
	struct limit limits[STATS_COUNTERS];
	struct stats_thread early_stats; /* counts until the daemon has given memory */
	struct listen_sockets listen;
	struct pipes pipes;
	struct keep keep;
	struct peek peek;
	struct udp *udp;
	uint64_t flow_id;     /* the last one given */
	bool account_late;    /* some flows do not know yet where they are counted (account.h) */
	uint32_t shape_next;  /* flow whose rate is looked at next; FLOW_NONE: all are as configured (shape.h) */
	uint32_t sample_next; /* flow whose connections are looked at next; FLOW_NONE: all have been (sample.h) */
	struct reap reap;
	struct straight straight;
	uint64_t handover_ms; /* hands over by then; 0: does not */
	bool again;           /* the next turn is not to wait for events */

	/* Between the threads. */
	pthread_t thread;
	int wake_fd;  /* written by the control thread when there are orders */
	int reply_fd; /* written by this thread when it has carried some out; the control thread's */
	_Alignas(64) _Atomic uint32_t orders_head; /* next to be written */
	_Alignas(64) _Atomic uint32_t orders_tail; /* next to be carried out */
	_Atomic uint64_t done;
	_Atomic int apply_result; /* 0 or a negative errno */
	struct overload overload; /* a change is told through reply_fd */
	_Atomic uint32_t open_flows;
	_Atomic bool kill_found;
	_Atomic bool parked;  /* has handed over all flows, and touches none any more */
	_Atomic bool tracked; /* conntrack is in use on this machine; the control thread's */
	struct order orders[LOOP_ORDERS_MAX];
};

/* Makes a loop with room for max_flows, without starting it. number: its own among the relay's, below
 * STATS_THREADS_MAX. 0 or a negative errno. */
int loop_new(unsigned number, enum proto_mover mode, uint32_t max_flows, int reply_fd, struct loop **ret);
/* Starts the thread, which runs until the process ends. 0 or a negative errno. */
int loop_start(struct loop *loop);
/* For a loop that was never started. */
void loop_free(struct loop *loop);
/* Called by the control thread. -EAGAIN if too many orders wait. */
int loop_order(struct loop *loop, const struct order *order);

/* The rest is called by the thread itself. */

/* An id that no flow of this or any earlier relay has had. */
uint64_t loop_next_flow_id(struct loop *loop);
/* The cookies of the channel of kept flows, and of the ring of straight ones. */
uint64_t loop_keep_cookie(void);
uint64_t loop_straight_cookie(void);
/* Puts the flow into the list of those that go on without an event; legal if it is there already. */
void loop_queue(struct loop *loop, struct flow *flow);
/* Takes it out; legal if it is not there. */
void loop_unqueue(struct loop *loop, struct flow *flow);
/* Counts what became of the client's port, if it was to be kept. */
void loop_count_port(struct loop *loop, enum connect_port port);
/* Has a flow in the sockmap looked at again soon (tcp_continue), later each time until a look does not ask for another
 * one. */
void loop_wait(struct loop *loop, struct flow *flow);
/* The flow does not wait any more; legal if it does not. */
void loop_unwait(struct loop *loop, struct flow *flow);
/* Logs, not too often, that the event of this counter happened. error: a negative errno, or 0. */
void loop_warn(struct loop *loop, enum stats_counter counter, int error);
/* The same, of the flow with this origin: whose it is, and which target it was to have, is told with it. */
void loop_warn_of(struct loop *loop, enum stats_counter counter, int error, const struct flow_origin *origin);

#endif
