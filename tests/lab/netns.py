"""Network namespaces: commands in them, sockets in them, and nothing of topology."""

import ctypes
import os
import socket
import subprocess
import threading
from contextlib import contextmanager

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_entering = threading.Lock()


class CommandFailed(Exception):
    """A command of the lab ended badly; the message holds it and what it said."""


def run(*command, check=True, input=None, timeout=60, env=None):
    """Runs a command to its end; returns the CompletedProcess with text output."""
    done = subprocess.run([str(c) for c in command], input=input, capture_output=True, text=True, timeout=timeout,
                          stdin=None if input is not None else subprocess.DEVNULL, env=env)
    if check and done.returncode:
        raise CommandFailed(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def _setns(descriptor):
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Namespace:
    """One network namespace, a host of the lab. `v4` and `v6` are its first addresses."""

    def __init__(self, name):
        self.name = name
        self.v4 = self.v6 = None
        run("ip", "netns", "add", name)
        self.run("ip", "link", "set", "lo", "up")

    def command(self, *command):
        """The command line that runs `command` in here."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def run(self, *command, **options):
        """Runs a command in here to its end."""
        return run(*self.command(*command), **options)

    def sysctl(self, key, value):
        """Sets a sysctl of this namespace; returns what it was."""
        path = "/proc/sys/" + key.replace(".", "/")
        with self.entered():
            # The file shows the namespace of the thread that opens it.
            with open(path, "r+", encoding="ascii") as file:
                old = file.read().strip()
                file.seek(0)
                file.write(str(value))
        return old

    @contextmanager
    def sysctls(self, **values):
        """Sets sysctls (dots written as __) for the time of a with block."""
        old = {key.replace("__", "."): None for key in values}
        try:
            for key, value in values.items():
                old[key.replace("__", ".")] = self.sysctl(key.replace("__", "."), value)
            yield
        finally:
            for key, value in old.items():
                if value is not None:
                    self.sysctl(key, value)

    @contextmanager
    def entered(self):
        """This thread is in the namespace for the time of a with block; keep it short."""
        with _entering, open("/proc/thread-self/ns/net", "rb") as home:
            with open(f"/run/netns/{self.name}", "rb") as there:
                _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM, timeout=10):
        """A socket that lives in here; it may be used from anywhere."""
        with self.entered():
            made = socket.socket(family, kind)
        made.settimeout(timeout)
        return made

    def connect(self, address, port, timeout=10, before=None):
        """A TCP connection from here. `before(socket)` may set options or bind."""
        made = self.socket(family_of(address), timeout=timeout)
        try:
            if before:
                before(made)
            made.connect((address, port))
        except BaseException:
            made.close()
            raise
        return made

    def listen(self, address, port, backlog=128, timeout=10, before=None):
        """A listening TCP socket in here."""
        made = self.socket(family_of(address), timeout=timeout)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if before:
            before(made)
        made.bind((address, port))
        made.listen(backlog)
        return made

    def nft(self, text):
        """Runs nft commands in here."""
        return self.run("nft", "-f", "-", input=text).stdout

    def delete(self):
        """Removes the namespace; what still runs in it keeps it alive without a name."""
        run("ip", "netns", "del", self.name, check=False)


def family_of(address):
    """AF_INET or AF_INET6, by the look of a numeric address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def namespaces():
    """The names of all namespaces of the machine."""
    return sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else []
