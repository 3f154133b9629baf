"""What holds the relay, read from one that runs: each line of the unit that it is said to be equal to (package/
gateway-relay.service) is proven by /proc and by the filter that the kernel has of it."""

import ctypes
import errno
import os
import re
import socket
from pathlib import Path

import pytest

from lab import seccomp
from net.test_rights import RELAY_MASK, status_of

UNIT = Path(__file__).resolve().parents[1] / "package" / "gateway-relay.service"
DENIED = seccomp.DENY | errno.EPERM
PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
CREATE_RULESET, CREATE_RULESET_VERSION = 444, 1
# Whatever takes a path or a directory, lists one, or makes a file without a path.
PATHS = """open openat openat2 creat execve execveat chdir fchdir chroot pivot_root mkdir mkdirat rmdir mknod mknodat link linkat
    symlink symlinkat unlink unlinkat rename renameat renameat2 chmod fchmod fchmodat chown fchown lchown fchownat truncate
    ftruncate stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat statfs utime utimes utimensat getcwd
    getdents getdents64 name_to_handle_at open_by_handle_at inotify_init1 inotify_add_watch fanotify_init fanotify_mark setxattr
    getxattr listxattr removexattr io_uring_setup memfd_create uselib acct swapon quotactl dup dup3""".split()
MOUNTS = "mount umount2 move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr pivot_root unshare setns".split()
MARKED = "mknod mknodat chmod fchmod fchmodat creat open openat openat2".split()
CALLS = {
    "ProtectKernelModules": "init_module finit_module delete_module kexec_load kexec_file_load",
    "ProtectKernelLogs": "syslog",
    "ProtectHostname": "sethostname setdomainname",
    "ProtectClock": "clock_settime settimeofday adjtimex clock_adjtime",
    "RestrictNamespaces": "unshare setns clone clone3 fork vfork",
    "RestrictRealtime": "sched_setscheduler sched_setparam sched_setattr",
    "RestrictSUIDSGID": " ".join(MARKED),
    "LockPersonality": "personality",
    "KeyringMode": "keyctl add_key request_key",
    "RemoveIPC": "shmget shmat semget semop msgget msgsnd mq_open",
    "PrivateMounts": " ".join(MOUNTS),
    "ProtectProc": "ptrace process_vm_readv process_vm_writev kcmp pidfd_open kill prctl",
}
# Said of what has a path, and there is none.
NO_PATHS = ("ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "DevicePolicy", "ProcSubset", "ProtectControlGroups",
            "ProtectKernelTunables")


class Relay:
    """One that runs."""

    def __init__(self, pid):
        self.pid = pid
        self.numbers = seccomp.numbers()
        self.filters = seccomp.filters(pid)
        self.tasks = [status_of(pid, task.name) for task in Path(f"/proc/{pid}/task").iterdir()]

    def says(self, name, *arguments):
        """What becomes of a call: the strictest of all filters."""
        return min((seccomp.judge(code, self.numbers[name], arguments) for code in self.filters),
                   key=lambda said: (said != seccomp.KILL, said))

    def denies(self, names):
        """Whether all of them are refused, whatever the arguments, of those that this architecture has."""
        return all(self.says(name, *arguments) == DENIED for name in names if name in self.numbers
                   for arguments in ((), (1,) * 6, (0xffffffff,) * 6))

    def all_have(self, **fields):
        """Whether each thread's status has these values."""
        return all(task[key] == value for task in self.tasks for key, value in fields.items())


def unit():
    """The lines of the unit, as key and all words of it."""
    found = {}
    for line in UNIT.read_text().splitlines():
        key, is_one, value = line.partition("=")
        if is_one and not line.startswith("#"):
            found.setdefault(key, []).extend(value.split())
    return found


def holds_user(relay, _):
    """Another user than root, in all four places, and no groups."""
    return all("0" not in task["Uid"].split() and len(set(task["Uid"].split())) == 1 and not task["Groups"] for task in relay.tasks)


def holds_bounding(relay, words):
    """Nothing but these can be had, and is."""
    mask = f"{RELAY_MASK:016x}"
    return words == ["CAP_NET_RAW", "CAP_NET_BIND_SERVICE"] and relay.all_have(CapBnd=mask, CapPrm=mask, CapEff=mask, CapInh="0" * 16)


def holds_ambient(relay, _):
    """By the time that it serves they are its own and could not be handed on."""
    return relay.all_have(CapAmb="0" * 16)


def holds_no_core(relay, words):
    """Neither a soft nor a hard limit above nothing."""
    limits = Path(f"/proc/{relay.pid}/limits").read_text()
    return words == ["0"] and re.search(r"^Max core file size +0 +0 ", limits, re.M) is not None


