/* Sockets to answer from; see udp_reply.h. */
#include "gatewayd/relay/udp_reply.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gatewayd/relay/flow.h"
#include "gatewayd/relay/udp_socket.h"

int udp_replies_init(struct udp_replies *replies, uint32_t size)
{
	uint32_t buckets = 1;

	while (buckets < size)
		buckets *= 2;
	*replies = (struct udp_replies){ .size = size, .mask = buckets - 1, .free_head = FLOW_NONE };
	replies->replies = mmap(NULL, size * sizeof(*replies->replies), PROT_READ | PROT_WRITE,
	        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	replies->buckets = mmap(NULL, buckets * sizeof(*replies->buckets), PROT_READ | PROT_WRITE,
	        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (replies->replies == MAP_FAILED)
		replies->replies = NULL;
	if (replies->buckets == MAP_FAILED)
		replies->buckets = NULL;
	udp_hash_init(&replies->hash);
	if (replies->replies && replies->buckets)
		return 0;
	udp_replies_destroy(replies);
	return -ENOMEM;
}

void udp_replies_destroy(struct udp_replies *replies)
{
	if (replies->replies)
		munmap(replies->replies, replies->size * sizeof(*replies->replies));
	if (replies->buckets)
		munmap(replies->buckets, (replies->mask + (size_t)1) * sizeof(*replies->buckets));
	*replies = (struct udp_replies){ 0 };
}

static uint32_t *bucket_of(const struct udp_replies *replies, const struct addr *addr, uint16_t port)
{
	return &replies->buckets[udp_hash_pair(&replies->hash, addr, port, addr, port) & replies->mask];
}

static struct udp_reply *find(const struct udp_replies *replies, const struct addr *addr, uint16_t port)
{
	uint32_t next = *bucket_of(replies, addr, port);

	while (next) {
		struct udp_reply *reply = &replies->replies[next - 1];

		if (reply->port == port && addr_equal(&reply->addr, addr))
			return reply;
		next = reply->next;
	}
	return NULL;
}

static struct udp_reply *take_free(struct udp_replies *replies)
{
	struct udp_reply *reply;

	if (replies->free_head != FLOW_NONE) {
		reply = &replies->replies[replies->free_head];
		replies->free_head = reply->next;
		return reply;
	}
	return replies->touched < replies->size ? &replies->replies[replies->touched++] : NULL;
}

static void give_back(struct udp_replies *replies, struct udp_reply *reply)
{
	reply->next = replies->free_head;
	replies->free_head = (uint32_t)(reply - replies->replies);
}

int udp_reply_use(
        struct udp_replies *replies, const struct addr *addr, uint16_t port, const struct sockmark *mark, uint32_t *ret)
{
	struct udp_reply *reply = find(replies, addr, port);
	uint32_t *bucket;
	int fd;

	if (!reply) {
		reply = take_free(replies);
		if (!reply)
			return -ENOSPC;
		fd = udp_socket_at(addr, port, mark);
		if (fd < 0) {
			give_back(replies, reply);
			return fd;
		}
		bucket = bucket_of(replies, addr, port);
		*reply = (struct udp_reply){ .addr = *addr, .port = port, .fd = fd, .next = *bucket };
		*bucket = (uint32_t)(reply - replies->replies) + 1;
	}
	reply->users++;
	*ret = (uint32_t)(reply - replies->replies);
	return 0;
}

void udp_reply_leave(struct udp_replies *replies, uint32_t number)
{
	struct udp_reply *reply = &replies->replies[number];
	uint32_t *link;

	if (--reply->users > 0)
		return;
	close(reply->fd);
	link = bucket_of(replies, &reply->addr, reply->port);
	while (*link != number + 1)
		link = &replies->replies[*link - 1].next;
	*link = reply->next;
	give_back(replies, reply);
}
