/*
 * Adoption, instant by instant. The test itself plays the relay that dies: it
 * makes the system calls of a pump on real connections up to some point, and
 * hands sockets, memory and pipes to a living relay in a child process. What
 * the two peers then see must be what they would have seen without a death.
 */
#include "gatewayd/relay/control.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/msg.h"
#include "gatewayd/relay/ledger.h"

#define WAIT_MS 5000
#define ID      77
#define UP      FLOW_CLIENT
#define DOWN    FLOW_TARGET

struct world {
	pid_t pid;
	struct msg_channel *channel;
	int keep;            /* our end of the channel of kept flows */
	int client, server;  /* the peers' ends */
	int fds[FLOW_SIDES]; /* the relay's: towards the client, towards the target */
	struct keep_message flow;
	struct keep_memory memory;
	int memory_fd;
	struct keep_end end; /* the relay's answer */
	unsigned gone;       /* flows it said have ended */
};

static void child_main(int channel_fd)
{
	static struct loop *loop;
	struct control_params params = { .loops = &loop, .n_loops = 1, .max_flows = 10, .has_channel = true };
	sigset_t set;

	channel_fd = fcntl(channel_fd, F_DUPFD, 20);
	dup2(channel_fd, CONTROL_CHANNEL_FD);
	close_range(4, ~0U, 0);
	sigemptyset(&set);
	params.signal_fd = signalfd(-1, &set, SFD_NONBLOCK);
	params.reply_fd = eventfd(0, EFD_NONBLOCK);
	if (loop_new(0, PROTO_MOVER_AUTO, 10, params.reply_fd, &loop) < 0 || loop_start(loop) < 0)
		_exit(99);
	_exit(control_run(&params));
}

static void send_message(struct world *world, struct proto_message message, int fd)
{
	assert_int_equal(msg_send(world->channel, &message, fd, WAIT_MS), 0);
	assert_int_equal(msg_flush(world->channel, WAIT_MS), 0);
}

