/* Memory that outlives a relay thread; see keep_memory.h. */
#include "gatewayd/base/keep_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"

/* Buffers begin at a page. */
#define PAGE 4096U

static size_t owners_size(uint32_t buffers, uint32_t pipes)
{
	size_t size = ((size_t)buffers + pipes) * sizeof(struct keep_owner);

	return (size + PAGE - 1) / PAGE * PAGE;
}

static int map(int fd, int protection, uint32_t buffers, uint32_t buffer_size, uint32_t pipes, struct keep_memory *ret)
{
	size_t owners = owners_size(buffers, pipes), size = owners + (size_t)buffers * buffer_size;
	void *memory = mmap(NULL, size, protection, MAP_SHARED | MAP_NORESERVE, fd, 0);

	if (memory == MAP_FAILED)
		return -errno;
	*ret = (struct keep_memory){ .map = memory,
		.size = size,
		.buffers = buffers,
		.buffer_size = buffer_size,
		.pipes = pipes,
		.buffer_owner = memory,
		.pipe_owner = (struct keep_owner *)memory + buffers,
		.data = (uint8_t *)memory + owners };
	return 0;
}

int keep_memory_make(
        uint32_t buffers, uint32_t buffer_size, uint32_t pipes, struct keep_memory *ret_memory, int *ret_fd)
{
	_cleanup_close_ int fd = memfd_create("gateway-buffers", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r;

	if (fd < 0 || ftruncate(fd, (off_t)(owners_size(buffers, pipes) + (size_t)buffers * buffer_size)) < 0 ||
	        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	r = map(fd, PROT_READ | PROT_WRITE, buffers, buffer_size, pipes, ret_memory);
	if (r == 0)
		*ret_fd = TAKE_FD(fd);
	return r;
}

int keep_memory_map(int fd, uint32_t buffers, uint32_t buffer_size, uint32_t pipes, struct keep_memory *ret)
{
	if (buffers == 0 || buffers > KEEP_MEMORY_BUFFERS_MAX || pipes > KEEP_MEMORY_PIPES_MAX || buffer_size == 0 ||
	        buffer_size > KEEP_MEMORY_BUFFER_SIZE)
		return -EBADMSG;
	if (lseek(fd, 0, SEEK_END) != (off_t)(owners_size(buffers, pipes) + (size_t)buffers * buffer_size))
		return -EBADMSG;
	return map(fd, PROT_READ, buffers, buffer_size, pipes, ret);
}

bool keep_memory_is_sealed(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & F_SEAL_SHRINK);
}

void keep_memory_unmap(struct keep_memory *memory)
{
	if (memory->map)
		munmap(memory->map, memory->size);
	*memory = (struct keep_memory){ 0 };
}
