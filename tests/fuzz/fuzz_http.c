/*
 * Any bytes on a connection to the API, in pieces: a whole server with the
 * fake core, over a unix socket, in one process. The first byte says in how
 * large pieces. Whatever comes, the server answers with HTTP or ends the
 * connection, never with 500, and lets go of the connection in the end.
 */
#include "tests/unit/fake_core.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "webapi/http.h"

/* Turns of the loop after which a connection that is still open is left; a request in 2-byte pieces takes some. */
#define TURNS_MAX 400
/* Idle turns after which nothing more is to be expected. */
#define IDLE_MAX 3

struct fuzz_server {
	struct core core;
	struct events *events;
	struct http_server *server;
	struct sockaddr_un address;
	socklen_t length;
};

static struct fuzz_server *fuzz_start(void)
{
	static struct fuzz_server server;
	struct http_config config = { .api_gid = -1, .unix_socket = true, .core = &server.core };
	int fd;

	if (server.server)
		return &server;
	server.address.sun_family = AF_UNIX;
	server.length = sizeof(server.address);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	FUZZ_EXPECT(fd >= 0);
	FUZZ_EXPECT(bind(fd, (void *)&server.address, sizeof(server.address.sun_family)) == 0);
	FUZZ_EXPECT(listen(fd, 16) == 0);
	FUZZ_EXPECT(getsockname(fd, (void *)&server.address, &server.length) == 0);
	server.events = events_new();
	config.listen_fd = fd;
	config.events = server.events;
	FUZZ_EXPECT(http_server_new(&config, &server.server) == 0);
	return &server;
}

/* One turn; whether there was anything to do. */
static bool turn(struct fuzz_server *server)
{
	struct pollfd fd = { .fd = http_server_fd(server->server), .events = POLLIN };

	if (poll(&fd, 1, 0) < 1 && http_server_timeout(server->server) > 0)
		return false;
	http_server_run(server->server);
	return fd.revents != 0;
}

/* What the server says; false: it has ended the connection. */
static bool hear(int fd, char *answer, size_t *length, size_t size)
{
	char rest[4096];
	ssize_t n;

	do {
		bool fits = *length < size;

		n = recv(fd, fits ? answer + *length : rest, fits ? size - *length : sizeof(rest), 0);
		if (n > 0 && fits)
			*length += (size_t)n;
	} while (n > 0);
	return n < 0 && errno == EAGAIN;
}

static void expect_http(const char *answer, size_t length)
{
	if (length == 0)
		return;
	FUZZ_EXPECT(length < 12 || strncmp(answer, "HTTP/1.", 7) == 0);
	FUZZ_EXPECT(length < 12 || strncmp(answer + 9, "500", 3) != 0);
}

static void converse(struct fuzz_server *server, const uint8_t *data, size_t size, size_t piece)
{
	char answer[512];
	size_t at = 0, length = 0;
	unsigned idle = 0;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	FUZZ_EXPECT(fd >= 0 && connect(fd, (void *)&server->address, server->length) == 0);
	for (unsigned i = 0; i < TURNS_MAX && idle < IDLE_MAX; i++) {
		size_t part = size - at < piece ? size - at : piece;
		ssize_t n = part ? send(fd, data + at, part, MSG_NOSIGNAL) : 0;

		if (n > 0 && (at += (size_t)n) == size)
			shutdown(fd, SHUT_WR);
		idle = turn(server) || n > 0 ? 0 : idle + 1;
		if (!hear(fd, answer, &length, sizeof(answer)))
			break;
	}
	close(fd);
	expect_http(answer, length);
	for (unsigned i = 0; i < TURNS_MAX && turn(server); i++)
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_server *server = fuzz_start();

	if (size < 2 || size > 16384)
		return 0;
	if (server->core.n > FAKE_ROWS_MAX / 2)
		fake_core_clear(&server->core);
	server->core.fail = 0;
	converse(server, data + 1, size - 1, data[0] < 128 ? size : (size_t)(data[0] - 126) * 4);
	return 0;
}
