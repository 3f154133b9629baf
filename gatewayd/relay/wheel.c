/* The lazy timer wheel; see wheel.h. */
#include "gatewayd/relay/wheel.h"

#include <assert.h>
#include <string.h>

static_assert((WHEEL_SLOTS & (WHEEL_SLOTS - 1)) == 0 && WHEEL_SLOTS % 64 == 0, "slots are bits of whole words");

void wheel_init(struct wheel *wheel, uint64_t now_ms)
{
	memset(wheel, 0, sizeof(*wheel));
	wheel->tick = now_ms / WHEEL_TICK_MS;
}

bool wheel_is_set(const struct wheel_entry *entry)
{
	return entry->link != NULL;
}

/* An entry whose link is the slot itself is the first there; without a next one it was the only one. */
static void unuse_if_only(struct wheel *wheel, const struct wheel_entry *entry)
{
	size_t slot = ((uintptr_t)entry->link - (uintptr_t)wheel->slots) / sizeof(wheel->slots[0]);

	if (!entry->next && slot < WHEEL_SLOTS)
		wheel->used[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
}

void wheel_clear(struct wheel *wheel, struct wheel_entry *entry)
{
	if (!entry->link)
		return;
	*entry->link = entry->next;
	if (entry->next)
		entry->next->link = entry->link;
	unuse_if_only(wheel, entry);
	entry->next = NULL;
	entry->link = NULL;
}

void wheel_set(struct wheel *wheel, struct wheel_entry *entry, uint64_t due_ms)
{
	uint64_t tick = (due_ms + WHEEL_TICK_MS - 1) / WHEEL_TICK_MS;
	struct wheel_entry **head;
	size_t slot;

	if (tick <= wheel->tick)
		tick = wheel->tick + 1;
	if (tick >= wheel->tick + WHEEL_SLOTS)
		tick = wheel->tick + WHEEL_SLOTS - 1;
	wheel_clear(wheel, entry);
	slot = tick % WHEEL_SLOTS;
	head = &wheel->slots[slot];
	entry->next = *head;
	entry->link = head;
	if (entry->next)
		entry->next->link = &entry->next;
	*head = entry;
	wheel->used[slot / 64] |= UINT64_C(1) << (slot % 64);
}

void wheel_advance(
        struct wheel *wheel, uint64_t now_ms, void (*fire)(struct wheel_entry *entry, void *context), void *context)
{
	uint64_t now_tick = now_ms / WHEEL_TICK_MS;

	/* After a long pause one turn visits every slot. */
	if (now_tick > wheel->tick + WHEEL_SLOTS)
		wheel->tick = now_tick - WHEEL_SLOTS;
	while (wheel->tick < now_tick) {
		struct wheel_entry **head = &wheel->slots[++wheel->tick % WHEEL_SLOTS];

		while (*head) {
			struct wheel_entry *entry = *head;

			wheel_clear(wheel, entry);
			fire(entry, context);
		}
	}
}

int wheel_timeout(const struct wheel *wheel, uint64_t now_ms)
{
	for (uint64_t ahead = 1; ahead < WHEEL_SLOTS;) {
		uint64_t slot = (wheel->tick + ahead) % WHEEL_SLOTS;
		uint64_t word = wheel->used[slot / 64] >> (slot % 64);

		if (word) {
			uint64_t tick = wheel->tick + ahead + (uint64_t)__builtin_ctzll(word);
			uint64_t due_ms = tick * WHEEL_TICK_MS;

			return due_ms > now_ms ? (int)(due_ms - now_ms) : 0;
		}
		ahead += 64 - slot % 64;
	}
	return -1;
}
