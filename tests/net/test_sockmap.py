"""The sockmap mover: when it is chosen, forced and forbidden, and the traps of its own."""

import json
import random
import socket
import time

import pytest

from lab import servers, traffic
from lab.netns import run
from lab.process import alive, in_threads, wait_for

pytestmark = pytest.mark.shared_gateway

SERVER = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
LAYOUT = "2"  # of the maps (base/bpf_flow.h), part of the path where they are pinned


def counters(gateway):
    """The relay's counters."""
    return gateway.counters()


def echo(connection, _address):
    """Sends back what comes, at once."""
    connection.setsockopt(6, 1, 1)
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.close()


def ask(connection, message):
    """A message and its echo."""
    connection.sendall(message)
    received = b""
    while len(received) < len(message):
        piece = connection.recv(65536)
        assert piece, "the stream ended"
        received += piece
    assert received == message


@pytest.fixture
def auto(make_gateway):
    """A gateway that may use the sockmap, but decides by itself."""
    gateway = make_gateway(bpf=True)
    state, why = gateway.sockmap()
    if state != "on":
        pytest.skip(f"sockmap {state}: {why}")
    return gateway


@pytest.fixture
def echo_servers(lab):
    """Echo at ports 7900 and 7901, both families."""
    peers = [servers.Peer(lab.server, address, port, echo) for address in SERVER.values() for port in (7900, 7901)]
    yield
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_small_messages_enter_and_large_do_not(lab, auto, echo_servers, family):
    """auto: a conversation of small messages goes into the sockmap in time; large ones never do."""
    auto.listener("l", ports=["7900"])
    with lab.client.connect(SERVER[family], 7900) as small, lab.client.connect(SERVER[family], 7900) as large:
        for n in range(300):
            ask(small, b"%d" % n)
        for n in range(100):
            ask(large, bytes([n]) * 40_000)
        assert counters(auto)["sockmap_flows"] == 1
        by_port = {flow["client"]["port"]: flow for flow in auto.must("GET", "flows")["items"]}
        for way in ("to_target", "to_client"):
            flow = by_port[small.getsockname()[1]][way]
            assert (flow["mover"], flow["reason"]) == ("sockmap", "steady")
            assert by_port[large.getsockname()[1]][way]["mover"] != "sockmap"
    wait_for(lambda: auto.status()["relay"]["flows"] == 0, 10, "the flows' end")
    found = counters(auto)
    assert 0 < found["bytes_sockmap"] < 2 * 300 * 4
    assert found["bytes_to_target"] == found["bytes_to_client"] == sum(len(b"%d" % n) for n in range(300)) + 4_000_000


def test_listeners_choice(lab, auto, echo_servers):
    """A listener names its mover; the other one forbids the sockmap."""
    auto.listener("forced", ports=["7900"], mover="sockmap")
    auto.listener("forbidden", ports=["7901"], mover="copy")
    with lab.client.connect(SERVER["v4"], 7901) as connection:
        for _ in range(200):
            ask(connection, b"x")
    assert counters(auto)["sockmap_flows"] == 0
    with lab.client.connect(SERVER["v4"], 7900) as connection:
        ask(connection, b"x")
        assert counters(auto)["sockmap_flows"] == 1
    auto.must("PATCH", "listeners/forced", {"mover": "splice"})
    with lab.client.connect(SERVER["v4"], 7900) as connection:
        ask(connection, b"x")
    assert counters(auto)["sockmap_flows"] == 1
    assert auto.api("PATCH", "listeners/forced", {"mover": "magic"}).status == 422


def test_forbidden_for_all(lab, make_gateway, echo_servers):
    """--mover copy stands above what a listener says, and the status tells."""
    gateway = make_gateway(mover="copy", bpf=True)
    assert gateway.sockmap() == ("off", "forbidden by --mover")
    gateway.listener("l", ports=["7900"], mover="sockmap")
    with lab.client.connect(SERVER["v4"], 7900) as connection:
        ask(connection, b"x")
    assert counters(gateway)["sockmap_flows"] == 0


