/*
 * What the API asks of the core; implemented in gatewayd/core.c. webapi sees
 * rows, documents and errors, and nothing of the store, the kernel or the
 * relay. All calls are made on the daemon's one thread and answer at once.
 */
#ifndef GW_WEBAPI_CORE_H
#define GW_WEBAPI_CORE_H

#include <jansson.h>

#include "gatewayd/base/addr.h"
#include "gatewayd/base/first.h"
#include "gatewayd/base/match.h"
#include "schema/errs.h"
#include "schema/field.h"

struct core;

enum core_operation {
	CORE_CREATE, /* -EEXIST if the name is taken */
	CORE_PUT,    /* creates or replaces */
	CORE_DELETE,
};

/* One row to be written. */
struct core_change {
	enum core_operation operation;
	enum resource_id resource;
	const char *name;      /* of the row */
	const struct row *row; /* borrowed; NULL for CORE_DELETE */
	int64_t if_revision;   /* the row must be of this revision (If-Match); 0: any; -1: it must not exist */
	const char *pointer; /* in front of the pointers of this change's faults, e.g. "/2/body"; "" or NULL: nothing */
};

struct core_audit;

/* Who writes, and how. */
struct core_request {
	const char *actor;        /* for history, audit and log: "uid 0", "token admin" */
	const char *summary;      /* what, for history: "PUT listeners/web" */
	bool dry_run;             /* check everything, the kernel's dry run included, and change nothing */
	bool way_back;            /* core_rollback's own: to what was in force before, which no limit refuses */
	int64_t confirm_within_s; /* 0: for good; else the change is taken back unless confirmed in time */
	/* The line for the audit log if all goes well, stored together with the change: neither is there without the
	 * other, and both wait for the disk once. Its revision is filled in. NULL: none. */
	const struct core_audit *audit;
};

/* Room for a dozen steps. */
#define CORE_TIMING_BYTES 320

struct core_result {
	int64_t revision; /* of the configuration after the write (of a dry run: before it) */
	bool created;     /* the first change made a new row */
	bool changed;     /* there was anything to do at all; if not, no revision was made */
	bool audited;     /* the request's line is in the audit log */
	json_t *diff;     /* dry run: array of {op, path, before, after}; else NULL */
	char *nft;        /* dry run: the nft text that would be committed; else NULL */
	json_t *warnings; /* array of {code, detail, pointer}: what the writer should know of; NULL: nothing */
	char timing[CORE_TIMING_BYTES]; /* how long each step took, as in a Server-Timing header; "": there was none */
};

/* Frees what the result owns and empties it. */
void core_result_clear(struct core_result *result);
#define _cleanup_core_result_ _cleanup_(core_result_clear)

/* Validates, plans, applies in every plane and stores all changes, or changes nothing at all. Changes may refer to
 * each other's rows in any order; a name may occur once. 0 or
 * -EINVAL 422, -EEXIST 409 (name, overlap), -EBUSY 409 (in use, or a change waits to be confirmed), -ENOENT 404,
 * -ESTALE 412, -EIO, -ENOSPC, -EROFS, -EAGAIN 503; faults, with words, in errs. */
int core_write(struct core *core, const struct core_change *changes, size_t n, const struct core_request *request,
        struct errs *errs, struct core_result *ret);

/* The whole configuration as one document: {"listeners": [...], ...}, each list sorted by name. NULL: no memory. */
json_t *core_config(struct core *core);
/* Makes the rows (each resource's whole list, in the document's order; borrowed) the configuration: what is not among
 * them is deleted. Pointers of faults are into the document, e.g. "/listeners/3/ports". */
int core_replace(struct core *core, const struct row *const *rows, size_t n, const struct core_request *request,
        struct errs *errs, struct core_result *ret);

/* History, newest first: up to max revisions below `before` (0: from the newest), as an array of
 * {revision, created_at, actor, summary, config_hash}. One: the same with "changes". -ENOENT, -ENOMEM, -EIO. */
int core_revisions(struct core *core, int64_t before, size_t max, json_t **ret);
int core_revision_get(struct core *core, int64_t revision, json_t **ret);
/* Array of {op, path, before, after} that leads from one revision to another. -ENOENT: not in the history any more. */
int core_revision_diff(struct core *core, int64_t from, int64_t to, json_t **ret);
/* Makes the configuration what it was at this revision, as a new revision. Errors as core_write. Settles a pending one:
 * rolling back while a change waits is allowed. */
int core_rollback(struct core *core, int64_t revision, const struct core_request *request, struct errs *errs,
        struct core_result *ret);
