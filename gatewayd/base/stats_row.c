/* Rows of flows in shared memory; see stats_row.h. */
#include "gatewayd/base/stats_row.h"

#include <string.h>

/* Copies that a reader makes before it passes over a row that changes under its hands each time. */
#define READ_TRIES 64

static_assert(sizeof(struct stats_flow) == STATS_FLOW_WORDS * 8, "words cover it exactly");

void stats_row_write(struct stats_row *row, const struct stats_flow *flow)
{
	uint64_t sequence = atomic_load_explicit(&row->sequence, memory_order_relaxed);
	uint64_t words[STATS_FLOW_WORDS];

	memcpy(words, flow, sizeof(words));
	/* Odd from wherever a writer that died has left it. */
	sequence |= 1;
	atomic_store_explicit(&row->sequence, sequence, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	for (size_t i = 0; i < STATS_FLOW_WORDS; i++)
		atomic_store_explicit(&row->word[i], words[i], memory_order_relaxed);
	atomic_store_explicit(&row->sequence, sequence + 1, memory_order_release);
}

void stats_row_clear(struct stats_row *row)
{
	uint64_t sequence = atomic_load_explicit(&row->sequence, memory_order_relaxed) | 1;

	atomic_store_explicit(&row->sequence, sequence, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	stats_row_set(row, id, 0);
	atomic_store_explicit(&row->sequence, sequence + 1, memory_order_release);
}

void stats_row_copy(const struct stats_row *row, struct stats_flow *ret)
{
	uint64_t words[STATS_FLOW_WORDS];

	for (size_t i = 0; i < STATS_FLOW_WORDS; i++)
		words[i] = atomic_load_explicit(&row->word[i], memory_order_relaxed);
	memcpy(ret, words, sizeof(words));
}

void stats_row_get_name(const struct stats_row *row, char ret[STATS_SNI_MAX])
{
	struct stats_flow flow;

	stats_row_copy(row, &flow);
	memcpy(ret, flow.sni, STATS_SNI_MAX);
}

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
		clean_text(flow->mover[i], sizeof(flow->mover[i]));
		clean_text(flow->reason[i], sizeof(flow->reason[i]));
	}
	clean_text(flow->sni, sizeof(flow->sni));
	clean_address(&flow->client);
	clean_address(&flow->original);
	clean_address(&flow->target);
	if (flow->status.state >= STATS_FLOW_STATES)
		flow->status.state = STATS_FLOW_NONE;
}

static bool copy(const struct stats_row *row, struct stats_flow *ret)
{
	uint64_t words[STATS_FLOW_WORDS], before;

	before = atomic_load_explicit(&row->sequence, memory_order_acquire);
	for (size_t i = 0; i < STATS_FLOW_WORDS; i++)
		words[i] = atomic_load_explicit(&row->word[i], memory_order_relaxed);
	atomic_thread_fence(memory_order_acquire);
	if ((before & 1) || atomic_load_explicit(&row->sequence, memory_order_relaxed) != before)
		return false;
	memcpy(ret, words, sizeof(words));
	return true;
}

bool stats_row_read(const struct stats_row *row, struct stats_flow *ret)
{
	struct stats_flow flow;

	for (int i = 0; i < READ_TRIES; i++) {
		if (!copy(row, &flow))
			continue;
		if (flow.id == 0)
			return false;
		stats_flow_clean(&flow);
		*ret = flow;
		return true;
	}
	return false;
}
