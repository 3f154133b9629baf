/*
 * The life of a relayed TCP connection after its admission: connect to the
 * target, move bytes both ways, pass each end of stream on, end in order or
 * with a reset. Called by listen.c (start) and loop.c (events, timers).
 */
#ifndef GW_RELAY_TCP_H
#define GW_RELAY_TCP_H

#include "gatewayd/relay/config.h"
#include "gatewayd/relay/flow.h"

struct loop;

/* If the target has not answered after this long, the client's socket is polled too, to notice a client that
 * gives up. Until then a system call is saved. */
#define TCP_CONNECT_QUIET_MS 1000

/* Where an admitted client is to be connected to. */
struct tcp_route {
	const struct config_listener *listener;
	struct flow_origin origin; /* without id and started_ms */
	bool proxied;              /* it is to begin with a PROXY header, which names the client */
	struct load_hold hold;     /* the target's place for it, if it has one already */
};

/* Takes the accepted socket over and begins to connect; counts and resets it if that fails at once. */
void tcp_start(struct loop *loop, int client_fd, const struct tcp_route *route);
/* The same for one without a socket, whose SYN had this TCP header (straight.h). False: the table is full, which is
 * counted; the client is to be told. */
bool tcp_start_straight(struct loop *loop, const struct tcp_route *route, const uint8_t *header, size_t length);
/* Of such a flow, in the making: its target has not taken the connection (error: a negative errno), or is to be asked
 * again. */
void tcp_connect_failed(struct loop *loop, struct flow *flow, int error);
void tcp_connect_again(struct loop *loop, struct flow *flow);
/* Events of epoll on one end. */
void tcp_event(struct loop *loop, struct flow *flow, enum flow_side side, uint32_t events);
/* Goes on with a flow whose budget was used up. */
void tcp_continue(struct loop *loop, struct flow *flow);
/* Counts what the kernel has moved of a flow in the sockmap since the last time, and notes when. Whether it was
 * anything. */
bool tcp_account(struct loop *loop, struct flow *flow);
/* The kernel has carried so many bytes of the flow past its sockets, the last of them then. */
void tcp_carried_moved(struct loop *loop, struct flow *flow, enum flow_side side, uint64_t bytes, uint64_t active_ms);
/* Resets the flow at this place of the table if it has this id. Whether it has. */
bool tcp_kill(struct loop *loop, uint32_t index, uint64_t id);
/* The flow's timer was handed out: connect or idle timeout, or too early. */
void tcp_timer(struct loop *loop, struct flow *flow);

#endif
