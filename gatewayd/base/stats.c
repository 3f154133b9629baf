/* Claiming slots, reading counters, and the names of both; see stats.h. */
#include "gatewayd/base/stats.h"

#include <assert.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"

static_assert(sizeof(struct stats_object) == 128, "two lines of the cache");
static_assert((int)STATS_TABLES == STATS_THREAD_TABLES, "there are rows for all of them");
static_assert(STATS_SLOTS_MAX % 64 == 0, "the bits of `claimed` have all slots");
static_assert(STATS_OWN_MAX <= STATS_LISTENERS_MAX && STATS_OWN_MAX <= STATS_UPSTREAMS_MAX, "of the first slots");

/* Which histograms are those of the slot: an index into `own` as if that were one array, or SIZE_MAX. */
static size_t own_index(uint32_t slot)
{
	for (unsigned kind = 0; kind < STATS_OWN_KINDS; kind++) {
		uint32_t number = slot - stats_slot_first((enum stats_kind)kind);

		if (number < STATS_OWN_MAX)
			return kind * STATS_OWN_MAX + number;
	}
	return SIZE_MAX;
}

/* --- the writer --- */

struct stats_own *stats_own(const struct stats_place *place, uint32_t slot)
{
	size_t i = own_index(slot);

	return i == SIZE_MAX ? NULL : &place->thread->own[i / STATS_OWN_MAX][i % STATS_OWN_MAX];
}

static void clear_histograms(const struct stats_place *place, uint32_t slot)
{
	struct stats_own *own = stats_own(place, slot);

	for (int i = 0; own && i < STATS_HISTOGRAMS; i++)
		histogram_clear(&own->histogram[i], &own->sum[i]);
}

/* Readers see the old id with the old values, no id, or the new id with zeros. */
static void take(const struct stats_place *place, uint32_t slot, uint32_t id)
{
	struct stats_object *object = &place->thread->object[slot];
	_Atomic uint64_t *bits = &place->thread->claimed[slot / 64];

	if (atomic_load_explicit(&object->id, memory_order_relaxed) != 0) {
		atomic_store_explicit(&object->id, 0, memory_order_relaxed);
		atomic_thread_fence(memory_order_release);
		for (int i = 0; i < STATS_OBJECT_COUNTERS; i++)
			atomic_store_explicit(&object->counter[i], 0, memory_order_relaxed);
		clear_histograms(place, slot);
	}
	atomic_store_explicit(&object->active, 0, memory_order_relaxed);
	atomic_store_explicit(&object->run, place->run, memory_order_relaxed);
	atomic_store_explicit(&object->id, id, memory_order_release);
	atomic_store_explicit(bits, atomic_load_explicit(bits, memory_order_relaxed) | UINT64_C(1) << (slot % 64),
	        memory_order_release);
}

struct stats_object *stats_claim(const struct stats_place *place, uint32_t slot, uint32_t id)
{
	struct stats_object *object;

	if (slot >= STATS_SLOTS_MAX || id == 0)
		return NULL;
	object = &place->thread->object[slot];
	if (atomic_load_explicit(&object->id, memory_order_relaxed) != id) {
		take(place, slot, id);
	} else if (atomic_load_explicit(&object->run, memory_order_relaxed) != place->run) {
		atomic_store_explicit(&object->active, 0, memory_order_relaxed);
		atomic_store_explicit(&object->run, place->run, memory_order_release);
	}
	return object;
}

/* --- readers --- */

unsigned stats_threads(const struct stats_memory *memory, unsigned bank)
{
	uint32_t threads = atomic_load_explicit(&memory->bank[bank].threads, memory_order_relaxed);

	return threads < STATS_THREADS_MAX ? threads : STATS_THREADS_MAX;
}

static uint32_t living_run(const struct stats_memory *memory, unsigned bank)
{
	return atomic_load_explicit(&memory->bank[bank].run, memory_order_relaxed);
}

uint64_t stats_sum(const struct stats_memory *memory, enum stats_counter counter)
{
	uint64_t sum = atomic_load_explicit(&memory->daemon[counter], memory_order_relaxed);

	for (unsigned bank = 0; bank < STATS_BANKS; bank++)
		for (unsigned i = 0; i < stats_threads(memory, bank); i++)
			sum += atomic_load_explicit(
			        &memory->bank[bank].thread[i].counter[counter], memory_order_relaxed);
	return sum;
}

uint64_t stats_active(const struct stats_memory *memory, enum stats_table kind)
{
	uint64_t sum = 0;

	for (unsigned bank = 0; bank < STATS_BANKS; bank++)
		for (unsigned i = 0; living_run(memory, bank) && i < stats_threads(memory, bank); i++)
			sum += atomic_load_explicit(&memory->bank[bank].thread[i].active[kind], memory_order_relaxed);
	return sum;
}

uint64_t stats_active_all(const struct stats_memory *memory)
{
	return stats_active(memory, STATS_CONNECTIONS) + stats_active(memory, STATS_UDP);
}

/* The object's slot in one thread if it has counted there. Others are not even looked at: reading would give them
 * memory. */
static const struct stats_object *find(const struct stats_thread *thread, uint32_t slot, uint32_t id)
{
	const struct stats_object *object = &thread->object[slot];

	if (!(atomic_load_explicit(&thread->claimed[slot / 64], memory_order_acquire) >> (slot % 64) & 1))
		return NULL;
	return atomic_load_explicit(&object->id, memory_order_acquire) == id ? object : NULL;
}

/* Whether the slot was still the object's after its values were read. */
static bool still(const struct stats_object *object, uint32_t id)
{
	atomic_thread_fence(memory_order_acquire);
	return atomic_load_explicit(&object->id, memory_order_relaxed) == id;
}

