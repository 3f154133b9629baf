/*
 * The second interception engine from the daemon's side (rules/
 * kernel_intercept.h): whether it is wanted, its elements kept equal to those
 * that nft has, and closed while the two could differ. The rules of nft are in
 * force with either engine, so one that fails, or is behind, costs speed and
 * nothing else. Used by apply.c, daemon.c and the status.
 */
#ifndef GW_INTERCEPT_H
#define GW_INTERCEPT_H

#include <jansson.h>
#include <stdbool.h>

#include "gatewayd/options.h"
#include "rules/intercept.h"
#include "rules/plan.h"

struct intercept;

/* Where it is remembered what is ours (rules/kernel_tc.h): with the pinned maps, or if there can be none with the
 * sockets. Borrowed. */
const char *intercept_directory(const struct options *options);

/* Nothing is loaded yet; what an earlier daemon has left attached is taken off, for it may know another configuration.
 * options must outlive it; port: the relay's on loopback. 0 or -ENOMEM. */
int intercept_new(const struct options *options, uint16_t port, struct intercept **ret);
/* What is attached stays in force. Legal for NULL, as are all of the following. */
void intercept_free(struct intercept *intercept);

/* From here on everything is left to nft. Calls do not count. */
void intercept_pause(struct intercept *intercept);
/* A change is in force in nft: the same here. Before plan_commit. */
void intercept_change(struct intercept *intercept, const struct plan *plan);
/* The change is over, whatever became of it. */
void intercept_resume(struct intercept *intercept);
/* The way past the relay is open, or not, for listeners that want that. */
void intercept_gate(struct intercept *intercept, bool open);

/* This configuration is in force, and compiled in the model, from now on: the engine is loaded or taken off as the
 * settings say. */
void intercept_follow(struct intercept *intercept, const struct snapshot *snapshot, const struct model *model);
/* Our rules are not what they are to be and are not put right, or are again. Without them it would do harm, so it is
 * closed. */
void intercept_drifted(struct intercept *intercept, bool drifted);
/* Looks whether it is still where it was attached; to be called once a second. */
void intercept_look(struct intercept *intercept);
/* An interface has come or changed. */
void intercept_link_changed(struct intercept *intercept, const char *interface);

/* Packets of each kind so far; false: the engine is not loaded. */
bool intercept_counts(const struct intercept *intercept, uint64_t ret[INTERCEPT_COUNTS]);
/* Why it does not although it is wanted, borrowed; "": it does, or is not wanted. */
const char *intercept_why(const struct intercept *intercept);
/* "tcp", "udp", ... */
const char *intercept_count_name(enum intercept_count which);
/* {engine, state, why, interfaces, packets}; engine: what is in force; state: "off" (not wanted), "on", "closed"
 * (while our rules are not what they are to be), "failed". NULL: no memory. */
json_t *intercept_status(const struct intercept *intercept);
/* Whether it decides about packets now; and about those that come in by this interface (NULL: any). */
bool intercept_is_on(const struct intercept *intercept);
bool intercept_is_at(const struct intercept *intercept, const char *interface);

#endif
