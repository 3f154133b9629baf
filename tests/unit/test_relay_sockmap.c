/*
 * The relay's half of the sockmap mover, on real sockets and maps but without a
 * running loop: the test does what epoll would. Two loops stand for two relays,
 * of which the second adopts what the first has left. Skipped where BPF cannot
 * be loaded.
 */
#include "gatewayd/relay/tcp_sockmap.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/bpf_flow.h"
#include "gatewayd/base/bpf_map.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/mover.h"
#include "rules/kernel_bpf.h"

#define SMALL_BUFFER 8192
#define MUCH         400000
/* Turns of a millisecond, after which something hangs. */
#define TURNS_MAX 20000

static struct kernel_bpf *bpf;
static struct sockmap_set sets[2];
static struct loop *loops[2];

/* client -- ends[FLOW_CLIENT] | ends[FLOW_TARGET] -- server */
struct rig {
	int client, server, ends[FLOW_SIDES];
	size_t sent, received;
};

static int give(struct sockmap_set *set, unsigned kind, unsigned ring, int fd)
{
	struct proto_sockmap message = { .layout = BPF_FLOW_LAYOUT, .kind = (uint8_t)kind, .ring = ring };
	int mine = dup(fd), r = sockmap_set_add(set, &message, 1, &mine);

	if (mine >= 0)
		close(mine);
	return r;
}

static int set_up(void **state)
{
	char why[256];

	(void)state;
	if (geteuid() != 0 || kernel_bpf_open(NULL, &bpf, why, sizeof(why)) < 0)
		return 0;
	for (unsigned i = 0; i < 2; i++) {
		sockmap_set_init(&sets[i]);
		assert_int_equal(give(&sets[i], PROTO_SOCKMAP_RX, 0, kernel_bpf_rx(bpf)), 0);
		assert_int_equal(give(&sets[i], PROTO_SOCKMAP_TX, 0, kernel_bpf_tx(bpf)), 0);
		assert_int_equal(give(&sets[i], PROTO_SOCKMAP_DIRECTIONS, 0, kernel_bpf_directions(bpf)), 0);
		assert_int_equal(give(&sets[i], PROTO_SOCKMAP_RING, BPF_FLOW_RINGS, 0), -EBADMSG);
		assert_int_equal(give(&sets[i], PROTO_SOCKMAP_RING, i, kernel_bpf_ring(bpf, i)), 0);
		assert_int_equal(give(&sets[i], PROTO_SOCKMAP_KINDS, 0, 0), -EBADMSG);
		assert_int_equal(give(&sets[i], PROTO_SOCKMAP_CONTROLS, 0, kernel_bpf_controls(bpf)), 1);
		assert_int_equal(give(&sets[i], PROTO_SOCKMAP_CONTROLS, 0, kernel_bpf_controls(bpf)), 0);
		assert_int_equal(loop_new(0, PROTO_MOVER_AUTO, 10, -1, &loops[i]), 0);
		loops[i]->sockmap = &sets[i];
	}
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2 && bpf; i++) {
		loop_free(loops[i]);
		ring_close(&sets[i].ring[0].ring);
	}
	if (bpf)
		kernel_bpf_free(bpf);
	return 0;
}

static void connect_pair(int *ret_client, int *ret_server)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0), size = SMALL_BUFFER;

	*ret_client = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	setsockopt(*ret_client, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
	assert_int_equal(connect(*ret_client, (struct sockaddr *)&address, length), 0);
	*ret_server = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	assert_true(*ret_server >= 0);
	fcntl(*ret_client, F_SETFL, O_NONBLOCK);
	close(listener);
}

static struct rig rig_make(void)
{
	struct rig rig = { 0 };

	if (!bpf) {
		print_message("SKIP: no right to load BPF programs, or no such kernel\n");
		skip();
	}
	connect_pair(&rig.client, &rig.ends[FLOW_CLIENT]);
	connect_pair(&rig.ends[FLOW_TARGET], &rig.server);
	return rig;
}

static struct flow *flow_make(struct loop *loop, const struct rig *rig)
{
	struct flow *flow = flow_alloc(&loop->flows);

	assert_non_null(flow);
	flow->state = FLOW_RELAYING;
	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		flow->end[side].fd = rig->ends[side];
		flow->end[side].writable = true;
		flow->direction[side].mover = MOVER_COPY;
	}
	return flow;
}

