/*
 * The relay's side of the channel, played against a daemon made of a socket
 * pair: the control thread and its loops run in a child process. Nothing is
 * relayed here (that needs tproxy, see tests/net); a connection to a listening
 * socket on loopback is refused as a loop, which shows who accepts.
 */
#include "gatewayd/relay/control.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/msg.h"

#define LOOPS   2
#define WAIT_MS 5000

struct relay {
	pid_t pid;
	struct msg_channel *channel;
	struct sockaddr_un address; /* of its listening socket */
	struct proto_hello hello;
	unsigned n_announced;
};

static void child_main(int channel_fd, int listen_fd)
{
	static struct loop *loops[LOOPS];
	struct control_params params = { .loops = loops,
		.n_loops = LOOPS,
		.max_flows = 20,
		.daemon_uid = getuid(),
		.has_channel = true,
		.has_listen = true };
	sigset_t set;

	/* Both descriptors to their places, by way of others that are in nobody's way. */
	channel_fd = fcntl(channel_fd, F_DUPFD, 20);
	listen_fd = fcntl(listen_fd, F_DUPFD, 20);
	dup2(channel_fd, CONTROL_CHANNEL_FD);
	dup2(listen_fd, CONTROL_LISTEN_FD);
	close_range(5, ~0U, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	params.signal_fd = signalfd(-1, &set, SFD_NONBLOCK);
	params.reply_fd = eventfd(0, EFD_NONBLOCK);
	for (unsigned i = 0; i < LOOPS; i++)
		if (loop_new(i, PROTO_MOVER_AUTO, 10, params.reply_fd, &loops[i]) < 0 || loop_start(loops[i]) < 0)
			_exit(99);
	_exit(control_run(&params));
}

static struct proto_message receive(struct relay *relay, enum proto_type expected, int *ret_fd)
{
	struct proto_message message;

	assert_int_equal(msg_receive(relay->channel, &message, ret_fd, WAIT_MS), 0);
	assert_string_equal(proto_name(message.type), proto_name(expected));
	return message;
}

static void send_message(struct relay *relay, struct proto_message message, int fd)
{
	assert_int_equal(msg_send(relay->channel, &message, fd, WAIT_MS), 0);
	assert_int_equal(msg_flush(relay->channel, WAIT_MS), 0);
}

/* What the relay says first, and the daemon's answer to it. */
static void greet(struct relay *relay, uint32_t version)
{
	struct proto_message message;
	int fd;

	relay->hello = receive(relay, PROTO_HELLO, &fd).hello;
	relay->n_announced = 0;
	for (;;) {
		assert_int_equal(msg_receive(relay->channel, &message, &fd, WAIT_MS), 0);
		if (message.type == PROTO_HELLO_END)
			break;
		assert_int_equal(message.type, PROTO_LISTEN);
		close(fd);
		relay->n_announced++;
	}
	send_message(relay, (struct proto_message){ .type = PROTO_HELLO, .hello.version = version }, -1);
}

static int setup(void **state)
{
	static struct relay relay;
	int fds[2], listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	relay.address.sun_family = AF_UNIX; /* an abstract name of this process and no other */
	snprintf(relay.address.sun_path + 1, sizeof(relay.address.sun_path) - 1, "gw-test-%d", (int)getpid());
	assert_int_equal(bind(listen_fd, (struct sockaddr *)&relay.address, sizeof(relay.address)), 0);
	assert_int_equal(listen(listen_fd, 5), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	relay.pid = fork();
	if (relay.pid == 0)
		child_main(fds[1], listen_fd);
	close(fds[1]);
	close(listen_fd);
	assert_int_equal(msg_channel_new(fds[0], PROTO_DOWN, &relay.channel), 0);
	*state = &relay;
	return 0;
}

static int teardown(void **state)
{
	struct relay *relay = *state;

	msg_channel_free(relay->channel);
	if (relay->pid > 0) {
		kill(relay->pid, SIGKILL);
		waitpid(relay->pid, NULL, 0);
	}
	return 0;
}

static void reconnect(struct relay *relay)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&relay->address, sizeof(relay->address)), 0);
	msg_channel_free(relay->channel);
	assert_int_equal(msg_channel_new(fd, PROTO_DOWN, &relay->channel), 0);
}

