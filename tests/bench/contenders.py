"""Who is measured: plain forwarding, Debian's HAProxy and nginx, and gatewayd. Each has a lab of its own.

Each proves that the server sees the client's own address, and nothing that it should
relay is forwarded past it.
"""

import os
import re
import socket
import sys
from pathlib import Path

from lab import Gateway, Lab
from lab.gateway import ROOT
from lab.netns import run
from lab.process import wait_for
from lab.servers import Nginx, wait_listening

SINK_PORT = 5001
EVENTS_PORT = 5002
UDP_PORT = 5003
HTTP_PORT = 8000
TCP_PORTS = (HTTP_PORT, SINK_PORT, EVENTS_PORT)
PROXY_PORT = 9900
EVENTS_RATE = 10
# A pool of servers by name: the last number of the address, and the milliseconds that an answer takes.
POOL_PORT = 8100
POOL_SERVERS = {"a": (3, 20), "b": (4, 20), "c": (5, 200)}
MARK = 1
BINARIES = ROOT / "build/release"
GWLOAD = BINARIES / "tests/gwload"
NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

# maxpipes: HAProxy would reserve descriptors for a pipe on every fourth connection, more than a container may have.
HAPROXY = """
global
    maxconn 9000
    maxpipes 256
    nbthread {threads}
    log 127.0.0.1 local0 emerg
    stats socket {directory}/haproxy.sock mode 600 level admin
defaults
    mode tcp
    option splice-auto
    timeout connect 5s
    timeout client 600s
    timeout server 600s
"""
HAPROXY_PORT = """
listen port{port}
    bind {anywhere}:{listen} transparent
    source {anywhere} usesrc clientip
    server own {address}:{port}
"""
# As little as can be said for the same pool; a client's address and port are its own towards the server, as ours.
HAPROXY_POOL = """
listen pool
    bind {anywhere}:{listen} transparent
    source {anywhere} usesrc clientip
    balance leastconn
    retries 0
    timeout check 200ms
    default-server check inter 200ms fall 2 rise 2
"""
HAPROXY_POOL_SERVER = "    server {name} {address}:{port}\n"
# reuseport: or the packets of one flow would be spread over all workers, each with a session of its own.
NGINX_UDP = """
load_module {module};
daemon off;
user root;
pid {directory}/nginx-udp.pid;
error_log {directory}/nginx-udp.error.log warn;
worker_processes {workers};
worker_rlimit_nofile 20000;
events {{ worker_connections 9000; multi_accept on; }}
stream {{
    server {{
        listen {listen}:{port} udp reuseport;
        proxy_bind $remote_addr transparent;
        proxy_timeout 60s;
        proxy_pass {address}:{port};
    }}
}}
"""
DIVERT = """
table {table} bench {{
    chain prerouting {{
        type filter hook prerouting priority mangle; policy accept;
        tcp flags & (syn | ack) != syn meta l4proto {{ tcp, icmp, ipv6-icmp }} socket transparent 1 socket wildcard 0 meta mark set {mark} accept
        meta l4proto udp socket transparent 1 socket wildcard 0 meta mark set {mark} accept
{rules}
    }}
}}
"""
# Nothing of these ports is forwarded while it is there: what still gets through was relayed.
NO_FORWARDING = """
table inet bench_relayed
delete table inet bench_relayed
table inet bench_relayed {{
    chain forward {{
        type filter hook forward priority 0; policy accept;
        meta l4proto {{ tcp, udp }} th dport {{ {ports} }} drop
    }}
}}
"""


class NotSupported(Exception):
    """A contender cannot do this; the message says why."""


