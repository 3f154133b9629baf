/*
 * The behaviour check of the sockmap; see bpf_check.h. A relay in small: it
 * knows one flow, client -- ends[0] | ends[1] -- server, and waits for nothing
 * but the next turn of its loop.
 */
#include "rules/bpf_check.h"

#include <errno.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gatewayd/base/bpf_flow.h"
#include "gatewayd/base/bpf_map.h"
#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/tcp_counters.h"
#include "rules/kernel_bpf.h"

/* Bytes each way, more than all buffers together; and that wait when the sockets enter. */
#define CHECK_BYTES  (1024 * 1024)
#define CHECK_BEFORE 1000
/* Of these the client's connection has already given away, out of the middle of a packet. */
#define CHECK_PART   333
#define CHECK_LIMIT  (64 * 1024)
#define CHECK_BUFFER 16384
/* A reader takes nothing in this many turns of every other such number. */
#define CHECK_PAUSE 64
/* Turns without a byte moved anywhere, 100 us each, after which the stream is stuck. */
#define CHECK_STUCK 10000
/* Turns, 100 us each, in which the buffers fill up and come to rest. */
#define CHECK_FILL 300

/* One direction: from outside[side] through ends[side] and ends[!side] to outside[!side]. */
struct stream {
	uint64_t cookie, in_base, out_base, consumed, sent, received;
	bool passed, resumed; /* the program has passed packets; and has redirected again after that */
	uint64_t redirected_when_passed;
};

struct check {
	struct kernel_bpf *bpf;
	int outside[2], ends[2];
	struct stream stream[2];
	char *why;
	size_t why_size;
};

static int fail(struct check *check, const char *what)
{
	snprintf(check->why, check->why_size, "%s", what);
	return -ENOTRECOVERABLE;
}

/* A namespace where nobody else is, with loopback up. Without the right to make one the host's loopback serves. */
static void enter_namespace(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	_cleanup_close_ int fd = -1;

	if (unshare(CLONE_NEWNET) < 0)
		return;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		(void)!ioctl(fd, SIOCSIFFLAGS, &request);
}

static void set_buffers(int fd)
{
	static const int size = CHECK_BUFFER;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
}

static int connect_pair(int *ret_client, int *ret_server)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(address);
	_cleanup_close_ int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	_cleanup_close_ int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (listener < 0 || client < 0)
		return -errno;
	set_buffers(listener);
	set_buffers(client);
	if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 1) < 0 ||
	        getsockname(listener, (struct sockaddr *)&address, &length) < 0 ||
	        connect(client, (struct sockaddr *)&address, length) < 0)
		return -errno;
	*ret_server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (*ret_server < 0)
		return -errno;
	*ret_client = TAKE_FD(client);
	return 0;
}

/* --- streams --- */

static uint8_t pattern(unsigned side, uint64_t position)
{
	return (uint8_t)((position * 2654435761U >> 13) + side * 77);
}

/* Sends as much as is taken, up to `total` in all. 1: something moved. */
static int stream_send(struct check *check, unsigned side, uint64_t total)
{
	struct stream *stream = &check->stream[side];
	uint8_t data[7001];
	size_t n = 0;
	ssize_t sent;

	while (n < sizeof(data) && stream->sent + n < total) {
		data[n] = pattern(side, stream->sent + n);
		n++;
	}
	if (n == 0)
		return 0;
	sent = send(check->outside[side], data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN)
		return fail(check, "a peer's connection broke");
	stream->sent += sent > 0 ? (uint64_t)sent : 0;
	return sent > 0;
}

static int stream_receive(struct check *check, unsigned side)
{
	struct stream *stream = &check->stream[side];
	uint8_t data[8192];
	ssize_t got = recv(check->outside[!side], data, sizeof(data), MSG_DONTWAIT);

	if (got < 0 && errno != EAGAIN)
		return fail(check, "a peer's connection broke");
	if (got == 0)
		return fail(check, "the stream ended too early");
	for (ssize_t i = 0; i < got; i++)
		if (data[i] != pattern(side, stream->received++))
			return fail(check, "bytes were lost, doubled or out of order");
	return got > 0;
}

static int control_put(struct check *check, unsigned side)
{
	struct stream *stream = &check->stream[side];
	struct bpf_flow_control control = { .consumed = stream->consumed, .limit = CHECK_LIMIT };

	return bpf_map_put(kernel_bpf_controls(check->bpf), &stream->cookie, &control);
}

