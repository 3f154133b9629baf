/* Datagrams there and back; see udp.h. */
#include "gatewayd/relay/udp.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "gatewayd/relay/account_udp.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/retry.h"
#include "gatewayd/relay/udp_flow.h"
#include "gatewayd/relay/udp_proxy.h"
#include "gatewayd/relay/udp_socket.h"

/* Numbers of listening sockets among the cookies that are no flows: behind all that loop.c gives. */
#define COOKIE_FIRST 0x10000U

int udp_new(uint32_t max_flows, struct udp **ret)
{
	uint32_t size = max_flows > UDP_SHARE_OF_FLOWS ? max_flows / UDP_SHARE_OF_FLOWS : 1;
	struct udp *udp = calloc(1, sizeof(*udp));
	int r;

	if (!udp)
		return -ENOMEM;
	udp_outbox_init(&udp->to_target);
	udp_outbox_init(&udp->to_client);
	r = udp_table_init(&udp->table, size);
	if (r == 0) /* one for each flow at most, and one for a datagram that has none */
		r = udp_replies_init(&udp->replies, size + 1);
	if (r == 0)
		r = udp_inbox_init(&udp->from_clients);
	if (r == 0)
		r = udp_inbox_init(&udp->from_targets);
	if (r < 0) {
		udp_free(udp);
		return r;
	}
	*ret = udp;
	return 0;
}

void udp_free(struct udp *udp)
{
	if (!udp)
		return;
	udp_inbox_destroy(&udp->from_targets);
	udp_inbox_destroy(&udp->from_clients);
	udp_replies_destroy(&udp->replies);
	udp_table_destroy(&udp->table);
	free(udp);
}

/* --- counting --- */

static void count_sent(struct loop *loop, const struct udp_sent *sent, bool to_target)
{
	stats_add(loop->stats, to_target ? STATS_datagrams_to_target : STATS_datagrams_to_client, sent->datagrams);
	stats_add(loop->stats, to_target ? STATS_bytes_to_target : STATS_bytes_to_client, sent->bytes);
	if (sent->dropped == 0)
		return;
	stats_add(loop->stats, STATS_udp_dropped, sent->dropped);
	loop_warn(loop, STATS_udp_dropped, sent->error);
}

static void count_fault(struct loop *loop, int fault)
{
	stats_add(loop->stats, STATS_udp_malformed, 1);
	loop_warn(loop, STATS_udp_malformed, fault);
}

static void add_saturated(uint32_t *counter, uint32_t amount)
{
	*counter = *counter > UINT32_MAX - amount ? UINT32_MAX : *counter + amount;
}

/* The target said that nobody is at its port. If it has never answered, the next datagram is to choose anew. */
static void target_refuses(struct loop *loop, struct udp_flow *flow)
{
	stats_add(loop->stats, STATS_udp_refused, 1);
	loop_warn_of(loop, STATS_udp_refused, 0, &flow->origin);
	if (!flow->answered)
		retry_target_failed(loop, &flow->origin.objects, flow->slot);
	if (flow->origin.objects.upstream != 0 && !flow->answered && !flow->held) {
		udp_flush(loop);
		udp_flow_end(loop, flow, FLOW_END_connect_failed);
	}
}

/* --- from clients to targets --- */

/* Sends what was added, and counts it with what has been sent before. The flow may have ended then. */
static void target_send(struct loop *loop, struct udp_flow *flow, struct udp_sent *sent)
{
	udp_outbox_send(&loop->udp->to_target, sent);
	count_sent(loop, sent, true);
	udp_shortcut_consider(loop, flow, (unsigned)sent->datagrams);
	if (sent->refused)
		target_refuses(loop, flow);
}

/* Datagrams with headers are sent at once. */
static void target_add(
        struct loop *loop, struct udp_flow *flow, const struct udp_datagram *datagram, struct udp_sent *sent)
{
	struct udp_outbox *outbox = &loop->udp->to_target;
	struct udp_receiver receiver = { .fd = flow->fd, .identity = flow, .segment_max = &flow->gso_to_target };

