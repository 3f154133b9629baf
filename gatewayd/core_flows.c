/*
 * GET and DELETE /flows: pages of flows in the order of their rows, sorted
 * pages, groups. The rows are read where the relay writes them; each request
 * looks at a bounded number, so that the daemon's one thread is never held up
 * for long.
 */
#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "gatewayd/core.h"
#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/document.h"
#include "gatewayd/flows.h"
#include "gatewayd/records.h"
#include "schema/value.h"

/* Rows that one request looks at: some 20 ms. */
#define FLOWS_SCAN_MAX ((size_t)262144)
/* Groups kept apart in one answer; the flows of others are counted together. */
#define FLOWS_GROUPS_MAX 16384
/* Slots of the table of groups: twice as many, so that chains stay short. */
#define FLOWS_GROUP_SLOTS (2U * FLOWS_GROUPS_MAX)
/* The relay is asked to read round-trip times when somebody looks, at most this often. */
#define FLOWS_SAMPLE_US UINT64_C(5000000)

static void want_samples(struct core *core)
{
	uint64_t now = clock_us();

	if (now - core->flows_sampled_us < FLOWS_SAMPLE_US)
		return;
	core->flows_sampled_us = now;
	worker_sample(core->worker);
}

/* --- one flow --- */

static const char *protocol_name(uint8_t protocol)
{
	return protocol == IPPROTO_TCP ? "tcp" : protocol == IPPROTO_UDP ? "udp" : "";
}

static json_t *end_document(const struct addr *addr, uint16_t port)
{
	char text[ADDR_TEXT_MAX] = "";

	if (addr->family)
		addr_format(addr, text);
	return json_pack("{s:s, s:i}", "address", text, "port", (int)port);
}

static json_t *name_document(struct core *core, enum stats_kind kind, uint32_t id)
{
	const struct name *name = names_find(&core->names, kind, id);

	return name ? json_string(row_name(name->row)) : json_null();
}

static json_t *direction_document(const struct stats_flow *flow, int direction)
{
	return json_pack("{s:I, s:s, s:s, s:b}", "bytes", (json_int_t)(flow->bytes[direction] & INT64_MAX), "mover",
	        stats_mover_name(flow->status.mover[direction]), "reason",
	        stats_reason_name(flow->status.reason[direction]), "ended", (int)flow->status.ended[direction]);
}

static json_t *tcp_document(const struct stats_flow *flow, const struct stats_flow_tcp *tcp)
{
	if (flow->protocol != IPPROTO_TCP || flow->sampled_ms == 0)
		return json_null();
	return json_pack("{s:I, s:I}", "rtt_us", (json_int_t)tcp->rtt_us, "retransmits", (json_int_t)tcp->retransmits);
}

static json_t *since(uint64_t then_ms, uint64_t now_ms)
{
	return document_number(now_ms > then_ms ? now_ms - then_ms : 0);
}

/* null: no limit of key flow. Of a limit that is gone by now the flow keeps the rate, for its listener is gone too. */
static json_t *shaping_document(struct core *core, const struct stats_flow *flow)
{
	const struct name *name = names_find(&core->names, STATS_LIMIT, flow->limit);
	const struct rate_limit *limit = name ? (const struct rate_limit *)name->row : NULL;

	if (!limit || !limits_is_of_flows(limit))
		return json_null();
	return json_pack("{s:s, s:I, s:s, s:b}", "rate_limit", limit->name, "bytes_per_second",
	        (json_int_t)limits_flow_rate(limit), "mode", limit->mode == LIMIT_MODE_SHADOW ? "shadow" : "enforce",
	        "at_rate", flow->status.at_rate != 0);
}