class Contender:
    """One way from client to server: its lab with servers in it, and what it needs on the gateway."""

    kinds = ("tcp", "udp")
    relays = True

    def __init__(self, name, family):
        self.name, self.family = name, family
        self.lab = Lab()
        self.nginx = Nginx(self.lab, self.lab.server, ports=(HTTP_PORT,), logging=False)
        self.lab.start(self.lab.server, "sink", GWLOAD, "sink", SINK_PORT)
        self.lab.start(self.lab.server, "events", GWLOAD, "events-server", EVENTS_PORT, EVENTS_RATE)
        self.lab.start(self.lab.server, "echo", GWLOAD, "udp-echo", UDP_PORT)
        for port in (SINK_PORT, EVENTS_PORT):
            wait_listening(self.lab.server, port)
        self.proved, self.pool = {}, {}

    def address(self, _kind):
        """Where the client sends to."""
        return self.of(self.lab.server)

    def of(self, host):
        """A host's address of the family that is measured."""
        return host.v4 if self.family == 4 else host.v6

    def prove(self, kind):
        """Raises NotSupported if it does not relay this kind, SystemExit if it does not do it honestly. Asked once."""
        if kind not in self.proved:
            try:
                self.proved[kind] = None
                self.prepare(kind)
                self._check(kind)
            except NotSupported as reason:
                self.proved[kind] = reason
        if self.proved[kind]:
            raise self.proved[kind]

    def prepare(self, kind):
        """Whatever it needs for this kind of traffic."""
        if kind not in self.kinds:
            raise NotSupported(f"{self.name} does not relay {kind.upper()}")

    def furnish_pool(self):
        """Starts the servers of a pool, once; self.pool: {name: address}."""
        if self.pool:
            return
        prefix = self.of(self.lab.server)[:-1]
        for name, (last, milliseconds) in POOL_SERVERS.items():
            self.pool[name] = f"{prefix}{last}"
            self.lab.start(self.lab.server, f"pool-{name}", sys.executable, Path(__file__).with_name("backend.py"),
                           self.pool[name], POOL_PORT, name, milliseconds)
        wait_for(lambda: all(self.lab.server.run("ss", "-Htln", f"src {bracketed(address)}:{POOL_PORT}").stdout
                             for address in self.pool.values()), 10, "the servers of the pool")

    def drain(self, name, on):
        """No new connections for a server of the pool, or again."""
        raise NotImplementedError

    def _check(self, kind):
        if self.relays:
            # It stays for all that is measured: what is forwarded past a relay comes to nothing. No packet that is
            # relayed passes that hook, so it costs nothing.
            self.lab.gateway.nft(NO_FORWARDING.format(ports=", ".join(map(str, (*TCP_PORTS, POOL_PORT, UDP_PORT)))))
        ask = {"tcp": self._who_tcp, "udp": self._who_udp, "pool": self._who_pool}[kind]
        seen = wait_for(ask, 10, f"an answer over {kind} through {self.name}, which must relay it")
        if seen != self.of(self.lab.client):
            raise SystemExit(f"bench: {self.name} is not transparent: the server sees {seen!r}")

    def _who_tcp(self):
        text = self.lab.client.run("curl", "-sS", "-m", 2, f"http://{bracketed(self.address('tcp'))}:{HTTP_PORT}/whoami",
                                   check=False)
        found = re.search(r"sees (\S+)", text.stdout)
        return found and found.group(1)

    def _who_pool(self):
        text = self.lab.client.run("curl", "-sS", "-m", 2, f"http://{bracketed(self.address('pool'))}:{POOL_PORT}/",
                                   check=False).stdout.split()
        return text[1] if len(text) == 2 else None

    def _who_udp(self):
        family = socket.AF_INET if self.family == 4 else socket.AF_INET6
        with self.lab.client.socket(family, socket.SOCK_DGRAM, timeout=0.5) as probe:
            probe.connect((self.address("udp"), UDP_PORT))
            probe.send(b"who")
            return probe.recv(200).decode().split()[0]

    def restart(self):
        """A fresh process, so that its memory is that of a beginning."""

    def pids(self):
        """{role: process ids} of the programs that relay."""
        return {}

    def processor_seconds(self):
        """Processor time spent so far by the contender's own programs; 0 if there is none."""
        return sum(process_seconds(pid) for group in self.pids().values() for pid in group)

    def close(self):
        """Ends everything."""
        self.lab.close()


class Forwarding(Contender):
    """No gateway program at all: the kernel forwards."""

    relays = False