	flow->active_ms = loop->now_ms;
	flow->shortcut.ifindex = (uint32_t)datagram->ifindex;
	add_saturated(&flow->from_client, 1);
	account_udp_moved(loop, flow, FLOW_CLIENT, datagram->length);
	if (flow->proxy == 0)
		udp_outbox_add(outbox, &receiver, datagram);
	else
		udp_proxy_send(flow, datagram, sent);
}

/* Sends what clients have sent, in the order of flows, each flow's at once: flows[i] is the flow of datagram i. */
static void clients_send(struct loop *loop, struct udp_flow *flows[UDP_BATCH])
{
	const struct udp_inbox *inbox = &loop->udp->from_clients;

	for (unsigned i = 0; i < inbox->n; i++) {
		struct udp_flow *flow = flows[i];
		struct udp_sent sent = { 0 };

		if (!flow)
			continue;
		for (unsigned j = i; j < inbox->n; j++)
			if (flows[j] == flow) {
				target_add(loop, flow, &inbox->datagrams[j], &sent);
				flows[j] = NULL;
			}
		flow->held = false;
		target_send(loop, flow, &sent);
	}
}

/* Finds the flows of what came in; those found are held until they are sent to, for another one that begins meanwhile
 * may need room. */
static void clients_sort(struct loop *loop, int fd, struct udp_flow *flows[UDP_BATCH])
{
	const struct udp_inbox *inbox = &loop->udp->from_clients;

	for (unsigned i = 0; i < inbox->n; i++) {
		const struct udp_datagram *datagram = &inbox->datagrams[i];

		flows[i] = NULL;
		if (inbox->faults[i] < 0 || !udp_datagram_is_addressed(datagram)) {
			count_fault(loop, inbox->faults[i] < 0 ? inbox->faults[i] : -EBADMSG);
			continue;
		}
		flows[i] = udp_flow_of(loop, datagram, fd);
		if (flows[i])
			flows[i]->held = true;
	}
}

static void clients_read(struct loop *loop, int fd)
{
	struct udp_inbox *inbox = &loop->udp->from_clients;
	struct udp_flow *flows[UDP_BATCH];

	for (unsigned round = 0; round < UDP_ROUNDS; round++) {
		int n = udp_inbox_receive(inbox, fd, UDP_BATCH);

		if (n <= 0)
			return;
		clients_sort(loop, fd, flows);
		clients_send(loop, flows);
		udp_inbox_empty(inbox);
		if (n < UDP_BATCH)
			return;
	}
}

/* --- from targets to clients --- */

void udp_flush(struct loop *loop)
{
	struct udp_sent sent = { 0 };

	if (loop->udp->from_targets.n == 0)
		return;
	udp_outbox_send(&loop->udp->to_client, &sent);
	udp_inbox_empty(&loop->udp->from_targets);
	count_sent(loop, &sent, false);
}

/* What came to a flow's socket from somebody else. */
static void stray(struct loop *loop, const struct udp_flow *flow, struct udp_datagram *datagram)
{
	struct udp *udp = loop->udp;
	struct udp_receiver receiver;
	struct udp_sent sent = { 0 };
	struct udp_flow *other;
	uint32_t number;

	stats_add(loop->stats, STATS_udp_strays, 1);
	if (!flow->keeps_port) /* then the address is the gateway's, or the port one that only this flow has */
		return;
	datagram->original = flow->origin.client;
	datagram->original_port = flow->origin.client_port;
	other = udp_flow_of(loop, datagram, flow->fd);
	if (other && !other->held) {
		target_add(loop, other, datagram, &sent);
		target_send(loop, other, &sent);
		return;
	}
	if (udp_reply_use(&udp->replies, &datagram->source, datagram->source_port, &udp->mark, &number) < 0)
		return;
	receiver = (struct udp_receiver){ .fd = udp->replies.replies[number].fd,
		.addr = &datagram->original,
		.port = datagram->original_port,
		.identity = datagram,
		.segment_max = &(uint16_t){ UINT16_MAX } };
	udp_outbox_add(&udp->to_target, &receiver, datagram);
	udp_outbox_send(&udp->to_target, &sent);
	udp_reply_leave(&udp->replies, number);
}