static int exit_status(struct relay *relay)
{
	int status = 0;

	assert_int_equal(waitpid(relay->pid, &status, 0), relay->pid);
	relay->pid = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void assert_hangs_up(struct relay *relay)
{
	struct proto_message message;
	int fd;

	assert_int_equal(msg_receive(relay->channel, &message, &fd, WAIT_MS), -EPIPE);
}

/* A listening socket on loopback; its address goes to ret. */
static int listen_on_loopback(struct sockaddr_in *ret)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t length = sizeof(*ret);

	*ret = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	assert_int_equal(bind(fd, (struct sockaddr *)ret, length), 0);
	assert_int_equal(listen(fd, 5), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)ret, &length), 0);
	return fd;
}

static void give_socket(struct relay *relay, uint16_t thread, struct sockaddr_in *ret)
{
	struct proto_message message = { .type = PROTO_LISTEN,
		.listen = { .protocol = IPPROTO_TCP, .family = AF_INET, .thread = thread } };
	int fd = listen_on_loopback(ret);

	send_message(relay, message, fd);
	close(fd);
}

/* Whether a connection to the address is reset before the time is over. */
static bool is_reset(const struct sockaddr_in *address, int timeout_ms)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), error = 0;
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	char byte;

	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
		error = errno;
	else if (poll(&poll_fd, 1, timeout_ms) == 1 && recv(fd, &byte, 1, 0) < 0)
		error = errno;
	close(fd);
	return error == ECONNRESET;
}

/* Begins and ends a batch; what comes back. */
static struct proto_message offer(struct relay *relay, uint64_t base, uint64_t generation,
        const struct proto_message *items, uint32_t n, enum proto_type expected)
{
	struct proto_message begin = { .type = PROTO_CONFIG_BEGIN, .config_begin = { base, generation } };
	int fd;

	send_message(relay, begin, -1);
	for (uint32_t i = 0; i < n; i++)
		send_message(relay, items[i], -1);
	send_message(relay, (struct proto_message){ .type = PROTO_CONFIG_END, .config_end.items = n }, -1);
	return receive(relay, expected, &fd);
}

static void commit(struct relay *relay, uint64_t generation, enum proto_type expected)
{
	struct proto_message message = { .type = PROTO_CONFIG_COMMIT, .config_commit.generation = generation };
	int fd;

	send_message(relay, message, -1);
	receive(relay, expected, &fd);
}

static void test_other_version(void **state)
{
	greet(*state, PROTO_VERSION + 1);
	assert_int_equal(exit_status(*state), CONTROL_EXIT_VERSION);
}

/* The HELLO of a daemon of another version that keeps flows by ours. */
static void greet_foreign(struct relay *relay)
{
	struct proto_message message = { .type = PROTO_HELLO,
		.hello = { .version = PROTO_VERSION + 1, .keep_version = KEEP_VERSION } };
	int fd;

	receive(relay, PROTO_HELLO, &fd);
	receive(relay, PROTO_HELLO_END, &fd);
	send_message(relay, message, -1);
}

static void test_other_version_can_take_the_flows(void **state)
{
	struct proto_message message = { .type = PROTO_KEEP_CHANNEL };
	struct relay *relay = *state;
	int pair[2], fd;

	greet_foreign(relay);
	for (uint16_t i = 0; i < LOOPS; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
		message.keep_channel.thread = i;
		send_message(relay, message, pair[1]);
		close(pair[1]); /* the other end stays open with the test */
	}
	send_message(relay, (struct proto_message){ .type = PROTO_HANDOVER, .handover.deadline_ms = WAIT_MS }, -1);
	receive(relay, PROTO_HANDED_OVER, &fd);
	assert_int_equal(exit_status(relay), 0);
}

