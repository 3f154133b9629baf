/* The way back of answers; see return_path.h. */
#include "gatewayd/return_path.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/core.h"
#include "gatewayd/flows.h"

#define PERIOD_US UINT64_C(1000000)
/* Rows of flows looked at in one turn: a megabyte of shared memory; of more flows some are looked at later. */
#define ROWS_PER_TURN 4096
/* Probes that are begun in one turn, and so per second, and those under way: the relay could take more. */
#define PROBES_PER_TURN  8
#define PROBES_UNDER_WAY 12
/* A connect that takes longer is a reason to look: the kernel has asked a second time by then. */
#define SUSPECT_MS 1200
/* A connection that was made within this time proves the way back, and so does an answer by UDP. Of UDP that is not
 * answered no probe is made more often than this: there are protocols in which nobody answers. */
#define PROVEN_MS 60000
/* While anybody has been answered by UDP within this time, a datagram without an answer is no reason to look. */
#define HEARD_MS 5000
/* Between two probes of a path that is broken, or suspected to be. */
#define AGAIN_MS 10000
/* And of one that is not proven by traffic. */
#define SLOW_MS 600000
/* A probe without an end by then died with its relay. */
#define LOST_MS 10000
/* A path that no client takes any more is forgotten. */
#define FORGET_MS 3600000
/* Paths looked at for that in one turn. */
#define FORGET_PER_TURN 1024
/* One per target, and two per listener. */
#define PATHS_MAX (STATS_TARGETS_MAX + 2 * STATS_LISTENERS_MAX)

enum path_state { PATH_UNKNOWN, PATH_GOOD, PATH_BROKEN, PATH_SILENT };

/* Times are CLOCK_MONOTONIC in milliseconds; 0: never. */
struct path {
	uint32_t number;                        /* its place in `index` */
	uint32_t listener, upstream, target_id; /* ids; 0: none */
	struct addr client, target, own;        /* own: where the target sends what comes back; family 0: not known */
	uint16_t port;
	uint8_t state;    /* enum path_state */
	bool udp;         /* the flow that the ends are of */
	bool by_probe;    /* the state; else by what clients were answered */
	bool asked;       /* to be probed as soon as possible */
	uint64_t cookie;  /* of the probe under way; 0: none is */
	uint64_t seen_ms; /* that a client took it */
	uint64_t proven_ms;
	uint64_t suspected_ms;
	uint64_t probed_ms;  /* when the last probe began */
	struct heard {       /* one flow of UDP, for such a flow may last and have no beginning that proves anything */
		uint64_t id; /* 0: none */
		uint64_t bytes; /* of answers, so far */
		uint64_t at_ms; /* when they were last seen to grow */
		uint64_t looked_ms;
	} heard;
};

struct return_paths {
	struct core *core;
	sd_event_source *timer;
	struct flows_place place; /* where the walk over the rows goes on */
	uint64_t cookie;          /* of the last probe */
	uint64_t serial;
	size_t turn, forget; /* where the walks over the paths go on */
	unsigned under_way;
	size_t n, room;
	struct path *paths;
	uint32_t *index; /* by number: place in `paths` + 1; pages that no path needs are never touched */
};

static uint64_t now_ms(void)
{
	return clock_us() / 1000;
}

/* --- which path --- */

static const struct listener *listener_of(const struct return_paths *paths, uint32_t id)
{
	const struct name *name = names_find(&paths->core->names, STATS_LISTENER, id);

	return name ? (const struct listener *)name->row : NULL;
}

/* Its listener is there and keeps the client's address, and so is its target. */
static bool is_in_use(const struct return_paths *paths, const struct path *path)
{
	const struct listener *listener = listener_of(paths, path->listener);

	if (!listener || !listener->enabled || listener->source_address != SOURCE_ADDRESS_CLIENT)
		return false;
	return !path->target_id || names_find(&paths->core->names, STATS_TARGET, path->target_id);
}

/* The number of the path that the flow takes; PATHS_MAX: it has none. */
static uint32_t number_of(const struct return_paths *paths, const struct stats_flow *flow)
{
	const struct meter *meter = worker_meter(paths->core->worker);
	enum stats_kind kind = flow->target_id ? STATS_TARGET : STATS_LISTENER;
	uint32_t slot = meter_find(meter, kind, flow->target_id ? flow->target_id : flow->listener);

	if (slot == STATS_SLOT_NONE || (flow->upstream && !flow->target_id))
		return PATHS_MAX;
	slot -= stats_slot_first(kind);
	return flow->target_id ? slot : STATS_TARGETS_MAX + 2 * slot + (flow->target.family == AF_INET6);
}