static bool is_from_target(const struct udp_flow *flow, const struct udp_datagram *datagram)
{
	return datagram->source_port == flow->origin.target_port && addr_equal(&datagram->source, &flow->origin.target);
}

static void answer_add(struct loop *loop, struct udp_flow *flow, const struct udp_receiver *receiver,
        const struct udp_datagram *datagram)
{
	account_udp_moved(loop, flow, FLOW_TARGET, datagram->length);
	udp_outbox_add(&loop->udp->to_client, receiver, datagram);
}

/* Puts the answers in slots from `first` on into the outbox. What is not the target's comes after, for it may cost this
 * flow its place, and the inbox what is in it. */
static void answers_add(struct loop *loop, struct udp_flow *flow, unsigned first)
{
	struct udp *udp = loop->udp;
	struct udp_inbox *inbox = &udp->from_targets;
	struct udp_receiver receiver = { .fd = udp->replies.replies[flow->reply].fd,
		.addr = &flow->origin.client,
		.port = flow->origin.client_port,
		.identity = flow,
		.segment_max = &flow->gso_to_client };
	unsigned end = inbox->n;
	bool strays = false;

	for (unsigned i = first; i < end; i++) {
		if (inbox->faults[i] < 0)
			count_fault(loop, inbox->faults[i]);
		else if (!is_from_target(flow, &inbox->datagrams[i]))
			strays = true;
		else
			answer_add(loop, flow, &receiver, &inbox->datagrams[i]);
	}
	if (!flow->answered)
		retry_target_answered(loop, &flow->origin.objects, flow->slot);
	flow->answered = true;
	flow->held = strays;
	for (unsigned i = first; strays && i < end; i++)
		if (inbox->faults[i] == 0 && !is_from_target(flow, &inbox->datagrams[i]))
			stray(loop, flow, &inbox->datagrams[i]);
	flow->held = false;
}

/* How many to ask for: the kernel looks once more after the last one, which for a flow of questions and answers would
 * cost as much as the answer. */
static unsigned burst_expected(const struct udp_flow *flow)
{
	unsigned expected = flow->burst * 2U;

	return expected < 2 ? 2 : expected > UDP_BATCH ? UDP_BATCH : expected;
}

/* Makes room for answers of this flow: all that is held goes out of one socket. */
static void prepare_answers(struct loop *loop, const struct udp_flow *flow)
{
	struct udp *udp = loop->udp;
	int fd = udp->replies.replies[flow->reply].fd;

	if (udp->from_targets.n == UDP_BATCH || (udp->to_client.fd >= 0 && udp->to_client.fd != fd))
		udp_flush(loop);
}

static void target_read(struct loop *loop, struct udp_flow *flow)
{
	struct udp_inbox *inbox = &loop->udp->from_targets;

	for (unsigned round = 0; round < UDP_ROUNDS; round++) {
		unsigned expected = burst_expected(flow), first;
		int n;

		prepare_answers(loop, flow);
		first = inbox->n;
		n = udp_inbox_receive(inbox, flow->fd, expected);
		if (n == -ECONNREFUSED)
			target_refuses(loop, flow);
		if (n <= 0) /* other errors tell of packets that are lost already */
			return;
		flow->burst = (uint16_t)n;
		flow->active_ms = loop->now_ms;
		if (n >= UDP_GATHER_MIN && !flow->gathers) {
			udp_socket_gather(flow->fd);
			flow->gathers = true;
		}
		answers_add(loop, flow, first);
		udp_shortcut_consider(loop, flow, (unsigned)n);
		if ((unsigned)n < expected)
			return;
	}
}

/* --- what the loop calls --- */

static int listen_poll(struct loop *loop, uint32_t number, int operation)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = flow_cookie_other(COOKIE_FIRST + number) };

	return epoll_ctl(loop->epoll_fd, operation, loop->udp->listen_fds[number], &event) < 0 ? -errno : 0;
}