static void add_object(const struct stats_object *object, uint32_t id, uint32_t run, struct stats_object_sum *sum)
{
	struct stats_object_sum more = *sum;

	for (int i = 0; i < STATS_OBJECT_COUNTERS; i++)
		more.counter[i] += atomic_load_explicit(&object->counter[i], memory_order_relaxed);
	if (run != 0 && atomic_load_explicit(&object->run, memory_order_acquire) == run)
		more.active += atomic_load_explicit(&object->active, memory_order_relaxed);
	if (still(object, id))
		*sum = more;
}

void stats_object_read(const struct stats_memory *memory, uint32_t slot, uint32_t id, struct stats_object_sum *ret)
{
	*ret = (struct stats_object_sum){ 0 };
	if (slot >= STATS_SLOTS_MAX || id == 0)
		return;
	for (unsigned bank = 0; bank < STATS_BANKS; bank++)
		for (unsigned i = 0; i < stats_threads(memory, bank); i++) {
			const struct stats_object *object = find(&memory->bank[bank].thread[i], slot, id);

			if (object)
				add_object(object, id, living_run(memory, bank), ret);
		}
}

void stats_histogram_read(const struct stats_memory *memory, enum stats_histogram histogram, struct histogram_sum *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (unsigned bank = 0; bank < STATS_BANKS; bank++)
		for (unsigned i = 0; i < stats_threads(memory, bank); i++) {
			const struct stats_thread *thread = &memory->bank[bank].thread[i];

			histogram_add(&thread->histogram[histogram], &thread->histogram_sum[histogram], ret);
		}
}

bool stats_own_read(const struct stats_memory *memory, uint32_t slot, uint32_t id, enum stats_histogram histogram,
        struct histogram_sum *ret)
{
	size_t own = own_index(slot);

	memset(ret, 0, sizeof(*ret));
	if (own == SIZE_MAX)
		return false;
	for (unsigned bank = 0; bank < STATS_BANKS; bank++)
		for (unsigned i = 0; i < stats_threads(memory, bank); i++) {
			const struct stats_thread *thread = &memory->bank[bank].thread[i];
			const struct stats_own *its = &thread->own[own / STATS_OWN_MAX][own % STATS_OWN_MAX];

			if (find(thread, slot, id))
				histogram_add(&its->histogram[histogram], &its->sum[histogram], ret);
		}
	return true;
}

unsigned stats_tables(const struct stats_memory *memory, unsigned bank)
{
	return stats_threads(memory, bank) * STATS_TABLES;
}

uint32_t stats_rows_left(const struct stats_memory *memory, unsigned bank, unsigned table, uint32_t *ret_first)
{
	const struct stats_thread *its;
	uint32_t first, n;

	if (table >= stats_tables(memory, bank))
		return 0;
	its = &memory->bank[bank].thread[table / STATS_TABLES];
	first = atomic_load_explicit(&its->rows_first[table % STATS_TABLES], memory_order_relaxed);
	n = atomic_load_explicit(&its->rows_touched[table % STATS_TABLES], memory_order_acquire);
	if (first >= STATS_ROWS_MAX || n > STATS_ROWS_MAX - first)
		return 0;
	*ret_first = first;
	return n;
}

uint32_t stats_rows(const struct stats_memory *memory, unsigned bank, unsigned table, uint32_t *ret_first)
{
	return living_run(memory, bank) ? stats_rows_left(memory, bank, table, ret_first) : 0;
}

bool stats_flow_is_shown(const struct stats_memory *memory, uint64_t id)
{
	for (unsigned bank = 0; bank < STATS_BANKS; bank++)
		for (unsigned table = 0; table < stats_tables(memory, bank); table++) {
			uint32_t first, n = stats_rows_left(memory, bank, table, &first);

			for (uint32_t i = 0; i < n; i++)
				if (stats_row_id(&memory->rows[bank].row[first + i]) == id)
					return true;
		}
	return false;
}

/* --- names --- */

struct words {
	const char *name, *unit, *doc;
};

static const struct words counters[] = {
#define STAT(member, unit, doc) { #member, unit, doc },
#include "gatewayd/base/stats.def"
#undef STAT
};
static_assert(ARRAY_SIZE(counters) == STATS_COUNTERS, "one row per counter");

static const struct words object_counters[] = {
#define STAT(member, unit, doc) { #member, unit, doc },
#include "gatewayd/base/stats_object.def"
#undef STAT
};
static_assert(ARRAY_SIZE(object_counters) == STATS_OBJECT_COUNTERS, "one row per counter");

static const struct words histograms[] = {
#define HISTOGRAM(member, unit, doc) { #member, unit, doc },
#include "gatewayd/base/stats_histogram.def"
#undef HISTOGRAM
};
static_assert(ARRAY_SIZE(histograms) == STATS_HISTOGRAMS, "one row per histogram");

const char *stats_name(enum stats_counter counter)
{
	return counters[counter].name;
}

const char *stats_unit(enum stats_counter counter)
{
	return counters[counter].unit;
}

const char *stats_doc(enum stats_counter counter)
{
	return counters[counter].doc;
}

const char *stats_object_name(enum stats_object_counter counter)
{
	return object_counters[counter].name;
}

const char *stats_object_unit(enum stats_object_counter counter)
{
	return object_counters[counter].unit;
}

const char *stats_object_doc(enum stats_object_counter counter)
{
	return object_counters[counter].doc;
}

const char *stats_histogram_name(enum stats_histogram histogram)
{
	return histograms[histogram].name;
}

const char *stats_histogram_unit(enum stats_histogram histogram)
{
	return histograms[histogram].unit;
}

const char *stats_histogram_doc(enum stats_histogram histogram)
{
	return histograms[histogram].doc;
}