static struct path *path_add(struct return_paths *paths, uint32_t number)
{
	if (paths->n == paths->room) {
		size_t room = paths->room ? 2 * paths->room : 64;
		struct path *more = reallocarray(paths->paths, room, sizeof(*more));

		if (!more)
			return NULL;
		paths->paths = more;
		paths->room = room;
	}
	paths->paths[paths->n] = (struct path){ .number = number };
	paths->index[number] = (uint32_t)++paths->n;
	return &paths->paths[paths->n - 1];
}

static void set_state(struct return_paths *paths, struct path *path, enum path_state state);

static void path_remove(struct return_paths *paths, struct path *path)
{
	struct path *last = &paths->paths[paths->n - 1];

	set_state(paths, path, PATH_UNKNOWN);
	paths->under_way -= path->cookie != 0;
	paths->index[path->number] = 0;
	if (path != last) {
		*path = *last;
		paths->index[path->number] = (uint32_t)(path - paths->paths) + 1;
	}
	paths->n--;
}

/* Of the flow, made now if there is none yet. A slot that has been given to another target has another path. */
static struct path *path_of(struct return_paths *paths, const struct stats_flow *flow)
{
	uint32_t number = number_of(paths, flow);
	struct path *path;

	if (number == PATHS_MAX)
		return NULL;
	path = paths->index[number] ? &paths->paths[paths->index[number] - 1] : NULL;
	if (path && path->target_id != flow->target_id) {
		path_remove(paths, path);
		path = NULL;
	}
	return path ? path : path_add(paths, number);
}

/* --- what flows say --- */

static void set_state(struct return_paths *paths, struct path *path, enum path_state state)
{
	char target[ADDR_END_MAX], client[ADDR_TEXT_MAX];
	const struct log_field *about = LOG_ABOUT(LOG_TEXT("TARGET", target), LOG_TEXT("CLIENT", client));
	bool was = path->state == PATH_BROKEN, is = state == PATH_BROKEN;

	path->state = (uint8_t)state;
	if (was == is)
		return;
	paths->serial++;
	addr_format(&path->client, client);
	addr_format_end(&path->target, path->port, target);
	if (is)
		log_write_about(LOG_WARNING, about,
		        "answers of target %s to client %s do not come back here, those to this machine do", target,
		        client);
	else if (state == PATH_GOOD)
		log_write_about(LOG_NOTICE, about, "answers of target %s to client %s come back again", target, client);
}

/* From now on this is who the path is for. */
static void take_ends(struct path *path, const struct stats_flow *flow)
{
	path->listener = flow->listener;
	path->upstream = flow->upstream;
	path->target_id = flow->target_id;
	path->client = flow->client;
	path->target = flow->target;
	path->port = flow->target_port;
	path->udp = flow->protocol == IPPROTO_UDP;
}

static bool is_of(const struct path *path, const struct stats_flow *flow)
{
	return addr_equal(&path->client, &flow->client) && addr_equal(&path->target, &flow->target);
}

/* Answers have come back since then. A connection of another client does not mend what is broken for this one; a probe
 * by TCP says less of UDP than an answer to anybody does. */
static void note_proof(struct return_paths *paths, struct path *path, const struct stats_flow *flow, uint64_t at_ms)
{
	if (path->client.family == 0)
		take_ends(path, flow);
	if (path->state == PATH_BROKEN && ((!path->udp && !is_of(path, flow)) || at_ms < path->probed_ms))
		return;
	path->proven_ms = at_ms > path->proven_ms ? at_ms : path->proven_ms;
	path->by_probe = false;
	set_state(paths, path, PATH_GOOD);
}

/* A connection takes long to be made, or datagrams are not answered. */
static void note_suspicion(struct path *path, const struct stats_flow *flow, uint64_t now)
{
	if (path->cookie || path->state == PATH_BROKEN)
		return;
	if (flow->protocol == IPPROTO_UDP && path->proven_ms && now < path->proven_ms + HEARD_MS)
		return;
	take_ends(path, flow);
	path->suspected_ms = now;
}

static void note_connection(struct return_paths *paths, struct path *path, const struct stats_flow *flow, uint64_t now)
{
	uint64_t connected_ms = flow->started_ms + flow->status.connect_us / 1000;

	if (flow->status.state != STATS_FLOW_RELAYING)
		note_suspicion(path, flow, now);
	else if (flow->status.connect_us && now < connected_ms + PROVEN_MS)
		note_proof(paths, path, flow, connected_ms);
}