static json_t *flow_document(struct core *core, const struct stats_flow *flow)
{
	static const char *const states[] = { "none", "connecting", "relaying" };
	uint64_t now_ms = clock_us() / 1000;
	json_t *object = json_object();
	bool failed = object == NULL;
	char id[17];

	static_assert(ARRAY_SIZE(states) == STATS_FLOW_STATES, "one word per state");
	snprintf(id, sizeof(id), "%016" PRIx64, flow->id);
	document_set(object, "id", json_string(id), &failed);
	document_set(object, "protocol", json_string(protocol_name(flow->protocol)), &failed);
	document_set(object, "state", json_string(states[flow->status.state]), &failed);
	document_set(object, "client", end_document(&flow->client, flow->client_port), &failed);
	document_set(object, "original", end_document(&flow->original, flow->original_port), &failed);
	document_set(object, "target", end_document(&flow->target, flow->target_port), &failed);
	document_set(object, "listener", name_document(core, STATS_LISTENER, flow->listener), &failed);
	document_set(object, "upstream", name_document(core, STATS_UPSTREAM, flow->upstream), &failed);
	document_set(object, "sni", *flow->sni ? json_string(flow->sni) : json_null(), &failed);
	document_set(object, "age_ms", since(flow->started_ms, now_ms), &failed);
	document_set(object, "idle_ms", since(flow->active_ms, now_ms), &failed);
	document_set(object, "connect_us",
	        flow->status.connect_us ? document_number(flow->status.connect_us) : json_null(), &failed);
	document_set(object, "to_target", direction_document(flow, STATS_TO_TARGET), &failed);
	document_set(object, "to_client", direction_document(flow, STATS_TO_CLIENT), &failed);
	document_set(object, "shaping", shaping_document(core, flow), &failed);
	document_set(object, "client_tcp", tcp_document(flow, &flow->client_tcp), &failed);
	document_set(object, "target_tcp", tcp_document(flow, &flow->target_tcp), &failed);
	document_set(
	        object, "sampled_ms_ago", flow->sampled_ms ? since(flow->sampled_ms, now_ms) : json_null(), &failed);
	return document_done(object, failed);
}

int core_flow_get(struct core *core, uint64_t id, json_t **ret)
{
	struct flows_found found;

	if (names_follow(&core->names, apply_snapshot(core->apply)) < 0)
		return -ENOMEM;
	want_samples(core);
	if (!flows_find(worker_stats(core->worker), id, &found))
		return -ENOENT;
	*ret = flow_document(core, &found.flow);
	return *ret ? 0 : -ENOMEM;
}

/* Ids as the API writes them. */
static void tell_killed(struct core *core, const struct stats_flow *flow)
{
	int r = names_follow(&core->names, apply_snapshot(core->apply));
	const struct name *name = r < 0 ? NULL : names_find(&core->names, STATS_LISTENER, flow->listener);
	const char *listener = name ? row_name(name->row) : "-";
	char id[20], client[ADDR_TEXT_MAX];

	snprintf(id, sizeof(id), "%016" PRIx64, flow->id);
	addr_format(&flow->client, client);
	log_write_about(LOG_NOTICE,
	        LOG_ABOUT(LOG_TEXT("FLOW", id), LOG_TEXT("LISTENER", listener), LOG_TEXT("CLIENT", client)),
	        "flow %s of client %s and listener %s was ended by an operator", id, client, listener);
}

int core_flow_kill(struct core *core, uint64_t id)
{
	struct flows_found found;
	int r;

	if (!flows_find(worker_stats(core->worker), id, &found))
		return -ENOENT;
	r = worker_kill_flow(core->worker, found.place.bank, found.place.table, found.place.row, id);
	if (r == 0)
		tell_killed(core, &found.flow);
	return r;
}

/* --- what is asked for --- */

/* False: no flow can be meant. */
static bool make_filter(struct core *core, const struct core_flows_query *query, struct flows_filter *ret)
{
	const struct row *listener = NULL, *upstream = NULL;

	if (query->listener && !(listener = core_find(core, RESOURCE_LISTENER, query->listener)))
		return false;
	if (query->upstream && !(upstream = core_find(core, RESOURCE_UPSTREAM, query->upstream)))
		return false;
	*ret = (struct flows_filter){ .listener = listener ? (uint32_t)listener->id : 0,
		.upstream = upstream ? (uint32_t)upstream->id : 0,
		.protocol = query->protocol,
		.has_client = query->has_client,
		.client = query->client,
		.has_target = query->has_target,
		.target = query->target,
		.target_port = query->target_port,
		.sni = query->sni };
	return true;
}

