"""Connections that have no socket on the gateway, when who serves them dies: they go on, and somebody knows them again."""

import contextlib
import hashlib
import os
import socket
import threading
import time

import pytest

from lab import servers
from lab.process import alive, wait_for

from net.test_sockmap import ask, echo
from net.test_stitch import FAMILIES, SERVER, Watcher, ask_much, is_reset
from net.test_straight import drops, flows, is_straight, nothing_left, row_of, straight

pytestmark = pytest.mark.shared_gateway

PORT = 7990


@pytest.fixture
def gateway(make_gateway):
    """A gateway that may use what needs a bpf file system."""
    return make_gateway(bpf=True)


class Transfer:
    """Much from a client and back, in a thread, slowly enough to last while others die."""

    def __init__(self, connection, size):
        self.connection, self.size, self.heard, self.errors = connection, size, 0, []
        self.digests = hashlib.sha256(), hashlib.sha256()
        self.threads = [threading.Thread(target=self.guarded, args=(what,)) for what in (self.speak, self.hear)]
        for thread in self.threads:
            thread.start()

    def guarded(self, what):
        try:
            what()
        except OSError as error:
            self.errors.append(error)

    def speak(self):
        for _ in range(self.size // 50_000):
            piece = os.urandom(50_000)
            self.digests[0].update(piece)
            self.connection.sendall(piece)
            time.sleep(0.01)
        self.connection.shutdown(socket.SHUT_WR)

    def hear(self):
        while piece := self.connection.recv(1 << 20):
            self.heard += len(piece)
            self.digests[1].update(piece)

    def is_whole(self):
        """Waits for its end; whether all has come back."""
        for thread in self.threads:
            thread.join(60)
        assert not self.errors, self.errors
        return self.heard == self.size and self.digests[0].digest() == self.digests[1].digest()


@pytest.mark.parametrize("family", FAMILIES)
def test_relay_dies(lab, gateway, family):
    """The relay is killed while a transfer runs: it goes on as if nothing had been, before the next one is there and
    behind that, and ends whole; new connections come to be straight again."""
    straight(gateway, ports=(PORT,))
    with servers.Peer(lab.server, SERVER[family], PORT, echo):
        with lab.client.connect(SERVER[family], PORT, timeout=60) as connection:
            transfer = Transfer(connection, 20_000_000)
            wait_for(lambda: transfer.heard > 1_000_000, 10, "the transfer")
            assert is_straight(lab, gateway, connection)
            before = gateway.break_relay()
            heard = transfer.heard
            wait_for(lambda: transfer.heard > heard + 3_000_000, 10, "what goes on without a relay")
            gateway.mend_relay()
            gateway.wait_relay(before, 20)
            assert transfer.is_whole()
        with lab.client.connect(SERVER[family], PORT) as connection:
            ask_much(connection, os.urandom(100_000))
            wait_for(lambda: row_of(gateway, connection), 5, "the row")
            assert is_straight(lab, gateway, connection)


@pytest.mark.parametrize("family", FAMILIES)
def test_adopted(lab, gateway, family):
    """The next relay knows the flows of one that was killed: the same id, all bytes, what went by without a relay among
    them, and it can end them; one that ended meanwhile is not shown, and nothing of it is left."""
    straight(gateway, ports=(PORT,))
    watcher = Watcher()
    with servers.Peer(lab.server, SERVER[family], PORT, watcher):
        with lab.client.connect(SERVER[family], PORT, timeout=30) as connection, \
                lab.client.connect(SERVER[family], PORT) as ends:
            ask(ends, b"soon over")
            ask_much(connection, os.urandom(300_000))
            assert is_straight(lab, gateway, connection)
            identity = row_of(gateway, connection)["id"]
            before = gateway.break_relay()
            ask_much(connection, os.urandom(300_000))
            ends.shutdown(socket.SHUT_WR)
            assert ends.recv(100) == b"the end" and ends.recv(100) == b""
            gateway.mend_relay()
            gateway.wait_relay(before, 20)
            wait_for(lambda: row_of(gateway, connection), 5, "the row")
            wait_for(lambda: row_of(gateway, connection)["to_target"]["bytes"] == 600_000, 5, "what went by")
            row = row_of(gateway, connection)
            assert row["id"] == identity and row["to_client"]["bytes"] == 600_000
            assert is_straight(lab, gateway, connection)
            wait_for(lambda: len(flows(gateway)) == 1, 5, "the end of the other one")
            ask_much(connection, os.urandom(300_000))
            wait_for(lambda: row_of(gateway, connection)["to_target"]["bytes"] == 900_000, 5, "what went by")
            gateway.must("DELETE", f"/flows/{identity}")
            assert is_reset(connection)
            wait_for(lambda: "ConnectionResetError" in watcher.ends, 2, "the server's end")
        nothing_left(gateway)
    found = gateway.counters()
    assert found["flows_opened"] == found["flows_closed"] == 2
    assert found["bytes_to_target"] == 900_009


@pytest.mark.parametrize("family", FAMILIES)
def test_ends_without_a_relay(lab, gateway, family):
    """Of many connections each other one ends while no relay lives: the next relay counts each once, whatever the one
    before was still to be told, and the others go on."""
    straight(gateway, ports=(PORT,))
    with servers.Peer(lab.server, SERVER[family], PORT, echo), contextlib.ExitStack() as stack:
        connections = [stack.enter_context(lab.client.connect(SERVER[family], PORT, timeout=20)) for _ in range(24)]
        for connection in connections:
            ask(connection, b"a word")
        assert len(flows(gateway)) == 24
        before = gateway.break_relay()
        for connection in connections[::2]:
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b""
        gateway.mend_relay()
        gateway.wait_relay(before, 20)
        for connection in connections[1::2]:
            wait_for(lambda connection=connection: row_of(gateway, connection), 5, "the row")
            ask(connection, b"another")
        wait_for(lambda: len(flows(gateway)) == 12, 5, "the ends of the others")
        for connection in connections[1::2]:
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b""
        nothing_left(gateway)
    found = gateway.counters()
    assert found["flows_opened"] == found["flows_closed"] == 24 and found["flows_reset"] == 0
    assert found["bytes_to_target"] == 24 * len(b"a word") + 12 * len(b"another")


@pytest.mark.parametrize("family", FAMILIES)
def test_handed_over(lab, gateway, family):
    """A relay that is replaced in order: a transfer does not notice, and connections that begin meanwhile are good."""
    straight(gateway, ports=(PORT,))
    with servers.Peer(lab.server, SERVER[family], PORT, echo):
        with lab.client.connect(SERVER[family], PORT, timeout=60) as connection:
            transfer = Transfer(connection, 20_000_000)
            wait_for(lambda: transfer.heard > 1_000_000, 10, "the transfer")
            before = gateway.relay_pid()
            gateway.must("POST", "/relay/restart")
            while gateway.relay_pid() in (before, None, 0) or alive(before):
                with lab.client.connect(SERVER[family], PORT) as another:
                    ask_much(another, os.urandom(20_000))
            assert transfer.is_whole()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_next_daemon(lab, gateway, family, end):
    """The relay outlives its daemon, whichever way that ends: connections are straight without one and with the next."""
    straight(gateway, ports=(PORT,))
    relay = gateway.relay_pid()
    with servers.Peer(lab.server, SERVER[family], PORT, echo), contextlib.ExitStack() as stack:
        def connect():
            connection = stack.enter_context(lab.client.connect(SERVER[family], PORT))
            ask(connection, b"a word")
            return connection

        connections = [connect()]
        getattr(gateway, end)()
        connections.append(connect())
        gateway.start()
        assert gateway.relay_pid() == relay
        connections.append(connect())
        for connection in connections:
            wait_for(lambda connection=connection: row_of(gateway, connection), 5, "the row")
            assert is_straight(lab, gateway, connection)
            ask(connection, b"another")


@pytest.mark.parametrize("family", FAMILIES)
def test_adopted_in_the_making(lab, gateway, family):
    """The relay is killed between a client's SYN and the target's answer, which never comes: the next one waits as long
    as the listener says, and tells the client."""
    straight(gateway, ports=(PORT,), connect_timeout_ms=1500)
    with drops(lab.server, "silent", f"tcp dport {PORT} drop"):
        caught = []

        def connect():
            try:
                lab.client.connect(SERVER[family], PORT, timeout=20).close()
            except OSError as error:
                caught.append(type(error).__name__)

        thread = threading.Thread(target=connect)
        thread.start()
        wait_for(lambda: flows(gateway), 5, "the flow", interval=0.02)
        before = gateway.break_relay()
        gateway.mend_relay()
        gateway.wait_relay(before, 20)
        assert flows(gateway)[0]["state"] == "connecting"
        thread.join(20)
        assert caught == ["ConnectionRefusedError"]
    nothing_left(gateway)
    assert gateway.counters()["connect_timeout"] == 1