/* A flow that is answered: whether it still is, of the one that is watched. */
static void watch_answers(struct return_paths *paths, struct path *path, const struct stats_flow *flow, uint64_t now)
{
	struct heard *heard = &path->heard;
	uint64_t bytes = flow->bytes[STATS_TO_CLIENT], looked_ms = heard->looked_ms;

	if (heard->id != flow->id && now < looked_ms + PROVEN_MS)
		return;
	heard->looked_ms = now;
	if (heard->id != flow->id || bytes < heard->bytes) {
		*heard = (struct heard){ .id = flow->id, .bytes = bytes, .at_ms = now, .looked_ms = now };
	} else if (bytes > heard->bytes) {
		heard->bytes = bytes;
		heard->at_ms = now;
		note_proof(paths, path, flow, looked_ms);
	} else if (flow->active_ms >= heard->at_ms + SUSPECT_MS) {
		note_suspicion(path, flow, now);
	}
}

static void note_datagrams(struct return_paths *paths, struct path *path, const struct stats_flow *flow, uint64_t now)
{
	if (flow->bytes[STATS_TO_CLIENT] == 0) {
		note_suspicion(path, flow, now);
		return;
	}
	if (now < flow->started_ms + PROVEN_MS)
		note_proof(paths, path, flow, flow->started_ms);
	watch_answers(paths, path, flow, now);
}

/* Whether what came back shows already; a flow just begun has its answer yet to come. */
static bool is_answered(const struct stats_flow *flow)
{
	return flow->protocol == IPPROTO_UDP ? flow->bytes[STATS_TO_CLIENT] > 0
	                                     : flow->status.state == STATS_FLOW_RELAYING;
}

static void note_flow(struct return_paths *paths, const struct stats_flow *flow, uint64_t now)
{
	const struct listener *listener = listener_of(paths, flow->listener);
	struct path *path;

	if (!listener || listener->source_address != SOURCE_ADDRESS_CLIENT || flow->client.family == 0 ||
	        flow->client.family != flow->target.family)
		return;
	if (!is_answered(flow) && now < flow->started_ms + SUSPECT_MS)
		return;
	path = path_of(paths, flow);
	if (!path)
		return;
	path->seen_ms = now;
	if (path->client.family == 0)
		take_ends(path, flow);
	if (flow->protocol == IPPROTO_UDP)
		note_datagrams(paths, path, flow, now);
	else
		note_connection(paths, path, flow, now);
}

static void look_at_flows(struct return_paths *paths, uint64_t now)
{
	const struct stats_memory *memory = worker_stats(paths->core->worker);
	size_t budget = ROWS_PER_TURN;
	struct flows_found found;

	while (flows_next(memory, &paths->place, &budget, &found))
		note_flow(paths, &found.flow, now);
	if (budget > 0) /* that was the last of them */
		paths->place = (struct flows_place){ 0 };
}

/* --- probes --- */

static bool is_due(const struct path *path, uint64_t now)
{
	uint64_t since = now - path->probed_ms;

	if (path->cookie)
		return false;
	if (path->asked)
		return true;
	if (path->state == PATH_BROKEN || path->suspected_ms > path->probed_ms)
		return path->probed_ms == 0 ||
		       since >= (path->udp && path->state != PATH_BROKEN ? PROVEN_MS : AGAIN_MS);
	return path->target_id && now - path->seen_ms < SLOW_MS && now - path->proven_ms >= PROVEN_MS &&
	       (path->probed_ms == 0 || since >= SLOW_MS);
}

static void probe(struct return_paths *paths, struct path *path, uint64_t now)
{
	struct proto_probe message = { .cookie = ++paths->cookie, .family = path->target.family, .port = path->port };

	memcpy(message.source, path->client.bytes, sizeof(message.source));
	memcpy(message.target, path->target.bytes, sizeof(message.target));
	if (worker_probe(paths->core->worker, &message) < 0)
		return; /* another time */
	path->asked = false;
	path->cookie = message.cookie;
	path->probed_ms = now;
	paths->under_way++;
}

/* The death of a relay ends its probes without a word. */
static void give_up_lost(struct return_paths *paths, struct path *path, uint64_t now)
{
	if (!path->cookie || now - path->probed_ms < LOST_MS)
		return;
	path->cookie = 0;
	paths->under_way--;
}

static void look_at_paths(struct return_paths *paths, uint64_t now)
{
	unsigned begun = 0;

	for (size_t looked = 0; looked < paths->n && begun < PROBES_PER_TURN; looked++) {
		struct path *path = &paths->paths[paths->turn++ % paths->n];

		give_up_lost(paths, path, now);
		if (paths->under_way >= PROBES_UNDER_WAY || !is_due(path, now) || !is_in_use(paths, path))
			continue;
		probe(paths, path, now);
		begun++;
	}
}

static void forget(struct return_paths *paths, uint64_t now)
{
	for (size_t looked = 0; looked < FORGET_PER_TURN && looked < paths->n; looked++) {
		struct path *path = &paths->paths[paths->forget++ % paths->n];

		if (now - path->seen_ms >= FORGET_MS || !is_in_use(paths, path))
			path_remove(paths, path);
	}
}

