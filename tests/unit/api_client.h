/*
 * A server of webapi in the test's own process and a client that says bytes
 * to it, well formed or not: api_talk turns both, so nothing blocks and no
 * thread is needed. Used by the tests of webapi.
 */
#ifndef GW_TESTS_API_CLIENT_H
#define GW_TESTS_API_CLIENT_H

#include <arpa/inet.h>
#include <ctype.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "tests/unit/fake_core.h"
#include "webapi/http.h"

#define API_TOKEN "0123456789abcdef0123456789abcdef"

/* A tenth of a second and the like, so that waiting for a deadline does not make the tests slow. */
#define API_LIMITS_SHORT                                                                                               \
	{                                                                                                              \
		.headers = 150000, .body_idle = 100000, .body = 300000, .answer = 300000, .idle = 200000,              \
		.heartbeat = 100000                                                                                    \
	}

/* How long an answer may take before a test gives up: megabytes with sanitizers, on a machine that does other things.
 */
#define API_PATIENCE_S 30

struct api {
	struct core core;
	struct http_server *server;
	bool tcp;
	struct sockaddr_storage address;
	socklen_t length;
};

/* What a client got: all bytes with a terminator, and whether the server ended the connection. */
struct api_answer {
	char *bytes;
	size_t length;
	bool ended;
	double seconds;
};

