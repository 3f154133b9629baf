/* Rows of flows in shared memory; see stats_row.h. */
#include "gatewayd/base/stats_row.h"

#include <string.h>

#include "gatewayd/base/cleanup.h"

/* Copies that a reader makes before it passes over a row that changes under its hands each time. */
#define READ_TRIES 64

enum family { FAMILY_NONE, FAMILY_IPV4, FAMILY_IPV6, FAMILY_SAME };

static const char *const mover_names[] = {
#define MOVER(member, name) name,
#define REASON(member, name)
#include "gatewayd/base/stats_mover.def"
#undef MOVER
#undef REASON
};
static_assert(ARRAY_SIZE(mover_names) == STATS_MOVERS && STATS_MOVERS <= 1 << 4, "one name each, in four bits");

static const char *const reason_names[] = {
#define MOVER(member, name)
#define REASON(member, name) name,
#include "gatewayd/base/stats_mover.def"
#undef MOVER
#undef REASON
};
static_assert(ARRAY_SIZE(reason_names) == STATS_REASONS && STATS_REASONS <= 1 << 4, "one name each, in four bits");
static_assert(STATS_FLOW_STATES <= 1 << 2, "in two bits");

const char *stats_mover_name(enum stats_mover mover)
{
	return mover_names[mover < STATS_MOVERS ? mover : STATS_MOVER_NONE];
}

const char *stats_reason_name(enum stats_reason reason)
{
	return reason_names[reason < STATS_REASONS ? reason : STATS_REASON_NONE];
}

/* --- words --- */

static void words_store(_Atomic uint64_t *words, size_t n, const void *from)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t word;

		memcpy(&word, (const uint8_t *)from + i * 8, sizeof(word));
		atomic_store_explicit(&words[i], word, memory_order_relaxed);
	}
}

static void words_load(const _Atomic uint64_t *words, size_t n, void *ret)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t word = atomic_load_explicit(&words[i], memory_order_relaxed);

		memcpy((uint8_t *)ret + i * 8, &word, sizeof(word));
	}
}

/* --- packing --- */

static void status_pack(const struct stats_flow_status *status, struct stats_packed_status *packed)
{
	packed->state = status->state & 3U;
	packed->ended_to_target = status->ended[STATS_TO_TARGET];
	packed->ended_to_client = status->ended[STATS_TO_CLIENT];
	packed->at_rate = status->at_rate;
	packed->mover_to_target = status->mover[STATS_TO_TARGET] & 15U;
	packed->mover_to_client = status->mover[STATS_TO_CLIENT] & 15U;
	packed->reason_to_target = status->reason[STATS_TO_TARGET] & 15U;
	packed->reason_to_client = status->reason[STATS_TO_CLIENT] & 15U;
	packed->retries = status->retries;
	packed->connect_us = status->connect_us;
}

static struct stats_flow_status status_unpack(const struct stats_packed_status *packed)
{
	return (struct stats_flow_status){ .state = packed->state,
		.ended = { packed->ended_to_target, packed->ended_to_client },
		.at_rate = packed->at_rate,
		.mover = { packed->mover_to_target, packed->mover_to_client },
		.reason = { packed->reason_to_target, packed->reason_to_client },
		.retries = packed->retries,
		.connect_us = packed->connect_us };
}

static const struct addr *address_of(const struct stats_flow *flow, unsigned i)
{
	return i == 0 ? &flow->client : i == 1 ? &flow->original : &flow->target;
}

static enum family family_of(const struct stats_packed *packed, unsigned i)
{
	return (enum family)(packed->families >> i * 2 & 3U);
}

static void address_pack(const struct stats_flow *flow, unsigned i, struct stats_packed *packed)
{
	const struct addr *addr = address_of(flow, i);
	enum family family = addr->family == AF_INET    ? FAMILY_IPV4
	                     : addr->family == AF_INET6 ? FAMILY_IPV6
	                                                : FAMILY_NONE;

	if (family == FAMILY_IPV6 && i > 0 && addr_equal(addr, address_of(flow, i - 1)))
		family = FAMILY_SAME;
	packed->families |= (uint8_t)(family << i * 2);
	if (family == FAMILY_IPV4)
		memcpy(packed->ipv4[i], addr->bytes, 4);
}

static bool has_ipv6(const struct stats_packed *packed)
{
	return family_of(packed, 0) == FAMILY_IPV6 || family_of(packed, 1) == FAMILY_IPV6 ||
	       family_of(packed, 2) == FAMILY_IPV6;
}