/* Keeps the change that waits. -ENOENT: none of this revision waits. */
int core_confirm(struct core *core, int64_t revision, const struct core_request *request, struct errs *errs);
/* {revision, base, deadline (RFC 3339), seconds_left} of the change that waits, or JSON null. NULL: no memory. */
json_t *core_pending(struct core *core);

/* One line of the audit log; strings are borrowed. Kept in the database, bounded; a failure is only logged. */
struct core_audit {
	const char *actor, *method, *path;
	unsigned status;    /* of the answer */
	int64_t revision;   /* made by it; 0: none */
	const char *detail; /* why it was refused, or "" */
};
void core_audit(struct core *core, const struct core_audit *entry);
/* Newest first, up to max entries with ids below `before` (0: from the newest): array of {id, at, actor, ...}. */
int core_audit_list(struct core *core, int64_t before, size_t max, json_t **ret);

/* Writes a consistent copy of the database to a new file. 0 or negative errno. */
int core_backup(struct core *core, const char *path);

/* Borrowed until control returns to the event loop. NULL if there is none. */
const struct row *core_find(struct core *core, enum resource_id resource, const char *name);
/* Up to `max` rows with names greater than `after` (NULL: from the start), borrowed as above; returns how many. */
size_t core_list(struct core *core, enum resource_id resource, const char *after, size_t max, const struct row **ret);
size_t core_count(struct core *core, enum resource_id resource);
int64_t core_revision(struct core *core);
/* What is observed of a row of a resource that is RESOURCE_IS_OBSERVED, new. NULL when memory is out. */
json_t *core_observed(struct core *core, const struct row *row);

/* What an operator says of a target while the gateway runs, beside the configuration. */
#define CORE_TARGET_KEEP           (-2) /* as it is */
#define CORE_TARGET_CONFIGURED     (-1) /* nothing: as configured, or the default */
#define CORE_DRAIN_DEADLINE_S_MAX  604800
#define CORE_DRAIN_RESET_PER_S_MAX 10000
struct core_target_order {
	int64_t admin_state; /* enum admin_state, or one of the above */
	int64_t weight;
	int64_t drain_deadline_s;  /* from now on; CONFIGURED: none */
	int64_t drain_reset_per_s; /* flows that end at the deadline, per second */
};
/* The target as it is seen: configured, said and observed. A new document; NULL when memory is out. */
json_t *core_target(struct core *core, const struct upstream *upstream, const struct target *target);
/* In force and stored when this returns 0. -EINVAL with a fault; -ENOSPC, -EIO, -EROFS, -EAGAIN: nothing has changed.
 */
int core_target_set(struct core *core, const struct upstream *upstream, const struct target *target,
        const struct core_target_order *order, const char *actor, struct errs *errs);

/* What relay and kernel have counted, a new document: everything together, and up to `max` of the busiest listeners,
 * upstreams and targets. NULL when memory is out. */
json_t *core_stats(struct core *core, size_t max);
enum core_counted { CORE_LISTENERS, CORE_UPSTREAMS, CORE_TARGETS };
/* {"items", "next", "total"}: up to `max` of one kind behind the one with the number `after`; idle ones too. */
json_t *core_stats_page(struct core *core, enum core_counted kind, uint32_t after, size_t max);
/* The last hour in steps of so many seconds (1 to CORE_HISTORY_STEP_MAX): {"step_s", "columns", "rows"}. */
#define CORE_HISTORY_STEP_MAX 60
json_t *core_stats_history(struct core *core, unsigned step, int64_t after);
/* What became of what came in, by interface (NULL: all of them): see docs/ledger.md. -ENOMEM, or what the kernel says.
 */
int core_ledger(struct core *core, const char *interface, json_t **ret);
/* Live flows. */
enum core_flows_sort { CORE_FLOWS_UNSORTED, CORE_FLOWS_BY_BYTES, CORE_FLOWS_BY_AGE, CORE_FLOWS_BY_RTT };
/* What flows of one group have in common: any of these together. */
enum core_flows_key {
	CORE_FLOWS_CLIENT,
	CORE_FLOWS_LISTENER,
	CORE_FLOWS_UPSTREAM,
	CORE_FLOWS_TARGET,
	CORE_FLOWS_SNI,
	CORE_FLOWS_DESTINATION, /* the name that the client said, else the address that it wanted to reach */
	CORE_FLOWS_KEYS
};
extern const char *const core_flows_keys[CORE_FLOWS_KEYS]; /* their words; of flowlist.c */
struct core_flows_query {
	size_t limit;
	const char *after; /* cursor; NULL: from the beginning */
	enum core_flows_sort sort;
	uint32_t group;                  /* bits 1 << enum core_flows_key; 0: flows, no groups */
	bool ended;                      /* groups of those that have ended too, as far as they are kept */
	const char *listener, *upstream; /* names; NULL: any */
	const char *sni;                 /* as a value of FIRST_SNI (base/first_route.h); NULL: any */
	uint8_t protocol;                /* 0: any */
	bool has_client, has_target;
	struct prefix client;
	struct addr target;
	uint16_t target_port; /* 0: any */
};
/* {"items", "next", "complete", "active"}. Unsorted pages show each flow that lives throughout exactly once. -EINVAL:
 * the cursor is none, -ENOMEM. */
