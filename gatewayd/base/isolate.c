/*
 * Capabilities and the filter of system calls; see isolate.h.
 *
 * The filter is a list of numbers that are allowed, compiled at start into
 * classic BPF: one comparison each, then EPERM. A few numbers lead to a check
 * of an argument instead. Written against the kernel's own headers; there is
 * no libseccomp between this list and what is enforced.
 */
#include "gatewayd/base/isolate.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"

#if defined(__x86_64__)
#define ISOLATE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ISOLATE_ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define ISOLATE_ARCH AUDIT_ARCH_RISCV64
#else
#error "name this architecture's audit number"
#endif

/* Numbers of the x32 table have this bit; the architecture is the same as that of x86-64. */
#define X32_BIT 0x40000000U

#define CAPABILITY_WORDS _LINUX_CAPABILITY_U32S_3
#define NET_RAW_MASK     (1U << CAP_NET_RAW)
/* What a relay keeps. UDP is answered from the original port and sent on from the client's, which may be below 1024. */
#define RELAY_MASK (NET_RAW_MASK | 1U << CAP_NET_BIND_SERVICE)

static_assert(CAP_NET_RAW < 32 && CAP_NET_BIND_SERVICE < 32, "in the first word");

/* --- capabilities --- */

static int capabilities_get(struct __user_cap_data_struct data[CAPABILITY_WORDS])
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };

	return syscall(SYS_capget, &header, data) < 0 ? -errno : 0;
}

/* Exactly this mask of the first word. inheritable: whether an ambient capability may be made of it. */
static int capabilities_set(uint32_t mask, bool inheritable)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[CAPABILITY_WORDS] = {
		{ .effective = mask, .permitted = mask, .inheritable = inheritable ? mask : 0 }
	};

	return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

/* Whether the capability is effective; false too if that cannot be told. */
static bool has_capability(unsigned capability)
{
	struct __user_cap_data_struct data[CAPABILITY_WORDS];

	if (capabilities_get(data) < 0)
		return false;
	return data[capability / 32].effective & (1U << (capability % 32));
}

static int bounding_set_reduce(uint64_t kept)
{
	if (!has_capability(CAP_SETPCAP))
		return 0;
	for (unsigned long capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
		if ((capability >= 64 || !(kept >> capability & 1)) && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
			return -errno;
	return 0;
}

int isolate_keep(uint64_t mask)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[CAPABILITY_WORDS];
	int r = bounding_set_reduce(mask);

	if (r == 0)
		r = capabilities_get(data);
	if (r < 0)
		return r;
	for (unsigned word = 0; word < CAPABILITY_WORDS; word++) {
		data[word].permitted &= (uint32_t)(mask >> (32 * word));
		data[word].effective = data[word].permitted;
		data[word].inheritable = 0;
	}
	/* Also clears ambient capabilities. */
	if (syscall(SYS_capset, &header, data) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

uint64_t isolate_capabilities(void)
{
	struct __user_cap_data_struct data[CAPABILITY_WORDS];

	return capabilities_get(data) < 0 ? 0 : data[0].effective | (uint64_t)data[1].effective << 32;
}

/* The system calls themselves: glibc's functions would talk to other threads of the parent that fork left behind. */
static int user_change(const struct isolate_params *params)
{
	if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, params->gid, params->gid, params->gid) < 0 ||
	        syscall(SYS_setresuid, params->uid, params->uid, params->uid) < 0)
		return -errno;
	return 0;
}

int isolate_drop(const struct isolate_params *params)
{
	bool can_change = has_capability(CAP_SETUID) && has_capability(CAP_SETGID);
	struct __user_cap_data_struct data[CAPABILITY_WORDS];
	uint32_t kept;
	int r = bounding_set_reduce(RELAY_MASK);

	if (r == 0 && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		r = -errno;
	if (r == 0 && can_change)
		r = user_change(params);
	if (r == 0)
		r = capabilities_get(data);
	if (r < 0)
		return r;
	kept = data[0].permitted & RELAY_MASK;
	/* Also clears ambient capabilities that are no longer permitted. */
	r = capabilities_set(kept, true);
	for (unsigned long capability = 0; r == 0 && capability < 32; capability++)
		if ((kept & 1U << capability) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) < 0)
			r = -errno;
	if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = -errno;
	if (r < 0)
		return r;
	return can_change ? 0 : 1;
}

static int capabilities_reduce(void)
{
	struct __user_cap_data_struct data[CAPABILITY_WORDS];
	int r = capabilities_get(data), outcome = 0;
	uint32_t kept;

	if (r < 0)
		return r;
	kept = data[0].permitted & RELAY_MASK;
	if (data[0].permitted != kept || data[1].permitted != 0)
		outcome |= ISOLATE_HAD_MORE;
	if (!(kept & NET_RAW_MASK))
		outcome |= ISOLATE_NO_NET_RAW;
	r = capabilities_set(kept, false);
	return r < 0 ? r : outcome;
}

int isolate_verify_relay(void)
{
	static const struct rlimit no_core = { 0, 0 };
	int outcome = capabilities_reduce();

	if (outcome < 0)
		return outcome;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
	        setrlimit(RLIMIT_CORE, &no_core) < 0)
		return -errno;
	umask(S_IRWXG | S_IRWXO);
	return outcome;
}