static void test_other_version_can_do_nothing_else(void **state)
{
	struct relay *relay = *state;
	struct sockaddr_in address;

	greet_foreign(relay);
	give_socket(relay, 0, &address);
	send_message(relay, (struct proto_message){ .type = PROTO_CONFIG_BEGIN }, -1);
	assert_hangs_up(relay);
	reconnect(relay);
	greet(relay, PROTO_VERSION);
	assert_int_equal(relay->n_announced, 1);
}

static void test_keep_channel_of_no_thread(void **state)
{
	struct proto_message message = { .type = PROTO_KEEP_CHANNEL, .keep_channel.thread = LOOPS };
	struct relay *relay = *state;
	int pair[2];

	greet(relay, PROTO_VERSION);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	send_message(relay, message, pair[1]);
	assert_hangs_up(relay);
	close(pair[0]);
	close(pair[1]);
}

static void test_before_hello(void **state)
{
	struct relay *relay = *state;
	int fd;

	receive(relay, PROTO_HELLO, &fd);
	receive(relay, PROTO_HELLO_END, &fd);
	send_message(relay, (struct proto_message){ .type = PROTO_PING }, -1);
	assert_hangs_up(relay);
}

static void test_daemon_gone_at_once(void **state)
{
	struct relay *relay = *state;

	greet(relay, PROTO_VERSION);
	msg_channel_free(relay->channel);
	relay->channel = NULL;
	assert_int_equal(exit_status(relay), 0);
}

static void test_nonsense(void **state)
{
	struct relay *relay = *state;
	struct sockaddr_in address;

	greet(relay, PROTO_VERSION);
	give_socket(relay, 0, &address);
	send_message(relay, (struct proto_message){ .type = PROTO_CONFIG_COMMIT }, -1);
	assert_hangs_up(relay);
	reconnect(relay);
	greet(relay, PROTO_VERSION);
	offer(relay, 0, 5, NULL, 0, PROTO_READY);
	send_message(relay, (struct proto_message){ .type = PROTO_LISTENER_DEL }, -1); /* behind the end of its batch */
	assert_hangs_up(relay);
	reconnect(relay);
	greet(relay, PROTO_VERSION);
	/* A descriptor that is no listening socket, and a second one of the same kind. */
	send_message(
	        relay, (struct proto_message){ .type = PROTO_LISTEN, .listen = { IPPROTO_TCP, AF_INET, 1, 1 } }, 0);
	assert_hangs_up(relay);
	reconnect(relay);
	greet(relay, PROTO_VERSION);
	assert_int_equal(relay->n_announced, 1);
	give_socket(relay, 0, &address);
	assert_hangs_up(relay);
}