/* A connection on loopback: the end that called connect(), and the one that was accepted. */
static void connection(int family, int *ret_active, int *ret_passive)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr *address = family == AF_INET ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
	socklen_t length = family == AF_INET ? sizeof(v4) : sizeof(v6);
	struct linger reset = { 1, 0 };
	int listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(listener, address, length), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, address, &length), 0);
	*ret_active = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(*ret_active, address, length), 0);
	*ret_passive = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(*ret_passive >= 0);
	close(listener);
	setsockopt(*ret_active, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	setsockopt(*ret_passive, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
}

/* What the relay would have measured when the flow became a kept one. */
static void measure(struct world *world)
{
	struct ledger ledger[FLOW_SIDES];

	for (unsigned side = 0; side < FLOW_SIDES; side++)
		assert_int_equal(ledger_read(world->fds[side], &ledger[side]), 0);
	world->flow.flow.base_up = ledger[UP].taken;
	world->flow.flow.base_down = ledger[DOWN].taken;
	world->flow.flow.offset_up = ledger[UP].taken - ledger[DOWN].given;
	world->flow.flow.offset_down = ledger[DOWN].taken - ledger[UP].given;
}

static void setup_family(struct world *world, int family)
{
	struct proto_message message;
	int pair[2], fd;

	*world = (struct world){ .memory_fd = -1 };
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	world->pid = fork();
	if (world->pid == 0)
		child_main(pair[1]);
	close(pair[1]);
	assert_int_equal(msg_channel_new(pair[0], PROTO_DOWN, &world->channel), 0);
	do
		assert_int_equal(msg_receive(world->channel, &message, &fd, WAIT_MS), 0);
	while (message.type != PROTO_HELLO_END);
	send_message(world,
	        (struct proto_message){ .type = PROTO_HELLO, .hello = { .version = PROTO_VERSION, .threads = 1 } }, -1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	send_message(world, (struct proto_message){ .type = PROTO_KEEP_CHANNEL }, pair[1]);
	close(pair[1]);
	world->keep = pair[0];
	connection(family, &world->client, &world->fds[UP]);
	connection(family, &world->fds[DOWN], &world->server);
	world->flow = (struct keep_message){ .type = KEEP_FLOW,
		.flow = { .id = ID,
		        .client_family = (uint8_t)family,
		        .original_family = (uint8_t)family,
		        .target_family = (uint8_t)family } };
	assert_int_equal(keep_memory_make(4, BUFFER_SIZE, 4, &world->memory, &world->memory_fd), 0);
	measure(world);
}

static int setup(void **state)
{
	static struct world world;

	setup_family(&world, AF_INET);
	*state = &world;
	return 0;
}

static int setup_v6(void **state)
{
	static struct world world;

	setup_family(&world, AF_INET6);
	*state = &world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	kill(world->pid, SIGKILL);
	waitpid(world->pid, NULL, 0);
	msg_channel_free(world->channel);
	keep_memory_unmap(&world->memory);
	close(world->memory_fd);
	close(world->keep);
	close(world->client);
	close(world->server);
	return 0;
}

static void tell(struct world *world, const struct keep_message *message, const int *fds)
{
	struct keep_record record;

	keep_record_init(&record);
	assert_int_equal(keep_record_put(&record, message, fds), 0);
	assert_int_equal(keep_record_send(&record, world->keep), 0);
}

static void tell_memory(struct world *world)
{
	struct keep_message message = { .type = KEEP_STORES,
		.stores = { .layout = KEEP_LAYOUT, .buffers = 4, .buffer_size = BUFFER_SIZE, .pipes = 4 } };

	tell(world, &message, &world->memory_fd);
}

/* Reads what the relay says until its END, or, with the answer known, for a while. */
static void hear(struct world *world, bool until_end)
{
	struct pollfd poll_fd = { .fd = world->keep, .events = POLLIN };
	struct keep_record record;
	struct keep_message message;
	int fds[KEEP_DESCRIPTORS_EACH];

	while (poll(&poll_fd, 1, until_end ? WAIT_MS : 300) == 1) {
		bool ended = false;

		assert_int_equal(keep_record_receive(&record, world->keep), 0);
		while (keep_record_next(&record, &message, fds) == 1) {
			for (unsigned i = 0; i < KEEP_DESCRIPTORS_EACH; i++)
				if (fds[i] >= 0)
					close(fds[i]);
			if (message.type == KEEP_GONE)
				world->gone++;
			if (message.type == KEEP_END) {
				world->end = message.end;
				ended = true;
			}
		}
		if (ended && until_end)
			return;
	}
	assert_false(until_end);
}

/* The flow changes hands; our copies of its sockets stay open until the relay has answered, as the daemon's do. */
static void adopt(struct world *world)
{
	tell(world, &world->flow, world->fds);
	tell(world, &(struct keep_message){ .type = KEEP_END }, NULL);
	hear(world, true);
	close(world->fds[UP]);
	close(world->fds[DOWN]);
}

/* Exactly these bytes come, and nothing else for now. */
static void assert_reads(int fd, const char *expected)
{
	size_t length = strlen(expected), got = 0;
	char text[256];

	while (got < length) {
		struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
		ssize_t n;

		assert_int_equal(poll(&poll_fd, 1, WAIT_MS), 1);
		n = recv(fd, text + got, sizeof(text) - got, 0);
		assert_true(n > 0);
		got += (size_t)n;
	}
	assert_int_equal(got, length);
	assert_memory_equal(text, expected, length);
}

/* 0: end of stream, or the error. */
static int ending(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	char byte;
	ssize_t n;

	assert_int_equal(poll(&poll_fd, 1, WAIT_MS), 1);
	n = recv(fd, &byte, 1, 0);
	assert_true(n <= 0);
	return n == 0 ? 0 : errno;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
	usleep(20000); /* over loopback: it has arrived */
}

static void assert_talks(struct world *world)
{
	say(world->client, "up");
	assert_reads(world->server, "up");
	say(world->server, "down");
	assert_reads(world->client, "down");
	assert_int_equal(world->end.count, 1);
	assert_int_equal(world->gone, 0);
}

static void read_into_buffer(
        struct world *world, enum flow_side side, unsigned buffer, size_t length, uint64_t position)
{
	world->memory.buffer_owner[buffer] = (struct keep_owner){ .flow = ID, .side = side, .position = position };
	assert_int_equal(
	        recv(world->fds[side], world->memory.data + buffer * BUFFER_SIZE, BUFFER_SIZE, MSG_DONTWAIT), length);
}

/* --- bytes --- */

static void test_nothing_in_hand(void **state)
{
	struct world *world = *state;

	say(world->client, "not yet read");
	tell_memory(world);
	adopt(world);
	assert_reads(world->server, "not yet read");
	assert_talks(world);
}

static void test_read_not_written(void **state)
{
	struct world *world = *state;

	say(world->client, "hello world");
	say(world->server, "answer");
	read_into_buffer(world, UP, 1, 11, 0);
	read_into_buffer(world, DOWN, 3, 6, 0);
	say(world->client, ", and more");
	tell_memory(world);
	adopt(world);
	assert_reads(world->server, "hello world, and more");
	assert_reads(world->client, "answer");
	assert_talks(world);
}

static void test_written_in_part(void **state)
{
	struct world *world = *state;

	say(world->client, "first");
	read_into_buffer(world, UP, 0, 5, 0);
	say(world->fds[DOWN], "first");
	say(world->client, "hello world");
	read_into_buffer(world, UP, 0, 11, 5);
	say(world->fds[DOWN], "hello ");
	tell_memory(world);
	adopt(world);
	assert_reads(world->server, "firsthello world");
	assert_talks(world);
}

/* The owner of an earlier death names the same place: the later memory counts. */
static void test_the_latest_memory_counts(void **state)
{
	struct world *world = *state;
	struct keep_memory older;
	int older_fd;

	assert_int_equal(keep_memory_make(4, BUFFER_SIZE, 4, &older, &older_fd), 0);
	older.buffer_owner[2] = (struct keep_owner){ .flow = ID, .side = UP };
	memcpy(older.data + 2 * BUFFER_SIZE, "an old lie!", 11);
	say(world->client, "hello world");
	read_into_buffer(world, UP, 1, 11, 0);
	tell_memory(world);
	tell(world,
	        &(struct keep_message){ .type = KEEP_STORES,
	                .stores = { .layout = KEEP_LAYOUT, .buffers = 4, .buffer_size = BUFFER_SIZE, .pipes = 4 } },
	        &older_fd);
	adopt(world);
	assert_reads(world->server, "hello world");
	assert_talks(world);
	keep_memory_unmap(&older);
	close(older_fd);
}

static void test_all_written(void **state)
{
	struct world *world = *state;

	say(world->client, "hello world");
	read_into_buffer(world, UP, 1, 11, 0);
	say(world->fds[DOWN], "hello world");
	tell_memory(world);
	adopt(world);
	assert_reads(world->server, "hello world");
	assert_talks(world);
}

static void test_peeked_and_written_not_dropped(void **state)
{
	struct world *world = *state;
	char text[16];

	say(world->client, "hello world");
	assert_int_equal(recv(world->fds[UP], text, sizeof(text), MSG_PEEK), 11);
	say(world->fds[DOWN], "hello ");
	tell_memory(world);
	adopt(world);
	assert_reads(world->server, "hello world");
	assert_talks(world);
}

static void test_in_a_pipe(void **state)
{
	struct world *world = *state;
	struct keep_message message = { .type = KEEP_PIPE, .pipe.number = 2 };
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	world->memory.pipe_owner[2] = (struct keep_owner){ .flow = ID, .side = UP };
	say(world->client, "hello world");
	assert_int_equal(splice(world->fds[UP], NULL, fds[1], NULL, 100, SPLICE_F_NONBLOCK), 11);
	assert_int_equal(splice(fds[0], NULL, world->fds[DOWN], NULL, 6, SPLICE_F_NONBLOCK), 6);
	say(world->client, ", and more");
	tell_memory(world);
	tell(world, &message, fds);
	close(fds[0]);
	close(fds[1]);
	adopt(world);
	assert_reads(world->server, "hello world, and more");
	assert_talks(world);
}

/* Bytes that were taken and are nowhere: no stream may go on without them. */
static void test_bytes_are_missing(void **state)
{
	struct world *world = *state;
	char text[16];

	say(world->client, "hello world");
	assert_int_equal(recv(world->fds[UP], text, sizeof(text), 0), 11);
	tell_memory(world);
	adopt(world);
	assert_int_equal(ending(world->client), ECONNRESET);
	assert_int_equal(ending(world->server), ECONNRESET);
	hear(world, false);
	assert_int_equal(world->end.count, 0);
	assert_int_equal(world->gone, 1);
}

/* --- ends of stream --- */

static void test_end_not_passed_on(void **state)
{
	struct world *world = *state;
	char byte;

	say(world->client, "last");
	read_into_buffer(world, UP, 1, 4, 0);
	shutdown(world->client, SHUT_WR);
	usleep(20000);
	assert_int_equal(recv(world->fds[UP], &byte, 1, 0), 0); /* even fetched */
	tell_memory(world);
	adopt(world);
	assert_reads(world->server, "last");
	assert_int_equal(ending(world->server), 0);
	say(world->server, "goes on");
	assert_reads(world->client, "goes on");
}

/* The server has ended, and the relay has passed that on; whether it was noted in the record must not matter. */
static void end_from_server(struct world *world, bool noted)
{
	shutdown(world->server, SHUT_WR);
	usleep(20000);
	assert_int_equal(shutdown(world->fds[UP], SHUT_WR), 0);
	world->flow.flow.ended = noted ? 1 << DOWN : 0;
	assert_int_equal(ending(world->client), 0);
}

static void test_one_direction_ended(void **state)
{
	struct world *world = *state;

	end_from_server(world, false);
	tell_memory(world);
	adopt(world);
	say(world->client, "still");
	assert_reads(world->server, "still");
	shutdown(world->client, SHUT_WR);
	assert_int_equal(ending(world->server), 0);
	hear(world, false);
	assert_int_equal(world->gone, 1);
}

/* The client's socket is closed in order on our side, with bytes unread, in hand, or all passed on but the end. */
static void test_closed_in_order(void **state)
{
	struct world *world = *state;

	say(world->client, "in hand");
	read_into_buffer(world, UP, 1, 7, 0);
	end_from_server(world, false);
	say(world->client, ", unread");
	shutdown(world->client, SHUT_WR);
	usleep(20000);
	tell_memory(world);
	adopt(world);
	assert_reads(world->server, "in hand, unread");
	assert_int_equal(ending(world->server), 0);
}

static void test_closed_in_order_and_empty(void **state)
{
	struct world *world = *state;
	char byte;

	end_from_server(world, true);
	shutdown(world->client, SHUT_WR);
	usleep(20000);
	assert_int_equal(recv(world->fds[UP], &byte, 1, 0), 0);
	tell_memory(world);
	adopt(world);
	assert_int_equal(ending(world->server), 0);
}

static void reset(int fd)
{
	struct linger linger = { 1, 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(fd);
	usleep(20000);
}

/* The trap: the relay has fetched the reset's error and died. A read now gives an end of stream that never was. */
static void reset_fetched(struct world *world, bool noted)
{
	char byte;

	end_from_server(world, noted);
	say(world->client, "all passed on");
	read_into_buffer(world, UP, 1, 13, 0);
	say(world->fds[DOWN], "all passed on");
	reset(world->client);
	world->client = dup(STDIN_FILENO);
	assert_int_equal(recv(world->fds[UP], &byte, 1, 0), -1);
	assert_int_equal(recv(world->fds[UP], &byte, 1, 0), 0);
	tell_memory(world);
	adopt(world);
	assert_reads(world->server, "all passed on");
	assert_int_equal(ending(world->server), ECONNRESET);
	assert_int_equal(world->end.count, 1); /* understood, and not only found not to add up */
}

static void test_reset_whose_error_was_fetched(void **state)
{
	reset_fetched(*state, false);
}

static void test_reset_whose_error_was_fetched_noted(void **state)
{
	reset_fetched(*state, true);
}

/* The same with both directions open. */
static void test_reset_fetched_before_any_end(void **state)
{
	struct world *world = *state;
	char byte;

	reset(world->client);
	world->client = dup(STDIN_FILENO);
	assert_int_equal(recv(world->fds[UP], &byte, 1, 0), -1);
	tell_memory(world);
	adopt(world);
	assert_int_equal(ending(world->server), ECONNRESET);
}

/* The error went to a write of the other direction, and bytes that came before it are unread. */
static void test_reset_fetched_by_a_write(void **state)
{
	struct world *world = *state;

	say(world->client, "unread");
	reset(world->client);
	world->client = dup(STDIN_FILENO);
	assert_int_equal(send(world->fds[UP], "x", 1, MSG_NOSIGNAL), -1);
	tell_memory(world);
	adopt(world);
	assert_int_equal(ending(world->server), ECONNRESET);
	assert_int_equal(world->end.count, 1);
}

/* A reset that nobody has noticed: what came before it is still passed on. */
static void test_reset_unnoticed(void **state)
{
	struct world *world = *state;

	say(world->client, "before");
	reset(world->client);
	world->client = dup(STDIN_FILENO);
	tell_memory(world);
	adopt(world);
	assert_reads(world->server, "before");
	assert_int_equal(ending(world->server), ECONNRESET);
}

static void test_over(void **state)
{
	struct world *world = *state;

	end_from_server(world, false);
	shutdown(world->client, SHUT_WR);
	usleep(20000);
	assert_int_equal(shutdown(world->fds[DOWN], SHUT_WR), 0);
	tell_memory(world);
	adopt(world);
	assert_int_equal(ending(world->server), 0);
	hear(world, false);
	assert_int_equal(world->end.over, 1);
	assert_int_equal(world->gone, 1);
}

/* --- what makes no sense --- */

static void test_no_sockets(void **state)
{
	struct world *world = *state;
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	tell_memory(world);
	tell(world, &world->flow, fds);
	world->flow.flow.id++;
	adopt(world); /* and another one after it is as good as ever */
	hear(world, false);
	assert_int_equal(world->gone, 1);
	world->gone = 0;
	assert_talks(world);
	close(fds[0]);
	close(fds[1]);
}

/* A memory of another layout has nothing in it for us; flows with empty hands go on. */
static void test_other_layout(void **state)
{
	struct world *world = *state;

	tell(world,
	        &(struct keep_message){ .type = KEEP_STORES,
	                .stores = { .layout = KEEP_LAYOUT + 1, .buffers = 1, .buffer_size = 1, .pipes = 1 } },
	        &world->memory_fd);
	adopt(world);
	assert_talks(world);
}

static void test_a_daemon_that_talks_nonsense(void **state)
{
	struct world *world = *state;
	struct pollfd poll_fd = { .fd = world->keep, .events = POLLIN };
	struct keep_record record;

	tell(world, &(struct keep_message){ .type = KEEP_GONE, .gone.id = 1 }, NULL);
	while (poll(&poll_fd, 1, WAIT_MS) == 1 && keep_record_receive(&record, world->keep) == 0)
		keep_record_close(&record);
	assert_int_equal(keep_record_receive(&record, world->keep), -EPIPE);
	assert_int_equal(kill(world->pid, 0), 0);
	close(world->fds[UP]);
	close(world->fds[DOWN]);
}

#define CASES(function)                                                                                                \
	{ #function " v4", function, setup, teardown, NULL },                                                          \
	{                                                                                                              \
#function " v6", function, setup_v6, teardown, NULL                                                    \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASES(test_bytes_are_missing),
		CASES(test_no_sockets),
		CASES(test_other_layout),
		CASES(test_a_daemon_that_talks_nonsense),
		CASES(test_nothing_in_hand),
		CASES(test_read_not_written),
		CASES(test_written_in_part),
		CASES(test_all_written),
		CASES(test_the_latest_memory_counts),
		CASES(test_peeked_and_written_not_dropped),
		CASES(test_in_a_pipe),
		CASES(test_end_not_passed_on),
		CASES(test_one_direction_ended),
		CASES(test_closed_in_order),
		CASES(test_closed_in_order_and_empty),
		CASES(test_reset_whose_error_was_fetched),
		CASES(test_reset_whose_error_was_fetched_noted),
		CASES(test_reset_fetched_before_any_end),
		CASES(test_reset_fetched_by_a_write),
		CASES(test_reset_unnoticed),
		CASES(test_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