/* As a process that dies: nothing is released. */
static void flow_drop(struct loop *loop, struct flow *flow)
{
	loop_unqueue(loop, flow);
	loop_unwait(loop, flow);
	flow_free(&loop->flows, flow);
}

static void rig_end(struct loop *loop, struct flow *flow, struct rig *rig)
{
	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		if (flow->direction[side].mover == MOVER_SOCKMAP)
			tcp_sockmap.release(loop, flow, (enum flow_side)side);
		close(rig->ends[side]);
	}
	close(rig->client);
	close(rig->server);
	flow_drop(loop, flow);
	assert_int_equal(kernel_bpf_sweep(bpf), 0);
}

static uint8_t pattern(size_t position)
{
	return (uint8_t)(position * 2654435761U >> 11);
}

/* The client sends what is taken, up to `size` in all. Whether anything was. */
static bool client_sends(struct rig *rig, size_t size)
{
	uint8_t data[3001];
	size_t n = 0;
	ssize_t sent;

	for (; n < sizeof(data) && rig->sent + n < size; n++)
		data[n] = pattern(rig->sent + n);
	sent = n ? send(rig->client, data, n, MSG_NOSIGNAL) : -1;
	rig->sent += sent > 0 ? (size_t)sent : 0;
	return sent > 0;
}

static bool server_receives(struct rig *rig)
{
	uint8_t data[5000];
	ssize_t got = recv(rig->server, data, sizeof(data), 0);

	for (ssize_t i = 0; i < got; i++)
		if (data[i] != pattern(rig->received++))
			fail_msg("byte %zu is not the one that was sent", rig->received - 1);
	return got > 0;
}

/* A turn of the loop for the direction from the client: notices, and the pump as if the peer had just become
 * writable. */
static int loop_turn(struct loop *loop, struct flow *flow)
{
	size_t moved;
	int r;

	tcp_sockmap_notices(loop);
	flow->end[FLOW_TARGET].writable = true;
	r = tcp_sockmap.pump(loop, flow, FLOW_CLIENT, MOVER_BUDGET, &moved);
	loop_unqueue(loop, flow);
	loop_unwait(loop, flow);
	return r;
}

/* Until the server has `size` bytes. Whether it came to that. */
static bool run_until(struct loop *loop, struct flow *flow, struct rig *rig, size_t size)
{
	for (unsigned turn = 0; turn < TURNS_MAX && rig->received < size; turn++) {
		assert_true(loop_turn(loop, flow) >= 0);
		if (!server_receives(rig))
			usleep(1000);
	}
	return rig->received == size;
}

/* Until nothing more is taken of the client. */
static void fill(struct loop *loop, struct flow *flow, struct rig *rig, size_t size)
{
	for (unsigned still = 0; still < 50 && rig->sent < size; still++) {
		if (client_sends(rig, size))
			still = 0;
		else
			usleep(1000);
		assert_int_equal(loop_turn(loop, flow), MOVER_BLOCKED);
	}
}

static void test_entry(void **state)
{
	struct rig rig = rig_make();
	struct flow *flow = flow_make(loops[0], &rig);
	uint64_t active_ms = 0;

	(void)state;
	assert_true(client_sends(&rig, 100)); /* waits in the queue when the flow enters */
	assert_true(tcp_sockmap_may_enter(loops[0], flow));
	assert_int_equal(tcp_sockmap_enter(loops[0], flow, MOVER_REASON_FORCED), 2);
	assert_false(tcp_sockmap_may_enter(loops[0], flow));
	for (unsigned turn = 0; turn < TURNS_MAX && rig.received < 100; turn++)
		if (!server_receives(&rig))
			usleep(1000);
	assert_int_equal(rig.received, 100); /* the kernel alone */
	assert_int_equal(tcp_sockmap_account(loops[0], flow, FLOW_CLIENT, &active_ms), 100);
	assert_int_equal(tcp_sockmap_account(loops[0], flow, FLOW_CLIENT, &active_ms), 0);
	assert_int_equal(tcp_sockmap_account(loops[0], flow, FLOW_TARGET, &active_ms), 0);
	assert_true(active_ms + 10000 > loops[0]->now_ms);
	assert_int_equal(tcp_sockmap_events(flow, FLOW_CLIENT, EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP),
	        EPOLLOUT | EPOLLRDHUP);
	rig_end(loops[0], flow, &rig);
}

