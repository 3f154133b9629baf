"""What the rules rely on in the kernel, proved with the very text that is rendered (tests/golden/full.nft).

Three namespaces: a client, a gateway with that table and its routing, a server. A small relay with a transparent
socket stands in for gateway-relay: it answers "relay <original destination>"; the server answers "server <client>".
"""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def net():
    """One network for the module; each test begins with a fresh table."""
    if os.geteuid():
        pytest.skip("making network namespaces needs root")
    with Net() as made:
        yield made


@pytest.fixture
def relayed(net):
    """The network with the relay's stand-in running."""
    net.reset()
    relay = net.relay()
    yield net
    net.stop(relay)


@pytest.mark.parametrize("rp_filter", [0, 1, 2])
@pytest.mark.parametrize("src_valid_mark", [0, 1])
def test_marked_packets_are_delivered_whatever_the_reverse_path_check(relayed, src_valid_mark, rp_filter):
    """The rule with `iif lo goto` makes tproxy immune to src_valid_mark and rp_filter."""
    relayed.sysctl(src_valid_mark=src_valid_mark, rp_filter=rp_filter)
    assert relayed.ask(SERVER[4], 443) == f"relay {SERVER[4]} 443 10.9.0.2"
    assert relayed.ask(SERVER[6], 443) == f"relay {SERVER[6]} 443 fd00:9::2"


def test_without_the_goto_rule_src_valid_mark_breaks_it(relayed):
    """The negative control: were this to pass, the rule would not be needed."""
    relayed.sh(relayed.gateway, "ip rule del prio 100")
    relayed.sysctl(src_valid_mark=1)
    assert relayed.ask(SERVER[4], 443) == "TimeoutError"


@pytest.mark.parametrize("family", [4, 6])
def test_without_a_socket_tproxy_falls_through_to_the_drop(net, family):
    """A relay that is not there never means that traffic passes unseen."""
    net.reset()
    assert net.ask(SERVER[family], 443) == "TimeoutError"
    assert net.counter("no_listener_socket") >= 1


@pytest.mark.parametrize("family", [4, 6])
def test_reject_at_prerouting_answers(net, family):
    """A TCP reset is really sent from the prerouting hook, in answer to the first SYN."""
    net.reset()
    assert net.ask(SERVER[family], 25) == "ConnectionRefusedError"
    assert net.counter("rejected") == 1


@pytest.mark.parametrize("family", [4, 6])
def test_bypass_forwards(relayed, family):
    """What no stronger listener takes goes to the server, and its answers come back."""
    assert relayed.ask(SERVER[family], 9999).startswith(f"server {SERVER[family]} 9999")
    assert relayed.counter("bypassed") >= 2


@pytest.mark.parametrize("family", [4, 6])
def test_the_gateways_own_addresses_are_left_alone(net, family):
    """A listener for every destination does not catch what is meant for the gateway."""
    net.reset()
    own = net.echo(net.gateway, "own", family, GATEWAY[family], 25)
    try:
        assert net.ask(GATEWAY[family], 25).startswith("own")
        assert net.counter("rejected") == 0
    finally:
        net.stop([own])


def element_packets(net, name):
    """{key: packets} of a set whose keys are plain values or pairs."""
    return {str(e["elem"]["val"]): e["elem"]["counter"]["packets"] for e in net.objects("set")[name]["elem"]}


def test_element_counters_survive_changes_of_other_elements(relayed):
    """Deltas leave the counts of the elements that they do not name."""
    relayed.ask(SERVER[4], 443)
    before = element_packets(relayed, "tcp4_d24_s0_exact_relay")
    assert sum(before.values()) >= 1
    relayed.nft("delete element inet gatewayd tcp4_d24_s0_exact_relay {\n 10.0.0.0 . 80\n}\n"
                "add element inet gatewayd tcp4_d24_s0_exact_relay {\n 10.0.0.0 . 81,\n 10.0.7.0 . 1\n}\n")
    after = element_packets(relayed, "tcp4_d24_s0_exact_relay")
    key = next(k for k in before if "443" in k)
    assert after[key] == before[key]
    assert len(after) == len(before) + 1


def test_named_counters_survive_a_rewrite_of_the_chains(net):
    """plan_chains.nft flushes every chain; what is counted stays."""
    net.reset()
    net.ask(SERVER[4], 25)
    net.nft(file=GOLDEN / "plan_chains.nft")
    assert net.counter("rejected") == 1
    assert net.ask(SERVER[4], 25) == "ConnectionRefusedError"
    assert net.counter("rejected") == 2


def test_a_direct_flow_outlives_the_gate(net):
    """Without a socket a `direct` listener forwards; the flow goes on when the relay is back, new ones are relayed."""
    net.reset()
    talker = net.talk(DIRECT_SERVER, 8000)
    assert talker.stdout.readline().startswith("server")
    relay = net.relay()
    try:
        talker.stdin.write("still there\n")
        talker.stdin.flush()
        assert talker.stdout.readline() == "still there\n"
        assert net.ask(DIRECT_SERVER, 8000).startswith("relay")
    finally:
        talker.stdin.close()
        net.stop(relay + [talker])


def remembered(net, name):
    """How many flows a set holds, and the longest rest of time of one in it."""
    elements = [e["elem"] for e in net.objects("set")[name].get("elem", [])]
    return len(elements), max((e["expires"] for e in elements), default=0)


