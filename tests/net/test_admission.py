"""What becomes of a new connection before bytes move: its source port, and what happens when there is no room."""

import json
import os
import socket
import time
from contextlib import ExitStack, suppress

import pytest

from lab import servers, traffic
from lab.netns import run
from lab.process import wait_for

SERVERS = {4: "10.71.2.2", 6: "fd71:2::2"}
SECOND = "10.71.2.3"
ROOM = 64  # flows that the small gateway has place for


def counters(gateway):
    """The relay's counters."""
    return gateway.status()["relay"]["counters"]


def tell_port(connection, address):
    """A server that says which port it sees."""
    connection.sendall(f"{address[1]}\n".encode())
    connection.recv(1)
    connection.close()


def hold(connection, _address):
    """A server that says one byte and waits for the client's end."""
    connection.sendall(b"x")
    while connection.recv(4096):
        pass
    connection.close()


def seen_port(lab, address, port, source_port=0):
    """(own port, port that the server saw) of a connection that is then closed by the client, with a reset."""
    def bind(made):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("" if made.family == socket.AF_INET else "::", source_port))

    with lab.client.connect(address, port, before=bind) as connection:
        seen = int(connection.makefile().readline())
        own = connection.getsockname()[1]
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return own, seen


@pytest.mark.parametrize("family", (4, 6))
def test_port_is_kept(lab, gateway, family):
    """The server sees the client's own port; with source_port any it need not."""
    gateway.listener("ports", ports=["7300"])
    with servers.Peer(lab.server, SERVERS[family], 7300, tell_port):
        for _ in range(20):
            own, seen = seen_port(lab, SERVERS[family], 7300)
            assert own == seen
    assert counters(gateway)["ports_kept"] == 20
    gateway.must("PATCH", "listeners/ports", {"source_port": "any"})
    with servers.Peer(lab.server, SERVERS[family], 7300, tell_port):
        pairs = [seen_port(lab, SERVERS[family], 7300) for _ in range(20)]
    assert any(own != seen for own, seen in pairs), "the field makes no difference"
    assert counters(gateway)["ports_kept"] == 20


def test_one_port_to_two_servers(lab, gateway):
    """Two connections of the client at once with one source port, to two servers: both keep it."""
    gateway.listener("ports", ports=["7301"])

    def bind(made):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("10.71.1.2", 9471))

    with servers.Peer(lab.server, SERVERS[4], 7301, tell_port), servers.Peer(lab.server, SECOND, 7301, tell_port):
        with lab.client.connect(SERVERS[4], 7301, before=bind) as first, lab.client.connect(SECOND, 7301, before=bind) as second:
            assert [int(c.makefile().readline()) for c in (first, second)] == [9471, 9471]
    assert counters(gateway)["ports_kept"] == 2


def test_port_that_is_taken(lab, gateway):
    """Two of the client's connections that would look alike to the one target of an upstream: the second gets another
    port, is served all the same, and is counted."""
    gateway.upstream("pool", [(SERVERS[4], 7302)])
    gateway.listener("ports", ports=["7302"], destinations=[SERVERS[4], SECOND], upstream="pool")

    def bind(made):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("10.71.1.2", 9472))

    with servers.Peer(lab.server, SERVERS[4], 7302, tell_port):
        with lab.client.connect(SERVERS[4], 7302, before=bind) as first:
            assert int(first.makefile().readline()) == 9472
            with lab.client.connect(SECOND, 7302, before=bind) as second:
                assert int(second.makefile().readline()) != 9472
    assert counters(gateway)["ports_taken"] == 1


def test_port_in_time_wait(lab, gateway):
    """A client that ends first, and uses its port again at once: our socket is in TIME_WAIT, the connection is made."""
    gateway.listener("ports", ports=["7303"])
    with servers.Peer(lab.server, SERVERS[4], 7303, hold):
        for _ in range(3):
            def bind(made):
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind(("10.71.1.2", 9473))
            with lab.client.connect(SERVERS[4], 7303, before=bind) as connection:
                assert connection.recv(1) == b"x"
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""
            # The client itself forgets the connection: what is left is the gateway's TIME_WAIT.
            lab.client.run("ss", "-K", "state", "time-wait", "sport = :9473", check=False)
    assert counters(gateway)["connect_failed"] == 0


def test_privileged_port(lab, gateway):
    """A client's port below 1024 is kept like any other: the relay has the right to bind it."""
    gateway.listener("ports", ports=["7304"])
    with servers.Peer(lab.server, SERVERS[4], 7304, tell_port):
        own, seen = seen_port(lab, SERVERS[4], 7304, source_port=777)
    assert own == 777 and seen == 777
    assert (counters(gateway)["ports_kept"], counters(gateway)["ports_privileged"]) == (1, 0)


CONNTRACK = """
table inet foreign {
    chain raw { type filter hook prerouting priority filter; ct state invalid counter drop; }
    chain in { type filter hook input priority filter; ct state invalid counter drop; }
    chain out { type filter hook output priority filter; ct state invalid counter drop; }
}
"""


@pytest.fixture
def conntrack(lab):
    """Somebody's rules that make the gateway track connections and drop what is invalid."""
    lab.gateway.nft(CONNTRACK)
    yield
    lab.gateway.nft("delete table inet foreign")


