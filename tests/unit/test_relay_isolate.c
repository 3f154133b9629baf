/*
 * What a relay can no longer do once its rights are gone. Each case runs in a
 * child of its own, since there is no way back; the child's exit status is the
 * line that failed, or 0.
 */
#include "gatewayd/base/isolate.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/bpf_map.h"

#define NOBODY 65534

#define CHECK(condition)                                                                                               \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			_exit(fault(__LINE__));                                                                        \
	} while (0)

/* A line as an exit status that is never 0. */
static int fault(int line)
{
	return line % 255 + 1;
}

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
	return result == -1 && errno == EPERM;
}

static void become_relay(void)
{
	CHECK(isolate_verify_relay() >= 0);
	CHECK(isolate_filter_relay() == 0);
}

static void no_files(void)
{
	become_relay();
	CHECK(refused(open("/dev/null", O_RDONLY)));
	CHECK(refused(syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY, 0)));
	CHECK(refused(syscall(SYS_openat2, AT_FDCWD, "/dev/null", NULL, 0)));
	CHECK(refused(unlink("/nonexistent")));
	CHECK(refused(memfd_create("x", 0)));
}

static void no_programs(void)
{
	char *const arguments[] = { (char *)(uintptr_t) "true", NULL };

	become_relay();
	CHECK(refused(execve("/bin/true", arguments, NULL)));
	CHECK(refused(syscall(SYS_execveat, AT_FDCWD, "/bin/true", arguments, NULL, 0)));
	CHECK(refused(fork()));
	CHECK(refused(ptrace(PTRACE_TRACEME, 0, NULL, NULL)));
	CHECK(refused(syscall(SYS_bpf, BPF_MAP_CREATE, NULL, 0)));
	CHECK(refused(syscall(SYS_bpf, BPF_PROG_LOAD, NULL, 0)));
	CHECK(refused(syscall(SYS_bpf, BPF_OBJ_GET, NULL, 0)));
	CHECK(refused(syscall(SYS_bpf, BPF_MAP_GET_FD_BY_ID, NULL, 0)));
	CHECK(refused(syscall(SYS_bpf, BPF_PROG_DETACH, NULL, 0)));
	CHECK(refused(syscall(SYS_mount, "a", "b", "c", 0, NULL)));
	CHECK(refused(syscall(SYS_unshare, 0)));
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
}

static void no_other_sockets(void)
{
	become_relay();
	CHECK(refused(socket(AF_PACKET, SOCK_RAW, 0)));
	CHECK(refused(socket(AF_PACKET, SOCK_DGRAM, 0)));
	CHECK(refused(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)));
	CHECK(refused(socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP)));
	CHECK(refused(socket(AF_NETLINK, SOCK_DGRAM, 0)));
	CHECK(refused(socket(AF_UNIX, SOCK_STREAM, 0)));
}

static void what_still_works(void)
{
	int fd = 0, pipe_fds[2];
	void *memory;

	become_relay();
	CHECK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) >= 0);
	CHECK(socket(AF_INET6, SOCK_DGRAM, 0) >= 0);
	/* Elements of maps that were handed over: there is none here, but it is the kernel that says so. */
	CHECK(bpf_map_put(-1, &fd, &fd) == -EBADF && bpf_map_get(-1, &fd, &fd) == -EBADF);
	CHECK(bpf_map_delete(-1, &fd) == -EBADF);
	fd = epoll_create1(EPOLL_CLOEXEC);
	CHECK(fd >= 0 && close(fd) == 0);
	CHECK(pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC) == 0 && fcntl(pipe_fds[0], F_GETPIPE_SZ) > 0);
	memory = malloc(64 * 1024 * 1024);
	CHECK(memory);
	memset(memory, 1, 64 * 1024 * 1024);
	free(memory);
}

static void *thread_body(void *gate)
{
	long outcome = 0;

	pthread_mutex_lock(gate); /* until the filter is there */
	outcome = !refused(open("/dev/null", O_RDONLY));
	pthread_mutex_unlock(gate);
	return (void *)outcome;
}

static void older_threads_too(void)
{
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
	pthread_t thread;
	void *outcome;

	CHECK(isolate_verify_relay() >= 0);
	pthread_mutex_lock(&gate);
	CHECK(pthread_create(&thread, NULL, thread_body, &gate) == 0);
	CHECK(isolate_filter_relay() == 0);
	pthread_mutex_unlock(&gate);
	CHECK(pthread_join(thread, &outcome) == 0);
	CHECK(outcome == NULL);
}

static bool capabilities_are(uint32_t low)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	return syscall(SYS_capget, &header, data) == 0 && data[0].effective == low && data[0].permitted == low &&
	       data[1].permitted == 0;
}

static void dropped(void)
{
	struct isolate_params params = { NOBODY, NOBODY };

	CHECK(isolate_drop(&params) == 0);
	CHECK(getuid() == NOBODY && geteuid() == NOBODY && getgid() == NOBODY && getgroups(0, NULL) == 0);
	CHECK(capabilities_are(1U << CAP_NET_RAW | 1U << CAP_NET_BIND_SERVICE));
	CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_RAW, 0, 0) == 1);
	CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_BIND_SERVICE, 0, 0) == 1);
	CHECK(prctl(PR_CAPBSET_READ, CAP_NET_RAW, 0, 0, 0) == 1);
	CHECK(prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN, 0, 0, 0) == 0);
	CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	CHECK(isolate_verify_relay() == 0); /* nothing was left to be taken */
	CHECK(capabilities_are(1U << CAP_NET_RAW | 1U << CAP_NET_BIND_SERVICE));
	CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_RAW, 0, 0) == 0);
	CHECK(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
	CHECK(setuid(0) == -1);
}

static void without_rights(void)
{
	struct isolate_params params = { 0, 0 };

	CHECK(geteuid() != 0 || setresuid(NOBODY, NOBODY, NOBODY) == 0);
	CHECK(isolate_drop(&params) == 1);
	CHECK(geteuid() != 0);
	CHECK(capabilities_are(0));
	CHECK(isolate_verify_relay() == ISOLATE_NO_NET_RAW);
	CHECK(isolate_filter_relay() == 0);
	CHECK(refused(open("/dev/null", O_RDONLY)));
}

static void test_files(void **state)
{
	(void)state;
	assert_child(no_files);
}

static void test_programs(void **state)
{
	(void)state;
	assert_child(no_programs);
}

static void test_sockets(void **state)
{
	(void)state;
	assert_child(no_other_sockets);
}

static void test_allowed(void **state)
{
	(void)state;
	assert_child(what_still_works);
}

static void test_threads(void **state)
{
	(void)state;
	assert_child(older_threads_too);
}

static void test_drop(void **state)
{
	(void)state;
	if (geteuid() != 0) {
		print_message("SKIP: only root can become somebody else\n");
		skip();
	}
	assert_child(dropped);
}

static void test_drop_without_rights(void **state)
{
	(void)state;
	assert_child(without_rights);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_programs),
		cmocka_unit_test(test_sockets),
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_drop),
		cmocka_unit_test(test_drop_without_rights),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
