/*
 * The short cut of flows from the daemon's side: the program is attached to
 * all interfaces while a listener can use it, its maps are handed to relays,
 * and whenever rules or bans change, UDP flows have to come by way of the
 * rules and the relay again. TCP flows that the kernel carries cannot come
 * back: those of a banned client are held, that is, their packets meet the
 * rules, which drop them. Used by daemon.c and worker.c; the status tells what
 * came out.
 */
#ifndef GW_SHORTCUT_H
#define GW_SHORTCUT_H

#include <jansson.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "gatewayd/base/addr.h"
#include "gatewayd/base/msg.h"
#include "gatewayd/options.h"
#include "rules/snapshot.h"

struct shortcut;

/* Loads the program if there is no reason against it, and takes over the maps of an earlier daemon. options must
 * outlive it. 0 or -ENOMEM. */
int shortcut_new(const struct options *options, struct shortcut **ret);
/* What is pinned and attached stays in force. Legal for NULL. */
void shortcut_free(struct shortcut *shortcut);

/* What is asked about TCP flows that the kernel carries. */
struct shortcut_owner {
	void *userdata;
	void (*begin)(void *userdata); /* before the first of several questions in a row */
	bool (*is_banned)(void *userdata, const struct addr *client);
	bool (*is_known)(void *userdata, uint64_t flow); /* a relay, or the next one, looks after it */
};
/* From here on, once a second, whether a relay serves or not: looks whether others want to see each packet, and after
 * TCP flows. 0, or what sd-event says. */
int shortcut_watch(struct shortcut *shortcut, sd_event *event, const struct shortcut_owner *owner);

/* Whether flows of this listener may take it: nothing of it wants to see each packet. */
bool shortcut_suits(const struct listener *listener);

/* This configuration is in force from now on. */
void shortcut_follow(struct shortcut *shortcut, const struct snapshot *snapshot);
/* Something that packets have to pass has changed: a rule, or who is banned. Legal for NULL. */
void shortcut_flush(struct shortcut *shortcut);
/* While anything holds, everything goes by way of the rules and the relay. Calls count: one release for each hold.
 * Legal for NULL. */
void shortcut_hold(struct shortcut *shortcut);
void shortcut_release(struct shortcut *shortcut);
/* An interface has come or changed. */
void shortcut_link_changed(struct shortcut *shortcut, const char *interface);

/* Tells what has gone past the rules, by interface and kind (base/bpf_shortcut.h). Legal for NULL. */
void shortcut_tally(const struct shortcut *shortcut,
        void (*tell)(void *userdata, const char *interface, unsigned kind, uint64_t packets, uint64_t bytes),
        void *userdata);

/* Sends the maps to a relay. Does not flush. 0, or the channel's error. */
int shortcut_send(struct shortcut *shortcut, struct msg_channel *channel, int timeout_ms);
/* How many of its flows without sockets go on in the kernel when a relay has ended, or wait there to be counted. */
uint64_t shortcut_straight_open(const struct shortcut *shortcut);
/* What stands against flows without sockets in this listener, in words, if its mover asks for them; NULL: nothing. */
const char *shortcut_obstacle(const struct snapshot *snapshot, const struct listener *listener);
/* The relay has ended: nobody takes connections in hand before another one serves. */
void shortcut_relay_ended(struct shortcut *shortcut);
/* Another relay has begun to serve: the flows of the one before are nobody's. */
void shortcut_relay_changed(struct shortcut *shortcut);

/* {state, why, interfaces, stitched}; stitched: TCP flows in the maps, as of the last look; state: "on", "idle" (no
 * listener can use it), "closed" (others want to see each packet), "off" (by options), "failed". NULL: no memory. */
json_t *shortcut_status(const struct shortcut *shortcut);

#endif