static inline double api_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline int api_listen(struct api *api)
{
	int fd = socket(api->tcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_un local = { .sun_family = AF_UNIX };

	assert_true(fd >= 0);
	/* Without a name the kernel makes an abstract one up: nothing to clean away. */
	assert_int_equal(
	        bind(fd, api->tcp ? (void *)&v4 : (void *)&local, api->tcp ? sizeof(v4) : sizeof(local.sun_family)), 0);
	assert_int_equal(listen(fd, 512), 0);
	api->length = sizeof(api->address);
	assert_int_equal(getsockname(fd, (void *)&api->address, &api->length), 0);
	return fd;
}

/* Starts; `config` may have anything set but the socket and the core. */
static inline void api_start(struct api *api, bool tcp, const struct http_config *config)
{
	struct http_config mine = config ? *config : (struct http_config){ .api_gid = -1, .token = API_TOKEN };

	*api = (struct api){ .tcp = tcp };
	mine.listen_fd = api_listen(api);
	mine.unix_socket = !tcp;
	mine.core = &api->core;
	assert_int_equal(http_server_new(&mine, &api->server), 0);
}

static inline void api_stop(struct api *api)
{
	http_server_free(api->server);
	fake_core_clear(&api->core);
}

/* One turn of the server as the daemon's loop does it: called when its descriptor is ready or its time has come, and
 * not otherwise. Waits up to `milliseconds` for that or for `client` (-1: none). */
static inline void api_turn(struct api *api, int client, short events, int milliseconds)
{
	struct pollfd fds[2] = {
		{ .fd = http_server_fd(api->server), .events = POLLIN },
		{ .fd = client, .events = events },
	};
	uint64_t due = http_server_timeout(api->server);
	double end = due == UINT64_MAX ? 1e18 : api_now() + (double)due / 1e6;

	if (due / 1000 < (uint64_t)milliseconds)
		milliseconds = (int)(due / 1000) + 1;
	poll(fds, 2, milliseconds);
	if (fds[0].revents || api_now() >= end)
		http_server_run(api->server);
}

static inline int api_connect(struct api *api)
{
	int fd = socket(api->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	assert_true(!connect(fd, (void *)&api->address, api->length) || errno == EINPROGRESS || errno == EAGAIN);
	return fd;
}

/* Says all of it, as far as the server takes it; returns how much. */
static inline size_t api_say(struct api *api, int fd, const char *bytes, size_t length, double seconds)
{
	double end = api_now() + seconds;
	size_t at = 0;

	while (at < length && api_now() < end) {
		ssize_t n = send(fd, bytes + at, length - at, MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			break;
		at += n > 0 ? (size_t)n : 0;
		api_turn(api, fd, POLLOUT, 10);
	}
	return at;
}

static inline void api_answer_free(struct api_answer *answer)
{
	free(answer->bytes);
}
#define _cleanup_answer_ _cleanup_(api_answer_free)

/* How many final answers (not 1xx) the bytes hold; the body of one must not look like another. */
static inline unsigned api_answers(const struct api_answer *answer)
{
	unsigned n = 0;

	for (const char *at = answer->bytes; (at = strstr(at, "HTTP/1.")); at += 7)
		n += strlen(at) > 9 && at[9] > '1' && at[9] <= '5';
	return n;
}

/* Whether the bytes hold `wanted` complete answers: each has Content-Length, or none (204, 304). */
static inline bool api_complete(const struct api_answer *answer, unsigned wanted, bool head)
{
	const char *at = answer->bytes, *end = answer->bytes + answer->length;

	while (wanted) {
		const char *blank = strstr(at, "\r\n\r\n"), *length = at ? strcasestr(at, "\nContent-Length:") : NULL;
		size_t body = length && length < blank ? strtoul(length + 16, NULL, 10) : 0;

		if (!blank)
			return false;
		if (strlen(at) > 9 && at[9] == '1') { /* 100 Continue */
			at = blank + 4;
			continue;
		}
		blank += 4;
		if (!head && (size_t)(end - blank) < body)
			return false;
		at = blank + (head ? 0 : body);
		wanted--;
	}
	return true;
}

/* Reads until `wanted` answers are complete, the server ends the connection or the time is over. */
static inline struct api_answer api_hear(struct api *api, int fd, unsigned wanted, bool head, double seconds)
{
	struct api_answer answer = { .bytes = calloc(1, 1) };
	double begin = api_now();

	while (!answer.ended && api_now() - begin < seconds && (!wanted || !api_complete(&answer, wanted, head))) {
		char buffer[65536];
		ssize_t n;

		api_turn(api, fd, POLLIN, 10);
		n = recv(fd, buffer, sizeof(buffer), 0);
		if (n < 0 && errno == EAGAIN)
			continue;
		if (n <= 0) {
			answer.ended = true;
			break;
		}
		answer.bytes = realloc(answer.bytes, answer.length + (size_t)n + 1);
		memcpy(answer.bytes + answer.length, buffer, (size_t)n);
		answer.length += (size_t)n;
		answer.bytes[answer.length] = '\0';
	}
	answer.seconds = api_now() - begin;
	return answer;
}

/* A connection of its own for one exchange: says the bytes, hears one answer. */
static inline struct api_answer api_talk(struct api *api, const char *bytes, size_t length)
{
	_cleanup_close_ int fd = api_connect(api);

	api_say(api, fd, bytes, length, API_PATIENCE_S);
	return api_hear(api, fd, 1, !strncmp(bytes, "HEAD ", 5), API_PATIENCE_S);
}

/* The same with a formatted request. */
__attribute__((format(printf, 2, 3))) static inline struct api_answer api_ask(struct api *api, const char *format, ...)
{
	_cleanup_free_ char *text = NULL;
	va_list arguments;

	va_start(arguments, format);
	assert_true(vasprintf(&text, format, arguments) >= 0);
	va_end(arguments);
	return api_talk(api, text, strlen(text));
}

/* A well-formed request with a JSON body (may be NULL) and further header lines ("A: b\r\n", may be ""). */
static inline struct api_answer api_json(
        struct api *api, const char *method, const char *path, const char *headers, const char *body)
{
	return api_ask(api, "%s %s HTTP/1.1\r\nHost: localhost\r\n%s%sContent-Length: %zu\r\n\r\n%s", method, path,
	        headers, body ? "Content-Type: application/json\r\n" : "", body ? strlen(body) : 0, body ? body : "");
}

/* The status of the first final answer; 0 if there is none. */
static inline int api_status(const struct api_answer *answer)
{
	const char *at = answer->bytes;

	while (!strncmp(at, "HTTP/1.1 1", 10) && strstr(at, "\r\n\r\n"))
		at = strstr(at, "\r\n\r\n") + 4;
	return strncmp(at, "HTTP/1.", 7) ? 0 : atoi(at + 9);
}

/* A header's value of the first answer, to be freed; NULL if it is absent. */
static inline char *api_header(const struct api_answer *answer, const char *name)
{
	_cleanup_free_ char *line = NULL;
	const char *end = strstr(answer->bytes, "\r\n\r\n"), *at;

	assert_true(asprintf(&line, "\r\n%s: ", name) >= 0);
	at = strcasestr(answer->bytes, line);
	if (!at || !end || at >= end)
		return NULL;
	at += strlen(line);
	return strndup(at, strcspn(at, "\r"));
}

static inline void api_expect_header(const struct api_answer *answer, const char *name, const char *value)
{
	_cleanup_free_ char *text = api_header(answer, name);

	if (!text)
		fail_msg("no %s in: %s", name, answer->bytes);
	assert_string_equal(text, value);
}

/* The body of the last answer. */
static inline const char *api_body(const struct api_answer *answer)
{
	const char *at = answer->bytes, *next;

	while (at && !strncmp(at, "HTTP/1.", 7) && (next = strstr(at, "\r\n\r\n")))
		at = next + 4;
	return at;
}

/* Status and body of a problem document; also that it is one. */
static inline void api_expect_problem(const struct api_answer *answer, int status)
{
	json_t *document;

	if (api_status(answer) != status)
		fail_msg("expected %d, got: %s", status, answer->bytes);
	api_expect_header(answer, "Content-Type", "application/problem+json");
	document = json_loads(api_body(answer), 0, NULL);
	if (!document)
		fail_msg("not JSON: %s", answer->bytes);
	assert_int_equal(json_integer_value(json_object_get(document, "status")), status);
	assert_non_null(json_string_value(json_object_get(document, "type")));
	assert_non_null(json_string_value(json_object_get(document, "title")));
	assert_non_null(json_string_value(json_object_get(document, "detail")));
	json_decref(document);
}

static inline void api_expect_status(const struct api_answer *answer, int status)
{
	if (api_status(answer) != status)
		fail_msg("expected %d, got: %s", status, answer->bytes);
}

/* The document of an answer; the caller drops it. */
static inline json_t *api_document(const struct api_answer *answer)
{
	json_t *document = json_loads(api_body(answer), 0, NULL);

	if (!document)
		fail_msg("not JSON: %s", answer->bytes);
	return document;
}

/* Whether the problem document has a fault with this pointer and code. */
static inline bool api_has_fault(const struct api_answer *answer, const char *pointer, const char *code)
{
	json_t *document = api_document(answer);
	const json_t *fault;
	bool found = false;
	size_t i;

	json_array_foreach(json_object_get(document, "errors"), i, fault)
	{
		found = found || (!strcmp(json_string_value(json_object_get(fault, "pointer")), pointer) &&
		                         !strcmp(json_string_value(json_object_get(fault, "code")), code));
	}
	json_decref(document);
	return found;
}

static inline void api_expect_fault(const struct api_answer *answer, const char *pointer, const char *code)
{
	if (!api_has_fault(answer, pointer, code))
		fail_msg("no fault %s at %s: %s", code, pointer, answer->bytes);
}

/* One exchange of which only the status matters. */
static inline void api_expect(
        struct api *api, const char *method, const char *path, const char *headers, const char *body, int status)
{
	_cleanup_answer_ struct api_answer answer = api_json(api, method, path, headers, body);

	if (api_status(&answer) != status)
		fail_msg("%s %s: expected %d, got: %s", method, path, status, answer.bytes);
}

#endif
