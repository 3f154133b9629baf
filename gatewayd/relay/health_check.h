/*
 * Checks under way: a bounded pool of them, each with a socket that stays when
 * the check is over and is used again. Called by health.c; knows nothing of
 * rise, fall, intervals or the daemon.
 *
 * Theory of operation: a connected TCP socket that is connected to nothing
 * (AF_UNSPEC) sends a reset and is as new. So a TCP check costs two system
 * calls, connect() there and back, and its share of epoll_wait(); an HTTP check
 * send() and recv() besides: no socket(), no option, no epoll_ctl(), no close().
 * Sockets are polled edge-triggered from their first use to their end, and
 * events of an idle one mean nothing. A socket whose check has failed is not
 * used again: the kernel may have left an ICMP error in its error queue, which
 * would fail the next one. The connection comes from the gateway's own address,
 * in the network namespace of the relay.
 */
#ifndef GW_RELAY_HEALTH_CHECK_H
#define GW_RELAY_HEALTH_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/relay/health_http.h"
#include "gatewayd/relay/health_rule.h"
#include "gatewayd/relay/health_table.h"

/* Most checks at once: more targets than that, all of them silent, wait for one another. Also the most descriptors. */
#define HEALTH_CHECKS_MAX 2048

struct health_check {
	int fd; /* -1: no socket yet */
	uint8_t family;
	bool asked;                   /* the connection is there and the request sent */
	struct health_target *target; /* NULL: idle */
	uint64_t started_us;
	struct health_http http;
	struct health_check *next; /* of the idle ones */
};

struct health_pool {
	int epoll_fd;
	uint32_t size, made, busy;
	struct health_check *checks;
	struct health_check *idle[2]; /* with an IPv4 socket or none, with an IPv6 socket */
};

/* A pool of at most this many checks that are polled with this epoll, with the check as data. -ENOMEM. */
int health_pool_init(struct health_pool *pool, int epoll_fd, uint32_t size);
void health_pool_destroy(struct health_pool *pool);
/* Whether another check can begin. */
bool health_pool_has_room(const struct health_pool *pool);
/* Begins a check of the target. 0: it is under way (target->check). 1: it is over already, with this verdict. */
int health_check_begin(
        struct health_pool *pool, struct health_target *target, uint64_t now_us, struct health_verdict *ret);
/* An event of a check's socket. True if the check is over: then its verdict, and health_check_end is due. */
bool health_check_event(struct health_check *check, uint32_t events, uint64_t now_us, struct health_verdict *ret);
/* Lets go of the target; its connection is reset. good: the check has ended well. */
void health_check_end(struct health_pool *pool, struct health_check *check, bool good);

/* The request of an HTTP check of this target, into a buffer; its length. */
#define HEALTH_REQUEST_MAX 768
size_t health_check_request(const struct health_target *target, char request[HEALTH_REQUEST_MAX]);

#endif
