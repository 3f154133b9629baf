/* The memory of counters, its banks and slots; see meter.h. */
#include "gatewayd/meter.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"

/* Nobody can make the memory smaller under a reader's hands. */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

struct owned {
	uint32_t id, slot;
};

/* The objects of one kind that have a slot, by id. The daemon's own record: the copy in shared memory, for the next
 * daemon, could be written to by a relay that has gone mad. */
struct owners {
	struct owned *items;
	size_t n, room;
	uint32_t free_hint; /* no slot before this one is free */
};

struct meter {
	int fd;
	struct stats_memory *memory;
	struct owners owners[STATS_SLOT_KINDS];
};

/* --- memory --- */

static int map(int fd, struct stats_memory **ret)
{
	struct stats_memory *memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (memory == MAP_FAILED)
		return -errno;
	/* A core dump is to hold what went wrong, not gigabytes of empty rows. */
	(void)madvise(memory, sizeof(*memory), MADV_DONTDUMP);
	*ret = memory;
	return 0;
}

static int make(struct meter *meter)
{
	int r;

	meter->fd = memfd_create("gateway-stats", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (meter->fd < 0)
		return -errno;
	if (ftruncate(meter->fd, sizeof(struct stats_memory)) < 0 ||
	        fcntl(meter->fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) < 0)
		return -errno;
	r = map(meter->fd, &meter->memory);
	if (r == 0)
		meter->memory->layout = STATS_LAYOUT;
	return r;
}

int meter_new(struct meter **ret)
{
	struct meter *meter = calloc(1, sizeof(*meter));
	int r;

	if (!meter)
		return -ENOMEM;
	r = make(meter);
	if (r < 0) {
		meter_free(meter);
		return r;
	}
	*ret = meter;
	return 0;
}

static void release(struct meter *meter)
{
	if (meter->memory)
		munmap(meter->memory, sizeof(*meter->memory));
	if (meter->fd >= 0)
		close(meter->fd);
	for (unsigned kind = 0; kind < STATS_SLOT_KINDS; kind++)
		free(meter->owners[kind].items);
}

void meter_free(struct meter *meter)
{
	if (!meter)
		return;
	release(meter);
	free(meter);
}

const struct stats_memory *meter_memory(const struct meter *meter)
{
	return meter->memory;
}

int meter_fd(const struct meter *meter)
{
	return meter->fd;
}

struct stats_wanted *meter_wanted(const struct meter *meter)
{
	return &meter->memory->wanted;
}

struct stats_ring *meter_ring(const struct meter *meter, unsigned bank, unsigned thread)
{
	return &meter->memory->ring[bank][thread];
}

void meter_add(struct meter *meter, enum stats_counter counter, uint64_t amount)
{
	stats_word_add(&meter->memory->daemon[counter], amount);
}

/* --- slots --- */

/* Where the id is, or would be. */
static size_t place_of(const struct owners *owners, uint32_t id)
{
	size_t low = 0, high = owners->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (owners->items[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool is_at(const struct owners *owners, size_t place, uint32_t id)
{
	return place < owners->n && owners->items[place].id == id;
}

static int insert(struct owners *owners, size_t place, struct owned owned)
{
	if (owners->n == owners->room) {
		size_t room = owners->room ? owners->room * 2 : 64;
		struct owned *grown = reallocarray(owners->items, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		owners->items = grown;
		owners->room = room;
	}
	memmove(&owners->items[place + 1], &owners->items[place], (owners->n - place) * sizeof(owned));
	owners->items[place] = owned;
	owners->n++;
	return 0;
}

static uint32_t load_id(const struct stats_memory *memory, uint32_t slot)
{
	return atomic_load_explicit(&memory->id[slot], memory_order_relaxed);
}

static void store_id(struct meter *meter, uint32_t slot, uint32_t id)
{
	atomic_store_explicit(&meter->memory->id[slot], id, memory_order_relaxed);
}

/* The lowest slot that is free, so that the memory in use stays together. */
static uint32_t find_free(const struct meter *meter, enum stats_kind kind)
{
	uint32_t end = stats_slot_first(kind) + stats_slot_count(kind);
	uint32_t slot = stats_slot_first(kind) + meter->owners[kind].free_hint;

	while (slot < end && load_id(meter->memory, slot) != 0)
		slot++;
	return slot < end ? slot : STATS_SLOT_NONE;
}

uint32_t meter_find(const struct meter *meter, enum stats_kind kind, int64_t id)
{
	const struct owners *owners = &meter->owners[kind];
	size_t place = place_of(owners, (uint32_t)id);

	return is_at(owners, place, (uint32_t)id) ? owners->items[place].slot : STATS_SLOT_NONE;
}

uint32_t meter_slot(struct meter *meter, enum stats_kind kind, int64_t id)
{
	struct owners *owners = &meter->owners[kind];
	size_t place = place_of(owners, (uint32_t)id);
	uint32_t slot;

	if (is_at(owners, place, (uint32_t)id))
		return owners->items[place].slot;
	slot = find_free(meter, kind);
	if (slot == STATS_SLOT_NONE || insert(owners, place, (struct owned){ (uint32_t)id, slot }) < 0)
		return STATS_SLOT_NONE;
	if (kind == STATS_TARGET)
		memset(stats_target(meter->memory, slot), 0, sizeof(struct target_state));
	store_id(meter, slot, (uint32_t)id);
	owners->free_hint = slot - stats_slot_first(kind) + 1;
	return slot;
}

struct target_state *meter_target(struct meter *meter, int64_t id)
{
	return stats_target(meter->memory, meter_slot(meter, STATS_TARGET, id));
}

const struct target_state *meter_target_find(const struct meter *meter, int64_t id)
{
	return stats_target(meter->memory, meter_find(meter, STATS_TARGET, id));
}

size_t meter_count(const struct meter *meter, enum stats_kind kind)
{
	return meter->owners[kind].n;
}

uint32_t meter_at(const struct meter *meter, enum stats_kind kind, size_t i, uint32_t *ret_slot)
{
	*ret_slot = meter->owners[kind].items[i].slot;
	return meter->owners[kind].items[i].id;
}

static void forget_slot(struct meter *meter, enum stats_kind kind, uint32_t slot)
{
	uint32_t number = slot - stats_slot_first(kind);

	store_id(meter, slot, 0);
	if (number < meter->owners[kind].free_hint)
		meter->owners[kind].free_hint = number;
}

static void take_back(struct meter *meter, enum stats_kind kind, int64_t id)
{
	struct owners *owners = &meter->owners[kind];
	size_t place = place_of(owners, (uint32_t)id);

	if (!is_at(owners, place, (uint32_t)id))
		return;
	forget_slot(meter, kind, owners->items[place].slot);
	owners->n--;
	memmove(&owners->items[place], &owners->items[place + 1], (owners->n - place) * sizeof(*owners->items));
}

/* --- with plans and snapshots --- */

static bool has_target(const struct upstream *upstream, int64_t id)
{
	for (size_t i = 0; upstream && i < upstream->targets.n; i++)
		if (upstream->targets.items[i]->id == id)
			return true;
	return false;
}

/* What `gone` had and `stays` does not. */
static void take_back_row(struct meter *meter, const struct row *gone, const struct row *stays)
{
	const struct upstream *upstream = (const struct upstream *)gone;

	if (gone->resource == RESOURCE_LISTENER && !stays)
		take_back(meter, STATS_LISTENER, gone->id);
	if (gone->resource == RESOURCE_RATE_LIMIT && !stays)
		take_back(meter, STATS_LIMIT, gone->id);
	if (gone->resource != RESOURCE_UPSTREAM)
		return;
	if (!stays)
		take_back(meter, STATS_UPSTREAM, gone->id);
	for (size_t i = 0; i < upstream->targets.n; i++)
		if (!has_target((const struct upstream *)stays, upstream->targets.items[i]->id))
			take_back(meter, STATS_TARGET, upstream->targets.items[i]->id);
}

void meter_planned(struct meter *meter, const struct plan *plan, bool done)
{
	for (size_t i = 0; i < plan->n_changes; i++) {
		const struct row *gone = done ? plan->changes[i].old_row : plan->changes[i].new_row;
		const struct row *stays = done ? plan->changes[i].new_row : plan->changes[i].old_row;

		if (gone)
			take_back_row(meter, gone, stays);
	}
}

static int compare_owned(const void *a, const void *b)
{
	uint32_t x = ((const struct owned *)a)->id, y = ((const struct owned *)b)->id;

	return x < y ? -1 : x > y;
}

/* Keeps those of the owners whose id is among the n, which it sorts. */
static void keep_only(struct meter *meter, enum stats_kind kind, struct owned *ids, size_t n)
{
	struct owners *owners = &meter->owners[kind];
	size_t kept = 0;

	qsort(ids, n, sizeof(*ids), compare_owned);
	for (size_t i = 0; i < owners->n; i++) {
		if (bsearch(&owners->items[i], ids, n, sizeof(*ids), compare_owned))
			owners->items[kept++] = owners->items[i];
		else
			forget_slot(meter, kind, owners->items[i].slot);
	}
	owners->n = kept;
}

static void append_ids(struct owned *ids, size_t *n, const struct rows *rows)
{
	for (size_t i = 0; i < rows->n; i++)
		ids[(*n)++].id = (uint32_t)rows->items[i]->id;
}

void meter_sweep(struct meter *meter, const struct snapshot *snapshot)
{
	const struct rows *upstreams = &snapshot->rows[RESOURCE_UPSTREAM];
	const struct rows *listeners = &snapshot->rows[RESOURCE_LISTENER];
	const struct rows *limits = &snapshot->rows[RESOURCE_RATE_LIMIT];
	_cleanup_free_ struct owned *ids = NULL;
	size_t n = 0, targets = 0;

	for (size_t i = 0; i < upstreams->n; i++)
		targets += ((const struct upstream *)upstreams->items[i])->targets.n;
	ids = calloc(listeners->n + upstreams->n + limits->n + targets + 1, sizeof(*ids));
	if (!ids)
		return; /* another time: the slots are only not free */
	append_ids(ids, &n, listeners);
	keep_only(meter, STATS_LISTENER, ids, n);
	n = 0;
	append_ids(ids, &n, limits);
	keep_only(meter, STATS_LIMIT, ids, n);
	n = 0;
	append_ids(ids, &n, upstreams);
	keep_only(meter, STATS_UPSTREAM, ids, n);
	n = 0;
	for (size_t i = 0; i < upstreams->n; i++)
		append_ids(ids, &n, &((const struct upstream *)upstreams->items[i])->targets);
	keep_only(meter, STATS_TARGET, ids, n);
}

/* --- relays --- */

/* The owners that an earlier daemon has noted in this memory. What cannot be true (an id twice) is left out. */
static int read_owners(const struct stats_memory *memory, enum stats_kind kind, struct owners *owners)
{
	uint32_t first = stats_slot_first(kind);
	size_t n = 0;

	for (uint32_t slot = first; slot < first + stats_slot_count(kind); slot++) {
		struct owned owned = { load_id(memory, slot), slot };
		int r = owned.id ? insert(owners, owners->n, owned) : 0;

		if (r < 0)
			return r;
	}
	if (owners->n > 1)
		qsort(owners->items, owners->n, sizeof(*owners->items), compare_owned);
	for (size_t i = 0; i < owners->n; i++)
		if (n == 0 || owners->items[n - 1].id != owners->items[i].id)
			owners->items[n++] = owners->items[i];
	owners->n = n;
	return 0;
}

static void note_owners(struct meter *meter, enum stats_kind kind)
{
	uint32_t first = stats_slot_first(kind);

	for (uint32_t slot = first; slot < first + stats_slot_count(kind); slot++)
		if (load_id(meter->memory, slot) != 0)
			store_id(meter, slot, 0);
	for (size_t i = 0; i < meter->owners[kind].n; i++)
		store_id(meter, meter->owners[kind].items[i].slot, meter->owners[kind].items[i].id);
}

static int check_memory(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & SEALS) != SEALS || lseek(fd, 0, SEEK_END) != sizeof(struct stats_memory))
		return -EINVAL;
	return 0;
}

static int take(struct meter *other)
{
	int r = check_memory(other->fd);

	if (r == 0)
		r = map(other->fd, &other->memory);
	if (r == 0 && other->memory->layout != STATS_LAYOUT)
		r = -EINVAL;
	for (unsigned kind = 0; r == 0 && kind < STATS_SLOT_KINDS; kind++)
		r = read_owners(other->memory, (enum stats_kind)kind, &other->owners[kind]);
	return r;
}

int meter_take(struct meter *meter, int fd, unsigned bank, uint32_t run)
{
	struct meter other = { .fd = fd };
	int r = bank < STATS_BANKS && run != 0 ? take(&other) : -EINVAL;

	if (r < 0) {
		release(&other);
		return r;
	}
	release(meter);
	*meter = other;
	for (unsigned kind = 0; kind < STATS_SLOT_KINDS; kind++)
		note_owners(meter, (enum stats_kind)kind);
	for (unsigned i = 0; i < STATS_BANKS; i++)
		atomic_store_explicit(&meter->memory->bank[i].run, i == bank ? run : 0, memory_order_relaxed);
	if (atomic_load_explicit(&meter->memory->runs, memory_order_relaxed) < run)
		atomic_store_explicit(&meter->memory->runs, run, memory_order_relaxed);
	return 0;
}

int meter_bank_open(struct meter *meter, unsigned threads, unsigned *ret_bank, uint32_t *ret_run)
{
	struct stats_memory *memory = meter->memory;
	uint32_t run = atomic_load_explicit(&memory->runs, memory_order_relaxed) + 1;
	unsigned bank = run % STATS_BANKS;
	struct stats_bank *opened = &memory->bank[bank];

	static_assert(STATS_THREADS_MAX <= UINT16_MAX, "threads fit");
	/* The rows of an earlier relay go back to the system. */
	if (fallocate(meter->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	            (off_t)offsetof(struct stats_memory, rows[bank]), (off_t)sizeof(memory->rows[bank])) < 0)
		return -errno;
	atomic_store_explicit(&memory->runs, run, memory_order_relaxed);
	if (atomic_load_explicit(&opened->threads, memory_order_relaxed) < threads)
		atomic_store_explicit(&opened->threads, threads, memory_order_relaxed);
	for (unsigned i = 0; i < stats_threads(memory, bank); i++) {
		for (unsigned kind = 0; kind < STATS_TABLES; kind++) {
			atomic_store_explicit(&opened->thread[i].active[kind], 0, memory_order_relaxed);
			atomic_store_explicit(&opened->thread[i].rows_touched[kind], 0, memory_order_relaxed);
		}
	}
	atomic_store_explicit(&opened->run, run, memory_order_relaxed);
	*ret_bank = bank;
	*ret_run = run;
	return 0;
}

void meter_bank_close(struct meter *meter, unsigned bank)
{
	if (bank < STATS_BANKS)
		atomic_store_explicit(&meter->memory->bank[bank].run, 0, memory_order_relaxed);
}
