/* Pools of parts; see parts.h. */
#include "gatewayd/base/parts.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NONE     UINT32_MAX
#define EACH_MAX (1U << PARTS_EACH_BITS)

static void *reserve(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

int parts_init(struct parts *parts, uint32_t max, size_t size)
{
	uint32_t least = PARTS_CHUNK_BYTES / EACH_MAX, n;

	size = size < least ? least : size;
	n = PARTS_CHUNK_BYTES / (uint32_t)size;
	*parts = (struct parts){ .size = (uint32_t)size,
		.each = n,
		.n_chunks = max / n + 1,
		.room_head = NONE,
		.room_tail = NONE,
		.spare = NONE,
		.gives_back = PARTS_CHUNK_BYTES % sysconf(_SC_PAGESIZE) == 0 };
	parts->memory = reserve((size_t)parts->n_chunks * PARTS_CHUNK_BYTES);
	parts->chunks = reserve(parts->n_chunks * sizeof(*parts->chunks));
	if (parts->memory && parts->chunks)
		return 0;
	parts_destroy(parts);
	return -ENOMEM;
}

void parts_destroy(struct parts *parts)
{
	if (parts->memory)
		munmap(parts->memory, (size_t)parts->n_chunks * PARTS_CHUNK_BYTES);
	if (parts->chunks)
		munmap(parts->chunks, parts->n_chunks * sizeof(*parts->chunks));
	*parts = (struct parts){ 0 };
}

/* --- the chunks with room --- */

static void room_remove(struct parts *parts, uint32_t index)
{
	struct parts_chunk *chunk = &parts->chunks[index];

	if (chunk->prev == NONE)
		parts->room_head = chunk->next;
	else
		parts->chunks[chunk->prev].next = chunk->next;
	if (chunk->next == NONE)
		parts->room_tail = chunk->prev;
	else
		parts->chunks[chunk->next].prev = chunk->prev;
}

static void room_add_first(struct parts *parts, uint32_t index)
{
	parts->chunks[index].prev = NONE;
	parts->chunks[index].next = parts->room_head;
	if (parts->room_head == NONE)
		parts->room_tail = index;
	else
		parts->chunks[parts->room_head].prev = index;
	parts->room_head = index;
}

static void room_add_last(struct parts *parts, uint32_t index)
{
	parts->chunks[index].next = NONE;
	parts->chunks[index].prev = parts->room_tail;
	if (parts->room_tail == NONE)
		parts->room_head = index;
	else
		parts->chunks[parts->room_tail].next = index;
	parts->room_tail = index;
}

/* Nothing of the chunk is used any more. It is the last to be used again if it has no pages. */
static void empty(struct parts *parts, uint32_t index)
{
	struct parts_chunk *chunk = &parts->chunks[index];

	if (parts->spare == NONE || !parts->gives_back) {
		parts->spare = index;
		return;
	}
	(void)madvise(parts->memory + (size_t)index * PARTS_CHUNK_BYTES, PARTS_CHUNK_BYTES, MADV_DONTNEED);
	chunk->touched = chunk->free_head = 0;
	room_remove(parts, index);
	room_add_last(parts, index);
}

/* --- parts --- */

static uint8_t *place_at(const struct parts *parts, uint32_t index, uint32_t place)
{
	return parts->memory + (size_t)index * PARTS_CHUNK_BYTES + (size_t)place * parts->size;
}

uint32_t parts_take(struct parts *parts)
{
	uint32_t index = parts->room_head, place;
	struct parts_chunk *chunk;
	uint8_t *part;

	if (index == NONE && parts->touched == parts->n_chunks)
		return 0;
	if (index == NONE) {
		index = parts->touched++;
		room_add_first(parts, index);
	}
	chunk = &parts->chunks[index];
	place = chunk->free_head > 0 ? chunk->free_head - 1U : chunk->touched++;
	part = place_at(parts, index, place);
	if (chunk->free_head > 0)
		memcpy(&chunk->free_head, part, sizeof(chunk->free_head));
	memset(part, 0, parts->size);
	if (index == parts->spare)
		parts->spare = NONE;
	if (++chunk->used == parts->each)
		room_remove(parts, index);
	parts->used++;
	return (index << PARTS_EACH_BITS | place) + 1;
}

void parts_give(struct parts *parts, uint32_t number)
{
	uint32_t index = (number - 1) >> PARTS_EACH_BITS, place = (number - 1) & (EACH_MAX - 1);
	struct parts_chunk *chunk;

	if (number == 0)
		return;
	chunk = &parts->chunks[index];
	memcpy(place_at(parts, index, place), &chunk->free_head, sizeof(chunk->free_head));
	chunk->free_head = (uint16_t)(place + 1);
	if (chunk->used == parts->each)
		room_add_first(parts, index);
	parts->used--;
	if (--chunk->used == 0)
		empty(parts, index);
}