static uint64_t rank_of(enum core_flows_sort sort, const struct stats_flow *flow)
{
	uint32_t client = flow->client_tcp.rtt_us, target = flow->target_tcp.rtt_us;

	switch (sort) {
	case CORE_FLOWS_UNSORTED:
		return 0;
	case CORE_FLOWS_BY_BYTES:
		return flow->bytes[STATS_TO_TARGET] + flow->bytes[STATS_TO_CLIENT];
	case CORE_FLOWS_BY_AGE:
		return UINT64_MAX - flow->started_ms;
	case CORE_FLOWS_BY_RTT:
		return client > target ? client : target;
	}
	return 0;
}

/* --- pages --- */

struct page {
	json_t *items;
	char next[64]; /* cursor, or "" */
	json_t *ended; /* what is kept of flows that have ended; NULL: not asked for */
	bool complete; /* every flow was looked at */
	bool counted;  /* total says how many there are in all pages */
	size_t total;
	bool failed;
};

static json_t *page_document(struct core *core, struct page *page)
{
	json_t *next = *page->next ? json_string(page->next) : json_null();

	json_t *total = page->counted ? document_number(page->total) : json_null();

	return document_done(
	        json_pack("{s:o, s:o, s:b, s:o, s:o, s:o*}", "items", page->items, "next", next, "complete",
	                page->complete, "total", total, "active",
	                document_number(stats_active_all(worker_stats(core->worker))), "ended", page->ended),
	        page->failed);
}

static void page_add(struct core *core, struct page *page, const struct stats_flow *flow)
{
	if (json_array_append_new(page->items, flow_document(core, flow)) < 0)
		page->failed = true;
}

/* A place as a cursor: good as long as that relay lives. A later page of a relay that has been replaced begins with the
 * first flow of the new one. */
static void place_print(const struct stats_memory *memory, const struct flows_place *place, char text[64])
{
	uint32_t run = atomic_load_explicit(&memory->bank[place->bank].run, memory_order_relaxed);

	snprintf(text, 64, "p%" PRIx32 ".%x.%" PRIx32, run, place->table, place->row);
}

/* What is in cursors behind the letter: numbers as they were printed, and nothing that sscanf would take besides. */
static bool is_cursor(const char *text)
{
	return strspn(text + 1, "0123456789abcdef.") == strlen(text + 1);
}

static int place_parse(const struct stats_memory *memory, const char *text, struct flows_place *ret)
{
	uint32_t run, row;
	unsigned table;
	int length = 0;

	*ret = (struct flows_place){ 0 };
	if (!text)
		return 0;
	if (!*text || !is_cursor(text) ||
	        sscanf(text, "p%8" SCNx32 ".%2x.%8" SCNx32 "%n", &run, &table, &row, &length) != 3 || text[length])
		return -EINVAL;
	for (unsigned bank = 0; bank < STATS_BANKS; bank++)
		if (run && atomic_load_explicit(&memory->bank[bank].run, memory_order_relaxed) == run)
			*ret = (struct flows_place){ bank, table, row };
	return 0;
}

static int page_unsorted(
        struct core *core, const struct core_flows_query *query, const struct flows_filter *filter, struct page *page)
{
	const struct stats_memory *memory = worker_stats(core->worker);
	size_t budget = FLOWS_SCAN_MAX, n = 0;
	struct flows_place place;
	struct flows_found found;
	int r = place_parse(memory, query->after, &place);

	if (r < 0)
		return r;
	while (n < query->limit && flows_next(memory, &place, &budget, &found)) {
		if (!flows_match(filter, &found.flow))
			continue;
		page_add(core, page, &found.flow);
		n++;
	}
	if (place.bank < STATS_BANKS)
		place_print(memory, &place, page->next);
	page->complete = true; /* what was passed over are others' pages */
	return 0;
}

