/* Lines of the log: to whom they go, what journald is sent, and messages that come too often. */
#include "gatewayd/base/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/log_limit.h"

static char directory[] = "/tmp/gw-log-XXXXXX", path[64];
static int journal; /* the stand-in's socket */

static int setup(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	(void)state;
	if (!mkdtemp(directory))
		return -1;
	snprintf(path, sizeof(path), "%s/socket", directory);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	return bind(journal, (struct sockaddr *)&address, sizeof(address));
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(directory);
}

/* As a service manager says it of this descriptor, more or less. */
static void say_stream(int fd, uint64_t off)
{
	struct stat found;
	char text[64];

	assert_int_equal(fstat(fd, &found), 0);
	snprintf(text, sizeof(text), "%ju:%ju", (uintmax_t)found.st_dev, (uintmax_t)found.st_ino + off);
	setenv("JOURNAL_STREAM", text, 1);
}

/* Only if the descriptor is the stream that the environment names, and somebody is at the socket. */
static void test_who_is_told(void **state)
{
	int fds[2], fd;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	unsetenv("JOURNAL_STREAM");
	assert_int_equal(journal_open(path, fds[1]), -ENOENT);
	setenv("JOURNAL_STREAM", "nonsense", 1);
	assert_int_equal(journal_open(path, fds[1]), -ENOENT);
	say_stream(fds[1], 1);
	assert_int_equal(journal_open(path, fds[1]), -ENOENT);
	say_stream(fds[1], 0);
	assert_int_equal(journal_open("/tmp/gw-no-such-socket", fds[1]), -ENOENT);
	assert_int_equal(journal_open("/tmp/", fds[1]), -ECONNREFUSED);
	fd = journal_open(path, fds[1]);
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	close(fds[0]);
	close(fds[1]);
}

static void expect(const char *bytes, size_t n)
{
	char got[JOURNAL_RECORD_MAX + 1];
	ssize_t length = recv(journal, got, sizeof(got), 0);

	assert_int_equal(length, n);
	assert_memory_equal(got, bytes, n);
}

static void test_fields(void **state)
{
	static const char plain[] = "PRIORITY=5\nSYSLOG_IDENTIFIER=prog\nMESSAGE=hello\n";
	static const char fields[] = "PRIORITY=3\nSYSLOG_IDENTIFIER=prog\nMESSAGE=a=b\nGATEWAY_LISTENER=web\n"
	                             "GATEWAY_REVISION=-7\n";
	/* A value with lines of its own cannot be taken for fields. */
	static const char lines[] = "PRIORITY=6\nSYSLOG_IDENTIFIER=prog\nMESSAGE\n\x0c\0\0\0\0\0\0\0one\nPRIORITY\n"
	                            "GATEWAY_FLOW\n\2\0\0\0\0\0\0\0x\n\n";
	char longer[JOURNAL_RECORD_MAX];
	int fds[2], fd;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	say_stream(fds[1], 0);
	fd = journal_open(path, fds[1]);
	assert_int_equal(journal_send(fd, LOG_NOTICE, "prog", "hello", NULL), 0);
	expect(plain, sizeof(plain) - 1);
	assert_int_equal(
	        journal_send(fd, LOG_ERR, "prog", "a=b",
	                LOG_ABOUT(LOG_TEXT("LISTENER", "web"), LOG_NUMBER("REVISION", -7), LOG_TEXT(NULL, "no name"))),
	        0);
	expect(fields, sizeof(fields) - 1);
	assert_int_equal(journal_send(fd, LOG_INFO, "prog", "one\nPRIORITY", LOG_ABOUT(LOG_TEXT("FLOW", "x\n"))), 0);
	expect(lines, sizeof(lines) - 1);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(journal_send(fd, LOG_INFO, "prog", longer, NULL), -EMSGSIZE);
	/* A journald that does not read is not waited for; one that is gone is told of. */
	for (int i = 0; journal_send(fd, LOG_INFO, "prog", "again", NULL) == 0; i++)
		assert_true(i < 100000);
	assert_int_equal(journal_send(fd, LOG_INFO, "prog", "again", NULL), -EAGAIN);
	shutdown(journal, SHUT_RD);
	assert_true(journal_send(fd, LOG_INFO, "prog", "again", NULL) < 0);
	close(fd);
	close(fds[0]);
	close(fds[1]);
}

static void test_too_often(void **state)
{
	static const char often[] = "often %d", seldom[] = "seldom %d";
	const uint64_t start = 1000000;
	uint32_t left_out;

	(void)state;
	for (unsigned i = 0; i < LOG_LIMIT_LINES; i++)
		assert_true(log_limit_pass(often, start + i, &left_out) && left_out == 0);
	for (unsigned i = 0; i < 7; i++)
		assert_false(log_limit_pass(often, start + LOG_LIMIT_WINDOW_MS - 1, &left_out));
	assert_true(log_limit_pass(seldom, start, &left_out) && left_out == 0);
	assert_true(log_limit_pass(often, start + LOG_LIMIT_WINDOW_MS, &left_out) && left_out == 7);
	assert_true(log_limit_pass(often, start + LOG_LIMIT_WINDOW_MS, &left_out) && left_out == 0);
}

/* More messages than there are places: what finds none is told, and nothing is overrun. */
static void test_many_messages(void **state)
{
	static char many[5000];
	uint32_t left_out, told = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(many); i++)
		told += log_limit_pass(&many[i], 1, &left_out);
	assert_int_equal(told, sizeof(many));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_is_told),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_too_often),
		cmocka_unit_test(test_many_messages),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
