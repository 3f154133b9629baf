/*
 * Implementation side of webapi/core.h: the rules of a write (existence,
 * preconditions, references between resources) before it becomes a
 * transaction, and the reads.
 */
#ifndef GW_CORE_H
#define GW_CORE_H

#include <systemd/sd-event.h>

#include "gatewayd/apply.h"
#include "gatewayd/bans.h"
#include "gatewayd/doctor.h"
#include "gatewayd/drift.h"
#include "gatewayd/ledger.h"
#include "gatewayd/names.h"
#include "gatewayd/overrides.h"
#include "gatewayd/return_path.h"
#include "gatewayd/rule_index.h"
#include "gatewayd/sampler.h"
#include "gatewayd/shield.h"
#include "gatewayd/shortcut.h"
#include "gatewayd/tracer.h"
#include "gatewayd/worker.h"
#include "webapi/core.h"
#include "webapi/events.h"

/* A change that is taken back unless somebody confirms it in time. */
struct core_pending {
	int64_t revision; /* that waits; 0: none does */
	int64_t base;     /* to go back to */
	int64_t deadline; /* seconds since 1970: it must mean the same after a reboot */
};

struct changeset;
struct records;
struct store_audit;

struct core {
	sd_event *event;
	struct store *store;
	struct events *events; /* NULL in tests that have none */
	struct apply *apply;
	struct worker *worker;
	struct kernel *kernel;
	struct shield *shield;       /* NULL in tests that have none */
	struct shortcut *shortcut;   /* the same */
	struct intercept *intercept; /* the same */
	struct drift_monitor *drift; /* NULL in tests that have none */
	struct bans *bans;           /* NULL in tests that have none */
	struct sampler *sampler;     /* NULL in tests that have none */
	struct ledger *ledger;       /* NULL in tests that have none */
	struct overrides overrides;  /* what operators have said of targets */
	struct target_watch *watch;  /* NULL in tests that have none */
	struct tracer *tracer;       /* NULL in tests that have none */
	struct return_paths *ways;   /* NULL in tests that have none */
	struct records *records;     /* NULL in tests that have none */
	struct rule_index rules;     /* that the kernel has, as of the last look */
	struct names names;          /* of the configuration that was last asked about */
	uint64_t flows_sampled_us;   /* when the relay was last asked for round-trip times */
	const struct options *options;
	uint64_t started_us; /* CLOCK_MONOTONIC */
	struct doctor_memory doctor;
	struct core_pending pending;
	sd_event_source *pending_timer, *pending_tick; /* when the time is over; when what is left is told next */
};

/* Tells the readers of the event stream; takes data over. */
static inline void core_tell(struct core *core, const char *type, json_t *data)
{
	if (core->events)
		events_publish(core->events, type, data);
	else
		json_decref(data);
}

/* Reads the pending mark from the store. One whose time is past is taken back at once. 0 or negative errno. */
int core_confirm_start(struct core *core);
void core_confirm_stop(struct core *core);
/* The mark for a change of this revision, as the store keeps it. -ENOMEM. */
int core_pending_text(const struct core_pending *pending, char **ret);
/* Takes note of a pending change that is now in force (revision 0: none), and sets the timer. */
void core_set_pending(struct core *core, const struct core_pending *pending);
/* Reads what operators have said of targets, and writes it for the relay; before a relay is configured. -ENOMEM. */
int core_targets_start(struct core *core);
/* The configuration has become another: what operators have said may not count any more. */
void core_targets_follow(struct core *core);
/* Writes the ledger's figures for Prometheus. */
void core_ledger_metrics(struct core *core, FILE *out);
/* The kernel's counters (kernel_nft_counters), new, to which is added what prefilters have dropped by rate limits. */
int core_limit_counters(const struct core *core, json_t **ret);
/* The name of the rate limit of this row id; NULL: there is none. */
const char *core_limit_name(const struct core *core, uint32_t limit);
/* Appends warnings about rate limits to the status'. 0 or -ENOMEM. */
int core_limits_warn(struct core *core, json_t *warnings);
/* The rules of our table as the kernel has them, borrowed; NULL: they cannot be read. */
static inline const struct trace_rules *core_rules(struct core *core)
{
	return rule_index_get(&core->rules, core->apply, core->kernel);
}
/* The line as the store takes it; borrows. */
struct store_audit core_audit_line(const struct core_audit *entry);
/* What the writer of these changes should know of, as a new array of {code, detail, pointer}; untouched if it is
 * nothing. 0 or -ENOMEM. */
int core_warn(const struct core *core, const struct changeset *set, json_t **ret);
/* core_write without the rule that nothing may be written while a change waits. */
int core_write_unguarded(struct core *core, const struct core_change *changes, size_t n,
        const struct core_request *request, struct errs *errs, struct core_result *ret);

#endif
