/* The reading end of a BPF ring buffer; see ring.h. The layout is the kernel's user interface. */
#include "gatewayd/relay/ring.h"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

int ring_open(int fd, size_t size, struct ring *ret)
{
	size_t page = page_size();
	void *consumer = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	void *producer;

	if (consumer == MAP_FAILED)
		return -errno;
	producer = mmap(NULL, page + 2 * size, PROT_READ, MAP_SHARED, fd, (off_t)page);
	if (producer == MAP_FAILED) {
		int r = -errno;

		munmap(consumer, page);
		return r;
	}
	*ret = (struct ring){
		.consumed = consumer, .produced = producer, .data = (uint8_t *)producer + page, .size = size
	};
	return 0;
}

void ring_close(struct ring *ring)
{
	size_t page = page_size();

	if (!ring->consumed)
		return;
	munmap(ring->consumed, page);
	munmap((void *)(uintptr_t)ring->produced, page + 2 * ring->size);
	*ring = (struct ring){ 0 };
}

/* The record at this position, if it is a whole one. Its place in the ring, or 0 while it is written. */
static uint64_t record_read(const uint8_t *record, bool *ret_whole, void *ret, size_t size)
{
	uint32_t length = __atomic_load_n((const uint32_t *)(const void *)record, __ATOMIC_ACQUIRE);

	if (length & BPF_RINGBUF_BUSY_BIT)
		return 0;
	*ret_whole = !(length & BPF_RINGBUF_DISCARD_BIT) && length == size;
	if (*ret_whole)
		memcpy(ret, record + BPF_RINGBUF_HDR_SZ, size);
	length &= ~BPF_RINGBUF_DISCARD_BIT;
	return (length + BPF_RINGBUF_HDR_SZ + 7) & ~UINT64_C(7);
}

/* The next record, or what is left of it; false: there is none, or it is written at present. */
static bool take(struct ring *ring, bool *ret_whole, void *ret, size_t size)
{
	uint64_t at = __atomic_load_n(ring->consumed, __ATOMIC_RELAXED), place;

	if (at == __atomic_load_n(ring->produced, __ATOMIC_ACQUIRE))
		return false;
	place = record_read(ring->data + (at & (ring->size - 1)), ret_whole, ret, size);
	if (place == 0)
		return false;
	__atomic_store_n(ring->consumed, at + place, __ATOMIC_RELEASE);
	return true;
}

bool ring_next(struct ring *ring, void *ret, size_t size)
{
	bool whole = false;

	while (!whole) {
		if (take(ring, &whole, ret, size))
			continue;
		/* The kernel wakes us for a record only if all before it was consumed when it had written that: what it
		 * has written before it could see what we have consumed is to be seen here, or nobody wakes us. */
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (!take(ring, &whole, ret, size))
			return false;
	}
	return true;
}