/* --- the filter --- */

static const uint16_t allowed[] = {
	/* Moving bytes. */
	SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_recvfrom, SYS_sendto, SYS_recvmsg, SYS_sendmsg, SYS_recvmmsg,
	SYS_sendmmsg, SYS_splice, SYS_tee, SYS_pipe2,
	/* Sockets and events. */
	SYS_accept4, SYS_bind, SYS_connect, SYS_shutdown, SYS_getsockname, SYS_getpeername, SYS_getsockopt,
	SYS_setsockopt, SYS_close, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_ppoll, SYS_eventfd2,
#ifdef SYS_epoll_wait /* the older calls that newer architectures do not have */
	SYS_epoll_wait, SYS_poll,
#endif
	/* Memory, time, threads and what the C library and the sanitizers do in the background. */
	SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_futex, SYS_clock_gettime, SYS_clock_nanosleep, SYS_nanosleep,
	SYS_gettimeofday, SYS_rt_sigreturn, SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_sigaltstack, SYS_restart_syscall,
	SYS_exit, SYS_exit_group, SYS_getpid, SYS_gettid, SYS_tgkill, SYS_sched_yield, SYS_sched_getaffinity,
	SYS_getrandom, SYS_set_robust_list, SYS_rseq, SYS_membarrier, SYS_fstat, SYS_lseek
};

/* Calls that are allowed only with certain arguments. */
enum checked_call {
	CHECKED_SOCKET,
	CHECKED_MMAP,
	CHECKED_MPROTECT,
	CHECKED_IOCTL,
	CHECKED_FCNTL,
	CHECKED_BPF,
	CHECKED_CALLS
};
static const uint16_t checked[] = {
	[CHECKED_SOCKET] = SYS_socket,
	[CHECKED_MMAP] = SYS_mmap,
	[CHECKED_MPROTECT] = SYS_mprotect,
	[CHECKED_IOCTL] = SYS_ioctl,
	[CHECKED_FCNTL] = SYS_fcntl,
	[CHECKED_BPF] = SYS_bpf,
};
static_assert(ARRAY_SIZE(checked) == CHECKED_CALLS, "one row per call");

#define PROGRAM_MAX 320
static_assert(2 * (ARRAY_SIZE(allowed) + ARRAY_SIZE(checked) * 10) + 16 <= PROGRAM_MAX, "the program has room");

struct program {
	struct sock_filter code[PROGRAM_MAX];
	unsigned short n;
};

static void emit(struct program *program, uint16_t code, uint8_t if_true, uint8_t if_false, uint32_t k)
{
	program->code[program->n++] = (struct sock_filter)BPF_JUMP(code, k, if_true, if_false);
}

static void emit_load(struct program *program, size_t offset)
{
	emit(program, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)offset);
}

/* The lower half of an argument: all that the kernel looks at for those that are checked here. */
static void emit_load_argument(struct program *program, unsigned argument)
{
	emit_load(program, offsetof(struct seccomp_data, args) + argument * sizeof(uint64_t));
}

static void emit_return(struct program *program, uint32_t action)
{
	emit(program, BPF_RET | BPF_K, 0, 0, action);
}

/* Returns at once if the accumulator is (or, negated, is not) k. */
static void emit_return_if(struct program *program, bool equal, uint32_t k, uint32_t action)
{
	emit(program, BPF_JMP | BPF_JEQ | BPF_K, equal ? 0 : 1, equal ? 1 : 0, k);
	emit_return(program, action);
}

