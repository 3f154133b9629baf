/*
 * What the relay does with the maps of the sockmap mover, done by its user with
 * its rights: no capability but CAP_NET_RAW, behind its filter of system calls.
 * The daemon's part, loading and pinning, is done before by root. And that the
 * kernel here passes the behaviour check. Both need a kernel with BPF; they are
 * skipped where it cannot be loaded.
 */
#include "rules/kernel_bpf.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/bpf_flow.h"
#include "gatewayd/base/bpf_map.h"
#include "gatewayd/base/isolate.h"
#include "gatewayd/relay/ring.h"
#include "rules/bpf_check.h"

#define NOBODY 65534

#define CHECK(condition)                                                                                               \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			_exit(__LINE__ % 255 + 1);                                                                     \
	} while (0)

static struct kernel_bpf *open_or_skip(const char *directory)
{
	struct kernel_bpf *bpf = NULL;
	char why[256] = "";
	int r = kernel_bpf_open(directory, &bpf, why, sizeof(why));

	if (r == -EPERM || r == -EACCES || r == -ENOSYS || geteuid() != 0) {
		print_message("SKIP: %s\n", why);
		skip();
	}
	if (r < 0)
		fail_msg("%s", why);
	return bpf;
}

static void connected(int fds[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	CHECK(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 1) == 0);
	CHECK(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(connect(fds[0], (struct sockaddr *)&address, length) == 0);
	fds[1] = accept(listener, NULL, NULL);
	CHECK(fds[1] >= 0);
}

/* All that the relay does, with descriptors that it inherits. */
static void act_as_relay(int rx, int tx, int directions, int controls, int ring_fd)
{
	struct isolate_params params = { NOBODY, NOBODY };
	struct bpf_flow_direction direction = { .peer = 7 }, found = { 0 };
	struct bpf_flow_control control = { .limit = 1 };
	struct bpf_flow_notice notice;
	uint64_t cookie = 0, value;
	socklen_t length = sizeof(cookie);
	union bpf_attr attr = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1 };
	struct ring ring;
	int fds[2];

	connected(fds); /* the filter knows no plain accept(2) */
	CHECK(isolate_drop(&params) == 0 && isolate_verify_relay() == 0 && geteuid() == NOBODY);
	CHECK(isolate_filter_relay() == 0);
	CHECK(ring_open(ring_fd, BPF_FLOW_RING_SIZE, &ring) == 0 && !ring_next(&ring, &notice, sizeof(notice)));
	CHECK(getsockopt(fds[0], SOL_SOCKET, SO_COOKIE, &cookie, &length) == 0);
	value = (uint64_t)fds[0];
	CHECK(bpf_map_put(directions, &cookie, &direction) == 0 && bpf_map_put(controls, &cookie, &control) == 0);
	CHECK(bpf_map_put(tx, &cookie, &value) == 0 && bpf_map_put(rx, &cookie, &value) == 0);
	CHECK(bpf_map_get(directions, &cookie, &found) == 0 && found.peer == 7);
	CHECK(bpf_map_delete(directions, &cookie) == 0 && bpf_map_get(directions, &cookie, &found) == -ENOENT);
	CHECK(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)) < 0 && errno == EPERM);
}

static void test_relays_user_can_use_the_maps(void **state)
{
	struct kernel_bpf *bpf = open_or_skip(NULL);
	int status = 0;
	pid_t pid;

	(void)state;
	pid = fork();
	if (pid == 0) {
		act_as_relay(kernel_bpf_rx(bpf), kernel_bpf_tx(bpf), kernel_bpf_directions(bpf),
		        kernel_bpf_controls(bpf), kernel_bpf_ring(bpf, 3));
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	kernel_bpf_free(bpf);
}

/* A second daemon finds the elements that are there; cleanup leaves nothing. */
static void test_pinned_maps_are_found_again(void **state)
{
	char mount_point[] = "/tmp/sockmap-test-XXXXXX", directory[64], why[256];
	struct bpf_flow_direction direction = { .peer = 11 }, found = { 0 };
	struct kernel_bpf *first, *second = NULL;
	uint64_t key = 5;

	(void)state;
	assert_non_null(mkdtemp(mount_point));
	snprintf(directory, sizeof(directory), "%s/gatewayd", mount_point);
	assert_int_equal(kernel_bpf_possible(directory, why, sizeof(why)), -EOPNOTSUPP);
	assert_int_equal(kernel_bpf_open(directory, &second, why, sizeof(why)), -EOPNOTSUPP);
	if (mount("bpf", mount_point, "bpf", 0, NULL) < 0) {
		rmdir(mount_point);
		skip();
	}
	assert_false(kernel_bpf_is_pinned(directory));
	first = open_or_skip(directory);
	assert_true(kernel_bpf_is_pinned(directory));
	assert_true(kernel_bpf_ring(first, 2) >= 0);
	assert_int_equal(kernel_bpf_ring(first, BPF_FLOW_RINGS), -EINVAL);
	assert_int_equal(bpf_map_put(kernel_bpf_directions(first), &key, &direction), 0);
	kernel_bpf_free(first);
	assert_int_equal(kernel_bpf_open(directory, &second, why, sizeof(why)), 0);
	assert_int_equal(bpf_map_get(kernel_bpf_directions(second), &key, &found), 0);
	assert_int_equal(found.peer, 11);
	assert_true(kernel_bpf_ring(second, 2) >= 0);
	/* Its socket is in no map: left over. */
	assert_int_equal(kernel_bpf_sweep(second), 1);
	assert_int_equal(bpf_map_get(kernel_bpf_directions(second), &key, &found), -ENOENT);
	assert_int_equal(kernel_bpf_sweep(second), 0);
	kernel_bpf_free(second);
	assert_int_equal(kernel_bpf_cleanup(directory), 0);
	assert_int_equal(access(directory, F_OK), -1);
	assert_int_equal(kernel_bpf_cleanup(directory), 0);
	umount(mount_point);
	rmdir(mount_point);
}

static void test_check(void **state)
{
	char why[256] = "";

	(void)state;
	kernel_bpf_free(open_or_skip(NULL));
	if (bpf_check_run(why, sizeof(why)) < 0)
		fail_msg("%s", why);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_relays_user_can_use_the_maps),
		cmocka_unit_test(test_pinned_maps_are_found_again),
		cmocka_unit_test(test_check),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