def test_nowhere_to_pin(lab, make_gateway, echo_servers):
    """Without a bpf file system: told, and flows go by copy, also those that are to use the sockmap."""
    gateway = make_gateway(bpf=False)
    state, why = gateway.sockmap()
    assert state == "off" and "bpf file system" in why
    gateway.listener("l", ports=["7900"], mover="sockmap")
    with lab.client.connect(SERVER["v4"], 7900) as connection:
        ask(connection, b"x" * 100_000)
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0, 10, "the flow's end")
    assert counters(gateway)["bytes_copied"] == 200_000


def test_daemon_dies_and_comes_back(lab, make_gateway, echo_servers):
    """Flows in the sockmap do not notice; the next daemon finds the pinned maps, and cleanup removes them."""
    gateway = make_gateway(mover="sockmap")
    gateway.listener("l", ports=["7900"])
    relay = gateway.relay_pid()
    with lab.client.connect(SERVER["v4"], 7900) as connection:
        ask(connection, b"before")
        gateway.kill()
        ask(connection, b"while there is none")
        gateway.start()
        assert gateway.sockmap() == ("on", None)
        assert gateway.relay_pid() == relay
        ask(connection, b"after")
        with lab.client.connect(SERVER["v4"], 7900) as another:
            ask(another, b"new")
            assert counters(gateway)["sockmap_flows"] >= 1
    pinned = gateway.bpf / "gatewayd"
    assert (pinned / LAYOUT / "rx").exists()
    gateway.stop()
    assert gateway.run_once("--cleanup").returncode == 0
    assert not pinned.exists()
    assert not alive(relay)


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_no_relay_at_all(lab, make_gateway, echo_servers, family):
    """The relay is dead and does not come back for a while: messages go on; the next relay counts them all."""
    gateway = make_gateway(mover="sockmap")
    gateway.listener("l", ports=["7900"])
    with lab.client.connect(SERVER[family], 7900) as connection:
        ask(connection, b"first")
        wait_for(lambda: gateway.status()["relay"]["kept"]["flows"] == 1, 5, "the flow in the daemon's hands")
        gateway.break_relay()
        for n in range(500):
            ask(connection, b"%03d" % n)
        gateway.mend_relay()
        wait_for(lambda: counters(gateway)["flows_adopted"] == 1, 15, "the next relay")
        ask(connection, b"last")
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0, 10, "the flow's end")
    found = counters(gateway)
    assert found["bytes_to_target"] == found["bytes_to_client"] == len(b"first") + 500 * 3 + len(b"last")
    assert found["flows_lost"] == 0


def test_relays_death_is_a_reset(lab, make_gateway):
    """Never a clean end behind a part of the stream: both peers see a reset, or the flow goes on."""
    gateway = make_gateway(mover="sockmap")
    gateway.listener("l", ports=["7910"])
    endings = []

    def serve(connection, _address):
        try:
            while connection.recv(65536):
                time.sleep(0.01)
            endings.append("fin")
        except ConnectionResetError:
            endings.append("rst")
        connection.close()

    with servers.Peer(lab.server, SERVER["v4"], 7910, serve):
        with lab.client.connect(SERVER["v4"], 7910) as connection:
            connection.settimeout(0.2)
            for _ in range(20):
                connection.send(b"z" * 10_000)
            gateway.kill_relay()
            try:
                for _ in range(40):
                    connection.send(b"z" * 10_000)
                    time.sleep(0.05)
            except socket.timeout:
                pass
            except OSError:
                wait_for(lambda: endings, 5, "the server's end")
    assert "fin" not in endings
    directions = gateway.bpf / "gatewayd" / LAYOUT / "directions"
    wait_for(lambda: json.loads(run("bpftool", "-j", "map", "dump", "pinned", directions).stdout) == [], 5,
             "nothing left of the flow in the maps")


