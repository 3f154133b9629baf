/*
 * The relay as the daemon sees it: finding one that lives or starting one,
 * handing it its sockets and configuration, watching it, and starting another
 * when it dies. The listening sockets are kept here and outlive every relay.
 *
 * The daemon never waits for a relay without a bound: what the relay must
 * answer inside a transaction has WORKER_ANSWER_MS, and more for a change of
 * many elements; a relay that is late is killed and the next one gets the whole
 * configuration.
 */
#ifndef GW_WORKER_H
#define GW_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "gatewayd/base/proto.h"
#include "gatewayd/keeper.h"
#include "gatewayd/meter.h"
#include "gatewayd/movers.h"
#include "gatewayd/options.h"
#include "rules/plan.h"

/* Longest wait for an answer of the relay within a transaction. */
#define WORKER_ANSWER_MS 2000
/* And a millisecond more for so many elements that change: each thread of the relay puts each into its table. */
#define WORKER_ELEMENTS_PER_MS 100

enum worker_state {
	WORKER_DOWN,        /* no process; a start may be scheduled */
	WORKER_STARTING,    /* a process, its HELLO not complete */
	WORKER_CONFIGURING, /* whole configuration sent; READY or COMMITTED is due */
	WORKER_RUNNING,     /* serves, generation is what it has applied */
	WORKER_STATES
};

/* Whom the worker asks and tells. */
struct worker_owner {
	void *userdata;
	/* The configuration in force, borrowed. */
	const struct snapshot *(*snapshot)(void *userdata);
	const struct model *(*model)(void *userdata);
	/* The state, or whether the relay is overloaded, has become another. */
	void (*state_changed)(void *userdata);
	/* The health of a target has become another, as its state says; not from within a call of the worker's that
	 * changes anything. May be NULL. */
	void (*health_changed)(void *userdata);
	/* Handed to relays; may be NULL. */
	struct shortcut *shortcut;
	/* What a probe has found (worker_probe). May be NULL. */
	void (*probed)(void *userdata, const struct proto_probed *found);
	/* The relay of this bank is dead, and what flows of it are held is known. handed_over: it was told to end. May
	 * be NULL. */
	void (*relay_ended)(void *userdata, unsigned bank, bool handed_over);
};

struct worker;

/* Takes nothing over; options and event must outlive it. */
int worker_new(sd_event *event, const struct options *options, const struct worker_owner *owner, struct worker **ret);
/* Lets go of the relay without ending it: it goes on, and the next daemon finds it. */
void worker_free(struct worker *worker);

/* Looks for a living relay at relay.sock and takes its sockets over. Whether there is one: worker_pid. A relay that is
 * of no use is killed. */
void worker_find(struct worker *worker);
/* Makes the listening sockets, unless a relay was found that has some. Afterwards worker_port is known. 0 or negative
 * errno. */
int worker_make_sockets(struct worker *worker);
/* Configures the relay that was found, or starts one. Errors are logged and lead to another try later. */
void worker_start(struct worker *worker);
/* Where tproxy sends to, for both families. */
uint16_t worker_port(const struct worker *worker);

/* The relay's side of an apply transaction. Prepare: 1 if a relay is ready for the plan, 0 if none runs (it will get
 * the whole configuration when it does), -EINVAL refused (words in ret_reason, valid until the next call),
 * -ETIMEDOUT (it was killed for it). */
int worker_prepare(struct worker *worker, const struct plan *plan, const char **ret_reason);
/* Makes the prepared plan the relay's configuration. A relay that fails here is killed; the next one gets it. */
void worker_commit(struct worker *worker, const struct plan *plan);
void worker_abort(struct worker *worker, const struct plan *plan);

/* Asks the relay to read round-trip times into the rows of flows soon. */
void worker_sample(struct worker *worker);
/* Has the relay reset the flow of this row (number `row` of a table's in the bank, base/stats.h) if it still has this
 * id. -ENOENT: it is gone, or no relay runs; -ETIMEDOUT. */
int worker_kill_flow(struct worker *worker, unsigned bank, unsigned table, uint32_t row, uint64_t id);

/* The state of the target of this id, which daemon and relay share, with a place given to it now if it has none yet.
 * NULL if all places are taken. Valid until control returns to the event loop. */
struct target_state *worker_target(struct worker *worker, uint32_t id);
/* Has the relay look for flows that are to be reset, by what targets' states say. */
void worker_reap(struct worker *worker);
/* Has the relay make a probe; the owner is told its end, unless the relay dies before. -ENOENT: no relay serves, or
 * -EAGAIN: it takes no messages now. */
int worker_probe(struct worker *worker, const struct proto_probe *probe);
/* Replaces the relay by a new one, from the program file as it is now; flows do not notice. 0 when it has begun,
 * -EBUSY (no relay serves, or that is under way), -ENOEXEC (the program cannot be started: the relay goes on). */
int worker_hand_over(struct worker *worker);
/* Ends the relay: orderly within deadline_ms, then by force. Used by --cleanup. */
void worker_shutdown(struct worker *worker, unsigned deadline_ms);

/* How far the relay is, and the word for it in status documents. */
enum worker_state worker_state(const struct worker *worker);
const char *worker_state_name(enum worker_state state);
/* The relay's process, 0 if none. */
int32_t worker_pid(const struct worker *worker);
/* Generation it has applied; 0 if none. */
int64_t worker_generation(const struct worker *worker);
/* Whether the relay said that it can hardly take more flows. */
bool worker_overloaded(const struct worker *worker);
/* Whether a relay that was found serves by the configuration that it has, while it is being given this daemon's. */
bool worker_found_serves(const struct worker *worker);
/* What holds the relay back from paths, as it says; zeros: it has not. */
const struct proto_enclosed *worker_enclosed(const struct worker *worker);
/* Relays started after a death, and after a handover; seconds since this one's start, and what counts. */
uint64_t worker_restarts(const struct worker *worker);
uint64_t worker_handovers(const struct worker *worker);
uint64_t worker_uptime_s(const struct worker *worker);
const struct meter *worker_meter(const struct worker *worker);
const struct stats_memory *worker_stats(const struct worker *worker);
/* What the daemon wants to be told of flows, and where a thread of a bank tells it; valid until control returns to the
 * event loop. */
struct stats_wanted *worker_wanted(const struct worker *worker);
struct stats_ring *worker_ring(const struct worker *worker, unsigned bank, unsigned thread);
/* Counts what the daemon does itself. */
void worker_count(struct worker *worker, enum stats_counter counter, uint64_t amount);
/* Whether the flow is held for the next relay. */
bool worker_holds(const struct worker *worker, uint64_t id);
/* What there is beyond copy and splice; borrowed. */
const struct movers *worker_movers(const struct worker *worker);
/* Flows that began and have not ended. */
uint64_t worker_flows(const struct worker *worker);
/* What is held for the next relay. */
void worker_kept(const struct worker *worker, struct keeper_counts *ret);
unsigned worker_threads(const struct worker *worker);

#endif