static int rank_parse(const char *text, uint64_t *ret_rank, uint64_t *ret_id)
{
	int length = 0;

	if (!*text || !is_cursor(text) ||
	        sscanf(text, "s%16" SCNx64 ".%16" SCNx64 "%n", ret_rank, ret_id, &length) != 2 || text[length])
		return -EINVAL;
	return 0;
}

static int page_sorted(
        struct core *core, const struct core_flows_query *query, const struct flows_filter *filter, struct page *page)
{
	const struct stats_memory *memory = worker_stats(core->worker);
	uint64_t rank = UINT64_MAX, id = 0;
	size_t budget = FLOWS_SCAN_MAX;
	struct flows_place place = { 0 };
	struct flows_found found;
	struct flows_top top;
	int r = query->after ? rank_parse(query->after, &rank, &id) : 0;

	if (r == 0)
		r = flows_top_init(&top, query->limit + 1);
	if (r < 0)
		return r;
	while (flows_next(memory, &place, &budget, &found)) {
		if (!flows_match(filter, &found.flow))
			continue;
		page->total++;
		found.rank = rank_of(query->sort, &found.flow);
		if (flows_before(rank, id, found.rank, found.flow.id))
			flows_top_offer(&top, &found);
	}
	page->counted = true;
	page->complete = place.bank == STATS_BANKS;
	flows_top_sort(&top);
	for (size_t i = 0; i < top.n && i < query->limit; i++)
		page_add(core, page, &top.heap[i]->flow);
	if (top.n > query->limit)
		snprintf(page->next, sizeof(page->next), "s%" PRIx64 ".%" PRIx64, top.heap[query->limit - 1]->rank,
		        top.heap[query->limit - 1]->flow.id);
	flows_top_clear(&top);
	return 0;
}

/* --- groups --- */

/* What the flows of a group have in common; all bytes count, and what does not belong to it is 0. */
struct group_key {
	uint32_t listener, upstream;
	struct addr client, target, original;
	uint16_t target_port, original_port;
	char sni[STATS_SNI_MAX];
};

struct flow_group {
	struct group_key key;
	uint64_t flows, ended, refused, bytes[STATS_DIRECTIONS];
	int64_t first_ms, last_ms; /* of the day; only if those that have ended are asked for */
	bool used;
};

struct groups {
	struct flow_group *slots;
	size_t n;
	struct flow_group others; /* of which there are too many */
};

static bool is_by(uint32_t group, enum core_flows_key key)
{
	return group & (1U << key);
}

static void key_of(uint32_t group, const struct stats_flow *flow, struct group_key *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (is_by(group, CORE_FLOWS_CLIENT))
		ret->client = flow->client;
	if (is_by(group, CORE_FLOWS_LISTENER))
		ret->listener = flow->listener;
	if (is_by(group, CORE_FLOWS_UPSTREAM))
		ret->upstream = flow->upstream;
	if (is_by(group, CORE_FLOWS_TARGET)) {
		ret->target = flow->target;
		ret->target_port = flow->target_port;
	}
	if (is_by(group, CORE_FLOWS_SNI) || is_by(group, CORE_FLOWS_DESTINATION))
		memcpy(ret->sni, flow->sni, sizeof(ret->sni));
	if (is_by(group, CORE_FLOWS_DESTINATION) && !*ret->sni) {
		ret->original = flow->original;
		ret->original_port = flow->original_port;
	}
}

static struct flow_group *group_find(struct groups *groups, const struct group_key *key)
{
	const uint8_t *bytes = (const uint8_t *)key;
	uint32_t slot = 2166136261U;

	for (size_t i = 0; i < sizeof(*key); i++)
		slot = (slot ^ bytes[i]) * 16777619U;
	for (slot %= FLOWS_GROUP_SLOTS; groups->slots[slot].used; slot = (slot + 1) % FLOWS_GROUP_SLOTS)
		if (memcmp(&groups->slots[slot].key, key, sizeof(*key)) == 0)
			return &groups->slots[slot];
	if (groups->n == FLOWS_GROUPS_MAX)
		return &groups->others;
	groups->n++;
	groups->slots[slot].key = *key;
	groups->slots[slot].used = true;
	return &groups->slots[slot];
}