/* Writes what was passed, as the relay does. 1: something moved. */
static int stream_pass(struct check *check, unsigned side)
{
	struct stream *stream = &check->stream[side];
	struct bpf_flow_direction state;
	uint8_t data[4096];
	uint64_t written;
	ssize_t got, sent;

	if (bpf_map_get(kernel_bpf_directions(check->bpf), &stream->cookie, &state) < 0)
		return fail(check, "a map lost an element");
	if (state.passing && !stream->passed)
		stream->redirected_when_passed = state.redirected;
	stream->passed |= state.passing;
	stream->resumed |= stream->passed && state.redirected > stream->redirected_when_passed;
	if (state.passed == stream->consumed || tcp_counters_written(check->ends[!side], &written) < 0 ||
	        written - stream->out_base < state.redirected + stream->consumed)
		return 0;
	got = recv(check->ends[side], data, sizeof(data), MSG_DONTWAIT | MSG_PEEK);
	sent = got > 0 ? send(check->ends[!side], data, (size_t)got, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
	if (sent <= 0)
		return 0;
	if (recv(check->ends[side], data, (size_t)sent, MSG_DONTWAIT) != sent)
		return fail(check, "passed bytes that were peeked at cannot be read");
	stream->consumed += (uint64_t)sent;
	return control_put(check, side) < 0 ? fail(check, "a map takes no element") : 1;
}

/* One turn of both directions. 1: something moved. */
static int turn(struct check *check, const uint64_t total[2], unsigned number)
{
	int moved = 0;

	for (unsigned side = 0; side < 2; side++) {
		bool reads = number / CHECK_PAUSE % 2 == side;
		int r[3] = { stream_send(check, side, total[side]), stream_pass(check, side),
			reads ? stream_receive(check, side) : 0 };

		for (unsigned i = 0; i < 3; i++) {
			if (r[i] < 0)
				return r[i];
			moved |= r[i];
		}
	}
	return moved;
}

/* Turns until as many bytes as `total` says have arrived. */
static int transfer(struct check *check, uint64_t to_server, uint64_t to_client)
{
	const uint64_t total[2] = { to_server, to_client };
	unsigned still = 0;

	for (unsigned number = 0; check->stream[0].received < to_server || check->stream[1].received < to_client;
	        number++) {
		int r = turn(check, total, number);

		if (r < 0)
			return r;
		still = r ? 0 : still + 1;
		if (still > CHECK_STUCK)
			return fail(check, "the stream is stuck");
		if (!r)
			usleep(100);
	}
	return 0;
}

/* --- the steps --- */

/* The server reads nothing until the client is stopped; then what waits in the source must be counted to the byte, for
 * a relay that takes over goes by that. */
static int count_unread(struct check *check)
{
	struct bpf_flow_direction state;
	int unread;

	for (unsigned i = 0; i < CHECK_FILL; i++) {
		int r = stream_send(check, 0, CHECK_BYTES), s = stream_pass(check, 0);

		if (r < 0 || s < 0)
			return -ENOTRECOVERABLE;
		usleep(100);
	}
	if (bpf_map_get(kernel_bpf_directions(check->bpf), &check->stream[0].cookie, &state) < 0 ||
	        ioctl(check->ends[0], SIOCINQ, &unread) < 0)
		return fail(check, "a map lost an element");
	if (!state.passing)
		return fail(check, "the program does not bound what it redirects");
	if ((uint64_t)unread != state.passed - check->stream[0].consumed)
		return fail(check, "the kernel miscounts the unread bytes of a connection in a map");
	return 0;
}

static int socket_put(struct check *check, int map, unsigned side)
{
	uint64_t fd = (uint64_t)check->ends[side];

	return bpf_map_put(map, &check->stream[side].cookie, &fd) < 0
	               ? fail(check, "the kernel does not take a connection into a map")
	               : 0;
}

/* Moves a part of a packet by hand. What the program is handed then begins with bytes that must not go once more: the
 * same as with a packet that TCP sends again together with others. */
static int packet_begin(struct check *check)
{
	uint8_t data[CHECK_PART];

	if (recv(check->ends[0], data, sizeof(data), 0) != sizeof(data) ||
	        send(check->ends[1], data, sizeof(data), MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(data))
		return fail(check, "no connection over loopback");
	check->stream[0].in_base = sizeof(data);
	return 0;
}

static int enter(struct check *check)
{
	int r = 0;

	for (unsigned side = 0; side < 2; side++) {
		socklen_t length = sizeof(uint64_t);

		if (getsockopt(check->ends[side], SOL_SOCKET, SO_COOKIE, &check->stream[side].cookie, &length) < 0)
			return fail(check, "sockets have no cookies");
	}
	for (unsigned side = 0; side < 2 && r == 0; side++) {
		struct bpf_flow_direction state = { .peer = check->stream[!side].cookie };

		if (tcp_counters_written_exactly(check->ends[!side], &check->stream[side].out_base) < 0 ||
		        bpf_map_put(kernel_bpf_directions(check->bpf), &check->stream[side].cookie, &state) < 0 ||
		        control_put(check, side) < 0)
			return fail(check, "a map takes no element");
		r = socket_put(check, kernel_bpf_tx(check->bpf), side);
	}
	for (unsigned side = 0; side < 2 && r == 0; side++)
		r = socket_put(check, kernel_bpf_rx(check->bpf), side);
	for (unsigned side = 0; side < 2 && r == 0; side++) {
		char byte;

		(void)!recv(check->ends[side], &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	}
	return r;
}

/* The client ends its direction; the kernel's counters must come to say that all has gone through, the peer must not
 * have become an error, and the other direction goes on. */
static int half_close(struct check *check)
{
	uint64_t received = 0, written = 0;
	socklen_t length = sizeof(int);
	int error = 0, r;

	if (shutdown(check->outside[0], SHUT_WR) < 0)
		return fail(check, "a connection cannot be ended");
	for (unsigned i = 0; i < CHECK_STUCK; i++) {
		if (tcp_counters_received(check->ends[0], &received) < 0 ||
		        tcp_counters_written(check->ends[1], &written) < 0)
			return fail(check, "the kernel has no byte counters");
		written -= check->stream[0].out_base - check->stream[0].in_base;
		if (received - 1 == written)
			break;
		usleep(100);
	}
	if (received != check->stream[0].sent + 1 || written != check->stream[0].sent)
		return fail(check, "the kernel's byte counters do not agree at the end of a stream");
	r = transfer(check, check->stream[0].sent, check->stream[1].sent + CHECK_BEFORE);
	if (r < 0)
		return r;
	/* By now what the end of stream may have done wrong is done. */
	if (getsockopt(check->ends[1], SOL_SOCKET, SO_ERROR, &error, &length) < 0 || error)
		return fail(check, "an end of stream breaks the other connection");
	return 0;
}

static int steps(struct check *check)
{
	int r;

	if (connect_pair(&check->outside[0], &check->ends[0]) < 0 ||
	        connect_pair(&check->ends[1], &check->outside[1]) < 0)
		return fail(check, "no connection over loopback");
	r = stream_send(check, 0, CHECK_BEFORE);
	if (r >= 0)
		r = packet_begin(check);
	if (r == 0)
		r = enter(check);
	if (r == 0)
		r = transfer(check, CHECK_BEFORE, 0);
	if (r == 0)
		r = count_unread(check);
	if (r == 0)
		r = transfer(check, CHECK_BYTES, CHECK_BYTES);
	if (r == 0 && !(check->stream[0].passed && check->stream[1].passed))
		r = fail(check, "the program does not bound what it redirects");
	/* All that was passed is written: what comes now must go by itself. */
	if (r == 0)
		r = transfer(check, CHECK_BYTES + CHECK_BEFORE, CHECK_BYTES + CHECK_BEFORE);
	for (unsigned side = 0; side < 2 && r >= 0; side++)
		r = stream_pass(check, side);
	if (r >= 0 && !(check->stream[0].resumed && check->stream[1].resumed))
		r = fail(check, "the program does not go back to redirecting");
	return r < 0 ? r : half_close(check);
}

int bpf_check_run(char *why, size_t why_size)
{
	struct check check = { .outside = { -1, -1 }, .ends = { -1, -1 }, .why = why, .why_size = why_size };
	int r;

	enter_namespace();
	r = kernel_bpf_open(NULL, &check.bpf, why, why_size);
	if (r < 0)
		return r;
	r = steps(&check);
	for (unsigned side = 0; side < 2; side++) {
		cleanup_close(&check.outside[side]);
		cleanup_close(&check.ends[side]);
	}
	kernel_bpf_free(check.bpf);
	return r;
}