static struct path *path_probed(struct return_paths *paths, uint64_t cookie)
{
	for (size_t i = 0; cookie && i < paths->n; i++)
		if (paths->paths[i].cookie == cookie)
			return &paths->paths[i];
	return NULL;
}

/* What the two connects of a probe say together. PATH_UNKNOWN: nothing. */
static enum path_state verdict(const struct proto_probed *found)
{
	if (found->as_client == PROTO_PROBE_ANSWERED)
		return PATH_GOOD;
	if (found->as_client != PROTO_PROBE_LOCAL && found->as_gateway == PROTO_PROBE_ANSWERED)
		return PATH_BROKEN;
	if (found->as_client == PROTO_PROBE_SILENT || found->as_client == PROTO_PROBE_UNREACHABLE)
		return PATH_SILENT;
	return PATH_UNKNOWN;
}

void return_paths_found(struct return_paths *paths, const struct proto_probed *found)
{
	struct path *path = paths ? path_probed(paths, found->cookie) : NULL;
	enum path_state state = verdict(found);

	if (!path)
		return;
	path->cookie = 0;
	paths->under_way--;
	if (found->as_gateway == PROTO_PROBE_ANSWERED) {
		path->own.family = path->target.family;
		memcpy(path->own.bytes, found->own, sizeof(path->own.bytes));
	}
	/* Who answers clients by UDP may well not answer them by TCP. */
	if (state == PATH_UNKNOWN || (path->udp && path->proven_ms >= path->probed_ms))
		return;
	path->by_probe = true;
	set_state(paths, path, state);
}

size_t return_paths_ask(struct return_paths *paths)
{
	size_t n = 0;

	if (!paths)
		return 0;
	for (size_t i = 0; i < paths->n; i++) {
		paths->paths[i].asked = true;
		n += is_in_use(paths, &paths->paths[i]);
	}
	(void)sd_event_source_set_time_relative(paths->timer, 0);
	return n;
}

/* --- the facts --- */

static void tell_broken(const struct return_paths *paths, const struct path *path, struct doctor_return *ret)
{
	const struct listener *listener = listener_of(paths, path->listener);

	ret->ipv6 = path->target.family == AF_INET6;
	ret->udp = path->udp;
	addr_format_end(&path->target, path->port, ret->target);
	addr_format(&path->target, ret->server);
	addr_format(&path->client, ret->client);
	addr_format(&path->own, ret->own);
	snprintf(ret->listener, sizeof(ret->listener), "%s", listener->name);
}

void return_paths_facts(const struct return_paths *paths, struct doctor_return *ret)
{
	*ret = (struct doctor_return){ 0 };
	for (size_t i = 0; paths && i < paths->n; i++) {
		const struct path *path = &paths->paths[i];

		if (!is_in_use(paths, path))
			continue;
		ret->seen++;
		ret->good += path->state == PATH_GOOD;
		ret->silent += path->state == PATH_SILENT;
		ret->udp_heard += path->udp && path->state == PATH_GOOD && !path->by_probe;
		ret->udp_probed += path->udp && path->state == PATH_GOOD && path->by_probe;
		if (path->state == PATH_BROKEN && ret->broken++ == 0)
			tell_broken(paths, path, ret);
	}
}

uint64_t return_paths_serial(const struct return_paths *paths)
{
	return paths ? paths->serial : 0;
}

/* --- the timer --- */

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct return_paths *paths = userdata;
	uint64_t now = now_ms();

	(void)usec;
	if (names_follow(&paths->core->names, apply_snapshot(paths->core->apply)) == 0) {
		look_at_flows(paths, now);
		forget(paths, now);
		look_at_paths(paths, now);
	}
	(void)sd_event_source_set_time_relative(source, PERIOD_US);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int return_paths_new(struct core *core, struct return_paths **ret)
{
	struct return_paths *paths = calloc(1, sizeof(*paths));
	int r = -ENOMEM;

	if (!paths)
		return -ENOMEM;
	paths->core = core;
	paths->cookie = clock_us(); /* a relay that was found may still answer an earlier daemon */
	paths->index = calloc(PATHS_MAX, sizeof(*paths->index));
	if (paths->index)
		r = sd_event_add_time_relative(
		        core->event, &paths->timer, CLOCK_MONOTONIC, PERIOD_US, 1000, on_timer, paths);
	if (r < 0) {
		return_paths_free(paths);
		return r;
	}
	*ret = paths;
	return 0;
}

void return_paths_free(struct return_paths *paths)
{
	if (!paths)
		return;
	sd_event_source_disable_unref(paths->timer);
	free(paths->index);
	free(paths->paths);
	free(paths);
}
