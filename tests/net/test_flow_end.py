"""How flows end or wait: resets, timeouts, refused targets, slow readers."""

import os
import select
import socket
import struct
import time

import pytest

from lab import servers
from lab.process import amount, descriptors, rss_kib, wait_for

pytestmark = pytest.mark.shared_gateway

SERVER = {"v4": "10.71.2.2", "v6": "fd71:2::2"}
MOVERS = ["copy", "splice", "sockmap"]
# Connections after which memory is looked at, and how much more of it there may be, in KiB.
MANY, MORE_KIB = amount((8000, 3072), (20000, 4096))
LINGER_RESET = struct.pack("ii", 1, 0)


def reset(connection):
    """Closes with a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    connection.close()


def ending(connection, timeout=5):
    """How a connection ends for its reader: "fin", "rst", "timeout" or "data"."""
    connection.settimeout(timeout)
    try:
        return "data" if connection.recv(1 << 20) else "fin"
    except ConnectionResetError:
        return "rst"
    except socket.timeout:
        return "timeout"


def no_flows(gateway):
    """Waits until the relay holds no flow."""
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0, 10, "the end of all flows")


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_silent_peers_are_asked(lab, gateway, family):
    """Both sockets of a flow that lasts have a timer for probes of at most a minute: a peer that is gone is found out."""
    gateway.listener("l", ports=["7809"])
    with servers.Peer(lab.server, SERVER[family], 7809, lambda connection, _: connection.recv(1)), \
            lab.client.connect(SERVER[family], 7809):
        def probed():
            lines = lab.gateway.run("ss", "-Htno", "( sport = :7809 or dport = :7809 )").stdout.splitlines()
            return len(lines) == 2 and all("timer:(keepalive," in l and ("sec" in l or "1min" in l) for l in lines)

        wait_for(probed, 10, "timers on both sockets")


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_a_lost_reset_is_made_good(lab, gateway, family):
    """The relay's reset does not reach the server: what the server sends next is answered with a reset, as without us."""
    gateway.listener("l", ports=["7810"])
    accepted = []
    with servers.Peer(lab.server, SERVER[family], 7810, lambda connection, _: accepted.append(connection)):
        client = lab.client.connect(SERVER[family], 7810)
        wait_for(lambda: accepted, 5, "the server's socket")
        lab.server.nft("add table inet lossy; add chain inet lossy in { type filter hook input priority 0; }; "
                       "add rule inet lossy in tcp dport 7810 tcp flags & rst == rst counter drop")
        try:
            reset(client)
            wait_for(lambda: "packets 0" not in lab.server.run("nft", "list", "table", "inet", "lossy").stdout, 5, "the reset")
        finally:
            lab.server.nft("delete table inet lossy")
        no_flows(gateway)
        accepted[0].sendall(b"anybody there?")
        assert ending(accepted[0]) == "rst"
        accepted[0].close()


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("mover", MOVERS)
def test_servers_reset_reaches_the_client(lab, make_gateway, mover, family):
    """RST in, RST out."""
    gateway = make_gateway(mover=mover)
    gateway.listener("l", ports=["7801"])

    def serve(connection, _address):
        connection.recv(10)
        reset(connection)

    with servers.Peer(lab.server, SERVER[family], 7801, serve):
        with lab.client.connect(SERVER[family], 7801) as connection:
            connection.sendall(b"x")
            assert ending(connection) == "rst"
    no_flows(gateway)


@pytest.mark.parametrize("mover", MOVERS)
def test_clients_reset_reaches_the_server(lab, make_gateway, mover):
    """The other way round."""
    gateway = make_gateway(mover=mover)
    gateway.listener("l", ports=["7802"])
    endings = []

    def serve(connection, _address):
        connection.recv(10)
        endings.append(ending(connection))
        connection.close()

    with servers.Peer(lab.server, SERVER["v4"], 7802, serve):
        connection = lab.client.connect(SERVER["v4"], 7802)
        connection.sendall(b"x")
        wait_for(lambda: gateway.counters()["bytes_to_target"] >= 1, 5, "the byte on its way")
        time.sleep(0.1)
        reset(connection)
        wait_for(lambda: endings, 5, "the server's end")
    assert endings == ["rst"]
    no_flows(gateway)


def test_an_orderly_end_is_no_reset(lab, gateway):
    """FIN in, FIN out: what was said before it arrives."""
    gateway.listener("l", ports=["7803"])

    def serve(connection, _address):
        connection.sendall(b"last words")
        connection.close()

    with servers.Peer(lab.server, SERVER["v4"], 7803, serve):
        with lab.client.connect(SERVER["v4"], 7803) as connection:
            data = b""
            while piece := connection.recv(100):
                data += piece
    assert data == b"last words"


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_refused_target(lab, gateway, family):
    """Nobody listens at the target: the client is reset, soon, and it is counted."""
    gateway.listener("l", ports=["7804"])
    with pytest.raises(ConnectionError):
        with lab.client.connect(SERVER[family], 7804, timeout=5) as connection:
            assert ending(connection) == "rst"
            raise ConnectionResetError
    assert gateway.counters()["connect_failed"] == 1
    no_flows(gateway)


def test_connect_timeout(lab, gateway, figure):
    """A target that does not answer costs connect_timeout_ms, not minutes."""
    lab.server.nft("add table inet hole\nadd chain inet hole in { type filter hook input priority 0; }\n"
                   "add rule inet hole in tcp dport 7805 drop\n")
    try:
        gateway.listener("l", ports=["7805"], connect_timeout_ms=700)
        started = time.monotonic()
        try:
            with lab.client.connect(SERVER["v4"], 7805, timeout=30) as connection:
                assert ending(connection, 30) == "rst"
        except ConnectionError:
            pass
        took = time.monotonic() - started
        figure("connect_timeout_ms 700", f"{took * 1000:.0f} ms")
        assert took > 0.6
        assert gateway.counters()["connect_timeout"] == 1
        no_flows(gateway)
    finally:
        lab.server.nft("delete table inet hole")