static int compare_groups(const void *a, const void *b)
{
	const struct flow_group *x = a, *y = b;
	uint64_t p = x->bytes[0] + x->bytes[1], q = y->bytes[0] + y->bytes[1];

	if (p != q)
		return p > q ? -1 : 1;
	if (x->flows + x->ended != y->flows + y->ended)
		return x->flows + x->ended > y->flows + y->ended ? -1 : 1;
	return memcmp(&x->key, &y->key, sizeof(x->key));
}

static json_t *place_text(const struct addr *addr, uint16_t port)
{
	char text[ADDR_END_MAX];

	return json_string(addr_format_end(addr, port, text));
}

static json_t *key_document(struct core *core, enum core_flows_key which, const struct group_key *key)
{
	char address[ADDR_TEXT_MAX] = "";

	switch (which) {
	case CORE_FLOWS_LISTENER:
		return name_document(core, STATS_LISTENER, key->listener);
	case CORE_FLOWS_UPSTREAM:
		return name_document(core, STATS_UPSTREAM, key->upstream);
	case CORE_FLOWS_SNI:
		return *key->sni ? json_string(key->sni) : json_null();
	case CORE_FLOWS_CLIENT:
		if (key->client.family)
			addr_format(&key->client, address);
		return json_string(address);
	case CORE_FLOWS_TARGET:
		return place_text(&key->target, key->target_port);
	case CORE_FLOWS_DESTINATION:
		return *key->sni ? json_string(key->sni) : place_text(&key->original, key->original_port);
	case CORE_FLOWS_KEYS:
		break;
	}
	return NULL;
}

/* The value of the only key, or of all of them in one line: what people see. New; by: an object of all of them. */
static json_t *title_document(const json_t *by)
{
	char title[CORE_FLOWS_KEYS * (STATS_SNI_MAX + 1)] = "";
	const char *key;
	json_t *value;
	size_t length = 0;

	json_object_foreach((json_t *)by, key, value)
	{
		const char *text = json_is_string(value) ? json_string_value(value) : "-";

		if (json_object_size(by) == 1)
			return json_incref(value);
		length += (size_t)snprintf(title + length, sizeof(title) - length, "%s%s", length ? " " : "", text);
		if (length >= sizeof(title))
			break;
	}
	return json_string(title);
}

/* From when until when something of the group was seen. */
static void group_span(struct flow_group *group, int64_t first_ms, int64_t last_ms)
{
	if (group->first_ms == 0 || first_ms < group->first_ms)
		group->first_ms = first_ms;
	if (last_ms > group->last_ms)
		group->last_ms = last_ms;
}

static void group_add(struct flow_group *group, const struct stats_flow *flow, int64_t clock_ms)
{
	group->flows++;
	group_span(group, (int64_t)flow->started_ms + clock_ms, (int64_t)flow->active_ms + clock_ms);
	for (int i = 0; i < STATS_DIRECTIONS; i++)
		group->bytes[i] += flow->bytes[i];
}

static void group_add_ended(struct flow_group *group, const struct talker *talker)
{
	group->ended += talker->ended;
	group->refused += talker->refused;
	group_span(group, talker->first_ms, talker->last_ms);
	for (int i = 0; i < STATS_DIRECTIONS; i++)
		group->bytes[i] += talker->flow.bytes[i];
}

static json_t *time_document(int64_t ms)
{
	char text[32];

	return json_string(value_time_format(ms / 1000, text));
}

static json_t *group_document(struct core *core, const struct core_flows_query *query, const struct flow_group *group)
{
	json_t *by = json_object(), *object = json_object();
	bool failed = !by || !object;

	for (enum core_flows_key key = 0; key < CORE_FLOWS_KEYS; key++)
		if (is_by(query->group, key))
			document_set(by, core_flows_keys[key], key_document(core, key, &group->key), &failed);
	document_set(object, "group", title_document(by), &failed);
	document_set(object, "by", by, &failed);
	document_set(object, "flows", document_number(group->flows), &failed);
	document_set(object, "bytes_to_target", document_number(group->bytes[STATS_TO_TARGET]), &failed);
	document_set(object, "bytes_to_client", document_number(group->bytes[STATS_TO_CLIENT]), &failed);
	if (query->ended) {
		document_set(object, "ended", document_number(group->ended), &failed);
		document_set(object, "refused", document_number(group->refused), &failed);
		document_set(object, "first_seen", time_document(group->first_ms), &failed);
		document_set(object, "last_seen", time_document(group->last_ms), &failed);
	}
	return document_done(object, failed);
}