def holds_no_path(relay, _):
    """No call takes one, and what is open is neither directory nor device nor file, but for the three of the log."""
    opened = {int(fd.name): os.readlink(fd) for fd in Path(f"/proc/{relay.pid}/fd").iterdir()}
    inner = [what for fd, what in opened.items() if fd > 2 and not re.match(r"socket:|pipe:|anon_inode:|/memfd:", what)]
    shared = [line for line in Path(f"/proc/{relay.pid}/maps").read_text().splitlines()
              if re.search(r" .w.s .* /(?!memfd:)", line)]
    return relay.denies(PATHS) and not inner and not shared and not any(os.path.isdir(opened[fd]) for fd in (0, 1, 2) if fd in opened)


def holds_families(relay, words):
    """TCP and UDP, and no other kind of socket."""
    kinds = {(family, kind) for family in range(64) for kind in range(12)
             if relay.says("socket", family, kind | socket.SOCK_CLOEXEC) == seccomp.ALLOW}
    return words == ["AF_INET", "AF_INET6"] and kinds == {(family, kind) for family in (socket.AF_INET, socket.AF_INET6)
                                                          for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)}


def holds_memory(relay, _):
    """Nothing becomes executable, by whatever call."""
    return all(relay.says(name, 0, 4096, PROT_EXEC | more) == DENIED and relay.says(name, 0, 4096, PROT_READ | PROT_WRITE) == seccomp.ALLOW
               for name in ("mmap", "mprotect") for more in (0, PROT_READ, PROT_WRITE)) \
        and relay.denies(["pkey_mprotect", "shmat", "memfd_create", "remap_file_pages"])


def holds_architecture(relay, _):
    """The calls of another one, or of x32, end the process."""
    others = [number for name, number in seccomp.ARCHITECTURES.items() if name != os.uname().machine]
    return all(seccomp.judge(relay.filters[0], relay.numbers["read"], (), other) == seccomp.KILL for other in others) \
        and seccomp.judge(relay.filters[0], relay.numbers["read"] | 0x40000000) == seccomp.KILL


def holds_calls(relay, words):
    """These and no others, of all numbers that there are; some of them with certain arguments."""
    checked = {"socket": (2, 1), "mmap": (), "mprotect": (), "ioctl": (0, 0x541b), "fcntl": (0, 1), "bpf": (1,)}
    allowed = {name for name, number in relay.numbers.items()
               if seccomp.ALLOW in (relay.says(name), relay.says(name, *checked.get(name, ())))}
    unnamed = [number for number in set(range(1024)) - set(relay.numbers.values())
               if seccomp.judge(relay.filters[0], number) != DENIED]
    return allowed == {word for word in words if word in relay.numbers} and not unnamed


def holds_error(relay, words):
    """What is refused fails, and ends nothing."""
    return words == ["EPERM"] and relay.says("openat") == DENIED


PROOFS = {
    "ExecStart": lambda relay, _: os.readlink(f"/proc/{relay.pid}/exe").endswith("/gateway-relay"),
    "User": holds_user,
    "CapabilityBoundingSet": holds_bounding,
    "AmbientCapabilities": holds_ambient,
    "NoNewPrivileges": lambda relay, _: relay.all_have(NoNewPrivs="1"),
    "UMask": lambda relay, words: relay.all_have(Umask=words[0]),
    "LimitCORE": holds_no_core,
    "RestrictAddressFamilies": holds_families,
    "MemoryDenyWriteExecute": holds_memory,
    "SystemCallArchitectures": holds_architecture,
    "SystemCallErrorNumber": holds_error,
    "SystemCallFilter": lambda relay, words: relay.all_have(Seccomp="2") and holds_calls(relay, words),
    **{name: holds_no_path for name in NO_PATHS},
    **{name: lambda relay, _, calls=calls: relay.denies(calls.split()) for name, calls in CALLS.items()},
}


def landlock_version():
    """Of this kernel; 0: none."""
    return max(ctypes.CDLL(None).syscall(CREATE_RULESET, None, 0, CREATE_RULESET_VERSION), 0)


def test_each_line_is_true(gateway):
    """There is a proof for each line of the unit, and each holds, also of the relay that comes after one that was killed."""
    assert set(unit()) == set(PROOFS)
    for again in (False, True):
        if again:
            gateway.wait_relay(gateway.kill_relay())
        try:
            relay = Relay(gateway.status()["relay"]["pid"])
        except seccomp.Unreadable as error:
            pytest.skip(f"the kernel does not tell filters: {error}")
        assert len(relay.tasks) > 2 and relay.filters
        assert not [key for key, words in unit().items() if not PROOFS[key](relay, words)]


def test_landlock_is_told(gateway):
    """The status says what keeps the relay from files, of the kernel's version; also to the next daemon."""
    version = landlock_version()
    told = f"landlock {version}" if version else "nothing: "
    assert gateway.status()["relay"]["enclosed"].startswith(told)
    gateway.stop()
    gateway.start()
    assert gateway.status()["relay"]["enclosed"].startswith(told)