int core_flows(struct core *core, const struct core_flows_query *query, json_t **ret);
/* One flow. -ENOENT, -ENOMEM. */
int core_flow_get(struct core *core, uint64_t id, json_t **ret);
/* Resets it; it is gone when this returns 0. -ENOENT, or another errno if the relay does not answer. */
int core_flow_kill(struct core *core, uint64_t id);
/* Rate limits at work, by name: {"items", "next", "total"}, up to `max` behind the one of this name (NULL: from the
 * first): where each is enforced and why, and what it has counted. NULL when memory is out. */
json_t *core_limits(struct core *core, const char *after, size_t max);
/* One of them. -ENOENT, -ENOMEM. */
int core_limit_get(struct core *core, const char *name, json_t **ret);
/* Bans, by prefix: {"items", "next", "total"}. NULL when memory is out. */
json_t *core_bans(struct core *core, const struct prefix *after, size_t max);
/* One of them. -ENOENT, -ENOMEM. */
int core_ban_get(struct core *core, const struct prefix *prefix, json_t **ret);
/* A ban by hand. Strings are borrowed. */
struct core_ban {
	struct prefix prefix;
	int64_t seconds; /* 0: until it is lifted */
	const char *reason, *actor;
	bool xdp; /* at the prefilters too: all that the source sends is dropped */
};
/* In force when this returns 0. -EPERM (never to be banned), -ENOSPC (too many), -EIO, -ENOMEM. */
int core_ban_add(struct core *core, const struct core_ban *ban);
/* -ENOENT, -EIO, -ENOMEM. */
int core_ban_lift(struct core *core, const struct prefix *prefix, const char *actor);
/* The text of GET /metrics, new. -ENOMEM. */
int core_metrics(struct core *core, char **ret, size_t *ret_length);

/* The document of GET /status, new. NULL when memory is out. */
json_t *core_status(struct core *core);
/* The document of GET /doctor, new: {"ok", "checks": [{"name", "ok", "detail", "fix"}]}. NULL when memory is out. */
json_t *core_doctor(struct core *core);
/* Has the way back of each target that clients were seen of probed anew, in turn; GET /doctor tells what was found.
 * Returns how many these are. */
size_t core_doctor_probe(struct core *core);
/* What would happen to the packet (source_port 0: any), new: see rules/explain.h. first: what the client is to say
 * first, NULL: that is not known. NULL when memory is out. */
json_t *core_explain(
        struct core *core, const struct match_packet *packet, uint16_t source_port, const struct first *first);
/* What real packets of a flow meet, for some seconds. */
#define CORE_TRACE_SECONDS_MAX     300
#define CORE_TRACE_SECONDS_DEFAULT 30
#define CORE_TRACE_PACKETS_MAX     200
#define CORE_TRACE_PACKETS_DEFAULT 50
struct core_trace_order {
	struct match_packet packet; /* the interface does not count */
	uint16_t source_port;       /* 0: any */
	unsigned seconds, packets;
};
/* Armed when this returns 0, with its document. -EUSERS: as many as can be are; another errno with words in ret_reason
 * (free it; may be NULL): the kernel refuses. */
int core_trace_start(
        struct core *core, const struct core_trace_order *order, const char *actor, json_t **ret, char **ret_reason);
/* {"items"}: all that are kept, newest first, without their packets. NULL when memory is out. */
json_t *core_traces(struct core *core);
/* One with its packets. -ENOENT, -ENOMEM. */
int core_trace_get(struct core *core, uint64_t number, json_t **ret);
/* Ends it; what it saw stays. -ENOENT. */
int core_trace_end(struct core *core, uint64_t number);
/* Readiness: 1 when every plane has applied the current revision, else 0. */
int core_ready(struct core *core);
/* Replaces the relay by a new one that takes its flows over. 0 when that has begun, -EBUSY (no relay serves, or it is
 * under way), -ENOEXEC (the program cannot be started; nothing has changed). */
int core_relay_restart(struct core *core);
/* nft text as applied (read from the kernel), or as rendered from the configuration; a new string. */
int core_ruleset(struct core *core, bool desired, char **ret_text);

#endif
