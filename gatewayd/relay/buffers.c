/* The pool of buffers; see buffers.h. */
#include "gatewayd/relay/buffers.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

int buffers_init(struct buffers *buffers, uint32_t count)
{
	void *memory = mmap(NULL, (size_t)count * BUFFER_SIZE, PROT_READ | PROT_WRITE,
	        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint32_t *free_list = calloc(count, sizeof(*free_list));

	if (memory == MAP_FAILED || !free_list) {
		if (memory != MAP_FAILED)
			munmap(memory, (size_t)count * BUFFER_SIZE);
		free(free_list);
		return -ENOMEM;
	}
	*buffers = (struct buffers){ .memory = memory, .count = count, .n_free = count - 1, .free_list = free_list };
	/* The last freed is used first: its memory is warm, and the far end of the pool stays untouched. */
	for (uint32_t i = 0; i < count - 1; i++)
		free_list[i] = count - 1 - i;
	buffers->scratch = 0;
	return 0;
}

void buffers_destroy(struct buffers *buffers)
{
	if (buffers->memory)
		munmap(buffers->memory, (size_t)buffers->count * BUFFER_SIZE);
	free(buffers->free_list);
	*buffers = (struct buffers){ 0 };
}

uint8_t *buffers_data(const struct buffers *buffers, uint32_t buffer)
{
	return buffers->memory + (size_t)buffer * BUFFER_SIZE;
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
	buffers->free_list[buffers->n_free++] = buffer;
}
