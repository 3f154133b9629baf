"""Connections that have no socket on the gateway: transparent from the first packet, and they end as others do."""

import hashlib
import json
import os
import socket
import struct
import threading
import time

import pytest

from lab import servers
from lab.process import amount, in_threads, wait_for
from lab.segments import OPTIONS, RST, SYN, Wire

from net.test_health import target_path
from net.test_sockmap import ask, echo
from net.test_stitch import FAMILIES, SERVER, TARGET, Watcher, ask_much, held_until, is_reset

pytestmark = pytest.mark.shared_gateway

OTHER = {"v4": "10.71.2.4", "v6": "fd71:2::4"}
PORT = 7970
LENIENT = {"max_retries": 2}


@pytest.fixture
def gateway(make_gateway):
    """A gateway that may use what needs a bpf file system."""
    return make_gateway(bpf=True)


def straight(gateway, name="k", ports=(PORT,), **fields):
    """A listener that wants such flows, with the kernel ready for them."""
    gateway.listener(name, ports=[str(port) for port in ports], mover="kernel", **fields)
    wait_for(lambda: gateway.status()["relay"]["movers"]["shortcut"]["state"] == "on", 5, "the program")


def flows(gateway):
    """All rows."""
    return gateway.must("GET", "/flows")["items"]


def row_of(gateway, connection):
    """The row of a client's connection; None: there is none."""
    port = connection.getsockname()[1]
    return next((row for row in flows(gateway) if row["client"]["port"] == port), None)


def movers(gateway, connection):
    """By what its bytes go, in both directions."""
    row = row_of(gateway, connection)
    return row["to_target"]["mover"], row["to_client"]["mover"]


def sockets_of(lab, port):
    """The gateway's sockets that have to do with a client's port; those of connections that are over do not count."""
    shown = lab.gateway.run("ss", "-Htan", f"( sport = :{port} or dport = :{port} )").stdout
    return [line for line in shown.splitlines() if not line.startswith("TIME-WAIT")]


def is_straight(lab, gateway, connection):
    """Whether it is listed as the kernel's, and no socket of the gateway's has its client's port."""
    assert movers(gateway, connection) == ("kernel", "kernel")
    port = connection.getsockname()[1]
    assert not sockets_of(lab, port)
    return True


def has_sockets(lab, connection):
    """How many sockets of the gateway's have to do with it."""
    return len(sockets_of(lab, connection.getsockname()[1]))


def entries(gateway, name):
    """How many there are in one of the kernel's maps."""
    directory = next((gateway.bpf / "gatewayd").glob("**/stitches")).parent
    done = gateway.lab.gateway.run("bpftool", "-j", "map", "dump", "pinned", directory / name)
    return len(json.loads(done.stdout))


def nothing_left(gateway, seconds=3):
    """No flows at once, and no entries in the maps a while later."""
    wait_for(lambda: gateway.status()["relay"]["flows"] == 0, 2, "the ends of the flows")
    wait_for(lambda: entries(gateway, "ways") == entries(gateway, "stitches") == 0, seconds, "the maps to be empty",
             interval=0.1)


def resets(connection):
    """Its end will be a reset, and not an end of stream."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return connection


def from_port(port):
    """A client's port, which others of its connections may have as well."""
    def before(made):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("", port))
    return before