static void test_no_entry(void **state)
{
	struct rig rig = rig_make();
	struct flow *flow = flow_make(loops[0], &rig);
	char byte;

	(void)state;
	flow->end[FLOW_TARGET].hangup = true;
	assert_false(tcp_sockmap_may_enter(loops[0], flow));
	flow->end[FLOW_TARGET].hangup = false;
	flow->direction[FLOW_CLIENT].held = 1;
	assert_false(tcp_sockmap_may_enter(loops[0], flow));
	flow->direction[FLOW_CLIENT].held = 0;
	assert_true(client_sends(&rig, 2));
	assert_int_equal(recv(flow->end[FLOW_CLIENT].fd, &byte, 1, 0), 1);
	flow->direction[FLOW_CLIENT].taken = 1; /* read once, and not to the end */
	flow->end[FLOW_CLIENT].readable = true;
	assert_false(tcp_sockmap_may_enter(loops[0], flow));
	flow->direction[FLOW_CLIENT].taken = 0;
	flow_set_ledger(&loops[0]->flows, flow, &(struct flow_ledger){ .base[FLOW_CLIENT] = 1 }); /* it was a header */
	assert_false(tcp_sockmap_may_enter(loops[0], flow));
	assert_int_equal(recv(flow->end[FLOW_CLIENT].fd, &byte, 1, 0), 1);
	assert_true(tcp_sockmap_may_enter(loops[0], flow));
	rig_end(loops[0], flow, &rig);
}

/* A client that has ended its stream already: that direction stays with copy, the other one enters. */
static void test_half_entry(void **state)
{
	struct rig rig = rig_make();
	struct flow *flow = flow_make(loops[0], &rig);

	(void)state;
	shutdown(rig.client, SHUT_WR);
	usleep(10000);
	assert_true(tcp_sockmap_enter(loops[0], flow, MOVER_REASON_FORCED) <= 1);
	assert_int_equal(flow->direction[FLOW_CLIENT].mover, MOVER_COPY);
	assert_int_equal(flow->direction[FLOW_CLIENT].reason, MOVER_REASON_NO_MAP);
	rig_end(loops[0], flow, &rig);
}

/* More than fits: it is passed, written as there is room, and the end of stream comes behind the last byte. */
static void test_pass_and_end(void **state)
{
	struct rig rig = rig_make();
	struct flow *flow = flow_make(loops[0], &rig);
	int r = MOVER_BLOCKED;

	(void)state;
	assert_int_equal(tcp_sockmap_enter(loops[0], flow, MOVER_REASON_FORCED), 2);
	fill(loops[0], flow, &rig, MUCH);
	assert_true(rig.sent < MUCH); /* the sender was stopped */
	assert_true(flow_map(&loops[0]->flows, flow)->direction[FLOW_CLIENT].passing);
	for (unsigned turn = 0; turn < TURNS_MAX && rig.received < MUCH; turn++) {
		client_sends(&rig, MUCH);
		if (rig.sent == MUCH)
			shutdown(rig.client, SHUT_WR);
		assert_true(loop_turn(loops[0], flow) >= 0);
		if (!server_receives(&rig))
			usleep(1000);
	}
	assert_int_equal(rig.received, MUCH);
	flow->end[FLOW_CLIENT].hangup = true;
	for (unsigned turn = 0; turn < TURNS_MAX && r == MOVER_BLOCKED; turn++)
		r = loop_turn(loops[0], flow);
	assert_int_equal(r, MOVER_ENDED);
	assert_int_equal(flow_map(&loops[0]->flows, flow)->direction[FLOW_CLIENT].counted, MUCH);
	rig_end(loops[0], flow, &rig);
}