/* The groups that were found to the front of the table, by bytes. */
static void groups_sort(struct groups *groups)
{
	size_t n = 0;

	for (size_t i = 0; i < FLOWS_GROUP_SLOTS; i++)
		if (groups->slots[i].used)
			groups->slots[n++] = groups->slots[i];
	if (n > 1)
		qsort(groups->slots, n, sizeof(*groups->slots), compare_groups);
}

/* Those that have ended, as far as they are kept: they are told beside the groups. */
static void page_add_ended(struct core *core, const struct core_flows_query *query, const struct flows_filter *filter,
        struct groups *groups, struct page *page)
{
	int64_t since;
	const struct talkers *talkers = records_talkers(core->records, &since);
	const struct talker *talker = talkers_newest(talkers);

	for (; talker; talker = talkers_older(talkers, talker)) {
		struct group_key key;

		if (!flows_match(filter, &talker->flow))
			continue;
		key_of(query->group, &talker->flow, &key);
		group_add_ended(group_find(groups, &key), talker);
	}
	page->ended = json_pack("{s:o, s:I, s:I, s:I}", "since", time_document(since * 1000), "kept",
	        (json_int_t)talkers_count(talkers), "most", (json_int_t)talkers_max(talkers), "evicted",
	        (json_int_t)talkers_evicted(talkers));
	page->failed |= page->ended == NULL;
}

static int page_grouped(
        struct core *core, const struct core_flows_query *query, const struct flows_filter *filter, struct page *page)
{
	_cleanup_free_ struct flow_group *slots = calloc(FLOWS_GROUP_SLOTS, sizeof(*slots));
	struct groups groups = { .slots = slots };
	int64_t clock_ms = (int64_t)time(NULL) * 1000 - (int64_t)(clock_us() / 1000);
	size_t budget = FLOWS_SCAN_MAX;
	struct flows_place place = { 0 };
	struct flows_found found;

	if (!slots)
		return -ENOMEM;
	while (flows_next(worker_stats(core->worker), &place, &budget, &found)) {
		struct group_key key;

		if (!flows_match(filter, &found.flow))
			continue;
		key_of(query->group, &found.flow, &key);
		group_add(group_find(&groups, &key), &found.flow, clock_ms);
	}
	if (query->ended && core->records)
		page_add_ended(core, query, filter, &groups, page);
	page->complete = place.bank == STATS_BANKS && groups.others.flows + groups.others.ended == 0;
	groups_sort(&groups);
	page->counted = true;
	page->total = groups.n;
	for (size_t i = 0; i < groups.n && i < query->limit && !page->failed; i++) {
		json_t *document = group_document(core, query, &slots[i]);

		page->failed = json_array_append_new(page->items, document) < 0;
	}
	return 0;
}

int core_flows(struct core *core, const struct core_flows_query *query, json_t **ret)
{
	struct page page = { .items = json_array(), .complete = true };
	struct flows_filter filter;
	int r = page.items ? names_follow(&core->names, apply_snapshot(core->apply)) : -ENOMEM;

	want_samples(core);
	if (r == 0 && make_filter(core, query, &filter)) {
		if (query->group)
			r = page_grouped(core, query, &filter, &page);
		else if (query->sort != CORE_FLOWS_UNSORTED)
			r = page_sorted(core, query, &filter, &page);
		else
			r = page_unsorted(core, query, &filter, &page);
	}
	if (r < 0) {
		json_decref(page.items);
		return r;
	}
	*ret = page_document(core, &page);
	return *ret ? 0 : -ENOMEM;
}