/* What stands in the row itself; whatever else the flow has goes into the places beside it. */
static void pack(const struct stats_flow *flow, struct stats_packed *ret)
{
	*ret = (struct stats_packed){ .bytes = { flow->bytes[STATS_TO_TARGET], flow->bytes[STATS_TO_CLIENT] },
		.active_ms = flow->active_ms,
		.id = flow->id,
		.started_ms = flow->started_ms,
		.listener = flow->listener,
		.upstream = flow->upstream,
		.target_id = flow->target_id,
		.ifindex = flow->ifindex,
		.client_port = flow->client_port,
		.original_port = flow->original_port,
		.target_port = flow->target_port,
		.protocol = flow->protocol,
		.route = flow->route };
	status_pack(&flow->status, &ret->status);
	ret->status.named = *flow->sni != '\0';
	ret->status.sampled = flow->sampled_ms != 0;
	for (unsigned i = 0; i < 3; i++)
		address_pack(flow, i, ret);
}

static void unpack(const struct stats_packed *packed, struct stats_flow *ret)
{
	*ret = (struct stats_flow){ .id = packed->id,
		.started_ms = packed->started_ms,
		.active_ms = packed->active_ms,
		.bytes = { packed->bytes[STATS_TO_TARGET], packed->bytes[STATS_TO_CLIENT] },
		.status = status_unpack(&packed->status),
		.listener = packed->listener,
		.upstream = packed->upstream,
		.target_id = packed->target_id,
		.ifindex = packed->ifindex,
		.client_port = packed->client_port,
		.original_port = packed->original_port,
		.target_port = packed->target_port,
		.protocol = packed->protocol,
		.route = packed->route };
}

/* --- what lies beside a row --- */

static void sample_store(struct stats_rows *rows, uint32_t number, struct stats_flow_tcp client,
        struct stats_flow_tcp target, uint64_t at_ms)
{
	uint64_t words[STATS_SAMPLE_WORDS] = { at_ms, (uint64_t)client.retransmits << 32 | client.rtt_us,
		(uint64_t)target.retransmits << 32 | target.rtt_us };

	words_store(rows->sample[number].word, STATS_SAMPLE_WORDS, words);
}

static void sample_load(const struct stats_rows *rows, uint32_t number, struct stats_flow *ret)
{
	uint64_t words[STATS_SAMPLE_WORDS];

	words_load(rows->sample[number].word, STATS_SAMPLE_WORDS, words);
	ret->sampled_ms = words[0];
	ret->client_tcp = (struct stats_flow_tcp){ (uint32_t)words[1], (uint32_t)(words[1] >> 32) };
	ret->target_tcp = (struct stats_flow_tcp){ (uint32_t)words[2], (uint32_t)(words[2] >> 32) };
}

/* One that says to be the same as none is none. */
static struct addr address_load(const struct stats_rows *rows, uint32_t number, const struct stats_packed *packed,
        unsigned i, const struct addr *before)
{
	struct addr addr = { 0 };

	switch (family_of(packed, i)) {
	case FAMILY_IPV4:
		addr.family = AF_INET;
		memcpy(addr.bytes, packed->ipv4[i], 4);
		break;
	case FAMILY_IPV6:
		addr.family = AF_INET6;
		words_load(rows->ipv6[i][number].word, STATS_IPV6_WORDS, addr.bytes);
		break;
	case FAMILY_SAME:
		addr = *before;
		break;
	case FAMILY_NONE:
		break;
	}
	return addr;
}

static bool has_more(const struct stats_packed *packed)
{
	return has_ipv6(packed) || packed->status.named || packed->status.sampled;
}

static void load_more(
        const struct stats_rows *rows, uint32_t number, const struct stats_packed *packed, struct stats_flow *ret)
{
	static const struct addr none;

	ret->client = address_load(rows, number, packed, 0, &none);
	ret->original = address_load(rows, number, packed, 1, &ret->client);
	ret->target = address_load(rows, number, packed, 2, &ret->original);
	if (packed->status.named)
		words_load(rows->name[number].word, STATS_NAME_WORDS, ret->sni);
	if (packed->status.sampled)
		sample_load(rows, number, ret);
}

/* --- the writer --- */