/* A UDP socket as the daemon makes them, or without what it must have: -1 if this process may not make one. */
static int udp_socket(bool transparent, bool destinations)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), mark = 6;

	assert_int_equal(setsockopt(fd, SOL_IP, IP_RECVORIGDSTADDR, &(int){ destinations }, sizeof(int)), 0);
	if (setsockopt(fd, SOL_IP, IP_TRANSPARENT, &(int){ transparent }, sizeof(int)) < 0 ||
	        setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static void give_udp(struct relay *relay, uint16_t thread, int fd)
{
	struct proto_message message = { .type = PROTO_LISTEN,
		.listen = { .protocol = IPPROTO_UDP, .family = AF_INET, .thread = thread } };

	send_message(relay, message, fd);
	close(fd);
}

/* A UDP socket is kept like others; one that does not tell original destinations, or is none, ends the channel. */
static void test_udp_sockets(void **state)
{
	struct relay *relay = *state;
	struct sockaddr_in address;
	int fd = udp_socket(true, true);

	if (fd < 0)
		skip(); /* that takes CAP_NET_RAW */
	greet(relay, PROTO_VERSION);
	give_udp(relay, 1, fd);
	offer(relay, 0, 1, NULL, 0, PROTO_READY);
	commit(relay, 1, PROTO_COMMITTED);
	give_udp(relay, 1, udp_socket(true, true)); /* a second one of the same kind */
	assert_hangs_up(relay);
	for (unsigned i = 0; i < 3; i++) {
		reconnect(relay);
		greet(relay, PROTO_VERSION);
		assert_int_equal(relay->n_announced, 1);
		give_udp(relay, 0,
		        i == 0   ? udp_socket(true, false)
		        : i == 1 ? udp_socket(false, true)
		                 : listen_on_loopback(&address));
		assert_hangs_up(relay);
	}
}

static void test_refused_batches(void **state)
{
	struct proto_message bad = { .type = PROTO_MATCH_DEL };
	struct proto_message missing = { .type = PROTO_LISTENER_DEL, .listener_del.id = 5 };
	struct proto_message end = { .type = PROTO_CONFIG_END, .config_end.items = 3 };
	struct relay *relay = *state;
	int fd;

	greet(relay, PROTO_VERSION);
	offer(relay, 9, 10, NULL, 0, PROTO_FAILED); /* not the generation in force */
	assert_int_equal(offer(relay, 0, 10, &bad, 1, PROTO_FAILED).failed.generation, 10);
	send_message(relay, (struct proto_message){ .type = PROTO_CONFIG_BEGIN, .config_begin = { 0, 11 } }, -1);
	send_message(relay, end, -1);
	receive(relay, PROTO_FAILED, &fd); /* three items were announced */
	offer(relay, 0, 12, NULL, 0, PROTO_READY);
	commit(relay, 12, PROTO_COMMITTED);
	/* Only found out while it is applied: no generation is in force then. */
	offer(relay, 12, 13, &missing, 1, PROTO_READY);
	commit(relay, 13, PROTO_FAILED);
	offer(relay, 12, 14, NULL, 0, PROTO_FAILED);
	offer(relay, 13, 14, NULL, 0, PROTO_FAILED);
	offer(relay, 0, 14, NULL, 0, PROTO_READY);
	commit(relay, 14, PROTO_COMMITTED);
}

static void test_abort(void **state)
{
	struct proto_message put = { .type = PROTO_LISTENER_PUT, .listener_put = { .id = 1, .name = "a" } };
	struct proto_message del = { .type = PROTO_LISTENER_DEL, .listener_del.id = 1 };
	struct relay *relay = *state;

	greet(relay, PROTO_VERSION);
	offer(relay, 0, 1, &put, 1, PROTO_READY);
	commit(relay, 1, PROTO_COMMITTED);
	offer(relay, 1, 2, &del, 1, PROTO_READY);
	send_message(relay, (struct proto_message){ .type = PROTO_CONFIG_ABORT, .config_abort.generation = 2 }, -1);
	offer(relay, 1, 3, &del, 1, PROTO_READY); /* is still there to be deleted */
	commit(relay, 3, PROTO_COMMITTED);
}

static void test_accepts_once_configured(void **state)
{
	struct relay *relay = *state;
	struct sockaddr_in address[LOOPS];

	greet(relay, PROTO_VERSION);
	for (uint16_t i = 0; i < LOOPS; i++)
		give_socket(relay, i, &address[i]);
	assert_false(is_reset(&address[0], 100));
	offer(relay, 0, 1, NULL, 0, PROTO_READY);
	commit(relay, 1, PROTO_COMMITTED);
	for (unsigned i = 0; i < LOOPS; i++)
		assert_true(is_reset(&address[i], WAIT_MS));
}

/* Each table has rows of its own, and no two write to the same pair of lines. */
static void check_rows(const struct stats_bank *bank)
{
	uint32_t last = 0;

	for (int i = 0; i < 500 && bank->thread[LOOPS - 1].rows_first[STATS_TABLES - 1] == 0; i++)
		usleep(10000);
	for (unsigned i = 0; i < LOOPS * STATS_TABLES; i++) {
		uint32_t first = bank->thread[i / STATS_TABLES].rows_first[i % STATS_TABLES];

		assert_true(i == 0 ? first == 0 : first > last);
		assert_int_equal(first * sizeof(struct stats_row) % 128, 0);
		last = first;
	}
}

static void test_counters(void **state)
{
	struct proto_message message = { .type = PROTO_STATS_MEMORY,
		.stats_memory = { .size = sizeof(struct stats_memory), .bank = 1, .run = 7 } };
	int fd = memfd_create("stats", MFD_CLOEXEC), again;
	struct relay *relay = *state;
	struct stats_memory *memory;
	struct sockaddr_in address;

	assert_int_equal(ftruncate(fd, sizeof(*memory)), 0);
	memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	memory->layout = STATS_LAYOUT;
	memory->bank[1].threads = LOOPS;
	greet(relay, PROTO_VERSION);
	give_socket(relay, 1, &address);
	offer(relay, 0, 1, NULL, 0, PROTO_READY);
	commit(relay, 1, PROTO_COMMITTED);
	assert_true(is_reset(&address, WAIT_MS)); /* counted before there was memory, and not lost */
	send_message(relay, message, fd);
	assert_true(is_reset(&address, WAIT_MS));
	for (int i = 0; i < 100 && stats_sum(memory, STATS_refused_loop) < 2; i++)
		usleep(10000);
	assert_int_equal(stats_sum(memory, STATS_refused_loop), 2);
	check_rows(&memory->bank[1]);
	/* The next daemon gets the memory back, and learns where the relay writes. */
	reconnect(relay);
	receive(relay, PROTO_HELLO, &again);
	receive(relay, PROTO_LISTEN, &again);
	close(again);
	message = receive(relay, PROTO_STATS_MEMORY, &again);
	assert_int_equal(message.stats_memory.bank, 1);
	assert_int_equal(message.stats_memory.run, 7);
	assert_true(message.stats_memory.size == sizeof(*memory));
	assert_true(lseek(again, 0, SEEK_END) == (off_t)sizeof(*memory));
	close(again);
	munmap(memory, sizeof(*memory));
	close(fd);
}

static void test_daemon_comes_back(void **state)
{
	struct relay *relay = *state;
	struct sockaddr_in address;
	int fd;

	greet(relay, PROTO_VERSION);
	give_socket(relay, 0, &address);
	offer(relay, 0, 7, NULL, 0, PROTO_READY);
	commit(relay, 7, PROTO_COMMITTED);
	msg_channel_free(relay->channel);
	relay->channel = NULL;
	assert_true(is_reset(&address, WAIT_MS)); /* goes on without a daemon */
	reconnect(relay);
	greet(relay, PROTO_VERSION);
	assert_int_equal(relay->n_announced, 1);
	assert_true(relay->hello.generation == 7);
	offer(relay, 7, 8, NULL, 0, PROTO_READY);
	commit(relay, 8, PROTO_COMMITTED);
	send_message(relay, (struct proto_message){ .type = PROTO_PING, .ping.cookie = 4711 }, -1);
	assert_true(receive(relay, PROTO_PONG, &fd).pong.cookie == 4711);
}

static void test_endings(void **state)
{
	struct relay *relay = *state;
	struct sockaddr_in address;

	greet(relay, PROTO_VERSION);
	give_socket(relay, 0, &address);
	send_message(relay, (struct proto_message){ .type = PROTO_SHUTDOWN, .shutdown.deadline_ms = 10000 }, -1);
	assert_int_equal(exit_status(relay), 0); /* no flows: at once */
}

static void test_sigterm(void **state)
{
	struct relay *relay = *state;

	greet(relay, PROTO_VERSION);
	kill(relay->pid, SIGTERM);
	assert_int_equal(exit_status(relay), 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_other_version),
		CASE(test_other_version_can_take_the_flows),
		CASE(test_other_version_can_do_nothing_else),
		CASE(test_keep_channel_of_no_thread),
		CASE(test_before_hello),
		CASE(test_daemon_gone_at_once),
		CASE(test_nonsense),
		CASE(test_udp_sockets),
		CASE(test_refused_batches),
		CASE(test_abort),
		CASE(test_accepts_once_configured),
		CASE(test_counters),
		CASE(test_daemon_comes_back),
		CASE(test_endings),
		CASE(test_sigterm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