@pytest.mark.parametrize("name", ["direct4", "direct6"])
def test_a_full_set_of_direct_flows_is_no_way_around(net, name):
    """At its size nothing more is remembered: those in it go on, a new flow is forwarded only while no relay is there and
    then reset, like any that nobody knows; it does not pass the relay by. With room again, flows are remembered."""
    net.reset()
    size = net.objects("set")[name]["size"]
    four = name == "direct4"
    address = "10.{}.{}.{}" if four else "fd99::{}:{}:{}"
    before = net.talk(DIRECT_SERVER, 8000) if four else None
    assert not before or before.stdout.readline().startswith("server")
    count = size - (1 if four else 0)
    filler = ",\n".join(f"{address.format(200 + (n >> 16), n >> 8 & 255, n & 255)} . 1 . {'10.0.0.9' if four else 'fd99::9'} . 2"
                        for n in range(count))
    net.nft(f"add element inet gatewayd {name} {{\n{filler}\n}}\n")
    with pytest.raises(subprocess.CalledProcessError):
        net.nft(f"add element inet gatewayd {name} {{ {'10.1.1.1' if four else 'fd99::1'} . 7 . {'10.1.1.2' if four else 'fd99::2'} . 7 }}\n")
    if not four:  # no listener of the golden table is direct for IPv6: the limit itself is what there is to see
        return
    unknown, relay = net.talk(DIRECT_SERVER, 8000), []
    try:
        assert unknown.stdout.readline().startswith("server")
        relay = net.relay()
        for talker in (before, unknown):
            talker.stdin.write("still there\n")
            talker.stdin.flush()
        assert before.stdout.readline() == "still there\n"
        assert unknown.stdout.readline() != "still there\n", "it went past the relay"
        assert net.ask(DIRECT_SERVER, 8000).startswith("relay")
        net.stop(relay)
        relay = []
        net.nft("delete element inet gatewayd direct4 { 10.200.0.0 . 1 . 10.0.0.9 . 2 }\n")
        room = net.talk(DIRECT_SERVER, 8000)
        assert room.stdout.readline().startswith("server")
        relay = net.relay()
        room.stdin.write("me too\n")
        room.stdin.flush()
        assert room.stdout.readline() == "me too\n"
        net.stop([room])
    finally:
        net.stop(relay + [before, unknown])
        net.reset()


def test_direct_flows_are_forgotten_soon_after_they_end(net):
    """A FIN moves a remembered flow to a set of a minute; a half-closed one goes on; none piles up."""
    net.reset()
    talkers = [net.talk(DIRECT_SERVER, 8000) for _ in range(3)]
    half = subprocess.Popen(["ip", "netns", "exec", net.client, sys.executable, "-c", HALF, DIRECT_SERVER, "8000"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    relay = []
    try:
        assert all(t.stdout.readline().startswith("server") for t in talkers)
        assert half.stdout.readline().startswith("server")
        assert remembered(net, "direct4")[0] == 4
        for talker in talkers[:2]:
            talker.stdin.close()
            talker.wait(5)
        relay = net.relay()
        half.stdin.write("end\n")
        half.stdin.flush()
        # What was sent before its FIN comes back after it, although a relay listens now.
        assert half.stdout.readline() == "100000\n"
        assert half.wait(5) == 0
        assert remembered(net, "direct4") == (1, pytest.approx(7200, abs=60))
        count, rest = remembered(net, "closing4")
        assert count == 3 and rest <= 60
        talkers[2].stdin.write("still there\n")
        talkers[2].stdin.flush()
        assert talkers[2].stdout.readline() == "still there\n"
    finally:
        half.kill()
        net.stop(talkers + relay)


def test_the_gate_forwards_although_a_socket_listens(relayed):
    """The daemon holds the listening sockets while the relay is down; the gate is what tells the kernel."""
    relayed.nft(file=GOLDEN / "gate_open.nft")
    assert relayed.ask(DIRECT_SERVER, 8000).startswith("server")
    assert relayed.ask(SERVER[4], 443).startswith("relay")
    relayed.nft(file=GOLDEN / "gate_closed.nft")
    assert relayed.ask(DIRECT_SERVER, 8000).startswith("relay")


@pytest.mark.parametrize("family", [4, 6])
def test_replies_of_flows_that_pass_by_are_not_relayed(relayed, family):
    """A listener for every port matches the answers of a bypassed connection too; they must go through."""
    relayed.nft(f"delete element inet gatewayd tcp{family}_d0_s0_any_bypass {{\n tcp\n}}\n"
                f"add set inet gatewayd tcp{family}_d0_s0_exact_bypass {{ type inet_service; counter; }}\n"
                f"add element inet gatewayd tcp{family}_d0_s0_exact_bypass {{\n 9999\n}}\n"
                f"insert rule inet gatewayd tcp{family} th dport @tcp{family}_d0_s0_exact_bypass goto act_bypass\n"
                f"add set inet gatewayd tcp{family}_d0_s0_any_relay {{ type inet_proto; counter; }}\n"
                f"add element inet gatewayd tcp{family}_d0_s0_any_relay {{\n tcp\n}}\n"
                f"add rule inet gatewayd tcp{family} meta l4proto @tcp{family}_d0_s0_any_relay goto act_relay\n")
    talker = relayed.talk(SERVER[family], 9999)
    try:
        assert talker.stdout.readline().startswith("server")
        talker.stdin.write("through\n")
        talker.stdin.flush()
        assert talker.stdout.readline() == "through\n"
        assert relayed.counter("forwarded_replies") == 1
        assert relayed.ask(SERVER[family], 9998).startswith("relay")
    finally:
        talker.stdin.close()
        relayed.stop([talker])
