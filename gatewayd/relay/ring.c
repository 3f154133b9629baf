/* The reading end of a BPF ring buffer; see ring.h. The layout is the kernel's user interface. */
#include "gatewayd/relay/ring.h"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gatewayd/base/bpf_flow.h"

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

int ring_open(int fd, struct ring *ret)
{
	size_t page = page_size();
	void *consumer = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	void *producer;

	if (consumer == MAP_FAILED)
		return -errno;
	producer = mmap(NULL, page + 2 * BPF_FLOW_RING_SIZE, PROT_READ, MAP_SHARED, fd, (off_t)page);
	if (producer == MAP_FAILED) {
		int r = -errno;

		munmap(consumer, page);
		return r;
	}
	*ret = (struct ring){ .consumed = consumer, .produced = producer, .data = (uint8_t *)producer + page };
	return 0;
}

void ring_close(struct ring *ring)
{
	size_t page = page_size();

	if (!ring->consumed)
		return;
	munmap(ring->consumed, page);
	munmap((void *)(uintptr_t)ring->produced, page + 2 * BPF_FLOW_RING_SIZE);
	*ring = (struct ring){ 0 };
}

/* The record at this position: its tag, if it is a whole notice. Its place in the ring, or 0 while it is written. */
static uint64_t record_read(const uint8_t *record, bool *ret_whole, uint64_t *ret_tag)
{
	uint32_t length = __atomic_load_n((const uint32_t *)(const void *)record, __ATOMIC_ACQUIRE);
	struct bpf_flow_notice notice;

	if (length & BPF_RINGBUF_BUSY_BIT)
		return 0;
	*ret_whole = !(length & BPF_RINGBUF_DISCARD_BIT) && length == sizeof(notice);
	if (*ret_whole) {
		memcpy(&notice, record + BPF_RINGBUF_HDR_SZ, sizeof(notice));
		*ret_tag = notice.tag;
	}
	length &= ~BPF_RINGBUF_DISCARD_BIT;
	return (length + BPF_RINGBUF_HDR_SZ + 7) & ~UINT64_C(7);
}

bool ring_next(struct ring *ring, uint64_t *ret_tag)
{
	bool whole = false;

	while (!whole) {
		uint64_t at = __atomic_load_n(ring->consumed, __ATOMIC_RELAXED), size;

		if (at == __atomic_load_n(ring->produced, __ATOMIC_ACQUIRE))
			return false;
		size = record_read(ring->data + (at & (BPF_FLOW_RING_SIZE - 1)), &whole, ret_tag);
		if (size == 0)
			return false;
		__atomic_store_n(ring->consumed, at + size, __ATOMIC_RELEASE);
	}
	return true;
}
