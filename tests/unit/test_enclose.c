/*
 * What a process can no longer do with paths once they are taken away, without any filter of system calls; and what is
 * said where that cannot be had. Each case runs in a child of its own, for there is no way back; the child's exit
 * status is the line that failed, or 0.
 */
#include "gatewayd/base/enclose.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/isolate.h"

/* A line as an exit status that is never 0. */
#define CHECK(condition)                                                                                               \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			_exit(__LINE__ % 255 + 1);                                                                     \
	} while (0)

static void assert_child(void (*body)(void))
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0) {
		body();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static bool refused(long result)
{
	return result == -1 && errno == EACCES;
}

static void without_paths(void)
{
	char *const arguments[] = { (char *)(uintptr_t) "true", NULL };
	int kept = open("/dev/null", O_WRONLY | O_CLOEXEC), version;

	CHECK(kept >= 0 && open("/etc/passwd", O_RDONLY) >= 0);
	CHECK(isolate_verify_relay() >= 0);
	version = enclose();
	CHECK(version >= 1 && strcmp(enclose_fault(version), "") == 0);
	CHECK(refused(open("/", O_RDONLY | O_DIRECTORY)));
	CHECK(refused(open("/etc/passwd", O_RDONLY)));
	CHECK(refused(open("/dev/null", O_WRONLY)));
	CHECK(refused(open("/tmp/gatewayd-enclosed", O_WRONLY | O_CREAT, 0600)));
	CHECK(refused(mkdir("/tmp/gatewayd-enclosed", 0700)));
	CHECK(refused(mknod("/tmp/gatewayd-enclosed", S_IFIFO | 0600, 0)));
	CHECK(refused(symlink("/", "/tmp/gatewayd-enclosed")));
	CHECK(refused(execv("/bin/true", arguments)));
	CHECK(version < 6 || (kill(getppid(), 0) == -1 && errno == EPERM));
	CHECK(kill(getpid(), 0) == 0 && write(kept, "x", 1) == 1);
}

/* As a container's filter may, or an old kernel would. */
static void forbid_landlock(int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_landlock_create_ruleset, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { ARRAY_SIZE(code), code };

	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static void of_an_old_kernel(void)
{
	forbid_landlock(ENOSYS);
	CHECK(isolate_verify_relay() >= 0);
	CHECK(enclose() == -ENOSYS && strstr(enclose_fault(-ENOSYS), "no Landlock"));
	CHECK(open("/etc/passwd", O_RDONLY) >= 0);
	CHECK(isolate_filter_relay() == 0); /* which holds without it */
	CHECK(open("/etc/passwd", O_RDONLY) == -1 && errno == EPERM);
}

static void in_a_container(void)
{
	forbid_landlock(EPERM);
	CHECK(enclose() == -EPERM && strstr(enclose_fault(-EPERM), "forbids"));
}

static void test_paths(void **state)
{
	(void)state;
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, 1) < 1) {
		print_message("SKIP: this kernel has no Landlock\n");
		skip();
	}
	assert_child(without_paths);
}

static void test_no_landlock(void **state)
{
	(void)state;
	assert_child(of_an_old_kernel);
	assert_child(in_a_container);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_paths), cmocka_unit_test(test_no_landlock) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