#define DENY (SECCOMP_RET_ERRNO | EPERM)

/* Only TCP and UDP over IPv4 and IPv6. */
static void emit_socket(struct program *program)
{
	emit_load_argument(program, 0);
	emit(program, BPF_JMP | BPF_JEQ | BPF_K, 2, 0, AF_INET);
	emit(program, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AF_INET6);
	emit_return(program, DENY);
	emit_load_argument(program, 1);
	emit(program, BPF_ALU | BPF_AND | BPF_K, 0, 0, (uint32_t) ~(SOCK_NONBLOCK | SOCK_CLOEXEC));
	emit_return_if(program, true, SOCK_STREAM, SECCOMP_RET_ALLOW);
	emit_return_if(program, true, SOCK_DGRAM, SECCOMP_RET_ALLOW);
	emit_return(program, DENY);
}

/* No memory that can be executed. */
static void emit_protection(struct program *program)
{
	emit_load_argument(program, 2);
	emit(program, BPF_JMP | BPF_JSET | BPF_K, 0, 1, PROT_EXEC);
	emit_return(program, DENY);
	emit_return(program, SECCOMP_RET_ALLOW);
}

static void emit_one_of(struct program *program, unsigned argument, const uint32_t *values, size_t n)
{
	emit_load_argument(program, argument);
	for (size_t i = 0; i < n; i++)
		emit_return_if(program, true, values[i], SECCOMP_RET_ALLOW);
	emit_return(program, DENY);
}

static void emit_checks(struct program *program, enum checked_call call)
{
	static const uint32_t ioctls[] = { SIOCGIFNAME, SIOCGIFMTU, FIONREAD, SIOCOUTQ };
	static const uint32_t fcntls[] = { F_GETFL, F_SETFL, F_GETFD, F_SETFD, F_DUPFD_CLOEXEC, F_GETPIPE_SZ,
		F_SETPIPE_SZ };
	/* Elements of maps, and programs, that were handed over; no other program, no map, nothing by its id. */
	static const uint32_t bpf_commands[] = { BPF_PROG_TEST_RUN, BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM,
		BPF_MAP_DELETE_ELEM, BPF_MAP_GET_NEXT_KEY };

	switch (call) {
	case CHECKED_SOCKET:
		emit_socket(program);
		break;
	case CHECKED_MMAP:
	case CHECKED_MPROTECT:
		emit_protection(program);
		break;
	case CHECKED_IOCTL:
		emit_one_of(program, 1, ioctls, ARRAY_SIZE(ioctls));
		break;
	case CHECKED_FCNTL:
		emit_one_of(program, 1, fcntls, ARRAY_SIZE(fcntls));
		break;
	case CHECKED_BPF:
		emit_one_of(program, 0, bpf_commands, ARRAY_SIZE(bpf_commands));
		break;
	case CHECKED_CALLS:
		break;
	}
}

/* If the number is that of the call, its checks decide; they always return. */
static void emit_checked(struct program *program, enum checked_call call)
{
	unsigned short jump = program->n;

	emit(program, BPF_JMP | BPF_JEQ | BPF_K, 0, 0, checked[call]);
	emit_checks(program, call);
	program->code[jump].jf = (uint8_t)(program->n - jump - 1);
}

static void program_build(struct program *program)
{
	emit_load(program, offsetof(struct seccomp_data, arch));
	emit_return_if(program, false, ISOLATE_ARCH, SECCOMP_RET_KILL_PROCESS);
	emit_load(program, offsetof(struct seccomp_data, nr));
	emit(program, BPF_JMP | BPF_JSET | BPF_K, 0, 1, X32_BIT);
	emit_return(program, SECCOMP_RET_KILL_PROCESS);
	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		emit_return_if(program, true, allowed[i], SECCOMP_RET_ALLOW);
	for (unsigned call = 0; call < CHECKED_CALLS; call++)
		emit_checked(program, (enum checked_call)call);
	emit_return(program, DENY);
}

int isolate_filter_relay(void)
{
	struct program program = { .n = 0 };
	struct sock_fprog fprog = { .filter = program.code };
	long r;

	program_build(&program);
	fprog.len = program.n;
	r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &fprog);
	if (r < 0)
		return -errno;
	return r == 0 ? 0 : -EBUSY; /* the thread that could not be synchronised */
}
