/*
 * What the relay may move bytes with, beyond what every kernel can: the
 * sockmap. Tries in a process of its own whether the kernel does it right,
 * loads and pins the maps if so, and hands them to relays. Used by worker.c;
 * the status tells what came out.
 */
#ifndef GW_MOVERS_H
#define GW_MOVERS_H

#include <systemd/sd-event.h>

#include "gatewayd/base/msg.h"
#include "gatewayd/options.h"

enum movers_state {
	MOVERS_OFF,     /* forbidden by --mover, or there is nowhere to pin maps */
	MOVERS_TESTING, /* the check runs */
	MOVERS_ON,      /* maps are there; relays get them */
	MOVERS_FAILED,  /* the kernel does not do what is needed */
	MOVERS_STATES
};

struct movers;

/* Nothing is done yet; state OFF. options and event must outlive it. ready is called when the state has become ON, by
 * the event loop. 0 or -ENOMEM. */
int movers_new(sd_event *event, const struct options *options, void (*ready)(void *userdata), void *userdata,
        struct movers **ret);
void movers_free(struct movers *movers);
/* Begins the check, unless there is a reason not to; does not wait for it. */
void movers_start(struct movers *movers);
/* Sends the maps to a relay of so many threads, if the state is ON. Does not flush. 0, or the channel's error. */
int movers_send(struct movers *movers, struct msg_channel *channel, unsigned threads, int timeout_ms);

/* Removes from the maps what a relay that died has left. Only while no relay lives that was given them: one that does
 * writes there, too. */
void movers_sweep(struct movers *movers);

/* How far it is, and the word for it in the status. */
enum movers_state movers_state(const struct movers *movers);
const char *movers_state_name(enum movers_state state);
/* Why the state is what it is; "" if there is nothing to say. */
const char *movers_why(const struct movers *movers);

/* --bpf-check: does the check in this process, says on standard output why it failed. The exit status. */
int movers_check(void);

#endif
