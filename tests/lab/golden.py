"""Client, gateway and server with the rendered rules of tests/golden/full.nft on the gateway, for what they rely on.

A small program with a transparent socket stands in for the relay: it answers "relay <original destination>"; the
server answers "server <client>".
"""

import json
import subprocess
import sys
import uuid
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
RELAY_PORTS = {4: 41000, 6: 41001}  # those of the golden text
SERVER = {4: "10.0.0.5", 6: "2001:db8::5"}
DIRECT_SERVER = "192.0.2.1"
GATEWAY = {4: "10.9.0.1", 6: "fd00:9::1"}
MARK = "0x01000000/0x0f000000"

# One program for both roles: accept, say who we are and whom we see, echo what comes.
ECHO = """
import socket, sys, threading
label, family, address, port, transparent = sys.argv[1:]
s = socket.socket(socket.AF_INET if family == "4" else socket.AF_INET6)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if transparent == "1":
    s.setsockopt(*((socket.SOL_IP, 19) if family == "4" else (socket.IPPROTO_IPV6, 75)), 1)
s.bind((address, int(port)))
s.listen()
print("ready", flush=True)
def serve(c):
    here, there = c.getsockname(), c.getpeername()
    c.sendall(f"{label} {here[0]} {here[1]} {there[0]}\\n".encode())
    while data := c.recv(4096):
        c.sendall(data)
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""

# Connects and prints the greeting, or the name of what went wrong.
ASK = """
import socket, sys
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
    print(s.makefile().readline().strip())
except OSError as error:
    print(type(error).__name__)
"""

# Connects, prints the greeting; then for each line on stdin an echo, or the name of what went wrong.
TALK = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)
f = s.makefile("rw")
print(f.readline().strip(), flush=True)
for line in sys.stdin:
    try:
        f.write(line)
        f.flush()
        print(f.readline().strip(), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""

# Connects, prints the greeting; on a line of stdin sends a lot, ends its direction, and prints how much came back.
HALF = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)
f = s.makefile("rb")
print(f.readline().decode().strip(), flush=True)
sys.stdin.readline()
s.sendall(b"x" * 100000)
s.shutdown(socket.SHUT_WR)
print(len(f.read()), flush=True)
"""


def run(*command, check=True, **options):
    """A command; its output."""
    return subprocess.run(command, check=check, capture_output=True, text=True, **options).stdout


class Net:
    """client - gateway - server, each a namespace of its own."""

    def __init__(self):
        tag = uuid.uuid4().hex[:6]
        self.client, self.gateway, self.server = (f"hk_{tag}_{role}" for role in "cgs")
        self.made = []
        self.processes = []

    def __enter__(self):
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()
        for name in self.made:
            run("ip", "netns", "del", name, check=False)

    def build(self):
        """Names, addresses, routes; the table and the routing of the golden text."""
        for name in (self.client, self.gateway, self.server):
            run("ip", "netns", "add", name)
            self.made.append(name)
            self.sh(name, "ip link set lo up")
        self.sh(self.client, f"ip link add up0 type veth peer name eth0 netns {self.gateway}")
        self.sh(self.server, f"ip link add up0 type veth peer name eth1 netns {self.gateway}")
        self.sh(self.gateway, f"""
            sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
            ip addr add {GATEWAY[4]}/16 dev eth0; ip addr add {GATEWAY[6]}/64 dev eth0 nodad; ip link set eth0 up
            ip addr add 10.0.0.1/24 dev eth1; ip addr add 2001:db8::1/64 dev eth1 nodad; ip link set eth1 up
            ip route add {DIRECT_SERVER} via {SERVER[4]}""")
        self.sh(self.client, f"""
            ip addr add 10.9.0.2/16 dev up0; ip addr add fd00:9::2/64 dev up0 nodad; ip link set up0 up
            ip route add default via {GATEWAY[4]}; ip -6 route add default via {GATEWAY[6]}""")
        self.sh(self.server, f"""
            ip addr add {SERVER[4]}/24 dev up0; ip addr add {SERVER[6]}/64 dev up0 nodad; ip link set up0 up
            ip addr add {DIRECT_SERVER}/32 dev lo
            ip route add default via 10.0.0.1; ip -6 route add default via 2001:db8::1""")
        self.reset()
        for family in (4, 6):
            anywhere = "0.0.0.0" if family == 4 else "::"
            for port in (443, 25, 9999, 8000) if family == 4 else (443, 25, 9999):
                self.echo(self.server, "server", family, SERVER[4] if family == 4 else SERVER[6], port) \
                    if port != 8000 else self.echo(self.server, "server", 4, anywhere, port)

    def reset(self):
        """The golden table, fresh, and the three rules and the route."""
        self.nft(file=GOLDEN / "full.nft")
        for f in ("-4", "-6"):
            self.sh(self.gateway, f"""
                ip {f} rule del prio 100; ip {f} rule del prio 101; ip {f} rule del prio 102
                ip {f} rule add prio 100 fwmark {MARK} iif lo goto 102
                ip {f} rule add prio 101 fwmark {MARK} lookup 26487
                ip {f} rule add prio 102 nop
                ip {f} route replace local default dev lo table 26487""")
        self.sysctl(src_valid_mark=0, rp_filter=0)

    def sh(self, name, script):
        """A shell script in a namespace."""
        return run("ip", "netns", "exec", name, "sh", "-c", script, check=False)

    def sysctl(self, **values):
        """The gateway's net.ipv4.conf, on all and on each interface."""
        for key, value in values.items():
            self.sh(self.gateway, f"sysctl -qw net.ipv4.conf.all.{key}={value} net.ipv4.conf.eth0.{key}={value} "
                                  f"net.ipv4.conf.eth1.{key}={value}")

    def nft(self, text=None, file=None):
        """A transaction in the gateway."""
        run("ip", "netns", "exec", self.gateway, "nft", "-f", str(file or "-"), input=text)

    def echo(self, name, label, family, address, port, transparent=False):
        """Starts the echo program and waits until it listens."""
        process = subprocess.Popen(["ip", "netns", "exec", name, sys.executable, "-c", ECHO, label, str(family), address,
                                    str(port), str(int(transparent))], stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    def relay(self):
        """The stand-in for the relay, both families."""
        return [self.echo(self.gateway, "relay", family, "127.0.0.1" if family == 4 else "::1", port, True)
                for family, port in RELAY_PORTS.items()]

    def stop(self, processes):
        """Ends what echo started."""
        for process in processes:
            process.kill()
            process.wait()
            self.processes.remove(process)

    def ask(self, address, port, timeout=1.5):
        """What the client hears."""
        return run("ip", "netns", "exec", self.client, sys.executable, "-c", ASK, address, str(port), str(timeout)).strip()

    def talk(self, address, port):
        """A connection that stays: the process; its first line of output is the greeting."""
        process = subprocess.Popen(["ip", "netns", "exec", self.client, sys.executable, "-c", TALK, address, str(port)],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def objects(self, kind):
        """{name: object} of the gateway's table."""
        listing = json.loads(run("ip", "netns", "exec", self.gateway, "nft", "-j", "list", "table", "inet", "gatewayd"))
        return {o[kind]["name"]: o[kind] for o in listing["nftables"] if kind in o}

    def counter(self, name):
        """Packets of a named counter."""
        return self.objects("counter")[name]["packets"]