/* The end of stream is there, the peer does not read: no end yet. */
static void test_no_false_end(void **state)
{
	struct rig rig = rig_make();
	struct flow *flow = flow_make(loops[0], &rig);

	(void)state;
	assert_int_equal(tcp_sockmap_enter(loops[0], flow, MOVER_REASON_FORCED), 2);
	fill(loops[0], flow, &rig, MUCH);
	shutdown(rig.client, SHUT_WR);
	flow->end[FLOW_CLIENT].hangup = true;
	for (unsigned turn = 0; turn < 50; turn++) {
		assert_int_equal(loop_turn(loops[0], flow), MOVER_BLOCKED);
		usleep(1000);
	}
	flow->end[FLOW_CLIENT].broken = true;
	assert_int_equal(loop_turn(loops[0], flow), -ECONNRESET);
	flow->end[FLOW_CLIENT].broken = false;
	assert_true(run_until(loops[0], flow, &rig, rig.sent));
	rig_end(loops[0], flow, &rig);
}

/* Another relay takes over in the middle of what was passed; nothing is lost or doubled. */
static void test_adoption(void **state)
{
	struct rig rig = rig_make();
	struct flow *flow = flow_make(loops[0], &rig);
	struct bpf_flow_control control;
	uint64_t cookie;

	(void)state;
	assert_int_equal(tcp_sockmap_enter(loops[0], flow, MOVER_REASON_FORCED), 2);
	fill(loops[0], flow, &rig, MUCH);
	assert_true(run_until(loops[0], flow, &rig, 5000));
	cookie = flow_map(&loops[0]->flows, flow)->direction[FLOW_CLIENT].cookie;
	flow_drop(loops[0], flow);
	(void)client_sends(&rig, MUCH);
	flow = flow_make(loops[1], &rig);
	assert_true(tcp_sockmap_find(loops[1], flow));
	assert_int_equal(tcp_sockmap_adopt(loops[1], flow, FLOW_CLIENT, false), 1);
	assert_int_equal(tcp_sockmap_adopt(loops[1], flow, FLOW_TARGET, false), 1);
	assert_int_equal(flow->direction[FLOW_CLIENT].mover, MOVER_SOCKMAP);
	assert_int_equal(flow_map(&loops[1]->flows, flow)->direction[FLOW_CLIENT].cookie, cookie);
	assert_int_equal(bpf_map_get(kernel_bpf_controls(bpf), &cookie, &control), 0);
	assert_int_equal(control.ring, 1);
	assert_true(run_until(loops[1], flow, &rig, rig.sent));
	/* And later packets, and their notices, go to the new one. */
	for (unsigned round = 0; round < 20; round++) {
		fill(loops[1], flow, &rig, rig.sent + 60000);
		assert_true(run_until(loops[1], flow, &rig, rig.sent));
	}
	rig_end(loops[1], flow, &rig);
}

/* The dead relay had written passed bytes and not said so: nobody can tell whether they are still to come. */
static void test_adoption_of_the_unknown(void **state)
{
	struct rig rig = rig_make();
	struct flow *flow = flow_make(loops[0], &rig);

	(void)state;
	assert_int_equal(tcp_sockmap_enter(loops[0], flow, MOVER_REASON_FORCED), 2);
	assert_int_equal(send(rig.ends[FLOW_TARGET], "unpublished", 11, MSG_NOSIGNAL), 11);
	flow_drop(loops[0], flow);
	flow = flow_make(loops[1], &rig);
	assert_true(tcp_sockmap_find(loops[1], flow));
	assert_int_equal(tcp_sockmap_adopt(loops[1], flow, FLOW_CLIENT, false), -EIO);
	assert_int_equal(tcp_sockmap_adopt(loops[1], flow, FLOW_TARGET, false), 1);
	rig_end(loops[1], flow, &rig);
}

/* A flow that never was in the map. */
static void test_adoption_of_none(void **state)
{
	struct rig rig = rig_make();
	struct flow *flow = flow_make(loops[1], &rig);

	(void)state;
	assert_false(tcp_sockmap_find(loops[1], flow));
	assert_int_equal(tcp_sockmap_adopt(loops[1], flow, FLOW_CLIENT, false), 0);
	assert_int_equal(flow->direction[FLOW_CLIENT].mover, MOVER_COPY);
	rig_end(loops[1], flow, &rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entry),
		cmocka_unit_test(test_no_entry),
		cmocka_unit_test(test_half_entry),
		cmocka_unit_test(test_pass_and_end),
		cmocka_unit_test(test_no_false_end),
		cmocka_unit_test(test_adoption),
		cmocka_unit_test(test_adoption_of_the_unknown),
		cmocka_unit_test(test_adoption_of_none),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
