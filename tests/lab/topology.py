"""The network of the lab.

    client  10.71.1.2  fd71:1::2 --+             +-- server   10.71.2.2-5  fd71:2::2-5
                                   +-- gateway --+
    client2 10.71.5.2  fd71:5::2 --+   (.1, ::1) +-- hop (10.71.3.2) --- far  10.71.4.2  fd71:4::2

client2 and the hop with the far server behind it exist on request. The hop's
route to the far server has a path MTU of 1000 bytes for IPv4 and 1300 for IPv6;
both ends of the path have 1500, so only the hop's ICMP errors tell them.
"""

import atexit
import itertools
import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from lab.netns import Namespace, namespaces, run
from lab.process import Process, alive

PREFIX = "gwl"
HOP_MTU_V4 = 1000
HOP_MTU_V6 = 1300
_numbers = itertools.count()
_open = []


class Lab:
    """A network of namespaces, the programs that run in it, and a directory for their files."""

    def __init__(self, client2=False, hop=False):
        _tear_down_at_exit()
        self.prefix = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        self.hosts = []
        self.processes = []
        self.directory = Path(tempfile.mkdtemp(prefix=self.prefix + "-"))
        self.directory.chmod(0o755)
        _open.append(self)
        try:
            self._build(client2, hop)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _build(self, client2, hop):
        self.gateway = self._host("gw", forward=True)
        self.client = self._host("cl")
        self.server = self._host("sv")
        self._link(self.client, "up0", self.gateway, "in0", 1, default=True)
        self._link(self.server, "up0", self.gateway, "out0", 2, default=True)
        for last in (3, 4, 5):
            self.server.run("ip", "addr", "add", f"10.71.2.{last}/24", "dev", "up0")
            self.server.run("ip", "addr", "add", f"fd71:2::{last}/64", "dev", "up0", "nodad")
        self.client2 = self._host("cl2") if client2 else None
        if client2:
            self._link(self.client2, "up0", self.gateway, "in1", 5, default=True)
        self.far = self._build_hop() if hop else None

    def _build_hop(self):
        """The router with the narrow path, and the server behind it, which is returned."""
        self.hop = self._host("hop", forward=True)
        far = self._host("far")
        self._link(self.hop, "up0", self.gateway, "out1", 3, default=True)
        self._link(far, "up0", self.hop, "out0", 4, default=True)
        for family, mtu in ((4, HOP_MTU_V4), (6, HOP_MTU_V6)):
            self.hop.run("ip", f"-{family}", "route", "replace", net(4, family), "dev", "out0", "metric", family - 4,
                         "mtu", "lock", mtu)
            self.gateway.run("ip", f"-{family}", "route", "add", net(4, family), "via", address(3, 2, family))
        return far

    def _host(self, role, forward=False):
        host = Namespace(f"{self.prefix}-{role}")
        self.hosts.append(host)
        host.sysctl("net.ipv4.ip_forward", int(forward))
        host.sysctl("net.ipv6.conf.all.forwarding", int(forward))
        host.sysctl("net.ipv6.conf.default.accept_dad", 0)
        host.sysctl("net.ipv6.conf.all.accept_dad", 0)
        # ICMP errors must not be thinned out: the path-MTU tests live on them.
        host.sysctl("net.ipv4.icmp_ratelimit", 0)
        host.sysctl("net.ipv6.icmp.ratelimit", 0)
        # As many short connections as the tests like, without waiting for old ones to be forgotten.
        host.sysctl("net.ipv4.tcp_max_tw_buckets", 262144)
        host.sysctl("net.ipv4.ip_local_port_range", "10240 65000")
        host.sysctl("net.core.somaxconn", 8192)
        return host

    def _link(self, host, host_end, router, router_end, number, default=False):
        """A cable with network `number`: the router has .1, the host .2 and, if wanted, its default route."""
        run("ip", "link", "add", host_end, "netns", host.name, "type", "veth", "peer", "name", router_end, "netns",
            router.name)
        for place, device, last in ((router, router_end, 1), (host, host_end, 2)):
            place.run("ip", "addr", "add", f"10.71.{number}.{last}/24", "dev", device)
            place.run("ip", "addr", "add", f"fd71:{number}::{last}/64", "dev", device, "nodad")
            place.run("ip", "link", "set", device, "up")
            place.v4 = place.v4 or f"10.71.{number}.{last}"
            place.v6 = place.v6 or f"fd71:{number}::{last}"
        if default:
            host.run("ip", "route", "add", "default", "via", f"10.71.{number}.1")
            host.run("ip", "-6", "route", "add", "default", "via", f"fd71:{number}::1")

    def start(self, host, name, *command, env=None):
        """Starts a program on a host (None: on the machine itself); its log is NAME.log in the lab's directory."""
        line = host.command(*command) if host else command
        process = Process(line, self.directory / f"{name}.log", env)
        self.processes.append(process)
        return process

    def close(self):
        """Ends what was started, newest first, and removes the network. May be called twice."""
        if self in _open:
            _open.remove(self)
        for process in reversed(self.processes):
            process.stop(5)
        self.processes = []
        for host in reversed(self.hosts):
            host.delete()
        self.hosts = []
        if not os.environ.get("LAB_KEEP"):
            shutil.rmtree(self.directory, ignore_errors=True)


def address(number, last, family):
    """Address `last` of network `number`."""
    return f"10.71.{number}.{last}" if family == 4 else f"fd71:{number}::{last}"


def net(number, family):
    """Prefix of network `number`."""
    return f"10.71.{number}.0/24" if family == 4 else f"fd71:{number}::/64"


def _close_all(*_):
    for lab in list(_open):
        lab.close()


def _on_signal(number, _frame):
    _close_all()
    sys.exit(128 + number)


def _tear_down_at_exit(_done=[]):
    """However the program ends, bar SIGKILL, its labs go with it."""
    if _done:
        return
    _done.append(True)
    cleanup_stale()
    atexit.register(_close_all)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)


def cleanup_stale():
    """Removes the namespaces and directories of labs whose process is gone; returns their names."""
    gone = []
    pattern = re.compile(rf"{PREFIX}(\d+)-")
    for name in namespaces():
        match = pattern.match(name)
        if match and not alive(int(match.group(1))):
            for pid in run("ip", "netns", "pids", name, check=False).stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            run("ip", "netns", "del", name, check=False)
            gone.append(name)
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        match = pattern.match(path.name)
        if match and not alive(int(match.group(1))):
            shutil.rmtree(path, ignore_errors=True)
    return gone


if __name__ == "__main__":
    print("\n".join(cleanup_stale()) or "nothing to clean up")
