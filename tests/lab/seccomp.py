"""The filter of system calls of a process that runs, read from the kernel, and what it says to a call."""

import ctypes
import errno
import os
import struct
import subprocess

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_SECCOMP_GET_FILTER = 17, 0x4206, 0x4207, 0x420c
WALL = 0x40000000
# Numbers of linux/audit.h.
ARCHITECTURES = {"x86_64": 0xc000003e, "aarch64": 0xc00000b7, "riscv64": 0xc00000f3}
ALLOW, DENY, KILL = 0x7fff0000, 0x00050000, 0x80000000
LOAD, AND, EQUAL, ANY_BIT, RETURN = 0x20, 0x54, 0x15, 0x45, 0x06


class Unreadable(Exception):
    """The kernel does not tell filters, or not to us."""


def numbers():
    """The number of each system call of this architecture, by its name."""
    done = subprocess.run(["cc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"], capture_output=True,
                          text=True, check=True)
    named = (line.split() for line in done.stdout.splitlines() if line.startswith("#define __NR_"))
    return {words[1].removeprefix("__NR_"): int(words[2]) for words in named if len(words) == 3 and words[2].isdigit()}


def filters(pid):
    """The filters of a process, each a list of instructions; the process stands still meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes, libc.ptrace.restype = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p], ctypes.c_long

    def ptrace(request, address=None, data=None):
        result = libc.ptrace(request, pid, address, data)
        if result < 0:
            raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")
        return result

    found = []
    ptrace(PTRACE_SEIZE)
    try:
        ptrace(PTRACE_INTERRUPT)
        os.waitpid(pid, WALL)
        while True:
            n = ptrace(PTRACE_SECCOMP_GET_FILTER, len(found), None)
            code = ctypes.create_string_buffer(8 * n)
            ptrace(PTRACE_SECCOMP_GET_FILTER, len(found), ctypes.cast(code, ctypes.c_void_p))
            found.append(list(struct.iter_unpack("HBBI", code.raw)))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return found
        if error.errno in (errno.EACCES, errno.EIO):
            raise Unreadable(f"{error}") from error
        raise
    finally:
        ptrace(PTRACE_DETACH)


def judge(code, number, arguments=(), architecture=None):
    """What one filter says: ALLOW, DENY plus the errno, or KILL."""
    padded = (list(arguments) + [0] * 6)[:6]
    packet = struct.pack("=IIQ6Q", number, architecture or ARCHITECTURES[os.uname().machine], 0, *padded)
    accumulator = at = 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == RETURN:
            return value
        if operation == LOAD:
            accumulator = struct.unpack_from("=I", packet, value)[0]
        elif operation == AND:
            accumulator &= value
        elif operation in (EQUAL, ANY_BIT):
            at += if_true if (accumulator == value if operation == EQUAL else accumulator & value) else if_false
        else:
            raise NotImplementedError(hex(operation))
