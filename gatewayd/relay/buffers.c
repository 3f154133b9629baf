/* The pool of buffers; see buffers.h. */
#include "gatewayd/relay/buffers.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

int buffers_init(struct buffers *buffers, const struct keep_memory *memory)
{
	uint32_t count = memory->buffers;
	uint32_t *free_list = calloc(count, sizeof(*free_list));

	if (!free_list)
		return -ENOMEM;
	*buffers = (struct buffers){ .memory = memory->data,
		.owner = memory->buffer_owner,
		.count = count,
		.n_free = count - 1,
		.free_list = free_list };
	/* The last freed is used first: its memory is warm, and the far end of the pool stays untouched. */
	for (uint32_t i = 0; i < count - 1; i++)
		free_list[i] = count - 1 - i;
	buffers->scratch = 0;
	return 0;
}

void buffers_destroy(struct buffers *buffers)
{
	free(buffers->free_list);
	*buffers = (struct buffers){ 0 };
}

uint8_t *buffers_data(const struct buffers *buffers, uint32_t buffer)
{
	return buffers->memory + (size_t)buffer * BUFFER_SIZE;
}

void buffers_own(struct buffers *buffers, uint64_t flow, uint32_t side, uint64_t position)
{
	struct keep_owner *owner = &buffers->owner[buffers->scratch];

	/* Whoever kills this process between two of these finds nobody's row, never one of two flows. */
	owner->flow = 0;
	atomic_signal_fence(memory_order_seq_cst);
	owner->position = position;
	owner->side = side;
	atomic_signal_fence(memory_order_seq_cst);
	owner->flow = flow;
}

bool buffers_available(const struct buffers *buffers)
{
	return buffers->n_free > 0;
}

uint32_t buffers_take_scratch(struct buffers *buffers)
{
	uint32_t taken = buffers->scratch;

	buffers->scratch = buffers->free_list[--buffers->n_free];
	return taken;
}

void buffers_put(struct buffers *buffers, uint32_t buffer)
{
	/* Else it could be taken for the place of bytes that the same direction has read into another buffer since. */
	buffers->owner[buffer].flow = 0;
	buffers->free_list[buffers->n_free++] = buffer;
}