class Proxy(Contender):
    """Another's program on the gateway, with routing made by hand."""

    def __init__(self, name, family):
        super().__init__(name, family)
        self.process = None
        self.table, self.any = ("ip", "0.0.0.0") if family == 4 else ("ip6", "::")
        gateway = self.lab.gateway
        gateway.nft(DIVERT.format(table=self.table, mark=MARK, rules="\n".join(self.rules())))
        gateway.run("ip", f"-{family}", "rule", "add", "fwmark", MARK, "lookup", 100)
        gateway.run("ip", f"-{family}", "route", "add", "local", f"{self.any}/0", "dev", "lo", "table", 100)
        self.restart()

    def rules(self):
        """nft rules that lead packets to it."""
        return []

    def command(self):
        """Its command line, after its configuration has been written."""
        raise NotImplementedError

    def listening(self):
        """Waits until it serves."""

    def restart(self):
        if self.process:
            self.process.stop()
            self.lab.processes.remove(self.process)
        self.process = self.lab.start(self.lab.gateway, self.name, *self.command())
        self.listening()

    def pids(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {self.name: [self.process.pid, *map(int, children)]}


class Haproxy(Proxy):
    """Debian's HAProxy in TCP mode, splicing, with the clients' addresses."""

    kinds = ("tcp", "pool")

    def rules(self):
        return [f'        iifname "in0" tcp dport {port} tproxy to :{PROXY_PORT + n} meta mark set {MARK} accept'
                for n, port in enumerate((*TCP_PORTS, POOL_PORT))]

    def prepare(self, kind):
        super().prepare(kind)
        if kind == "pool":
            self.furnish_pool()
            self.restart()

    def drain(self, name, on):
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self.lab.directory / "haproxy.sock"))
            control.sendall(f"set server pool/{name} state {'drain' if on else 'ready'}\n".encode())
            said = control.recv(1000).strip()
        if said:
            raise SystemExit(f"bench: haproxy: {said.decode()}")

    def _pool_section(self):
        text = HAPROXY_POOL.format(anywhere=bracketed(self.any), listen=PROXY_PORT + len(TCP_PORTS))
        return text + "".join(HAPROXY_POOL_SERVER.format(name=name, address=bracketed(address), port=POOL_PORT)
                              for name, address in self.pool.items())

    def command(self):
        config = self.lab.directory / "haproxy.cfg"
        text = HAPROXY.format(threads=os.cpu_count(), directory=self.lab.directory)
        for n, port in enumerate(TCP_PORTS):
            text += HAPROXY_PORT.format(port=port, listen=PROXY_PORT + n, anywhere=bracketed(self.any),
                                        address=bracketed(self.of(self.lab.server)))
        config.write_text(text + (self._pool_section() if self.pool else ""))
        return ["/usr/sbin/haproxy", "-db", "-f", config]

    def listening(self):
        wait_listening(self.lab.gateway, PROXY_PORT + len(TCP_PORTS) - 1)


class NginxStream(Proxy):
    """Debian's nginx as a UDP proxy that keeps the clients' addresses towards the server.

    It cannot listen on addresses that are not the gateway's, so clients send to the gateway itself."""

    kinds = ("udp",)

    def __init__(self, name, family):
        if not NGINX_STREAM.exists():
            raise NotSupported("libnginx-mod-stream is not installed")
        super().__init__(name, family)

    def address(self, _kind):
        return self.of(self.lab.gateway)

    def command(self):
        config = self.lab.directory / "nginx-udp.conf"
        config.write_text(NGINX_UDP.format(module=NGINX_STREAM, directory=self.lab.directory, workers=os.cpu_count(),
                                           listen=bracketed(self.of(self.lab.gateway)), port=UDP_PORT,
                                           address=bracketed(self.of(self.lab.server))))
        return ["/usr/sbin/nginx", "-e", self.lab.directory / "nginx-udp.error.log", "-c", config]