int udp_listen(struct loop *loop, int fd)
{
	struct udp *udp = loop->udp;
	int r;

	if (udp->n_listen == UDP_LISTEN_MAX)
		return -ENOSPC;
	r = udp_socket_check(fd, &udp->mark);
	if (r < 0)
		return r;
	udp_socket_gather(fd);
	udp->listen_fds[udp->n_listen] = fd;
	if (udp->open && !udp->draining)
		r = listen_poll(loop, udp->n_listen, EPOLL_CTL_ADD);
	if (r == 0)
		udp->n_listen++;
	return r;
}

void udp_config_changed(struct loop *loop)
{
	struct udp *udp = loop->udp;

	udp->config_version++;
	/* Another daemon may have other marks. */
	if (udp->n_listen > 0)
		(void)udp_socket_check(udp->listen_fds[0], &udp->mark);
	if (udp->open)
		return;
	udp->open = true;
	for (uint32_t i = 0; i < udp->n_listen && !udp->draining; i++)
		(void)listen_poll(loop, i, EPOLL_CTL_ADD);
}

void udp_drain(struct loop *loop)
{
	struct udp *udp = loop->udp;

	for (uint32_t i = 0; i < udp->n_listen && udp->open && !udp->draining; i++)
		(void)listen_poll(loop, i, EPOLL_CTL_DEL);
	udp->draining = true;
}

bool udp_event(struct loop *loop, uint64_t cookie)
{
	struct udp *udp = loop->udp;
	struct udp_flow *flow;
	uint32_t number;

	if (udp_table_from_cookie(&udp->table, cookie, &flow)) {
		if (flow) /* else the event was queued for one that has ended in this very turn */
			target_read(loop, flow);
		return true;
	}
	if (!flow_cookie_is_other(cookie, &number) || number < COOKIE_FIRST)
		return false;
	if (!udp->draining)
		clients_read(loop, udp->listen_fds[number - COOKIE_FIRST]);
	return true;
}

/* When the flow ends unless something passes; one in the short cut is looked at before. */
static uint64_t timer_due(struct loop *loop, struct udp_flow *flow)
{
	uint64_t idle_ms, look_ms;

	if (udp_shortcut_look(loop, flow))
		flow->shortcut.look_ms = UDP_SHORTCUT_LOOK_MS;
	else if (flow->shortcut.look_ms < UDP_SHORTCUT_LOOK_MAX_MS)
		flow->shortcut.look_ms *= 2;
	idle_ms = flow->active_ms + udp_flow_idle_ms(flow);
	look_ms = loop->now_ms + flow->shortcut.look_ms;
	return flow->shortcut.in && loop->now_ms < idle_ms && look_ms < idle_ms ? look_ms : idle_ms;
}

bool udp_timer(struct loop *loop, struct wheel_entry *timer)
{
	struct udp_flow *flow = udp_table_from_timer(&loop->udp->table, timer);
	uint64_t due_ms;

	if (!flow)
		return false;
	due_ms = timer_due(loop, flow);
	if (loop->now_ms < due_ms) {
		wheel_set(&loop->wheel, &flow->timer, due_ms);
		return true;
	}
	stats_add(loop->stats, STATS_udp_idle, 1);
	account_udp_count(loop, flow, STATS_OBJECT_idle_timeout);
	udp_flush(loop);
	udp_flow_end(loop, flow, FLOW_END_idle);
	return true;
}

bool udp_kill(struct loop *loop, uint32_t index, uint64_t id)
{
	struct udp_flow *flow = udp_table_at(&loop->udp->table, index, id);

	if (!flow)
		return false;
	stats_add(loop->stats, STATS_killed, 1);
	account_udp_count(loop, flow, STATS_OBJECT_killed);
	udp_flush(loop);
	udp_flow_end(loop, flow, FLOW_END_killed);
	return true;
}

void udp_yield(struct loop *loop)
{
	if (loop->flows.open + loop->udp->table.open >= loop->flows.size)
		(void)udp_flow_evict(loop);
}