def test_conntrack(lab, gateway, conntrack):
    """With conntrack in use the port is kept only towards another target, and hash-checked transfers pass."""
    process, _results = servers.traffic_server(lab, lab.server, 7305)
    gateway.listener("same", ports=["7305", "7306"])
    gateway.upstream("pool", [(SECOND, 7306)])
    gateway.listener("other", ports=["7306"], destinations=[SERVERS[4] + "/32"], upstream="pool")
    with lab.client.connect(SERVERS[4], 7305):  # the first entry in conntrack's table; the relay learns of it
        time.sleep(2.5)
    before = counters(gateway)
    for address in SERVERS.values():
        outcome = traffic.client(lab.client.connect(address, 7305), f"conntrack {address}", 2_000_000, 2_000_000)
        assert outcome["ok"], outcome
    assert counters(gateway)["ports_tracked"] - before["ports_tracked"] == 2
    with servers.Peer(lab.server, SECOND, 7306, tell_port):
        own, seen = seen_port(lab, SERVERS[4], 7306)
    assert own == seen
    listed = json.loads(lab.gateway.run("nft", "-j", "list", "table", "inet", "foreign").stdout)["nftables"]
    dropped = [e["counter"]["packets"] for o in listed if "rule" in o for e in o["rule"]["expr"] if "counter" in e]
    assert dropped == [0, 0, 0]
    process.stop()


def refused(lab, address, port, keep=None):
    """Whether a connection is reset at once. keep: an ExitStack that closes it in the end if it is not."""
    try:
        connection = (keep or ExitStack()).enter_context(lab.client.connect(address, port, timeout=3))
        return connection.recv(1) == b""
    except (ConnectionResetError, ConnectionRefusedError):
        return True


def fill(lab, stack, port, n):
    """Opens n connections that stay open and are served."""
    made = [stack.enter_context(lab.client.connect(SERVERS[4], port)) for _ in range(n)]
    for connection in made:
        assert connection.recv(1) == b"x"
    return made


def test_full_table(lab, make_gateway):
    """A full flow table: new connections are reset at once and counted, established ones go on, and room that comes
    back is used. Those of a `direct` listener go past the relay meanwhile."""
    gateway = make_gateway(args=["--max-flows", ROOM, "--threads", 1])
    gateway.listener("shut", ports=["7310"])
    gateway.listener("open", ports=["7311"], on_worker_down="direct")
    with servers.Peer(lab.server, SERVERS[4], 7310, hold), servers.Peer(lab.server, SERVERS[4], 7311, hold) as direct:
        with ExitStack() as stack:
            made = fill(lab, stack, 7310, ROOM)
            wait_for(lambda: gateway.status()["relay"]["overloaded"] and gateway.status()["relay"]["direct"], 5, "overload")
            assert all(refused(lab, SERVERS[4], 7310) for _ in range(20))
            assert counters(gateway)["refused_table_full"] == 20
            past = fill(lab, stack, 7311, 20)
            assert [a[1] for a in direct.seen] == [c.getsockname()[1] for c in past]
            assert counters(gateway)["flows_opened"] == ROOM
            for connection in made:
                connection.sendall(b"still here")
            for connection in made[:ROOM // 4]:
                connection.close()
            wait_for(lambda: not gateway.status()["relay"]["overloaded"], 5, "room again")
            assert not gateway.status()["relay"]["direct"]
            fill(lab, stack, 7311, 2)
            assert counters(gateway)["flows_opened"] == ROOM + 2
            for connection in past:  # they have begun past the relay and go on there
                connection.sendall(b"still here")
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""
    assert counters(gateway)["flows_reset"] == 0


def test_no_descriptors(lab, make_gateway):
    """No descriptor left: each new connection is reset at once and counted, the relay does not spin, established
    flows go on."""
    gateway = make_gateway(args=["--threads", 1])
    gateway.listener("shut", ports=["7312"])
    with servers.Peer(lab.server, SERVERS[4], 7312, hold), ExitStack() as stack:
        made = fill(lab, stack, 7312, 8)
        relay = gateway.relay_pid()
        limit_descriptors(relay, max(int(number) for number in os.listdir(f"/proc/{relay}/fd")) + 1)
        for _ in range(ROOM):  # until the gaps below the limit are used up
            if refused(lab, SERVERS[4], 7312, stack):
                break
        assert all(refused(lab, SERVERS[4], 7312) for _ in range(50))
        assert counters(gateway)["refused_no_descriptor"] >= 50
        time.sleep(0.5)
        used = cpu_seconds(relay)
        time.sleep(1)
        assert cpu_seconds(relay) - used < 0.5, "the relay spins"
        for connection in made:
            connection.sendall(b"still here")
        limit_descriptors(relay, 1024)
        wait_for(lambda: not gateway.status()["relay"]["overloaded"], 10, "descriptors again")
        fill(lab, stack, 7312, 2)
        for connection in made:
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""


def limit_descriptors(pid, soft):
    """Sets the soft limit of a process, as its own user: that needs no right which a container's root may lack."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        ids = {line.split()[0]: line.split()[1] for line in file if line.startswith(("Uid:", "Gid:"))}
    run("setpriv", "--reuid", ids["Uid:"], "--regid", ids["Gid:"], "--clear-groups", "prlimit", "--pid", pid,
        f"--nofile={soft}:")


def cpu_seconds(pid):
    """Processor time that a process has used."""
    with suppress(FileNotFoundError), open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100
    return 0