@pytest.mark.parametrize("mover", MOVERS)
def test_idle_timeout(lab, make_gateway, figure, mover):
    """A flow in which nothing moves is reset on both sides after idle_timeout_s; one that moves is not."""
    gateway = make_gateway(mover=mover)
    gateway.listener("l", ports=["7806"], idle_timeout_s=2)
    endings = []

    def serve(connection, _address):
        if connection.recv(4) == b"idle":
            endings.append(ending(connection, 10))
        else:
            while connection.recv(4):
                connection.sendall(b"tock")

    with servers.Peer(lab.server, SERVER["v4"], 7806, serve):
        busy = lab.client.connect(SERVER["v4"], 7806)
        busy.sendall(b"tick")
        with lab.client.connect(SERVER["v4"], 7806) as connection:
            started = time.monotonic()
            connection.sendall(b"idle")
            while not select.select([connection], [], [], 0.2)[0]:
                busy.sendall(b"tick")
                assert busy.recv(4) == b"tock"
            took = time.monotonic() - started
            assert ending(connection) == "rst"
        figure("idle_timeout_s 2", f"{took:.1f} s")
        assert took > 1.5
        wait_for(lambda: endings == ["rst"], 5, "the server's reset")
        busy.sendall(b"tick")
        assert busy.recv(4) == b"tock"
        busy.close()
    assert gateway.counters()["idle_timeout"] == 1


def fill(connection, seconds=3):
    """Sends until nothing more is taken for half a second; returns how many bytes went."""
    connection.setblocking(False)
    sent, block, deadline = 0, b"b" * 65536, time.monotonic() + seconds
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < 0.5 and time.monotonic() < deadline:
        try:
            sent += connection.send(block)
            quiet_since = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
    blocked = time.monotonic() - quiet_since >= 0.5
    return sent, blocked


@pytest.mark.parametrize("mover", MOVERS)
def test_slow_reader_stops_the_sender(lab, make_gateway, figure, mover):
    """Back-pressure: who does not read gets no more, and the relay does not hoard it; then all of it arrives."""
    gateway = make_gateway(mover=mover)
    gateway.listener("l", ports=["7807"])
    accepted, connections, sent = [], [], []
    small = lambda made: made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    rss_before = rss_kib(gateway.relay_pid())
    with servers.Peer(lab.server, SERVER["v4"], 7807, lambda c, a: accepted.append((a, c)), before=small):
        for _ in range(8):
            connections.append(lab.client.connect(SERVER["v4"], 7807))
            amount, blocked = fill(connections[-1], 10)
            assert blocked, "the sender was never stopped"
            sent.append(amount)
        rss_after = rss_kib(gateway.relay_pid())
        figure("taken from each sender before it was stopped", f"{max(sent) / 1e6:.1f} MB at most")
        figure("relay's memory, 8 stalled flows", f"{rss_before} KiB before, {rss_after} KiB after")
        assert max(sent) < 64 << 20
        assert rss_after - rss_before < 32 << 10
        for connection in connections:
            connection.setblocking(True)
            connection.shutdown(socket.SHUT_WR)
        received = sorted(drain(connection) for _, connection in accepted)
    assert received == sorted(sent)
    for connection in connections:
        connection.close()
    no_flows(gateway)


def drain(connection):
    """Reads to the end; returns how many bytes came."""
    connection.settimeout(20)
    total = 0
    while data := connection.recv(1 << 20):
        total += len(data)
    connection.close()
    return total


def test_no_target_of_the_family(lab, gateway):
    """An IPv6 client and a pool of IPv4 targets: refused and counted, not hung."""
    gateway.upstream("pool", [("10.71.2.3", 8000)])
    gateway.listener("l", ports=["7808"], upstream="pool")
    try:
        with lab.client.connect(SERVER["v6"], 7808, timeout=5) as connection:
            assert ending(connection) == "rst"
    except ConnectionError:
        pass
    assert gateway.counters()["refused_no_target"] == 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mover", MOVERS)
def test_many_connections_leave_nothing(lab, nginx, make_gateway, gwload, figure, mover):
    """Descriptors and memory of both processes, before and after thousands of connections, 20,000 in a long run; 2,000 others
    warm up."""
    gateway = make_gateway(mover=mover)
    gateway.listener("web", ports=["8000"])
    relay, daemon = gateway.relay_pid(), gateway.process.pid

    def load(total):
        out = lab.client.run(gwload, "count", SERVER["v4"], 8000, "/small", 64, total, 1, timeout=200).stdout
        assert f'"done": {total}, "refused": 0, "reset": 0, "broken": 0, "timed_out": 0' in out, out
        no_flows(gateway)
        time.sleep(0.3)
        # What both share is bounded by its size, and is touched bit by bit.
        return [(descriptors(pid), rss_kib(pid, "RssAnon")) for pid in (relay, daemon)]

    warm = load(2000)
    after = load(MANY)
    for name, before, now in zip(("relay", "daemon"), warm, after):
        figure(name, f"descriptors {before[0]} -> {now[0]}, own {before[1]} -> {now[1]} KiB")
    assert gateway.relay_pid() == relay
    for before, now in zip(warm, after):
        assert now[0] <= before[0] + 2, "descriptors grow"
        assert now[1] <= before[1] + MORE_KIB, "memory grows"
    assert os.path.exists(f"/proc/{relay}")