class Gatewayd(Contender):
    """This project, release build."""

    kinds = ("tcp", "udp", "pool")

    def __init__(self, name, family, mover=None, engine="nft", straight=False):
        super().__init__(name, family)
        self.mover, self.engine = mover, engine
        self.wanted = {"mover": "kernel"} if straight else {}
        self.udp = False
        self._start()

    def _start(self):
        self.gateway = Gateway(self.lab, build="release", mover=self.mover, bpf=self.mover in (None, "sockmap"),
                               args=["--interception", self.engine])
        found = self.gateway.status()["interception"]
        if found["engine"] != self.engine:
            raise SystemExit(f"bench: no engine {self.engine} here: {found}")
        state, why = self.gateway.sockmap()
        if self.mover == "sockmap" and state != "on":
            raise SystemExit(f"bench: no sockmap here: {state}, {why}")
        self.gateway.listener("bench", ports=[str(port) for port in TCP_PORTS], **self.wanted)
        if self.udp:
            self._listen_udp()
        if self.pool:
            self._listen_pool()

    def _listen_pool(self):
        self.gateway.upstream("pool", [(address, POOL_PORT) for address in self.pool.values()], algorithm="least_conn",
                              health={"type": "tcp", "interval_ms": 200, "timeout_ms": 200, "fall": 2, "rise": 2})
        self.gateway.listener("pool", ports=[str(POOL_PORT)], upstream="pool", **self.wanted)

    def drain(self, name, on):
        self.gateway.must("PATCH", f"upstreams/pool/targets/{bracketed(self.pool[name])}:{POOL_PORT}",
                          {"admin_state": "drain" if on else None})

    def _listen_udp(self):
        answer = self.gateway.api("PUT", "listeners/bench-udp", {"name": "bench-udp", "protocol": "udp", "ports": [str(UDP_PORT)]})
        if answer.status >= 300:
            faults = "; ".join(fault["detail"] for fault in (answer.json or {}).get("errors", []))
            raise NotSupported(f"gatewayd refuses a UDP listener: {answer.status} {faults}")

    def prepare(self, kind):
        if kind == "pool":
            self.furnish_pool()
            self._listen_pool()
        if kind == "udp":
            try:
                self._listen_udp()
            except NotSupported:
                self.gateway.api("DELETE", "listeners/bench-udp")
                raise
            self.udp = True

    def restart(self):
        self.gateway.close()
        self._start()

    def pids(self):
        return {"relay": [self.gateway.relay_pid()], "daemon": [self.gateway.process.pid]}

    def close(self):
        self.gateway.close()
        super().close()


def offered_movers():
    """The movers that gatewayd's help names."""
    line = re.search(r"--mover MODE[^:]*: ([a-z, ]+)", run(BINARIES / "bin/gatewayd", "--help").stdout)
    return [word for word in re.findall(r"[a-z]+", line.group(1)) if word not in ("or", "auto")] if line else []


def bracketed(address):
    """An address as it stands before a colon and a port."""
    return f"[{address}]" if ":" in address else address


def make(name, family):
    """The contender of a name (forwarding, haproxy, nginx, gatewayd, gatewayd-MOVER, gatewayd-kernel, each of ours also with -ebpf behind it)
    that is measured over a family."""
    plain = {"forwarding": Forwarding, "haproxy": Haproxy, "nginx": NginxStream, "gatewayd": Gatewayd}
    if name in plain:
        return plain[name](name, family)
    base = name.removesuffix("-ebpf")
    engine = "nft" if base == name else "ebpf"
    mover = base.removeprefix("gatewayd-")
    if base in ("gatewayd", "gatewayd-kernel"):
        return Gatewayd(name, family, engine=engine, straight=base == "gatewayd-kernel")
    if mover == base or mover not in offered_movers():
        raise SystemExit(f"bench: no contender {name!r}; there are {', '.join(plain)}, and gatewayd-MOVER with MOVER of "
                         f"{', '.join(offered_movers())}; behind those of gatewayd, -ebpf names the engine; gatewayd-kernel has listeners with that mover")
    return Gatewayd(name, family, mover, engine)


def process_seconds(pid):
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def process_memory(pid):
    """(private, proportional) bytes of user-space memory of a process.

    Without pages of files: clean ones become private when another program that had them too ends.
    """
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, kib = line.split(":")
        sizes[name] = int(kib.split()[0]) * 1024
    return sizes["Private_Dirty"], sizes["Pss_Anon"] + sizes["Pss_Shmem"]