void stats_row_write(struct stats_rows *rows, uint32_t number, const struct stats_flow *flow)
{
	struct stats_row *row = &rows->row[number];
	uint32_t sequence = atomic_load_explicit(&row->sequence, memory_order_relaxed);
	struct stats_packed packed;

	pack(flow, &packed);
	/* Odd from wherever a writer that died has left it. */
	sequence |= 1;
	atomic_store_explicit(&row->sequence, sequence, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	atomic_store_explicit(&row->limit, flow->limit, memory_order_relaxed);
	words_store(row->word, STATS_ROW_WORDS, &packed);
	for (unsigned i = 0; i < 3; i++)
		if (family_of(&packed, i) == FAMILY_IPV6)
			words_store(rows->ipv6[i][number].word, STATS_IPV6_WORDS, address_of(flow, i)->bytes);
	if (packed.status.named)
		words_store(rows->name[number].word, STATS_NAME_WORDS, flow->sni);
	if (packed.status.sampled)
		sample_store(rows, number, flow->client_tcp, flow->target_tcp, flow->sampled_ms);
	atomic_store_explicit(&row->sequence, sequence + 1, memory_order_release);
}

void stats_row_clear(struct stats_row *row)
{
	uint32_t sequence = atomic_load_explicit(&row->sequence, memory_order_relaxed) | 1;

	atomic_store_explicit(&row->sequence, sequence, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	stats_row_set(row, id, 0);
	atomic_store_explicit(&row->sequence, sequence + 1, memory_order_release);
}

static struct stats_packed_status status_load(const struct stats_row *row)
{
	struct stats_packed_status status;

	words_load(&row->word[offsetof(struct stats_packed, status) / 8], 1, &status);
	return status;
}

static void status_store(struct stats_row *row, const struct stats_packed_status *status)
{
	words_store(&row->word[offsetof(struct stats_packed, status) / 8], 1, status);
}

void stats_row_set_status(struct stats_row *row, const struct stats_flow_status *status)
{
	struct stats_packed_status packed = status_load(row);

	status_pack(status, &packed);
	status_store(row, &packed);
}

void stats_row_set_mover(struct stats_row *row, enum stats_mover mover)
{
	struct stats_packed_status packed = status_load(row);

	packed.mover_to_target = packed.mover_to_client = mover & 15U;
	status_store(row, &packed);
}

void stats_row_set_sample(struct stats_rows *rows, uint32_t number, struct stats_flow_tcp client,
        struct stats_flow_tcp target, uint64_t now_ms)
{
	struct stats_packed_status packed = status_load(&rows->row[number]);

	sample_store(rows, number, client, target, now_ms);
	/* Whoever sees that there is something sees this. */
	atomic_thread_fence(memory_order_release);
	packed.sampled = true;
	status_store(&rows->row[number], &packed);
}

void stats_row_copy(const struct stats_rows *rows, uint32_t number, struct stats_flow *ret)
{
	const struct stats_row *row = &rows->row[number];
	struct stats_packed packed;

	words_load(row->word, STATS_ROW_WORDS, &packed);
	unpack(&packed, ret);
	ret->limit = atomic_load_explicit(&row->limit, memory_order_relaxed);
	load_more(rows, number, &packed, ret);
}

void stats_row_get_name(const struct stats_rows *rows, uint32_t number, char ret[STATS_SNI_MAX])
{
	if (status_load(&rows->row[number]).named)
		words_load(rows->name[number].word, STATS_NAME_WORDS, ret);
	else
		memset(ret, 0, STATS_SNI_MAX);
}

/* --- readers --- */

static void clean_text(char *text, size_t size)
{
	size_t i;

	for (i = 0; i + 1 < size && text[i] > ' ' && text[i] < 0x7f; i++)
		;
	memset(text + i, 0, size - i);
}

static void clean_address(struct addr *addr)
{
	if (addr->family != AF_INET && addr->family != AF_INET6)
		memset(addr, 0, sizeof(*addr));
}

/* The writer is another process with fewer rights: what it has written may be anything. */
void stats_flow_clean(struct stats_flow *flow)
{
	for (int i = 0; i < STATS_DIRECTIONS; i++) {
		if (flow->status.mover[i] >= STATS_MOVERS)
			flow->status.mover[i] = STATS_MOVER_NONE;
		if (flow->status.reason[i] >= STATS_REASONS)
			flow->status.reason[i] = STATS_REASON_NONE;
	}
	clean_text(flow->sni, sizeof(flow->sni));
	clean_address(&flow->client);
	clean_address(&flow->original);
	clean_address(&flow->target);
	if (flow->status.state >= STATS_FLOW_STATES)
		flow->status.state = STATS_FLOW_NONE;
}

/* Whether the row is still as it was when this was its sequence number. */
static bool still(const struct stats_row *row, uint32_t sequence)
{
	atomic_thread_fence(memory_order_acquire);
	return !(sequence & 1) && atomic_load_explicit(&row->sequence, memory_order_relaxed) == sequence;
}

static bool copy(const struct stats_rows *rows, uint32_t number, struct stats_flow *ret)
{
	const struct stats_row *row = &rows->row[number];
	uint32_t before = atomic_load_explicit(&row->sequence, memory_order_acquire);
	struct stats_packed packed;

	words_load(row->word, STATS_ROW_WORDS, &packed);
	unpack(&packed, ret);
	ret->limit = atomic_load_explicit(&row->limit, memory_order_relaxed);
	/* Only a row that is whole says what there is beside it: to look is to give it memory. */
	if (!still(row, before))
		return false;
	load_more(rows, number, &packed, ret);
	return !has_more(&packed) || still(row, before);
}

bool stats_row_read(const struct stats_rows *rows, uint32_t number, struct stats_flow *ret)
{
	struct stats_flow flow;

	for (int i = 0; i < READ_TRIES; i++) {
		if (!copy(rows, number, &flow))
			continue;
		if (flow.id == 0)
			return false;
		stats_flow_clean(&flow);
		*ret = flow;
		return true;
	}
	return false;
}