def test_urgent_data(lab, make_gateway):
    """An urgent byte stays where it was in the stream."""
    gateway = make_gateway(mover="sockmap")
    gateway.listener("l", ports=["7911"])
    received = []

    def serve(connection, _address):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        data = b""
        while piece := connection.recv(1000):
            data += piece
        received.append(data)
        connection.sendall(b"end")
        connection.close()

    with servers.Peer(lab.server, SERVER["v4"], 7911, serve):
        with lab.client.connect(SERVER["v4"], 7911) as connection:
            for piece, flags in ((b"before", 0), (b"!", socket.MSG_OOB), (b"behind", 0), (b"?", socket.MSG_OOB)):
                connection.send(piece, flags)
                time.sleep(0.02)
            connection.send(b"last")
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(10) == b"end"
    assert received == [b"before!behind?last"]


@pytest.mark.parametrize("case", ["loss", "small buffers"])
def test_hard_conditions(lab, make_gateway, case):
    """Packets that the gateway's own firewall refuses (which the kernel's plainer counters count twice), or send
    buffers of one page: nothing is lost, and each stream ends behind its last byte."""
    process, _ = servers.traffic_server(lab, lab.server, 9210)
    source = random.Random(case)
    sysctls = {"net__ipv4__tcp_wmem": "4096 4096 4096"} if case == "small buffers" else {}
    if case == "loss":
        lab.gateway.nft("add table inet loss\nadd chain inet loss out { type filter hook output priority 0; }\n"
                        "add rule inet loss out tcp dport 9210 numgen random mod 1000 < 30 drop\n"
                        "add rule inet loss out tcp sport 9210 numgen random mod 1000 < 30 drop\n")
    try:
        with lab.gateway.sysctls(**sysctls):
            gateway = make_gateway(mover="sockmap")
            gateway.listener("checked", ports=["9210"])
            jobs = [lambda n=n: traffic.client(lab.client.connect(SERVER["v4"], 9210, timeout=60), f"{case} {n}",
                                               source.randrange(300_000), source.randrange(300_000),
                                               ("client", "server", "both")[n % 3]) for n in range(60)]
            outcomes = in_threads(jobs)
            assert [o for o in outcomes if not o["ok"]] == []
            assert counters(gateway)["sockmap_flows"] > 30
    finally:
        if case == "loss":
            lab.gateway.nft("delete table inet loss")
        process.stop()


# --- what stalled flows hold ---

FLOWS = 1000
# Of the relay's own sockets, so that what is measured is what the relay adds.
BUFFERS = "4096 16384 65536"
# Per flow: the limit of about 1 MiB beyond the buffers of four sockets, each with twice its size of kernel memory.
MOST = (1 << 20) + 4 * 2 * 65536


def available():
    """MemAvailable in bytes."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))


def push(connections):
    """Sends on all of them until none has taken anything for a second; bytes taken in all."""
    block, sent, quiet_since = b"s" * 65536, 0, time.monotonic()
    while time.monotonic() - quiet_since < 1:
        for connection in connections:
            try:
                sent += connection.send(block)
                quiet_since = time.monotonic()
            except BlockingIOError:
                pass
        time.sleep(0.01)
    return sent


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mover", ["copy", "splice", "sockmap"])
def test_memory_of_1000_stalled_flows(lab, make_gateway, figure, mover):
    """1,000 servers that read nothing and clients that send what is taken: the machine's memory stays bounded."""
    accepted = []
    small = lambda made: made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)

    def few(made):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)

    with lab.gateway.sysctls(net__ipv4__tcp_rmem=BUFFERS, net__ipv4__tcp_wmem=BUFFERS):
        gateway = make_gateway(mover=mover)
        gateway.listener("l", ports=["7920"])
        with servers.Peer(lab.server, SERVER["v4"], 7920, lambda c, a: accepted.append(c), backlog=4096, before=small):
            connections = [lab.client.connect(SERVER["v4"], 7920, before=few) for _ in range(FLOWS)]
            wait_for(lambda: len(accepted) == FLOWS, 20, "all connections at the server")
            before = available()
            for connection in connections:
                connection.setblocking(False)
            sent = push(connections)
            held = max(0, before - available()) / FLOWS
            figure("per stalled flow", f"taken {sent / FLOWS / 1024:.0f} KiB, memory {held / 1024:.0f} KiB")
            assert gateway.status()["relay"]["flows"] == FLOWS
            assert held < MOST
            assert sent / FLOWS < MOST
            for connection in connections + accepted:
                connection.close()
