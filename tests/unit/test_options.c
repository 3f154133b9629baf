/* Options from the command line and from the file, and which goes before which. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/conf.h"
#include "gatewayd/options.h"

static char path[] = "/tmp/gatewayd-conf-XXXXXX";

static void write_file(const char *bytes, size_t n)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, n, file), n);
	fclose(file);
}

/* Parses with the file of this text; what is printed is left in said. */
static int parse(const char *file, const char *more, struct options *ret, char said[512])
{
	char *argv[] = { (char *)"gatewayd", (char *)"--config", path, (char *)more, NULL };
	int saved = dup(2), pipes[2], r;
	ssize_t n;

	if (file)
		write_file(file, strlen(file));
	assert_int_equal(pipe(pipes), 0);
	dup2(pipes[1], 2);
	r = options_parse(more ? 4 : 3, argv, ret);
	dup2(saved, 2);
	close(saved);
	close(pipes[1]);
	n = read(pipes[0], said, 511);
	said[n > 0 ? n : 0] = '\0';
	close(pipes[0]);
	return r;
}

static void test_faults_name_file_and_line(void **state)
{
	static const struct {
		const char *file, *words;
	} cases[] = {
		{ "threads = many\n", ":1: threads wants a number" },
		{ "\n# a comment\nthreads\n", ":3: a line is" },
		{ "log-level =\n", ":1: a line is" },
		{ " = 4\n", ":1: a line is" },
		{ "log-level = loud", ":1: log-level wants" },
		{ "colour = red\n", ":1: there is no setting \"colour\"" },
		{ "check = yes\n", ":1: there is no setting \"check\"" },
		{ "config = /etc/passwd\n", ":1: there is no setting" },
		{ "mover = horse\n", ":1: mover wants" },
	};
	struct options options;
	char said[512];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(parse(cases[i].file, NULL, &options, said), -EINVAL);
		assert_non_null(strstr(said, path));
		assert_non_null(strstr(said, cases[i].words));
	}
}

static void test_size_and_nul(void **state)
{
	static char large[CONF_BYTES_MAX + 1];
	struct options options;
	char said[512];

	(void)state;
	memset(large, '\n', sizeof(large));
	write_file(large, CONF_BYTES_MAX);
	assert_int_equal(parse(NULL, NULL, &options, said), 0);
	write_file(large, sizeof(large));
	assert_int_equal(parse(NULL, NULL, &options, said), -EFBIG);
	write_file("threads = 4\0\n", 13);
	assert_int_equal(parse(NULL, NULL, &options, said), -EINVAL);
	unlink(path);
	assert_int_equal(parse(NULL, NULL, &options, said), -ENOENT);
	assert_non_null(strstr(said, path));
}

static void test_file_and_command_line(void **state)
{
	struct options options;
	char said[512];

	(void)state;
	assert_int_equal(
	        parse("  threads=3\r\nlisten = http://127.0.0.1:1\nlisten = http://[::1]:2\n", NULL, &options, said),
	        0);
	assert_int_equal(options.threads, 3);
	assert_int_equal(options.n_listen, 2);
	assert_string_equal(options.listen[1], "http://[::1]:2");
	assert_int_equal(parse("threads = 3\nlisten = http://127.0.0.1:1\n", "--threads=2", &options, said), 0);
	assert_int_equal(options.threads, 2);
	assert_int_equal(options.n_listen, 1);
	assert_int_equal(parse("listen = http://127.0.0.1:1\n", "--listen=http://[::1]:3", &options, said), 0);
	assert_int_equal(options.n_listen, 1);
	assert_string_equal(options.listen[0], "http://[::1]:3");
	/* An address that cannot be served is told before anything is touched. */
	assert_int_equal(parse("listen = http://0.0.0.0:80\n", NULL, &options, said), -EINVAL);
	assert_non_null(strstr(said, "plain http is served on loopback only"));
	assert_int_equal(parse("threads = 3\n", "--listen=https://gw.example:8443", &options, said), -EINVAL);
	assert_non_null(strstr(said, "the address numeric"));
}

/* What the package installs is read, and says nothing but defaults. */
static void test_file_of_the_package(void **state)
{
	char *argv[] = { (char *)"gatewayd", (char *)"--config", (char *)GW_SOURCE_DIR "/packaging/gatewayd.conf",
		NULL };
	struct options options;

	(void)state;
	assert_int_equal(options_parse(3, argv, &options), 0);
	assert_string_equal(options.listen[0], "https://127.0.0.1:8443");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_faults_name_file_and_line),
		cmocka_unit_test(test_size_and_nul),
		cmocka_unit_test(test_file_and_command_line),
		cmocka_unit_test(test_file_of_the_package),
	};
	int fd = mkstemp(path), failed;

	close(fd);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(path);
	return failed;
}
