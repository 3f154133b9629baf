/*
 * A flow's socket that gets what is not its target's. Connected sockets do not,
 * but while one is being connected the kernel may have found it; here it is
 * left unconnected, over loopback, without a thread: the loop's functions are
 * called as its thread would.
 */
#include "gatewayd/relay/udp.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/udp_flow.h"

struct bench {
	struct loop *loop;
	struct udp_flow *flow;
	int client, target, foreign; /* sockets of the others */
};

static void name_of(int fd, struct addr *ret_addr, uint16_t *ret_port)
{
	struct sockaddr_storage sa;
	socklen_t length = sizeof(sa);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &length), 0);
	assert_int_equal(addr_from_sockaddr(&sa, ret_addr, ret_port), 0);
}

/* A socket on loopback with a port of its own, which others may send as too. */
static int make_socket(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), on = 1;

	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
	return fd;
}

static void send_to(int from, int to, const char *text)
{
	struct sockaddr_storage sa;
	struct addr addr;
	uint16_t port;
	socklen_t length;

	name_of(to, &addr, &port);
	length = addr_to_sockaddr(&addr, port, &sa);
	assert_int_equal(sendto(from, text, strlen(text), 0, (struct sockaddr *)&sa, length), strlen(text));
}

/* What the socket got last, and from whom; NULL if nothing. */
static const char *received(int fd, struct addr *ret_addr, uint16_t *ret_port)
{
	static char text[100];
	struct sockaddr_storage sa;
	socklen_t length = sizeof(sa);
	ssize_t n = recvfrom(fd, text, sizeof(text) - 1, 0, (struct sockaddr *)&sa, &length);

	if (n < 0)
		return NULL;
	text[n] = '\0';
	assert_int_equal(addr_from_sockaddr(&sa, ret_addr, ret_port), 0);
	return text;
}

static int setup(void **state)
{
	struct bench *bench = test_calloc(1, sizeof(*bench));
	struct flow_origin origin = { 0 };

	if (loop_new(0, PROTO_MOVER_AUTO, 10, -1, &bench->loop) < 0)
		return -1;
	bench->client = make_socket();
	bench->target = make_socket();
	bench->foreign = make_socket();
	name_of(bench->client, &origin.client, &origin.client_port);
	name_of(bench->target, &origin.target, &origin.target_port);
	addr_parse("127.0.0.1", &origin.original);
	origin.original_port = 5353;
	bench->flow = udp_table_add(&bench->loop->udp->table, &origin, 0);
	udp_table_keep_port(&bench->loop->udp->table, bench->flow);
	bench->flow->fd = make_socket();
	*state = bench;
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	udp_flow_end(bench->loop, bench->flow, FLOW_END_killed);
	loop_free(bench->loop);
	close(bench->client);
	close(bench->target);
	close(bench->foreign);
	test_free(bench);
	return 0;
}

/* The flow's socket has something to read: one turn of the loop. */
static void turn(struct bench *bench)
{
	assert_true(udp_event(bench->loop, udp_table_cookie(&bench->loop->udp->table, bench->flow)));
	udp_flush(bench->loop);
}

static uint64_t counted(const struct bench *bench, enum stats_counter counter)
{
	return atomic_load(&bench->loop->stats->counter[counter]);
}

/* False where this process may not send as others. */
static bool answer_socket(struct bench *bench)
{
	struct udp *udp = bench->loop->udp;
	int r = udp_reply_use(&udp->replies, &bench->flow->origin.original, bench->flow->origin.original_port,
	        &udp->mark, &bench->flow->reply);

	assert_true(r == 0 || r == -EPERM);
	return r == 0;
}

/* The target's answers go to the client, from where it sent to; a foreign one goes on as if nobody had been there. */
static void test_stray(void **state)
{
	struct bench *bench = *state;
	struct addr addr, own;
	uint16_t port, own_port;

	if (!answer_socket(bench))
		skip();
	send_to(bench->target, bench->flow->fd, "answer");
	send_to(bench->foreign, bench->flow->fd, "foreign");
	send_to(bench->target, bench->flow->fd, "more");
	turn(bench);
	/* Answers are gathered, so the foreign one overtakes. */
	assert_string_equal(received(bench->client, &addr, &port), "foreign");
	name_of(bench->foreign, &own, &own_port);
	assert_true(addr_equal(&addr, &own) && port == own_port);
	assert_string_equal(received(bench->client, &addr, &port), "answer");
	assert_int_equal(port, 5353);
	assert_string_equal(received(bench->client, &addr, &port), "more");
	assert_null(received(bench->client, &addr, &port));
	assert_int_equal(counted(bench, STATS_udp_strays), 1);
	assert_int_equal(counted(bench, STATS_datagrams_to_client), 2);
	assert_int_equal(bench->loop->udp->table.open, 1);
	assert_false(bench->flow->held);
}

/* A socket whose address only this flow has: what is foreign is for nobody. */
static void test_stray_for_nobody(void **state)
{
	struct bench *bench = *state;
	struct addr addr;
	uint16_t port;

	if (!answer_socket(bench))
		skip();
	bench->flow->keeps_port = false;
	send_to(bench->foreign, bench->flow->fd, "foreign");
	turn(bench);
	bench->flow->keeps_port = true;
	assert_null(received(bench->client, &addr, &port));
	assert_int_equal(counted(bench, STATS_udp_strays), 1);
}

/* The listener's limit, cut to what UDP may have: less as long as it is but a question and an answer. */
static void test_idle(void **state)
{
	struct udp_flow flow = { .idle_timeout_ms = 3600000, .from_client = 1000 };

	(void)state;
	assert_int_equal(udp_flow_idle_ms(&flow), UDP_IDLE_SHORT_MS); /* nobody has answered */
	flow.answered = true;
	assert_int_equal(udp_flow_idle_ms(&flow), UDP_IDLE_MAX_MS);
	flow.from_client = UDP_CONVERSATION - 1;
	assert_int_equal(udp_flow_idle_ms(&flow), UDP_IDLE_SHORT_MS);
	flow.idle_timeout_ms = 1000;
	assert_int_equal(udp_flow_idle_ms(&flow), 1000);
	flow.from_client = UDP_CONVERSATION;
	assert_int_equal(udp_flow_idle_ms(&flow), 1000);
	flow.idle_timeout_ms = 0; /* none */
	assert_int_equal(udp_flow_idle_ms(&flow), UDP_IDLE_MAX_MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_stray, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stray_for_nobody, setup, teardown),
		cmocka_unit_test(test_idle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