class Names:
    """Servers that say who they are and whom they see, and then give back what comes."""

    def __init__(self, lab, family, ports=(PORT,), addresses=(SERVER, TARGET)):
        self.peers = [servers.Peer(lab.server, where[family], port, self.handle) for where in addresses for port in ports]

    def handle(self, connection, address):
        own = connection.getsockname()
        connection.sendall(f"{own[0]} {own[1]} {address[0]} {address[1]}\n".encode())
        echo(connection, address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for peer in self.peers:
            peer.close()


def told(connection):
    """What one of Names says: (address, port, the client's address, its port)."""
    text = b""
    while not text.endswith(b"\n"):
        piece = connection.recv(200)
        assert piece, "the stream ended"
        text += piece
    found = text.decode().split()
    return found[0], int(found[1]), found[2], int(found[3])


def drops(host, name, rule):
    """Packets that a host does not get, for the time of a with block."""
    class Rule:
        def __enter__(self):
            host.nft(f"add table inet {name}\nadd chain inet {name} in {{ type filter hook prerouting priority -400; }}\n"
                     f"add rule inet {name} in {rule}\n")
            return self

        def __exit__(self, *_):
            host.nft(f"delete table inet {name}")

        def shown(self):
            return host.run("nft", "list", "table", "inet", name).stdout
    return Rule()


# --- what it is ---

@pytest.mark.parametrize("family", FAMILIES)
def test_transparent(lab, gateway, family):
    """The server sees the client's address and port; the gateway has no socket of the connection, and lists it with all
    its bytes; what becomes of it is counted."""
    straight(gateway)
    with Names(lab, family):
        with lab.client.connect(SERVER[family], PORT) as connection:
            assert told(connection) == (SERVER[family], PORT, *connection.getsockname()[:2])
            ask(connection, b"one")
            assert is_straight(lab, gateway, connection)
            ask_much(connection, os.urandom(100_000))
            assert is_straight(lab, gateway, connection)
            wait_for(lambda: row_of(gateway, connection)["to_target"]["bytes"] == 100_003, 10, "the row's bytes")
            row = row_of(gateway, connection)
            assert row["to_client"]["bytes"] > 100_003 and row["state"] == "relaying" and row["listener"] == "k"
            found = gateway.counters()
            assert (found["flows_opened"], found["flows_closed"], found["ports_kept"]) == (1, 0, 1)
        nothing_left(gateway)
    found = gateway.counters()
    assert (found["flows_opened"], found["flows_closed"], found["flows_reset"]) == (1, 1, 0)
    assert found["bytes_to_target"] == 100_003 and found["bytes_to_client"] == row["to_client"]["bytes"]


@pytest.mark.parametrize("family", FAMILIES)
def test_much_and_half_closed(lab, gateway, family):
    """Both directions at once, much; either side may end its direction first, and what the other says still arrives."""
    straight(gateway)
    size = amount(20_000_000, 500_000_000)
    data, heard = os.urandom(size), []

    def exchange(connection, client_first, speaks_first):
        """One end: says all, and hears all. The one that does not end first waits until the other has ended."""
        ended = threading.Event()
        digest = hashlib.sha256()

        def hear():
            while piece := connection.recv(1 << 20):
                digest.update(piece)
            ended.set()
        reader = threading.Thread(target=hear)
        reader.start()
        if client_first != speaks_first:
            connection.sendall(data[:size // 2])
            assert ended.wait(60)
            connection.sendall(data[size // 2:])
        else:
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        reader.join(60)
        connection.close()
        return digest.hexdigest()

    wanted = hashlib.sha256(data).hexdigest()
    for client_first in (True, False):
        def serve(connection, _address, first=client_first):
            heard.append(exchange(connection, first, False))
        with servers.Peer(lab.server, SERVER[family], PORT, serve):
            connection = lab.client.connect(SERVER[family], PORT, timeout=60)
            assert exchange(connection, client_first, True) == wanted
            wait_for(lambda: len(heard) == 1 and heard.pop() == wanted, 10, "what the server has heard")
    nothing_left(gateway)
    found = gateway.counters()
    assert found["bytes_to_target"] == found["bytes_to_client"] == 2 * size
    assert (found["flows_closed"], found["flows_reset"]) == (2, 0)


# --- upstreams ---

@pytest.mark.parametrize("family", FAMILIES)
def test_balanced(lab, gateway, family):
    """Two targets with another address and port: each gets its share, and sees the client."""
    gateway.upstream("pool", [(SERVER[family], PORT + 1), (TARGET[family], PORT + 1)], algorithm="round_robin")
    straight(gateway, upstream="pool")
    seen = []
    with Names(lab, family, ports=(PORT + 1,)):
        for _ in range(8):
            with lab.client.connect(OTHER[family], PORT) as connection:
                answer = told(connection)
                assert answer[1:] == (PORT + 1, *connection.getsockname()[:2])
                assert is_straight(lab, gateway, connection)
                ask_much(connection, os.urandom(50_000))
                seen.append(answer[0])
        nothing_left(gateway)
    assert seen.count(SERVER[family]) >= 2 <= seen.count(TARGET[family])  # each of the relay's threads begins anew
    found = gateway.counters()
    assert found["flows_closed"] == 8 and found["ports_kept"] == 8 and found["connect_failed"] == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_refused_by_one(lab, gateway, family):
    """A target at whose port nobody is: the next one gets the SYN, and the client knows nothing of that."""
    gateway.upstream("pool", [(SERVER[family], PORT + 1), (TARGET[family], PORT + 1)], algorithm="round_robin", **LENIENT)
    straight(gateway, upstream="pool")
    with Names(lab, family, ports=(PORT + 1,), addresses=(TARGET,)):
        for _ in range(6):
            began = time.monotonic()
            with lab.client.connect(OTHER[family], PORT) as connection:
                assert told(connection) == (TARGET[family], PORT + 1, *connection.getsockname()[:2])
                assert time.monotonic() - began < 0.9, "a SYN was sent again"
                assert is_straight(lab, gateway, connection)
                ask_much(connection, os.urandom(50_000))
        nothing_left(gateway)
    found = gateway.counters()
    assert found["connect_retried"] == found["connect_failed"] > 0 == found["flows_reset"]


@pytest.mark.parametrize("family", FAMILIES)
def test_silent_one(lab, gateway, family):
    """A target that says nothing: after connect_timeout_ms the next one is asked, and the client does not notice."""
    gateway.upstream("pool", [(SERVER[family], PORT + 1), (TARGET[family], PORT + 1)], algorithm="round_robin", **LENIENT)
    straight(gateway, upstream="pool", connect_timeout_ms=400)
    silent = f"{'ip6' if family == 'v6' else 'ip'} daddr {SERVER[family]} tcp dport {PORT + 1} drop"
    with Names(lab, family, ports=(PORT + 1,)), drops(lab.server, "silent", silent):
        took = []
        for _ in range(6):
            began = time.monotonic()
            with lab.client.connect(OTHER[family], PORT) as connection:
                assert told(connection)[0] == TARGET[family]
                took.append(time.monotonic() - began)
                assert is_straight(lab, gateway, connection)
                ask_much(connection, os.urandom(50_000))
        nothing_left(gateway)
    waited = sum(t > 0.39 for t in took)
    assert waited > 0 and max(took) < 0.95, took
    found = gateway.counters()
    assert found["connect_retried"] == found["connect_timeout"] == waited and found["flows_reset"] == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_nobody_takes_it(lab, gateway, family):
    """All targets refuse, or none is up: the client is reset at once. None answers: when the time is over."""
    def refused():
        began = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            lab.client.connect(OTHER[family], PORT).close()
        return time.monotonic() - began

    gateway.upstream("pool", [(SERVER[family], PORT + 1), (TARGET[family], PORT + 1)], **LENIENT)
    straight(gateway, upstream="pool", connect_timeout_ms=300)
    assert refused() < 0.5
    wait_for(lambda: gateway.counters()["flows_reset"] == 1, 2, "the end of the flow")
    found = gateway.counters()
    assert (found["connect_failed"], found["connect_retried"]) == (2, 1)
    with drops(lab.server, "silent", f"tcp dport {PORT + 1} drop"):
        assert 0.59 < refused() < 0.95
    assert gateway.counters()["connect_timeout"] == 2
    nothing_left(gateway)
    for address in (SERVER[family], TARGET[family]):
        gateway.must("PATCH", target_path("pool", address, PORT + 1), {"admin_state": "down"})
    before = gateway.counters()
    assert refused() < 0.5
    found = gateway.counters()
    assert found["refused_no_target"] == before["refused_no_target"] + 1
    assert found["flows_opened"] == before["flows_opened"]
    # And with no upstream, where the client's own destination refuses.
    gateway.delete("listeners", "k")
    straight(gateway)
    assert refused() < 0.5
    nothing_left(gateway)


# --- the same numbers twice ---

@pytest.mark.parametrize("family", FAMILIES)
def test_same_port_twice(lab, gateway, family):
    """One client port to two addresses that have the same target: the target sees two ports, and each connection gets
    what is its own."""
    gateway.upstream("pool", [(SERVER[family], PORT + 1)])
    straight(gateway, upstream="pool")
    with Names(lab, family, ports=(PORT + 1,), addresses=(SERVER,)):
        for round_ in range(3):
            port = 9470 + round_
            with lab.client.connect(TARGET[family], PORT, before=from_port(port)) as first:
                assert told(first)[2:] == first.getsockname()[:2]
                with lab.client.connect(OTHER[family], PORT, before=from_port(port)) as second:
                    there = told(second)
                    assert there[2] == second.getsockname()[0] and there[3] != port
                    for _ in range(3):
                        ask_much(first, os.urandom(50_000))
                        ask_much(second, os.urandom(50_000))
                    assert len(flows(gateway)) == 2 and not has_sockets(lab, first)
                    assert gateway.counters()["ports_taken"] == round_ + 1
            nothing_left(gateway)
    assert gateway.counters()["flows_reset"] == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_socket_has_the_numbers(lab, gateway, family):
    """A relayed connection has the four numbers that the target would see of a straight one: that gets another port."""
    gateway.upstream("pool", [(SERVER[family], PORT + 1)])
    gateway.listener("copied", ports=[str(PORT + 2)], upstream="pool", mover="copy")
    straight(gateway, upstream="pool")
    with Names(lab, family, ports=(PORT + 1,), addresses=(SERVER,)):
        with lab.client.connect(OTHER[family], PORT + 2, before=from_port(9480)) as first:
            assert told(first)[3] == 9480
            assert movers(gateway, first) == ("copy", "copy")
            with lab.client.connect(OTHER[family], PORT, before=from_port(9480)) as second:
                assert told(second)[3] != 9480
                for _ in range(3):
                    ask_much(first, os.urandom(50_000))
                    ask_much(second, os.urandom(50_000))
                rows = {row["listener"]: row["to_target"]["mover"] for row in flows(gateway)}
                assert rows == {"copied": "copy", "k": "kernel"}
        nothing_left(gateway)
    found = gateway.counters()
    assert found["flows_reset"] == 0 and found["ports_taken"] == 1


# --- who may not ---

WITHOUT = {"a rate limit": {"rate_limits": ["many"]}, "routes": {"routes": [{"http_host": ["a"], "upstream": "pool"}]},
           "proxy_protocol": {"proxy_protocol": "v1"}, "source_address": {"source_address": "gateway"},
           "accept_proxy_protocol": {"accept_proxy_protocol": ["10.71.5.0/24"]},
           "another port": {"source_port": "any"}}


@pytest.mark.parametrize("why", [*WITHOUT, "a shared port"])
def test_who_may_not(lab, gateway, why):
    """What needs a socket on the gateway has one, and works."""
    gateway.must("PUT", "/rate-limits/many", {"key": "source", "metric": "packets", "rate": 1_000_000})
    gateway.upstream("pool", [(SERVER["v4"], PORT)])
    straight(gateway, "others", ports=(PORT + 10,))
    straight(gateway, **WITHOUT.get(why, {}))
    if why == "a shared port":
        gateway.listener("plain", ports=[f"{PORT - 3}-{PORT + 3}"], sources=["10.99.0.0/16"], mover="copy")
    with Names(lab, "v4", ports=(PORT, PORT + 10), addresses=(SERVER,)):
        with lab.client.connect(SERVER["v4"], PORT) as connection:
            if why == "routes":
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            seen = told(connection)
            assert (seen[2] == "10.71.1.2") == (why != "source_address")
            ask(connection, b"?") if why not in ("routes", "proxy_protocol") else None
            assert has_sockets(lab, connection) >= 1
            assert "kernel" not in movers(gateway, connection)
        # Another listener, with a port of its own, is not hindered.
        with lab.client.connect(SERVER["v4"], PORT + 10) as connection:
            told(connection)
            assert is_straight(lab, gateway, connection)


def attached(gateway):
    """Interface -> whether the program is there."""
    shown = gateway.status()["relay"]["movers"]["shortcut"]["interfaces"]
    return {one["interface"]: one["attached"] for one in shown}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("interface", ["in0", "out0"])
def test_interface_without_the_program(lab, gateway, interface, family):
    """Somebody else's filter has the program's place at the clients' or at the servers' interface: nothing is translated
    there, so connections are made by sockets."""
    lab.gateway.run("tc", "qdisc", "del", "dev", interface, "clsact", check=False)
    lab.gateway.run("tc", "qdisc", "add", "dev", interface, "clsact")
    try:
        lab.gateway.run("tc", "filter", "add", "dev", interface, "ingress", "pref", str(0xc000), "protocol", "all", "bpf",
                        "bytecode", "1,6 0 0 0,")
        port = PORT + 20  # for a while its connections have sockets
        straight(gateway, ports=(port,))
        wait_for(lambda: not attached(gateway)[interface], 5, "somebody else's filter to be seen")
        time.sleep(1.1)  # so long the relay knows a way to a target (STRAIGHT_WAY_MS)
        with Names(lab, family, ports=(port,), addresses=(SERVER,)):
            for _ in range(3):
                with lab.client.connect(SERVER[family], port) as connection:
                    told(connection)
                    assert has_sockets(lab, connection) >= 2
                    ask_much(connection, os.urandom(100_000))
        assert gateway.counters()["straight_flows"] == 0
    finally:
        lab.gateway.run("tc", "qdisc", "del", "dev", interface, "clsact")


# --- how it ends ---

@pytest.mark.parametrize("family", FAMILIES)
def test_killed(lab, gateway, family):
    """DELETE of the flow: both peers are reset, though they have nothing to send."""
    straight(gateway)
    watcher = Watcher()
    with servers.Peer(lab.server, SERVER[family], PORT, watcher), lab.client.connect(SERVER[family], PORT) as connection:
        ask_much(connection, os.urandom(100_000))
        assert is_straight(lab, gateway, connection)
        gateway.must("DELETE", f"/flows/{flows(gateway)[0]['id']}")
        assert is_reset(connection)
        wait_for(lambda: watcher.ends == ["ConnectionResetError"], 2, "the server's end")
        nothing_left(gateway)
    found = gateway.counters()
    assert (found["killed"], found["flows_reset"], found["flows_closed"]) == (1, 1, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_idle(lab, gateway, family):
    """Nothing moved for idle_timeout_s: both peers are reset; what moves past the relay keeps it."""
    straight(gateway, idle_timeout_s=2)
    watcher = Watcher()
    with servers.Peer(lab.server, SERVER[family], PORT, watcher), lab.client.connect(SERVER[family], PORT) as connection:
        for _ in range(14):
            ask(connection, b"still here")
            time.sleep(0.25)
        assert gateway.counters()["idle_timeout"] == 0
        assert is_straight(lab, gateway, connection)
        began = time.monotonic()
        assert is_reset(connection)
        assert time.monotonic() - began > 1.2
        wait_for(lambda: watcher.ends == ["ConnectionResetError"], 2, "the server's end")
        nothing_left(gateway)
    assert gateway.counters()["idle_timeout"] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_ban(lab, gateway, family):
    """A banned client's packets are dropped, also those of its target; when it is let in again, the flow goes on,
    whatever was sent at that moment. A new connection of a banned client does not come to be."""
    straight(gateway)
    address = getattr(lab.client, family)

    def talk(connection, end):
        """Something at any time, from either side."""
        while not end.is_set():
            connection.sendall(b"0123456789")
            time.sleep(0.002)
        connection.shutdown(socket.SHUT_WR)

    with servers.Peer(lab.server, SERVER[family], PORT, echo), \
            lab.client.connect(SERVER[family], PORT, timeout=30) as connection:
        for _ in range(3):
            ask(connection, b"before")
            gateway.must("POST", "/bans", {"address": address, "ban_s": 60, "reason": "test"})
            with pytest.raises(OSError):
                lab.client.connect(SERVER[family], PORT, timeout=0.5).close()
            held_until(lambda: gateway.must("DELETE", f"/bans?address={address}"), connection)
        with lab.client.connect(SERVER[family], PORT, timeout=30) as chatty:
            end = threading.Event()
            talker = threading.Thread(target=talk, args=(chatty, end))
            talker.start()
            try:
                assert chatty.recv(10)
                gateway.must("POST", "/bans", {"address": address, "ban_s": 60, "reason": "test"})
                time.sleep(3)
                gateway.must("DELETE", f"/bans?address={address}")
                time.sleep(1)
            finally:
                end.set()
                talker.join()
            while chatty.recv(1 << 20):
                pass
        assert is_straight(lab, gateway, connection)
    nothing_left(gateway)


@pytest.mark.parametrize("how", ["down", "drained"])
def test_target_goes(lab, gateway, how):
    """A target that is set down with on_down reset, or drained with a deadline: its flows are reset, no others."""
    family = "v4"
    gateway.upstream("pool", [(SERVER[family], PORT + 1), (TARGET[family], PORT + 1)], algorithm="round_robin",
                     on_down="reset")
    straight(gateway, upstream="pool")
    order = {"down": {"admin_state": "down"},
             "drained": {"admin_state": "drain", "drain_deadline_s": 1, "drain_reset_per_s": 100}}[how]
    with Names(lab, family, ports=(PORT + 1,)):
        made = [lab.client.connect(OTHER[family], PORT) for _ in range(6)]
        try:
            names = [told(connection)[0] for connection in made]
            assert all(is_straight(lab, gateway, connection) for connection in made)
            gateway.must("PATCH", target_path("pool", SERVER[family], PORT + 1), order)
            there = names.count(SERVER[family])
            assert there > 0
            wait_for(lambda: len(flows(gateway)) == 6 - there, 5, "the resets")
            for connection, name in zip(made, names):
                if name == SERVER[family]:
                    assert is_reset(connection)
                else:
                    ask_much(connection, os.urandom(10_000))
            found = gateway.counters()
            assert found["reset_on_down" if how == "down" else "reset_drained"] == there == found["flows_reset"]
        finally:
            for connection in made:
                connection.close()
        nothing_left(gateway)


@pytest.mark.parametrize("family", FAMILIES)
def test_given_up(lab, gateway, family):
    """A client that goes before there was an answer: with a reset, its flow ends at once; silently, when the time is
    over. Neither leaves anything, nor does a target's late answer."""
    straight(gateway, connect_timeout_ms=2000)
    address = getattr(lab.client, family)
    with Names(lab, family, addresses=(SERVER,)) as names, \
            drops(lab.server, "late", f"tcp dport {PORT} tcp flags & (syn|ack) == syn counter drop") as rule, \
            Wire(lab.client, "up0", lab.gateway, "in0") as wire:
        wire.socket.send(wire.frame(address, SERVER[family], 4567, PORT, SYN, seq=1000, options=OPTIONS))
        wait_for(lambda: len(flows(gateway)) == 1, 2, "the flow")
        wait_for(lambda: " packets 0 " not in rule.shown(), 2, "the SYN at the server")
        assert flows(gateway)[0]["state"] == "connecting"
        began = time.monotonic()
        # A stranger's does nothing.
        wire.socket.send(wire.frame(address, SERVER[family], 4567, PORT, RST, seq=77777))
        time.sleep(0.3)
        assert len(flows(gateway)) == 1
        wire.socket.send(wire.frame(address, SERVER[family], 4567, PORT, RST, seq=1001))
        wait_for(lambda: not flows(gateway), 1, "the flow's end")
        assert time.monotonic() - began < 1.5
        nothing_left(gateway)
        # One that says nothing more.
        wire.socket.send(wire.frame(address, SERVER[family], 4568, PORT, SYN, seq=1000, options=OPTIONS))
        wait_for(lambda: len(flows(gateway)) == 1, 2, "the flow")
        wait_for(lambda: not flows(gateway), 3, "the flow's end")
        nothing_left(gateway)
        assert not names.peers[0].seen
    assert gateway.counters()["connect_timeout"] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_quiet_client(lab, gateway, family):
    """Who has acknowledged the target's answer and says nothing for longer than a connect may take stays connected."""
    straight(gateway, connect_timeout_ms=300)
    with servers.Peer(lab.server, SERVER[family], PORT, echo), lab.client.connect(SERVER[family], PORT) as connection:
        time.sleep(1)
        assert is_straight(lab, gateway, connection)
        ask(connection, b"here")
        assert row_of(gateway, connection)["state"] == "relaying"
    nothing_left(gateway)


@pytest.mark.parametrize("family", FAMILIES)
def test_client_that_is_not_there(lab, gateway, family):
    """A SYN whose sender does not know of it, as those of a flood: the target answers, nobody says anything to that. Such
    a flow does not stay for as long as a connection may be idle."""
    straight(gateway, connect_timeout_ms=1000)
    address = getattr(lab.client, family)
    with Names(lab, family, addresses=(SERVER,)), drops(lab.client, "deaf", f"tcp sport {PORT} counter drop") as rule, \
            Wire(lab.client, "up0", lab.gateway, "in0") as wire:
        wire.socket.send(wire.frame(address, SERVER[family], 4569, PORT, SYN, seq=1000, options=OPTIONS))
        wait_for(lambda: len(flows(gateway)) == 1, 2, "the flow")
        wait_for(lambda: " packets 0 " not in rule.shown(), 2, "the answer")
        wait_for(lambda: not flows(gateway), 2, "the flow's end")
        nothing_left(gateway)


@pytest.mark.parametrize("mover", ["kernel", "copy"])
def test_flood(lab, gateway, mover):
    """SYNs from addresses that nobody has: those who are there get their connections all the same, and what was made for
    the others goes soon."""
    straight(gateway, "others", ports=(PORT + 10,))
    gateway.listener("k", ports=[str(PORT)], mover=mover, connect_timeout_ms=1000)
    lab.gateway.run("ip", "route", "add", "10.98.0.0/16", "via", "10.71.1.2")
    end = threading.Event()

    def flood():
        with Wire(lab.client, "up0", lab.gateway, "in0") as wire:
            for number in range(amount(20, 200)):
                if not end.is_set():
                    wire.flood(f"10.98.{number}.0/24", SERVER["v4"], PORT, 1000)

    thread = threading.Thread(target=flood)
    took = []
    try:
        with Names(lab, "v4", addresses=(TARGET, SERVER)):
            thread.start()
            while thread.is_alive():
                began = time.monotonic()
                with lab.client.connect(TARGET["v4"], PORT, timeout=20) as connection:
                    told(connection)
                    ask(connection, b"?")
                took.append(time.monotonic() - began)
                time.sleep(0.05)
            print(took, gateway.status()["relay"]["flows"], gateway.counters())
            assert sorted(took)[len(took) // 2] < 1, took
            nothing_left(gateway)
    finally:
        end.set()
        thread.join()
        lab.gateway.run("ip", "route", "del", "10.98.0.0/16", "via", "10.71.1.2")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("who", ["client", "target"])
def test_reset_by_a_peer(lab, gateway, who, family):
    """A reset reaches the other peer, and ends the flow within a second."""
    straight(gateway)
    watcher, go = Watcher(), threading.Event()

    def serve(connection, address):
        if who == "client":
            watcher(connection, address)
            return
        connection.settimeout(0.05)
        while not go.is_set():
            try:
                connection.sendall(connection.recv(1 << 16))
            except TimeoutError:
                pass
        resets(connection).close()

    with servers.Peer(lab.server, SERVER[family], PORT, serve), lab.client.connect(SERVER[family], PORT) as connection:
        ask_much(connection, os.urandom(100_000))
        assert is_straight(lab, gateway, connection)
        if who == "client":
            resets(connection).close()
            wait_for(lambda: watcher.ends == ["ConnectionResetError"], 1, "the server's end")
        else:
            go.set()
            connection.settimeout(5)
            assert is_reset(connection)
        deadline = time.monotonic() + 1
        while flows(gateway):
            assert time.monotonic() < deadline, "the flow is still there"
        nothing_left(gateway)
    found = gateway.counters()
    assert (found["flows_reset"], found["flows_closed"]) == (1, 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("first", ["client", "target", "reset"])
def test_same_port_again(lab, gateway, first, family):
    """A client's port is used again at once, 20 times in a row, whoever has ended the connection before."""
    straight(gateway)

    def serve(connection, address):
        connection.sendall(b"%d" % (address[1] % 10))
        if first == "target":
            connection.recv(1)
            connection.shutdown(socket.SHUT_WR)
        while connection.recv(1000):
            pass
        connection.close()

    with servers.Peer(lab.server, SERVER[family], PORT, serve):
        for number in range(20):
            began = time.monotonic()
            with lab.client.connect(SERVER[family], PORT, before=from_port(9467)) as connection:
                assert connection.recv(1) == b"7"
                assert time.monotonic() - began < 0.9, f"a SYN was sent again: {number}"
                assert is_straight(lab, gateway, connection)
                if first == "reset":
                    resets(connection)
                elif first == "target":
                    connection.sendall(b"!")
                    assert connection.recv(1) == b""
                else:
                    connection.shutdown(socket.SHUT_WR)
                    assert connection.recv(1) == b""
            if first == "client":  # where its port is in TIME_WAIT now
                lab.client.run("ss", "-K", "state", "time-wait", "sport", "=", ":9467", check=False)
        nothing_left(gateway)
    assert gateway.counters()["flows_opened"] == 20


# --- others on the gateway ---

def test_traced(lab, gateway):
    """While there is a trace, connections go where each packet is seen; those that are straight already go on."""
    straight(gateway)
    with Names(lab, "v4"):
        with lab.client.connect(SERVER["v4"], PORT) as before:
            told(before)
            trace = gateway.must("POST", "/trace", {"protocol": "tcp", "source": lab.client.v4,
                                                    "destination": SERVER["v4"], "destination_port": PORT,
                                                    "seconds": 300, "packets": 200})
            with lab.client.connect(SERVER["v4"], PORT) as connection:
                told(connection)
                ask_much(connection, os.urandom(10_000))
                assert has_sockets(lab, connection) == 2
            ask_much(before, os.urandom(100_000))
            gateway.must("DELETE", f"/trace/{trace['id']}")
            with lab.client.connect(SERVER["v4"], PORT) as connection:
                told(connection)
                assert is_straight(lab, gateway, connection)


@pytest.mark.parametrize("family", FAMILIES)
def test_first_bytes_in_the_syn(lab, gateway, family):
    """A client that sends bytes with its SYN (TCP Fast Open): each of them arrives, once."""
    straight(gateway)

    def fast(made):
        made.setsockopt(socket.IPPROTO_TCP, 23, 16)
    with servers.Peer(lab.server, SERVER[family], PORT, echo, before=fast), \
            lab.client.sysctls(net__ipv4__tcp_fastopen=1), lab.server.sysctls(net__ipv4__tcp_fastopen=3):
        for _ in range(3):
            with lab.client.socket(socket.AF_INET6 if family == "v6" else socket.AF_INET, timeout=None) as connection:
                assert connection.sendto(b"first", socket.MSG_FASTOPEN, (SERVER[family], PORT)) == 5
                assert connection.recv(100) == b"first"
                ask_much(connection, os.urandom(50_000))
                assert is_straight(lab, gateway, connection)
        nothing_left(gateway)


# --- many ---

def test_many(lab, gateway, figure):
    """1,000 short connections, 50 at a time, of both families: all are good, all are straight, and nothing is left."""
    gateway.upstream("pool", [(SERVER["v4"], PORT + 1), (TARGET["v4"], PORT + 1), (SERVER["v6"], PORT + 1)])
    straight(gateway)
    straight(gateway, "pooled", ports=(PORT + 2,), upstream="pool")
    total = amount(1000, 20_000)

    def some(seed):
        family = FAMILIES[seed % 2]
        for number in range(total // 50):
            with lab.client.connect(OTHER[family], PORT + 2 * (number % 2), timeout=30) as connection:
                assert told(connection)[2:] == connection.getsockname()[:2]
                ask_much(connection, os.urandom(1 + number * 700))

    with Names(lab, "v4", ports=(PORT, PORT + 1), addresses=(SERVER, TARGET, OTHER)), \
            Names(lab, "v6", ports=(PORT, PORT + 1), addresses=(SERVER, OTHER)):
        began = time.monotonic()
        in_threads([lambda seed=seed: some(seed) for seed in range(50)])
        figure("took", f"{time.monotonic() - began:.1f} s")
        nothing_left(gateway)
    found = gateway.counters()
    assert (found["flows_opened"], found["flows_closed"], found["flows_reset"]) == (total, total, 0)
    assert found["bytes_copied"] == found["bytes_spliced"] == 0
